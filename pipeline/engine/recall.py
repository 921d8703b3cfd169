"""How much was missed: a random sample of the committed rows, looked at again by everything that looks.

    sample by hash > read the outputs > finders and verifiers over the whole picture > missed, by kind

A run's own verification looks beside its edits; here the sample's pictures are looked at everywhere, by the first
detectors once more, by those of another scale and by the other networks, and every find that the recipe's limits
allow counts, however low its score. So false alarms count as missed things: the estimate is a lower bound of what
these networks can tell, and says nothing of what none of them sees.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cleanplate.pipeline.engine.job import Spread
from cleanplate.pipeline.factory import kinds
from cleanplate.pipeline.images import encode
from cleanplate.pipeline.images.formats.base import ImageError
from cleanplate.pipeline.ledger import layouts, ledger
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.stages.detect import wanted
from cleanplate.pipeline.stages.residue import stays_hidden
from cleanplate.pipeline.storage.connect import Store

METHOD = "Anything any detector still sees counts as missed"
_SHARE, _MOST = 0.01, 200
ENOUGH = 50
"""Images below which a sample is too small for a share."""
_OVERLAP = 0.5


@dataclass(frozen=True)
class _Some:
    """Rows of one part to look at again."""

    output: Store
    recipe: Recipe
    part: str
    image_ids: tuple[str, ...]


def sample_size(rows: int, asked: int | None) -> int:
    """Images to look at again: what was asked for, else one of a hundred, at least 50 and at most 200. None of fewer
    than 50 rows, which could tell nothing."""
    if asked is not None:
        return min(rows, asked)
    return 0 if rows < ENOUGH else min(_MOST, max(ENOUGH, int(rows * _SHARE)))


def estimate(output: Store, recipe: Recipe, spread: Spread, size: int) -> list[dict[str, Any]]:
    """For each kind that the recipe removes: "kind", "recall" (removed / removed and missed, in the sample), "low"
    and "high" (95 %, Wilson), "removed", "missed", "images" of the sample, "method". A kind of which the sample
    holds nothing, found or missed, is left out. The same rows give the same sample."""
    parts: dict[str, list[str]] = defaultdict(list)
    for part, image_id in _sample(output, size):
        parts[part].append(image_id)
    tasks = [_Some(output, recipe, part, tuple(ids)) for part, ids in sorted(parts.items())]
    removed: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    looked = 0
    for count, was_removed, was_missed in spread(_look, tasks):
        looked += count
        removed.update(was_removed)
        missed.update(was_missed)
    kinds = []
    for kind in recipe.remove:
        found, all_of_it = removed[kind], removed[kind] + missed[kind]
        if all_of_it:
            low, high = wilson(found, all_of_it)
            kinds.append(
                {"kind": kind, "recall": found / all_of_it, "low": low, "high": high}
                | {"removed": found, "missed": missed[kind], "images": looked, "method": METHOD}
            )
    return kinds


def wilson(hits: int, tries: int) -> tuple[float, float]:
    """The 95 % interval of a share, after Wilson (1927): right near 0 and 1, where the usual one is not."""
    z, share = 1.96, hits / tries
    middle = share + z * z / (2 * tries)
    reach = z * math.sqrt(share * (1 - share) / tries + z * z / (4 * tries * tries))
    scale = 1 + z * z / tries
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def _sample(output: Store, size: int) -> list[tuple[str, str]]:
    """(part, image_id) of the `size` rows with a picture whose hashes are the smallest."""

    def hashed() -> Iterator[tuple[str, str, str]]:
        for part in ledger.part_keys(output):
            table = ledger.read_part(output, part, ["image_id", "attempt", "status"])
            for row in table.to_pylist():
                if row["status"] in ("unchanged", "cleaned", "hidden", "residual"):
                    name = f"recall {row['image_id']} {row['attempt']}".encode()
                    yield hashlib.sha256(name).hexdigest(), part, row["image_id"]

    return [(part, image_id) for _, part, image_id in heapq.nsmallest(size, hashed())]


def _look(some: _Some) -> tuple[int, dict[str, int], dict[str, int]]:
    """(images, removed by kind, missed by kind) of some rows' outputs."""
    detectors = [
        *kinds.detectors(some.recipe),
        *(v.detector for v in kinds.verifiers(some.recipe) if not v.close),
    ]
    removed: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    looked = 0
    table = ledger.read_part(some.output, some.part)
    for row in table.filter(pc.is_in(table["image_id"], pa.array(list(some.image_ids)))).to_pylist():
        try:
            picture = encode.decode(layouts.with_bytes(some.output, row)["image"]["bytes"]).pixels
        except ImageError:
            continue  # `cleanplate verify` is there to find it.
        looked += 1
        still = {r["kind"] for r in row["residual"] or []}
        removed.update(r["kind"] for r in row["regions"] or [] if r["kind"] not in still)
        boxes: dict[str, list[Sequence[float]]] = defaultdict(list)
        for detector in detectors:
            for region in detector([picture])[0]:
                seen = boxes[region.kind]
                if not wanted(region, picture, some.recipe) or stays_hidden(region, row, some.recipe):
                    continue  # What is seen of a face in its own mosaic was not missed.
                if not any(_same(region.box, b) for b in seen):
                    seen.append(region.box)
        missed.update({kind: len(found) for kind, found in boxes.items()})
    return looked, dict(removed), dict(missed)


def _same(a: Sequence[float], b: Sequence[float]) -> bool:
    """True when the smaller box lies by half in the other: two detectors' views of one thing."""
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b))
    return across > 0 and down > 0 and across * down >= _OVERLAP * smaller
