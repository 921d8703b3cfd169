"""The benchmark's parts about the flow: the engine against a bare loop, tiny images, and more workers.

Ray is imported here for one thing: `ray.cluster_utils.Cluster`, several nodes on one machine.
"""

from __future__ import annotations

import functools
import itertools
import logging
import math
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from cleanplate.models.detectors.views.windows import look_at, windows
from cleanplate.pipeline import schema
from cleanplate.pipeline.engine import ray_cluster, ray_data
from cleanplate.pipeline.engine import run as runs
from cleanplate.pipeline.engine.job import Job, run_here
from cleanplate.pipeline.engine.worker import settle_threads
from cleanplate.pipeline.factory import inpainters, kinds, segmenters
from cleanplate.pipeline.images import encode, rle
from cleanplate.pipeline.ledger.ledger import Receipt
from cleanplate.pipeline.recipe.recipe import Recipe, load
from cleanplate.pipeline.stages.detect import wanted
from cleanplate.pipeline.stages.inpaint import fill
from cleanplate.pipeline.stages.read import Read
from cleanplate.pipeline.stages.segment import grow
from cleanplate.pipeline.stages.stage import Needs, Stage, Work
from cleanplate.pipeline.stages.verify import around
from cleanplate.pipeline.stages.write import Write

PASSES_OFF: dict[str, Any] = {"verify.passes": 0, "units.rows": 8}
"""Repairs are left out, in the loop as in the run: how often they come is the pictures' affair, not the engine's."""


# --- the engine against a bare loop ---


def photographs(count: int, place: str | None) -> dict[str, bytes]:
    """So many JPEGs, name -> bytes: those of a folder or URL (of an INDEX.csv: `split=test`), or the demo's with a
    caption, all different."""
    if place is not None:
        from cleanplate.jobs.photos import open_photos

        some = (p for p in open_photos(str(place), "test") if p.file.lower().endswith((".jpg", ".jpeg")))
        return {f"{n:05d}.jpg": p.read() for n, p in enumerate(itertools.islice(some, count))}
    demo = list(demo_photographs().values())
    return {f"{n:05d}.jpg": _captioned(demo[n % len(demo)], n) for n in range(count)}


def demo_photographs() -> dict[str, bytes]:
    """The demo's JPEGs, name -> bytes."""
    found = (
        p
        for p in resources.files("cleanplate.jobs").joinpath("demo_photos").iterdir()
        if p.name.endswith(".jpg")
    )
    return {p.name: p.read_bytes() for p in sorted(found, key=lambda p: p.name)}


def _captioned(jpeg: bytes, number: int) -> bytes:
    picture = np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), np.uint8).copy()
    place = (20, picture.shape[0] - 24)
    cv2.putText(picture, f"Nordwind {number}", place, cv2.FONT_HERSHEY_SIMPLEX, 1.1, (255, 255, 255), 3)
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1])


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
    each = _clocked(lambda: bare(list(files.values())[:4], recipe))["wall_s"] / min(4, len(files))
    # Two turns of the loop and the run, and Ray.
    fewer = max(16.0, (seconds - time.perf_counter() + begun) / (5 * each))
    files = dict(itertools.islice(files.items(), int(min(fewer, len(files)))))
    loops, heres, statuses = [], [], {}
    for turn in range(rounds):
        if turn and time.perf_counter() - begun + 3 * each * len(files) > seconds:
            break
        loops.append(_clocked(lambda: bare(list(files.values()), recipe)))
        with planned(files, recipe) as (run, units):
            heres.append(_clocked(lambda: runs.execute(run, units, "here", _nothing)))
            statuses = _statuses(run)
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


@contextmanager
def planned(files: dict[str, bytes], recipe: Recipe) -> Iterator[tuple[runs.Run, list[Any]]]:
    """A run over these files, name -> bytes, and its units; its folder goes with the `with`."""
    with tempfile.TemporaryDirectory(prefix="cleanplate-bench-") as folder:
        source = Path(folder) / "in"
        source.mkdir()
        for name, data in files.items():
            (source / name).write_bytes(data)
        run = runs.start(str(source), str(Path(folder) / "out"), recipe)
        yield run, runs.plan_new(run)


def _statuses(run: runs.Run) -> dict[str, int]:
    from cleanplate.pipeline.ledger import ledger

    return dict(ledger.tally(run.output).statuses)


def _nothing(receipt: Receipt) -> None:
    del receipt


def _megapixels(files: dict[str, bytes]) -> float:
    heads = [encode.decode(data) for data in list(files.values())[:20]]
    return statistics.fmean(h.width * h.height for h in heads) / 1e6


def _clocked(call: Callable[[], Any]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def _median(turns: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}


# --- tiny images, and a model that only waits ---


@dataclass(frozen=True)
class Still:
    """A stage that finds nothing, after waiting `seconds` for each image as for a device. ready: a folder of this
    machine in which each worker that is about to begin leaves a file."""

    seconds: float
    needs: Needs
    ready: str = ""
    name: str = "detect"
    adds: pa.Schema = schema.columns("status", "mask_rle", "patches")

    def open(self) -> Work:
        if self.ready:
            Path(self.ready, str(os.getpid())).touch()

        def work(table: pa.Table) -> pa.Table:
            time.sleep(self.seconds * table.num_rows)
            nothing = {"status": ["unchanged"], "mask_rle": [None], "patches": [[]]}
            return schema.with_columns(table, self.adds, {k: v * table.num_rows for k, v in nothing.items()})

        return work


def still(recipe: Recipe, last: bool) -> tuple[Stage, ...]:
    """Read, nothing, write."""
    return Read(recipe.limits, last), Still(0, Needs(batch=recipe.engine.batch)), Write(recipe.output)


WAIT_S = 0.25


def waiting(ready: str, recipe: Recipe, last: bool) -> tuple[Stage, ...]:
    """Read, wait as for a device, write."""
    needs = Needs(recipe.engine.cpus, 0, recipe.engine.batch, (1, recipe.engine.workers or 1))
    return Read(recipe.limits, last), Still(WAIT_S, needs, ready=ready), Write(recipe.output)


def tiny(count: int) -> dict[str, bytes]:
    """So many PNGs of 16 x 16 pixels, all different."""
    rng = np.random.default_rng(0)
    return {
        f"{n % 100:02d}-{n:06d}.png": bytes(
            cv2.imencode(".png", rng.integers(0, 256, (16, 16, 3), np.uint8))[1]
        )
        for n in range(count)
    }


def overhead(count: int) -> dict[str, Any]:
    """What an image costs where no model runs: `run_here` over tiny images, and the bare decode and encode. And
    whether the last ones cost more than the first: by unit, the time and the memory of the process."""
    files = tiny(count)
    recipe = load(
        None, {"inpaint.name": "telea", "remove": ["face"], "units.rows": max(1, min(512, count // 16))}
    )
    loop = _clocked(lambda: [encode.encode(d, encode.decode(d), None, None) for d in files.values()])
    begin = time.perf_counter()
    marks = list[tuple[int, float, float]]()
    with planned(files, recipe) as (run, units):
        planning = time.perf_counter() - begin
        job = Job(tuple(units), run.output, recipe, run.stamp, last=True, stages=still)

        def go() -> None:
            marks.append((0, time.process_time(), _resident_mb()))
            for receipt in run_here(job):
                marks.append((receipt.rows, time.process_time(), _resident_mb()))

        here = _clocked(go)
        rows = sum(_statuses(run).values())
    if rows != count:
        raise RuntimeError(f"{rows} rows of {count} images")  # A benchmark that loses rows measures nothing.
    each = {k: (here[k] - loop[k]) * 1000 / count for k in here}
    return {
        "images": count,
        "plan_ms_per_image": planning * 1000 / count,
        "overhead_ms_per_image": each,
        "bare_ms_per_image": loop["wall_s"] * 1000 / count,
        "quarters": _quarters(marks),
    }


def _quarters(marks: list[tuple[int, float, float]]) -> list[dict[str, float]]:
    """Of four stretches of units: median CPU ms an image, and resident MB at the end. marks: rows, CPU seconds, MB."""
    spent = [
        ((after[1] - before[1]) * 1000 / after[0], after[2]) for before, after in itertools.pairwise(marks)
    ]
    edges = [round(n * len(spent) / 4) for n in range(5)]
    parts = [spent[a:b] for a, b in itertools.pairwise(edges) if b > a]
    return [{"ms_per_image": statistics.median(ms for ms, _ in part), "mb": part[-1][1]} for part in parts]


def _resident_mb() -> float:
    """Of this process now; where the system does not tell it, the peak so far."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def scaling(counts: list[int], units_a_worker: int = 8, rows: int = 8) -> list[dict[str, float]]:
    """Images/s of a flow whose model only waits, on clusters of more and more one-CPU nodes of this machine.

    Efficiency is images/s, from when every worker has begun to when the queue runs dry, over what so many
    devices could do; `whole_efficiency` counts the start and the end too."""
    found = []
    for workers in counts:
        total = workers * (units_a_worker + 2)
        settings = {
            "inpaint.name": "telea",
            "remove": ["face"],
            "engine.workers": workers,
            "units.rows": rows,
        }
        recipe = load(None, settings | {"engine.batch": rows})
        with (
            tempfile.TemporaryDirectory() as ready,
            planned(tiny(total * rows), recipe) as (run, units),
            cluster_of(workers),
        ):
            stages = functools.partial(waiting, ready)
            job = Job(tuple(units), run.output, recipe, run.stamp, last=True, stages=stages)
            start, ends, before = time.perf_counter(), list[float](), 0
            for _ in ray_data.run_on_ray(job):
                ends.append(time.perf_counter())
                if len(os.listdir(ready)) < workers:
                    before = len(ends)
        first, last = before + workers, len(ends) - workers
        if first >= last:
            raise RuntimeError(
                f"the last of {workers} workers began when {before} of {total} units were done"
            )
        rate = (last - first) * rows / (ends[last - 1] - ends[first - 1])
        ideal = workers / WAIT_S
        found.append(
            {
                "workers": workers,
                "images_per_s": rate,
                "efficiency": rate / ideal,
                "whole_efficiency": len(ends) * rows / (ends[-1] - start) / ideal,
            }
        )
    return found


@contextmanager
def cluster_of(nodes: int) -> Iterator[None]:
    """A Ray cluster on this machine: a head that reads and writes, and so many nodes of one CPU."""
    import ray
    from ray.cluster_utils import Cluster

    store: dict[str, Any] = {"object_store_memory": 100 << 20}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False, **store}
    )
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, **store)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]
