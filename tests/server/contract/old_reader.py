"""The contract as an earlier Tiltyard has it, to read what is written today.

``readers/events_9e84009.txt`` is ``server/contract/events.py`` of commit 9e84009 byte for byte, and it imports
nothing of ours: what it decodes and refuses is what that version's monitor decodes and refuses. It is not a
``.py`` file, so that no formatter touches it; ``BLOB`` is git's name of its content, as
``git rev-parse 9e84009:server/contract/events.py`` gives it.
"""

import hashlib
import sys
from pathlib import Path
from types import ModuleType

SOURCE = Path(__file__).parent / "readers" / "events_9e84009.txt"
BLOB = "a00b3a6bd790ce787b5ede6ddbbace77dbad12bb"


def blob_of(data: bytes) -> str:
    """Returns git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def load() -> ModuleType:
    """Returns the module as it was."""
    module = ModuleType("events_9e84009")
    sys.modules[module.__name__] = module  # msgspec looks names of annotations up there
    exec(compile(SOURCE.read_text(), SOURCE.name, "exec"), module.__dict__)
    return module
