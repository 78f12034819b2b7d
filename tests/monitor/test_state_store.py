import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from monitor.comparison.paired import PairedCells
from monitor.errors import StateError
from monitor.fold import ComparisonKey, DeadLetter, PaneKey
from monitor.pane import Pane
from monitor.sources.source import Mark
from monitor.state_store import Changes, Log, Position, StateStore
from monitor.version_profile import VersionKey

_PANE_US = 60_000_000
_LOG = Log("log-1", 3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "monitor.db"


@pytest.fixture
def store(path: Path) -> Iterator[StateStore]:
    store = StateStore(path, _PANE_US, max_dead_letters=2)
    yield store
    store.close()


def _pane(requests: int) -> Pane:
    return Pane(requests=requests, counts=np.array([requests, 0]), classes=np.array([1, 2]))


def _changes(**members: Any) -> Changes:
    nothing = Changes(0, Position(9, 5), {}, {}, {}, [], {}, [])
    return nothing._replace(**members)


def test_what_was_committed_is_there_after_a_restart(path: Path, store: StateStore) -> None:
    """Everything of a commit comes back as it was, and a request without a record is gone."""
    key, pair = PaneKey("m", "1", -_PANE_US), ComparisonKey("m", "1", "2", 0)
    cells = PairedCells.empty()
    cells.add(np.array([True]), np.array([False]), np.array([False]), np.array([-0.5]))
    letter = DeadLetter(3, "malformed", "why", b"x")
    store.commit(_LOG, [_changes(requests=[("a", b"1"), ("b", b"2")])])
    elsewhere = _changes(
        partition=2,
        position=Position(7, None, True, Mark(6, 99)),
        panes={key: _pane(9)},
        requests=[("a", b"3")],
        counters={"late": 1},
    )
    store.commit(
        _LOG,
        [
            _changes(
                panes={key: _pane(1)},
                totals={VersionKey("m", "1"): ("digest", _pane(4))},
                comparisons={pair: cells},
                requests=[("a", None)],
                counters={"late": 2},
                dead_letters=[letter],
            ),
            elsewhere,
        ],
    )
    store.close()

    again = StateStore(path, _PANE_US, 2)

    assert (_LOG, {0: Position(9, 5), 2: elsewhere.position}) == (again.log(), again.positions())
    assert [(0, key), (2, key)] == again.pane_keys()
    assert (_pane(1), _pane(9)) == (again.pane(0, key), again.pane(2, key))
    assert Pane.empty() == again.pane(0, PaneKey("m", "1", 7)) == again.pane(1, key)
    assert {(0, VersionKey("m", "1")): ("digest", _pane(4))} == again.totals()
    assert {(0, pair): cells} == again.comparisons()
    assert ([("b", b"2")], [("a", b"3")]) == (again.requests(0), again.requests(2))
    assert ({0: {"late": 2}, 2: {"late": 1}}, [letter]) == (again.counters(), again.dead_letters())
    again.close()


def test_a_commit_is_all_or_nothing(store: StateStore) -> None:
    """A commit that fails half-way leaves what was there, in every partition, and the next one works."""
    store.commit(_LOG, [_changes(counters={"late": 1})])
    whole = _changes(position=Position(10, 6), panes={PaneKey("m", "1", 0): _pane(1)})
    broken = _changes(partition=1, counters={"late": None})

    with pytest.raises(StateError, match=r"monitor\.db cannot be used"):
        store.commit(_LOG, [whole, broken])

    assert ({0: Position(9, 5)}, [], {0: {"late": 1}}) == (store.positions(), store.pane_keys(), store.counters())
    store.commit(_LOG, [_changes(counters={"late": 2})])
    assert {0: {"late": 2}} == store.counters()


def test_dead_letters_are_bounded(store: StateStore) -> None:
    """Of what is kept aside only the newest stay, across commits."""
    for offset in range(3):
        store.commit(
            _LOG,
            [_changes(dead_letters=[DeadLetter(offset, "malformed", "", b""), DeadLetter(9, "corrupt", "", b"")])],
        )

    assert [2, 9] == [letter.offset for letter in store.dead_letters()]


# What a monitor of the time before partitions wrote, at the end of its reading.
_SCHEMA_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE versions (
    model TEXT NOT NULL, version TEXT NOT NULL, baseline_sha256 TEXT NOT NULL, total BLOB NOT NULL,
    PRIMARY KEY (model, version)
) WITHOUT ROWID;
CREATE TABLE panes (
    model TEXT NOT NULL, version TEXT NOT NULL, start_us INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (model, version, start_us)
);
CREATE TABLE comparison_panes (
    model TEXT NOT NULL, champion TEXT NOT NULL, challenger TEXT NOT NULL, start_us INTEGER NOT NULL,
    body BLOB NOT NULL, PRIMARY KEY (model, champion, challenger, start_us)
) WITHOUT ROWID;
CREATE TABLE open_requests (id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY, log_offset INTEGER NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL,
    payload BLOB NOT NULL
);
INSERT INTO meta VALUES ('pane_us', '60000000'), ('log_id', 'log-1'), ('offset', '9'), ('watermark_us', '5');
INSERT INTO open_requests VALUES ('a', x'31');
INSERT INTO counters VALUES ('late', 2);
INSERT INTO dead_letters VALUES (4, 3, 'malformed', 'why', x'78');
PRAGMA application_id=1414089805;
PRAGMA user_version=1;
"""


@pytest.mark.parametrize("opened", [1, 2], ids=["once", "again"])
def test_a_state_of_schema_1_becomes_that_of_partition_0(path: Path, opened: int) -> None:
    """Nothing is lost by the change of schema: the log goes on from the same offset with the same numbers."""
    key, pair = PaneKey("m", "1", 0), ComparisonKey("m", "1", "2", 0)
    cells = PairedCells.empty()
    cells.add(np.array([True]), np.array([False]), np.array([False]), np.array([-0.5]))
    database = sqlite3.connect(path)
    database.executescript(_SCHEMA_1)
    database.execute("INSERT INTO panes VALUES (?, ?, ?, ?)", (*key, _pane(1).to_bytes()))
    database.execute("INSERT INTO versions VALUES ('m', '1', 'digest', ?)", (_pane(4).to_bytes(),))
    record = msgspec.msgpack.encode(cells.to_record())
    database.execute("INSERT INTO comparison_panes VALUES (?, ?, ?, ?, ?)", (*pair, record))
    database.commit()
    database.close()

    for _ in range(opened):
        store = StateStore(path, _PANE_US, 2)
        found = (store.log(), store.positions(), store.requests(0), store.counters(), store.dead_letters())
        panes = (store.pane_keys(), store.pane(0, key), store.totals(), store.comparisons())
        store.close()

    letter = DeadLetter(3, "malformed", "why", b"x")
    assert (Log("log-1", 1), {0: Position(9, 5)}, [("a", b"1")], {0: {"late": 2}}, [letter]) == found
    totals = {(0, VersionKey("m", "1")): ("digest", _pane(4))}
    assert ([(0, key)], _pane(1), totals, {(0, pair): cells}) == panes


def test_two_monitors_cannot_share_a_state(path: Path, store: StateStore) -> None:
    """The second is refused while the first has the file, and has it once the first is gone."""
    with pytest.raises(StateError, match=r"monitor\.db is in use by another monitor"):
        StateStore(path, _PANE_US, 2)
    store.close()
    StateStore(path, _PANE_US, 2).close()


def _text(path: Path) -> None:
    path.write_text("not a database, but long enough to have a header\n" * 20)


def _foreign(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE t (x)")
    database.close()


def _newer(path: Path) -> None:
    StateStore(path, _PANE_US, 2).close()
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA user_version=99")
    database.close()


def _torn(path: Path) -> None:
    store = StateStore(path, _PANE_US, 2)
    store.commit(_LOG, [_changes(requests=[(f"r{number}", b"x" * 100) for number in range(2000)])])
    store.close()
    data = path.read_bytes()
    path.write_bytes(data[:40_000] + b"\x00garbage" * 2048 + data[40_000 + 16_384 :])


def _locked(path: Path) -> None:
    _newer(path)
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA user_version=2")
    database.execute("PRAGMA locking_mode=EXCLUSIVE")
    database.execute("BEGIN EXCLUSIVE")
    _held.append(database)


_held: list[sqlite3.Connection] = []


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (_text, "not an SQLite file"),
        (_foreign, "database of another application"),
        (_newer, "newer Tiltyard: expected schema 2, got 99"),
        (_torn, "is damaged: move it away"),
        (_locked, "is locked by another process"),
        (lambda path: path.mkdir(), "cannot be used"),
        (lambda path: StateStore(path, 1_000_000, 2).close(), "holds panes of 1 s, but pane.length_s is 60"),
    ],
    ids=["text", "foreign", "newer", "torn", "locked", "folder", "other panes"],
)
def test_a_file_that_cannot_be_the_state_is_refused_by_name(path: Path, make: Any, sentence: str) -> None:
    """Each way a state file can be wrong is a StateError that names it, and leaves no lock behind."""
    make(path)
    try:
        for _ in range(2):
            with pytest.raises(StateError, match=sentence) as caught:
                StateStore(path, _PANE_US, 2)
            assert str(path) in str(caught.value)
    finally:
        while _held:
            _held.pop().close()


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    """A state file cannot be made in a folder that does not exist."""
    with pytest.raises(StateError, match="No such file or directory"):
        StateStore(tmp_path / "missing" / "monitor.db", _PANE_US, 2)
