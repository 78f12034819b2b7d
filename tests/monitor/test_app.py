import random
import shutil
import signal
import socket
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monitor.state_store import Changes, Log, Position, StateStore

_CRASHES = 3


@pytest.fixture
def folder(tmp_path: Path, models: Path) -> Path:
    assert models == tmp_path / "models"
    return tmp_path


def _content(state: Path) -> dict[str, list[Any]]:
    """Returns every row of a state file, to the bit."""
    database = sqlite3.connect(state)
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
    rows = {name: sorted(database.execute(f"SELECT * FROM {name}").fetchall()) for name in tables}
    database.close()
    return rows


def _stream(events: Any, requests: int) -> list[list[Any]]:
    """Returns chunks of two versions with labels late and early, corrections, duplicates and junk."""
    chance = random.Random(11)
    found: list[Any] = []
    for number in range(requests):
        name, at_s, p = f"r{number}", number * 0.5, chance.random()
        found += [events.answer(name, at_s, p=[p]), events.answer(name, at_s, p=[p**2], version="2", role="shadow")]
        other = chance.randrange(number + 1)
        found.append(events.label(f"r{other}", chance.randrange(2), at_s, event_id=f"l{chance.randrange(requests)}"))
        if number % 50 == 0:
            found += [b"junk", events.answer("x", version="9"), found[-3]]
    return [found[start : start + 25] for start in range(0, len(found), 25)]


def test_kill_minus_nine_changes_no_number(folder: Path, outbox_writer: Any, events: Any, monitor_process: Any) -> None:
    """A monitor killed again and again while the log grows ends with the same state, to the bit."""
    chunks, chance = _stream(events, 2500), random.Random(2)
    writer = outbox_writer(folder / "outbox.db")
    small = {"TILTYARD_MONITOR_BATCH_EVENTS": "100", "TILTYARD_MONITOR_COMMIT_S": "0.01"}
    total = sum(map(len, chunks))
    stops = sorted(chance.sample(range(len(chunks) // 4, len(chunks)), _CRASHES))

    killed = []
    for begin, end in zip([0, *stops], stops, strict=False):
        monitor = monitor_process(folder, "crashed.db", **small)
        aim = sum(map(len, chunks[: chance.randint(begin, end)]))
        # The log grows while the monitor reads, so that it is killed in mid-stream.
        growing = threading.Thread(target=_write_all, args=(writer, chunks[begin:end]))
        growing.start()
        monitor.wait_for(lambda health, aim=aim: health["source"]["offset"] >= aim)
        monitor.kill()
        growing.join()
        killed.append(_content(folder / "crashed.db")["partitions"])
    _write_all(writer, chunks[stops[-1] :])
    for state in ("crashed.db", "undisturbed.db"):
        monitor = monitor_process(folder, state, **(small if state == "crashed.db" else {}))
        monitor.wait_for(lambda health: health["source"]["offset"] == total)
        status, _, _ = monitor.stop()
        assert status == 0

    crashed, undisturbed = _content(folder / "crashed.db"), _content(folder / "undisturbed.db")
    assert len({offset for [(_, offset, *_)] in killed}) == _CRASHES
    assert undisturbed["panes"]
    assert undisturbed["comparison_panes"]
    assert undisturbed["dead_letters"]
    assert undisturbed == crashed


def _write_all(writer: Any, chunks: list[list[Any]]) -> None:
    for chunk in chunks:
        writer.write(chunk)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_cleanly_in_mid_stream(
    folder: Path, outbox_writer: Any, events: Any, monitor_process: Any, number: int
) -> None:
    """Told to stop with much unread, it commits what it folded and exits with 0, soon and without a traceback."""
    writer = outbox_writer(folder / "outbox.db")
    for chunk in _stream(events, 3000):
        writer.write(chunk)
    # Nothing is committed before the end but by being told to stop.
    monitor = monitor_process(folder, TILTYARD_MONITOR_BATCH_EVENTS="10000", TILTYARD_MONITOR_COMMIT_S="1000")
    seen = monitor.wait_for(lambda health: health["source"]["offset"] > 0)["source"]["offset"]

    status, errors, took_s = monitor.stop(number)

    assert (0, False) == (status, "Traceback" in errors)
    assert took_s < 5  # 2 s on an idle machine
    [(_, offset, watermark_us, *_)] = _content(folder / "monitor.db")["partitions"]
    assert offset >= seen
    assert watermark_us > 0


def test_it_waits_for_the_log_and_for_bundles(
    folder: Path, outbox_writer: Any, bundle_writer: Callable[..., Path], events: Any, monitor_process: Any
) -> None:
    """Started before the server, it says that it waits, and reads the log and a version packed later when they come."""
    monitor = monitor_process(folder)
    waiting = monitor.health()
    bundle_writer(folder / "models", version="3")
    outbox_writer(folder / "outbox.db").write([events.answer("a", version="3")])

    found = monitor.wait_for(lambda health: health["source"]["offset"] == 1)

    assert ("ok", "waiting for the outbox") == (waiting["status"], waiting["reason"])
    assert (1, 0) == (found["counters"]["prediction"], found["counters"]["unknown_version"])
    assert "delay/3" in found["bundles"]["watched"]


def test_a_damaged_bundle_does_not_stop_the_others(
    folder: Path, outbox_writer: Any, events: Any, monitor_process: Any
) -> None:
    """One version's unreadable baseline is named in the log and in /health; the other version is watched."""
    baseline = folder / "models" / "delay" / "1" / "baseline.json"
    baseline.write_bytes(b"{}")
    outbox_writer(folder / "outbox.db").write([events.answer("a"), events.answer("b", version="2")])
    monitor = monitor_process(folder)

    found = monitor.wait_for(lambda health: health["source"]["offset"] == 2)

    assert list(found["bundles"]["refused"]) == ["delay/1"]
    assert "baseline.json: expected SHA-256" in found["bundles"]["refused"]["delay/1"]
    assert (1, 1) == (found["counters"]["unknown_version"], found["counters"]["prediction"] - 1)
    status, errors, _ = monitor.stop()
    assert (0, True, False) == (status, "baseline.json: expected SHA-256" in errors, "Traceback" in errors)


def test_a_log_that_breaks_turns_health_to_503(
    folder: Path, outbox_writer: Any, events: Any, monitor_process: Any
) -> None:
    """When the log is gone the monitor keeps answering, and /health and the metrics say why it stands still."""
    outbox_writer(folder / "outbox.db").write([events.answer("a")])
    monitor = monitor_process(folder)
    monitor.wait_for(lambda health: health["source"]["offset"] == 1)
    (folder / "outbox.db").unlink()

    found = monitor.wait_for(lambda health: health["status"] == "failing")

    assert "removed or replaced" in found["reason"]
    assert monitor.client.get("/health").status_code == 503
    assert "tiltyard_monitor_up 0.0" in monitor.client.get("/metrics").text
    assert monitor.client.get("/v1/models").status_code == 200
    assert monitor.stop()[0] == 0


def test_gaps_and_corrupt_chunks_are_counted(
    folder: Path, outbox_writer: Any, events: Any, monitor_process: Any
) -> None:
    """What was trimmed or is damaged is counted, the damaged part is kept aside, and the rest is folded."""
    writer = outbox_writer(folder / "outbox.db")
    writer.write([events.answer("a"), events.answer("b")])
    writer.write([events.answer("c")], crc32=1)
    writer.write([events.answer("d")])
    writer.trim(2)
    monitor = monitor_process(folder)

    counters = monitor.wait_for(lambda health: health["source"]["offset"] == 4)["counters"]

    assert (2, 1, 1) == tuple(counters[name] for name in ("gap_events", "corrupt", "prediction"))
    monitor.stop()
    assert ["corrupt"] == [row[3] for row in _content(folder / "monitor.db")["dead_letters"]]


def test_a_version_with_another_baseline_is_refused(
    folder: Path, outbox_writer: Any, events: Any, bundle_writer: Callable[..., Path], monitor_process: Any
) -> None:
    """Counts over one baseline are never mixed with counts over another of the same name."""
    writer = outbox_writer(folder / "outbox.db")
    writer.write([events.answer("a")])
    monitor = monitor_process(folder)
    monitor.wait_for(lambda health: health["source"]["offset"] == 1)
    monitor.stop()
    shutil.rmtree(folder / "models" / "delay" / "1")
    bundle_writer(folder / "models", version="1", categorical=False)
    writer.write([events.answer("b")])
    monitor = monitor_process(folder)

    found = monitor.wait_for(lambda health: health["source"]["offset"] == 2)

    assert "give the new bundle a new version" in found["bundles"]["refused"]["delay/1"]
    assert found["counters"]["unknown_version"] == 1


def _text(folder: Path, _: Any) -> None:
    (folder / "outbox.db").write_text("not a database, but long enough to have a header\n" * 20)


def _other_log(folder: Path, outbox_writer: Any) -> None:
    outbox_writer(folder / "outbox.db", "log-2")
    _state(folder, "log-1", 0)


def _older_copy(folder: Path, outbox_writer: Any) -> None:
    outbox_writer(folder / "outbox.db", "log-1")
    _state(folder, "log-1", 5)


def _state(folder: Path, log_id: str, offset: int) -> None:
    store = StateStore(folder / "monitor.db", 60_000_000, 1)
    store.commit(Log(log_id, 1), [Changes(0, Position(offset, None), {}, {}, {}, [], {}, [])])
    store.close()


@pytest.mark.parametrize(
    ("make", "environment", "sentence"),
    [
        (_text, {}, "outbox.db is not an outbox: it is not an SQLite file"),
        (_other_log, {}, "monitor.db belongs to log log-1, but outbox.db is log log-2: give the log it belongs to"),
        (_older_copy, {}, "outbox.db ends at offset 0, but monitor.db has read 5 events of it"),
        (None, {"TILTYARD_MONITOR_HOST": "256.1.1.1"}, "cannot listen on 256.1.1.1"),
        (None, {"TILTYARD_MONITOR_JOIN__TTL_S": "soon"}, "monitor.join.ttl_s: input should be a valid number"),
    ],
)
def test_what_cannot_work_is_said_at_start(
    folder: Path, outbox_writer: Any, monitor_process: Any, make: Any, environment: dict[str, str], sentence: str
) -> None:
    """A log, state, address or setting that cannot be used ends the start with one sentence and status 1."""
    if make is not None:
        make(folder, outbox_writer)

    with pytest.raises(AssertionError) as caught:
        monitor_process(folder, **environment)
    (line,) = [line for line in str(caught.value).splitlines() if "INFO" not in line]
    assert line.startswith(f"tiltyard monitor: {sentence}")


def test_a_port_in_use_is_said_at_start(folder: Path, monitor_process: Any) -> None:
    """Another program on the port is one sentence, which says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(AssertionError, match=f"port {port} of 127.0.0.1 is in use: stop what listens there"):
            monitor_process(folder, port=str(port))
