"""The benchmark's part `pipeline`: the engine against a bare loop over the same photographs."""

from __future__ import annotations

import itertools
import math
import os
import statistics
import time
from typing import Any

import numpy as np

from cleanplate.jobs.benchmark.inputs import clocked, photographs, planned, statuses_of
from cleanplate.models.detectors.views.windows import look_at, windows
from cleanplate.pipeline.engine import ray_cluster
from cleanplate.pipeline.engine import run as runs
from cleanplate.pipeline.engine.worker import settle_threads
from cleanplate.pipeline.factory import inpainters, kinds, segmenters
from cleanplate.pipeline.images import encode, rle
from cleanplate.pipeline.ledger.receipt import Receipt
from cleanplate.pipeline.recipe.recipe import Recipe, load
from cleanplate.pipeline.stages.detect import wanted
from cleanplate.pipeline.stages.inpaint import fill
from cleanplate.pipeline.stages.residue import around
from cleanplate.pipeline.stages.segment import grow

PASSES_OFF: dict[str, Any] = {"verify.passes": 0, "units.rows": 8}
"""Repairs are left out, in the loop as in the run: how often they come is the pictures' affair, not the engine's."""


def bare(blobs: list[bytes], recipe: Recipe) -> dict[str, int]:
    """The steps of a run in a plain loop over images in memory: no plan, rows, hashes, parts. status -> images."""
    finders, checkers = kinds.detectors(recipe), kinds.verifiers(recipe)
    segmenter, fillers = segmenters.segmenter(recipe), inpainters.inpainters(recipe)
    counts: dict[str, int] = {}
    for data in blobs:
        picture = encode.decode(data)
        pixels = picture.pixels
        found = [r for finder in finders for r in finder([pixels])[0] if wanted(r, pixels, recipe)]
        if not found:
            encode.encode(data, picture, None, None)
            counts["unchanged"] = counts.get("unchanged", 0) + 1
            continue
        drawn = segmenter([pixels], [found])[0]
        grown = [grow(mask, region, recipe.masks) for mask, region in zip(drawn, found, strict=True)]
        mask = rle.union(grown, *pixels.shape[:2])
        edited = fill([pixels], [{fillers[""].name: mask}], fillers, [mask])[0]
        for checker in checkers:
            # As `verify` does: near the edits only.
            owed = [n for n, one in enumerate(found) if checker.owed(vars(one))]
            if checker.close and owed:
                places = [around(list(found[n].box), edited) for n in owed]
                checker.detector([np.ascontiguousarray(edited[y0:y1, x0:x1]) for x0, y0, x1, y1 in places])
            elif owed:
                near = rle.union([grown[n] for n in owed], *pixels.shape[:2])
                look_at(checker.detector, [edited], [windows(near, checker.least)])
        encode.encode(data, picture, edited, mask)
        counts["edited"] = counts.get("edited", 0) + 1
    return counts


def pipeline(
    count: int,
    place: str | None,
    rounds: int,
    overrides: dict[str, Any],
    ray: bool,
    seconds: float = math.inf,
) -> dict[str, Any]:
    """One worker, one thread: the bare loop and `run_here` over the same photographs, in turns; then Ray with
    a worker a core against as many times the loop. Efficiencies are images/s over the loop's.

    seconds: about what it may take; fewer photographs (16 at least) and turns keep to it."""
    begun = time.perf_counter()
    recipe = load(None, PASSES_OFF | overrides)
    files = photographs(count, place)
    settle_threads(1)
    bare(list(files.values())[:2], recipe)  # Models are loaded and warm before the first turn.
    each = clocked(lambda: bare(list(files.values())[:4], recipe))["wall_s"] / min(4, len(files))
    # Two turns of the loop and the run, and Ray.
    fewer = max(16.0, (seconds - time.perf_counter() + begun) / (5 * each))
    files = dict(itertools.islice(files.items(), int(min(fewer, len(files)))))
    loops, heres, statuses = [], [], {}
    for turn in range(rounds):
        if turn and time.perf_counter() - begun + 3 * each * len(files) > seconds:
            break
        loops.append(clocked(lambda: bare(list(files.values()), recipe)))
        with planned(files, recipe) as (run, units):
            heres.append(clocked(lambda: runs.execute(run, units, "here", _nothing)))
            statuses = statuses_of(run)
    loop, here = (_median(turns) for turns in (loops, heres))
    found: dict[str, Any] = {
        "images": len(files),
        "turns": len(loops),
        "megapixels_each": _megapixels(files),
        "statuses": statuses,
        "loop": loop,
        "run_here": here,
        "overhead_ms_per_image": {k: (here[k] - loop[k]) * 1000 / len(files) for k in ("wall_s", "cpu_s")},
        "efficiency": {k: loop[k] / here[k] for k in ("wall_s", "cpu_s")},
        "images_per_s_one_core": len(files) / loop["wall_s"],
    }
    if ray:
        # More of them, so that what is measured is long beside how unevenly workers end.
        many = photographs(max(len(files), 8 * 4 * (os.cpu_count() or 1)), place)
        found["ray"] = _on_ray(many, recipe, loop["wall_s"] / len(files))
    return found


def _on_ray(files: dict[str, bytes], recipe: Recipe, loop_s_per_image: float) -> dict[str, Any]:
    workers = os.cpu_count() or 1
    recipe = recipe.model_copy(update={"engine": recipe.engine.model_copy(update={"workers": workers})})
    with planned(files, recipe) as (run, units), ray_cluster.connected(None):
        start = time.perf_counter()
        ends: list[tuple[float, int]] = []
        runs.execute(run, units, "ray", lambda receipt: ends.append((time.perf_counter(), receipt.rows)))
    # From when each worker has loaded its models and finished a unit to the last receipt.
    (begin, _), (end, _) = ends[workers - 1], ends[-1]
    rate = sum(rows for _, rows in ends[workers:]) / (end - begin)
    ideal = workers / loop_s_per_image
    return {
        "workers": workers,
        "start_s": ends[0][0] - start,
        "images_per_s": rate,
        "efficiency": rate / ideal,
    }


def _nothing(receipt: Receipt) -> None:
    del receipt


def _megapixels(files: dict[str, bytes]) -> float:
    heads = [encode.decode(data) for data in list(files.values())[:20]]
    return statistics.fmean(h.width * h.height for h in heads) / 1e6


def _median(turns: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}
