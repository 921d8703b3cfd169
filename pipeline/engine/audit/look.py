"""Look at a source's images without changing them: the read and detect stages of a run, and what the files tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa

from cleanplate.models.types import Region
from cleanplate.pipeline import schema
from cleanplate.pipeline.engine.job import stages_of
from cleanplate.pipeline.errors import RowError
from cleanplate.pipeline.images import exposure
from cleanplate.pipeline.ledger.plan import Planned
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.schema import Row
from cleanplate.pipeline.schema.rows import ErrorRow
from cleanplate.pipeline.stages.rows import decoded, region_of
from cleanplate.pipeline.stages.stage import Worker, error_of

BATCH = 16


@dataclass(frozen=True)
class Seen:
    """What was found in one image. row: of the read stage, with the source's bytes. exposed: of `exposure.WORDS`.
    error: a struct as in the column of that name; then there is nothing else."""

    uri: str
    row: Row
    findings: Sequence[Region]
    exposed: frozenset[str]
    error: ErrorRow | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, pixels, upright."""
        return self.row["height"] or 0, self.row["width"] or 0


def looker(recipe: Recipe) -> Worker:
    """The stages that look, opened."""
    return Worker([stage for stage in stages_of(recipe, last=True) if stage.name in ("read", "detect")])


def look(images: Iterable[Planned], worker: Worker) -> Iterator[list[Seen]]:
    """What is in each image, in order, a batch at a time."""
    rest = iter(images)
    while some := list(islice(rest, BATCH)):
        yield look_at(some, worker)


def look_at(images: Sequence[Planned], worker: Worker) -> list[Seen]:
    """What is in each of a batch of images."""
    starts = [
        {
            "image_id": str(n),
            "source_uri": one.uri,
            "source_version": one.object.version,
            "source_bytes": one.object.size,
            "attempt": 1,
        }
        for n, one in enumerate(images)
    ]
    rows: list[Row] = worker(pa.Table.from_pylist(starts, schema=schema.START)).to_pylist()
    return [_seen(row) for row in sorted(rows, key=lambda row: int(row["image_id"]))]


def _seen(row: Row) -> Seen:
    error = row["error"]
    if error is None:
        try:
            decoded(row)  # Kept by the detect stage, unless a recipe's detectors need no pixels.
        except RowError as failed:
            error = error_of("read", failed)
    if error is not None:
        return Seen(row["source_uri"], row, [], frozenset(), error)
    height, width = row["height"], row["width"]
    found = [region_of(struct, height, width) for struct in row["found"]]
    exposed = exposure.exposed(row["source"], row["source_format"])
    return Seen(row["source_uri"], row, found, exposed, None)
