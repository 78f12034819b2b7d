"""The fault table: as JSON with everything that was counted, and as Markdown for the README."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.faults.balance import Balance

RESULTS = Path(__file__).parent / "results"

_decoder = msgspec.json.Decoder(list[Balance])

_HEAD = (
    "| fault | log | rounds | answers | lost | lost as stated | again | not counted | counted twice | findings |",
    "|---|---|---|---|---|---|---|---|---|---|",
)


def markdown(balances: Sequence[Balance]) -> str:
    """Returns the table, a row for each fault."""
    return "\n".join([*_HEAD, *map(_row, balances)]) + "\n"


def read(results: Path = RESULTS) -> list[Balance]:
    """Returns the balances that were written, none where there is no file."""
    file = results / "faults.json"
    return _decoder.decode(file.read_bytes()) if file.exists() else []


def write(balances: Sequence[Balance], order: Sequence[str], results: Path = RESULTS) -> None:
    """Writes both forms; faults that were not played keep the rows they had.

    Args:
        balances: of the faults that were played.
        order: the names of all faults.
        results: the folder that takes them.
    """
    results.mkdir(exist_ok=True)
    rows = {balance.fault: balance for balance in (*read(results), *balances)}
    kept = [rows[name] for name in order if name in rows]
    (results / "faults.json").write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")
    (results / "faults.md").write_text(markdown(kept))


def _row(balance: Balance) -> str:
    stated = f"{balance.shed:,} shed, counted" if balance.shed else f"{balance.lost_stated:,}"
    if balance.lost_stated:
        stated += f" (of the last {balance.oldest_lost_ms:.0f} ms)"
    cells = (
        balance.fault,
        balance.log,
        f"{balance.rounds:,}",
        f"{balance.answered:,}",
        f"**{balance.lost:,}**",
        stated,
        f"{balance.doubled_in_log:,}",
        f"**{balance.missed:,}**",
        f"**{balance.doubled:,}**",
        "equal" if balance.findings_equal else "different",
    )
    return "| " + " | ".join(cells) + " |"
