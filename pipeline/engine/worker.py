"""What runs in the worker processes of an engine: a group of stages over packed units, watched for hangs."""

from __future__ import annotations

import json
import time
import traceback
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from cleanplate.pipeline import schema
from cleanplate.pipeline.engine import log
from cleanplate.pipeline.engine.job import Job, commit
from cleanplate.pipeline.engine.metrics import Meters
from cleanplate.pipeline.engine.packing import pack, packed_row, unpack
from cleanplate.pipeline.engine.poison import LONGER, Tracker, Verdict
from cleanplate.pipeline.engine.pulse import Pulse
from cleanplate.pipeline.errors import CleanplateError, StorageError, redacted
from cleanplate.pipeline.ledger import plan
from cleanplate.pipeline.stages.stage import Stage, Worker
from cleanplate.pipeline.stages.write import finish


@dataclass(frozen=True)
class Place:
    """What a worker must know: the job without its units, its stages, and where in the flow they are."""

    job: Job
    group: tuple[Stage, ...]
    first: bool
    final: bool
    attempts: Any
    """The engine's handle of the wave's `Attempts`."""


class Group:
    """What one worker's process runs: neighbouring stages over units packed as rows.

    What makes going on senseless travels to the driver as a `failure` text, in order, instead of as an
    exception that Ray would retry or count as one more errored block.
    """

    def __init__(self, place: Place, tracker: Tracker, meters: Meters) -> None:
        self.place, self.tracker, self.meters = place, tracker, meters
        self.worker: Worker | None = None
        self.pulse: Pulse | None = None
        log.start("-")

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.concat_tables([self._one(batch.slice(n, 1)) for n in range(batch.num_rows)])

    def _one(self, packed: pa.Table) -> pa.Table:
        row = {name: packed[name][0].as_py() for name in packed.schema.names if name != "payload"}
        start = time.time() if self.place.first else row["start"]
        if row.get("failure"):
            return packed
        work = f"{row['name']}/{self.place.group[0].name}"
        try:
            verdict = self.tracker.begin(work)
            if verdict.careful:
                self.meters.add("cleanplate_deaths", 1)
                log.event("begun again after its worker ended", unit=row["name"])
            with Pulse(self.tracker, work, self.place.job.recipe.engine.patience) as self.pulse:
                done = self._do(row, packed, start, work, verdict)
            self.tracker.end(work, self.pulse.rows)
            return done
        except (StorageError, MemoryError) as error:
            # Of the unit as a whole: its rows are not to blame, and a later pass may have room or reach the store.
            self.tracker.end(work, {})
            self.meters.add("cleanplate_units", 1, outcome="later")
            stop = isinstance(error, StorageError) and error.kind != "unreachable"
            return packed_row(row["name"], start, b"", f"{'stop' if stop else 'later'}: {error}")
        except Exception as error:  # noqa: BLE001 - travels to the driver, which stops the run
            text = str(error) if isinstance(error, CleanplateError) else traceback.format_exc()
            return packed_row(row["name"], start, b"", f"stop: {type(error).__name__}: {redacted(text)}")

    def _do(
        self, row: dict[str, Any], packed: pa.Table, start: float, work: str, verdict: Verdict
    ) -> pa.Table:
        place = self.place
        if verdict.hopeless:
            return packed_row(row["name"], start, b"", "stop: workers end while they load their models")
        if self.worker is None:
            needs = place.group[0].needs
            settle_threads(needs.cpus, networks=needs.workers != (0, 0))
            self.worker = Worker(place.group, self._stage_done)
        table = plan.read_unit(place.job.output, plan.Unit(**row)) if place.first else unpack(packed)
        table = self._carefully(table, work, verdict) if verdict.careful else self.worker(table)
        if place.first:
            self.meters.add("cleanplate_bytes", table["source"].nbytes, way="read")
        if not place.final:
            return pack(row["name"], start, table)
        table = finish(table, place.job.stamp)
        receipt = commit(place.job, row["name"], table, start)
        self.meters.unit(receipt.statuses, receipt.causes, receipt.new, receipt.seconds)
        if receipt.new:
            self.meters.add("cleanplate_bytes", table["image"].nbytes, way="written")
        return packed_row(row["name"], start, json.dumps(asdict(receipt)).encode())

    def _stage_done(self, stage: str, rows: int, share: float, seconds: float) -> None:
        self.meters.stage(stage, rows, share, seconds)
        if self.pulse:
            self.pulse.did(stage, rows)

    def _carefully(self, table: pa.Table, work: str, verdict: Verdict) -> pa.Table:
        """The unit in its usual batches, each announced; suspects one at a time, the guilty failed untried."""
        assert self.worker is not None
        assert self.pulse is not None
        patience, pieces = self.pulse.patience, []
        for batch in self.worker.batches(table):
            ids = batch["image_id"].to_pylist()
            together = [i for i, name in enumerate(ids) if name not in verdict.alone]
            for chosen in [together, *([i] for i, name in enumerate(ids) if name in verdict.alone)]:
                if not chosen:
                    continue
                piece, first = batch.take(chosen), ids[chosen[0]]
                if first in verdict.guilty:
                    error = _hung(patience * LONGER) if first in verdict.hung else _CRASHED
                    piece = schema.with_columns(piece, schema.columns("error"), {"error": [error]})
                self.tracker.announce(work, piece["image_id"].to_pylist())
                # No image is failed for slowness without a try alone that may take longer than a batch.
                self.pulse.allow(patience * (LONGER if first in verdict.alone else 1))
                pieces.append(self.worker(piece))
        self.tracker.announce(work, [])
        self.pulse.allow(patience)
        return pa.concat_tables(pieces)


_CRASHED = {
    "stage": "worker",
    "kind": "crashed",
    "message": "this image alone ended its worker's process, twice: a crash, or killed for memory",
}


def _hung(seconds: float) -> dict[str, str]:
    message = f"this image alone gave no sign of progress for {seconds:g} s ({LONGER} x engine.patience)"
    return {"stage": "worker", "kind": "hung", "message": message}


def settle_threads(cpus: float, networks: bool = True) -> None:
    from cleanplate.models.devices import limit_threads

    limit_threads(max(1, int(cpus)), networks)
