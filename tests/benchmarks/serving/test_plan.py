"""Who is measured, and how."""

import pytest

from benchmarks.serving.ceiling import CEILING
from benchmarks.serving.plan import FULL, QUICK, chosen


def test_everything_is_chosen_unless_something_is_asked_for() -> None:
    """Without a choice all parts have all their contestants."""
    assert chosen(FULL, None, None) == list(FULL)


def test_the_ceiling_is_in_every_part() -> None:
    """Ratios need it, whoever else is asked for by the beginning of a name, in any case."""
    (part,) = chosen(FULL, ["peers"], ["kserve", "fastapi"])

    assert [who.name for who in part.contestants] == [CEILING.name, "FastAPI, async", "FastAPI, sync", "KServe"]
    assert all(part.contestants[0] is CEILING for part in FULL)


@pytest.mark.parametrize(("names", "only"), [(["peer"], None), (None, ["kserv ", "kserve"])])
def test_what_is_not_there_is_named(names: list[str] | None, only: list[str] | None) -> None:
    """A slip of the pen is an error, not a run without the contestant."""
    with pytest.raises(ValueError, match=r"got (peer|kserv )$"):
        chosen(QUICK, names, only)
