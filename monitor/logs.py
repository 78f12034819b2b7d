"""How the monitor's own log lines look: one line each, on standard error."""

import logging


def configure(level: str = "INFO") -> None:
    """Sends the log lines of the monitor, and warnings of its libraries, to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("monitor").setLevel(level)
