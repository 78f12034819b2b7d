"""The balance of a verification as people read it."""

from rich.table import Table
from rich.text import Text

from server.logbook.findings import Findings
from server.routes.client import plain
from server.routes.tables import console_for


def print_findings(findings: Findings) -> None:
    """Prints every count, then what is wrong, or that nothing is."""
    console = console_for()
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    for row in findings.rows:
        table.add_row(Text(row.what), f"{row.count:,}", Text(plain(row.note)))
    console.print(table)
    console.print()
    for fault in findings.faults:
        console.print(Text(plain(f"WRONG: {fault}")))
    if not findings.faults:
        console.print("It balances.")
