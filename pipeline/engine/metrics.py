"""What is counted while a run goes on a cluster, by the names under which Prometheus finds it.

Ray's own metrics API exports each as `ray_<name>` (counters as `ray_<name>_total`), with the tags below and those
of Ray's (node, worker). deploy/grafana.json draws them; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cleanplate.pipeline.schema import STATUSES


@dataclass(frozen=True)
class Metric:
    """kind: "counter" (only grows), "gauge", or "histogram" (bounds are the upper edges of its buckets)."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
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

"""What each worker counts. Their series end with their workers: good for rates, not for a run's totals."""

RUN_METRICS = {
    m.name: m
    for m in (
        Metric("cleanplate_run_planned_rows", "gauge", "rows of the run's plan", ("run_id",)),
        Metric(
            "cleanplate_run_rows",
            "gauge",
            "rows committed, by status; `earlier`: by earlier starts of the same command",
            ("run_id", "status"),
        ),
        Metric("cleanplate_run_eta_seconds", "gauge", "seconds to the end, at the rate of now", ("run_id",)),
    )
}
"""What the driver shows of its run. It counts receipts, so nothing falls when a worker or a node goes."""


class RunGauges:
    """The gauges of one run, set by its driver. make: as of Meters; its `set(value, tags)` is called."""

    def __init__(self, make: Callable[[Metric], Any], run_id: str) -> None:
        self._made = {name: make(metric) for name, metric in RUN_METRICS.items()}
        self._run_id = run_id

    def show(self, state: Mapping[str, Any]) -> None:
        """state: of `Progress.state`."""
        self._set("cleanplate_run_planned_rows", state["total"])
        self._set("cleanplate_run_rows", state["committed_before"], status="earlier")
        for (
            status
        ) in STATUSES:  # Also those that have none yet: Prometheus sees a series grow only from its start.
            self._set("cleanplate_run_rows", state["statuses"].get(status, 0), status=status)
        if state["eta_s"] is not None:
            self._set("cleanplate_run_eta_seconds", state["eta_s"])
        elif state["done"] >= state["total"]:
            self._set("cleanplate_run_eta_seconds", 0)

    def _set(self, name: str, value: float, **tags: str) -> None:
        self._made[name].set(value, {"run_id": self._run_id, **tags})


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
