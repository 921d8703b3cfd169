"""A run from its plan to its end: the one way for the command, a script and a notebook, so that all leave one history.

plan > execute > recall > card       each step an event in the output, and reported to whoever called
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from cleanplate.pipeline.engine import log, ray_cluster, ray_data, recall
from cleanplate.pipeline.engine import run as runs
from cleanplate.pipeline.engine.job import spread_here
from cleanplate.pipeline.errors import StorageError, redacted
from cleanplate.pipeline.ledger.ledger import Tally
from cleanplate.pipeline.ledger.plan import Unit
from cleanplate.pipeline.ledger.receipt import Receipt
from cleanplate.pipeline.ledger.review import Marks


class Counter(Protocol):
    """Counts receipts and shows them (`ui.progress.Progress`). tally: of this start alone."""

    tally: Tally

    def __call__(self, receipt: Receipt) -> None: ...
    def state(self) -> dict[str, Any]: ...


Show = Callable[[int, int], AbstractContextManager[Counter]]
"""(rows planned, rows committed by earlier starts) -> what counts and shows the rest."""
Report = Callable[..., None]
"""report(event, **fields): start, planned, beside, held_back, given, starting, engine, recall, advice and labels,
in this order."""


@dataclass(frozen=True)
class Options:
    """How to carry out a run. recall: images to look at again, None = by the number of rows. address: of a Ray cluster,
    None = this machine's own."""

    engine: runs.Engine = "ray"
    address: str | None = None
    limit: int | None = None
    retry_failed: bool = False
    marks: Marks | None = None
    recall: int | None = None


@dataclass(frozen=True)
class Outcome:
    """A complete run. tally: of the whole output; done: rows of this start; seconds: of this start."""

    tally: Tally
    done: int
    seconds: float
    recall: list[dict[str, Any]] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Neither failed rows nor residue."""
        return not (self.tally.statuses.get("failed") or self.tally.statuses.get("residual"))


def carry_out(run: runs.Run, options: Options, show: Show, report: Report) -> Outcome:
    """Plan what is new, do what is not committed, estimate the recall and write the card.

    Raises what `run.plan_new` and `run.execute` raise; the output then says in `events/` why it stopped.
    """
    log.start()
    begun = time.monotonic()
    report("start", **_identity(run))
    units = runs.plan_new(run, limit=options.limit, retry_failed=options.retry_failed, marks=options.marks)
    todo = runs.missing(run.output, units)
    rows, left = sum(u.rows for u in units), sum(u.rows for u in todo)
    report("planned", images=rows, units=len(units), committed_before=rows - left)
    if run.listing.left_out:
        report("beside", left_out=dict(run.listing.left_out))
    if run.held_back:
        report("held_back", columns=list(run.held_back))
    if run.unmatched:
        report("given", **run.unmatched)
    runs.event(run, "started", rows=rows, todo=left, left_out=dict(run.listing.left_out))
    missed: list[dict[str, Any]] = []
    if todo:
        with _engine(options, report):
            with show(rows, rows - left) as counter:
                _execute(run, units, options, counter)
            if size := recall.sample_size(rows, options.recall):
                report("starting", what=f"checking {size:,} images again to estimate recall")
                spread = spread_here if options.engine == "here" else ray_cluster.spread_on_ray
                missed = recall.estimate(run.output, run.recipe, spread, size)
                report("recall", recall=missed)
    if advice := runs.advice(run):
        report("advice", message=advice)
    tally = runs.finished(run)
    if labels := runs.labels(run):
        report("labels", **labels)
    runs.event(run, "complete", rows=tally.rows, statuses=tally.statuses, causes=tally.causes, recall=missed)
    return Outcome(tally, left, time.monotonic() - begun, missed)


@contextmanager
def _engine(options: Options, report: Report) -> Iterator[None]:
    """This process, or Ray for the length of a `with`; reported from the first second, because Ray takes some."""
    if options.engine == "here":
        report("engine", where="this process, without Ray")
        yield
        return
    report("starting", what="connecting to Ray" if options.address else "starting Ray")
    with ray_cluster.connected(options.address) as where:
        report("engine", where=where)
        yield


def _execute(run: runs.Run, units: list[Unit], options: Options, counter: Counter) -> None:
    on_receipt = counter if options.engine == "here" else _measured(counter, run.run_id)
    try:
        runs.execute(run, units, options.engine, on_receipt)
    except (Exception, KeyboardInterrupt) as error:
        # The run's own history tells why it stopped, where the store still takes it: perhaps it is what stopped it.
        with suppress(StorageError):
            message = redacted(str(error)) or "interrupted"
            runs.event(run, "stopped", why=type(error).__name__, message=message, rows=counter.tally.rows)
        raise


def _measured(counter: Counter, run_id: str) -> Callable[[Receipt], None]:
    """Count receipts on screen and for Prometheus."""
    gauges = ray_data.run_gauges(run_id)
    gauges.show(counter.state())

    def count(receipt: Receipt) -> None:
        counter(receipt)
        gauges.show(counter.state())

    return count


def _identity(run: runs.Run) -> Mapping[str, Any]:
    recipe = run.recipe
    return {
        "source": run.source.url,
        "output": run.output.url,
        "run_id": run.run_id,
        "recipe_digest": run.stamp.recipe_digest,
        "remove": list(recipe.remove),
        "segmenter": recipe.masks.segmenter,
        "inpainter": recipe.inpaint.name,
        "hidden_by": recipe.inpaint.hiders(recipe.remove),
    }
