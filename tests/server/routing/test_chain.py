"""One order of changes has one outcome, whoever reads it and from where."""

from dataclasses import dataclass
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from server.routing.chain import Chain
from server.routing.document import Route
from server.routing.revision import Revision


def change(id: str, base: int, number: int | None = None, model: str = "flight") -> Revision:  # noqa: A002  # its name
    """Returns a change of a revision of a model's route."""
    route = Route(champion=id, revision=base + 1 if number is None else number)
    return Revision(id=id, model=model, base=base, time=datetime.now(UTC), by="", action="set", route=route)


def held(written: list[Revision]) -> list[str]:
    """Returns the ids of the revisions that hold, as a reader of all this finds them."""
    chain = Chain()
    return [each.id for each in written if chain.add(each)]


@dataclass(frozen=True)
class Step:
    """What a writer does next: of which model, and how many records behind the others it has read."""

    model: str
    behind: int


@st.composite
def logs(draw: st.DrawFn) -> list[Revision]:
    """Records as writers leave them, each of whom has read only a part of what stood there before."""
    steps = draw(st.lists(st.builds(Step, st.sampled_from(["flight", "grid"]), st.integers(0, 4)), max_size=30))
    written: list[Revision] = []
    for place, step in enumerate(steps):
        seen = Chain()
        for each in written[: max(0, len(written) - step.behind)]:
            seen.add(each)
        written.append(change(str(place), seen.current(step.model) or 0, model=step.model))
    return written


@given(logs())
def test_of_the_changes_of_one_base_the_first_holds_and_no_other(written: list[Revision]) -> None:
    """Whatever writers knew when they wrote, each revision has one successor, and numbers have no gap."""
    won = [each for each in written if each.id in held(written)]

    for model in ("flight", "grid"):
        bases = [each.base for each in won if each.model == model]
        assert bases == list(range(len(bases)))
    for each in won:
        same = [other.id for other in written if (other.model, other.base) == (each.model, each.base)]
        assert same[0] == each.id


@given(logs(), st.data())
def test_what_is_removed_of_the_losers_changes_nothing(written: list[Revision], data: st.DataObject) -> None:
    """Compaction may take away any of them at any time: readers before and after it see the same chain."""
    won = set(held(written))
    gone = data.draw(st.sets(st.sampled_from([each.id for each in written if each.id not in won] or ["-"])))

    assert held([each for each in written if each.id not in gone]) == held(written)


@given(logs(), st.integers(0, 30))
def test_a_reader_without_the_first_records_ends_where_the_others_do(written: list[Revision], start: int) -> None:
    """It takes all that the others take; what it takes beyond that comes before the first of these."""
    everything = [each for each in written[start:] if each.id in held(written)]
    later = held(written[start:])

    for model in ("flight", "grid"):
        expected = [each.id for each in everything if each.model == model]
        got = [each.id for each in written if each.id in later and each.model == model]
        assert got[len(got) - len(expected) :] == expected


@given(logs(), st.data())
def test_a_record_that_stands_there_twice_counts_once(written: list[Revision], data: st.DataObject) -> None:
    """A producer that wrote again what it was not sure of has changed nothing by it."""
    twice = data.draw(st.lists(st.sampled_from(written), max_size=5)) if written else []
    places = [data.draw(st.integers(written.index(each) + 1, len(written))) for each in twice]
    doubled = list(written)
    for place, each in sorted(zip(places, twice, strict=True), key=lambda pair: -pair[0]):
        doubled.insert(place, each)

    assert held(doubled) == held(written)


def test_the_first_record_holds_whatever_it_is_based_on() -> None:
    """A model that had revisions before its server knew of Kafka goes on from there."""
    assert held([change("a", 7), change("b", 3), change("c", 8)]) == ["a", "c"]


def test_a_gap_is_passed_and_not_waited_in() -> None:
    """Numbers may jump: somebody wrote one into a document by hand."""
    assert held([change("a", 0, 50), change("b", 1), change("c", 50), change("d", 60)]) == ["a", "c", "d"]


def test_a_change_that_leads_nowhere_does_not_hold() -> None:
    """A number at or below its base would let the same base win twice."""
    chain = Chain()

    assert not chain.add(change("a", 3, 3))
    assert (chain.current("flight"), "a" in chain) == (None, False)
