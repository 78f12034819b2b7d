"""What a server does beside answering one small request at a time: swaps, workers, large tensors, many bundles.

Swaps: a load of 64 connections runs while two versions replace each other; every swap loads one, verifies
and warms it, switches, drains and frees the other. Quiet and swapping stretches alternate. Workers: one and
two processes on all cores, wrk among them. Tensors: 1 MiB of FP32, as JSON and as binary, to the same graph.
What this does not show: large graphs, networks, stores behind a URL.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
from onnx import TensorProto, helper

from benchmarks.load import Load, Script, answers, need_wrk, post, wrk
from benchmarks.machine import free_port, median, pinned, rss_mb, running, tiltyard, wait_until
from benchmarks.models import FLOATS, SEED, pack_matrix_models
from server.contract.manifest import (
    EXAMPLES_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    Examples,
    ExampleTensor,
    FileDigest,
    Manifest,
    Signature,
    Tensor,
)

CONNECTIONS = 64
BUNDLES = 100
WORKERS = (1, 2)
TENSOR_FLOATS = 262_144
TENSOR_CONNECTIONS = 4
FORMS = ("json", "binary")
EARLY_SWAPS = 100
PATH = "/v2/models/bench/infer"


def steps(rounds: int) -> int:
    """Returns how often ``measure`` will call ``advance``."""
    return 2 * rounds + len(WORKERS) * rounds + len(FORMS) * rounds + 1


def measure(folder: Path, rounds: int, seconds: int, swaps: int, advance: Callable[[str], None]) -> dict[str, Any]:
    """Returns what each of the four measurements found; swaps: how many in all."""
    need_wrk()
    pack_matrix_models(folder / "models", versions=2)
    row = np.random.default_rng(SEED).normal(size=FLOATS).round(6).tolist()
    request = {"inputs": [{"name": "input", "shape": [1, FLOATS], "datatype": "FP32", "data": row}]}
    script = post(folder, PATH, json.dumps(request).encode())
    return {
        "seed": SEED,
        "rounds": rounds,
        "seconds": seconds,
        "swaps": _swaps(folder, script, rounds, seconds, swaps, advance),
        "workers": _workers(folder, script, rounds, seconds, advance),
        "tensors": _tensors(folder, rounds, seconds, advance),
        "many": _many(folder, advance),
    }


def _swaps(
    folder: Path, script: Script, rounds: int, seconds: int, swaps: int, advance: Callable[[str], None]
) -> dict[str, Any]:
    """Returns latency with and without swaps, memory along the way, and the time of a swap."""
    quiet, swapping, ratios, took, memory = [], [], [], [], {}
    done = 0
    with _server(folder, folder / "models", core=0) as (url, process), httpx.Client(base_url=url, timeout=60) as client:
        _change(client, "unload", "2")
        wrk(script, url, CONNECTIONS, 1)
        for round_ in range(rounds):
            quiet.append(wrk(script, url, CONNECTIONS, seconds))
            advance(f"round {round_ + 1}: quiet")
            goal = swaps * (round_ + 1) // rounds
            with Load(script, url, CONNECTIONS) as load:
                while done < goal:
                    began = time.perf_counter()
                    newcomer, former = ("2", "1") if done % 2 == 0 else ("1", "2")
                    _change(client, "load", newcomer)
                    _change(client, "unload", former)
                    took.append(time.perf_counter() - began)
                    done += 1
                    if done in (EARLY_SWAPS, swaps):
                        memory[done] = rss_mb(process)
                swapping.append(load.stop())
            ratios.append(swapping[-1]["p99_us"] / quiet[-1]["p99_us"])
            advance(f"round {round_ + 1}: {done} swaps")
    return {
        "swaps": done,
        "requests": sum(run["requests"] for run in swapping),
        "failed": sum(run["failed"] for run in swapping),
        "swap_ms": median(took) * 1000,
        "quiet_p99_us": median([run["p99_us"] for run in quiet]),
        "swapping_p99_us": median([run["p99_us"] for run in swapping]),
        "p99_ratio": median(ratios),
        "rss_mb": memory,
        "runs": {"quiet": quiet, "swapping": swapping},
    }


def _workers(folder: Path, script: Script, rounds: int, seconds: int, advance: Callable[[str], None]) -> dict[str, Any]:
    """Returns requests a second of one and two worker processes, wrk on the same cores."""
    runs: dict[int, list[dict[str, float]]] = {count: [] for count in WORKERS}
    for round_ in range(rounds):
        for count in WORKERS:
            with _server(folder, folder / "models", "--workers", str(count)) as (url, _):
                wrk(script, url, CONNECTIONS, 1, core=None)
                runs[count].append(wrk(script, url, CONNECTIONS, seconds, core=None))
            advance(f"round {round_ + 1}: {count} workers")
    ratios = [two["requests_s"] / one["requests_s"] for one, two in zip(runs[1], runs[2], strict=True)]
    return {
        "requests_s": {count: median([run["requests_s"] for run in found]) for count, found in runs.items()},
        "p99_us": {count: median([run["p99_us"] for run in found]) for count, found in runs.items()},
        "ratio": median(ratios),
        "ratios": ratios,
    }


def _tensors(folder: Path, rounds: int, seconds: int, advance: Callable[[str], None]) -> dict[str, Any]:
    """Returns requests a second of 1 MiB of floats, as JSON and as binary."""
    models = folder / "tensors"
    values = np.random.default_rng(SEED).normal(size=TENSOR_FLOATS).astype(np.float32)
    _write_mean(models)
    tensor: dict[str, Any] = {"name": "x", "shape": [1, TENSOR_FLOATS], "datatype": "FP32"}
    text = json.dumps({"inputs": [{**tensor, "data": [float(f"{value:.7g}") for value in values]}]}).encode()
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": values.nbytes}}]}).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    path = "/v2/models/mean/infer"
    scripts = {"json": post(folder, path, text), "binary": post(folder, path, head + values.tobytes(), length)}
    runs: dict[str, list[dict[str, float]]] = {form: [] for form in FORMS}
    for round_ in range(rounds):
        for form in FORMS:
            with _server(folder, models, core=0) as (url, _):
                _check_mean(url + path, scripts[form], values, length if form == "binary" else {})
                wrk(scripts[form], url, TENSOR_CONNECTIONS, 1)
                runs[form].append(wrk(scripts[form], url, TENSOR_CONNECTIONS, seconds))
            advance(f"round {round_ + 1}: 1 MiB as {form}")
    ratios = [
        there["requests_s"] / here["requests_s"] for here, there in zip(runs["json"], runs["binary"], strict=True)
    ]
    return {
        "json_bytes": len(text),
        "requests_s": {form: median([run["requests_s"] for run in found]) for form, found in runs.items()},
        "p50_us": {form: median([run["p50_us"] for run in found]) for form, found in runs.items()},
        "ratio": median(ratios),
        "ratios": ratios,
    }


def _many(folder: Path, advance: Callable[[str], None]) -> dict[str, Any]:
    """Returns how long a server with a hundred models takes to start, and its memory."""
    models = folder / "many"
    source = folder / "models" / "bench" / "1"
    for number in range(BUNDLES):
        name = f"bench-{number:03}"
        target = shutil.copytree(source, models / name / "1")
        manifest = json.loads((target / "bundle.json").read_bytes())
        (target / "bundle.json").write_text(json.dumps({**manifest, "model": name}))
    began = time.perf_counter()
    with _server(folder, models, core=0) as (url, process):
        start_s = time.perf_counter() - began
        served = len(httpx.get(f"{url}/v2/models").raise_for_status().json()["models"])
        held = rss_mb(process)
    advance(f"{served} bundles")
    return {"bundles": served, "start_s": start_s, "rss_mb": held}


@contextmanager
def _server(folder: Path, models: Path, *flags: str, core: int | None = None) -> Iterator[tuple[str, Any]]:
    """Runs a server with a log of its own, held to a core or to none; gives its URL and process."""
    port = free_port()
    outbox, log = folder / "operating.db", folder / "operating.log"
    command = tiltyard("serve", "--models", str(models), "--outbox", str(outbox), "--port", str(port), *flags)
    with running(command if core is None else pinned(core, command), log) as process:
        wait_until(partial(answers, f"http://127.0.0.1:{port}"), process, log)
        yield f"http://127.0.0.1:{port}", process
    for path in folder.glob("operating.db*"):
        path.unlink()


def _change(client: httpx.Client, action: str, version: str) -> None:
    body = {"parameters": {"version": version}}
    client.post(f"/v2/repository/models/bench/{action}", json=body).raise_for_status()


def _write_mean(out: Path) -> None:
    """Writes a bundle whose graph is nearly free, so that what is measured is the way to it: the mean of each row."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", TENSOR_FLOATS])
    result = helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["rows", 1])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    node = helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=1)
    graph = helper.make_graph([node], "mean", [given], [result], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    zeros = ExampleTensor(name="x", shape=[1, TENSOR_FLOATS], datatype="FP32", data=[0.0] * TENSOR_FLOATS)
    mean = ExampleTensor(name="mean", shape=[1, 1], datatype="FP32", data=[0.0])
    examples = msgspec.json.encode(Examples(tolerance=1e-6, inputs=[zeros], outputs=[mean]))
    files = {MODEL_FILE: model.SerializeToString(), EXAMPLES_FILE: examples}
    manifest = Manifest(
        model="mean",
        version="1",
        created_at=datetime.now(UTC),
        task="tensors",
        signature=Signature(
            layout="tensors",
            inputs=[Tensor(name="x", datatype="FP32", shape=[-1, TENSOR_FLOATS])],
            outputs=[Tensor(name="mean", datatype="FP32", shape=[-1, 1])],
        ),
        estimator="the mean of each row",
        packages={},
        files={
            name: FileDigest(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
            for name, data in files.items()
        },
    )
    folder = out / "mean" / "1"
    folder.mkdir(parents=True)
    for name, data in {**files, MANIFEST_FILE: msgspec.json.encode(manifest)}.items():
        (folder / name).write_bytes(data)


def _check_mean(url: str, script: Script, values: "np.ndarray[Any, Any]", headers: dict[str, str]) -> None:
    """Holds an answer against numpy's."""
    body = script.file.with_suffix("").read_bytes()
    answer = httpx.post(url, content=body, headers=headers).raise_for_status().json()
    np.testing.assert_allclose(answer["outputs"][0]["data"], [values.mean()], atol=1e-5)
