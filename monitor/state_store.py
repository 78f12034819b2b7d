"""The monitor's file: panes, open requests and the positions in the log's partitions, in one transaction.

After a crash the monitor resumes from the offsets that were committed together with everything
folded up to them, so its numbers are the same as if nothing had happened. One process owns a state
file: the operating system holds a lock beside it, and gives it back when the process dies.

Everything is kept by partition of the log, for a partition is folded by itself; a log without partitions has
one, number 0. Schema 1 knew no partitions: such a file is made one of schema 2 when it is opened.
"""

import fcntl
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from monitor.comparison.paired import PairedCells
from monitor.errors import StateError
from monitor.fold import ComparisonKey, DeadLetter, PaneKey
from monitor.pane import Pane
from monitor.publication import (
    Parts,
    Publication,
    Snapshot,
    decode_chunk,
    decode_snapshot,
    encode_snapshot,
    encode_version,
    pairs_key,
    pane_key,
    parse_key,
    version_key,
)
from monitor.sources.source import Mark
from monitor.version_profile import VersionKey

APPLICATION_ID: Final = 0x54494C4D  # "TILM"
SCHEMA_VERSION: Final = 2
_PATIENCE_S: Final = 1.0

_CREATE = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS partitions (
    partition INTEGER PRIMARY KEY, offset INTEGER NOT NULL, watermark_us INTEGER, at_end INTEGER NOT NULL,
    mark_offset INTEGER, mark_crc32 INTEGER, joined INTEGER NOT NULL, joined_watermark_us INTEGER
);
CREATE TABLE IF NOT EXISTS followed (
    partition INTEGER PRIMARY KEY, next_offset INTEGER NOT NULL, snapshot BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS checkpoints (
    partition INTEGER NOT NULL, chunk INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (partition, chunk)
);
CREATE TABLE IF NOT EXISTS unpublished (
    partition INTEGER NOT NULL, key TEXT NOT NULL, PRIMARY KEY (partition, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS versions (
    partition INTEGER NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL, baseline_sha256 TEXT NOT NULL,
    total BLOB NOT NULL, PRIMARY KEY (partition, model, version)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS panes (
    partition INTEGER NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL, start_us INTEGER NOT NULL,
    body BLOB NOT NULL, PRIMARY KEY (partition, model, version, start_us)
);
CREATE TABLE IF NOT EXISTS comparison_panes (
    partition INTEGER NOT NULL, model TEXT NOT NULL, champion TEXT NOT NULL, challenger TEXT NOT NULL,
    start_us INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (partition, model, champion, challenger, start_us)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS open_requests (
    partition INTEGER NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (partition, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counters (
    partition INTEGER NOT NULL, name TEXT NOT NULL, value INTEGER NOT NULL, PRIMARY KEY (partition, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead_letters (
    id INTEGER PRIMARY KEY, partition INTEGER NOT NULL, log_offset INTEGER NOT NULL, reason TEXT NOT NULL,
    detail TEXT NOT NULL, payload BLOB NOT NULL
);
"""
# Schema 1 had these tables without partitions, and the position among the meta entries.
_WITHOUT_PARTITION = ("versions", "panes", "comparison_panes", "open_requests", "counters", "dead_letters")
_SET_ASIDE = "".join(f"ALTER TABLE {name} RENAME TO {name}_1;" for name in _WITHOUT_PARTITION)
_COPY = """
INSERT INTO partitions SELECT 0, value, watermark_us, 0, NULL, NULL, value, watermark_us FROM meta,
    (SELECT (SELECT value FROM meta WHERE key = 'watermark_us') AS watermark_us) WHERE key = 'offset';
DELETE FROM meta WHERE key IN ('offset', 'watermark_us');
INSERT INTO meta SELECT 'partitions', '1' FROM meta WHERE key = 'log_id';
INSERT INTO versions SELECT 0, model, version, baseline_sha256, total FROM versions_1;
INSERT INTO panes SELECT 0, model, version, start_us, body FROM panes_1;
INSERT INTO comparison_panes SELECT 0, model, champion, challenger, start_us, body FROM comparison_panes_1;
INSERT INTO open_requests SELECT 0, id, body FROM open_requests_1;
INSERT INTO counters SELECT 0, name, value FROM counters_1;
INSERT INTO dead_letters SELECT id, 0, log_offset, reason, detail, payload FROM dead_letters_1;
""" + "".join(f"DROP TABLE {name}_1;" for name in _WITHOUT_PARTITION)
_UPSERT_META = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"


class Log(NamedTuple):
    """The log a state belongs to: its name and number of partitions. Both are None before one was read."""

    log_id: str | None
    partitions: int | None


class Position(NamedTuple):
    """Where the monitor stands in a partition: the next offset to read, and the watermark in event time.

    ``at_end`` says whether there was nothing more to read, ``mark`` which event was the last.
    """

    offset: int
    watermark_us: int | None
    at_end: bool = False
    mark: Mark | None = None


class Joined(NamedTuple):
    """Where open requests were written down: the next offset to read there, and the watermark."""

    offset: int
    watermark_us: int | None


class Changes(NamedTuple):
    """All that one commit writes of one partition; a request without a record is no longer open.

    ``anew`` says that ``requests`` are all there are, whatever the file says.
    ``unpublished`` are keys of records that the other monitors are to be told of, ``published`` those that they were.
    """

    partition: int
    position: Position
    panes: Mapping[PaneKey, Pane]
    totals: Mapping[VersionKey, tuple[str, Pane]]
    comparisons: Mapping[ComparisonKey, PairedCells]
    requests: Iterable[tuple[str, bytes | None]]
    counters: Mapping[str, int]
    dead_letters: Iterable[DeadLetter]
    anew: bool = False
    unpublished: Iterable[str] = ()
    published: Iterable[str] = ()


class StateStore:
    """A state file, held by this process alone. Methods may be called from any thread.

    Args:
        path: the file; made when it is not there.
        pane_us: the length of a pane, which a state keeps for good.
        max_dead_letters: refused events kept.

    Raises:
        StateError: the file is damaged, foreign, newer, of other panes, or held by another monitor.
    """

    def __init__(self, path: Path, pane_us: int, max_dead_letters: int) -> None:
        self._path = path
        self._max_dead_letters = max_dead_letters
        self._mutex = threading.Lock()
        self._lock = _lock(path)
        try:
            self._database = sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            self._lock.close()
            raise self._failure(error) from error
        try:
            self._prepare(pane_us)
        except BaseException:
            self._database.close()
            self._lock.close()
            raise

    def log(self) -> Log:
        """Returns the log that was read."""
        meta = dict(self._fetch("SELECT key, value FROM meta"))
        return Log(meta.get("log_id"), int(meta["partitions"]) if "partitions" in meta else None)

    def positions(self) -> dict[int, Position]:
        """Returns where the monitor stood in each partition at the last commit."""
        rows = self._fetch("SELECT partition, offset, watermark_us, at_end, mark_offset, mark_crc32 FROM partitions")
        return {
            partition: Position(offset, watermark_us, bool(at_end), None if crc32 is None else Mark(marked, crc32))
            for partition, offset, watermark_us, at_end, marked, crc32 in rows
        }

    def requests(self, partition: int) -> list[tuple[str, bytes]]:
        """Returns the open requests of a partition, by id."""
        return self._fetch("SELECT id, body FROM open_requests WHERE partition = ?", (partition,))

    def joined(self, partition: int) -> Joined:
        """Returns where the open requests of a partition are of: not later than its position."""
        rows = self._fetch("SELECT joined, joined_watermark_us FROM partitions WHERE partition = ?", (partition,))
        return Joined(*rows[0]) if rows else Joined(0, None)

    def followed(self) -> dict[int, tuple[int, Snapshot]]:
        """Returns, by partition, where the topic of panes is read on and the newest snapshot."""
        rows = self._fetch("SELECT partition, next_offset, snapshot FROM followed")
        return {partition: (after, decode_snapshot(body)) for partition, after, body in rows}

    def checkpoint(self, partition: int) -> list[tuple[str, bytes]]:
        """Returns the open requests of the newest checkpoint that was published of a partition."""
        rows = self._fetch("SELECT body FROM checkpoints WHERE partition = ? ORDER BY chunk", (partition,))
        return [request for (body,) in rows for request in decode_chunk(body)]

    def unpublished(self, partition: int) -> set[str]:
        """Returns the keys of what the others are to be told of a partition."""
        return {key for (key,) in self._fetch("SELECT key FROM unpublished WHERE partition = ?", (partition,))}

    def publishable(self, partition: int) -> set[str]:
        """Returns the keys of everything there is to tell of a partition."""
        panes = self._fetch("SELECT model, version, start_us FROM panes WHERE partition = ?", (partition,))
        versions = self._fetch("SELECT model, version FROM versions WHERE partition = ?", (partition,))
        pairs = self._fetch(
            "SELECT model, champion, challenger, start_us FROM comparison_panes WHERE partition = ?", (partition,)
        )
        return {
            *(pane_key(PaneKey(*row)) for row in panes),
            *(version_key(VersionKey(*row)) for row in versions),
            *(pairs_key(ComparisonKey(*row)) for row in pairs),
        }

    def records(self, partition: int, keys: Iterable[str]) -> dict[str, bytes | None]:
        """Returns what is to be told under these keys, as of the last commit."""
        return {key: value for key in keys if (value := self._record(partition, key)) is not None}

    def letters(self, partition: int, offsets: Iterable[int]) -> list[DeadLetter]:
        """Returns what is kept aside of a partition at these offsets."""
        found = []
        for offset in offsets:
            rows = self._fetch(
                "SELECT log_offset, reason, detail, payload FROM dead_letters WHERE (partition, log_offset) = (?, ?)",
                (partition, offset),
            )
            found += [DeadLetter(*row) for row in rows]
        return found

    def counters(self) -> dict[int, Counter[str]]:
        """Returns what was counted in each partition."""
        counters: dict[int, Counter[str]] = {}
        for partition, name, value in self._fetch("SELECT partition, name, value FROM counters"):
            counters.setdefault(partition, Counter())[name] = value
        return counters

    def totals(self) -> dict[tuple[int, VersionKey], tuple[str, Pane]]:
        """Returns, by partition and version, the baseline's digest and the sum of all panes."""
        rows = self._fetch("SELECT partition, model, version, baseline_sha256, total FROM versions")
        return {
            (partition, VersionKey(model, version)): (digest, self._pane(body))
            for partition, model, version, digest, body in rows
        }

    def pane_keys(self) -> list[tuple[int, PaneKey]]:
        """Returns partition and key of every pane, oldest first."""
        rows = self._fetch("SELECT partition, model, version, start_us FROM panes ORDER BY start_us, model, version")
        return [(partition, PaneKey(*key)) for partition, *key in rows]

    def pane(self, partition: int, key: PaneKey) -> Pane:
        """Returns one partition's pane; an empty one when it was never saved."""
        rows = self._fetch(
            "SELECT body FROM panes WHERE (partition, model, version, start_us) = (?, ?, ?, ?)", (partition, *key)
        )
        return self._pane(rows[0][0]) if rows else Pane.empty()

    def comparisons(self) -> dict[tuple[int, ComparisonKey], PairedCells]:
        """Returns, by partition, every pane of pairs, oldest first."""
        rows = self._fetch(
            "SELECT partition, model, champion, challenger, start_us, body FROM comparison_panes ORDER BY start_us"
        )
        return {
            (partition, ComparisonKey(*key)): PairedCells.from_record(msgspec.msgpack.decode(body))
            for partition, *key, body in rows
        }

    def dead_letters(self) -> list[DeadLetter]:
        """Returns what is kept aside, oldest first."""
        return [
            DeadLetter(*row)
            for row in self._fetch("SELECT log_offset, reason, detail, payload FROM dead_letters ORDER BY id")
        ]

    def commit(self, log: Log, changes: Sequence[Changes]) -> None:
        """Writes everything, or nothing.

        Raises:
            StateError: the disk is full or the file cannot be written.
        """
        with self._mutex:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    self._write_log(log)
                    for each in changes:
                        self._write(each)
                    self._database.execute("COMMIT")
                except BaseException:
                    # A full disk may have ended the transaction already.
                    if self._database.in_transaction:
                        self._database.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise self._failure(error) from error

    def receive(self, publication: Publication, parts: Parts, next_offset: int, *, adopt: bool) -> None:
        """Takes over what another monitor says of a partition, or notes only how far it was read.

        Args:
            publication: what was said.
            parts: its records.
            next_offset: where the topic of panes is read on.
            adopt: whether the state becomes what was said; the open requests stay those of ``joined``.

        Raises:
            StateError: the file cannot be written.
        """
        with self._mutex:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    self._receive(publication, parts, next_offset, adopt)
                    self._database.execute("COMMIT")
                except BaseException:
                    if self._database.in_transaction:
                        self._database.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise self._failure(error) from error

    def close(self) -> None:
        """Closes the file and lets another monitor have it."""
        with self._mutex:
            self._database.close()
            self._lock.close()

    def _write_log(self, log: Log) -> None:
        meta = {"log_id": log.log_id, "partitions": log.partitions}
        self._database.executemany(
            _UPSERT_META, [(key, str(value)) for key, value in meta.items() if value is not None]
        )

    def _write(self, changes: Changes) -> None:
        run, many = self._database.execute, self._database.executemany
        partition, position = changes.partition, changes.position
        joined = Joined(position.offset, position.watermark_us)
        run(
            "INSERT OR REPLACE INTO partitions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (partition, *_columns(position), *joined),
        )
        many("DELETE FROM unpublished WHERE (partition, key) = (?, ?)", [(partition, key) for key in changes.published])
        many("INSERT OR IGNORE INTO unpublished VALUES (?, ?)", [(partition, key) for key in changes.unpublished])
        many(
            "INSERT OR REPLACE INTO panes (partition, model, version, start_us, body) VALUES (?, ?, ?, ?, ?)",
            [(partition, *key, pane.to_bytes()) for key, pane in changes.panes.items()],
        )
        many(
            "INSERT OR REPLACE INTO versions VALUES (?, ?, ?, ?, ?)",
            [(partition, *key, digest, pane.to_bytes()) for key, (digest, pane) in changes.totals.items()],
        )
        many(
            "INSERT OR REPLACE INTO comparison_panes VALUES (?, ?, ?, ?, ?, ?)",
            [
                (partition, *key, msgspec.msgpack.encode(cells.to_record()))
                for key, cells in changes.comparisons.items()
            ],
        )
        if changes.anew:
            run("DELETE FROM open_requests WHERE partition = ?", (partition,))
        kept, gone = [], []
        for request_id, record in changes.requests:
            if record is None:
                gone.append((partition, request_id))
            else:
                kept.append((partition, request_id, record))
        many("DELETE FROM open_requests WHERE (partition, id) = (?, ?)", gone)
        many("INSERT OR REPLACE INTO open_requests (partition, id, body) VALUES (?, ?, ?)", kept)
        many(
            "INSERT OR REPLACE INTO counters VALUES (?, ?, ?)",
            [(partition, *counter) for counter in changes.counters.items()],
        )
        many(
            "INSERT INTO dead_letters (partition, log_offset, reason, detail, payload) VALUES (?, ?, ?, ?, ?)",
            [(partition, *letter) for letter in changes.dead_letters],
        )
        run("DELETE FROM dead_letters WHERE id <= (SELECT max(id) FROM dead_letters) - ?", (self._max_dead_letters,))

    def _receive(self, publication: Publication, parts: Parts, next_offset: int, adopt: bool) -> None:
        run, many = self._database.execute, self._database.executemany
        partition, snapshot = publication.partition, publication.snapshot
        run("INSERT OR REPLACE INTO followed VALUES (?, ?, ?)", (partition, next_offset, encode_snapshot(snapshot)))
        if parts.chunks:
            run("DELETE FROM checkpoints WHERE partition = ?", (partition,))
            many(
                "INSERT INTO checkpoints VALUES (?, ?, ?)",
                [(partition, chunk, body) for chunk, body in parts.chunks.items() if body is not None],
            )
        if not adopt:
            return
        self._write_log(Log(snapshot.log_id, snapshot.of))
        mark = None if snapshot.mark is None else Mark(*snapshot.mark)
        position = Position(snapshot.offset, snapshot.watermark_us, snapshot.at_end, mark)
        run(
            "INSERT INTO partitions VALUES (?, ?, ?, ?, ?, ?, 0, NULL) ON CONFLICT (partition) DO UPDATE SET "
            "offset = excluded.offset, watermark_us = excluded.watermark_us, at_end = excluded.at_end, "
            "mark_offset = excluded.mark_offset, mark_crc32 = excluded.mark_crc32",
            (partition, *_columns(position)),
        )
        many(
            "INSERT OR REPLACE INTO panes (partition, model, version, start_us, body) VALUES (?, ?, ?, ?, ?)",
            [(partition, *key, body) for key, body in parts.panes.items()],
        )
        many(
            "INSERT OR REPLACE INTO versions VALUES (?, ?, ?, ?, ?)",
            [(partition, *key, digest, total.to_bytes()) for key, (digest, total) in parts.versions.items()],
        )
        many(
            "INSERT OR REPLACE INTO comparison_panes VALUES (?, ?, ?, ?, ?, ?)",
            [(partition, *key, msgspec.msgpack.encode(cells.to_record())) for key, cells in parts.pairs.items()],
        )
        many(
            "INSERT OR REPLACE INTO counters VALUES (?, ?, ?)",
            [(partition, *counter) for counter in snapshot.counters.items()],
        )
        run("DELETE FROM unpublished WHERE partition = ?", (partition,))

    def _record(self, partition: int, key: str) -> bytes | None:
        kind, members = parse_key(key)
        if kind == "version":
            rows = self._fetch(
                "SELECT baseline_sha256, total FROM versions WHERE (partition, model, version) = (?, ?, ?)",
                (partition, *members),
            )
            return encode_version(*rows[0]) if rows else None
        if kind == "pane":
            statement = "SELECT body FROM panes WHERE (partition, model, version, start_us) = (?, ?, ?, ?)"
        else:
            statement = (
                "SELECT body FROM comparison_panes "
                "WHERE (partition, model, champion, challenger, start_us) = (?, ?, ?, ?, ?)"
            )
        rows = self._fetch(statement, (partition, *members))
        return rows[0][0] if rows else None

    def _prepare(self, pane_us: int) -> None:
        application = self._fetch("PRAGMA application_id")[0][0]
        tables = self._fetch("SELECT name FROM sqlite_master WHERE type = 'table'")
        if application != APPLICATION_ID and (application != 0 or tables):
            raise StateError(f"{self._path} is not a monitor's state: it is a database of another application")
        version = self._fetch("PRAGMA user_version")[0][0]
        if version > SCHEMA_VERSION:
            raise StateError(
                f"{self._path} was written by a newer Tiltyard: expected schema {SCHEMA_VERSION}, got {version}"
            )
        if application == APPLICATION_ID and self._fetch("PRAGMA quick_check(1)")[0][0] != "ok":
            raise StateError(f"{self._path} is damaged: {self._advice}")
        try:
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            before, after = (_SET_ASIDE, _COPY) if version == 1 else ("", "")
            self._database.executescript(
                f"BEGIN IMMEDIATE;{before}{_CREATE}{after}PRAGMA application_id={APPLICATION_ID};"
                f"PRAGMA user_version={SCHEMA_VERSION};COMMIT;"
            )
            self._database.execute("INSERT OR IGNORE INTO meta VALUES ('pane_us', ?)", (str(pane_us),))
        except sqlite3.Error as error:
            raise self._failure(error) from error
        saved = int(self._fetch("SELECT value FROM meta WHERE key = 'pane_us'")[0][0])
        if saved != pane_us:
            raise StateError(
                f"{self._path} holds panes of {saved / 1e6:g} s, but pane.length_s is {pane_us / 1e6:g}: "
                f"set it back, or start anew with another --state"
            )

    def _pane(self, body: bytes) -> Pane:
        try:
            return Pane.from_bytes(body)
        except ValueError as error:
            raise StateError(f"{self._path} is damaged ({error}): {self._advice}") from error

    def _fetch(self, statement: str, values: Any = ()) -> list[Any]:
        with self._mutex:
            try:
                return self._database.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise self._failure(error) from error

    def _failure(self, error: sqlite3.Error) -> StateError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_NOTADB:
            return StateError(f"{self._path} is not a monitor's state: it is not an SQLite file")
        if code == sqlite3.SQLITE_CORRUPT:
            return StateError(f"{self._path} is damaged: {self._advice}")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StateError(f"{self._path} is locked by another process")
        return StateError(f"{self._path} cannot be used: {error}")

    _advice: Final = "move it away, and the monitor folds the log again from its start"


def _columns(position: Position) -> tuple[int | None, ...]:
    return (position.offset, position.watermark_us, position.at_end, *(position.mark or (None, None)))


def _lock(path: Path) -> TextIOWrapper:
    beside = path.with_name(path.name + ".lock")
    try:
        handle = beside.open("w")
    except OSError as error:
        raise StateError(f"{path} cannot be used: {error.strerror} ({beside})") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise StateError(f"{path} is in use by another monitor") from error
    return handle
