"""The server as it can be configured."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.machine import tiltyard
from benchmarks.serving.contestant import Contestant, Ground, Launch
from server.contract.manifest import MANIFEST_FILE
from server.protection.tokens import hash_of, new_token

SPLIT = 0.1


def _started(
    *flags: str,
    shadows: int = 0,
    split: bool = False,
    tokens: bool = False,
    kafka: bool = False,
    settings: Mapping[str, str] | None = None,
) -> Callable[[Ground, str, Path, int], Launch]:
    """Returns how the server is started in one of its configurations; all its versions have the same graph."""

    def launch(ground: Ground, estimator: str, folder: Path, port: int) -> Launch:
        models = folder / "models"
        modes = [("shadow", 1.0)] * shadows + [("split", SPLIT)] * split
        for number in range(1, 2 + len(modes)):
            _copy_version(ground.version(estimator), models / "bench" / str(number))
        if modes:
            challengers = [
                {"version": f"{i}", "mode": mode, "share": share} for i, (mode, share) in enumerate(modes, 2)
            ]
            route = {"champion": "1", "challengers": challengers}
            (models / "bench" / "route.json").write_text(json.dumps(route))
        command = tiltyard("serve", "--models", str(models), "--outbox", str(folder / "outbox.db"), *flags)
        environment, headers = dict(settings or {}), {}
        if tokens:
            token = new_token()
            file = folder / "tokens.toml"
            file.write_text(f'[[token]]\nname = "bench"\nsha256 = "{hash_of(token)}"\nscopes = ["infer"]\n')
            command += ["--tokens", str(file)]
            headers["Authorization"] = f"Bearer {token}"
        if kafka:
            assert ground.brokers is not None, "measured only where a broker is"
            environment["TILTYARD_KAFKA__BOOTSTRAP_SERVERS"] = ground.brokers
        return Launch(command=[*command, "--port", str(port)], environment=environment, headers=headers)

    return launch


def _copy_version(source: Path, target: Path) -> None:
    shutil.copytree(source, target)
    manifest = json.loads((target / MANIFEST_FILE).read_bytes())
    (target / MANIFEST_FILE).write_text(json.dumps({**manifest, "version": target.name}))


PLAIN = Contestant(name="Tiltyard", launch=_started())
# Tokens, a route with a split, metrics and the log.
EVERYTHING = Contestant(name="Tiltyard, everything on", launch=_started(split=True, tokens=True))
ASGI = Contestant(name="Tiltyard, everything on, ASGI lane", launch=_started("--no-fast-lane", split=True, tokens=True))
LOGGING_OFF = Contestant(name="Tiltyard, logging off", launch=_started(settings={"TILTYARD_EVENTS__SAMPLE_EVERY": "0"}))
KAFKA = Contestant(name="Tiltyard, Kafka", launch=_started(kafka=True))
ONE_SHADOW = Contestant(name="Tiltyard, 1 shadow", launch=_started(shadows=1))
THREE_SHADOWS = Contestant(name="Tiltyard, 3 shadows", launch=_started(shadows=3))
