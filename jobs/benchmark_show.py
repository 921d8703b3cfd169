"""The benchmark's results as tables for the terminal and as one SVG picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape
from typing import Any

from rich.console import Console
from rich.table import Table

from models.bench import CROPS, EAGER, WHOLE

Results = dict[str, Any]


def show(part: str, results: Results, console: Console) -> None:
    """One part's results (results[part]) as tables."""
    for table in _TABLES[part](results[part]):
        console.print(table)


def _table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for n, column in enumerate(columns):
        table.add_column(column, justify="left" if n == 0 else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _inpaint(found: Results) -> Iterable[Table]:
    for case in found["cases"]:
        ways = case["ways"]
        rivals = [name for name in (WHOLE, CROPS, EAGER) if name in ways]
        rows = []
        for name, way in ways.items():
            # Wall time, and CPU time in brackets: on a machine that others use too they differ.
            faster = [
                f"{ways[rival]['wall_s'] / way['wall_s']:.2f}x ({ways[rival]['cpu_s'] / way['cpu_s']:.2f}x)"
                for rival in rivals
            ]
            rows.append([name, f"{way['wall_s']:.3f}", f"{way['cpu_s']:.3f}", *faster, _psnr(way)])
        seen = case["pixels_seen"]
        title = (
            f"{case['case']} ({found['model']}, {found['threads']} threads, medians of {found['rounds']}; "
            f"pixels seen: crops {seen['crop_a_part'] / seen['image']:.0%}, ours {seen['ours'] / seen['image']:.0%})"
        )
        columns = ["way", "wall s", "CPU s", *(f"vs {rival}" for rival in rivals), "PSNR in the mask"]
        yield _table(title, columns, rows)


def _psnr(way: Results) -> str:
    """Against the rival that sees the same pixels; "" where there is none."""
    if "psnr_db" not in way:
        return ""
    return "equal" if way["psnr_db"] is None else f"{way['psnr_db']:.1f} dB"


def _exact(found: Results) -> Iterable[Table]:
    rows = [
        [model, pair, f"{error['max_abs']:.1e}", f"{error['psnr_db']:.1f} dB"]
        for model, pairs in found.items()
        for pair, error in pairs.items()
    ]
    yield _table("Predictions in [0, 1] inside holes", ["model", "what", "largest error", "PSNR"], rows)


def _limit(found: Results) -> Iterable[Table]:
    rows = [
        [
            way,
            f"{row['seconds']:.3f}",
            f"{row['gmac_per_s']:.0f}",
            f"{row['of_peak']:.0%}",
            f"{row['of_split_peak']:.0%}" if "of_split_peak" in row else "",
        ]
        for way, row in found["ways"].items()
    ]
    peaks = ", ".join(f"{kind} {rate:.0f}" for kind, rate in found["peaks_gmac_per_s"].items())
    title = (
        f"{found['model']}, {found['side']} px whole, {found['gmac']:.1f} GMAC; measured peaks of a 3x3 convolution, "
        f"GMAC/s: {peaks}"
    )
    yield _table(title, ["way", "s", "GMAC/s", "of its peak", "of the 8-bit peak / 6"], rows)


def _memory(found: Results) -> Iterable[Table]:
    rows = [[n, f"{m['loaded_mb']:.0f}", f"{m['peak_mb']:.0f}"] for n, m in found["processes"].items()]
    yield _table(f"Memory of a worker, MB ({found['case']})", ["way", "model loaded", "peak"], rows)


def _margins(found: list[Results]) -> Iterable[Table]:
    rows = [
        [
            f"{row['hole']}",
            row["rule"],
            f"{row['psnr_from_whole_db']:.2f}",
            f"{row['psnr_from_truth_db']:.2f}",
            f"{row['area_share']:.3f}",
        ]
        for row in found
    ]
    columns = ["hole px", "context", "PSNR from whole", "PSNR from the photograph", "share of pixels seen"]
    yield _table("Crops against whole photographs, lama-lite, inside the hole, dB", columns, rows)


def _pipeline(found: Results) -> Iterable[Table]:
    rows = [
        ["bare loop", f"{found['loop']['wall_s']:.2f}", f"{found['loop']['cpu_s']:.2f}", "", ""],
        [
            "run_here",
            f"{found['run_here']['wall_s']:.2f}",
            f"{found['run_here']['cpu_s']:.2f}",
            f"{found['efficiency']['wall_s']:.3f} ({found['efficiency']['cpu_s']:.3f} by CPU)",
            f"{found['overhead_ms_per_image']['wall_s']:.1f} ({found['overhead_ms_per_image']['cpu_s']:.1f} by CPU)",
        ],
    ]
    if ray := found.get("ray"):
        rows.append(
            [
                f"Ray, {ray['workers']} workers: {ray['images_per_s']:.2f} images/s",
                "",
                "",
                f"{ray['efficiency']:.3f}",
                "",
            ]
        )
    title = f"{found['images']} photographs of {found['megapixels_each']:.2f} Mpx, {found['statuses']}"
    yield _table(title, ["way", "wall s", "CPU s", "efficiency", "overhead ms an image"], rows)


def _overhead(found: Results) -> Iterable[Table]:
    each = found["overhead_ms_per_image"]
    rows = [
        ["listing and planning", f"{found['plan_ms_per_image']:.3f}", ""],
        ["bare decode and encode", f"{found['bare_ms_per_image']:.3f}", ""],
        ["the engine on top", f"{each['wall_s']:.3f}", f"{each['cpu_s']:.3f}"],
    ]
    yield _table(f"{found['images']} tiny images, ms an image", ["", "wall", "CPU"], rows)


def _scaling(found: list[Results]) -> Iterable[Table]:
    rows = [
        [
            f"{row['workers']}",
            f"{row['images_per_s']:.1f}",
            f"{row['efficiency']:.3f}",
            f"{row['whole_efficiency']:.3f}",
        ]
        for row in found
    ]
    columns = ["workers (a node each)", "images/s", "efficiency", "with start and end"]
    yield _table("A model that only waits, on a Ray cluster of this machine", columns, rows)


def _cost(found: dict[str, Results]) -> Iterable[Table]:
    rows = [
        [
            name,
            f"{c['images_per_s']:.3f}",
            f"{c['images_per_s_per_core']:.3f}",
            f"{c['usd_per_million']:,.2f}",
        ]
        for name, c in found.items()
    ]
    yield _table("Cost at the given prices", ["", "images/s", "a core", "$ a million"], rows)


_TABLES: dict[str, Callable[[Any], Iterable[Table]]] = {
    "inpaint": _inpaint,
    "exact": _exact,
    "limit": _limit,
    "memory": _memory,
    "margins": _margins,
    "pipeline": _pipeline,
    "overhead": _overhead,
    "scaling": _scaling,
    "cost": _cost,
}

_COLOURS = {"fp32": "#2a6fb0", "bf16": "#d1662a"}


def plot(results: Results) -> str:
    """An SVG: how many times faster than the whole image in TorchScript each way fills each case, on a logarithmic
    scale, and the efficiency by workers. A benchmark without these parts gives a picture that says so."""
    bars = [
        (case["case"], name, case["ways"][WHOLE]["wall_s"] / way["wall_s"])
        for case in results.get("inpaint", {}).get("cases", [])
        for name, way in case["ways"].items()
        if name in (CROPS, "ours fp32", "ours bf16")
    ]
    lines, y = [], 40
    lines.append(_text(16, 24, "Times faster than TorchScript on the whole image", size=15, bold=True))
    last = ""
    for case_name, name, ratio in bars:
        if case_name != last:
            y, last = y + 26, case_name
            lines.append(_text(16, y, case_name, size=12, bold=True))
        y += 18
        colour = next((c for word, c in _COLOURS.items() if word in name), "#8a8f98")
        width = max(2.0, 130 * _log2(ratio))
        lines.append(_text(208, y, name, size=11, anchor="end"))
        lines.append(f'<rect x="216" y="{y - 11}" width="{width:.0f}" height="13" fill="{colour}"/>')
        lines.append(_text(222 + width, y, f"{ratio:.1f}x", size=11))
    if not bars:
        y += 24
        lines.append(_text(16, y, "the part `inpaint` was not run"))
    for row in results.get("scaling", []):
        if row is results["scaling"][0]:
            y += 40
            lines.append(
                _text(16, y, "Efficiency of a model that only waits, by workers", size=15, bold=True)
            )
        y += 20
        lines.append(_text(208, y, f"{row['workers']}", anchor="end"))
        lines.append(
            f'<rect x="216" y="{y - 11}" width="{400 * row["efficiency"]:.0f}" height="13" fill="#3a8f5c"/>'
        )
        lines.append(_text(222 + 400 * row["efficiency"], y, f"{row['efficiency']:.2f}"))
    height = y + 24
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="960" height="{height}" font-family="sans-serif">'
    return "\n".join([head, f'<rect width="960" height="{height}" fill="white"/>', *lines, "</svg>", ""])


def _log2(ratio: float) -> float:
    from math import log2

    return log2(max(ratio, 1.01))


def _text(
    x: float, y: float, words: str, *, size: int = 11, bold: bool = False, anchor: str = "start"
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'
