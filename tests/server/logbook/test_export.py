"""``tiltyard log export``: the log as a table or as lines, whole or not at all."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pyarrow
import pyarrow.parquet
import pytest
from click.testing import Result

from server.contract.events import Labelled, Prediction, decode_event
from server.eventlog.log_reader import read_log
from server.eventlog.outbox import Outbox
from server.logbook import export_file as export_module
from server.logbook.errors import LogbookError
from server.logbook.event_row import EventRow, event_row
from server.logbook.export_file import export_file
from server.logbook.selection import Selection, moment_of
from server.settings import EventSettings
from tests.kafka.broker import Broker
from tests.server.live_server import Running, tensors
from tests.server.logbook.conftest import shipped_whole

Command = Callable[..., Result]

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def rows_of(log: Path) -> list[dict[str, object]]:
    """Returns the rows that a log's events are to become."""
    return [msgspec.structs.asdict(event_row(decode_event(line))) for line in read_log(log)]


def test_parquet_holds_every_event_with_typed_columns(run: Command, log: Path, tmp_path: Path) -> None:
    """All events in their order, times to the microsecond in UTC, tensors and labels as JSON."""
    out = tmp_path / "events.parquet"

    result = run("export", "--outbox", log, "--out", out)

    table = pyarrow.parquet.read_table(out)
    assert result.stdout == f"{len(rows_of(log))} events in {out}\n"
    assert rows_of(log) == table.to_pylist()
    assert table.schema.field("time").type == pyarrow.timestamp("us", tz="UTC")
    assert table.schema.field("latency_us").type == pyarrow.int64()
    answers = [each for each in map(decode_event, read_log(log)) if isinstance(each, Prediction)]
    [row] = [row for row in table.to_pylist() if (row["request_id"], row["type"]) == ("request-7", "prediction")]
    [answer] = [each for each in answers if each.subject == "request-7"]
    assert msgspec.json.decode(row["inputs"]) == msgspec.json.decode(answer.data.inputs)
    [label] = [row for row in table.to_pylist() if row["event_id"] == "label-3"]
    assert (label["label"], label["row"], label["reward"], label["rows"]) == ("1", None, None, None)


def test_ndjson_holds_the_events_own_bytes(run: Command, log: Path, tmp_path: Path) -> None:
    """Nothing is encoded anew."""
    out = tmp_path / "events.ndjson"

    run("export", "--outbox", log, "--out", out)

    assert list(read_log(log)) == out.read_bytes().splitlines()


def test_a_topic_is_exported_like_the_log(run: Command, broker: Broker, topic: str, log: Path, tmp_path: Path) -> None:
    """The same rows, partition by partition."""
    shipped_whole(broker, topic, log)
    out = tmp_path / "events.parquet"

    result = run("export", "--kafka", broker.bootstrap_servers, "--topic", topic, "--out", out)

    found = pyarrow.parquet.read_table(out).to_pylist()
    assert result.exit_code == 0
    assert sorted(rows_of(log), key=str) == sorted(found, key=str)


def test_only_what_is_wanted_is_exported(run: Command, log: Path, tmp_path: Path) -> None:
    """From a time to another, the last excluded, of one type."""
    times = sorted(decode_event(line).time for line in read_log(log))
    start, end = times[5], times[20]
    out = tmp_path / "events.ndjson"

    run("export", "--outbox", log, "--out", out, "--from", start.isoformat(), "--to", end.isoformat(),
        "--type", "prediction", "--model", "flight", "--version", "1")  # fmt: skip

    wanted = [
        line
        for line in read_log(log)
        if isinstance(event := decode_event(line), Prediction) and start <= event.time < end
    ]
    assert 0 < len(wanted) < 20
    assert wanted == out.read_bytes().splitlines()


def test_memory_is_bounded_by_groups(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row group is written as soon as it is full, by number or by bytes."""
    lines = list(read_log(log))
    monkeypatch.setattr(export_module, "GROUP_ROWS", 10)
    out = tmp_path / "events.parquet"

    with export_file(out) as file:
        for line in lines:
            file.add(line, decode_event(line))

    metadata = pyarrow.parquet.read_metadata(out)
    sizes = [metadata.row_group(place).num_rows for place in range(metadata.num_row_groups)]
    assert sum(sizes) == len(lines)
    assert max(sizes) == 10
    monkeypatch.setattr(export_module, "GROUP_BYTES", 1)
    with export_file(out) as file:
        for line in lines[:3]:
            file.add(line, decode_event(line))
    assert pyarrow.parquet.read_metadata(out).num_row_groups == 3


@pytest.mark.parametrize("kind", ["parquet", "ndjson"])
def test_an_export_that_fails_leaves_the_former_file(log: Path, tmp_path: Path, kind: str) -> None:
    """Half a file is never there under the name."""
    out = tmp_path / f"events.{kind}"
    out.write_bytes(b"the former one")
    line = next(read_log(log))

    with pytest.raises(RuntimeError, match="half"), export_file(out) as file:
        file.add(line, decode_event(line))
        raise RuntimeError("half")

    assert out.read_bytes() == b"the former one"
    assert [out] == [each for each in tmp_path.iterdir() if "events" in each.name]


def test_lines_that_are_no_events_are_counted(run: Command, tmp_path: Path) -> None:
    """They are left out, and that is said."""
    path = tmp_path / "outbox.db"
    outbox = Outbox(path, EventSettings())
    outbox.append(b'{"some": "thing"}')
    outbox.close()

    result = run("export", "--outbox", path, "--out", tmp_path / "events.ndjson")

    assert result.stdout.startswith("0 events in")
    assert "left out 1 lines that are no events" in result.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--out", "events.csv"], "expected a file named *.parquet or *.ndjson, got events.csv"),
        (["--out", "/nowhere/events.ndjson"], "expected a file that can be written, got: No such file"),
        (["--out", "events.ndjson", "--from", "yesterday"], "expected a time such as 2026-03-01T12:00:00Z"),
    ],
)
def test_what_cannot_be_done_is_told(run: Command, log: Path, options: list[str], sentence: str) -> None:
    """One sentence, status 1."""
    result = run("export", "--outbox", log, *options)

    assert (result.exit_code, sentence in result.stderr) == (1, True)


def test_parquet_without_pyarrow_names_the_extra(log: Path, tmp_path: Path) -> None:
    """And what needs no extra."""
    (tmp_path / "pyarrow.py").write_text("raise ImportError")
    command = [sys.executable, "-m", "server.cli", "log", "export", "--outbox", str(log), "--out", "events.parquet"]
    path = os.pathsep.join([str(tmp_path), *sys.path])

    result = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE, text=True)

    assert result.returncode == 1
    assert "expected pyarrow to write Parquet, got none; run: pip install 'tiltyard[log]'" in result.stderr


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-03-01T11:00:00Z", NOW - timedelta(hours=1)),
        ("2026-03-01T13:00:00+02:00", NOW - timedelta(hours=1)),
        ("2026-03-01t11:00:00", NOW - timedelta(hours=1)),
        ("2026-03-01", NOW - timedelta(hours=12)),
        ("90s", NOW - timedelta(seconds=90)),
        ("15m", NOW - timedelta(minutes=15)),
        ("2h", NOW - timedelta(hours=2)),
        ("3d", NOW - timedelta(days=3)),
        ("1w", NOW - timedelta(weeks=1)),
        ("now", NOW),
    ],
)
def test_times_are_moments_or_so_long_ago(text: str, moment: datetime) -> None:
    """RFC 3339, UTC where no offset is named, and relative to the present."""
    assert moment == moment_of(text, NOW)


@pytest.mark.parametrize("text", ["", "yesterday", "2 hours", "-2h", "2026-13-01", "999999999w"])
def test_other_times_are_refused(text: str) -> None:
    """With what is expected."""
    with pytest.raises(LogbookError, match="so long ago as 90s, 15m, 2h or 3d"):
        moment_of(text, NOW)


def test_a_label_without_a_model_is_of_none(log: Path) -> None:
    """A selection by model takes only what names it."""
    labels = [each for each in map(decode_event, read_log(log)) if isinstance(each, Labelled)]

    assert [None, None] == [event_row(each).model for each in labels]
    assert not any(Selection(model="flight").takes(each) for each in labels)


def test_a_row_says_what_was_hidden_and_what_it_stands_for(serve: Callable[..., Running], packed: Path) -> None:
    """Who computes with an export of a sample needs each answer's weight."""
    hidden = {"TILTYARD_EVENTS__COLUMNS": '{"flight/carrier": "drop"}', "TILTYARD_EVENTS__SAMPLE_EVERY": "2"}
    server = serve(packed, **hidden)
    for n in range(8):
        server.client.post("/v2/models/flight/infer", json=tensors(id=f"r{n}")).raise_for_status()

    rows = [event_row(event) for event in server.events() if isinstance(event, Prediction)]

    assert {(row.redacted, row.weight, row.forgotten) for row in rows} == {('{"carrier":"drop"}', 2, False)}


def test_the_columns_are_those_that_are_promised() -> None:
    """Tables read with yesterday's columns: new ones come at the end."""
    promised = (
        "event_id request_id type time model version role rule share bucket propensity revision status error",
        "latency_us rows inputs outputs inputs_omitted fallback label row reward action by reason before after",
        "redacted weight forgotten",
    )

    assert " ".join(promised).split() == list(EventRow.__struct_fields__)
