"""``bundle.json``: what a bundle is, what it takes, what it gives, and the digest of every file."""

from datetime import datetime
from typing import Any, Final, Literal

import msgspec

FORMAT: Final = 1
MANIFEST_FILE = "bundle.json"
MODEL_FILE = "model.onnx"
BASELINE_FILE = "baseline.json"
EXAMPLES_FILE = "examples.json"
CARD_FILE = "README.md"

Task = Literal["binary", "multiclass", "regression", "tensors"]
Layout = Literal["columns", "matrix", "tensors"]
LabelClass = bool | int | str


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One column of the training table that the model reads.

    ``nullable`` says that a missing value is allowed: the training data had some.
    """

    name: str
    datatype: str
    kind: Literal["numeric", "categorical"]
    nullable: bool = False


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """An input or output of the graph, as the protocol's metadata shows it; -1 is a free dimension.

    ``role`` tells what an output means: the predicted ``label``, the ``probabilities`` of the
    classes (rows, classes), or a regression's ``value``. ``symbols`` has the graph's name of each
    dimension, "" for one that is fixed or nameless: those of one name have one size in a request.
    """

    name: str
    datatype: str
    shape: list[int]
    role: Literal["label", "probabilities", "value"] | None = None
    symbols: list[str] = []


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """How rows become tensors.

    Layout ``columns``: ``inputs[i]`` has shape (-1, 1) and is ``columns[i]``, by the same name.
    Layout ``matrix``: one input of shape (-1, columns), whose columns are in the order of ``columns``.
    Layout ``tensors``: inputs of any shapes, which are no table's rows; ``columns`` is empty.
    """

    layout: Layout
    inputs: list[Tensor]
    outputs: list[Tensor]
    columns: list[Column] = []


class FileDigest(msgspec.Struct, frozen=True, kw_only=True):
    """The SHA-256 (hexadecimal) and size of one of the bundle's files."""

    sha256: str
    size_bytes: int


class TrainingData(msgspec.Struct, frozen=True, kw_only=True):
    """The table the bundle was packed with: its file name, digest, size and period."""

    name: str
    sha256: str
    rows: int
    start: datetime | None = None
    end: datetime | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle says of itself. ``metrics`` were measured on the table it was packed with.

    Task and layout ``tensors`` go together: a graph packed by itself, of which no table is known and
    which has no baseline.
    """

    format: Literal[1] = FORMAT
    model: str
    version: str
    created_at: datetime
    task: Task
    target: str = ""
    classes: list[LabelClass] = []
    signature: Signature
    estimator: str
    hyperparameters: dict[str, Any] = {}
    packages: dict[str, str]
    data: TrainingData | None = None
    metrics: dict[str, float] = {}
    parity: dict[str, float] = {}
    files: dict[str, FileDigest]


class Examples(msgspec.Struct, frozen=True, kw_only=True):
    """``examples.json``: V2 input tensors with the outputs the packed model gave for them.

    The server replays them when loading: an answer beyond ``tolerance`` (absolute, on every
    number) refuses the bundle, and the run warms the session.
    """

    tolerance: float
    inputs: list["ExampleTensor"]
    outputs: list["ExampleTensor"]


class ExampleTensor(msgspec.Struct, frozen=True, kw_only=True):
    """A V2 tensor with its data flat in row-major order, None where missing."""

    name: str
    shape: list[int]
    datatype: str
    data: list[bool | int | float | str | None]


_manifest_decoder = msgspec.json.Decoder(Manifest)
_examples_decoder = msgspec.json.Decoder(Examples)


def decode_manifest(data: bytes) -> Manifest:
    """Returns the manifest in ``bundle.json``'s bytes.

    Raises:
        msgspec.DecodeError: not JSON, not a manifest, or a signature that contradicts its layout.
    """
    manifest = _manifest_decoder.decode(data)
    signature, task = manifest.signature, manifest.task
    if (signature.layout == "tensors") != (task == "tensors"):
        raise _contradiction("layout and task tensors together", f"{signature.layout} and {task}", "signature.layout")
    if not signature.inputs:
        raise _contradiction("at least one input", "none", "signature.inputs")
    if not signature.outputs:
        raise _contradiction("at least one output", "none", "signature.outputs")
    for kind, tensors in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        names = [tensor.name for tensor in tensors]
        if len(set(names)) != len(names):
            raise _contradiction("names that differ", str(names), f"signature.{kind}")
    if signature.layout != "tensors":
        _check_table(manifest)
    return manifest


def _check_table(manifest: Manifest) -> None:
    """Refuses a table's signature whose columns, inputs and outputs do not fit each other."""
    signature, task = manifest.signature, manifest.task
    names = [column.name for column in signature.columns]
    if signature.layout == "columns":
        got = [(tensor.name, tensor.datatype, tensor.shape) for tensor in signature.inputs]
        expected = [(column.name, column.datatype, [-1, 1]) for column in signature.columns]
        if expected != got:
            raise _contradiction(f"inputs {expected} as in columns", str(got), "signature")
    else:
        shapes = [tensor.shape for tensor in signature.inputs]
        if shapes != [[-1, len(names)]]:
            raise _contradiction(f"one input of shape [-1, {len(names)}]", f"shapes {shapes}", "signature.inputs")
        datatype = signature.inputs[0].datatype
        if any(column.datatype != datatype for column in signature.columns):
            raise _contradiction(f"columns of datatype {datatype} as the matrix", "others", "signature.columns")
    if task != "regression" and len(manifest.classes) < 2:
        raise _contradiction(f"at least two classes for task {task}", str(manifest.classes), "classes")
    role = "value" if task == "regression" else "label"
    if role not in {tensor.role for tensor in signature.outputs}:
        raise _contradiction(f"an output of role {role} for task {task}", "none", "signature.outputs")


def _contradiction(expected: str, got: str, place: str) -> msgspec.ValidationError:
    return msgspec.ValidationError(f"Expected {expected}, got {got} - at `$.{place}`")


def decode_examples(data: bytes) -> Examples:
    """Returns the examples in ``examples.json``'s bytes, or raises msgspec.DecodeError."""
    return _examples_decoder.decode(data)
