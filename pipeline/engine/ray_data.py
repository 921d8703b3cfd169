"""The flow, and the two ways to run it: `run_here` in this process, `run_on_ray` on a cluster.

    read > (decode) > detect > segment > inpaint > verify > write     then one conditional put per unit

Both fold the same stages over the same units and commit the same rows. A unit travels through Ray Data as one
row whose payload is its table in Arrow's IPC format, so that no engine block ever splits or joins units; images
travel encoded, because decoded batches overflow the object store. Neighbouring stages with equal needs share a
worker: the pixels stay decoded between them, and a model is loaded once.
"""

from __future__ import annotations

import itertools
import os
import socket
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from cleanplate.pipeline.engine import queues
from cleanplate.pipeline.engine.metrics import Meters, Metric, RunGauges
from cleanplate.pipeline.engine.poison import Witness
from cleanplate.pipeline.engine.pools import sizes_of
from cleanplate.pipeline.engine.worker import Group, Place, Tell, commit
from cleanplate.pipeline.errors import ConfigError, ContractError, StorageError
from cleanplate.pipeline.ledger import plan
from cleanplate.pipeline.ledger.ledger import Receipt
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
    return (Read(recipe.limits, last), *([Decode()] if apart else []), *models, Write(recipe.output))


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


def spread_here(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """function of each item, in this process."""
    return map(function, items)


# --- Ray ---


def spread_on_ray(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """function of each item as a Ray task of one CPU, results in order as they come. For some thousand small items
    and results: what must be known of a source before its units are done, parts to be made of others."""
    import ray

    task = ray.remote(num_cpus=1)(function)
    for waiting in [task.remote(item) for item in items]:
        yield ray.get(waiting)


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
        settings |= {"address": address, "runtime_env": {"env_vars": _environment()}}
    else:
        # One logical CPU more than there are cores: reading and writing wait for the network, not for a core.
        settings |= {"num_cpus": (os.cpu_count() or 1) + 1, "include_dashboard": False, "address": "local"}
    os.environ.update(_ENVIRONMENT)  # Read by Ray's C++ part in this process too.
    reachable(address)
    use_token(address)
    try:
        with _quiet():
            ray.init(**settings)
    except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"no Ray cluster at {address or 'this machine'}: {str(error).splitlines()[0]}. {TOKEN_HINT}"
        ) from error
    try:
        total = _resources()
        yield f"Ray {ray.__version__}: {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs"
    finally:
        ray.shutdown()


def reachable(address: str | None) -> None:
    """Raise ConfigError when nothing listens at host:port or ray://host:port: Ray itself would try for minutes.
    Other forms ("auto", "local", None) are Ray's to find."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not port.isdigit() or not host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"nothing answers at {address} ({error}). A cluster's own address ends in its GCS port, usually 6379; "
            "ray:// goes to 10001; the dashboard's 8265 is for `cleanplate submit`"
        ) from error


TOKEN_HINT = (
    "If it has a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN (docs/cluster.md)"
)
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "auto")


def use_token(address: str | None) -> None:
    """Set RAY_AUTH_MODE=token where it is unset and the user has a token for the cluster at `address`: named in the
    environment, or, for a cluster of this machine, in Ray's own file. Ray reads no token without the mode."""
    if "RAY_AUTH_MODE" in os.environ:
        return
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    here = any(host in (address or "") for host in _LOOPBACK)
    if named or (here and (Path.home() / ".ray" / "auth_token").is_file()):
        os.environ["RAY_AUTH_MODE"] = "token"


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray's C++ part writes to stderr itself while it starts ("Set ray log level ..."); its errors come as
    exceptions too."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


_PASSED_ON = ("AWS_SERVER_SIDE_ENCRYPTION", "AWS_SSE_KMS_KEY_ID", "CLEANPLATE_TLS_VERIFY")
"""What the driver was told about its puts, and no secret, holds for the workers too."""


def _environment() -> dict[str, str]:
    return _ENVIRONMENT | {name: os.environ[name] for name in _PASSED_ON if name in os.environ}


_ENVIRONMENT = {
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


def _run_wave(job: Job) -> Iterator[Receipt]:
    import ray
    import ray.data

    groups = groups_of(job.stages(job.recipe, job.last))
    there = _resources()
    workers = sizes_of([group[0].needs for group in groups], len(job.units), there)
    _configure(ray.data.DataContext.get_current(), job.recipe.engine.patience, len(groups), there)
    queues.expect(groups)
    dataset = ray.data.from_items([asdict(unit) for unit in job.units], override_num_blocks=len(job.units))
    light, witness = replace(job, units=()), _witness()
    for n, group in enumerate(groups):
        place = Place(light, group, n == 0, n == len(groups) - 1, witness)
        dataset = _apply(dataset, place, workers[n])
    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from _receipts(batch)
    finally:
        _teller(witness)("over")


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
        # Without bounds: the witness tells what kills its worker each time, and bounds that. Ten retries were
        # spent by the units queued behind such an image, and three in the seconds before a dead node is noticed.
        placed |= {"max_restarts": -1, "max_task_retries": -1}
    with warnings.catch_warnings():
        # Ray 2.60 has no named parameter for these bounds; the old form is announced to go in 2.64.
        warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
        return dataset.map_batches(function, batch_format="pyarrow", batch_size=1, **placed)


def _witness() -> Any:
    """A Witness in a process of its own, beside the driver where that is possible; on another machine it restarts
    with the memory lost, which costs an image that kills its workers some more of them."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    made = ray.remote(Witness).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here)
    return made.remote(os.path.join(tempfile.gettempdir(), f"cleanplate-witness-{uuid.uuid4().hex}"))


class _Group(Group):
    """What one Ray actor runs."""

    def __init__(self, place: Place) -> None:
        super().__init__(place, _teller(place.witness), Meters(_metric))


def _teller(witness: Any) -> Tell:
    """Ask the witness; None when it is away (its node went down, or it was killed for memory and is being started
    again): then nothing is known, and work goes on."""
    import ray

    def tell(verb: str, *words: Any) -> Any:
        try:
            return ray.get(getattr(witness, verb).remote(*words))
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError):
            return None

    return tell


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


def _resources() -> dict[str, float]:
    import ray

    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found


def _configure(context: Any, patience: float, groups: int, resources: dict[str, float]) -> None:
    import logging

    # Of the CPUs, Ray sets half aside for the operators in equal shares, also for tasks that need no more than
    # one: of ten it left six to a pool of eight. Half a CPU each is what a task of ours takes.
    context.op_resource_reservation_ratio = min(0.5, 0.5 * groups / max(1.0, resources.get("CPU", 0.0)))

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context.enable_progress_bars = False
    context.custom_execution_callback_classes = [queues.Watcher]
    context.print_on_execution_start = False
    # A unit that Ray gives up is dropped here and found missing in the ledger afterwards.
    context.max_errored_blocks = -1
    context.max_consecutive_actor_init_deaths = 3
    # An image that hangs is found after four deaths.
    context.execution_no_progress_timeout_s = max(1800, round(5 * patience))
