"""The proof of an output: the ledger, the plan and every part, read again and believed in nothing.

A part is in memory at a time, and 20 bytes for each row (200 MB for ten million): its id and its attempt, to find
what is there twice and what is lost.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cleanplate.pipeline import schema
from cleanplate.pipeline.errors import CleanplateError, ConfigError, ContractError, DamagedError, StorageError
from cleanplate.pipeline.ledger import compactions, layouts, ledger, part_file, plan, proof_rows
from cleanplate.pipeline.ledger.checks import EXAMPLES, Proof
from cleanplate.pipeline.ledger.proof_rows import Finding, Row
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.storage.connect import Store
from cleanplate.pipeline.storage.containers import read_images
from cleanplate.pipeline.storage.parquet_file import Fetched

_ROWS_AT_ONCE = 32
_SEEN = np.dtype([("id", "S17"), ("attempt", "<i4")])


def prove(
    output: Store,
    *,
    compare: bool = True,
    source: Store | None = None,
    on_part: Callable[[int, int], None] = lambda done, parts: None,
) -> Proof:
    """Read all of a run's output again and say what is wrong with it.

    compare: read each row's source again and compare. source: also list it, and look for a row for each object;
    needs the run's own source. on_part: called after each part with parts read and parts there are.
    Raises ConfigError for another source than the run's, StorageError where a store does not answer.
    """
    record = ledger.read_record(output)
    if source is not None and source.url != record["source"]:
        raise ConfigError(f"{output.url} was made of {record['source']}, not of {source.url}")
    found = Proof()
    units = _planned(output, found)
    places = ledger.located(output)
    for name in sorted(units.keys() - places.keys()):
        found.add("planned", name, "planned, but not committed: run the same command again")
    held = compactions.held(output)
    names = sorted(set(places.values()))
    inside: dict[str, list[_Unit]] = {name: [] for name in names}
    for name, part in places.items():
        foreign = f"no plan names its unit {name}" if name in held else "a part that no plan names"
        found.add("planned", part, None if name in units else foreign)
        inside[part].append(_Unit(held[name].first if name in held else 0, units.get(name)))
    seen: list[npt.NDArray[Any]] = []
    rules = _Rules(output, record["recipe_digest"], compare)
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        for n, name in enumerate(names):
            seen.append(_part(output, name, inside[name], rules, found, threads))
            on_part(n + 1, len(names))
    rows = np.sort(np.concatenate(seen)) if seen else np.zeros(0, _SEEN)
    found.rows = len(rows)
    _unique(rows, found)
    if source is not None:
        _nothing_lost(np.unique(rows["id"]), source, Recipe.model_validate(record["recipe"]), found)
    return found


def _planned(output: Store, found: Proof) -> dict[str, plan.Unit]:
    units: dict[str, plan.Unit] = {}
    for generation in plan.generations(output):
        try:
            units |= {unit.name: unit for unit in plan.read_index(output, generation)}
        except (DamagedError, TypeError) as error:
            found.add("planned", f"plan/{generation:04d}.index.parquet", f"cannot be read: {_message(error)}")
    return units


@dataclass(frozen=True)
class _Rules:
    output: Store
    digest: str
    compare: bool


@dataclass(frozen=True)
class _Unit:
    """first: the row of its part at which a unit begins. planned: None where no plan names it."""

    first: int
    planned: plan.Unit | None


def _part(
    output: Store,
    name: str,
    units: list[_Unit],
    rules: _Rules,
    found: Proof,
    threads: ThreadPoolExecutor,
) -> npt.NDArray[Any]:
    """Look at one part; returns its rows' ids and attempts, none where it cannot be read."""
    nothing = np.zeros(0, _SEEN)
    try:
        data = output.get(ledger.part_key(name))
        part = _opened(data)
        table = part.read()
    except (pa.ArrowException, OSError, ValueError, KeyError, StorageError) as error:
        _pass_on(error)
        found.add("readable", name, _message(error))
        return nothing
    found.add("readable", name, None)
    found.add(
        "sealed", name, None if part_file.seal_holds(data, part.metadata) else "changed after it was written"
    )
    version, written = schema.version_of(table.schema), table.schema
    table = schema.as_now(table)
    found.add("schema", name, _difference(written) if table is None else None)
    if table is None:
        return nothing
    _units(output, name, units, table, found)
    for at in range(0, table.num_rows, _ROWS_AT_ONCE):
        rows = table.slice(at, _ROWS_AT_ONCE).to_pylist()
        sources = _sources(rows) if rules.compare else [None] * len(rows)
        looked = threads.map(partial(_row, rules=rules, version=version), rows, sources)
        for row, findings in zip(rows, looked, strict=True):
            for check, wrong in findings:
                found.add(check, f"{name} {row['source_uri'] or row['image_id']}", wrong)
    return seen_of(table["image_id"].to_pylist(), table["attempt"].to_pylist())


def _units(output: Store, name: str, units: list[_Unit], table: pa.Table, found: Proof) -> None:
    """Each unit from its first row to the next unit's, the last one to the part's end."""
    units = sorted(units, key=lambda unit: unit.first)
    ends = [*(unit.first for unit in units[1:]), table.num_rows]
    for unit, end in zip(units, ends, strict=True):
        if unit.planned is not None:
            rows = table.slice(unit.first, max(0, end - unit.first))
            found.add("rows", name, _as_planned(output, unit.planned, rows))


def _opened(data: bytes) -> pq.ParquetFile:
    if not data.startswith(b"PAR1"):  # Arrow looks at the end of a file only.
        raise pa.ArrowInvalid("not a Parquet file: it does not begin as one")
    return pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)


def _sources(rows: list[Row]) -> list[Fetched | None]:
    """What is read again of each row's source; None where nothing was read at first either."""
    wanted = [n for n, row in enumerate(rows) if row["source_sha256"] is not None and row["source_uri"]]
    found: list[Fetched | None] = [None] * len(rows)
    for n, source in zip(wanted, read_images([rows[n]["source_uri"] for n in wanted]), strict=True):
        found[n] = source
    return found


def _row(row: Row, source: Fetched | None, rules: _Rules, version: str) -> list[Finding]:
    """A row that makes a check raise is not a row that a reader can use: that is a finding too."""
    findings: list[Finding] = []
    if row["image"] is not None and (row["image"]["bytes"] is not None or row["image"]["path"]):
        try:
            row = layouts.with_bytes(rules.output, row)
            findings.append(("image there", None))
        except StorageError as error:
            _pass_on(error)
            return [("image there", _message(error))]
    findings += proof_rows.of_row(row, rules.digest)
    if isinstance(source, CleanplateError):
        return [*findings, ("source there", _message(source))]
    if source is not None:
        findings += [("source there", None), *proof_rows.against_source(row, source, version)]
    return findings


def _as_planned(output: Store, unit: plan.Unit, table: pa.Table) -> str | None:
    try:
        planned = plan.read_unit(output, unit)
    except (DamagedError, StorageError, ContractError) as error:
        _pass_on(error)
        return f"the plan of this unit cannot be read: {_message(error)}"
    want, have = (
        sorted(zip(*(t[c].to_pylist() for c in schema.PLAN.names), strict=True), key=repr)
        for t in (planned, table)
    )
    if want == have:
        return None
    lost, extra = len(set(want) - set(have)), len(set(have) - set(want))
    return f"{len(have)} rows for {len(want)} planned; {lost} are missing, {extra} are others'"


def seen_of(ids: Iterable[str], attempts: Iterable[int]) -> npt.NDArray[Any]:
    """The first 16 bytes of each id and its attempt; the "." keeps numpy from dropping a closing zero byte."""
    return np.array([(_short(i), a or 0) for i, a in zip(ids, attempts, strict=True)], dtype=_SEEN)


def _short(image_id: str | None) -> bytes:
    try:
        return bytes.fromhex((image_id or "")[:32]) + b"."
    except ValueError:
        return b"?"  # No id: the check "identity" reports it.


def _unique(rows: npt.NDArray[Any], found: Proof) -> None:
    twice = rows[1:][rows[1:] == rows[:-1]]
    check = found.checks["unique"]
    check.looked, check.wrong = len(rows), len(twice)
    check.examples = [f"image_id {r['id'][:16].hex()}..., attempt {r['attempt']}" for r in twice[:EXAMPLES]]


def _nothing_lost(known: npt.NDArray[Any], source: Store, recipe: Recipe, found: Proof) -> None:
    for row in plan.listed(source, recipe):
        name = np.bytes_(_short(row.image_id))
        at = int(np.searchsorted(known, name))
        there = at < len(known) and known[at] == name
        found.add("nothing lost", row.uri, None if there else f"version {row.object.version} has no row")


def _difference(got: pa.Schema) -> str:
    want = schema.part_schema(carried=schema.carried_of(got))
    lost = [n for n in want.names if n not in got.names]
    extra = [n for n in got.names if n not in want.names]
    typed = [n for n in want.names if n in got.names and not want.field(n).equals(got.field(n))]
    return f"columns missing {lost}, unknown {extra}, of another type {typed}"


def _pass_on(error: BaseException) -> None:
    """A store that does not answer is no finding about the output."""
    if isinstance(error, StorageError) and error.kind == "unreachable":
        raise error


def _message(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def readable(source: Store) -> bool:
    """Can this source be listed at all? (An output outlives its source, and travels without it.)"""
    try:
        first: Iterator[object] = iter(source.list())
        return next(first, None) is not None
    except StorageError:
        return False
