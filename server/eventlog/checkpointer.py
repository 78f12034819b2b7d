"""Copies the log's journal into the log, on time that nobody else wants.

SQLite's own checkpoints run in the thread that commits, and on one core that thread takes its slices from whoever
answers requests. A thread that the kernel runs only when nothing else is runnable (SCHED_IDLE) does the copying
here. It cannot end it: while it copies, commits go on. So the writer copies the last few frames itself, after a
commit, and the journal starts over. On a core that is never idle the writer does all of it, a little at a time.
"""

import logging
import math
import os
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

logger = logging.getLogger(__name__)

WORTH_BYTES = 2 * 1024 * 1024
"""How much the journal holds before it is copied: each time costs two syncs, and pages written anew count once."""

MOST_BYTES = 16 * 1024 * 1024
"""How much it may hold before the writer no longer waits for the idle thread."""

STEP_BYTES = 400 * 1024
"""How much the writer copies at a time where it has to: long copies keep requests waiting."""

STARVED_S = 10.0
"""How long the writer copies by itself, once it had to, before the idle thread gets another chance."""


class Checkpointer:
    """The idle thread, and the writer's part in it.

    Args:
        path: the log's file.
        connection: the writer's, whose own checkpoints this turns off.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        # A reader that holds an old state makes the journal grow; afterwards the disk gets its room back.
        connection.execute(f"PRAGMA journal_size_limit = {WORTH_BYTES + MOST_BYTES}")
        self._journal_bytes = 0  # since it last started over
        self._next_bytes = WORTH_BYTES
        self._asked = False  # the thread, which has not been seen to be done
        self._copied = False  # set by the thread
        self._starved_until = -math.inf
        self._failed = False
        self._closing = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outbox-checkpointer", daemon=True)
        self._thread.start()

    def wrote(self, size_bytes: int) -> None:
        """Called by the writer after a commit of so many bytes: sees to it that the journal is copied in time."""
        self._journal_bytes += size_bytes
        if self._copied:
            self._asked = self._copied = False
            self._finish(WORTH_BYTES)
        elif self._journal_bytes < self._next_bytes:
            return
        elif self._asked:
            self._starved_until = time.monotonic() + STARVED_S
            self._finish(STEP_BYTES)
        elif time.monotonic() < self._starved_until:
            self._finish(STEP_BYTES)
        else:
            self._asked = True
            self._next_bytes += MOST_BYTES
            self._wake.set()

    def close(self) -> None:
        """Ends the thread; the connection, closed after it, copies what is left."""
        self._closing = True
        self._wake.set()
        self._thread.join()

    def _finish(self, step_bytes: int) -> None:
        """Copies what is left, so that the next commit starts the journal over; else tries again some bytes later."""
        if self._copy(self._connection):
            self._journal_bytes = 0
        self._next_bytes = self._journal_bytes + step_bytes

    def _run(self) -> None:
        _yield_to_all()
        try:
            with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
                while True:
                    self._wake.wait()
                    self._wake.clear()
                    if self._closing:
                        return
                    self._copy(connection)
                    self._copied = True
        except sqlite3.Error as fault:  # the writer, who waits in vain, does it all
            logger.warning("outbox %s: cannot be copied out of its journal on idle time: %s", self._path, fault)

    def _copy(self, connection: sqlite3.Connection) -> bool:
        """Copies as much as can be copied without keeping anyone waiting, returns whether that was all."""
        try:
            busy, frames, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as fault:  # a full disk: the commits fail as well, and say so
            if not self._failed:
                logger.warning("outbox %s: cannot be copied out of its journal, will try again: %s", self._path, fault)
            self._failed = True
            return False
        self._failed = False
        return not busy and frames == copied


def _yield_to_all() -> None:
    """Has the kernel run the calling thread only when nothing else is runnable, where it knows such threads."""
    try:
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError) as error:
        logger.debug("no idle priority for a thread here: %s", error)
