"""The benchmark's results as one picture, drawn from its JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from cleanplate.models.evaluation.speed import CROPS, OURS, OURS_BF16, WHOLE

Results = dict[str, Any]
Bar = tuple[str, float, str]
"""Label, value, colour."""

SCALE = 2
"""Dots a unit of length: the picture is looked at on screens of all kinds."""
WIDTH, LABEL, LONGEST, ROW = 960, 250, 560, 22
_GREEN = "#3a8f5c"
_COLOURS = {CROPS: "#8a8f98", OURS: "#2a6fb0", OURS_BF16: "#d1662a"}


@dataclass(frozen=True)
class Panel:
    """Bars with one scale. groups: heading -> bars; logarithmic: from 1/2 on, with a line at every doubling."""

    title: str
    groups: dict[str, list[Bar]]
    logarithmic: bool = False

    def length(self, value: float) -> float:
        """Of 0..1 of the longest bar's."""
        most = max(1.0, *(v for bars in self.groups.values() for _, v, _ in bars))
        if not self.logarithmic:
            return value / most
        return max(0.0, 1 + math.log2(max(value, 0.5))) / (1 + math.log2(most))

    def lines(self) -> list[float]:
        if not self.logarithmic:
            return [1.0]
        return [2.0**n for n in range(12) if self.length(2.0**n) <= 1]


def plot(results: Results) -> Image.Image:
    """How many times faster than the whole image in TorchScript each way fills each case; the efficiency by
    workers; and the engine's. Parts that were not run are left out; with none the picture says so."""
    panels = [panel for panel in _panels(results) if panel.groups]
    rows = sum(2 + sum(len(bars) + bool(name) for name, bars in p.groups.items()) for p in panels)
    picture = Image.new("RGB", (WIDTH * SCALE, (ROW * max(rows, 2) + 20) * SCALE), "white")
    draw, y = ImageDraw.Draw(picture), 14
    if not panels:
        _write(draw, 16, y, "nothing that can be drawn was run", 14)
    for panel in panels:
        y = _draw(draw, y, panel)
    return picture


def _panels(results: Results) -> Iterator[Panel]:
    cases = {
        f"{case['case']}": [
            (name, case["ways"][WHOLE]["wall_s"] / case["ways"][name]["wall_s"], colour)
            for name, colour in _COLOURS.items()
            if name in case["ways"]
        ]
        for case in results.get("inpaint", {}).get("cases", [])
        if WHOLE in case["ways"]
    }
    title = "Times faster than TorchScript on the whole image, same weights, same machine (logarithmic)"
    yield Panel(title, cases, logarithmic=True)
    found = results.get("scaling", [])
    scaling = (
        [] if "error" in found else [(f"workers: {r['workers']}", r["efficiency"], _GREEN) for r in found]
    )
    title = "Images/s over those of so many devices, on a Ray cluster, a model that only waits"
    yield Panel(title, {"": scaling} if scaling else {})
    flow = results.get("pipeline", {})
    bars = [("one process", flow["efficiency"]["wall_s"], _GREEN)] if "efficiency" in flow else []
    if "ray" in flow:
        bars.append((f"Ray, {flow['ray']['workers']} workers", flow["ray"]["efficiency"], _GREEN))
    title = "Images/s of the whole run over those of the same models in a bare loop"
    yield Panel(title, {"": bars} if bars else {})


def _draw(draw: ImageDraw.ImageDraw, y: int, panel: Panel) -> int:
    """The panel from y on; where the next one starts."""
    _write(draw, 16, y, panel.title, 15)
    y += ROW + ROW // 4
    bottom = y + ROW * sum(len(bars) + bool(name) for name, bars in panel.groups.items())
    for value in panel.lines():
        at = LABEL + LONGEST * panel.length(value)
        draw.line([v * SCALE for v in (at, y, at, bottom)], fill="#d5d8de", width=SCALE)
    for name, bars in panel.groups.items():
        if name:
            _write(draw, 16, y + 4, name, 13)
            y += ROW
        for label, value, colour in bars:
            _write(draw, LABEL - 8, y + 3, label, 12, anchor="ra")
            end = LABEL + max(LONGEST * panel.length(value), 1)
            draw.rectangle([v * SCALE for v in (LABEL, y + 2, end, y + ROW - 4)], fill=colour)
            text = f"{value:.1f}x" if panel.logarithmic else f"{value:.2f}"
            _write(draw, round(end) + 6, y + 3, text, 12)
            y += ROW
    return y + ROW // 2


def _write(draw: ImageDraw.ImageDraw, x: int, y: int, words: str, size: int, anchor: str = "la") -> None:
    font = ImageFont.load_default(size * SCALE)
    draw.text((x * SCALE, y * SCALE), words, "#1c1e22", font, anchor)
