"""What a worker of a run takes of memory; measured in a process of its own."""

from __future__ import annotations

import json
import sys

from jobs.benchmark_flow import photographs, planned
from models.bench_limits import peak_mb
from pipeline import graph, plan
from pipeline.recipe import load
from pipeline.stage import Worker
from pipeline.workers import settle_threads


def main() -> None:
    """argv[1], JSON: [how many photographs, their folder or URL or null, a recipe's settings]. Prints {"loaded_mb",
    "peak_mb"}: of this process before its first image, and at the most."""
    count, place, settings = json.loads(sys.argv[1])
    settle_threads(1)
    recipe = load(None, settings)
    with planned(photographs(count, place), recipe) as (run, units):
        worker = Worker(graph.stages_of(recipe, last=True))
        loaded = peak_mb()
        for unit in units:
            worker(plan.read_unit(run.output, unit))
    print(json.dumps({"loaded_mb": loaded, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()
