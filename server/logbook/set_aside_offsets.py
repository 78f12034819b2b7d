"""Where in a log the events stood that no broker takes."""

from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from server.eventlog.set_aside import SetAside, set_aside_file
from server.logbook.errors import LogbookError


def offsets_set_aside(outbox: Path, log_id: str) -> NDArray[np.int64]:
    """Returns the offsets of a log's events that were set aside, none where there is no such file.

    Raises:
        LogbookError: the file cannot be read.
    """
    file = set_aside_file(outbox)
    offsets: list[int] = []
    try:
        with file.open("rb") as entries:
            for entry in entries:
                kept = msgspec.json.decode(entry, type=SetAside)
                if kept.log_id == log_id:
                    offsets += range(kept.offset, kept.offset + kept.count)
    except FileNotFoundError:
        pass
    except (OSError, msgspec.DecodeError) as error:
        raise LogbookError(f"{file}: expected events that were set aside, got: {error}") from error
    return np.array(offsets, np.int64)
