"""A job on a Ray cluster, by Ray Data: the only place that knows how units travel there.

A unit travels through Ray Data as one row whose payload is its table in Arrow's IPC format, so that no engine block
ever splits or joins units; images travel encoded, because decoded batches overflow the object store. Neighbouring
stages with equal needs share a worker: the pixels stay decoded between them, and a model is loaded once.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa

from cleanplate.pipeline.engine import queues
from cleanplate.pipeline.engine.job import Job, groups_of
from cleanplate.pipeline.engine.metrics import Meters, Metric, RunGauges
from cleanplate.pipeline.engine.poison import Verdict
from cleanplate.pipeline.engine.pools import fits, sizes_of
from cleanplate.pipeline.engine.ray_cluster import resources
from cleanplate.pipeline.engine.ray_wave import TooFewNodes, Wave
from cleanplate.pipeline.engine.worker import Group, Place
from cleanplate.pipeline.errors import ContractError, RunStopped
from cleanplate.pipeline.ledger import ledger
from cleanplate.pipeline.ledger.receipt import Receipt
from cleanplate.pipeline.stages.stage import Stage


def run_on_ray(job: Job) -> Iterator[Receipt]:
    """Every unit on the Ray cluster that this process is connected to (`ray.init` first).

    Yields a receipt as each unit is committed. Units whose workers died too often, or whose source stayed
    unreachable, are left uncommitted: whoever called looks at the ledger and comes again. Raises ConfigError
    when the cluster cannot hold the stages, RunStopped when it has become too small for them or nothing goes on any
    more, ContractError or ConfigError when a stage says that going on is senseless.
    """
    for at in range(0, len(job.units), job.recipe.engine.wave):
        yield from _run_wave(replace(job, units=job.units[at : at + job.recipe.engine.wave]))


def _run_wave(job: Job) -> Iterator[Receipt]:
    """The wave's units; begun again with fewer workers where the cluster has become too small for them."""
    groups = groups_of(job.stages(job.recipe, job.last))
    pools = [group[0].needs for group in groups]
    workers = sizes_of(pools, len(job.units), resources())
    while True:
        wave = Wave(job.recipe.engine, pools, [first for first, _ in workers])
        try:
            yield from _execute(job, groups, workers, wave)
            return
        except TooFewNodes as error:
            done = ledger.done(job.output)
            job = replace(job, units=tuple(unit for unit in job.units if unit.name not in done))
            if not job.units:
                return
            there = resources()
            if not fits(pools, [min(1, first) for first, _ in workers], there):
                raise RunStopped(f"{error}; run the same command again when it has more") from error
            workers = sizes_of(pools, len(job.units), there)
            queues.notice(f"{error}; going on with {max(first for first, _ in workers)}")


def _execute(
    job: Job, groups: list[tuple[Stage, ...]], workers: list[tuple[int, int]], wave: Wave
) -> Iterator[Receipt]:
    import ray.data

    _configure(ray.data.DataContext.get_current(), len(groups), resources().get("CPU", 0.0))
    queues.expect(groups, wave.check)
    dataset = ray.data.from_items([asdict(unit) for unit in job.units], override_num_blocks=len(job.units))
    light = replace(job, units=())
    for n, group in enumerate(groups):
        place = Place(light, group, n == 0, n == len(groups) - 1, wave.attempts)
        dataset = _apply(dataset, place, workers[n])
    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            wave.sign()
            yield from _receipts(batch)
    except Exception as error:
        # Ray passes on what `check` raised, in a form of its own.
        raise wave.error or error from error
    finally:
        wave.close()


def _apply(dataset: Any, place: Place, workers: tuple[int, int]) -> Any:
    """One group of stages as one Ray Data operator: tasks for stateless stages, else a pool of actors.
    workers: to start with, and at most."""
    from ray.data import ActorPoolStrategy

    needs, stages = place.group[0].needs, "+".join(stage.name for stage in place.group)
    placed: dict[str, Any] = {"num_cpus": needs.cpus, "num_gpus": needs.gpus or None}
    # What Ray runs is named after its stages: its dashboard and metrics know an operator by that.
    function: Any
    if needs.workers == (0, 0):
        function = _in_tasks(f"_in_a_task:{stages}")
        placed |= {"fn_args": (place,), "max_retries": -1}
    else:
        function = type(f"_Group:{stages}", (_Group,), {})
        first, most = workers
        # At least, not only at first: Ray shrinks a pool to what it has set aside for it, and that is this.
        pool = ActorPoolStrategy(min_size=first, max_size=most, max_tasks_in_flight_per_actor=2)
        placed |= {"fn_constructor_args": (place,), "compute": pool}
        # Without bounds: `Attempts` finds the image that ends its worker each time, and bounds that. Ten retries were
        # spent by the units queued behind such an image, and three in the seconds before a dead node is noticed.
        placed |= {"max_restarts": -1, "max_task_retries": -1}
    with warnings.catch_warnings():
        # Ray 2.60 has no named parameter for these bounds; the old form is announced to go in 2.64.
        warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
        return dataset.map_batches(function, batch_format="pyarrow", batch_size=1, **placed)


class _Group(Group):
    """What one Ray actor runs."""

    def __init__(self, place: Place) -> None:
        super().__init__(place, _RayTracker(place.attempts), Meters(_metric))


class _RayTracker:
    """A Tracker whose memory is the wave's actor. While that is away (its node went down, or it was killed for memory
    and is being started again) nothing is known, and work goes on."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def begin(self, work: str) -> Verdict:
        return self._ask("begin", work) or Verdict()

    def announce(self, work: str, images: Sequence[str]) -> None:
        self._ask("announce", work, list(images))

    def progress(self, work: str, rows: dict[str, int]) -> None:
        # Nobody waits for it: a sign that is lost is followed by another.
        self.actor.progress.remote(work, rows)

    def give_up(self, work: str, silent_s: float) -> None:
        self._ask("give_up", work, silent_s)

    def end(self, work: str, rows: dict[str, int]) -> None:
        self._ask("end", work, rows)

    def _ask(self, method: str, *arguments: Any) -> Any:
        import ray

        try:
            return ray.get(getattr(self.actor, method).remote(*arguments))
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError):
            return None


def _in_tasks(name: str) -> Callable[[pa.Table, Place], pa.Table]:
    """A stateless group, under a name: opened for each unit, which costs nothing where no model is loaded."""

    def function(batch: pa.Table, place: Place) -> pa.Table:
        return _Group(place)(batch)

    function.__name__ = name
    return function


def run_gauges(run_id: str) -> RunGauges:
    """What the driver of a run shows to Prometheus. Ray must be connected."""
    return RunGauges(_metric, run_id)


def _metric(metric: Metric) -> Any:
    from ray.util import metrics

    if metric.kind == "counter":
        return metrics.Counter(metric.name, metric.doc, tag_keys=metric.tags)
    if metric.kind == "gauge":
        return metrics.Gauge(metric.name, metric.doc, tag_keys=metric.tags)
    return metrics.Histogram(metric.name, metric.doc, boundaries=list(metric.bounds), tag_keys=metric.tags)


def _receipts(batch: pa.Table) -> Iterator[Receipt]:
    for row in batch.to_pylist():
        if row["failure"].startswith("stop: "):
            raise ContractError(f"unit {row['name']}: {row['failure'].removeprefix('stop: ')}")
        if not row["failure"]:
            receipt = Receipt.read(row["payload"])
            yield replace(receipt, seconds=time.time() - row["start"])


def _configure(context: Any, groups: int, cpus: float) -> None:
    # Of the CPUs, Ray sets half aside for the operators in equal shares, also for tasks that need no more than
    # one: of ten it left six to a pool of eight. Half a CPU each is what a task of ours takes.
    context.op_resource_reservation_ratio = min(0.5, 0.5 * groups / max(1.0, cpus))

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context.enable_progress_bars = False
    context.custom_execution_callback_classes = [queues.Watcher]
    context.print_on_execution_start = False
    # A unit that Ray gives up is dropped here and found missing in the ledger afterwards.
    context.max_errored_blocks = -1
    context.max_consecutive_actor_init_deaths = 3
    # Ray's own guard counts finished units: one of 512 images takes longer on a slow machine. `Wave` counts signs.
    context.execution_no_progress_timeout_s = -1
