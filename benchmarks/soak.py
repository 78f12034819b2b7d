"""``python -m benchmarks.soak``: whether a server that works for long grows.

One server on core 0 with everything on (tokens, a split, the embedded log under a limit of size) answers wrk on core 1,
in pieces, between which its memory, open files and the log's size are looked at. Afterwards every answer must be an
event. What this does not show: other models, several workers, Kafka, clients that come and go.
"""

import argparse
import json
import os
import secrets
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks import machine, serving
from benchmarks.load import Script, answers, need_wrk, post, wrk
from benchmarks.models import FLOATS, SEED, pack_matrix_models
from server.contract import log_schema
from server.logbook.server_counters import Counters, read_counters

RESULTS = Path(__file__).parent / "results"
CONNECTIONS = 64
PIECES = 200
LONGEST_PIECE_S = 30
SHARE = 0.1
RETENTION_BYTES = 256 * 2**20
SETTLED = 0.01
"""The part of the requests after which what a server takes once is taken: growth is counted from there."""
WORTH_KEEPING = 1_000_000


def main() -> None:
    """Runs one soak and says what grew."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000_000, help="how many at least [10,000,000]")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for soak.json and soak.md [%(default)s]")
    options = parser.parse_args()
    machine.end_cleanly_when_terminated()
    console = Console(stderr=True)
    about = machine.describe()
    console.print(about)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with tempfile.TemporaryDirectory(prefix="tiltyard-soak-") as name:
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
            task = progress.add_task("preparing", total=options.requests)

            def advance(sample: dict[str, float]) -> None:
                said = f"{sample['rss_mb']:.1f} MB, {sample['files']:.0f} files"
                progress.update(task, completed=sample["requests"], description=said)

            found = {"machine": about, **measure(Path(name), options.requests, advance)}
    text = summary(found)
    console.print(text, highlight=False, markup=False, soft_wrap=True)
    if machine.sources_digest() != about["sources"]:
        sys.exit("not written: the code changed while it was measured; run it again on a tree that nobody edits")
    if options.requests < WORTH_KEEPING:
        console.print(f"not written: only a soak of {WORTH_KEEPING:,} requests or more is")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "soak.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.out / "soak.md").write_text(text + "\n")


def measure(folder: Path, requests: int, advance: Callable[[dict[str, float]], None]) -> dict[str, Any]:
    """Returns memory, open files and the log's size over the requests, and the balance of answers and events.

    Args:
        folder: for bundles and log.
        requests: how many wrk is to ask at least.
        advance: told each sample as it is taken.
    """
    need_wrk()
    pack_matrix_models(folder / "models", versions=2)
    route = {"champion": "1", "challengers": [{"version": "2", "mode": "split", "share": SHARE}]}
    (folder / "models" / "bench" / "route.json").write_text(json.dumps(route))
    token = secrets.token_hex(16)
    digest = sha256(token.encode()).hexdigest()
    (folder / "tokens.toml").write_text(
        f'[[token]]\nname = "soak"\nsha256 = "{digest}"\nscopes = ["infer", "metrics"]\nrequests_per_s = 1e9\n'
    )
    body = serving.request_body(np.random.default_rng(SEED).normal(size=FLOATS).round(6))
    script = post(folder, serving.PATH, body.encode(), {"Authorization": f"Bearer {token}"})
    port, outbox, log = machine.free_port(), folder / "outbox.db", folder / "server.log"
    command = ["env", f"TILTYARD_EVENTS__RETENTION_BYTES={RETENTION_BYTES}"]
    command += machine.tiltyard("serve", "--models", str(folder / "models"), "--outbox", str(outbox))
    command += ["--port", str(port), "--tokens", str(folder / "tokens.toml")]
    url = f"http://127.0.0.1:{port}"
    with machine.running(machine.pinned(0, command), log) as process:
        machine.wait_until(partial(answers, url), process, log)

        def look(requests: float, requests_s: float) -> dict[str, float]:
            _settled(url, token)  # wrk's connections are gone then
            return _sample(process, outbox) | {"requests": requests, "requests_s": requests_s}

        samples = _pieces(script, url, requests, look, advance)
        counters = _settled(url, token)
    return {
        "seed": SEED,
        "connections": CONNECTIONS,
        "share": SHARE,
        "retention_bytes": RETENTION_BYTES,
        "samples": samples,
        "growth": growth(samples),
        "balance": _balance(counters, int(samples[-1]["requests"]), outbox, len(samples)),
    }


def _pieces(
    script: Script,
    url: str,
    requests: int,
    look: Callable[[float, float], dict[str, float]],
    advance: Callable[[dict[str, float]], None],
) -> list[dict[str, float]]:
    samples = [look(0, 0)]
    seconds = 1
    while samples[-1]["requests"] < requests:
        found = wrk(script, url, CONNECTIONS, seconds)
        samples.append(look(samples[-1]["requests"] + found["requests"], found["requests_s"]))
        advance(samples[-1])
        seconds = min(LONGEST_PIECE_S, max(1, round(requests / PIECES / found["requests_s"])))
    return samples


def _sample(process: subprocess.Popen[bytes], outbox: Path) -> dict[str, float]:
    files = Path(f"/proc/{process.pid}/fd")
    return {
        "rss_mb": machine.rss_mb(process),
        "files": float(len(os.listdir(files))) if files.exists() else float("nan"),
        "log_mb": sum(path.stat().st_size for path in outbox.parent.glob(outbox.name + "*")) / 2**20,
    }


def growth(samples: list[dict[str, float]]) -> dict[str, float]:
    """Returns the memory and open files at the start, once settled, and at the end, and what lies between.

    ``slope_mb`` is of a straight line through the samples from there on, in MB a million requests.
    """
    end = samples[-1]
    settled = [sample for sample in samples if sample["requests"] >= SETTLED * end["requests"] > 0]
    requests, memory = (np.array([sample[name] for sample in settled]) for name in ("requests", "rss_mb"))
    slope = float(np.polyfit(requests / 1e6, memory, 1)[0]) if len(settled) > 1 else float("nan")
    return {
        "start_mb": samples[0]["rss_mb"],
        "settled_mb": settled[0]["rss_mb"],
        "settled_at": settled[0]["requests"],
        "end_mb": end["rss_mb"],
        "highest_mb": max(sample["rss_mb"] for sample in settled),
        "slope_mb": slope,
        "growth": end["rss_mb"] / settled[0]["rss_mb"] - 1,
        "start_files": samples[0]["files"],
        "settled_files": settled[0]["files"],
        "end_files": end["files"],
    }


def _settled(url: str, token: str) -> Counters:
    """Returns the server's counters once no request is on its way and no event waits."""
    found = read_counters(url, token, None)
    while True:
        last, found = found, read_counters(url, token, None)
        if last == found and not found.waiting:
            return found


def _balance(counters: Counters, asked: int, outbox: Path, pieces: int) -> dict[str, int]:
    """Returns answers and events as they were counted, or ends the program where one has no other."""
    with closing(sqlite3.connect(outbox)) as connection:
        first, end = connection.execute(log_schema.SELECT_BOUNDS).fetchone()
    found = {
        "asked": asked,
        "answers": counters.answers,
        "audits": counters.audits,
        "logged": counters.logged,
        "dropped": counters.settled - counters.logged,
        "in_the_log": end - first,
        "retired": first,
    }
    # What wrk had asked when a piece ended was answered, and wrk did not count it.
    if not asked <= counters.answers <= asked + pieces * CONNECTIONS:
        sys.exit(f"expected an answer to every request, got {found}")
    if counters.made != counters.settled or counters.logged != end:
        sys.exit(f"expected every answer in the log or counted as dropped, got {found}")
    return found


def summary(found: dict[str, Any]) -> str:
    """Returns what a soak found, as a paragraph of Markdown."""
    grown, balance = found["growth"], found["balance"]
    rates = [sample["requests_s"] for sample in found["samples"][1:]]
    return (
        f"Soak: {balance['asked']:,} requests over {found['connections']} connections with tokens, a split of "
        f"{found['share']:.0%} and a log of at most {found['retention_bytes'] / 2**20:.0f} MB, "
        f"{machine.median(rates):,.0f} requests/s (median of {len(rates)} pieces, {rates[0]:,.0f} in the first, "
        f"{rates[-1]:,.0f} in the last): {grown['start_mb']:.1f} MB at the start, {grown['settled_mb']:.1f} MB after "
        f"{grown['settled_at']:,.0f}, **{grown['end_mb']:.1f} MB** at the end ({grown['growth']:+.1%}, highest "
        f"{grown['highest_mb']:.1f} MB; {grown['slope_mb']:+.2f} MB a million requests); open files "
        f"{grown['start_files']:.0f}, {grown['settled_files']:.0f} and {grown['end_files']:.0f}; "
        f"{balance['answers']:,} answers and {balance['audits']:,} audit events made {balance['logged']:,} events, "
        f"{balance['dropped']:,} dropped, of which {balance['in_the_log']:,} are still in the log."
    )


if __name__ == "__main__":
    main()
