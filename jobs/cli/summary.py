"""The end of a run: its closing table, and what to do next. What is shown while it goes is
cleanplate.pipeline.ui.progress."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cleanplate.pipeline.ledger.ledger import Tally
from cleanplate.pipeline.ui.terminal import COLOURS, clock, printable

if TYPE_CHECKING:
    from cleanplate.pipeline.engine.carry_out import Outcome


def close(outcome: Outcome, url: str, code: int, hidden: Sequence[str] = ()) -> None:
    """Print the closing table and the lines below it. hidden: what hides."""
    console = Console()
    console.print(summary(outcome.tally, url, hidden))
    console.print("\n".join(next_steps(outcome, url, code)), highlight=False, markup=False, soft_wrap=True)


def next_steps(outcome: Outcome, url: str, code: int) -> list[str]:
    """The time taken, what is not clean, the command to look at it, and what the exit code means."""
    statuses, place = outcome.tally.statuses, quote(printable(url))
    open_ends = [f"{statuses[s]:,} {s}" for s in ("failed", "residual", "skipped") if statuses.get(s)]
    first = f"{outcome.done:,} rows in {clock(outcome.seconds)}" if outcome.done else "nothing new to do"
    lines = [f"{first}; {', '.join(open_ends) or 'nothing failed, nothing left'}"]
    lines += [f"look at it:    cleanplate report {place} -o report.html"]
    if statuses.get("failed"):
        lines += ["try again:     the same command with --retry-failed"]
    if not outcome.clean:
        lines += [f"exit code {code}:   complete, with rows that failed or still show what was to be removed"]
    return lines


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
