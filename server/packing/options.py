"""What the caller of packing decides."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Layout = Literal["columns", "matrix"]
FloatType = Literal["fp32", "fp64"]


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """Everything about a bundle that neither the estimator nor the table says.

    Attributes:
        model: the logical name clients call.
        out: the repository of bundles; the bundle goes to ``out/model/version``.
        target: the table's column that the estimator predicts.
        version: None is one more than the highest number there.
        layout: one named input per column, or one matrix input.
        float_type: the type of every number that is not an integer.
        features: None is the columns the estimator was fitted on, or, where it does not know their
            names, every column but target and time.
        time: a column recorded as the data's period; it is no feature.
        seed: of every sample drawn.
        data_name: what the manifest calls the table.
        data_sha256: the digest of the table's file; None is a digest of the table's values.
    """

    model: str
    out: Path
    target: str
    version: str | None = None
    layout: Layout = "columns"
    float_type: FloatType = "fp32"
    features: list[str] | None = None
    time: str | None = None
    seed: int = 0
    data_name: str = "table"
    data_sha256: str | None = field(default=None, repr=False)

    @property
    def datatype(self) -> str:
        """The protocol's name of ``float_type``."""
        return self.float_type.upper()


@dataclass(frozen=True, kw_only=True)
class OnnxOptions:
    """Everything about a bundle of an ONNX file that the file does not say.

    Attributes:
        model: the logical name clients call.
        out: the repository of bundles; the bundle goes to ``out/model/version``.
        version: None is one more than the highest number there.
        examples: inputs to try the graph on: a V2 request in JSON, or a .npz; None makes some up.
        seed: of those made up.
    """

    model: str
    out: Path
    version: str | None = None
    examples: Path | None = None
    seed: int = 0
