"""The plan: list the source once, cut it once into units, and store that as an artefact of the run.

Here is what a plan is and how it is read; pipeline/ledger/cut.py makes one.

    plan/0000.index.parquet         one row per unit: name, file, row group, rows, bytes. Written last and only
                                    if absent: it *is* the plan, and a plan that exists is never cut again
    plan/0000-<digest>-00012.parquet  the units' rows, one row group a unit, so that a worker reads only its own

Later sources' new images get a further generation (0001, ...), as do rows that are tried again and rows that a
review asks for.
"""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cleanplate.pipeline import schema
from cleanplate.pipeline.errors import ConfigError, ContractError
from cleanplate.pipeline.ledger import part_file
from cleanplate.pipeline.ledger.id_set import Ids
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.recipe.run_sections import Web
from cleanplate.pipeline.storage import columns, containers
from cleanplate.pipeline.storage.address import identity_of, inner_of, key_of
from cleanplate.pipeline.storage.columns import Carried
from cleanplate.pipeline.storage.connect import Object, Store
from cleanplate.pipeline.storage.containers import Listing
from cleanplate.pipeline.storage.range_file import RangeFile
from cleanplate.pipeline.storage.web import Manners


@dataclass(frozen=True)
class Unit:
    """A fixed group of rows: the grain of work, of resume and of commit. `name` names its part."""

    name: str
    file: str
    row_group: int
    rows: int
    bytes: int


@dataclass(frozen=True)
class Planned:
    """One row to plan: what the listing holds, and which attempt at it this is."""

    uri: str
    object: Object
    attempt: int = 1
    review: dict[str, Any] | None = None
    """schema.REVIEW, where a person asked for this attempt."""

    @property
    def image_id(self) -> str:
        return image_id(self.uri, self.object.version)


def image_id(uri: str, version: str) -> str:
    """The row's identity: sha256 over uri (see `identity_of`) and version. Never a rank, a counter or a block."""
    return hashlib.sha256(f"{identity_of(uri)}\n{version}".encode()).hexdigest()


def listed(
    source: Store, recipe: Recipe, limit: int | None = None, listing: Listing | None = None
) -> Iterator[Planned]:
    """Every image of the source's objects that the recipe's globs choose; the first `limit` of the listing.

    listing: of sources of containers, what to pass over, and what was passed over (see `containers.Listing`).
    """
    items: Iterator[Object] = (
        item for item in source.list() if chosen(item.key, recipe.include, recipe.exclude)
    )
    listing = listing or Listing()
    web = recipe.source.web
    if web.etags:
        listing.ask = manners_of(web)
    if recipe.source.format == "list":
        items = iter(())  # The entries are what is chosen from.
    listing.carried = frozenset(columns.members_of(columns.unpacked(recipe.source.carried)))
    found = containers.images_of(source, items, recipe.source.format, recipe.source.image_column, listing)
    if recipe.source.format == "list":
        found = (one for one in found if chosen(key_of(one[0], ""), recipe.include, recipe.exclude))
    for uri, item in itertools.islice(found, limit):
        yield Planned(uri, item)


def manners_of(web: Web) -> Manners:
    """How a run asks hosts of the web."""
    return Manners(web.per_host, web.rate, web.timeout, agent=web.agent, heed=not web.ignore_opt_out)


def none_under(source: Store, listing: Listing) -> str:
    """The message where nothing was listed. listing: of that listing."""
    others = sum(listing.left_out.values())
    beside = f" ({others:,} other file{'s' * (others != 1)} left out)" if others else ""
    return (
        f"no images under {source.url}{beside}: correct the place, or what include and exclude choose; "
        "--allow-empty takes an empty source for complete"
    )


def carried(source: Store, recipe: Recipe) -> Carried:
    """The columns that a run over this source carries: of the first table that is listed; where the listing begins with
    a tar, of the samples of the first pictures. Raises ConfigError."""
    rule = recipe.source.columns
    if rule == "none":
        return Carried(pa.schema([]))
    looked = Listing()
    for row in listed(source, recipe, _LOOKED_AT, looked):
        inner = inner_of(row.uri)
        if inner is not None and inner.row >= 0 and not looked.beside:
            whole = columns.schema_of(inner)
            ours = b"cleanplate" in (whole.metadata or {})
            own = schema.carried_of(whole).names if ours else None
            asked, ours_too = None if rule == "all" else rule, schema.COLUMNS.keys()
            return columns.of_table(row.uri, asked, ours_too, own, recipe.source.image_column)
    asked = None if rule == "all" else rule
    if asked and not looked.beside:
        raise ConfigError(
            f"columns: {source.url} has no Parquet or Arrow file, and no tar with samples, among its first "
            f"{_LOOKED_AT:,} images"
        )
    pictures = [name for name in looked.beside if containers.is_picture(name)]
    if recipe.output.layout == "webdataset" and (wrong := [name for name in asked or () if name in pictures]):
        raise ConfigError(
            f"columns: {', '.join(wrong)} would stand beside the cleaned picture as it is, under a picture's name, in "
            "every tar: leave it out, or use another --output-layout"
        )
    return columns.of_samples(looked.beside, asked, schema.COLUMNS.keys(), pictures)


def with_carried(recipe: Recipe, packed: str | None) -> Recipe:
    """The recipe of a run that carries these columns (`columns.packed`)."""
    return recipe.model_copy(update={"source": recipe.source.model_copy(update={"carried": packed})})


_LOOKED_AT = 1000


def chosen(key: str, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    """True when a glob of `include` and none of `exclude` matches the key. "*" crosses folders too."""
    return bool(_any_of(include).match(key)) and not _any_of(exclude).match(key)


@lru_cache(maxsize=16)
def _any_of(globs: tuple[str, ...]) -> re.Pattern[str]:
    """One pattern for all; "**/x" also means an x at the top. No glob: what matches nothing."""
    each = [g for glob in globs for g in (glob, glob.removeprefix("**/"))]
    return re.compile("|".join(fnmatch.translate(g) for g in each) or r"(?!)")


CONTAINERS = b"cleanplate.containers"
INDEX = pa.schema(
    [
        ("name", pa.string()),
        ("file", pa.string()),
        ("row_group", pa.int32()),
        ("rows", pa.int32()),
        ("bytes", pa.int64()),
    ]
)


def generations(output: Store) -> list[int]:
    """The generations of the plan that exist, oldest first."""
    suffix = ".index.parquet"
    keys = (item.key.rpartition("/")[2] for item in output.list("plan"))
    return sorted(int(key.removesuffix(suffix)) for key in keys if key.endswith(suffix))


def read_index(output: Store, generation: int) -> list[Unit]:
    return [Unit(**row) for row in _table(output, index_key(generation)).to_pylist()]


def _table(output: Store, key: str) -> pa.Table:
    """A file of the plan. Raises DamagedError."""
    with part_file.reading(output, key, part_file.FROM_A_COPY):
        return pq.read_table(pa.BufferReader(output.get(key)))


def whole_containers(output: Store) -> frozenset[str]:
    """The containers all of whose images the plan holds, as `containers.Listing` knows them."""
    found: set[str] = set()
    for generation in generations(output):
        index = _table(output, index_key(generation)).schema
        found |= set(json.loads((index.metadata or {}).get(CONTAINERS, b"[]")))
    return frozenset(found)


def read_unit(output: Store, unit: Unit) -> pa.Table:
    """The unit's rows, as schema.START: what the first stage sees. Reads its row group only."""
    with part_file.reading(output, unit.file, part_file.FROM_A_COPY):
        table = pq.ParquetFile(RangeFile(output, unit.file)).read_row_group(unit.row_group)
    if table.num_rows != unit.rows:
        raise ContractError(
            f"{unit.file} row group {unit.row_group}: {table.num_rows} rows, planned {unit.rows}"
        )
    absent = schema.columns(*(n for n in schema.START.names if n not in table.schema.names))
    empty = {name: [None] * table.num_rows for name in absent.names}  # Old plans have no `review`.
    return schema.with_columns(table, absent, empty).select(schema.START.names).cast(schema.START)


def known(output: Store) -> Ids:
    """The image ids that the plan holds, all generations."""
    indexes = [read_index(output, generation) for generation in generations(output)]
    files = [file for units in indexes for file in dict.fromkeys(unit.file for unit in units)]
    columns = (_ids(output, file) for file in files)
    return Ids(columns, sum(unit.rows for units in indexes for unit in units))


def _ids(output: Store, file: str) -> pa.ChunkedArray:
    with part_file.reading(output, file, part_file.FROM_A_COPY):
        return pq.read_table(RangeFile(output, file), columns=["image_id"])["image_id"]


def read_rows(output: Store, generation: int) -> Iterator[pa.Table]:
    """Every planned row of a generation, a plan file at a time."""
    for file in sorted({unit.file for unit in read_index(output, generation)}):
        yield _table(output, file)


def reviews(output: Store) -> dict[str, dict[str, Any]]:
    """image_id -> the newest review that was planned (schema.REVIEW), of the few rows that have one."""
    found: dict[str, tuple[int, dict[str, Any]]] = {}
    for generation in generations(output):
        for table in read_rows(output, generation) if generation else ():
            if "review" not in table.schema.names:
                continue
            for row in table.filter(pc.is_valid(table["review"])).to_pylist():
                if row["attempt"] > found.get(row["image_id"], (0, {}))[0]:
                    found[row["image_id"]] = row["attempt"], row["review"]
    return {image: review for image, (_, review) in found.items()}


def check_apart(source: Store, output: Store) -> None:
    """Refuse an output inside the source (or the other way round): a run would list what it writes."""
    a, b = source.url.rstrip("/") + "/", output.url.rstrip("/") + "/"
    if a.startswith(b) or b.startswith(a):
        raise ConfigError(
            f"the output {output.url} and the source {source.url} lie inside one another; choose two places"
        )


def index_key(generation: int) -> str:
    """Where a generation's index lies."""
    return f"plan/{generation:04d}.index.parquet"
