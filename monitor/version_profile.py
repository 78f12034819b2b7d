"""What folding and judging need to know of one model version, compiled from its bundle."""

from collections.abc import Hashable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.contract.baseline import Baseline, FeatureBaseline
from server.contract.histogram import CategoricalBins, NumericBins
from server.contract.manifest import LabelClass, Manifest


class VersionKey(NamedTuple):
    """A version and the model it is of."""

    model: str
    version: str


class VersionProfile:
    """One version's features, score and classes, with the place of each in a pane's counts.

    A pane's ``counts`` are one vector: the cells of every feature in the signature's order, then
    those of the score. ``slices`` cut it.

    Args:
        manifest: the bundle's manifest.
        baseline: its baseline.

    Raises:
        ValueError: baseline and manifest contradict each other; the message says where.
    """

    def __init__(self, manifest: Manifest, baseline: Baseline) -> None:
        self.key = VersionKey(manifest.model, manifest.version)
        self.manifest = manifest
        self.baseline = baseline
        self.baseline_sha256 = manifest.files["baseline.json"].sha256 if "baseline.json" in manifest.files else ""
        self.features = _ordered(manifest, baseline)
        self.names = [feature.name for feature in self.features]
        self.score_bins = baseline.score.bins

        self.slices: list[slice] = []
        start = 0
        for bins in (*(feature.bins for feature in self.features), self.score_bins):
            self.slices.append(slice(start, start + bins.cells))
            start += bins.cells
        self.width = start
        self.blank_counts = np.zeros(start, dtype=np.int64)
        self.baseline_counts: list[NDArray[np.int64]] = [
            np.array(counts, dtype=np.int64)
            for counts in (*(feature.counts for feature in self.features), baseline.score.counts)
        ]
        self.category_cells = [
            _category_cells(feature, column.nullable)
            for feature, column in zip(self.features, manifest.signature.columns, strict=True)
        ]

        self.classes = 0 if manifest.task == "regression" else len(manifest.classes)
        # Python holds 1, 1.0 and True for one key, and "1" for another.
        self._places: dict[Hashable, int] = {value: i for i, value in enumerate(manifest.classes)}
        if self.classes and len(self._places) != self.classes:
            raise ValueError(f"expected classes that differ, got {manifest.classes} - at `$.classes`")
        if self.classes and len(baseline.score.class_counts) != self.classes:
            raise ValueError(
                f"expected {self.classes} class counts, got {len(baseline.score.class_counts)} "
                "- at `$.score.class_counts`"
            )
        roles = {tensor.role: tensor.name for tensor in manifest.signature.outputs}
        self.label_output = roles.get("label")
        self.probabilities_output = roles.get("probabilities")
        self.value_output = roles.get("value")

    def class_place(self, value: LabelClass | float | None) -> int:
        """Returns the place of a class in the manifest's order, -1 for what is not one.

        Numbers match by value, so 1, 1.0 and true are one class; strings match strings only.
        """
        return self._places.get(value, -1)

    @property
    def variance(self) -> float:
        """The variance of the predicted values in training, above 0: the unit of a regression's gain."""
        bins, counts = self.score_bins, self.baseline_counts[-1][:-1]
        positions = np.array([bins.edges[0], *bins.edges, bins.upper])
        total = int(counts.sum())
        if total == 0:
            return 1.0
        mean = float(counts @ positions) / total
        return float(counts @ (positions - mean) ** 2) / total or 1.0


def _category_cells(feature: FeatureBaseline, nullable: bool) -> dict[str | None, int] | None:
    """Returns the cell of every category and of what is missing, None for a numeric feature.

    A missing string has no form of its own in a graph's tensors nor in binary: it is "" there, in what rows
    become, and to the model. A column that allows missing values had no other "" in training.
    """
    if not isinstance(feature.bins, CategoricalBins):
        return None
    cells = feature.bins.index()
    if nullable:
        cells.setdefault("", cells[None])
    return cells


def _ordered(manifest: Manifest, baseline: Baseline) -> list[FeatureBaseline]:
    by_name = {feature.name: feature for feature in baseline.features}
    columns = manifest.signature.columns
    if sorted(by_name) != sorted(column.name for column in columns) or len(by_name) != len(baseline.features):
        expected = [column.name for column in columns]
        got = [feature.name for feature in baseline.features]
        raise ValueError(f"expected features {expected} as in the manifest's columns, got {got} - at `$.features`")
    for place, column in enumerate(columns):
        numeric = isinstance(by_name[column.name].bins, NumericBins)
        if numeric != (column.kind == "numeric"):
            raise ValueError(f"expected {column.kind} bins for column {column.name} - at `$.features[{place}].bins`")
    return [by_name[column.name] for column in columns]
