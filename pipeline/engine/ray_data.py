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
import signal
import socket
import sys
import tempfile
import threading
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
from cleanplate.pipeline.engine.poison import Attempts, Death, News, Verdict
from cleanplate.pipeline.engine.pools import fits, sizes_of
from cleanplate.pipeline.engine.worker import Group, Place, commit
from cleanplate.pipeline.errors import ConfigError, ContractError, RunStopped, StorageError
from cleanplate.pipeline.ledger import ledger, plan
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
        _wait_for(waiting)
        yield ray.get(waiting)


def _wait_for(reference: Any) -> None:
    """Until a task has ended. Raises RunStopped where the cluster has had no CPU for a while: Ray waits for ever."""
    import ray

    last = time.monotonic()
    while not ray.wait([reference], timeout=1)[0]:
        if _resources().get("CPU", 0.0) >= 1:
            last = time.monotonic()
        elif time.monotonic() - last > NO_CPU_S:
            raise RunStopped("the Ray cluster has no CPU left; run the same command again when it has")


NO_CPU_S = 600.0


def groups_of(stages: Sequence[Stage]) -> list[tuple[Stage, ...]]:
    """Neighbouring stages with equal needs, together: they share a worker."""
    return [tuple(group) for _, group in itertools.groupby(stages, key=lambda stage: stage.needs)]


def run_on_ray(job: Job) -> Iterator[Receipt]:
    """Every unit on the Ray cluster that this process is connected to (`ray.init` first).

    Yields a receipt as each unit is committed. Units whose workers died too often, or whose source stayed
    unreachable, are left uncommitted: whoever called looks at the ledger and comes again. Raises ConfigError
    when the cluster cannot hold the stages, RunStopped when it has become too small for them or nothing goes on any
    more, ContractError or ConfigError when a stage says that going on is senseless.
    """
    for at in range(0, len(job.units), job.recipe.engine.wave):
        yield from _run_wave(replace(job, units=job.units[at : at + job.recipe.engine.wave]))


@contextmanager
def connected(address: str | None) -> Iterator[str]:
    """Ray for the length of a `with`: the cluster at `address` ("auto", "host:port", "ray://..."), or, for
    None, one of this machine's own that ends with it. Gives the words to show.

    Raises ConfigError when the address does not answer, RunStopped when this machine's Ray cannot start. A Ray that
    this process is connected to is used as it is, and left running.
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
    with _own_signals(), _quiet():
        _init(address, settings)
    try:
        total = _resources()
        yield f"Ray {ray.__version__}: {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs"
    finally:
        ray.shutdown()


def _init(address: str | None, settings: dict[str, Any]) -> None:
    """ray.init, its many exceptions in two: an address that is wrong, and a Ray of this machine's that cannot start."""
    import ray

    try:
        use_token(address)
        ray.init(**settings)
    except SystemExit as error:  # Ray's handler of SIGTERM while it starts.
        ray.shutdown()
        raise KeyboardInterrupt from error
    except Exception as error:  # Not fewer: what does not come up in time is a plain Exception.
        ray.shutdown()
        first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        if address:
            raise ConfigError(f"no Ray cluster at {address}: {first}. {TOKEN_HINT}") from error
        raise RunStopped(f"Ray could not start on this machine: {first}. {_cure(first)}") from error


def _cure(message: str) -> str:
    if "AF_UNIX" in message:
        return "Set RAY_TMPDIR to a short path, as /tmp"
    if "home directory" in message:
        return "Set HOME to a folder that may be written"
    return "Run the same command again when the machine is less busy, or with --here: in one process, without Ray"


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray puts handlers of its own in the place of this process's, in Python and in C++ (which aborts on SIGTERM): what
    was there before comes back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            if handler is not None:  # None: not set from Python.
                signal.signal(number, handler)


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
    """The wave's units; begun again with fewer workers where the cluster has become too small for them."""
    groups = groups_of(job.stages(job.recipe, job.last))
    pools = [group[0].needs for group in groups]
    workers = sizes_of(pools, len(job.units), _resources())
    while True:
        wave = _Wave(job.recipe.engine, pools, [first for first, _ in workers])
        try:
            yield from _execute(job, groups, workers, wave)
            return
        except TooFewNodes as error:
            done = ledger.done(job.output)
            job = replace(job, units=tuple(unit for unit in job.units if unit.name not in done))
            if not job.units:
                return
            there = _resources()
            if not fits(pools, [min(1, first) for first, _ in workers], there):
                raise RunStopped(f"{error}; run the same command again when it has more") from error
            workers = sizes_of(pools, len(job.units), there)
            queues.notice(f"{error}; going on with {max(first for first, _ in workers)}")


def _execute(
    job: Job, groups: list[tuple[Stage, ...]], workers: list[tuple[int, int]], wave: _Wave
) -> Iterator[Receipt]:
    import ray.data

    _configure(ray.data.DataContext.get_current(), len(groups), _resources())
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


class TooFewNodes(Exception):
    """The cluster no longer holds the workers of this wave, and nothing has gone on for a while."""


class _Wave:
    """Looks after a wave while Ray Data runs it: what ended its workers, and whether anything goes on at all.

    Ray restarts the workers of a dead node on what is left, where they may take every CPU: reading and writing never
    get one, and units given to a worker that finds no place wait for it for ever. Ray says nothing of either.
    """

    def __init__(self, engine: Engine, pools: list[Needs], sizes: list[int]) -> None:
        self.engine, self.pools, self.sizes = engine, pools, sizes
        self.attempts = _attempts()
        self.error: Exception | None = None
        self._waits = engine.wait_for_nodes or (600.0 if _all_set(pools) else 60.0)
        self._hangs = max(1800.0, 10 * engine.patience)
        self._signs, self._last = 0, time.monotonic()
        self._asked: Any = None

    def sign(self) -> None:
        """Something went on."""
        self._last = time.monotonic()

    def check(self) -> None:
        """About once a second, in Ray's scheduling thread. Raises what is to end the wave."""
        if news := self._news():
            if news.signs != self._signs:
                self._signs = news.signs
                self.sign()
            for death in news.deaths:
                queues.notice(_why_it_ended(death, self.engine.patience))
        silent = time.monotonic() - self._last
        if silent > self._waits and not fits(self.pools, self.sizes, there := _resources()):
            self.error = TooFewNodes(
                f"the Ray cluster has {there.get('CPU', 0.0):g} CPUs and {there.get('GPU', 0.0):g} GPUs left, "
                f"too few for {max(self.sizes)} workers, and none came in {silent:.0f} s (engine.wait_for_nodes)"
            )
        elif silent > self._hangs:
            self.error = RunStopped(
                f"no worker has made progress for {silent:.0f} s; run the same command again"
            )
        if self.error:
            raise self.error

    def _news(self) -> News | None:
        """What the workers reported, without waiting for it."""
        import ray

        if self._asked is None:
            self._asked = self.attempts.news.remote()
        ready, _ = ray.wait([self._asked], timeout=0)
        if not ready:
            return None
        asked, self._asked = self._asked, None
        try:
            found: News = ray.get(asked)
            return found
        except ray.exceptions.RayError:
            return None  # Its process was ended; Ray starts it anew.

    def close(self) -> None:
        import ray

        try:
            ray.get(self.attempts.close.remote(), timeout=10)
        except ray.exceptions.RayError:
            return  # Its journal stays behind, in a folder for temporary files.


def _all_set(pools: list[Needs]) -> bool:
    """Does the recipe set the workers of every stage? Then an autoscaler may bring the nodes."""
    return all(pool.workers[1] or pool.workers == (0, 0) for pool in pools)


def _why_it_ended(death: Death, patience: float) -> str:
    unit, _, stage = death.work.partition("/")
    where = f"unit {unit}: its worker ({stage}, ...) "
    if death.silent_s:
        said = f"gave no sign of progress for {death.silent_s:.0f} s, and was ended (engine.patience: {patience:g})"
    else:
        said = "ended: a crash, killed for memory, or a lost node"
    images = f"; it was at {len(death.images)} image{'s' * (len(death.images) != 1)}" if death.images else ""
    return f"{where}{said}{images}. The unit is begun again"


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


def _attempts() -> Any:
    """`Attempts` in a process of its own, beside the driver where that is possible; on another machine it restarts
    with the memory lost, which costs an image that ends its workers some more of them."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    actor = ray.remote(Attempts).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here)
    return actor.remote(os.path.join(tempfile.gettempdir(), f"cleanplate-attempts-{uuid.uuid4().hex}"))


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


def _resources() -> dict[str, float]:
    import ray

    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found


def _configure(context: Any, groups: int, resources: dict[str, float]) -> None:
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
    # Ray's own guard counts finished units: one of 512 images takes longer on a slow machine. `_Wave` counts signs.
    context.execution_no_progress_timeout_s = -1
