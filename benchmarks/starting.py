"""From the command to the first answer of a server with two bundles, beside its imports alone."""

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.load import answers
from benchmarks.machine import free_port, median, rss_mb, running, tiltyard, wait_until
from benchmarks.models import pack_matrix_models

IMPORTS = "import numpy, onnxruntime, pydantic_settings, starlette, typer, uvicorn, uvloop"


def measure(folder: Path, rounds: int, advance: Callable[[str], None]) -> dict[str, Any]:
    """Returns the median seconds to ready and the memory then, and those of the imports alone."""
    pack_matrix_models(folder / "models", versions=2)
    starts, imports, memory = [], [], []
    for round_ in range(rounds):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", IMPORTS], check=True)
        imports.append(time.perf_counter() - began)
        log = folder / "server.log"
        port = free_port()
        command = tiltyard(
            "serve", "--models", str(folder / "models"), "--outbox", str(folder / f"{round_}.db"), "--port", str(port)
        )
        began = time.perf_counter()
        with running(command, log) as process:
            wait_until(partial(answers, f"http://127.0.0.1:{port}"), process, log)
            starts.append(time.perf_counter() - began)
            memory.append(rss_mb(process))
        advance(f"start {round_ + 1}")
    return {
        "rounds": rounds,
        "start_s": median(starts),
        "imports_s": median(imports),
        "rss_mb": median(memory),
        "runs": {"start_s": starts, "imports_s": imports, "rss_mb": memory},
    }
