"""Ports that stay free until a server that starts slowly binds them."""

import socket

# Below those that the system gives to clients: a peer's own connections may take one of these before it listens.
LOWEST, HIGHEST = 20_000, 32_000


def low_port() -> int:
    """Returns a port of 127.0.0.1 that nothing listens on, not one that the system hands out."""
    for port in range(LOWEST, HIGHEST):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"expected a free port from {LOWEST} to {HIGHEST}, got none")
