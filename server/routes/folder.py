"""Routes in a folder: a document that people may edit, and a history of revisions that nobody does.

``ROUTES/<model>/route.json`` is replaced atomically; ``route-history.ndjson`` beside it is only appended to: one
revision a line, and a mark for each whose audit event is in the log. The line is what makes a revision hold: it is
written and synced while ``.route.json.new`` lies ready, so that a crash in between leaves the one thing that tells
an unfinished change from a document somebody edited. A lock file lets one process at a time change a model's route;
the system frees the lock of one that dies.
"""

import errno
import fcntl
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path

import msgspec

from server.bundles.names import check_model
from server.errors import RouteError, RouteStoreError, StaleRouteError
from server.routing.changes import same
from server.routing.document import format_route
from server.routing.revision import Revision, decode_revision, encode_revision
from server.routing.wanted import Document, wanted_of

logger = logging.getLogger(__name__)

DOCUMENT_FILE = "route.json"
HISTORY_FILE = "route-history.ndjson"
_READY_FILE = ".route.json.new"
_LOCK_FILE = ".route.lock"
_LARGEST_BYTES = 1024 * 1024


class _Audited(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the history: the audit event of the revision with this id is in the log."""

    audited: str


_mark_decoder = msgspec.json.Decoder(_Audited)
_mark_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class History:
    """A model's revisions, oldest first, and the ids of those whose audit event is in the log."""

    revisions: list[Revision]
    audited: set[str]

    @property
    def newest(self) -> Revision | None:
        """The revision that holds."""
        return self.revisions[-1] if self.revisions else None


class RouteFolder:
    """The routes below one folder. Every method may block for as long as the disk and other writers take."""

    remote = False

    def __init__(self, folder: Path, *, of_bundles: bool = False) -> None:
        """folder: has a folder for each model; one that is not there is made when its route is changed.
        of_bundles: the bundles are here too, so one without any entry is a volume that is not mounted."""
        self._folder = folder
        self._of_bundles = of_bundles
        self.where = str(folder)

    def read(self, model: str) -> tuple[Document, Revision | None]:
        """Returns a model's document and its newest revision, once no change is half done."""
        folder = self._of(model)
        if not (folder / HISTORY_FILE).exists():
            return self._document(folder), None  # nobody has ever changed it here: no lock file is left behind
        try:
            with self._alone(folder, write=False):
                history = self._history(folder)
                return self._settle(folder, history), history.newest
        except RouteStoreError as error:
            return RouteError(str(error)), None

    def stamp(self, model: str) -> tuple[object, ...]:
        """Returns what differs when document or history do, read from no file."""
        folder = self._of(model)
        return tuple(_stamp(folder / name) for name in (DOCUMENT_FILE, HISTORY_FILE))

    def append(self, revision: Revision, seen: Document) -> None:
        """Makes a revision hold.

        Args:
            revision: a new one; the document it came from is left as it is when somebody edited that.
            seen: the document as ``read`` gave it to whoever made the revision.

        Raises:
            StaleRouteError: another revision than its base holds, or the document is another one than it was.
            RouteError: the document would be larger than any that is read.
            RouteStoreError: it cannot be written; nothing has changed.
        """
        folder = self._of(revision.model)
        size = len(format_route(revision.route))
        if size > _LARGEST_BYTES and revision.action != "file":
            raise RouteError(f"expected a document of at most {_LARGEST_BYTES} bytes, got one of {size}")
        with self._alone(folder, write=True):
            history = self._history(folder)
            newest = history.newest
            if newest is not None and newest.number != revision.base:
                raise StaleRouteError(
                    f"model {revision.model!r}: expected a change of revision {newest.number}, which holds, "
                    f"got one of {revision.base}",
                    newest.number,
                )
            document = self._settle(folder, history)
            if not _same_document(document, seen):
                raise StaleRouteError(
                    f"{folder / DOCUMENT_FILE}: expected the document as it was read, got one that was edited "
                    "meanwhile: look at it and try again"
                )
            self._write(folder, revision, document, keep_document=revision.action == "file")

    def accept(self, revisions: Sequence[Revision]) -> list[Revision]:
        """Takes over what was decided elsewhere, oldest first, and returns what of it is new here.

        Raises:
            RouteStoreError: it cannot be written.
        """
        new = []
        for revision in revisions:
            folder = self._of(revision.model)
            with self._alone(folder, write=True):
                history = self._history(folder)
                if revision.id in {each.id for each in history.revisions}:
                    continue
                document = self._settle(folder, history)
                edited = _is_next_change(document, history.newest, revision)
                self._write(folder, revision, document, keep_document=edited)
                new.append(revision)
        return new

    def history(self, model: str) -> History:
        """Returns a model's revisions.

        Raises:
            RouteStoreError: they cannot be read.
        """
        return self._history(self._of(model))

    def mark_audited(self, revision: Revision) -> None:
        """Notes that a revision's audit event is in the log, or raises RouteStoreError."""
        folder = self._of(revision.model)
        path = folder / HISTORY_FILE
        if not path.exists():  # its model has been taken away meanwhile
            return
        with self._alone(folder, write=True):
            with _writing(path):
                _append(path, _mark_encoder.encode(_Audited(audited=revision.id)))

    def _of(self, model: str) -> Path:
        check_model(model)
        return self._folder / model

    def _write(self, folder: Path, revision: Revision, document: Document, *, keep_document: bool) -> None:
        """Makes a revision hold, and unless it is to be kept replaces the document, which was this one."""
        ready = folder / _READY_FILE
        prepared = format_route(revision.route)
        if ready.exists():  # the last change could not become the document either: see _place
            raise RouteStoreError(
                f"{folder / DOCUMENT_FILE}: expected a file that can be replaced; nothing has changed"
            )
        try:
            with _writing(ready):
                if not keep_document:
                    _replace(ready, prepared)
                _append(folder / HISTORY_FILE, encode_revision(revision))
        except RouteStoreError:
            with suppress(OSError):
                ready.unlink(missing_ok=True)
            raise
        # The revision holds, and nothing that fails now changes that.
        if not keep_document:
            self._place(folder, prepared, seen=document)

    def _settle(self, folder: Path, history: History) -> Document:
        """Ends a change whose process died between its two steps: forwards where it holds, else backwards.

        Returns the document, as it is then.
        """
        ready = folder / _READY_FILE
        document = self._document(folder)
        try:
            prepared = ready.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return document
        except OSError as error:
            raise _unwritable(ready, error) from error
        *_, former, newest = None, None, *history.revisions
        if newest is None or prepared != format_route(newest.route) or _is_next_change(document, former, newest):
            with suppress(OSError):  # where it cannot go, everyone who finds it judges it alike
                ready.unlink(missing_ok=True)
            return document
        return self._place(folder, prepared, seen=document)

    def _place(self, folder: Path, prepared: bytes, *, seen: Document) -> Document:
        """Replaces the document by the one that lies ready, unless somebody edited it since; returns what it is.

        Where it cannot be replaced the one that lies ready counts: that it holds is written already.
        """
        ready, path = folder / _READY_FILE, folder / DOCUMENT_FILE
        document = self._document(folder)
        try:
            if not _same_document(document, seen):
                ready.unlink(missing_ok=True)
                return document
            ready.replace(path)
            _sync_folder(folder)
        except OSError as error:
            logger.warning("%s: expected a file that can be replaced, got: %s", path, error.strerror)
        return prepared

    def _document(self, folder: Path) -> Document:
        path = folder / DOCUMENT_FILE
        try:
            if not path.resolve().is_relative_to(self._folder.resolve()):
                return RouteError(
                    f"{path}: expected a file below {self.where}, got a symbolic link that leads out of it"
                )
            with path.open("rb") as file:
                document = file.read(_LARGEST_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            if self._of_bundles and _is_empty(self._folder):
                return RouteError(f"{path}: expected bundles in {self.where}, found nothing there")
            return None
        except (OSError, RuntimeError) as error:  # the latter: links in a circle, before Python 3.13
            return RouteError(f"{path}: expected a readable file, got: {getattr(error, 'strerror', error)}")
        if len(document) > _LARGEST_BYTES:
            return RouteError(f"{path}: expected at most {_LARGEST_BYTES} bytes, got more")
        return document

    def _history(self, folder: Path) -> History:
        path = folder / HISTORY_FILE
        try:
            # A process that died while it wrote leaves part of a line at the end: that change was never answered.
            *lines, _ = path.read_bytes().split(b"\n")
        except (FileNotFoundError, NotADirectoryError):
            return History([], set())
        except OSError as error:
            raise RouteStoreError(f"{path}: expected a readable file, got: {error.strerror}") from error
        history = History([], set())
        for place, line in enumerate(lines, 1):
            try:
                if line.startswith(b'{"audited":'):
                    history.audited.add(_mark_decoder.decode(line).audited)
                else:
                    history.revisions.append(decode_revision(line))
            except msgspec.DecodeError as error:
                raise RouteStoreError(f"{path} line {place}: expected a revision, got: {error}") from error
        return history

    @contextmanager
    def _alone(self, folder: Path, *, write: bool) -> Iterator[None]:
        """Holds a model's lock; a folder that may not be written has no writer to wait for."""
        path = folder / _LOCK_FILE
        descriptor = None
        try:
            if write:
                folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if descriptor is not None:
                os.close(descriptor)
            if write:
                raise _unwritable(path, error) from error
            descriptor = None
        try:
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _is_empty(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> RouteStoreError:
    return RouteStoreError(
        f"{path}: expected a folder that can be written, got: {error.strerror}; nothing has changed (the setting "
        "`routes` names another folder)"
    )


def _replace(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _append(path: Path, line: bytes) -> None:
    """Adds a whole line, synced, or leaves the file as it was."""
    data = line + b"\n"
    with path.open("a+b", buffering=0) as file:  # what a buffer kept would be written after the truncation
        size = _whole_lines(file)
        file.truncate(size)
        try:
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise


def _whole_lines(file: RawIOBase) -> int:
    """Returns the size of a file without the part of a line that a dead process left at its end."""
    file.seek(0)
    return file.readall().rfind(b"\n") + 1


def _same_document(one: Document, other: Document) -> bool:
    """Says whether two looks found the same document; of those that cannot be read one is like another."""
    if isinstance(one, RouteError) or isinstance(other, RouteError):
        return isinstance(one, RouteError) and isinstance(other, RouteError)
    return one == other


def _is_next_change(document: Document, former: Revision | None, revision: Revision) -> bool:
    """Says whether a document is neither the former revision's nor this one's: an edit, not to be lost.

    One that was there before the first revision may be as old as the machine's image, and is replaced.
    """
    if former is None:
        return False
    wanted = wanted_of(document, former)
    return wanted.edited and wanted.route is not None and not same(wanted.route, revision.route)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
