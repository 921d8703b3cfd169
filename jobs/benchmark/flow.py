"""The benchmark's parts about the flow alone, without a model: tiny images, and more workers.

Ray is imported here for one thing: `ray.cluster_utils.Cluster`, several nodes on one machine.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from cleanplate.jobs.benchmark.inputs import clocked, planned, statuses_of, tiny
from cleanplate.pipeline import schema
from cleanplate.pipeline.engine import ray_data
from cleanplate.pipeline.engine.job import Job, run_here
from cleanplate.pipeline.images import encode
from cleanplate.pipeline.recipe.recipe import Recipe, load
from cleanplate.pipeline.stages.read import Read
from cleanplate.pipeline.stages.stage import Needs, Stage, Work
from cleanplate.pipeline.stages.write import Write


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


def overhead(count: int) -> dict[str, Any]:
    """What an image costs where no model runs: `run_here` over tiny images, and the bare decode and encode. And
    whether the last ones cost more than the first: by unit, the time and the memory of the process."""
    files = tiny(count)
    recipe = load(
        None, {"inpaint.name": "telea", "remove": ["face"], "units.rows": max(1, min(512, count // 16))}
    )
    loop = clocked(lambda: [encode.encode(d, encode.decode(d), None, None) for d in files.values()])
    begin = time.perf_counter()
    marks = list[tuple[int, float, float]]()
    with planned(files, recipe) as (run, units):
        planning = time.perf_counter() - begin
        job = Job(tuple(units), run.output, recipe, run.stamp, last=True, stages=still)

        def go() -> None:
            marks.append((0, time.process_time(), _resident_mb()))
            for receipt in run_here(job):
                marks.append((receipt.rows, time.process_time(), _resident_mb()))

        here = clocked(go)
        rows = sum(statuses_of(run).values())
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
