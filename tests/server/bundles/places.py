"""The three kinds of store as the tests see them: something that files can be put into and taken from."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Protocol
from urllib.parse import unquote

import fsspec

from server.bundles.store import BundleStore, open_store
from server.routes.store import RouteStore, open_routes
from server.settings import Settings


class Place(Protocol):
    """A store with the routes beside its bundles, and the hand that copies into it."""

    store: BundleStore
    routes: RouteStore

    def put(self, name: str, data: bytes) -> None:
        """Writes a file, whole."""
        ...

    def remove(self, name: str) -> None:
        """Takes a file or a folder away."""
        ...

    @contextmanager
    def away(self) -> Iterator[None]:
        """Makes the whole store unreachable for a while."""
        ...


def routes_beside(store: BundleStore) -> RouteStore:
    """Returns the routes that stand beside a store's bundles."""
    return open_routes(Settings(), store)


class Folder:
    """A local folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "models"
        self.folder.mkdir(parents=True)
        self.store: BundleStore = open_store(str(self.folder), folder / "cache")
        self.routes = routes_beside(self.store)

    def put(self, name: str, data: bytes) -> None:
        """Writes a file, whole."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def remove(self, name: str) -> None:
        """Takes a file or a folder away."""
        path = self.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    @contextmanager
    def away(self) -> Iterator[None]:
        """The folder has another name for a while, as that of a volume that is not mounted."""
        hidden = self.folder.rename(self.folder.with_name("elsewhere"))
        yield
        hidden.rename(self.folder)


class Memory:
    """fsspec's own store in memory."""

    def __init__(self, folder: Path) -> None:
        self.root = f"/{folder.name}/models"
        self.files = fsspec.filesystem("memory")
        self.store: BundleStore = open_store(f"memory:/{self.root}", folder / "cache")
        self.routes = routes_beside(self.store)

    def put(self, name: str, data: bytes) -> None:
        """Writes a file, whole."""
        self.files.pipe_file(f"{self.root}/{name}", data)

    def remove(self, name: str) -> None:
        """Takes a file or a folder away."""
        self.files.rm(f"{self.root}/{name}", recursive=True)

    @contextmanager
    def away(self) -> Iterator[None]:
        """The whole tree has another name for a while."""
        self.files.mv(self.root, "/elsewhere", recursive=True)
        yield
        self.files.mv("/elsewhere", self.root, recursive=True)


class Recorder(SimpleHTTPRequestHandler):
    """`python -m http.server`, whose answers a test may spoil: by path, (status, length, body)."""

    requests: ClassVar[list[str]] = []
    spoiled: ClassVar[dict[str, tuple[int, int, bytes]]] = {}

    def do_GET(self) -> None:
        """Notes the request, and answers it as the folder has it or as the test wants it."""
        path = unquote(self.path)
        type(self).requests.append(path)
        spoiled = self.spoiled.get(path) or self.spoiled.get("*")
        if spoiled is None:
            super().do_GET()
            return
        status, length, body = spoiled
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        """Keeps the tests' output clean."""


class Web(Folder):
    """A folder behind a real HTTP server."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.handler: type[Recorder] = type("Handler", (Recorder,), {"requests": [], "spoiled": {}})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(self.handler, directory=str(folder)))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/models"
        self.store = open_store(self.url, folder / "cache")
        self.routes = routes_beside(self.store)

    @contextmanager
    def away(self) -> Iterator[None]:
        """The server fails every request for a while."""
        self.handler.spoiled["*"] = (500, 0, b"")
        yield
        del self.handler.spoiled["*"]

    def count(self, name: str) -> int:
        """Returns how often a file was downloaded."""
        return sum(path == f"/models/{name}" for path in self.handler.requests)

    def close(self) -> None:
        """Ends the server."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def put_bundle(place: Place, bundle: Path, version: str = "1") -> None:
    """Copies a packed bundle into a place as a version of its model."""
    for path in sorted(bundle.iterdir()):
        data = path.read_bytes()
        if path.name == "bundle.json":
            data = data.replace(b'"version": "1"', f'"version": "{version}"'.encode())
        place.put(f"{bundle.parent.name}/{version}/{path.name}", data)
