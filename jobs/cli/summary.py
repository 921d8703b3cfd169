"""The closing table of a run. What is shown while it goes is cleanplate.pipeline.ui.progress."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from cleanplate.pipeline.ledger.ledger import Tally
from cleanplate.pipeline.ui.terminal import COLOURS, printable


def summary(tally: Tally, title: str, hidden: Sequence[str] = ()) -> Table:
    """Rows by status, then rows by cause, as a table. hidden: what hides."""
    table = Table(title=Text(printable(title)), title_justify="left", show_header=True)
    table.add_column("status or cause")
    table.add_column("rows", justify="right")
    table.add_column("share", justify="right")
    for name, count in sorted(tally.statuses.items(), key=lambda item: -item[1]):
        table.add_row(
            Text(
                f"hidden ({', '.join(hidden)})" if name == "hidden" and hidden else name,
                style=COLOURS.get(name, ""),
            ),
            f"{count:,}",
            f"{count / max(1, tally.rows):.1%}",
        )
    for name, count in sorted(tally.causes.items(), key=lambda item: -item[1]):
        table.add_row(f"  {name}", f"{count:,}", f"{count / max(1, tally.rows):.1%}")
    table.add_section()
    table.add_row("all", f"{tally.rows:,}", "")
    return table
