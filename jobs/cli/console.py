"""The console that tables are printed to."""

from __future__ import annotations

from rich.console import Console

_SHORTEST = 140
"""Columns where no terminal is: rich would assume 80 for a file or a pipe, and cut or fold what is in a table."""


def wide() -> Console:
    """Standard output: as wide as its terminal, or wide enough for tables where it is none."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, _SHORTEST))
