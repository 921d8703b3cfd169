"""How full the queues between the engine's operators are, told while a wave runs.

Ray Data calls a `Watcher` at every step of its scheduling loop, in this process (its context's
`custom_execution_callback_classes`). It takes classes, which also travel to workers, so listeners are kept here
and not in them. One block is one unit, so a queue's length counts units.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

EVERY_S = 0.25


@dataclass(frozen=True)
class Queue:
    """One operator: the stages that share it, units that wait for it, units in its workers, its workers."""

    stages: tuple[str, ...]
    waiting: int
    running: int
    workers: int


Listener = Callable[[tuple[Queue, ...]], None]
_listeners: list[Listener] = []
_groups: list[tuple[str, ...]] = []


@contextmanager
def heard(listener: Listener) -> Iterator[None]:
    """For the length of a `with`, `listener` hears of the queues a few times a second, in the engine's thread."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def expect(groups: Sequence[Sequence[Any]]) -> None:
    """Say which stages the operators of the coming wave hold, in order."""
    _groups[:] = [tuple(stage.name for stage in group) for group in groups]


class Watcher:
    """Ray Data's ExecutionCallback, by its methods. Reads counters only, a few times a second."""

    def __init__(self) -> None:
        self.last = 0.0

    def before_execution_starts(self, executor: Any) -> None:
        """Nothing is queued yet."""

    def on_execution_step(self, executor: Any) -> None:
        now = time.monotonic()
        if _listeners and now - self.last >= EVERY_S:
            self.last = now
            self._tell(executor)

    def after_execution_succeeds(self, executor: Any) -> None:
        self._tell(executor)

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        self._tell(executor)

    def _tell(self, executor: Any) -> None:
        try:
            queues = queues_of(executor)
        except Exception:  # noqa: BLE001 - another Ray may name these counters otherwise; a display must not end a run
            self.last = math.inf
            return
        for listener in list(_listeners):
            listener(queues)


def queues_of(executor: Any) -> tuple[Queue, ...]:
    """The operators after the input, in order; () when they are not the stages' own (Ray fused some)."""
    operators = list((executor._topology or {}).items())[1:]
    if len(operators) != len(_groups):
        return ()
    return tuple(
        Queue(
            stages,
            state.total_enqueued_input_blocks(),
            int(op.num_active_tasks()),
            int(op.get_actor_info().running),
        )
        for stages, (op, state) in zip(_groups, operators, strict=True)
    )
