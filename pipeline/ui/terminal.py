"""A run's state (`Progress.state`) drawn for people: the panel, one line, and HTML of either."""

from __future__ import annotations

import io
from typing import Any
from urllib.parse import unquote

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cleanplate.pipeline.schema import STAGES

COLOURS = {
    "cleaned": "green",
    "hidden": "blue",
    "unchanged": "cyan",
    "residual": "yellow",
    "skipped": "magenta",
    "failed": "red",
}
_WIDE = 90
"""Columns from which the panel has room for bars."""
_GOES_ON = "what is committed stays; run the same command again to continue"


def line(state: dict[str, Any]) -> Text:
    """ "1,204 / 10,000 done   3 failed   1 residual   41.2 images/s   ETA 3:33   most time: detect 62 %" """
    text = Text(f"{state['done']:,} / {state['total']:,} done")
    for status in ("failed", "residual", "skipped"):
        if count := state["statuses"].get(status):
            text.append(f"   {count:,} {status}", style=COLOURS[status])
    if working := _working(state):
        text.append(f"   {working}", style="dim")
    if not state["loading"]:
        text.append(f"   {state['images_per_s']:.1f} images/s")
    if state["eta_s"] is not None:
        text.append(f"   ETA {clock(state['eta_s'])}")
    if state["stages"]:
        name, most = max(state["stages"].items(), key=lambda item: item[1]["share"])
        text.append(f"   most time: {name} {most['share']:.0%}", style="dim")
    return text


def _working(state: dict[str, Any]) -> str:
    """What goes on before the next unit is committed."""
    if state["loading"] and state["done"] < state["total"]:
        return "loading models ..."
    done = ", ".join(f"{stage} {rows:,}" for stage, rows in state["in_work"].items())
    return f"not committed yet: {done}" if done else ""


def panel(state: dict[str, Any], title: str, width: int | None = None, hint: str = "Ctrl-C stops") -> Panel:
    """The whole state, for a person: bar and counts, stages and queues, last errors."""
    bar = Table.grid(padding=(0, 2), expand=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True)
    eta = "" if state["eta_s"] is None else f"   ETA {clock(state['eta_s'])}"
    text = f"{state['done']:,} / {state['total']:,}   {state['images_per_s']:.1f} images/s{eta}"
    bar.add_row(ProgressBar(max(1, state["total"]), state["done"]), text)
    counted = [(status, state["statuses"].get(status, 0)) for status in COLOURS]
    counts = Text("   ").join(
        Text(f"{count:,} {status}", style=COLOURS[status] if count else "dim")
        for status, count in counted
        if count or status in ("residual", "failed")
    )
    if working := _working(state):
        counts.append(f"   {working}", style="dim")
    parts: list[RenderableType] = [bar, counts]
    if state["stages"] or state["queues"]:
        parts += [Text(), _stages(state, bars=width is None or width >= _WIDE)]
    if state["errors"]:
        parts += [Text(), *(_problem(error) for error in reversed(state["errors"]))]
    return Panel(
        Group(*parts),
        title=Text(printable(title)),
        title_align="left",
        subtitle=Text(
            f"{clock(state['elapsed_s'])}   {hint and f'{hint}; {_GOES_ON}'}".rstrip(), style="dim"
        ),
        subtitle_align="left",
        width=width,
    )


def _stages(state: dict[str, Any], *, bars: bool) -> Table:
    """A line a stage: its speed in one worker, its share of the time, and, where its operator begins, the queue."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("stage", no_wrap=True)
    for name in ("ms/image", "img/s each", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    if bars:
        table.add_column("", width=12)
    for name in ("waiting", "running", "workers")[: 3 if bars else 2] if state["queues"] else ():
        table.add_column(name, justify="right", no_wrap=True)
    starts = {queue["stages"][0]: queue for queue in state["queues"]}
    names = [n for n in STAGES if n in state["stages"] or any(n in q["stages"] for q in state["queues"])]
    for name in names:
        speed, queue = state["stages"].get(name), starts.get(name)
        cells = ["", "", ""]
        if speed:
            cells = [
                f"{speed['ms_per_image']:,.1f}",
                f"{speed['images_per_s']:,.1f}",
                f"{speed['share']:.0%}",
            ]
        if bars:
            cells.append("█" * round(12 * speed["share"]) if speed else "")
        if queue:
            workers = f"{queue['workers']:,}" if queue["workers"] else ""
            cells += [f"{queue['waiting']:,}", f"{queue['running']:,}", *([workers] if bars else [])]
        table.add_row(name, *cells)
    return table


def _problem(error: dict[str, str]) -> Text:
    name = unquote(error["uri"]).rpartition("/")[2]
    text = Text(printable(error["cause"]), style=COLOURS["failed"])
    text.append(f"  {printable(name)}: {printable(error['message'])}", style="default")
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def as_html(renderable: RenderableType) -> dict[str, str]:
    """A MIME bundle of what a terminal of 100 columns would show."""
    console = Console(record=True, file=io.StringIO(), width=100, force_terminal=True, force_jupyter=False)
    console.print(renderable)
    html = console.export_html(
        inline_styles=True,
        clear=False,
        code_format='<pre style="line-height:1.2;font-family:monospace">{code}</pre>',
    )
    return {"text/html": html, "text/plain": console.export_text()}


def printable(text: str) -> str:
    """Names come from a stranger's bucket: what would steer a terminal is shown as a box."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def clock(seconds: float) -> str:
    """ "0:07", "3:33", "1:02:09" """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
