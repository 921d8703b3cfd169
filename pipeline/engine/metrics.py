"""What is counted while a run goes on a cluster, by the names under which Prometheus finds it.

Ray's own metrics API exports each as `ray_<name>` (counters as `ray_<name>_total`), with the tags below and those
of Ray's (node, worker). deploy/grafana.json draws them; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Metric:
    """kind: "counter" (only grows) or "histogram" (bounds are the upper edges of its buckets)."""

    name: str
    kind: Literal["counter", "histogram"]
    doc: str
    tags: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


METRICS = {
    m.name: m
    for m in (
        Metric("cleanplate_rows", "counter", "rows committed, by status", ("status",)),
        Metric("cleanplate_errors", "counter", "rows committed with an error, by stage/kind", ("cause",)),
        Metric("cleanplate_units", "counter", "units, by outcome: committed, existing, later", ("outcome",)),
        Metric("cleanplate_bytes", "counter", "bytes read from the source and written to parts", ("way",)),
        Metric("cleanplate_stage_seconds", "counter", "seconds of work, by stage", ("stage",)),
        Metric("cleanplate_stage_rows", "counter", "rows that a stage worked on", ("stage",)),
        Metric(
            "cleanplate_batch_fill",
            "histogram",
            "rows in a batch as a share of the largest batch, by stage",
            ("stage",),
            (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0),
        ),
        Metric(
            "cleanplate_unit_seconds",
            "histogram",
            "seconds from a unit's first stage to its commit",
            (),
            (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
        ),
        Metric("cleanplate_deaths", "counter", "attempts at a unit that an ended process had begun"),
    )
}


class Meters:
    """The metrics of one worker's process. make: builds the engine's object for a Metric; its `inc(value, tags)`
    or `observe(value, tags)` is called."""

    def __init__(self, make: Callable[[Metric], Any]) -> None:
        self._made = {name: make(metric) for name, metric in METRICS.items()}

    def add(self, name: str, value: float, **tags: str) -> None:
        """Count on. Nothing to add is nothing to say: a counter refuses zero."""
        if value > 0:
            self._made[name].inc(value, tags)

    def observe(self, name: str, value: float, **tags: str) -> None:
        self._made[name].observe(value, tags)

    def stage(self, name: str, rows: int, share: float, seconds: float) -> None:
        """A stage did `rows` rows in `seconds`; share: of the largest batch, 0..1."""
        self.add("cleanplate_stage_seconds", seconds, stage=name)
        self.add("cleanplate_stage_rows", rows, stage=name)
        self.observe("cleanplate_batch_fill", share, stage=name)

    def unit(self, statuses: dict[str, int], causes: dict[str, int], new: bool, seconds: float) -> None:
        """A unit reached its commit. What another attempt had committed is not counted twice."""
        self.add("cleanplate_units", 1, outcome="committed" if new else "existing")
        if new:
            self.observe("cleanplate_unit_seconds", seconds)
            for status, rows in statuses.items():
                self.add("cleanplate_rows", rows, status=status)
            for cause, rows in causes.items():
                self.add("cleanplate_errors", rows, cause=cause)
