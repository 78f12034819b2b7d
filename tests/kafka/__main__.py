"""`python -m tests.kafka [PORT]`: a broker in the foreground, for trying things out; its data goes when it ends."""

import contextlib
import signal
import sys
import tempfile
from pathlib import Path

from tests.kafka.broker import running_broker


def main(port: int | None) -> None:
    """Runs a broker until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        contextlib.suppress(KeyboardInterrupt),
        tempfile.TemporaryDirectory(prefix="tiltyard-kafka-") as folder,
        running_broker(Path(folder), port) as broker,
    ):
        sys.stdout.write(f"Kafka answers at {broker.bootstrap_servers}; Ctrl-C stops it\n")
        sys.stdout.flush()
        broker.join()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else None)
