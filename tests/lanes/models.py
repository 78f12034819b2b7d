"""The bundles that both lanes serve: every layout, every kind of route, and graphs that fail or mix their rows."""

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from server.packing.onnx_bundle import pack_onnx
from server.packing.options import OnnxOptions
from tests.clients.graphs import DATATYPES, write_echo
from tests.server.failing_graph import replace_files, write_failing
from tests.server.graphs import graph, node, saved, tensor

HALF = {"version": "2", "mode": "split", "share": 0.5}
RED = {"header": "x-tester", "value": "red", "version": "2"}


def write_models(packed: Path, models: Path) -> Path:
    """Returns a repository of

    - `flight` (columns) with a shadow, `grid` (matrix), as packed;
    - `delay`: half its traffic, by the customer, goes to version 2, which fails on hours beyond 23; testers too;
    - `guarded`: the same version has all the traffic, until its guard takes it out;
    - `by-header`, `by-input`: `flight` split by a header and by a column;
    - `echo` (tensors): gives back a matrix of every datatype;
    - `four` (tensors): takes four rows, no more and no fewer;
    - `mixing` (tensors) and `mixing-rows` (a table's matrix): a softmax over the rows, so each changes all.
    """
    shutil.copytree(packed, models)
    write_failing(packed, models)
    routed: dict[str, tuple[str, dict[str, Any]]] = {
        "delay": ("delay", {"challengers": [HALF], "unit": "parameter:customer", "overrides": [RED]}),
        "guarded": (
            "delay",
            {"challengers": [{**HALF, "share": 1.0, "guard": {"error_rate": 0.5, "min_requests": 3}}]},
        ),
        "by-header": ("flight", {"challengers": [HALF], "unit": "header:x-customer"}),
        "by-input": ("flight", {"challengers": [HALF], "unit": "input:carrier"}),
    }
    for name, (source, route) in routed.items():
        for version in "12":
            if name != source:
                copy_bundle(models / source / version, models / name / version)
        (models / name / "route.json").write_bytes(msgspec.json.encode({"champion": "1", "revision": 1, **route}))
    write_echo(models.parent / "echo.onnx", DATATYPES)
    pack_onnx(models.parent / "echo.onnx", OnnxOptions(model="echo", out=models))
    for name, rows in (("four", 4), ("mixing", None)):
        softmax = graph(
            [node("Softmax", "given", "shares", axis=0)],
            [tensor("given", "FP32", [rows, 2])],
            [tensor("shares", "FP32", [rows, 2])],
        )
        pack_onnx(saved(softmax, models.parent / f"{name}.onnx"), OnnxOptions(model=name, out=models))
    _write_mixing_rows(models)
    return models


def copy_bundle(source: Path, target: Path) -> None:
    """Copies a version's bundle, to a model and a version whose names are the folders'."""
    shutil.copytree(source, target)
    manifest = msgspec.json.decode((target / "bundle.json").read_bytes())
    (target / "bundle.json").write_bytes(msgspec.json.encode(manifest | {"model": target.parent.name}))
    replace_files(target, {})


def _write_mixing_rows(models: Path) -> None:
    """Writes `mixing-rows`: packed as a table's, so its layout promises what its graph does not keep."""
    target = models / "mixing-rows" / "1"
    copy_bundle(models / "grid" / "1", target)
    mixing = graph(
        [
            node("Softmax", "input", "probabilities", axis=0),
            node("ArgMax", "probabilities", "label", axis=1, keepdims=0),
        ],
        [tensor("input", "FP32", ["rows", 2])],
        [tensor("label", "INT64", ["rows"]), tensor("probabilities", "FP32", ["rows", 2])],
    )
    examples = msgspec.json.decode((target / "examples.json").read_bytes())
    given = np.array(examples["inputs"][0]["data"], np.float32).reshape(-1, 2)
    raised = np.exp(given - given.max(axis=0))
    shares = raised / raised.sum(axis=0)
    for output in examples["outputs"]:
        values = shares if output["name"] == "probabilities" else shares.argmax(axis=1)
        output["data"] = values.ravel().tolist()
    replace_files(target, {"model.onnx": mixing.SerializeToString(), "examples.json": msgspec.json.encode(examples)})
