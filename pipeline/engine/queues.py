"""What happens in the engine while a wave runs: how full its queues are, and notices for people.

Ray Data calls a `Watcher` at every step of its scheduling loop, in this process (its context's
`custom_execution_callback_classes`). It takes classes, which also travel to workers, so listeners are kept here
and not in them. One block is one unit, so a queue's length counts units.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from cleanplate.pipeline.engine import log

EVERY_S = 0.25
CHECK_S = 1.0


@dataclass(frozen=True)
class Queue:
    """One operator: the stages that share it, units that wait for it, units in its workers, its workers."""

    stages: tuple[str, ...]
    waiting: int
    running: int
    workers: int


class Listener(Protocol):
    """Called in the engine's thread: with the queues, a few times a second; with the rows that each stage has done in
    this pass, also those that are not committed yet; and with a sentence for people, about what ended a worker or which
    nodes are gone."""

    def queued(self, queues: tuple[Queue, ...]) -> None: ...
    def working(self, rows: Mapping[str, int]) -> None: ...
    def notice(self, text: str) -> None: ...


_listeners: list[Listener] = []
_groups: list[tuple[str, ...]] = []
_checks: list[Callable[[], None]] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """For the length of a `with`, `listener` is called."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def working(rows: Mapping[str, int]) -> None:
    """Pass on how many rows each stage has done."""
    for listener in list(_listeners):
        listener.working(rows)


def notice(text: str) -> None:
    """Pass a sentence on to whoever listens, and to the log."""
    log.event(text)
    for listener in list(_listeners):
        listener.notice(text)


def expect(groups: Sequence[Sequence[Any]], check: Callable[[], None]) -> None:
    """The stages that the operators of the coming wave hold, in order. check: called about once a second while the
    wave runs; what it raises ends the wave."""
    _groups[:] = [tuple(stage.name for stage in group) for group in groups]
    _checks[:] = [check]


class Watcher:
    """Ray Data's ExecutionCallback, by its methods. Reads counters only, a few times a second."""

    def __init__(self) -> None:
        self.last = self.checked = 0.0

    def before_execution_starts(self, executor: Any) -> None:
        """Nothing is queued yet."""

    def on_execution_step(self, executor: Any) -> None:
        now = time.monotonic()
        if _listeners and now - self.last >= EVERY_S:
            self.last = now
            self._show(executor)
        if now - self.checked >= CHECK_S:
            self.checked = now
            for check in _checks:
                check()

    def after_execution_succeeds(self, executor: Any) -> None:
        self._show(executor)

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        self._show(executor)

    def _show(self, executor: Any) -> None:
        try:
            queues = queues_of(executor)
        except Exception:  # noqa: BLE001 - another Ray may name these counters otherwise; a display must not end a run
            self.last = math.inf
            return
        for listener in list(_listeners):
            listener.queued(queues)


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
