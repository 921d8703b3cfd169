"""What compactions say: which unit lies in which large part. `pipeline/engine/compaction.py` makes them.

    compacted/0000-<digest>/00000.parquet ...   large parts, each of whole units
    compacted/0000.index.parquet                which unit lies where. Written last and only if absent: it *is* the
                                                compaction, and what no index names counts for nothing

From the index on, a unit is read from its large part; its own part, as long as it is there, counts no more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from cleanplate.pipeline.ledger import part_file
from cleanplate.pipeline.storage.connect import Store

FOLDER = "compacted"
_SUFFIX = ".index.parquet"
_INDEX = pa.schema(
    [
        ("unit", pa.string()),
        ("part", pa.string()),
        ("first", pa.int64()),
        ("rows", pa.int32()),
        ("size", pa.int64()),
        ("written", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Held:
    """Where a unit lies: `rows` rows from row `first` on of the large part with the key `part`, of `size` bytes.
    written: when the unit's own part was, seconds since 1970, if its store reports it."""

    unit: str
    part: str
    first: int
    rows: int
    size: int
    written: float | None = None


def index_key(generation: int) -> str:
    return f"{FOLDER}/{generation:04d}{_SUFFIX}"


def generation_of(part: str) -> int:
    """Which compaction a large part is of, by its key."""
    return int(part.removeprefix(f"{FOLDER}/")[:4])


def generations(output: Store) -> list[int]:
    """The compactions that exist, oldest first."""
    names = (item.key.removeprefix(f"{FOLDER}/") for item in output.list(FOLDER))
    return sorted(int(n.removesuffix(_SUFFIX)) for n in names if n.endswith(_SUFFIX) and "/" not in n)


def held(output: Store) -> dict[str, Held]:
    """unit -> where it lies, for every unit of every compaction. Each is made of what those before it do not
    hold, so no unit is in two. A large part that somebody deleted holds nothing: its units have their own parts
    again, or none, and are then done anew."""
    found: dict[str, Held] = {}
    for generation in generations(output):
        key = index_key(generation)
        with part_file.reading(output, key, part_file.FROM_A_COPY):
            table = pq.read_table(pa.BufferReader(output.get(key)))
        found |= {row["unit"]: Held(**row) for row in table.to_pylist()}
    # After the indexes: they are written after their parts.
    there = {item.key for item in output.list(FOLDER)} if found else set()
    return {unit: place for unit, place in found.items() if place.part in there}


def by_part(places: Iterable[Held]) -> dict[str, list[Held]]:
    """Large part -> the units in it, in the order in which they lie there."""
    parts: dict[str, list[Held]] = {}
    for place in sorted(places, key=lambda place: (place.part, place.first)):
        parts.setdefault(place.part, []).append(place)
    return parts


def index_bytes(places: Iterable[Held]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([asdict(p) for p in places], schema=_INDEX), sink, compression="zstd")
    return bytes(sink.getvalue())
