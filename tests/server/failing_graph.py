"""A graph that loads and answers its examples, and fails on some rows that fit its signature."""

import hashlib
import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def table_graph() -> bytes:
    """Returns a graph that looks its answer up by hour, 0 to 23: any other hour is beyond its table."""
    free = ["rows", 1]
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "hour"], ["value"], axis=0)],
        "by_hour",
        [
            helper.make_tensor_value_info("hour", TensorProto.INT64, free),
            helper.make_tensor_value_info("distance", TensorProto.FLOAT, free),
        ],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, free)],
        [numpy_helper.from_array(np.arange(24, dtype=np.float32), "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def write_failing(packed: Path, models: Path, version: str = "2") -> None:
    """Writes `delay` 1 as packed into a repository, and beside it another version, which is the table."""
    shutil.copytree(packed / "delay" / "1", models / "delay" / "1", dirs_exist_ok=True)
    folder = models / "delay" / version
    shutil.copytree(packed / "delay" / "1", folder)
    examples = msgspec.json.decode((folder / "examples.json").read_bytes())
    examples["outputs"][0]["data"] = examples["inputs"][0]["data"]
    replace_files(folder, {"model.onnx": table_graph(), "examples.json": msgspec.json.encode(examples)})


def write_shadowed(packed: Path, models: Path) -> Path:
    """Returns a repository with `delay`: champion 1 as packed, and shadow 2, which is the table."""
    write_failing(packed, models)
    (models / "delay" / "route.json").write_text('{"champion": "1", "challengers": [{"version": "2"}]}')
    return models


def replace_files(folder: Path, files: dict[str, bytes]) -> None:
    """Replaces files of a version's bundle; its manifest then says so, and has the folder's name as version."""
    manifest = msgspec.json.decode((folder / "bundle.json").read_bytes()) | {"version": folder.name}
    for name, data in files.items():
        (folder / name).write_bytes(data)
        manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    (folder / "bundle.json").write_bytes(msgspec.json.encode(manifest))
