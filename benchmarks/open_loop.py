"""An open loop of requests: ``python -m benchmarks.open_loop PORT PATH BODY-FILE RATE SECONDS CONNECTIONS SEED``.

Requests are due at times that are fixed in advance (gaps drawn from the exponential distribution, as of many
independent clients), however slowly the server answers. Latency counts from the time a request was due to the
last byte of its answer, so a request that waits for a free connection, or for this process, is counted as
waiting: nothing is omitted. A process of its own, which spins on its core rather than sleep.
"""

import json
import select
import socket
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np

WARM_UP = 0.1  # the part of the requests that is sent first and not counted
END = b"\r\n\r\n"
LENGTH = b"content-length: "
LONGEST_S = 10.0


def main() -> None:
    """Sends, waits for the last answer, and prints what was measured as JSON."""
    port, path, body, rate, seconds, connections, seed = sys.argv[1:]
    found = run(int(port), path, Path(body).read_bytes(), float(rate), float(seconds), int(connections), int(seed))
    print(json.dumps(found))


def run(
    port: int, path: str, body: bytes, rate: float, seconds: float, connections: int, seed: int
) -> dict[str, float]:
    """Returns p50 and p99 in microseconds, failures, and how far this process itself was behind its plan."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n\r\n"
    message = head.encode() + body
    poll = select.epoll()
    sockets = {}
    for _ in range(connections):
        one = socket.create_connection(("127.0.0.1", port))
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.setblocking(False)
        poll.register(one, select.EPOLLIN)
        sockets[one.fileno()] = one
    count = int(rate * seconds)
    due = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count)).tolist()
    free = deque(sockets)
    asked: dict[int, float] = {}
    parts: dict[int, bytes] = {}
    took, behind, failed, sent = [], [], 0, 0
    began = time.perf_counter()
    last = due[-1] + LONGEST_S
    now = 0.0
    while len(took) + failed < count and now < last:
        now = time.perf_counter() - began
        while sent < count and due[sent] <= now and free:
            number = free.popleft()
            asked[number] = due[sent]
            sockets[number].send(message)
            behind.append(now - due[sent])
            sent += 1
        for number, _ in poll.poll(0):
            data = parts.pop(number, b"") + sockets[number].recv(65536)
            end = data.find(END)
            if end < 0 or len(data) < end + len(END) + _length(data[:end]):
                if not data:
                    sys.exit("the server has closed a connection")
                parts[number] = data
                continue
            if data.startswith(b"HTTP/1.1 200 "):
                took.append(time.perf_counter() - began - asked[number])
            else:
                failed += 1
            free.append(number)
    counted = np.array(took[int(count * WARM_UP) :]) * 1e6
    return {
        "requests": float(count),
        "failed": float(count - len(took)),
        "rate": count / due[-1],
        "p50_us": float(np.percentile(counted, 50)),
        "p99_us": float(np.percentile(counted, 99)),
        "behind_p99_us": float(np.percentile(behind, 99) * 1e6),
    }


def _length(head: bytes) -> int:
    place = head.lower().index(LENGTH) + len(LENGTH)
    return int(head[place:].split(b"\r\n", 1)[0])


if __name__ == "__main__":
    main()
