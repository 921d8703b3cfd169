"""What a run shows while it goes: one live line in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.ledger import Receipt, Tally

_PLAIN_EVERY_S = 10.0
_COLOURS = {
    "cleaned": "green",
    "unchanged": "cyan",
    "residual": "yellow",
    "skipped": "magenta",
    "failed": "red",
}


class Progress:
    """Counts receipts and shows them. `total` and `before` are rows: planned, and committed earlier."""

    def __init__(self, total: int, before: int) -> None:
        self.total, self.before = total, before
        self.tally = Tally()
        self.start = self.shown = time.monotonic()
        self.console = Console(stderr=True)
        self.live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None

    def __enter__(self) -> Progress:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self.live:
            self.live.update(self.line(), refresh=True)
            self.live.stop()
        elif self.tally.rows:
            self._plain()

    def __call__(self, receipt: Receipt) -> None:
        self.tally.add(receipt.rows, receipt.statuses, receipt.causes)
        if self.live:
            self.live.update(self.line(), refresh=True)
        elif time.monotonic() - self.shown >= _PLAIN_EVERY_S:
            self._plain()

    def _plain(self) -> None:
        self.shown = time.monotonic()
        print(self.line().plain, file=sys.stderr, flush=True)

    def line(self) -> Text:
        """ "1,204 / 10,000 done   3 failed   1 residual   41.2 images/s   ETA 3:33" """
        done = self.before + self.tally.rows
        rate = self.tally.rows / max(1e-9, time.monotonic() - self.start)
        text = Text(f"{done:,} / {self.total:,} done")
        for status in ("failed", "residual", "skipped"):
            if count := self.tally.statuses.get(status):
                text.append(f"   {count:,} {status}", style=_COLOURS[status])
        text.append(f"   {rate:.1f} images/s")
        if self.tally.rows and done < self.total:
            text.append(f"   ETA {clock((self.total - done) / rate)}")
        return text


def clock(seconds: float) -> str:
    """ "0:07", "3:33", "1:02:09" """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def summary(tally: Tally, title: str) -> Table:
    """Rows by status, then rows by cause, as a table."""
    table = Table(title=title, title_justify="left", show_header=True)
    table.add_column("status or cause")
    table.add_column("rows", justify="right")
    table.add_column("share", justify="right")
    for name, count in sorted(tally.statuses.items(), key=lambda item: -item[1]):
        table.add_row(
            Text(name, style=_COLOURS.get(name, "")), f"{count:,}", f"{count / max(1, tally.rows):.1%}"
        )
    for name, count in sorted(tally.causes.items(), key=lambda item: -item[1]):
        table.add_row(f"  {name}", f"{count:,}", f"{count / max(1, tally.rows):.1%}")
    table.add_section()
    table.add_row("all", f"{tally.rows:,}", "")
    return table
