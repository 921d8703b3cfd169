"""What a stage is, and the worker that holds it to its promise.

A stage is a frozen config; `open()` makes the function that does the work, where the hardware is. A worker
runs it over a unit's table: rows that failed pass by untouched, an image that makes the stage raise is
isolated to its own row, and the same rows must come out, with the promised columns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from cleanplate.models import devices
from cleanplate.pipeline import schema
from cleanplate.pipeline.errors import (
    ConfigError,
    ContractError,
    RowError,
    StorageError,
    ran_out_of_memory,
    redacted,
)
from cleanplate.pipeline.schema.rows import ErrorRow
from cleanplate.pipeline.stages import rows

Work = Callable[[pa.Table], pa.Table]
"""Healthy rows in; the same rows, in any order, with more columns out. A row may be given an `error`."""
OnBatch = Callable[[str, int, float, float], None]

_BUGS = (TypeError, KeyError, NameError, AttributeError, ImportError, AssertionError, NotImplementedError)
_BUGS_IN_A_ROW = 8
"""So many images running that fail with a programming error are a broken program, not bad images."""


@dataclass(frozen=True)
class Needs:
    """What one worker takes. gpus and cpus may be fractions; batch is rows per call of the work;
    workers is the least and most of them, (0, 0) for stateless tasks that the engine places freely."""

    cpus: float = 1
    gpus: float = 0
    batch: int = 16
    workers: tuple[int, int] = (1, 1)


class Stage(Protocol):
    """name: the verb. adds: the columns it appends or replaces, typed."""

    @property
    def name(self) -> str: ...
    @property
    def adds(self) -> pa.Schema: ...
    @property
    def needs(self) -> Needs: ...
    def open(self) -> Work: ...


class Worker:
    """One or more stages, opened, folded over batches so that a batch's pixels stay warm between them."""

    def __init__(
        self, stages: Sequence[Stage], on_batch: OnBatch = lambda stage, rows, share, seconds: None
    ) -> None:
        """on_batch: called after each stage's batch with the stage's name, the rows it worked on, their share of
        the largest batch, and the seconds."""
        self.stages, self.on_batch = tuple(stages), on_batch
        self.works = [stage.open() for stage in self.stages]
        self.batch = min(stage.needs.batch for stage in self.stages)
        self._bugs = 0

    def __call__(self, unit: pa.Table) -> pa.Table:
        """A unit's table through every stage. Raises ContractError when a stage broke its promise, and
        passes on StorageError "unreachable" and ConfigError, which no single image can be blamed for."""
        return pa.concat_tables([self._fold(piece) for piece in self.batches(unit)])

    def only(self, names: Collection[str]) -> Worker:
        """A worker of some of these stages, which shares what they opened."""
        some = copy(self)
        chosen = [n for n, stage in enumerate(self.stages) if stage.name in names]
        some.stages = tuple(self.stages[n] for n in chosen)
        some.works = [self.works[n] for n in chosen]
        return some

    def batches(self, unit: pa.Table) -> list[pa.Table]:
        """The slices in which a unit is worked on."""
        # A unit never comes empty from the plan; one slice keeps the schema right all the same.
        return [unit.slice(at, self.batch) for at in range(0, max(1, unit.num_rows), self.batch)]

    def _fold(self, table: pa.Table, first: int = 0) -> pa.Table:
        """The stages from number `first` on. Large pictures go on in smaller batches: what does not stay decoded
        from one stage to the next would be decoded by each."""
        for n in range(first, len(self.stages)):
            pieces = _kept_decoded(table, self.stages[n])
            if len(pieces) > 1:
                return pa.concat_tables([self._fold(piece, n) for piece in pieces])
            table = self._step(self.stages[n], self.works[n], table)
        return table

    def _step(self, stage: Stage, work: Work, table: pa.Table) -> pa.Table:
        healthy = pc.is_null(table["error"])
        # A filter copies, pictures and pixels too; mostly there is nothing to filter.
        good, bad = (table, table.slice(0, 0)) if pc.all(healthy).as_py() else _parted(table, healthy)
        promised = schema.merged(table.schema, stage.adds)
        pieces = [_with_nulls(bad, promised)]
        if good.num_rows:
            start = time.perf_counter()
            done = self._guarded(stage, work, good)
            seconds = time.perf_counter() - start
            self.on_batch(stage.name, good.num_rows, good.num_rows / self.batch, seconds)
            each_ms = seconds * 1000 / good.num_rows
            _check(stage, good, done, promised)
            pieces.append(_timed(done, stage.name, each_ms))
        return pa.concat_tables(pieces)

    def _guarded(self, stage: Stage, work: Work, table: pa.Table) -> pa.Table:
        """Run the work; on an exception halve the rows until the one that raises stands alone and fails.

        The halving is also what an out-of-memory batch needs: half the images, then one."""
        alone = table.num_rows == 1
        try:
            done = work(table)
            self._bugs = 0
            return done
        except (ContractError, ConfigError):
            raise
        except Exception as error:
            if isinstance(error, StorageError) and error.kind == "unreachable":
                raise
            if alone:
                return self._failed(table, stage, error)
            no_memory = ran_out_of_memory(error)
        # Outside the except block: the error holds the frames, and those the arrays, that filled the memory.
        if no_memory:
            rows.forget()
            devices.release()
        half = table.num_rows // 2
        parts = [self._guarded(stage, work, piece) for piece in (table.slice(0, half), table.slice(half))]
        return pa.concat_tables(parts)

    def _failed(self, table: pa.Table, stage: Stage, error: Exception) -> pa.Table:
        """The row that raised alone. Raises ContractError where so many do that the program is to blame."""
        self._bugs = self._bugs + 1 if isinstance(error, _BUGS) else 0
        if self._bugs >= _BUGS_IN_A_ROW:
            raise ContractError(
                f"{stage.name}: {self._bugs} images running raised; the last: {error!r}"
            ) from error
        return _failed(table, stage, error)


def _parted(table: pa.Table, healthy: pa.ChunkedArray) -> tuple[pa.Table, pa.Table]:
    return table.filter(healthy), table.filter(pc.invert(healthy))


def _kept_decoded(table: pa.Table, stage: Stage) -> list[pa.Table]:
    """The table in slices whose pictures stay decoded together. As it is, where their size is not known yet or their
    pixels travel with it (of which a unit has only so many: their stage sees it whole)."""
    travel = "pixels" in table.schema.names or "pixels" in stage.adds.names
    if table.num_rows < 2 or "width" not in table.schema.names or travel:
        return [table]
    sizes = pc.fill_null(pc.multiply(table["width"], table["height"]), 0).to_pylist()
    starts, held = [0], 0
    for n, pixels in enumerate(sizes):
        if n > starts[-1] and held + pixels > rows.KEPT_PIXELS:
            starts, held = [*starts, n], 0
        held += pixels
    ends = [*starts[1:], table.num_rows]
    return [table.slice(a, b - a) for a, b in zip(starts, ends, strict=True)]


def error_of(stage: str, error: BaseException) -> ErrorRow:
    """The `error` column's struct for an exception."""
    kind = error.kind if isinstance(error, RowError | StorageError) else _kind_of(error)
    text = redacted(" ".join(str(error).split())) or type(error).__name__
    return {"stage": stage, "kind": kind, "message": text[:500]}


def _kind_of(error: BaseException) -> str:
    return "out_of_memory" if ran_out_of_memory(error) else f"internal:{type(error).__name__}"


def _failed(table: pa.Table, stage: Stage, error: Exception) -> pa.Table:
    failed = schema.with_columns(
        table, schema.columns("error"), {"error": [error_of(stage.name, error)] * table.num_rows}
    )
    return _with_nulls(failed, schema.merged(table.schema, stage.adds))


def _with_nulls(table: pa.Table, promised: pa.Schema) -> pa.Table:
    have = set(table.schema.names)
    arrays = [table[f.name] if f.name in have else pa.nulls(table.num_rows, f.type) for f in promised]
    return pa.table(arrays, schema=promised)


def _timed(table: pa.Table, stage: str, each_ms: float) -> pa.Table:
    timings = [{**(t or {}), stage: each_ms} for t in table["timings_ms"].to_pylist()]
    return schema.with_columns(table, schema.columns("timings_ms"), {"timings_ms": timings})


def _check(stage: Stage, before: pa.Table, after: pa.Table, promised: pa.Schema) -> None:
    if not after.schema.equals(promised):
        raise ContractError(f"{stage.name}: promised columns {promised.names}, gave {after.schema.names}")
    if sorted(before["image_id"].to_pylist()) != sorted(after["image_id"].to_pylist()):
        raise ContractError(f"{stage.name}: {before.num_rows} rows in, other rows out ({after.num_rows})")
