"""What a GPU does here, in under 8 minutes: `make gpu-check`, or `python -m cleanplate.jobs.benchmark.gpu_check`.

Compares each kind's finds with those of the CPU, and measures LaMa, transfers, every stage of the default job, and
workers that share the GPU. With --device cpu it does all of this on the CPU, which tests the script and no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cleanplate.models.types import Region

KINDS = ("text", "watermark", "face", "person", "code")
SCORE_APART, IOU = 0.05, 0.9
"""A find of the device equals one of the CPU when it is as like as that."""
SHARES = (1, 2, 4)
"""Workers that share the GPU."""


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(prog="gpu_check", description=__doc__)
    flags.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    flags.add_argument("--images", type=int, default=12, help="the demo's photographs, with captions")
    flags.add_argument("--model", default="big-lama", help="its shape; the weights are random")
    flags.add_argument("--side", type=int, default=512, help="of LaMa's crops, pixels")
    flags.add_argument("--batch", type=int, default=8, help="of LaMa's crops")
    flags.add_argument(
        "--seconds", type=float, default=420, help="for all parts; what does not fit is left out"
    )
    flags.add_argument("--out", type=Path, default=Path("gpu-check.json"))
    flags.add_argument("--only", metavar="PARTS", help=f"by comma, of: {', '.join(PARTS)}")
    flags.add_argument("--kinds", default=",".join(KINDS), help="whose finds are compared, by comma")
    flags.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return flags


def main(words: Sequence[str] | None = None) -> int:
    """0, or 1 where a part failed or a find differs."""
    args = parser().parse_args(words)
    if args.worker:
        print(json.dumps(_share_of_work(args)), flush=True)
        return 0
    console, end = Console(width=None if sys.stdout.isatty() else 120), time.monotonic() + args.seconds
    results: dict[str, Any] = {"device": args.device}
    for name in args.only.split(",") if args.only else PARTS:
        if time.monotonic() > end:
            results[name] = {"left_out": "no time left"}
            continue
        console.print(f"[bold]{name}[/] ...", highlight=False)
        begun = time.monotonic()
        try:
            results[name] = PARTS[name](args)
        except Exception:  # noqa: BLE001 - printed, kept, and in the exit code; the other parts go on
            results[name] = {"error": traceback.format_exc()}
            console.print(results[name]["error"], highlight=False, markup=False)
        results.setdefault("seconds", {})[name] = round(time.monotonic() - begun, 1)
        args.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for table in tables(results):
        console.print(table)
    console.print(f"written: {args.out}", highlight=False)
    return int(_wrong(results))


def _wrong(results: Mapping[str, Any]) -> bool:
    parts = [part for part in results.values() if isinstance(part, dict)]
    unequal = any(row["apart"] for row in results.get("finds", {}).get("rows", []))
    return unequal or any("error" in part for part in parts)


def _machine(args: argparse.Namespace) -> dict[str, Any]:
    from cleanplate.models.detectors.onnx_session import runtime
    from cleanplate.models.devices import describe

    return describe() | {"onnxruntime": ", ".join(runtime().get_available_providers())}


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    return {"engine.gpus": 1.0} if args.device == "cuda" else {}


def _finds(args: argparse.Namespace) -> dict[str, Any]:
    """Of each kind: finds on the CPU, those that the device finds too, those apart; seconds of both."""
    from cleanplate.jobs.benchmark.inputs import photographs
    from cleanplate.pipeline.factory import kinds
    from cleanplate.pipeline.images.encode import decode
    from cleanplate.pipeline.recipe.recipe import load

    pictures = [decode(data).pixels for data in photographs(args.images, None).values()]
    rows = []
    for kind in args.kinds.split(","):
        found: list[list[list[Region]]] = []
        took: list[float] = []
        for settings in ({}, _settings(args)):
            detectors = kinds.detectors(load(None, {"remove": [kind], **settings}))
            for detector in detectors:
                detector(pictures[:1])
            start = time.perf_counter()
            seen = [one(pictures) for one in detectors]
            found.append([list(chain.from_iterable(some)) for some in zip(*seen, strict=True)])
            took.append(time.perf_counter() - start)
        both = [_alike(cpu, device) for cpu, device in zip(*found, strict=True)]
        same, every = sum(n for n, _ in both), sum(n for _, n in both)
        rate = len(pictures) / took[1]
        rows.append(
            {"kind": kind, "finds": every, "apart": every - same, "cpu_s": took[0], "images_per_s": rate}
        )
    return {"rows": rows}


def _alike(one: Sequence[Region], other: Sequence[Region]) -> tuple[int, int]:
    """(finds that both have, all finds), of one picture."""
    from cleanplate.models.types import iou

    rest, same = list(other), 0
    for region in one:
        near = (r for r in rest if r.kind == region.kind and abs(r.score - region.score) <= SCORE_APART)
        match = next((r for r in near if iou(r.box, region.box) >= IOU), None)
        if match is not None:
            rest.remove(match)
            same += 1
    return same, len(one) + len(rest)


def _lama(args: argparse.Namespace) -> dict[str, Any]:
    from cleanplate.models.evaluation import gpu_speed

    peaks = gpu_speed.matmul_peaks(args.device, 8 * args.side)
    gpu_speed.memory_peak(args.device)
    rows = gpu_speed.lama(args.model, args.device, args.side, args.batch, peaks)
    return {"tmac_per_s": peaks, "rows": rows, "memory_gib": gpu_speed.memory_peak(args.device)}


def _transfers(args: argparse.Namespace) -> dict[str, Any]:
    from cleanplate.models.evaluation import gpu_speed

    return {"gb_per_s": gpu_speed.transfers(args.device, 256 if args.device == "cuda" else 8)}


def _stages(args: argparse.Namespace) -> dict[str, Any]:
    """The default job by one worker: images/s and CPU seconds of each stage."""
    import tempfile

    from cleanplate.jobs.benchmark.inputs import photographs
    from cleanplate.jobs.benchmark.main_job import Metered, started
    from cleanplate.models.evaluation import gpu_speed
    from cleanplate.pipeline.engine.job import stages_of
    from cleanplate.pipeline.recipe.recipe import load

    wall: dict[str, float] = {}
    worker = Metered(stages_of(load(None, _settings(args)), last=True))

    def add(stage: str, rows: int, share: float, seconds: float) -> None:
        wall[stage] = wall.get(stage, 0.0) + seconds

    worker.on_batch = add
    with tempfile.TemporaryDirectory() as folder:
        table = started(photographs(args.images, None), Path(folder))
        worker(table.slice(0, 1))
        wall.clear()
        worker.cpu_s.clear()
        gpu_speed.memory_peak(args.device)
        worker(table)
    rows = [
        {
            "stage": name,
            "images_per_s": args.images / max(s, 1e-9),
            "cpu_s_each": worker.cpu_s[name] / args.images,
        }
        for name, s in wall.items()
    ]
    total = args.images / sum(wall.values())
    return {"rows": rows, "images_per_s": total, "memory_gib": gpu_speed.memory_peak(args.device)}


def _share_of_work(args: argparse.Namespace) -> dict[str, float]:
    found = _stages(args)
    return {"images_per_s": found["images_per_s"]}


def _shares(args: argparse.Namespace) -> dict[str, Any]:
    """Workers in processes of their own that share the device: images/s of all together."""
    counts = SHARES if args.device == "cuda" else SHARES[:1]
    rows = []
    for count in counts:
        if count > (os.cpu_count() or 1):
            break
        command = [sys.executable, "-m", __name__ if __name__ != "__main__" else _MODULE, "--worker"]
        command += ["--device", args.device, "--images", str(args.images)]
        started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
        outputs = [process.communicate()[0] for process in started]
        if any(process.returncode for process in started):
            raise RuntimeError(f"{count} workers: one of them ended with an error, above")
        rates = [json.loads(text.splitlines()[-1])["images_per_s"] for text in outputs]
        rows.append({"workers": count, "images_per_s": sum(rates)})
    return {"rows": rows}


_MODULE = "cleanplate.jobs.benchmark.gpu_check"
PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "machine": _machine,
    "finds": _finds,
    "lama": _lama,
    "transfers": _transfers,
    "stages": _stages,
    "shares": _shares,
}


def tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """The parts that have rows; floats with three digits."""
    for name in PARTS:
        rows = results.get(name, {}).get("rows")
        if not rows:
            continue
        table = Table(title=name, title_justify="left", title_style="bold")
        for column in rows[0]:
            table.add_column(
                column.replace("_", " "), justify="left" if column == next(iter(rows[0])) else "right"
            )
        for row in rows:
            table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
        yield table


if __name__ == "__main__":
    sys.exit(main())
