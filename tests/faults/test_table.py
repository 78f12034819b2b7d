"""The fault table in the README is what was measured, and what was measured holds."""

from pathlib import Path

import pytest

from tests.faults import table
from tests.faults.balance import Balance

README = Path(__file__).parents[2] / "README.md"
HELD = Balance(
    fault="server killed",
    log="embedded",
    rounds=50,
    answered=1000,
    labels=500,
    logged=2500,
    dropped=0,
    in_topic=None,
    shed=0,
    lost_stated=7,
    oldest_lost_ms=4.2,
    lost=0,
    doubled_in_log=3,
    folded=2000,
    doubled=0,
    missed=0,
    findings_equal=True,
)


def test_the_readme_has_the_table_that_was_written() -> None:
    """No number of it was written by hand."""
    assert table.markdown(table.read()) in README.read_text()


@pytest.mark.parametrize("balance", table.read(), ids=[balance.fault for balance in table.read()])
def test_what_was_measured_holds(balance: Balance) -> None:
    """No row of the table is of a fault that broke a promise."""
    balance.check()


@pytest.mark.parametrize(
    "broken", [{"lost": 1}, {"oldest_lost_ms": 2000.0}, {"doubled": 1}, {"missed": 1}, {"findings_equal": False}]
)
def test_a_broken_promise_is_seen(broken: dict[str, object]) -> None:
    """One event that is lost, counted twice or not at all, or another finding, fails the fault."""
    HELD.check()
    changed = Balance(**{name: getattr(HELD, name) for name in HELD.__struct_fields__} | broken)

    with pytest.raises(AssertionError, match="server killed"):
        changed.check()


def test_a_run_of_some_faults_keeps_the_rows_of_the_others(tmp_path: Path) -> None:
    """In the order of the catalogue, whenever each was played."""
    other = Balance(**{name: getattr(HELD, name) for name in HELD.__struct_fields__} | {"fault": "monitor killed"})
    table.write([other], ["server killed", "monitor killed"], tmp_path)

    table.write([HELD], ["server killed", "monitor killed"], tmp_path)

    assert [balance.fault for balance in table.read(tmp_path)] == ["server killed", "monitor killed"]
    assert (tmp_path / "faults.md").read_text() == table.markdown([HELD, other])
