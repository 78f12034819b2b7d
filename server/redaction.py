"""What the settings hide of the inputs in events, held against the columns that the loaded versions have."""

import logging
from collections.abc import Iterable
from pathlib import Path

from server.contract.manifest import Manifest
from server.errors import SettingsError
from server.protocol.redaction import Redactor, column_names, redactor_of
from server.settings import EventSettings

logger = logging.getLogger(__name__)

SHORTEST_KEY_BYTES = 16


class Redaction:
    """Makes a version's redactor when it loads, and finds names in the settings that hide nothing."""

    def __init__(self, events: EventSettings) -> None:
        """Reads the key.

        Raises:
            SettingsError: it cannot be read or is too short.
        """
        self._columns = events.columns
        self._key = b"" if events.hash_key is None else _key_in(events.hash_key)

    def redactor(self, manifest: Manifest) -> Redactor | None:
        """Returns what hides a version's columns, None where none is to be hidden.

        A column that is named for this very model and that the version has not is told in the server's log: it
        may have another name now, and under that it is not hidden.
        """
        names = column_names(manifest.signature)
        missing = [name for name in self._columns if _of_model(name, manifest.model, names) is False]
        if missing:
            logger.warning(
                "%s version %s: events.columns names %s, and its columns are %s: nothing is hidden for that",
                manifest.model,
                manifest.version,
                missing,
                names,
            )
        return redactor_of(manifest.model, manifest.signature, self._columns, self._key)

    def check(self, manifests: Iterable[Manifest], refused: Iterable[str]) -> None:
        """Holds every name against the versions that serve; one that may still come to hide something is told.

        Args:
            manifests: of the versions that serve.
            refused: models of which a version does not, so that not all columns are known.

        Raises:
            SettingsError: a column is named for a model none of whose versions has it.
        """
        columns: dict[str, set[str]] = {}
        for manifest in manifests:
            columns.setdefault(manifest.model, set()).update(column_names(manifest.signature))
        unsure = set(refused)
        for name in self._columns:
            found = [_of_model(name, model, names) for model, names in columns.items()]
            if True in found or any(name in names for names in columns.values()):
                continue
            model = next((model for model, names in columns.items() if _of_model(name, model, names) is False), None)
            if model is None or model in unsure:
                logger.warning("events.columns: no model that serves has a column %r: nothing is hidden for that", name)
            else:
                raise SettingsError(
                    f"events.columns: expected a column of model {model!r} in {name!r}, got none: its versions have "
                    f"{sorted(columns[model])}"
                )


def _of_model(name: str, model: str, columns: Iterable[str]) -> bool | None:
    """Says whether a name for one model's column is one of its columns, None for a name that is not for this model."""
    if not name.startswith(f"{model}/") or name in columns:
        return None
    return name.removeprefix(f"{model}/") in columns


def _key_in(path: Path) -> bytes:
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise SettingsError(f"events.hash_key {path}: expected a readable file, got: {error.strerror}") from error
    if len(key) < SHORTEST_KEY_BYTES:
        raise SettingsError(
            f"events.hash_key {path}: expected a secret of {SHORTEST_KEY_BYTES} bytes or more, got {len(key)}: "
            "openssl rand -hex 32 makes one"
        )
    return key
