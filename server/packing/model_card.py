"""The bundle's README.md: what the model is, what it was trained on, and how to call it."""

import json
from typing import Any

import numpy as np

from server.contract.baseline import Baseline, FeatureBaseline
from server.contract.histogram import NumericBins
from server.contract.manifest import Examples, Manifest

HOST = "http://localhost:8080"
_SHOWN_CATEGORIES = 5


def write_card(manifest: Manifest, baseline: Baseline, examples: Examples) -> str:
    """Returns the model card as Markdown."""
    return "\n".join(
        [
            f"# {manifest.model}, version {manifest.version}",
            "",
            f"{_answer(manifest)} Made by `{manifest.estimator}`, packed {manifest.created_at:%Y-%m-%d %H:%M} UTC.",
            "",
            "## Data",
            "",
            *_data(manifest),
            "",
            "## Metrics on that table",
            "",
            "These flatter the model when the table is the one it was fitted on.",
            "",
            "| metric | value |",
            "| --- | ---: |",
            *[f"| {name} | {value:.4f} |" for name, value in manifest.metrics.items()],
            "",
            "## Features",
            "",
            f"Importance is the fall of {baseline.importance_metric} when the column is shuffled. The baseline is what",
            "the monitor compares production with.",
            "",
            "| column | datatype | missing | importance | baseline |",
            "| --- | --- | --- | ---: | --- |",
            *_features(manifest, baseline),
            "",
            *_refusals(manifest),
            "## Calling it",
            "",
            *_calls(manifest, examples),
            "",
            "## How exact it is",
            "",
            f"On {manifest.parity['rows']:.0f} rows the graph and the estimator differed by"
            f" {manifest.parity['largest_difference']:.1e} at most (allowed: {manifest.parity['tolerance']:.1e}).",
            "",
        ]
    )


def _answer(manifest: Manifest) -> str:
    if manifest.task == "regression":
        return f"Predicts the number `{manifest.target}`."
    classes = ", ".join(f"`{json.dumps(one)}`" for one in manifest.classes)
    return f"Predicts `{manifest.target}`: the probabilities of {classes}."


def _data(manifest: Manifest) -> list[str]:
    data = manifest.data
    if data is None:
        return []
    lines = [f"`{data.name}`, {data.rows:,} rows with a known target, SHA-256 `{data.sha256}`."]
    if data.start is not None and data.end is not None:
        lines.append(f"From {data.start:%Y-%m-%d %H:%M} to {data.end:%Y-%m-%d %H:%M} UTC.")
    return lines


def _features(manifest: Manifest, baseline: Baseline) -> list[str]:
    allowed = {column.name: column.nullable for column in manifest.signature.columns}
    ranked = sorted(baseline.features, key=lambda feature: -feature.importance)
    return [
        f"| `{feature.name}` | {feature.datatype} | {'allowed' if allowed[feature.name] else 'no'}"
        f" | {feature.importance:.4f} | {_distribution(feature)} |"
        for feature in ranked
    ]


def _refusals(manifest: Manifest) -> list[str]:
    refusing = manifest.parity.get("columns_refusing_new", 0)
    if not refusing:
        return []
    return [
        f"Of the columns of strings, {refusing:.0f} must not bring a category that training did not have:",
        'the estimator fails on it, and so does the model. An encoder with `handle_unknown="ignore"` would not.',
        "",
    ]


def _distribution(feature: FeatureBaseline) -> str:
    rows = max(sum(feature.counts), 1)
    missing = f", {feature.counts[-1] / rows:.1%} missing" if feature.counts[-1] else ""
    if isinstance(feature.bins, NumericBins):
        return (
            f"{feature.bins.edges[0]:g} to {feature.bins.upper:g}, mean {feature.mean:.4g}, "
            f"deviation {feature.std:.4g}{missing}"
        )
    names = feature.bins.categories
    shown = ", ".join(
        f"`{name}` {count / rows:.0%}"
        for name, count in list(zip(names, feature.counts, strict=False))[:_SHOWN_CATEGORIES]
    )
    return f"{len(names)} categories: {shown}{', …' if len(names) > _SHOWN_CATEGORIES else ''}{missing}"


def _calls(manifest: Manifest, examples: Examples) -> list[str]:
    columns = manifest.signature.columns
    tensors: list[dict[str, Any]] = [
        {
            "name": tensor.name,
            "shape": [1, *tensor.shape[1:]],
            "datatype": tensor.datatype,
            "data": [short_number(value, tensor.datatype) for value in tensor.data[: tensor.shape[1]]],
        }
        for tensor in examples.inputs
    ]
    values = [value for tensor in tensors for value in tensor["data"]]
    rows = {"rows": [dict(zip((column.name for column in columns), values, strict=True))]}
    return [
        "Rows by name:",
        "",
        *curl(f"{HOST}/v1/models/{manifest.model}/predict", rows),
        "",
        "Open Inference Protocol V2:",
        "",
        *curl(f"{HOST}/v2/models/{manifest.model}/versions/{manifest.version}/infer", {"inputs": tensors}),
    ]


def short_number(value: Any, datatype: str) -> Any:
    """Returns a number in the fewest digits that give it again in its type."""
    return float(str(np.float32(value))) if datatype == "FP32" and value is not None else value


def curl(url: str, body: dict[str, Any]) -> list[str]:
    """Returns a call that a shell takes as it is."""
    written = json.dumps(body, ensure_ascii=False).replace("'", "'\\''")
    return ["```sh", f"curl {url} -d '{written}'", "```"]
