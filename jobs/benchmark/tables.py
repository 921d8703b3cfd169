"""The benchmark's results as tables for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from cleanplate.models.evaluation.speed import CROPS, EAGER, WHOLE

Results = dict[str, Any]


def show(part: str, results: Results, console: Console) -> None:
    """One part's results (results[part]) as tables."""
    if "error" not in results[part]:
        for table in _TABLES[part](results[part]):
            console.print(table)


shown = ("inpaint",)
"""Parts that show what they find as they find it."""


def show_case(found: Results, case: Results, console: Console) -> None:
    """One case of the part `inpaint`."""
    console.print(_case(found, case))


def _table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for n, column in enumerate(columns):
        table.add_column(column, justify="left" if n == 0 else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _case(found: Results, case: Results) -> Table:
    ways = case["ways"]
    rivals = [name for name in (WHOLE, CROPS, EAGER) if name in ways]
    rows = []
    for name, way in ways.items():
        # Wall time, and CPU time in brackets: on a machine that others use too they differ.
        faster = [
            f"{ways[rival]['wall_s'] / way['wall_s']:.2f}x ({ways[rival]['cpu_s'] / way['cpu_s']:.2f}x)"
            for rival in rivals
        ]
        times = [f"{way['wall_s']:.3f}", f"{way['cpu_s']:.3f}", f"{way['turns']}"]
        rows.append([name, *times, *faster, _psnr(way, "psnr_db"), _psnr(way, "psnr_from_fp32_db")])
    seen = case["pixels_seen"]
    title = (
        f"{case['case']} ({found['model']}, {found['threads']} threads, medians; pixels seen: "
        f"crops {seen['crop_a_part'] / seen['image']:.0%}, ours {seen['ours'] / seen['image']:.0%})"
    )
    if not rows:
        title += ": no time left for it"
    compared = [f"vs {rival}" for rival in rivals]
    return _table(
        title, ["way", "wall s", "CPU s", "turns", *compared, "PSNR in the mask", "from fp32"], rows
    )


def _inpaint(found: Results) -> Iterable[Table]:
    return [_case(found, case) for case in found["cases"]]


def _crops(found: Results) -> Iterable[Table]:
    rows = [
        [
            precision,
            ", ".join(f"{side}: {seconds:.2f}" for side, seconds in row["seconds"].items()),
            f"{row['us_per_pixel']:.2f}",
            f"{row['fixed_px']:,.0f}",
            f"{row['growth']:.2f}",
        ]
        for precision, row in found.items()
    ]
    columns = ["", "seconds by side", "us a pixel", "fixed, pixels", "growth a doubling"]
    yield _table(
        "What a crop costs (cleanplate.models.inpainters.crops.cost plans with 12,000 and .05, bf16 .15)",
        columns,
        rows,
    )


def _psnr(way: Results, key: str) -> str:
    """ "psnr_db": against the rival that sees the same pixels; "" where there is none."""
    if key not in way:
        return ""
    return "equal" if way[key] is None else f"{way[key]:.1f} dB"


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


def _margins(found: Results) -> Iterable[Table]:
    rows = [
        [
            f"{row['hole']}",
            row["rule"],
            "" if row["rule"] == "whole image" else f"{row['psnr_from_whole_db']:.2f}",
            f"{row['psnr_from_truth_db']:.2f}",
            f"{row['area_share']:.3f}",
        ]
        for row in found["rows"]
    ]
    columns = ["hole px", "context", "PSNR from whole", "PSNR from the photograph", "share of pixels seen"]
    title = f"Crops against whole images, lama-lite, {found['photographs']} photographs, inside the hole, dB"
    yield _table(title, columns, rows)


def _main(found: Results) -> Iterable[Table]:
    rows = [
        [
            row["recipe"],
            row["group"],
            f"{row['images']}",
            f"{row['megapixels_each']:.2f}",
            f"{row['cpu_s_each']:.2f}",
            f"{row['cpu_s_per_megapixel']:.2f}",
            f"{row['images_per_cpu_s']:.2f}",
            ", ".join(f"{name} {cpu:.2f}" for name, cpu in row["stages_cpu_s_each"].items() if cpu >= 0.005),
        ]
        for row in found["summary"]
    ]
    columns = [
        "remove",
        "photographs",
        "n",
        "Mpx",
        "CPU-s each",
        "CPU-s a Mpx",
        "images per CPU-s",
        "by stage",
    ]
    yield _table("The job as users run it, one thread, repairs and verification included", columns, rows)


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
    title = (
        f"{found['images']} photographs of {found['megapixels_each']:.2f} Mpx, medians of {found['turns']}, "
        f"{found['statuses']}"
    )
    yield _table(title, ["way", "wall s", "CPU s", "efficiency", "overhead ms an image"], rows)


def _overhead(found: Results) -> Iterable[Table]:
    each = found["overhead_ms_per_image"]
    rows = [
        ["listing and planning", f"{found['plan_ms_per_image']:.3f}", ""],
        ["bare decode and encode", f"{found['bare_ms_per_image']:.3f}", ""],
        ["the engine on top", f"{each['wall_s']:.3f}", f"{each['cpu_s']:.3f}"],
    ]
    yield _table(f"{found['images']} tiny images, ms an image", ["", "wall", "CPU"], rows)
    rows = [[f"{q['ms_per_image']:.3f}", f"{q['mb']:.0f}"] for q in found["quarters"]]
    rows = [[f"quarter {n}", *row] for n, row in enumerate(rows, 1)]
    yield _table("From the first images to the last", ["", "CPU ms an image", "resident MB"], rows)


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
            f"{c['images_per_s_per_gpu']:.3f}" if "images_per_s_per_gpu" in c else "",
            f"{c['usd_per_million']:,.2f}",
        ]
        for name, c in found.items()
    ]
    yield _table("Cost at the given prices", ["", "images/s", "a core", "a GPU", "$ a million"], rows)


_TABLES: dict[str, Callable[[Any], Iterable[Table]]] = {
    "inpaint": _inpaint,
    "crops": _crops,
    "exact": _exact,
    "limit": _limit,
    "memory": _memory,
    "margins": _margins,
    "main": _main,
    "pipeline": _pipeline,
    "overhead": _overhead,
    "scaling": _scaling,
    "cost": _cost,
}
