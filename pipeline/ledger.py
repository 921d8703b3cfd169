"""The ledger: what is committed. A part that the listing of `parts/` does not show does not exist.

A unit is committed by one conditional put of `parts/<unit>.parquet`. "It exists" means that an earlier or a
parallel attempt at the same unit won, which is as good: the unit's name is a digest of its rows and recipe.
So a retry, a doubled worker, a zombie that wakes up late and two jobs at once do no harm.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import plan, schema
from pipeline.errors import ConfigError
from pipeline.storage import Store

PARTS = "parts"
RUN_FILE = "run.json"


@dataclass(frozen=True)
class Receipt:
    """What the driver hears of one unit: small, whatever the unit holds."""

    unit: str
    rows: int
    statuses: dict[str, int] = field(default_factory=dict)
    causes: dict[str, int] = field(default_factory=dict)
    """"stage/kind" -> rows, of failed and skipped rows."""
    new: bool = True
    """False when an earlier attempt had committed the unit."""
    seconds: float = 0.0


def done(output: Store) -> set[str]:
    """The names of the committed units: one listing, nothing else is believed."""
    return {key.removesuffix(".parquet") for key in part_keys(output)}


def part_keys(output: Store) -> list[str]:
    """File names below `parts/`, sorted."""
    names = (item.key.removeprefix(f"{PARTS}/") for item in output.list(PARTS))
    return sorted(name for name in names if name.endswith(".parquet") and "/" not in name)


def commit(output: Store, unit: str, table: pa.Table) -> bool:
    """Write the unit's part if it is absent; False when it was there. `table` has schema.part_schema()."""
    return output.put_new(f"{PARTS}/{unit}.parquet", part_bytes(table))


def part_bytes(table: pa.Table) -> bytes:
    """The table (schema.part_schema()) as a Parquet file, sealed: see `seal_holds`."""
    sink = io.BytesIO()
    # Images are compressed already: zstd would spend time on them for nothing. The rest is small text.
    squeezed = [name for name in table.schema.names if name != "image"]
    compression = dict.fromkeys(_leaves(table.schema, squeezed), "zstd")
    compression |= dict.fromkeys(_leaves(table.schema, ["image"]), "none")
    with pq.ParquetWriter(sink, table.schema, compression=compression, write_page_index=True) as writer:
        writer.write_table(table, row_group_size=256)
        writer.add_key_value_metadata({_SEAL: _BLANK})
    return _sealed(sink.getvalue())


_SEAL, _BLANK = "cleanplate.sha256", "0" * 64


def _sealed(data: bytes) -> bytes:
    """The file with its own sha256 in its footer, taken while that place held zeros: Parquet's page checksums
    leave page headers, indexes and the footer without any."""
    at = data.rindex(_BLANK.encode())
    return data[:at] + hashlib.sha256(data).hexdigest().encode() + data[at + len(_BLANK) :]


def seal_holds(data: bytes) -> bool:
    """True when every byte of a part is as `part_bytes` made it."""
    seal = (pq.ParquetFile(pa.BufferReader(data)).metadata.metadata or {}).get(_SEAL.encode(), b"")
    at = data.rfind(seal)
    blank = data[:at] + _BLANK.encode() + data[at + len(_BLANK) :]
    return len(seal) == len(_BLANK) and hashlib.sha256(blank).hexdigest().encode() == seal


def _leaves(whole: pa.Schema, names: list[str]) -> list[str]:
    """Parquet's dotted paths of the leaf columns below `names`."""
    empty = io.BytesIO()
    pq.write_table(whole.empty_table().select(names), empty)
    leaves = pq.ParquetFile(empty).schema
    return [leaves.column(i).path for i in range(len(leaves))]


def read_part(output: Store, name: str, columns: list[str] | None = None) -> pa.Table:
    return pq.read_table(pa.BufferReader(output.get(f"{PARTS}/{name}")), columns=columns)


def open_part(output: Store, name: str) -> pq.ParquetFile:
    """A part whose columns and row groups are fetched only as they are read."""
    return pq.ParquetFile(plan._RangeFile(output, f"{PARTS}/{name}"), pre_buffer=True)


def rows(output: Store, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Every committed row, newest attempt only, a part at a time."""
    newest = _retried(output)
    for name in part_keys(output):
        wanted = None if columns is None else list(dict.fromkeys([*columns, "image_id", "attempt"]))
        table = read_part(output, name, wanted)
        if newest:
            pairs = zip(table["image_id"].to_pylist(), table["attempt"].to_pylist(), strict=True)
            table = table.filter(pa.array([attempt >= newest.get(image, 1) for image, attempt in pairs]))
        yield table if columns is None else table.select(columns)


def _retried(output: Store) -> dict[str, int]:
    """image_id -> newest committed attempt, for the few rows that were tried again."""
    newest: dict[str, int] = {}
    again = {unit.name for g in plan.generations(output) for unit in plan.read_index(output, g) if g}
    for name in part_keys(output):
        if name.removesuffix(".parquet") in again:
            table = read_part(output, name, ["image_id", "attempt"])
            for image, attempt in zip(*(table[c].to_pylist() for c in ("image_id", "attempt")), strict=True):
                if attempt > 1:
                    newest[image] = max(attempt, newest.get(image, 1))
    return newest


def unseen(output: Store, planned: Iterable[plan.Planned]) -> Iterator[plan.Planned]:
    """The rows that no generation of the plan holds. Ids are held as 16 bytes each: 160 MB for ten million."""
    ids = [
        np.array([bytes.fromhex(i[:32]) + b"." for i in table["image_id"].to_pylist()], dtype="S17")
        for generation in plan.generations(output)
        for table in plan.read_rows(output, generation)
    ]
    known = np.sort(np.concatenate(ids)) if ids else np.array([], dtype="S17")
    for row in planned:
        name = np.bytes_(bytes.fromhex(row.image_id[:32]) + b".")
        at = int(np.searchsorted(known, name))
        if at >= len(known) or known[at] != name:
            yield row


def failed(output: Store) -> Iterator[plan.Planned]:
    """The rows whose newest attempt failed, planned for one more; what a review asked for holds on."""
    from pipeline.storage import Object

    names = ["image_id", "source_uri", "source_version", "source_bytes", "attempt", "status"]
    reviews = plan.reviews(output)
    for table in rows(output, names):
        for row in table.to_pylist():
            if row["status"] == "failed":
                item = Object("", row["source_bytes"], row["source_version"])
                review = reviews.get(row["image_id"])
                yield plan.Planned(row["source_uri"], item, row["attempt"] + 1, review)


@dataclass
class Tally:
    """Counts over committed rows."""

    rows: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    causes: dict[str, int] = field(default_factory=dict)

    def add(self, rows: int, statuses: dict[str, int], causes: dict[str, int]) -> None:
        self.rows += rows
        for mine, theirs in ((self.statuses, statuses), (self.causes, causes)):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count


def tally(output: Store) -> Tally:
    """Count what is committed, newest attempts only."""
    total = Tally()
    for table in rows(output, ["status", "error"]):
        total.add(*counts(table))
    return total


def counts(table: pa.Table) -> tuple[int, dict[str, int], dict[str, int]]:
    """rows, rows by status, and rows by "stage/kind" of their error."""
    statuses: dict[str, int] = {}
    causes: dict[str, int] = {}
    for row in table.select(["status", "error"]).to_pylist():
        statuses[row["status"]] = statuses.get(row["status"], 0) + 1
        if row["error"]:
            cause = f"{row['error']['stage']}/{row['error']['kind']}"
            causes[cause] = causes.get(cause, 0) + 1
    return table.num_rows, statuses, causes


# --- the run's own record ---


def claim(output: Store, record: dict[str, Any]) -> dict[str, Any]:
    """Say that this output belongs to a run, or join the run that it belongs to.

    record: what identifies the run ("recipe_digest", "source") and what is good to know of it. Returns the
    stored record. Raises ConfigError when the output holds another recipe's or another source's run.
    """
    if output.put_new(RUN_FILE, json.dumps(record, indent=1, sort_keys=True).encode()):
        return record
    stored = read_record(output)
    for name, what in (("recipe_digest", "another recipe"), ("source", "another source")):
        if stored.get(name) != record[name]:
            raise ConfigError(
                f"{output.url} holds a run of {what} ({stored.get(name)}, not {record[name]}); "
                "choose another output, or say --new-run to give this one a folder of its own"
            )
    return stored


def read_record(output: Store) -> dict[str, Any]:
    """The record of the run in this output. Raises StorageError "missing" when there is none."""
    stored = json.loads(output.get(RUN_FILE))
    return dict(stored)


def check_part(table: pa.Table) -> None:
    """Raise ContractError unless the table is fit to be a part."""
    from pipeline.errors import ContractError

    if not table.schema.equals(schema.part_schema()):
        raise ContractError(
            f"a part must have the columns {schema.part_schema().names}, got {table.schema.names}"
        )
    wrong = {s for s in table["status"].to_pylist() if s not in schema.STATUSES}
    if wrong:
        raise ContractError(f"unknown status: {sorted(map(str, wrong))}")
