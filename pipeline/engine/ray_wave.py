"""Looking after a wave while Ray Data runs it: what ended its workers, and whether anything goes on at all."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from typing import Any

from cleanplate.pipeline.engine import queues
from cleanplate.pipeline.engine.poison import Attempts, Death, News
from cleanplate.pipeline.engine.pools import fits
from cleanplate.pipeline.engine.ray_cluster import resources
from cleanplate.pipeline.errors import CleanplateError, RunStopped
from cleanplate.pipeline.recipe.run_sections import Engine
from cleanplate.pipeline.stages.stage import Needs


class TooFewNodes(CleanplateError):
    """The cluster no longer holds the workers of this wave, and nothing has gone on for a while."""


class Wave:
    """Looks after a wave while Ray Data runs it: what ended its workers, and whether anything goes on at all.

    Ray restarts the workers of a dead node on what is left, where they may take every CPU: reading and writing never
    get one, and units given to a worker that finds no place wait for it for ever. Ray says nothing of either.
    """

    def __init__(self, engine: Engine, pools: list[Needs], sizes: list[int]) -> None:
        self.engine, self.pools, self.sizes = engine, pools, sizes
        self.attempts = attempts_actor()
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
            self._pass_on(news)
        silent = time.monotonic() - self._last
        if silent > self._waits and not fits(self.pools, self.sizes, there := resources()):
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

    def _pass_on(self, news: News) -> None:
        queues.working(news.rows)
        for death in news.deaths:
            queues.notice(_why_it_ended(death, self.engine.patience))

    def close(self) -> None:
        """Passes on what was reported since the last check: a short wave ends before there was one."""
        import ray

        try:
            for asked in (self._asked, self.attempts.news.remote()):
                if asked is not None:
                    self._pass_on(ray.get(asked, timeout=10))
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
        cause = f"gave no sign of progress for {death.silent_s:.0f} s, and was ended (engine.patience: {patience:g})"
    else:
        cause = "ended: a crash, killed for memory, or a lost node"
    images = f"; it was at {len(death.images)} image{'s' * (len(death.images) != 1)}" if death.images else ""
    return f"{where}{cause}{images}. The unit is begun again"


def attempts_actor() -> Any:
    """`Attempts` in a process of its own, beside the driver where that is possible; on another machine it restarts
    with the memory lost, which costs an image that ends its workers some more of them."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    actor = ray.remote(Attempts).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here)
    return actor.remote(os.path.join(tempfile.gettempdir(), f"cleanplate-attempts-{uuid.uuid4().hex}"))
