"""The ceiling: a bare ASGI application on uvicorn that reads the body and answers a constant.

python -m benchmarks.bare_app ANSWER.json PORT
"""

import sys
from pathlib import Path
from typing import Any

import uvicorn


def main() -> None:
    """Serves the file's bytes on 127.0.0.1."""
    body = Path(sys.argv[1]).read_bytes()
    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
    }
    rest = {"type": "http.response.body", "body": body}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send(start)
        await send(rest)

    uvicorn.run(
        app, port=int(sys.argv[2]), http="httptools", loop="uvloop", lifespan="off", log_level="error", access_log=False
    )


if __name__ == "__main__":
    main()
