"""Which names models, versions and files of a bundle may have: none that leads out of its folder."""

from server.errors import UnknownModelError


def is_file_name(name: str) -> bool:
    """Says whether a name is one plain part of a path: nothing but printable characters and no separator."""
    return name not in ("", ".", "..") and name.isprintable() and not set(name) & {"/", "\\"}


def is_bundle_name(name: str) -> bool:
    """Says whether a model or version can have this name; those that begin with a dot are hidden."""
    return is_file_name(name) and not name.startswith(".")


def check_model(model: str) -> None:
    """Raises UnknownModelError for a name that no model can have."""
    if not is_bundle_name(model):
        raise UnknownModelError(f"model {model!r} is unknown: expected the plain name of a folder")


def check_version(model: str, version: str) -> None:
    """Raises UnknownModelError for names that no model or version can have."""
    check_model(model)
    if not is_bundle_name(version):
        raise UnknownModelError(f"model {model!r} has no version {version!r}: expected the plain name of a folder")
