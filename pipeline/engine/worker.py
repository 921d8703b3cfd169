"""What runs in the worker processes of an engine: a group of stages over packed units, watched and witnessed."""

from __future__ import annotations

import faulthandler
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cleanplate.pipeline import schema
from cleanplate.pipeline.engine import log
from cleanplate.pipeline.engine.metrics import Meters
from cleanplate.pipeline.engine.packing import pack, packed_row, unpack
from cleanplate.pipeline.engine.poison import Case
from cleanplate.pipeline.errors import CleanplateError, StorageError, redacted
from cleanplate.pipeline.ledger import layouts, ledger, plan
from cleanplate.pipeline.ledger.ledger import Receipt
from cleanplate.pipeline.stages.stage import Stage, Worker
from cleanplate.pipeline.stages.write import finish

if TYPE_CHECKING:
    from cleanplate.pipeline.engine.ray_data import Job

Tell = Callable[..., Any]
"""tell(verb, *words): a method of the Witness by name, wherever it lives; None when it cannot be reached."""


def commit(job: Job, unit: str, table: pa.Table, start: float) -> Receipt:
    """Put the unit's part if it is absent; the receipt tells what it holds."""
    ledger.check_part(table)
    layout = job.recipe.output.layout
    if layout != "parquet" and not ledger.has(
        job.output, unit
    ):  # A late writer puts no pictures for no part.
        table = layouts.place(job.output, unit, table, layout, job.below)
    new = ledger.commit(job.output, unit, table)
    if new:
        log.failed_rows(unit, table)
    rows, statuses, causes = ledger.counts(table)
    seconds = time.time() - start
    told = ledger.timings(table), ledger.problems(table)
    return Receipt(unit, rows, statuses, causes, new, seconds, *told)


@dataclass(frozen=True)
class Place:
    """What a worker must know: the job without its units, its stages, and where in the flow they are."""

    job: Job
    group: tuple[Stage, ...]
    first: bool
    final: bool
    witness: Any
    """The engine's handle of the wave's Witness."""


class Group:
    """What one worker's process runs: neighbouring stages over units packed as rows.

    What makes going on senseless travels to the driver as a `failure` text, in order, instead of as an
    exception that Ray would retry or count as one more errored block.
    """

    def __init__(self, place: Place, witness: Tell, meters: Meters) -> None:
        self.place, self.witness, self.meters = place, witness, meters
        self.worker: Worker | None = None
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
            case = self.witness("begin", work) or Case()
            if case.careful:
                self.meters.add("cleanplate_deaths", 1)
                log.event("begun again after its worker ended", unit=row["name"])
            try:
                self._watch()
                done = self._do(row, packed, start, work, case)
            finally:
                faulthandler.cancel_dump_traceback_later()
            self.witness("end", work)
            return done
        except StorageError as error:
            self.witness("end", work)
            self.meters.add("cleanplate_units", 1, outcome="later")
            again = error.kind == "unreachable"
            return packed_row(row["name"], start, b"", f"{'later' if again else 'stop'}: {error}")
        except (
            MemoryError
        ) as error:  # Of the unit as a whole: its rows are not to blame, a later pass may have room.
            self.witness("end", work)
            self.meters.add("cleanplate_units", 1, outcome="later")
            return packed_row(row["name"], start, b"", f"later: {error}")
        except Exception as error:  # noqa: BLE001 - told to the driver, which stops the run
            said = str(error) if isinstance(error, CleanplateError) else traceback.format_exc()
            return packed_row(row["name"], start, b"", f"stop: {type(error).__name__}: {redacted(said)}")

    def _do(self, row: dict[str, Any], packed: pa.Table, start: float, work: str, case: Case) -> pa.Table:
        place = self.place
        if case.hopeless:
            return packed_row(row["name"], start, b"", "stop: workers end while they load their models")
        if self.worker is None:
            needs = place.group[0].needs
            settle_threads(needs.cpus, networks=needs.workers != (0, 0))
            self.worker = Worker(place.group, self._told)
        table = plan.read_unit(place.job.output, plan.Unit(**row)) if place.first else unpack(packed)
        table = self._carefully(table, work, case) if case.careful else self.worker(table)
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

    def _told(self, stage: str, rows: int, share: float, seconds: float) -> None:
        self.meters.stage(stage, rows, share, seconds)
        self._watch()

    def _watch(self) -> None:
        """End this process, unless told again in time: a decoder that never returns holds its worker for ever, and
        what the witness knows of dead workers finds its image too. A thread in C: it needs no interpreter lock."""
        faulthandler.dump_traceback_later(self.place.job.recipe.engine.patience, exit=True)

    def _carefully(self, table: pa.Table, work: str, case: Case) -> pa.Table:
        """The unit in its usual batches, each announced; suspects one at a time, the guilty failed untried."""
        assert self.worker is not None
        pieces = []
        for batch in self.worker.batches(table):
            ids = batch["image_id"].to_pylist()
            together = [i for i, name in enumerate(ids) if name not in case.alone]
            for chosen in [together, *([i] for i, name in enumerate(ids) if name in case.alone)]:
                if not chosen:
                    continue
                piece = batch.take(chosen)
                if ids[chosen[0]] in case.guilty:
                    piece = schema.with_columns(piece, schema.columns("error"), {"error": [_CRASHED]})
                self.witness("at", work, piece["image_id"].to_pylist())
                pieces.append(self.worker(piece))
        self.witness("at", work, [])
        return pa.concat_tables(pieces)


_CRASHED = {
    "stage": "worker",
    "kind": "crashed",
    "message": "this image alone ended its worker's process, twice: a crash, a hang, or killed for memory",
}


def settle_threads(cpus: float, networks: bool = True) -> None:
    from cleanplate.models.devices import limit_threads

    limit_threads(max(1, int(cpus)), networks)
