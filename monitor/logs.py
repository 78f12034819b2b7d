"""How the monitor's own log lines look: one line each, on standard error."""

import logging

_SILENCED = "aiokafka"  # says several times a second that a broker is away; who uses it says so once


def configure(level: str = "INFO") -> None:
    """Sends the log lines of the monitor, and warnings of its libraries, to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("monitor").setLevel(level)
    logging.getLogger(_SILENCED).setLevel(logging.CRITICAL + 1)
