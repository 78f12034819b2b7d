"""``tiltyard pack``."""

import hashlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from server.contract.manifest import MANIFEST_FILE, decode_manifest
from server.packing.errors import PackingError

# What the extra `pack` brings: when one of these is not there, the extra is not installed.
_EXTRA = ("joblib", "onnx", "pandas", "pyarrow", "sklearn", "skl2onnx")


class Layout(StrEnum):
    """How rows become tensors."""

    columns = "columns"
    matrix = "matrix"


class FloatType(StrEnum):
    """The type of numbers that are not integers."""

    fp32 = "fp32"
    fp64 = "fp64"


def pack(
    estimator: Annotated[
        str,
        typer.Option(
            metavar="FILE|MODULE:FUNCTION",
            help="The fitted scikit-learn estimator: a joblib file (loading one runs its code: open only files you "
            "trust), or a function that returns it; its module may lie in the current folder.",
        ),
    ],
    data: Annotated[Path, typer.Option(metavar="TABLE", help="The training table: .parquet or .csv.")],
    target: Annotated[str, typer.Option(metavar="COLUMN", help="The column that the estimator predicts.")],
    model: Annotated[
        str, typer.Option(metavar="NAME", help="The name clients call: letters, digits, '-', '_' and '.'.")
    ],
    out: Annotated[Path, typer.Option(metavar="MODELS", help="The folder of bundles; this one goes to MODELS/NAME/V.")],
    version: Annotated[
        str | None,
        typer.Option(metavar="V", help="The version's name; by default one more than the highest number there."),
    ] = None,
    layout: Annotated[
        Layout, typer.Option(help="One named input per column, or one matrix input (numbers only).")
    ] = Layout.columns,
    float_type: Annotated[
        FloatType, typer.Option("--float", help="The type of numbers that are not integers.")
    ] = FloatType.fp32,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="The model's columns; by default those the estimator was fitted on, or else every column but target "
            "and time.",
        ),
    ] = None,
    time: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="A column with the rows' times, recorded as the data's period.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples drawn for checks and importance.")] = 0,
) -> None:
    """Pack a fitted scikit-learn estimator and its training table into a bundle that can be served.

    The bundle holds the estimator as ONNX (checked row by row against the original), the training
    data's distributions, examples with their answers, and a model card.
    """
    console = Console(stderr=True)
    try:
        # These need the optional extra `pack`, and the root command imports this module for its help.
        from server.packing.bundle_writer import pack_bundle
        from server.packing.estimator_source import load_estimator
        from server.packing.options import PackOptions
        from server.packing.table import read_table
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        _say_error(console, f"{error.name} is not installed; run: pip install 'tiltyard[pack]'")
        raise typer.Exit(1) from error

    try:
        with console.status("loading the estimator") as status:
            loaded = load_estimator(estimator)
            status.update("reading the table")
            table = read_table(data)
            options = PackOptions(
                model=model,
                out=out,
                target=target,
                version=version,
                layout=layout.value,
                float_type=float_type.value,
                features=[name.strip() for name in features.split(",")] if features else None,
                time=time,
                seed=seed,
                data_name=data.name,
                data_sha256=_sha256(data),
            )
            folder = pack_bundle(loaded, table, options, progress=status.update)
    except PackingError as error:
        _say_error(console, str(error))
        raise typer.Exit(1) from error
    _say_done(console, folder)


def _say_error(console: Console, message: str) -> None:
    console.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True, highlight=False)


def _say_done(console: Console, folder: Path) -> None:
    manifest = decode_manifest((folder / MANIFEST_FILE).read_bytes())
    parity = manifest.parity
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in manifest.metrics.items())
    console.print(
        f"[bold green]packed[/] {escape(str(folder))}: parity on {parity['rows']:,.0f} rows, largest difference "
        f"{parity['largest_difference']:.1e} (allowed {parity['tolerance']:.1e}); on the training table {metrics}",
        soft_wrap=True,
        highlight=False,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
