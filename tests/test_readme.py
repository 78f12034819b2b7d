"""The README's table of settings is held against the code it speaks of."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from server.settings import Settings

README = Path(__file__).parents[1] / "README.md"


def setting_names(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Returns the dotted names of all settings of a class and its groups."""
    names = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += setting_names(field.annotation, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


def setting_row(model: type[BaseModel], name: str) -> str:
    """Returns the README's row of a setting: its name, default and description."""
    *groups, last = name.split(".")
    for group in groups:
        annotation = model.model_fields[group].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        model = annotation
    field = model.model_fields[last]
    assert field.description is not None, f"{name} has no description"
    default = "" if field.is_required() or field.default is None else f"`{field.default}`"
    return f"| `{name}` | {default} | {field.description} |"


@pytest.mark.parametrize("name", setting_names(Settings))
def test_every_setting_stands_in_the_readme(name: str) -> None:
    """Name, default and description are those of the code, so the table cannot go stale."""
    assert setting_row(Settings, name) in README.read_text().splitlines()


def test_the_readme_has_no_setting_that_is_gone() -> None:
    """The table holds as many rows as there are settings."""
    table = README.read_text().split("| setting |", 1)[1].split("\n\n", 1)[0]

    assert len([line for line in table.splitlines() if line.startswith("| `")]) == len(setting_names(Settings))
