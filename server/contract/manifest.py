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

Task = Literal["binary", "multiclass", "regression"]
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
    classes (rows, classes), or a regression's ``value``.
    """

    name: str
    datatype: str
    shape: list[int]
    role: Literal["label", "probabilities", "value"] | None = None


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """How rows become tensors.

    Layout ``columns``: ``inputs[i]`` has shape (-1, 1) and is ``columns[i]``, by the same name.
    Layout ``matrix``: one input of shape (-1, columns), whose columns are in the order of ``columns``.
    """

    layout: Literal["columns", "matrix"]
    inputs: list[Tensor]
    outputs: list[Tensor]
    columns: list[Column]


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
    """What a bundle says of itself. ``metrics`` were measured on the table it was packed with."""

    format: Literal[1] = FORMAT
    model: str
    version: str
    created_at: datetime
    task: Task
    target: str
    classes: list[LabelClass] = []
    signature: Signature
    estimator: str
    hyperparameters: dict[str, Any]
    packages: dict[str, str]
    data: TrainingData
    metrics: dict[str, float]
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
    signature = manifest.signature
    if signature.layout == "columns":
        expected = [column.name for column in signature.columns]
        got = [tensor.name for tensor in signature.inputs]
        if expected != got:
            raise msgspec.ValidationError(f"Expected inputs {expected} as in columns, got {got} - at `$.signature`")
    elif len(signature.inputs) != 1:
        raise msgspec.ValidationError(
            f"Expected one input in layout matrix, got {len(signature.inputs)} - at `$.signature.inputs`"
        )
    if manifest.task != "regression" and len(manifest.classes) < 2:
        raise msgspec.ValidationError(
            f"Expected at least two classes for task {manifest.task}, got {manifest.classes} - at `$.classes`"
        )
    return manifest


def decode_examples(data: bytes) -> Examples:
    """Returns the examples in ``examples.json``'s bytes, or raises msgspec.DecodeError."""
    return _examples_decoder.decode(data)
