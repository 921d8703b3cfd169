"""The flow, and the two ways to run it: `run_here` in this process, `run_on_ray` on a cluster.

    read > detect > segment > inpaint > verify > write     then one conditional put per unit

Both fold the same stages over the same units and commit the same rows. A unit travels through Ray Data as one
row whose payload is its table in Arrow's IPC format, so that no engine block ever splits or joins units; images
travel encoded, because decoded batches overflow the object store. Neighbouring stages with equal needs share a
worker: the pixels stay decoded between them, and a model is loaded once.
"""

from __future__ import annotations

import itertools
import json
import os
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from pipeline import layouts, ledger, plan, schema
from pipeline.errors import CleanplateError, ConfigError, ContractError, StorageError
from pipeline.ledger import Receipt
from pipeline.recipe import Recipe
from pipeline.stage import Needs, Stage, Worker
from pipeline.storage import Store

from .stages.detect import Detect
from .stages.inpaint import Inpaint
from .stages.read import Read
from .stages.segment import Segment
from .stages.verify import Verify
from .stages.write import Stamp, Write, finish


def stages_of(recipe: Recipe, last: bool = False) -> tuple[Stage, ...]:
    """The stages of a recipe, in order. last: a source that stays unreachable fails its row now."""
    engine = recipe.engine
    model = Needs(engine.cpus, engine.gpus, engine.batch, (1, engine.workers or 0))
    return (
        Read(recipe.limits, last),
        Detect(recipe, model),
        Segment(recipe, model),
        Inpaint(recipe, model),
        Verify(recipe, model),
        Write(recipe.output),
    )


@dataclass(frozen=True)
class Job:
    """Units to do, and what every worker must know to do one."""

    units: tuple[plan.Unit, ...]
    output: Store
    recipe: Recipe
    stamp: Stamp
    last: bool = False
    below: str = ""
    """uri of the source's root: the layout `files` mirrors the keys below it."""
    stages: Callable[[Recipe, bool], tuple[Stage, ...]] = stages_of
    """A recipe's stages in order; another function of this form puts stages of your own into the flow. It must be
    importable where the workers run."""


def run_here(job: Job) -> Iterator[Receipt]:
    """Every unit in this process, one after the other. Yields a receipt as each is committed."""
    worker = Worker(job.stages(job.recipe, job.last))
    for unit in job.units:
        start = time.time()
        try:
            table = finish(worker(plan.read_unit(job.output, unit)), job.stamp)
        except StorageError as error:
            if error.kind != "unreachable":
                raise
            continue  # Left uncommitted: the next pass takes it.
        yield commit(job, unit.name, table, start)


def commit(job: Job, unit: str, table: pa.Table, start: float) -> Receipt:
    """Put the unit's part if it is absent; the receipt tells what it holds."""
    ledger.check_part(table)
    layout = job.recipe.output.layout
    if layout != "parquet" and not ledger.has(
        job.output, unit
    ):  # A late writer puts no pictures for no part.
        table = layouts.place(job.output, unit, table, layout, job.below)
    new = ledger.commit(job.output, unit, table)
    rows, statuses, causes = ledger.counts(table)
    return Receipt(unit, rows, statuses, causes, new, time.time() - start)


# --- Ray ---


def groups_of(stages: Sequence[Stage]) -> list[tuple[Stage, ...]]:
    """Neighbouring stages with equal needs, together: they share a worker."""
    return [tuple(group) for _, group in itertools.groupby(stages, key=lambda stage: stage.needs)]


def run_on_ray(job: Job) -> Iterator[Receipt]:
    """Every unit on the Ray cluster that this process is connected to (`ray.init` first).

    Yields a receipt as each unit is committed. Units whose workers died too often, or whose source stayed
    unreachable, are left uncommitted: whoever called looks at the ledger and comes again. Raises ConfigError
    when the cluster cannot hold the stages, ContractError or ConfigError when a stage says that going on is
    senseless.
    """
    for at in range(0, len(job.units), job.recipe.engine.wave):
        wave = replace(job, units=job.units[at : at + job.recipe.engine.wave])
        yield from _run_wave(wave)


@contextmanager
def connected(address: str | None) -> Iterator[str]:
    """Ray for the length of a `with`: the cluster at `address` ("auto", "host:port", "ray://..."), or, for
    None, one of this machine's own that ends with it. Gives the words to show.

    Raises ConfigError when the address does not answer. A Ray that this process is connected to is used as it
    is, and left running.
    """
    import ray

    if ray.is_initialized():
        yield "the Ray this process is connected to"
        return
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address:
        settings |= {"address": address, "runtime_env": {"env_vars": _ENVIRONMENT}}
    else:
        # One logical CPU more than there are cores: reading and writing wait for the network, not for a core.
        settings |= {"num_cpus": (os.cpu_count() or 1) + 1, "include_dashboard": False, "address": "local"}
        os.environ.update(_ENVIRONMENT)
    try:
        ray.init(**settings)
    except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"no Ray cluster at {address or 'this machine'}: {str(error).splitlines()[0]}"
        ) from error
    try:
        total = _resources()
        yield f"Ray {ray.__version__}: {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs"
    finally:
        ray.shutdown()


_ENVIRONMENT = {
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


def _run_wave(job: Job) -> Iterator[Receipt]:
    import ray
    import ray.data

    groups = groups_of(job.stages(job.recipe, job.last))
    workers = _workers(job.recipe, len(job.units), _resources())
    _configure(ray.data.DataContext.get_current())
    dataset = ray.data.from_items([asdict(unit) for unit in job.units], override_num_blocks=len(job.units))
    light = replace(job, units=())
    for n, group in enumerate(groups):
        dataset = _apply(dataset, light, group, workers, ends=(n == 0, n == len(groups) - 1))
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from _receipts(batch)


def _apply(dataset: Any, job: Job, group: tuple[Stage, ...], workers: int, ends: tuple[bool, bool]) -> Any:
    """One group of stages as one Ray Data operator: tasks for stateless stages, else a pool of actors."""
    from ray.data import ActorPoolStrategy

    needs = group[0].needs
    placed: dict[str, Any] = {"num_cpus": needs.cpus, "num_gpus": needs.gpus or None}
    if needs.workers == (0, 0):
        placed |= {"fn_args": (job, group, ends), "max_retries": _RETRIES}
    else:
        pool = ActorPoolStrategy(min_size=1, max_size=workers, max_tasks_in_flight_per_actor=2)
        placed |= {"fn_constructor_args": (job, group, ends), "compute": pool}
        placed |= {"max_restarts": _RESTARTS, "max_task_retries": _RETRIES}
    with warnings.catch_warnings():
        # Ray 2.60 has no named parameter for these bounds; the old form is announced to go in 2.64.
        warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
        function = _in_a_task if needs.workers == (0, 0) else _Group
        return dataset.map_batches(function, batch_format="pyarrow", batch_size=1, **placed)


_RESTARTS, _RETRIES = 20, 10
# Below ten, the retries burn out in the seconds before Ray notices a dead node; without a bound, an image that
# crashes its process would be tried for ever.


class _Group:
    """What one Ray actor runs: a group's worker over units packed as rows.

    What makes going on senseless travels to the driver as a `failure` text, in order, instead of as an
    exception that Ray would retry or count as one more errored block.
    """

    def __init__(self, job: Job, group: tuple[Stage, ...], ends: tuple[bool, bool]) -> None:
        self.job, self.group, self.ends = job, group, ends
        self.worker: Worker | None = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.concat_tables([self._one(batch.slice(n, 1)) for n in range(batch.num_rows)])

    def _one(self, packed: pa.Table) -> pa.Table:
        first, final = self.ends
        row = {name: packed[name][0].as_py() for name in packed.schema.names if name != "payload"}
        start = time.time() if first else row["start"]
        if row.get("failure"):
            return packed
        try:
            if self.worker is None:
                settle_threads(self.group[0].needs.cpus)
                self.worker = Worker(self.group)
            table = plan.read_unit(self.job.output, plan.Unit(**row)) if first else unpack(packed)
            table = self.worker(table)
            if final:
                receipt = commit(self.job, row["name"], finish(table, self.job.stamp), start)
                return _packed(row["name"], start, json.dumps(asdict(receipt)).encode())
            return pack(row["name"], start, table)
        except StorageError as error:
            again = error.kind == "unreachable"
            return _packed(row["name"], start, b"", f"{'later' if again else 'stop'}: {error}")
        except Exception as error:  # noqa: BLE001 - told to the driver, which stops the run
            said = str(error) if isinstance(error, CleanplateError) else traceback.format_exc()
            return _packed(row["name"], start, b"", f"stop: {type(error).__name__}: {said}")


def _in_a_task(batch: pa.Table, job: Job, group: tuple[Stage, ...], ends: tuple[bool, bool]) -> pa.Table:
    """A stateless group: opened for each unit, which costs nothing where no model is loaded."""
    return _Group(job, group, ends)(batch)


def settle_threads(cpus: float) -> None:
    from models.devices import limit_threads

    limit_threads(max(1, int(cpus)))


_PACKED = pa.schema(
    [("name", pa.string()), ("start", pa.float64()), ("payload", pa.large_binary()), ("failure", pa.string())]
)


def pack(name: str, start: float, table: pa.Table) -> pa.Table:
    """A unit as one row: its table in Arrow's IPC stream format."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return _packed(name, start, sink.getvalue())


def unpack(packed: pa.Table) -> pa.Table:
    return pa.ipc.open_stream(packed["payload"][0].as_buffer()).read_all()


def _packed(name: str, start: float, payload: bytes | pa.Buffer, failure: str = "") -> pa.Table:
    # pa.array() copies and cannot take a Buffer; from_buffers takes it as it is.
    buffer = pa.py_buffer(payload)
    offsets = pa.array([0, buffer.size], pa.int64()).buffers()[1]
    column = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, buffer])
    return pa.table([pa.array([name]), pa.array([start]), column, pa.array([failure])], schema=_PACKED)


def _receipts(batch: pa.Table) -> Iterator[Receipt]:
    for row in batch.to_pylist():
        if row["failure"].startswith("stop: "):
            raise ContractError(f"unit {row['name']}: {row['failure'].removeprefix('stop: ')}")
        if not row["failure"]:
            receipt = Receipt(**json.loads(row["payload"]))
            yield replace(receipt, seconds=time.time() - row["start"])


def _resources() -> dict[str, float]:
    import ray

    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found


def _workers(recipe: Recipe, units: int, resources: dict[str, float]) -> int:
    """How many workers of the model stages. A pool holds its CPUs for the whole run, so reading and writing
    keep one for themselves: without it they would wait for ever, and Ray would not say why."""
    engine = recipe.engine
    if engine.workers:
        return min(engine.workers, units)  # Trusted: an autoscaler may still have to add the nodes.
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    fit = int((cpus - 1) / engine.cpus + 1e-6)
    if fit < 1:
        raise ConfigError(
            f"the Ray cluster has {cpus:g} CPUs; the stages need {engine.cpus + 1:g}. "
            "Add a node, lower engine.cpus, or set engine.workers if the cluster scales up by itself"
        )
    if engine.gpus:
        fit = min(fit, int(gpus / engine.gpus + 1e-6))
        if fit < 1:
            raise ConfigError(
                f"the Ray cluster has {gpus:g} GPUs; a worker needs {engine.gpus:g}. "
                "Lower engine.gpus (0 = run on CPUs), or set engine.workers if the cluster scales up by itself"
            )
    return min(fit, units)


def _configure(context: Any) -> None:
    import logging

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A unit whose worker died too often is dropped here and found missing in the ledger afterwards.
    context.max_errored_blocks = -1
    context.max_consecutive_actor_init_deaths = 3
    context.execution_no_progress_timeout_s = 1800


# --- units that crash their process ---


def isolate(job: Job) -> Iterator[Receipt]:
    """Units that no pool could finish: halve them until the rows that kill their process stand alone, fail
    those, and commit the rest. For an image that makes a decoder or a model crash or be killed for memory."""
    for unit in job.units:
        start = time.time()
        table = finish(_bisect(job, plan.read_unit(job.output, unit)), job.stamp)
        yield commit(job, unit.name, table, start)


def _bisect(job: Job, table: pa.Table) -> pa.Table:
    import ray

    task = ray.remote(_fold_alone).options(
        num_cpus=job.recipe.engine.cpus,
        num_gpus=job.recipe.engine.gpus,
        max_retries=1 if table.num_rows == 1 else 0,
    )
    try:
        return ray.get(task.remote(replace(job, units=()), table))
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        if table.num_rows > 1:
            half = table.num_rows // 2
            return pa.concat_tables(
                [_bisect(job, table.slice(0, half)), _bisect(job, table.slice(half))],
                promote_options="default",
            )
        cause = "killed_for_memory" if isinstance(error, ray.exceptions.OutOfMemoryError) else "crashed"
        said = {
            "stage": "worker",
            "kind": cause,
            "message": "this image alone ended its worker's process, twice",
        }
        return schema.with_columns(table, schema.columns("error"), {"error": [said]})


def _fold_alone(job: Job, table: pa.Table) -> pa.Table:
    settle_threads(job.recipe.engine.cpus)
    return Worker(job.stages(job.recipe, True))(table)
