"""The embedded log's file: one SQLite database in WAL mode, one row per group commit.

A row holds a chunk of events as NDJSON, a newline after each, with the offset of its first event and their count: an
event's offset is its place in the log, from 0, without gaps. Trimming removes whole chunks from the
front. ``meta.log_id`` names this log: a reader that kept an offset of another log must not use it here.
"""

APPLICATION_ID = 0x54494C54  # "TILT"
SCHEMA_VERSION = 1

CREATE = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS chunks (
    first_offset  INTEGER PRIMARY KEY,
    count         INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    crc32         INTEGER NOT NULL,
    payload       BLOB NOT NULL
);
"""

INSERT_CHUNK = "INSERT INTO chunks (first_offset, count, created_at_ms, crc32, payload) VALUES (?, ?, ?, ?, ?)"

# The first row is the chunk that holds the wanted offset, if it is still there; else the next one.
SELECT_CHUNKS = """
SELECT first_offset, count, created_at_ms, crc32, payload FROM chunks
WHERE first_offset >= coalesce((SELECT max(first_offset) FROM chunks WHERE first_offset <= :offset), 0)
  AND first_offset + count > :offset
ORDER BY first_offset LIMIT :chunks
"""

# Where the log starts and where the next event will go; a log emptied by trimming keeps its end in meta.
SELECT_BOUNDS = "SELECT min(first_offset), max(first_offset + count) FROM chunks"
# The end alone, for whoever asks often: bounds look at every row.
SELECT_END = "SELECT first_offset + count FROM chunks ORDER BY first_offset DESC LIMIT 1"
SELECT_META = "SELECT value FROM meta WHERE key = ?"
UPSERT_META = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"

META_LOG_ID = "log_id"
META_TRIMMED = "trimmed_to"  # every offset below this one has been trimmed
META_OPENED = "opened_at_ms"  # when the present writer, or the last one, opened the log
META_OPENED_OFFSET = "opened_at_offset"  # the offset of its first event: its counters begin there
