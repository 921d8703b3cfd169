"""What a worker of a run takes of memory. Ask in a process of its own."""

from __future__ import annotations

from typing import Any

from cleanplate.jobs.benchmark.inputs import photographs, planned
from cleanplate.models.evaluation.speed_limits import peak_mb
from cleanplate.pipeline.engine.job import stages_of
from cleanplate.pipeline.engine.worker import settle_threads
from cleanplate.pipeline.ledger import plan
from cleanplate.pipeline.recipe.recipe import load
from cleanplate.pipeline.stages.stage import Worker


def memory_of_run(count: int, place: str | None, settings: dict[str, Any]) -> dict[str, float]:
    """As `bench_limits.memory_of`: before the first image, and the peak over so many photographs (of a folder or URL,
    else the demo's) in the stages of a recipe with these settings."""
    settle_threads(1)
    recipe = load(None, settings)
    with planned(photographs(count, place), recipe) as (run, units):
        worker = Worker(stages_of(recipe, last=True))
        loaded = peak_mb()
        for unit in units:
            worker(plan.read_unit(run.output, unit))
    return {"loaded_mb": loaded, "peak_mb": peak_mb()}
