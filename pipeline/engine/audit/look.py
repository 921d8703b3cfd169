"""Look at a source's images without changing them: the read and detect stages of a run, and what the files tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

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
"""Images of a task, which the networks see together."""


@dataclass(frozen=True)
class Seen:
    """What was found in one image. height, width: pixels, upright. exposed: of `exposure.WORDS`. error: as in the
    column of that name; then there is nothing else."""

    height: int
    width: int
    findings: Sequence[Region]
    exposed: frozenset[str]
    error: ErrorRow | None


def look(images: Sequence[Planned], recipe: Recipe) -> list[tuple[Seen, Row]]:
    """What is in each image, and its row after the stages that look, with the source's bytes. In order."""
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
    worker = _worker(recipe.model_dump_json())
    rows: list[Row] = worker(pa.Table.from_pylist(starts, schema=schema.START)).to_pylist()
    return [(_seen(row), row) for row in sorted(rows, key=lambda row: int(row["image_id"]))]


@lru_cache(maxsize=2)
def _worker(recipe: str) -> Worker:
    """The stages that look, opened once a process."""
    stages = stages_of(Recipe.model_validate_json(recipe), last=True)
    return Worker([stage for stage in stages if stage.name in ("read", "detect")])


def _seen(row: Row) -> Seen:
    error = row["error"]
    if error is None:
        try:
            decoded(row)  # Kept by the detect stage, unless a recipe's detectors need no pixels.
        except RowError as failed:
            error = error_of("read", failed)
    if error is not None:
        return Seen(0, 0, [], frozenset(), error)
    height, width = row["height"], row["width"]
    found = [region_of(struct, height, width) for struct in row["found"]]
    return Seen(height, width, found, exposure.exposed(row["source"], row["source_format"]), None)
