"""The ledger: what is committed. A part that neither the listing of `parts/` nor a compaction shows does not exist.

A unit is committed by one conditional put of `parts/<unit>.parquet`. "It exists" means that an earlier or a
parallel attempt at the same unit won, which is as good: the unit's name is a digest of its rows and recipe.
So a retry, a doubled worker, a zombie that wakes up late and two jobs at once do no harm.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cleanplate.pipeline import schema
from cleanplate.pipeline.errors import ConfigError, StorageError
from cleanplate.pipeline.ledger import compactions, part_file, plan
from cleanplate.pipeline.recipe.recipe import Recipe, differences
from cleanplate.pipeline.storage.connect import Store
from cleanplate.pipeline.storage.range_file import RangeFile

PARTS = "parts"
RUN_FILE = "run.json"


def done(output: Store) -> set[str]:
    """The names of the committed units: what is listed, nothing else is believed."""
    return set(located(output))


def located(output: Store) -> dict[str, str]:
    """unit -> the name of the part that holds it, for every committed unit. What a compaction holds is read there,
    whatever `parts/` still lists (or lists again: a writer that woke up late)."""
    # In this order: a unit whose part is swept between the two is in the index, which came before.
    listed = [item.key.removeprefix(f"{PARTS}/") for item in output.list(PARTS)]
    names = {n.removesuffix(".parquet"): n for n in listed if n.endswith(".parquet") and "/" not in n}
    return names | {unit: place.part for unit, place in compactions.held(output).items()}


def part_keys(output: Store) -> list[str]:
    """The names of the parts that count, sorted: file names below `parts/`, and the keys of compacted ones."""
    return sorted(set(located(output).values()))


def part_key(name: str) -> str:
    """The key below the output of a part as `part_keys` names it."""
    return name if "/" in name else f"{PARTS}/{name}"


def has(output: Store, unit: str) -> bool:
    """Is the unit committed?"""
    return has_key(output, f"{PARTS}/{unit}.parquet") or unit in compactions.held(output)


def has_key(output: Store, key: str) -> bool:
    try:
        return output.stat(key).size > 0
    except StorageError as error:
        if error.kind == "missing":
            return False
        raise


def commit(output: Store, unit: str, table: pa.Table) -> bool:
    """Write the unit's part if it is absent; False when it was there. `table` has schema.part_schema()."""
    return output.put_new(f"{PARTS}/{unit}.parquet", part_file.part_bytes(table))


def read_part(output: Store, name: str, columns: list[str] | None = None) -> pa.Table:
    """A part, or some columns of it, of which only these are fetched. name: as `part_keys` gives it. Raises
    DamagedError."""
    key = part_key(name)
    with part_file.reading(output, key):
        file = pa.BufferReader(output.get(key)) if columns is None else RangeFile(output, key)
        with part_file.opened(file) as part:
            return part.read(columns)


@contextmanager
def open_part(output: Store, name: str) -> Iterator[pq.ParquetFile]:
    """A part whose columns and row groups are fetched only as they are read. Raises DamagedError, also at a read in the
    `with`."""
    key = part_key(name)
    with (
        part_file.reading(output, key),
        part_file.opened(RangeFile(output, key), pre_buffer=True) as file,
    ):
        yield file


def rows(output: Store, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Every committed row, newest attempt only, a part at a time. Some parts are read ahead: whole ones are
    large, and of a few columns the waiting is the work."""
    newest = retried(output)
    wanted = None if columns is None else list(dict.fromkeys([*columns, "image_id", "attempt"]))
    names = part_keys(output)
    for table in _ahead(lambda name: read_part(output, name, wanted), names, 2 if columns is None else 16):
        if newest:
            pairs = zip(table["image_id"].to_pylist(), table["attempt"].to_pylist(), strict=True)
            table = table.filter(pa.array([attempt >= newest.get(image, 1) for image, attempt in pairs]))
        yield table if columns is None else table.select(columns)


def _ahead(read: Callable[[str], pa.Table], names: list[str], width: int) -> Iterator[pa.Table]:
    """read(name) for each name, in order, `width` of them at a time."""
    with ThreadPoolExecutor(width) as threads:
        waiting: deque[Future[pa.Table]] = deque()
        try:
            for name in names:
                waiting.append(threads.submit(read, name))
                if len(waiting) >= width:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # Whoever reads stopped early, or a part cannot be read.
            for future in waiting:
                future.cancel()


def retried(output: Store) -> dict[str, int]:
    """image_id -> newest committed attempt, for the few rows that were tried again."""
    newest: dict[str, int] = {}
    again = {unit.name for g in plan.generations(output) if g for unit in plan.read_index(output, g)}
    places = located(output) if again else {}
    names = sorted({name for unit, name in places.items() if unit in again})
    for table in _ahead(lambda name: read_part(output, name, ["image_id", "attempt"]), names, 16):
        for image, attempt in zip(*(table[c].to_pylist() for c in ("image_id", "attempt")), strict=True):
            if attempt > 1:
                newest[image] = max(attempt, newest.get(image, 1))
    return newest


def unseen(output: Store, planned: Iterable[plan.Planned]) -> Iterator[plan.Planned]:
    """The rows that no generation of the plan holds."""
    known = plan.known(output)
    rest = iter(planned)
    while some := list(itertools.islice(rest, 8192)):
        held = known.holds([row.image_id for row in some])
        yield from (row for row, seen in zip(some, held.tolist(), strict=True) if not seen)


def failed(output: Store) -> Iterator[plan.Planned]:
    """The rows whose newest attempt failed, planned for one more; what a review asked for holds on. Not those whose
    source was replaced: that version is gone, and the plan has the new one."""
    from cleanplate.pipeline.storage.connect import Object

    names = ["image_id", "source_uri", "source_version", "source_bytes", "attempt", "status", "error"]
    reviews = plan.reviews(output)
    for table in rows(output, names):
        for row in table.filter(pc.equal(table["status"], "failed")).to_pylist():
            if row["error"]["kind"] == "replaced":
                continue
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
    statuses = Counter(table["status"].to_pylist())
    errors = table["error"].filter(pc.is_valid(table["error"])).to_pylist()
    causes = Counter(f"{error['stage']}/{error['kind']}" for error in errors)
    return table.num_rows, dict(statuses), dict(causes)


# --- the run's own record ---


def claim(output: Store, record: dict[str, Any]) -> dict[str, Any]:
    """Say that this output belongs to a run, or join the run that it belongs to.

    record: what identifies the run ("recipe_digest", "source"), the version of its rows ("parts"), and what is good to
    know of it. Returns the stored record. Raises ConfigError when the output holds another recipe's or another
    source's run, or rows of another version.
    """
    body = json.dumps(record, indent=1, sort_keys=True).encode()
    if output.put_new(RUN_FILE, body):
        if output.put_new(RUN_FILE, body):
            output.delete(RUN_FILE)
            raise ConfigError(
                f"{output.url} ignores conditional puts: two attempts could both win, and rows be doubled. "
                "Use a server that has them"
            )
        return record
    stored = read_record(output)
    if (version := str(stored.get("parts", "part/1"))) not in schema.VERSIONS:
        raise ConfigError(
            f"{output.url} was begun by cleanplate {stored.get('code_version')}, whose rows have columns that this "
            f"version does not know ({version}, here {record['parts']}); use that version, or choose another output"
        )
    for name, what in (("recipe_digest", "another recipe"), ("source", "another source")):
        same = (
            is_of_recipe(stored, record[name])
            if name == "recipe_digest"
            else stored.get(name) == record[name]
        )
        if not same:
            raise ConfigError(
                f"{output.url} holds a run of {what} ({_differing(stored, record, name)}); "
                "choose another output, or give this one a folder of its own there: --new-run"
            )
    return stored


def is_of_recipe(stored: Mapping[str, Any], digest: str) -> bool:
    """Whether a run's record is of the recipe with this digest.

    A record of an earlier version has another digest where the recipe has got keys since. Its recipe is therefore
    read by this version, in which such keys have their defaults, and digested again.
    """
    if stored.get("recipe_digest") == digest:
        return True
    try:
        recipe = Recipe.model_validate(stored.get("recipe") or {})
    except ValueError:  # A key that this version does not have, or a value that it refuses.
        return False
    return recipe.digest(dict(stored.get("weights") or {})) == digest


def _differing(stored: Mapping[str, Any], record: Mapping[str, Any], name: str) -> str:
    """In what two runs differ: the keys of their recipes and their weights, where the records tell."""
    if name != "recipe_digest":
        return f"{stored.get(name)}, not {record[name]}"
    changed = differences(stored.get("recipe") or {}, record.get("recipe") or {})
    changed = changed or differences(stored.get("weights") or {}, record.get("weights") or {}, "weights.")
    rest = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
    return f"{', '.join(changed[:5])}{rest}" if changed else f"{stored.get(name)}, not {record[name]}"


def read_record(output: Store) -> dict[str, Any]:
    """The record of the run in this output. Raises StorageError "missing" when there is none, DamagedError."""
    with part_file.reading(output, RUN_FILE, part_file.FROM_A_COPY):
        return dict(json.loads(output.get(RUN_FILE)))


def check_part(table: pa.Table) -> None:
    """Raise ContractError unless the table is fit to be a part."""
    from cleanplate.pipeline.errors import ContractError

    if not table.schema.equals(schema.part_schema(carried=schema.carried_of(table.schema))):
        raise ContractError(
            f"a part must have the columns {schema.part_schema().names}, got {table.schema.names}"
        )
    wrong = {s for s in table["status"].to_pylist() if s not in schema.STATUSES}
    if wrong:
        raise ContractError(f"unknown status: {sorted(map(str, wrong))}")
