"""What is to be done: a job's units, the stages that do one, and the way to run them in this process.

    read > (decode) > detect > segment > inpaint > verify > write     then one conditional put per unit

`run_here` and `ray_data.run_on_ray` fold the same stages over the same units and commit the same rows.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cleanplate.pipeline.engine import log, queues
from cleanplate.pipeline.errors import StorageError
from cleanplate.pipeline.ledger import layouts, ledger, plan
from cleanplate.pipeline.ledger.receipt import Receipt, problems, timings
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.recipe.run_sections import Engine, ModelStage, StageEngine
from cleanplate.pipeline.stages.decode import Decode
from cleanplate.pipeline.stages.detect import Detect
from cleanplate.pipeline.stages.inpaint import Inpaint
from cleanplate.pipeline.stages.read import Read
from cleanplate.pipeline.stages.segment import Segment
from cleanplate.pipeline.stages.stage import Needs, Stage, Worker
from cleanplate.pipeline.stages.verify import Verify
from cleanplate.pipeline.stages.write import Stamp, Write, finish
from cleanplate.pipeline.storage.connect import Store

Spread = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""(function, items) -> its results, in any order: in this process (`spread_here`), or on a cluster
(`ray_cluster.spread_on_ray`)."""


def stages_of(recipe: Recipe, last: bool = False) -> tuple[Stage, ...]:
    """The stages of a recipe, in order. last: a source that stays unreachable fails its row now."""
    engine = recipe.engine
    models = (
        Detect(recipe, _needs(engine, "detect")),
        Segment(recipe, _needs(engine, "segment")),
        Inpaint(recipe, _needs(engine, "inpaint")),
        Verify(recipe, _needs(engine, "verify")),
    )
    pools = len(groups_of(models)) > 1
    apart = engine.decode == "apart" or (engine.decode == "auto" and pools)
    return (
        Read(recipe.limits, last, recipe.source.carried, plan.manners_of(recipe.source.web)),
        *([Decode()] if apart else []),
        *models,
        Write(recipe.output),
    )


def _needs(engine: Engine, stage: ModelStage) -> Needs:
    """A stage's own wishes laid over the engine's. Most workers 0: as many as fit."""
    own = engine.stages.get(stage, StageEngine())

    def pick(name: str) -> Any:
        return getattr(engine if getattr(own, name) is None else own, name)

    return Needs(pick("cpus"), pick("gpus"), pick("batch"), (1, pick("workers") or 0))


Stages = Callable[[Recipe, bool], tuple[Stage, ...]]
"""A recipe's stages in order. Another function of this form puts stages of your own into the flow; it must be
importable where the workers run."""


@dataclass(frozen=True)
class Job:
    """Units to do, and what every worker must know to do one."""

    units: tuple[plan.Unit, ...]
    output: Store
    recipe: Recipe
    stamp: Stamp
    last: bool = False
    stages: Stages = stages_of
    below: str = ""
    """uri of the source's root: the layout `files` mirrors the keys below it."""


def groups_of(stages: Sequence[Stage]) -> list[tuple[Stage, ...]]:
    """Neighbouring stages with equal needs, together: they share a worker."""
    return [tuple(group) for _, group in itertools.groupby(stages, key=lambda stage: stage.needs)]


def run_here(job: Job) -> Iterator[Receipt]:
    """Every unit in this process, one after the other. Yields a receipt as each is committed."""
    done: Counter[str] = Counter()

    def count(stage: str, rows: int, share: float, seconds: float) -> None:
        done[stage] += rows
        queues.working(done)

    worker = Worker(job.stages(job.recipe, job.last), count)
    for unit in job.units:
        start = time.time()
        try:
            table = finish(worker(plan.read_unit(job.output, unit)), job.stamp)
        except StorageError as error:
            if error.kind != "unreachable":
                raise
            continue  # Left uncommitted: the next pass takes it.
        yield commit(job, unit.name, table, start)


def spread_here(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """function of each item, in this process."""
    return map(function, items)


def commit(job: Job, unit: str, table: pa.Table, start: float) -> Receipt:
    """Put the unit's part if it is absent; the receipt tells what it holds."""
    ledger.check_part(table)
    layout = job.recipe.output.layout
    if layout != "parquet" and not ledger.has(
        job.output, unit
    ):  # A late writer puts no pictures for no part.
        table = layouts.place(job.output, unit, table, layout, job.below)
    new = ledger.commit(job.output, unit, table)
    if new:
        log.failed_rows(unit, table)
    rows, statuses, causes = ledger.counts(table)
    seconds = time.time() - start
    measured = timings(table), problems(table)
    return Receipt(unit, rows, statuses, causes, new, seconds, *measured)
