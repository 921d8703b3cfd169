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
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cleanplate.pipeline import schema
from cleanplate.pipeline.errors import DamagedError, StorageError
from cleanplate.pipeline.ledger import compactions, ledger
from cleanplate.pipeline.ledger.compactions import Held
from cleanplate.pipeline.storage.address import inner_of, key_of
from cleanplate.pipeline.storage.connect import Store

COVERAGE_EDGES = (0.0, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 1.0)
"""Bins of the coverage histogram: a bin holds what is above its lower edge, up to its upper one."""

INDEX_ROWS = 100_000
"""Rows that the page can find by name or id without a picture of them: about 60 bytes each."""

RISKS = ("residual", "low score", "large mask", "random")
_QUOTAS = (0.4, 0.2, 0.2, 0.2)
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
Ints = npt.NDArray[np.int64]


class Pick(NamedTuple):
    """A row that may be shown. The smaller the key, the sooner. part, at: its place in the part's file."""

    key: float
    image_id: str
    part: str
    at: int


class Named(NamedTuple):
    """A row of the search index. score: of its least sure find."""

    image_id: str
    name: str
    status: str
    score: float | None
    coverage: float | None
    cause: str | None


@dataclass
class Kind:
    """One kind of thing: images that have it and finds, before the run and still there after it."""

    images: int = 0
    finds: int = 0
    left_images: int = 0
    left_finds: int = 0


@dataclass
class Left:
    """What one verifying detector still found of one kind."""

    images: int = 0
    finds: int = 0
    highest: float = 0.0


@dataclass
class Cause:
    """Rows that failed or were skipped for one reason, and one of them."""

    images: int
    message: str
    name: str


@dataclass
class Facts:
    """All that the page says about the rows, newest attempts only."""

    rows: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    inpainters: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, Kind] = field(default_factory=dict)
    left: dict[tuple[str, str], Left] = field(default_factory=dict)
    """(kind, detector) -> what it still found."""
    causes: dict[tuple[str, str, str], Cause] = field(default_factory=dict)
    """(status, stage, kind of error) -> its rows."""
    coverage: Ints = field(default_factory=lambda: np.zeros(len(COVERAGE_EDGES) - 1, np.int64))
    stage_ms: dict[str, float] = field(default_factory=lambda: dict.fromkeys(schema.STAGES, 0.0))
    committed: list[tuple[str, str, int]] = field(default_factory=list)
    """(run_id, part, rows), a part each."""
    risks: dict[str, list[Pick]] = field(default_factory=lambda: {risk: [] for risk in RISKS})
    troubled: list[Named] = field(default_factory=list)
    sound: list[Named] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    """Parts that could not be read, with the reason."""

    def index(self) -> list[Named]:
        """The rows that search knows: residual, failed and skipped ones first, at most INDEX_ROWS."""
        return (self.troubled + self.sound)[:INDEX_ROWS]


def gather(output: Store, below: str, sample: int, seed: int) -> Facts:
    """Read the light columns of every part. below: the uri of the source's root, cut off from names.

    sample: how many picks of each risk to keep. seed: decides the random ones, whatever the order of parts.
    """
    facts = Facts()
    newest = ledger._retried(output)
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


def chosen(facts: Facts, sample: int) -> list[tuple[Pick, str]]:
    """At most `sample` picks and the risk each stands for, riskiest first: a share for each risk, and what one
    leaves over goes to the others in turn. No row twice."""
    taken: dict[str, tuple[Pick, str]] = {}
    shares = [max(1, round(sample * share)) for share in _QUOTAS]
    for limits in (shares, [sample] * len(RISKS)):
        for risk, limit in zip(RISKS, limits, strict=True):
            for pick in facts.risks[risk]:
                if len(taken) >= sample or sum(r == risk for _, r in taken.values()) >= limit:
                    break
                taken.setdefault(pick.image_id, (pick, risk))
    return sorted(taken.values(), key=lambda item: (RISKS.index(item[1]), item[0]))


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
