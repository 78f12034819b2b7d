from hypothesis import given
from hypothesis import strategies as st

from monitor.watermark import Clock, watermark

_CLOCKS = st.lists(st.builds(Clock, st.none() | st.integers(0, 5), st.booleans()), max_size=5)


@given(st.none() | st.integers(), st.booleans())
def test_of_one_partition_it_is_its_own(time_us: int | None, at_end: bool) -> None:
    """A log without partitions has the watermark it always had."""
    assert time_us == watermark([Clock(time_us, at_end)])


@given(_CLOCKS)
def test_at_the_end_of_all_it_is_the_greatest(clocks: list[Clock]) -> None:
    """When everything is read, the partitions do not matter: it is the newest prediction there is."""
    greatest = max((clock.watermark_us for clock in clocks if clock.watermark_us is not None), default=None)

    assert greatest == watermark([clock._replace(at_end=True) for clock in clocks])


@given(_CLOCKS, st.none() | st.integers(0, 5))
def test_no_partition_with_more_to_come_is_overtaken(clocks: list[Clock], time_us: int | None) -> None:
    """Nothing is closed that a partition may still add to, as far as its own time tells."""
    found = watermark([*clocks, Clock(time_us, at_end=False)])

    assert found is None or (time_us is not None and found <= time_us)
