"""The house's rules, read from the code itself: arrows point down, no circles, empty package files."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Each name may import those to its left in the same package and itself; files of one group are peers.
SERVER = (
    {"contract", "errors", "identifiers", "logs"},
    {"settings", "protocol", "routing", "tracing", "acceptor", "tallies", "server_access"},
    {"fast_lane"},
    {"bundles", "protection", "http_protocol", "audit", "payload", "kafka_credentials", "redaction"},
    {"kafka_clients"},
    {"execution", "eventlog", "admission", "http_server"},
    {"metrics", "routes"},
    {"model_route"},
    {"scoring", "traffic"},
    {"swap", "route_control", "shadowing"},
    {"service"},
    {"endpoints", "watching"},
    {"app"},
    {"packing", "logbook"},
    {"cluster"},
    {"demo"},
    {"cli"},
)
MONITOR = (
    {"errors", "logs", "version_profile", "effective_size"},
    {"settings", "drift", "quality", "performance", "comparison", "tensors"},
    {"pane", "label_join", "watermark", "kafka_clients", "kafka_credentials"},
    {"fold", "judge"},
    {"publication"},
    {"sources"},
    {"state_store"},
    {"history"},
    {"partition", "findings"},
    {"teller"},
    {"consumer"},
    {"exporter", "page"},
    {"endpoints"},
    {"app"},
    {"cli"},
)
PURE_SERVER = {"contract", "routing", "protocol"}
PURE_MONITOR = {
    "pane",
    "label_join",
    "watermark",
    "publication",
    "fold",
    "judge",
    "drift",
    "quality",
    "performance",
    "comparison",
    "tensors",
    "version_profile",
    "effective_size",
}
IMPURE = {"asyncio", "os", "time", "random", "pathlib", "socket", "sqlite3", "threading", "secrets"}


def modules(package: str) -> list[str]:
    """Returns the dotted names of a package's modules."""
    return sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / package).rglob("*.py"))


def imports_of(module: str) -> set[str]:
    """Returns every module that a module imports, anywhere in it, type-only imports included."""
    tree = ast.parse(ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text())
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            found.add(node.module or "")
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if ROOT.joinpath(*name.split(".")).with_suffix(".py").exists():
                    found.add(name)
    return found


def rank(layers: tuple[set[str], ...], module: str) -> int:
    """Returns a module's layer by the name after its package."""
    part = module.split(".")[1]
    for place, names in enumerate(layers):
        if part in names:
            return place
    raise AssertionError(f"{module} belongs to no layer: give it one in this test")


def upward_arrows(package: str, layers: tuple[set[str], ...], module: str) -> list[str]:
    """Returns the imports of a module that point up, or sideways between peers."""
    own = module.split(".")[1]
    wrong = []
    for target in imports_of(module):
        if not target.startswith(package + ".") or target.split(".")[1] == own:
            continue
        if rank(layers, target) >= rank(layers, module) and not {own, target.split(".")[1]} <= layers[0]:
            wrong.append(target)
    return wrong


@pytest.mark.parametrize(
    ("package", "layers", "module"),
    [
        (package, layers, module)
        for package, layers in (("server", SERVER), ("monitor", MONITOR))
        for module in modules(package)
        if not module.endswith("__init__")
    ],
)
def test_imports_point_down_the_layers(package: str, layers: tuple[set[str], ...], module: str) -> None:
    """No module imports a layer above its own, or a peer's."""
    assert [] == upward_arrows(package, layers, module)


def test_an_upward_arrow_is_seen() -> None:
    """The check above can fail: a fabricated order of layers makes it."""
    assert upward_arrows("server", ({"cli", "contract"}, {"settings"}, {"errors"}), "server.settings") == [
        "server.errors"
    ]


@pytest.mark.parametrize("module", modules("monitor"))
def test_the_monitor_knows_only_the_contract_of_the_server(module: str) -> None:
    """The side that writes a record owns its shape; nothing else of the server is known."""
    server = {name for name in imports_of(module) if name.split(".")[0] == "server"}

    assert {name for name in server if not name.startswith("server.contract")} == set()


@pytest.mark.parametrize("module", [name for name in modules("server") if not name.endswith("__init__")])
def test_the_server_does_not_know_the_monitor(module: str) -> None:
    """Both can restart, lag or die without the other noticing."""
    assert {name for name in imports_of(module) if name.split(".")[0] == "monitor"} == set()


@pytest.mark.parametrize("package", ["server", "monitor"])
def test_there_are_no_circles_between_modules(package: str) -> None:
    """Every module can be read after the ones it imports."""
    arrows = {module: imports_of(module) & set(modules(package)) for module in modules(package)}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " imports ".join((*path[path.index(module) :], module))
        if module not in done:
            for target in sorted(arrows[module]):
                visit(target, (*path, module))
            done.add(module)

    for module in arrows:
        visit(module, ())
    assert done == set(arrows)


@pytest.mark.parametrize("package", ["server", "monitor"])
def test_package_files_hold_a_docstring_and_nothing_else(package: str) -> None:
    """Importing a package costs nothing and hides nothing."""
    for path in (ROOT / package).rglob("__init__.py"):
        body = ast.parse(path.read_text()).body
        assert len(body) == 1, path
        assert isinstance(body[0], ast.Expr), path


@pytest.mark.parametrize(
    "module",
    [
        module
        for package, pure in (("server", PURE_SERVER), ("monitor", PURE_MONITOR))
        for module in modules(package)
        if any(module.removeprefix(package + ".").startswith(name) for name in pure)
    ],
)
def test_the_pure_core_imports_no_clock_files_or_tasks(module: str) -> None:
    """Time, randomness and ids are arguments."""
    assert {name.split(".")[0] for name in imports_of(module)} & IMPURE == set()


def test_only_the_settings_read_the_environment() -> None:
    """A setting has one way in."""
    texts = {
        module: ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text()
        for package in ("server", "monitor")
        for module in modules(package)
    }
    readers = {module for module, text in texts.items() if "os.environ" in text or "getenv" in text}

    # The demo starts processes, which inherit its environment; a worker sets what prometheus_client reads there.
    assert readers - {"server.settings", "monitor.settings"} == {"server.demo.processes", "server.cluster.worker"}
