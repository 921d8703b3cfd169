"""The parts of `cleanplate benchmark`: what each measures, within its time."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from cleanplate.models.types import Image

LEAST_PHOTOS = 12
"""Photographs that `margins` looks at, however little time there is."""


@dataclass(frozen=True)
class Turn:
    """What a part is given: the flags, its time, and where to say and keep what it has so far."""

    args: argparse.Namespace
    seconds: float
    keep: Callable[[Any], None]
    console: Console

    @property
    def end(self) -> float:
        """As time.perf_counter() will tell it."""
        return time.perf_counter() + self.seconds


def _threads(args: argparse.Namespace) -> int:
    from cleanplate.models.devices import limit_threads

    threads: int = args.threads or (1 if args.quick else os.cpu_count() or 1)
    limit_threads(threads)
    return threads


def _model(args: argparse.Namespace) -> str:
    return "tiny" if args.quick else "big-lama"


def _inpaint(turn: Turn) -> dict[str, Any]:
    from cleanplate.jobs.benchmark.tables import show_case
    from cleanplate.models.evaluation import speed
    from cleanplate.models.lama.params import LAMA

    args, end = turn.args, turn.end
    found: dict[str, Any] = {
        "model": _model(args),
        "threads": _threads(args),
        "rounds": args.rounds,
        "cases": [],
    }
    model = speed.random_generator(LAMA[_model(args)])
    ways = {n: way for n, way in speed.ways(model, args.device).items() if re.search(args.ways, n)}
    cases = [c for c in speed.cases(quick=args.quick) if not args.cases or args.cases in c.name]
    small = speed.cases(quick=True)[0]
    speed.timed(small, ways, 1)  # Every way once, so that no first call is in a figure.
    pace = speed.Pace(end)
    for n, case in enumerate(cases):
        now = time.perf_counter()
        part = speed.share_of(case) / sum(speed.share_of(c) for c in cases[n:])
        pace.share = now + part * max(end - now, 0)
        found["cases"].append(speed.timed(case, ways, args.rounds, pace))
        turn.keep(found)
        show_case(found, found["cases"][-1], turn.console)
    return found


def _crops(turn: Turn) -> dict[str, Any]:
    from cleanplate.models.evaluation import speed, speed_limits
    from cleanplate.models.lama.params import LAMA

    _threads(turn.args)
    sides = (64, 96, 128) if turn.args.quick else (256, 384, 512, 768, 1024)
    model = speed.random_generator(LAMA[_model(turn.args)])
    return speed_limits.crop_costs(model, sides, turn.seconds)


def _exact(turn: Turn) -> dict[str, Any]:
    from cleanplate.jobs.benchmark.inputs import photographs
    from cleanplate.models.evaluation import speed, speed_limits
    from cleanplate.models.lama.params import LAMA
    from cleanplate.pipeline.images import encode

    args = turn.args
    _threads(args)
    side = 64 if args.quick else 512
    lite, prefill = speed_limits.shipped("lama-lite")
    photo = encode.decode(next(iter(photographs(1, args.photos).values()))).pixels
    at_most = min(side, *photo.shape[:2]) // 8 * 8
    found = {"lama-lite, trained": speed_limits.exactness(lite, at_most, prefill=prefill, image=photo)}
    turn.keep(found)
    model = speed.random_generator(LAMA[_model(args)])
    # fp64 takes a minute at 512 px, and says the same at 256.
    return found | {f"{_model(args)}, random weights": speed_limits.exactness(model, min(side, 256))}


def _limit(turn: Turn) -> dict[str, Any]:
    from cleanplate.models.evaluation import speed_limits

    _threads(turn.args)
    return speed_limits.limit(_model(turn.args), 64 if turn.args.quick else 512, turn.args.rounds)


def _memory(turn: Turn) -> dict[str, Any]:
    from cleanplate.models.evaluation import speed

    args = turn.args
    at = next(n for n, case in enumerate(speed.cases(quick=True)) if "one hole" in case.name)
    found: dict[str, Any] = {"case": "2048x1536, one hole 300x200", "processes": {}}
    for name in (speed.OURS, speed.OURS_BF16, speed.WHOLE):
        found["processes"][name] = _fresh(
            "cleanplate.models.evaluation.speed_limits", "memory_of", name, _model(args), at, args.quick
        )
        turn.keep(found)
    settings: dict[str, Any] = {"units.rows": 8}
    settings |= {"remove": ["face"], "inpaint.name": "telea"} if args.quick else {}
    count = 2 if args.quick else 16
    found["processes"][f"a run's worker, {count} photographs"] = _fresh(
        "cleanplate.jobs.benchmark.memory", "memory_of_run", count, args.photos, settings
    )
    return found


def _fresh(module: str, function: str, *given: Any) -> dict[str, float]:
    """What a function gives, in a process of its own: peaks of this one would hide it. given: as JSON can hold it."""
    program = (
        f"import json, sys; from {module} import {function}; "
        f"print(json.dumps({function}(*json.loads(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", program, json.dumps(given)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(json.loads(printed))


def _margins(turn: Turn) -> dict[str, Any]:
    from cleanplate.models.evaluation import crop_margins, speed_limits

    args, end = turn.args, turn.end
    _threads(args)
    holes = crop_margins.HOLES[:1] if args.quick else crop_margins.HOLES
    least = 1 if args.quick else LEAST_PHOTOS

    seen = 0

    def some() -> Iterator[Image]:
        nonlocal seen
        for photo in _test_photographs(args):
            if seen >= (least if args.quick else args.images) or (
                seen >= least and time.perf_counter() > end
            ):
                return
            seen += 1
            yield photo

    rows = crop_margins.table(some(), crop_margins.fillers(speed_limits.lite_inpainter), holes)
    return {"photographs": seen, "rows": rows}


def _test_photographs(args: argparse.Namespace) -> Iterator[Image]:
    """Photographs that lama-lite was not trained on: the demo's without captions, or `split=test` of --photos,
    the collections in turns. HWC uint8 RGB, at most 1024 px, the short side at least 384."""
    import cv2

    from cleanplate.jobs.benchmark.inputs import demo_photographs
    from cleanplate.jobs.photos import open_photos
    from cleanplate.models.inpainters.crops import resize
    from cleanplate.pipeline.images import encode
    from cleanplate.pipeline.images.formats.base import ImageError

    if args.photos:
        photos = open_photos(str(args.photos), "test")
        groups: dict[str, list[Any]] = {}
        for photo in photos:
            groups.setdefault(photo.source, []).append(photo)
        turns = [
            p for n in range(max(map(len, groups.values()))) for g in groups.values() for p in g[n : n + 1]
        ]
        blobs: Iterator[bytes] = (photo.read() for photo in turns)
    else:
        blobs = iter(demo_photographs().values())
    for data in blobs:
        try:
            pixels = np.asarray(encode.decode(data).pixels)
        except ImageError:
            continue
        scale = min(1.0, 1024 / max(pixels.shape[:2]))
        if min(pixels.shape[:2]) * scale < 384:
            continue
        size = round(pixels.shape[0] * scale), round(pixels.shape[1] * scale)
        yield pixels if scale == 1 else resize(pixels, size, cv2.INTER_AREA)


def _pipeline(turn: Turn) -> dict[str, Any]:
    from cleanplate.jobs.benchmark import bare_loop

    args = turn.args
    overrides: dict[str, Any] = {"inpaint.name": args.inpainter, "engine.gpus": float(args.device == "cuda")}
    if args.quick:
        overrides |= {"remove": ["face"], "inpaint.name": "telea"}
    count = 3 if args.quick else args.images
    return bare_loop.pipeline(
        count, args.photos, args.rounds, overrides, ray=not args.quick, seconds=turn.seconds
    )


def _main(turn: Turn) -> dict[str, Any]:
    from cleanplate.jobs.benchmark import inputs, main_job
    from cleanplate.jobs.benchmark.rivals import rivals

    args = turn.args
    kinds = dict(list(main_job.KINDS.items())[:1]) if args.quick else main_job.KINDS
    return main_job.main_job(
        inputs.photographs(1 if args.quick else args.images, args.photos),
        turn.seconds,
        kinds,
        {} if args.quick else rivals(),
    )


def _overhead(turn: Turn) -> dict[str, Any]:
    from cleanplate.jobs.benchmark import flow

    return flow.overhead(min(turn.args.tiny, 50) if turn.args.quick else turn.args.tiny)


def _scaling(turn: Turn) -> list[dict[str, float]]:
    from cleanplate.jobs.benchmark import flow

    end, found = turn.end, list[dict[str, float]]()
    for workers in [1] if turn.args.quick else [int(word) for word in turn.args.workers.split(",")]:
        if found and time.perf_counter() > end:
            break
        found += flow.scaling([workers])
        turn.keep(found)
    return found


RUN: dict[str, Callable[[Turn], Any]] = {
    "inpaint": _inpaint,
    "crops": _crops,
    "exact": _exact,
    "limit": _limit,
    "memory": _memory,
    "main": _main,
    "overhead": _overhead,
    "scaling": _scaling,
    "pipeline": _pipeline,
    "margins": _margins,
}


def cost(results: dict[str, Any], args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """What was measured, as images/s, for each core and GPU, and as dollars for a million images at the given
    prices."""
    gpus = float(args.device == "cuda")  # Every part that has a rate runs on one device at most.
    rates: dict[str, tuple[float, float]] = {}
    flow = results.get("pipeline", {})
    if "images_per_s_one_core" in flow:
        rates["bare loop, one core"] = flow["images_per_s_one_core"], 1
        rates["cleanplate run, one core"] = flow["images"] / flow["run_here"]["wall_s"], 1
        if ray := flow.get("ray"):
            rates["cleanplate run, Ray"] = ray["images_per_s"], ray["workers"]
    for case in results.get("inpaint", {}).get("cases", []):
        for name, way in case["ways"].items():
            if "one hole" in case["case"]:
                rates[f"one hole: {name}"] = 1 / way["wall_s"], results["inpaint"]["threads"]
    return {name: _priced(rate, cores, gpus, args) for name, (rate, cores) in rates.items()}


def _priced(rate: float, cores: float, gpus: float, args: argparse.Namespace) -> dict[str, float]:
    hourly = cores * args.price_core_hour + gpus * args.price_gpu_hour
    priced = {
        "images_per_s": rate,
        "images_per_s_per_core": rate / cores,
        "usd_per_million": 1e6 / rate / 3600 * hourly,
    }
    return priced | ({"images_per_s_per_gpu": rate / gpus} if gpus else {})
