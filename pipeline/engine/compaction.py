"""Many small parts into few large ones: what `cleanplate compact` does, beside a run or after it.

Units are small because a kill, a retry and a slow image each cost one; whoever reads ten million images wants parts of
256 MB. A compaction copies the rows of committed units, in the order of the units' names, into large parts, and then
writes its index (`pipeline/ledger/compactions.py`) by one conditional put. Killed before that, it has
changed nothing; the same
command makes the same names again and passes over what is there. Of two at once the first to write its index wins, and
the other begins again with what is left. The units' own parts stay until `cleanplate verify --sweep`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq

from cleanplate.pipeline.engine.job import Spread
from cleanplate.pipeline.errors import DamagedError, RunStopped, StorageError
from cleanplate.pipeline.ledger import compactions, ledger, part_file, plan
from cleanplate.pipeline.ledger.compactions import FOLDER, Held
from cleanplate.pipeline.storage.connect import Store

ROWS, BYTES = 10_000, 256 * 2**20
"""Of a large part, at most; a last small one joins the one before it."""


@dataclass(frozen=True)
class _Small:
    """A unit that lies in a part of its own."""

    name: str
    rows: int
    size: int
    written: float | None


@dataclass(frozen=True)
class _Large:
    """A part to make: the units in it, in order, and their rows."""

    output: Store
    key: str
    units: tuple[_Small, ...]


@dataclass(frozen=True)
class Compacted:
    """One large part that lies there now."""

    units: int
    rows: int
    size: int


def compact(output: Store, spread: Spread, *, rows: int = ROWS, size: int = BYTES) -> Iterator[Compacted]:
    """Copy every committed unit that no compaction holds yet into large parts of at most `rows` rows and `size`
    bytes. Yields each large part; nothing where no two units fit together. Committed when it is exhausted.

    spread: runs a function over items, here or on a cluster. Raises RunStopped for a part that is not what was written.
    """
    while larges := _planned(output, rows, size):
        generation = max(compactions.generations(output), default=-1) + 1
        folder = f"{FOLDER}/{generation:04d}-{_digest(larges)}"
        tasks = [replace(large, key=f"{folder}/{n:05d}.parquet") for n, large in enumerate(larges)]
        places: list[Held] = []
        for part in spread(_make, tasks):
            places += part
            yield Compacted(len(part), sum(place.rows for place in part), part[0].size)
        _check(output, places)
        if output.put_new(compactions.index_key(generation), compactions.index_bytes(places)):
            return


def _planned(output: Store, rows: int, size: int) -> list[_Large]:
    """What is to be made: runs of units in the order of their names; [] where each would stand alone."""
    held = compactions.held(output)
    listed = {item.key.removeprefix(f"{ledger.PARTS}/"): item for item in output.list(ledger.PARTS)}
    small = [
        _Small(unit.name, unit.rows, item.size, item.modified)
        for generation in plan.generations(output)
        for unit in plan.read_index(output, generation)
        if unit.name not in held and (item := listed.get(f"{unit.name}.parquet"))
    ]
    groups = list(_grouped(sorted(small, key=lambda unit: unit.name), rows, size))
    if len(groups) > 1 and len(groups[-1]) == 1:
        groups[-2:] = [groups[-2] + groups[-1]]
    if all(len(group) == 1 for group in groups):
        return []
    return [_Large(output, "", tuple(group)) for group in groups]


def _grouped(units: Sequence[_Small], rows: int, size: int) -> Iterator[list[_Small]]:
    group: list[_Small] = []
    for unit in units:
        full = sum(u.rows for u in group) + unit.rows > rows or sum(u.size for u in group) + unit.size > size
        if group and full:
            yield group
            group = []
        group.append(unit)
    if group:
        yield group


def _digest(larges: Sequence[_Large]) -> str:
    """12 hex digits over which units go where, so that only equal compactions share names."""
    text = "\n\n".join("\n".join(unit.name for unit in large.units) for large in larges)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _make(large: _Large) -> list[Held]:
    """Put the part if it is absent; where its units lie in it, in any case."""
    size = _size(large)
    if size is None:
        # Another may put it meanwhile, and not the same bytes (another version of Arrow): what lies there counts.
        large.output.put_new(large.key, part_file.joined_bytes(_tables(large)))
        size = large.output.stat(large.key).size
    places, first = [], 0
    for unit in large.units:
        places.append(Held(unit.name, large.key, first, unit.rows, size, unit.written))
        first += unit.rows
    return places


def _size(large: _Large) -> int | None:
    """The part's size in bytes; None where it is not there. What is there is whole: puts are atomic."""
    if not ledger.has_key(large.output, large.key):
        return None
    with ledger.open_part(large.output, large.key) as file:
        rows = file.metadata.num_rows
    if rows != sum(unit.rows for unit in large.units):
        raise DamagedError(
            f"{large.output.uri(large.key)} is not what a compaction wrote there: delete it and compact again"
        )
    return large.output.stat(large.key).size


def _tables(large: _Large) -> Iterator[pa.Table]:
    """The units' rows, each part proved to be as it was written before it is copied."""
    for unit in large.units:
        key = f"{ledger.PARTS}/{unit.name}.parquet"
        try:
            data = large.output.get(key)
        except StorageError as error:
            if error.kind == "missing":  # Another compaction has replaced it, and a sweep removed it.
                raise RunStopped(
                    f"{large.output.uri(key)} has gone meanwhile; the same command again"
                ) from None
            raise
        # The seal first: at damaged pages pyarrow may raise an OSError of its own.
        table = pq.read_table(pa.BufferReader(data)) if part_file.seal_holds(data) else None
        if table is None or table.num_rows != unit.rows:
            raise DamagedError(
                f"{large.output.uri(key)} is damaged (its seal is broken): {part_file.MAKE_ANEW}"
            )
        yield table


def _check(output: Store, places: Sequence[Held]) -> None:
    """Raise RunStopped where a sweep took what was made here for a dead compaction's."""
    sizes = {item.key: item.size for item in output.list(FOLDER)}
    if gone := [place.part for place in places if sizes.get(place.part) != place.size]:
        raise RunStopped(f"{output.uri(gone[0])} has gone meanwhile (a sweep?); the same command again")
