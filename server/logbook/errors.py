"""What can go wrong beside the errors of the log itself.

LogbookError         what was asked for cannot be done
├── TopicError       the topic cannot be read
└── CountersError    the server's counters cannot be read
"""

from server.errors import TiltyardError


class LogbookError(TiltyardError):
    """What was asked for cannot be done."""


class TopicError(LogbookError):
    """The topic cannot be read."""


class CountersError(LogbookError):
    """The server's counters cannot be read."""
