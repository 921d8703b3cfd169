"""What a run's parts say, counted without opening a picture.

Every part is read once, only its light columns and only their bytes (ranges of the object), and folded into
`Facts`. Memory holds counts, the few riskiest rows and a capped list of names; it does not grow with the
pictures, and hardly with the rows.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cleanplate.pipeline import schema
from cleanplate.pipeline.errors import DamagedError, StorageError
from cleanplate.pipeline.ledger import compactions, ledger
from cleanplate.pipeline.ledger.compactions import Held
from cleanplate.pipeline.ledger.facts import (
    COVERAGE_EDGES,
    INDEX_ROWS,
    Cause,
    Facts,
    Ints,
    Kind,
    Left,
    Named,
    Pick,
)
from cleanplate.pipeline.storage.address import inner_of, key_of
from cleanplate.pipeline.storage.connect import Store

_AT_ONCE = 16

_LIGHT = [
    *("image_id", "source_uri", "status", "attempt", "run_id", "code_version", "inpainter"),
    *("mask_coverage", "timings_ms", "error"),
    *(
        f"{column}.list.element.{leaf}"
        for column in ("regions", "residual")
        for leaf in ("kind", "detector", "score")
    ),
]

Floats = npt.NDArray[np.float64]


def gather(output: Store, below: str, sample: int, seed: int) -> Facts:
    """Read the light columns of every part. below: the uri of the source's root, cut off from names.

    sample: how many picks of each risk to keep. seed: decides the random ones, whatever the order of parts.
    """
    facts = Facts()
    newest = ledger.retried(output)
    with ThreadPoolExecutor(4, "report") as pool:
        names, inside = ledger.part_keys(output), compactions.by_part(compactions.held(output).values())
        for start in range(0, len(names), _AT_ONCE):
            some = names[start : start + _AT_ONCE]
            for name, read in zip(some, pool.map(lambda n: _read_light(output, n), some), strict=True):
                if isinstance(read, str):
                    facts.unreadable.append(read)
                else:
                    _fold(facts, _Part(name, read, newest, inside.get(name, ())), below, sample, seed)
    return facts


def name_of(uri: str, below: str) -> str:
    """The path below the source, as a person reads it; percent-quoted bytes that are no UTF-8 show as "?" marks."""
    if inner_of(uri):
        return key_of(uri, below).encode(errors="replace").decode()
    name = uri.removeprefix(below).lstrip("/") if uri.startswith(below) else uri
    return unquote(name, errors="replace") if uri.startswith("file://") else name


# --- one part ---


class _Part:
    """The newest rows of a part, with the numbers that several counts need."""

    def __init__(self, name: str, table: pa.Table, newest: dict[str, int], units: Sequence[Held]) -> None:
        self.name = name
        runs = table["run_id"].to_pylist()
        self.committed = [(str(run_id), name, rows) for run_id, rows in Counter(runs).items()]
        """(run_id, part, rows), those of older attempts too; of a large part, for the part that each unit had."""
        if units:
            self.committed = [(str(runs[u.first]), f"{u.unit}.parquet", u.rows) for u in units]
        self.at: Ints = np.arange(table.num_rows)
        if newest:
            pairs = zip(table["image_id"].to_pylist(), table["attempt"].to_pylist(), strict=True)
            keep = np.array([attempt >= newest.get(image, 1) for image, attempt in pairs], bool)
            self.at, table = self.at[keep], table.filter(pa.array(keep))
        self.table = table.combine_chunks()
        self.found, self.left = (_finds(self.table[column]) for column in ("regions", "residual"))
        self.score = _by_row(self.found, "min", self.table.num_rows)
        self.left_score = _by_row(self.left, "max", self.table.num_rows)
        self.coverage = _numbers(self.table["mask_coverage"])


def _read_light(output: Store, name: str) -> pa.Table | str:
    """The light columns of a part, or the reason why not."""
    try:
        with ledger.open_part(output, name) as file:
            return file.read(_LIGHT, use_threads=False)
    except (DamagedError, StorageError) as error:
        return str(error)


def _finds(column: pa.ChunkedArray) -> pa.Table:
    """A list column of finds as a table with one line per find: row, kind, detector, score."""
    lists = column.combine_chunks()
    flat = pc.list_flatten(lists)
    columns = {name: pc.struct_field(flat, name) for name in ("kind", "detector", "score")}
    return pa.table({"row": pc.list_parent_indices(lists), **columns})


def _by_row(finds: pa.Table, how: str, rows: int) -> Floats:
    """The lowest or highest score of each row's finds; NaN for a row without."""
    out = np.full(rows, np.nan)
    grouped = finds.group_by("row").aggregate([("score", how)])
    out[grouped["row"].to_numpy()] = _numbers(grouped[f"score_{how}"])
    return out


def _numbers(column: pa.ChunkedArray) -> Floats:
    """float64, NaN for null."""
    out: Floats = column.cast(pa.float64()).to_numpy()
    return out


def _fold(facts: Facts, part: _Part, below: str, sample: int, seed: int) -> None:
    table = part.table
    facts.rows += table.num_rows
    counters = (facts.statuses, "status"), (facts.inpainters, "inpainter"), (facts.versions, "code_version")
    for counter, column in counters:
        for item in pc.value_counts(table[column].drop_null()).to_pylist():
            counter[item["values"]] += item["counts"]
    facts.committed += part.committed
    for stage in schema.STAGES:
        facts.stage_ms[stage] += pc.sum(pc.struct_field(table["timings_ms"], stage)).as_py() or 0.0
    facts.coverage += _histogram(part.coverage)
    _fold_finds(facts, part)
    _fold_causes(facts, table, below)
    _fold_risks(facts.risks, part, sample, seed)
    _fold_names(facts, part, below)


def _histogram(coverage: Floats) -> Ints:
    """How many masked rows fall in each bin of COVERAGE_EDGES."""
    masked = coverage[coverage > 0]
    bins = np.clip(np.searchsorted(COVERAGE_EDGES, masked, side="left") - 1, 0, len(COVERAGE_EDGES) - 2)
    return np.bincount(bins, minlength=len(COVERAGE_EDGES) - 1)


def _fold_finds(facts: Facts, part: _Part) -> None:
    counts = [("row", "count_distinct"), ("row", "count")]
    for row in part.found.group_by("kind").aggregate(counts).to_pylist():
        kind = facts.kinds.setdefault(str(row["kind"]), Kind())
        kind.images += row["row_count_distinct"]
        kind.finds += row["row_count"]
    for row in part.left.group_by("kind").aggregate(counts).to_pylist():
        kind = facts.kinds.setdefault(str(row["kind"]), Kind())
        kind.left_images += row["row_count_distinct"]
        kind.left_finds += row["row_count"]
    for row in part.left.group_by(["kind", "detector"]).aggregate([*counts, ("score", "max")]).to_pylist():
        left = facts.left.setdefault((str(row["kind"]), str(row["detector"])), Left())
        left.images += row["row_count_distinct"]
        left.finds += row["row_count"]
        left.highest = max(left.highest, row["score_max"] or 0.0)


def _fold_causes(facts: Facts, table: pa.Table, below: str) -> None:
    rows = table.select(["status", "source_uri", "error"]).filter(pc.is_valid(table["error"]))
    if not rows.num_rows:
        return
    error = rows["error"]
    flat = pa.table(
        {
            "status": rows["status"],
            "uri": rows["source_uri"],
            **{name: pc.struct_field(error, name) for name in ("stage", "kind", "message")},
        }
    )
    first = [("uri", "first"), ("message", "first"), ([], "count_all")]
    for row in flat.group_by(["status", "stage", "kind"], use_threads=False).aggregate(first).to_pylist():
        key = str(row["status"]), str(row["stage"]), str(row["kind"])
        example = str(row["message_first"] or ""), name_of(str(row["uri_first"] or ""), below)
        facts.causes.setdefault(key, Cause(0, *example)).images += row["count_all"]


def _fold_risks(risks: dict[str, list[Pick]], part: _Part, sample: int, seed: int) -> None:
    ids = part.table["image_id"].to_pylist()
    is_left = np.asarray(pc.fill_null(pc.equal(part.table["status"], "residual"), False))
    keys = {
        "residual": np.where(is_left, -np.nan_to_num(part.left_score), np.nan),
        "low score": np.where(is_left, np.nan, part.score),
        "large mask": np.where(part.coverage > 0, -part.coverage, np.nan),
        "random": np.array([_dice(name, seed) for name in ids], np.float64),
    }
    for risk, key in keys.items():
        some = np.flatnonzero(~np.isnan(key))
        if len(some) > sample:
            some = some[np.argpartition(key[some], sample)[: sample + 1]]
        new = [Pick(float(key[i]), str(ids[i]), part.name, int(part.at[i])) for i in some]
        risks[risk] = heapq.nsmallest(sample, [*risks[risk], *new])


def _dice(image_id: Any, seed: int) -> float:
    """A number in 0..1 that depends on the row and the seed only."""
    digest = hashlib.blake2b(f"{seed}/{image_id}".encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def _fold_names(facts: Facts, part: _Part, below: str) -> None:
    if len(facts.troubled) >= INDEX_ROWS:
        return
    for row in _named(part, below):
        if row.status in ("residual", "failed", "skipped"):
            facts.troubled.append(row)
        elif len(facts.sound) < INDEX_ROWS:
            facts.sound.append(row)


def _named(part: _Part, below: str) -> Iterator[Named]:
    texts = part.table.select(["image_id", "source_uri", "status", "error"]).to_pydict()
    numbers = part.score.tolist(), part.coverage.tolist()
    for image_id, uri, status, error, score, share in zip(*texts.values(), *numbers, strict=True):
        cause = f"{error['stage']}/{error['kind']}" if error else None
        score, share = (None if value != value else round(value, 4) for value in (score, share))
        yield Named(str(image_id), name_of(str(uri or ""), below), str(status), score, share, cause)
