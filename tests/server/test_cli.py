"""The root command: what it finds, in which order, and what it says of itself."""

import re
from importlib.metadata import version

from typer.testing import CliRunner

from server.cli import ORDER, root


def test_the_help_lists_the_subcommands_the_usual_ones_first() -> None:
    """Each by the first words of a line, with what it does beside it."""
    shown = CliRunner().invoke(root, ["--help"]).output

    lines = re.findall(r"^\W*([a-z]+) {2,}\w", shown[shown.index("Commands") :], re.MULTILINE)
    assert lines[: len(ORDER)] == list(ORDER)


def test_the_version_is_shown_and_nothing_else_is_done() -> None:
    """Also where no subcommand is given, which without it is an error."""
    shown = CliRunner().invoke(root, ["--version"])
    unknown = CliRunner().invoke(root, ["nonsense"])

    assert (shown.exit_code, shown.output) == (0, f"tiltyard {version('tiltyard')}\n")
    assert (unknown.exit_code, "nonsense" in unknown.output) == (2, True)
