"""``tiltyard pack``."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from server.contract.manifest import MANIFEST_FILE, Manifest, Tensor, decode_manifest
from server.packing.errors import PackingError
from server.packing.options import OnnxOptions, PackOptions

Progress = Callable[[str], None]

# What the extra `pack` brings: when one of these is not there, the extra is not installed.
_EXTRA = ("joblib", "onnx", "pandas", "pyarrow", "sklearn", "skl2onnx")

_ESTIMATOR = "A scikit-learn estimator and its training table"
_GRAPH = "Or any ONNX graph"


class Layout(StrEnum):
    """How rows become tensors."""

    columns = "columns"
    matrix = "matrix"


class FloatType(StrEnum):
    """The type of numbers that are not integers."""

    fp32 = "fp32"
    fp64 = "fp64"


def pack(
    model: Annotated[
        str, typer.Option(metavar="NAME", help="The name clients call: letters, digits, '-', '_' and '.'.")
    ],
    out: Annotated[Path, typer.Option(metavar="MODELS", help="The folder of bundles; this one goes to MODELS/NAME/V.")],
    version: Annotated[
        str | None,
        typer.Option(metavar="V", help="The version's name; by default one more than the highest number there."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of samples and of made-up examples.")] = 0,
    estimator: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|MODULE:FUNCTION",
            help="The fitted scikit-learn estimator: a joblib file (loading one runs its code: open only files you "
            "trust), or a function that returns it; its module may lie in the current folder.",
            rich_help_panel=_ESTIMATOR,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="TABLE", help="The training table: .parquet or .csv.", rich_help_panel=_ESTIMATOR),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="The column that the estimator predicts.", rich_help_panel=_ESTIMATOR),
    ] = None,
    layout: Annotated[
        Layout | None,
        typer.Option(
            help="One named input per column (the default), or one matrix input (numbers only).",
            rich_help_panel=_ESTIMATOR,
        ),
    ] = None,
    float_type: Annotated[
        FloatType | None,
        typer.Option(
            "--float", help="The type of numbers that are not integers; fp32 by default.", rich_help_panel=_ESTIMATOR
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="The model's columns; by default those the estimator was fitted on, or else every column but target "
            "and time.",
            rich_help_panel=_ESTIMATOR,
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="A column with the rows' times, recorded as the data's period.",
            rich_help_panel=_ESTIMATOR,
        ),
    ] = None,
    onnx: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The graph; its inputs and outputs are tensors of any shape. Weights in files beside it are embedded.",
            rich_help_panel=_GRAPH,
        ),
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Inputs to try the graph on, where made-up ones do not suit it: a V2 request (.json), or an array for "
            "each input (.npz).",
            rich_help_panel=_GRAPH,
        ),
    ] = None,
) -> None:
    """Pack a model into a bundle that can be served: a scikit-learn estimator, or any ONNX graph.

    An estimator becomes a graph that is checked against it row by row on its training table.

    The table's distributions go into the bundle too, and the monitor compares production with them.

    An ONNX graph is packed as it is and tried on examples: it is served, but not watched.
    """
    console = Console(stderr=True)
    of_estimator = {"--estimator": estimator, "--data": data, "--target": target}
    with_it = {"--layout": layout, "--float": float_type, "--features": features, "--time": time}
    mistake = _mistake(_given(of_estimator), _given(with_it), onnx is not None, examples is not None)
    if mistake is not None:
        _say_error(console, f"{mistake}; see tiltyard pack --help")
        raise typer.Exit(2)
    try:
        with console.status("starting") as status:
            if onnx is not None:
                graph_options = OnnxOptions(model=model, out=out, version=version, examples=examples, seed=seed)
                folder = _pack_graph(onnx, graph_options, status.update)
            else:
                assert estimator is not None and data is not None and target is not None  # or it were a mistake
                options = PackOptions(
                    model=model,
                    out=out,
                    target=target,
                    version=version,
                    layout=layout.value if layout else "columns",
                    float_type=float_type.value if float_type else "fp32",
                    features=[name.strip() for name in features.split(",")] if features else None,
                    time=time,
                    seed=seed,
                    data_name=data.name,
                )
                folder = _pack_estimator(estimator, data, options, status.update)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        _say_error(console, f"{error.name} is not installed; run: pip install 'tiltyard[pack]'")
        raise typer.Exit(1) from error
    except PackingError as error:
        _say_error(console, str(error))
        raise typer.Exit(1) from error
    _say_done(console, folder)


def _pack_estimator(estimator: str, data: Path, options: PackOptions, progress: Progress) -> Path:
    # These need the optional extra `pack`, and the root command imports this module for its help.
    from server.packing.bundle_writer import pack_bundle
    from server.packing.estimator_source import load_estimator
    from server.packing.table import read_table

    progress("loading the estimator")
    loaded = load_estimator(estimator)
    progress("reading the table")
    table = read_table(data)
    return pack_bundle(loaded, table, replace(options, data_sha256=_sha256(data)), progress)


def _pack_graph(path: Path, options: OnnxOptions, progress: Progress) -> Path:
    # As above.
    from server.packing.onnx_bundle import pack_onnx

    return pack_onnx(path, options, progress)


def _given(options: Mapping[str, object]) -> list[str]:
    return [flag for flag, value in options.items() if value is not None]


def _mistake(of_estimator: list[str], with_it: list[str], graph: bool, examples: bool) -> str | None:
    """Returns what is missing or too much among the flags that were given, None for a sound choice."""
    if graph:
        extra = of_estimator + with_it
        return f"--onnx goes without {' and '.join(extra)}" if extra else None
    if examples:
        return "--examples goes with --onnx only"
    missing = [flag for flag in ("--estimator", "--data", "--target") if flag not in of_estimator]
    if len(missing) == 3:
        return "expected --onnx, or else --estimator, --data and --target"
    return f"{' and '.join(missing)} missing: --estimator, --data and --target go together" if missing else None


def _say_error(console: Console, message: str) -> None:
    console.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True, highlight=False)


def _say_done(console: Console, folder: Path) -> None:
    manifest = decode_manifest((folder / MANIFEST_FILE).read_bytes())
    console.print(
        f"[bold green]packed[/] {escape(str(folder))}: {escape(_summary(manifest))}", soft_wrap=True, highlight=False
    )


def _summary(manifest: Manifest) -> str:
    if manifest.task == "tensors":
        inputs = ", ".join(_shown(tensor) for tensor in manifest.signature.inputs)
        outputs = ", ".join(_shown(tensor) for tensor in manifest.signature.outputs)
        return f"takes {inputs}; gives {outputs}"
    parity = manifest.parity
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in manifest.metrics.items())
    return (
        f"parity on {parity['rows']:,.0f} rows, largest difference {parity['largest_difference']:.1e} "
        f"(allowed {parity['tolerance']:.1e}); on the training table {metrics}"
    )


def _shown(tensor: Tensor) -> str:
    return f"{tensor.name} {tensor.datatype} {tensor.shape}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
