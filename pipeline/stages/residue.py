"""What counts as residue: what verifiers find in a result, where they look, and which of their finds count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cleanplate.models.detectors.views.windows import Window, look_at, windows
from cleanplate.models.types import Image, Mask, Region, iou
from cleanplate.pipeline.factory.detectors import LEFT, Verifier
from cleanplate.pipeline.images import rle
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.schema.rows import RegionRow, Row
from cleanplate.pipeline.stages.detect import looks_everywhere, wanted
from cleanplate.pipeline.stages.repeats import of_its_size, repeating
from cleanplate.pipeline.stages.segment import side_of

SAME = 0.3
"""Intersection over union from which two finds of one verifier are one thing, before and after."""


def look_again(
    rows: list[Row],
    results: list[Image],
    verifiers: Sequence[Verifier],
    recipe: Recipe,
    sources: Sequence[Image] | None = None,
) -> list[list[Region]]:
    """What the verifiers find in each row's result (HWC uint8 RGB) that counts as residue; writes into each row which
    of them looked. sources: of the same sizes; what a mosaic shows and its source does not is the mosaic's own."""
    finds: list[list[Region]] = [[] for _ in rows]
    for row in rows:
        row["verifiers"] = []
    for verifier in verifiers:
        seen = _seen(verifier, rows, results, recipe)
        for n, (found, regions, row, picture) in enumerate(zip(finds, seen, rows, results, strict=True)):
            left = [r for r in regions if r.score >= verifier.guard and _counts(r, row, picture, recipe)]
            left = [r for r in left if not verifier.inside or _is_left(r, row, verifier)]
            found += left if sources is None else _of_source(left, verifier, row, sources[n], recipe)
    return finds


def _seen(verifier: Verifier, rows: list[Row], pictures: list[Image], recipe: Recipe) -> list[list[Region]]:
    return _close_ups(verifier, rows, pictures) if verifier.close else _near(verifier, rows, pictures, recipe)


def _of_source(
    found: list[Region], verifier: Verifier, row: Row, source: Image, recipe: Recipe
) -> list[Region]:
    """The finds without those that hiding made: a face at the rim of a mosaic, where the same look at the source shows
    none that is as sure as it must be. What somebody else's face shows beside it, the source shows too."""
    hidden = [r for r in found if r.kind in RECOGNISED and recipe.inpaint.hides(r.kind)]
    if not hidden:
        return found
    least = max(verifier.guard, recipe.verify.min_score)
    before = [r for r in _seen(verifier, [row.copy()], [source], recipe)[0] if r.score >= least]
    made = [r for r in hidden if not any(iou(r.box, other.box) >= SAME for other in before)]
    return [r for r in found if r not in made]


def _near(verifier: Verifier, rows: list[Row], results: list[Image], recipe: Recipe) -> list[list[Region]]:
    """What a verifier finds near the edits that it is owed, or everywhere."""
    parts = [_parts(row, verifier, recipe) for row in rows]
    for row, some in zip(rows, parts, strict=True):
        row["verifiers"] += [verifier.detector.name] if some else []
    return look_at(verifier.detector, results, parts)


def _close_ups(verifier: Verifier, rows: list[Row], results: list[Image]) -> list[list[Region]]:
    """What a verifier finds in the surroundings of each row's edits of its kinds: three times an edit's longer side."""
    places = [
        (n, around(r["box"], results[n]))
        for n, row in enumerate(rows)
        for r in row["regions"] or []
        if verifier.owed(r)
    ]
    for n in sorted({n for n, _ in places}):
        rows[n]["verifiers"].append(verifier.detector.name)
    crops = [np.ascontiguousarray(results[n][y0:y1, x0:x1]) for n, (x0, y0, x1, y1) in places]
    found: list[list[Region]] = [[] for _ in rows]
    if not crops:
        return found
    for (n, (x, y, _, _)), regions in zip(places, verifier.detector(crops), strict=True):
        for r in regions:
            box = (r.box[0] + x, r.box[1] + y, r.box[2] + x, r.box[3] + y)
            found[n].append(replace(r, box=box, mask=None))
    return found


def around(box: list[float], picture: Image) -> tuple[int, int, int, int]:
    """The surroundings of a box (xyxy pixels) in which a close verifier looks, cut to the picture (HWC): xyxy."""
    reach = 1.5 * max(box[2] - box[0], box[3] - box[1], 24.0)
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    x0, y0 = max(0, int(x - reach)), max(0, int(y - reach))
    return x0, y0, min(picture.shape[1], int(x + reach)), min(picture.shape[0], int(y + reach))


def _parts(row: Row, verifier: Verifier, recipe: Recipe) -> list[Window]:
    """Where a verifier looks: near the edits that it is owed when only finds beside them count, else everywhere; so too
    where such edits are a mark that may repeat."""
    height, width = row["height"], row["width"]
    if looks_everywhere(row, recipe) or not row["mask_rle"]:
        return [(0, 0, width, height)]
    edits = row["regions"] or []
    owed = [edit for edit in edits if verifier.owed(edit)]
    if not owed:
        return []
    if repeating(owed):
        return [(0, 0, width, height)]
    if len(owed) == len(edits):
        return windows(rle.from_rle(row["mask_rle"], height, width), verifier.least)
    mine = rle.union((rle.from_rle(edit["rle"], height, width) for edit in owed), height, width)
    return windows(mine, verifier.least)


def _counts(region: Region, row: Row, picture: Image, recipe: Recipe) -> bool:
    """True when a find is residue: sure and large enough, of a kind that must go, and (unless the recipe
    looks at everything) in or beside an edit, or of the size of edits that repeat. Elsewhere the first detector saw
    nothing, and to edit there on the second one's word alone would harm good pictures."""
    x0, y0, x1, y1 = region.box
    if region.score < recipe.verify.min_score or min(x1 - x0, y1 - y0) < recipe.verify.min_side:
        return False
    near = looks_everywhere(row, recipe) or any(beside(r, region.box, row) for r in row["regions"])
    if not near and not of_its_size(region.kind, region.box, repeating(row["regions"])):
        return False
    return wanted(region, picture, recipe) and not stays_hidden(region, row, recipe)


def _is_left(region: Region, row: Row, verifier: Verifier) -> bool:
    """True when most of a find lies in the edits that the verifier is owed, and it is a good part of them."""
    owed = [edit for edit in row["regions"] or [] if verifier.owed(edit)]
    if region.mask is None or not owed:
        return False
    height, width = row["height"], row["width"]
    edited = rle.union((rle.from_rle(edit["rle"], height, width) for edit in owed), height, width)
    inside = int(np.count_nonzero(edited & region.mask))
    return bool(inside > max(0.5 * np.count_nonzero(region.mask), LEFT * np.count_nonzero(edited)))


RECOGNISED = ("face", "person")
"""Kinds that are hidden when nobody can tell who it is. That a detector still sees a face in a mosaic is no residue;
letters that are still found under one can be read."""


def stays_hidden(region: Region, row: Row, recipe: Recipe) -> bool:
    """True when a find is what the row hides: more than half of its box, middle included, lies under masks of its
    kind. What sticks out is a second one."""
    if region.kind not in RECOGNISED or not recipe.inpaint.hides(region.kind):
        return False
    height, width = row["height"], row["width"]
    mine = [r for r in row["regions"] or [] if r["kind"] == region.kind and not r.get("filler")]
    mask = rle.union((rle.from_rle(r["rle"], height, width) for r in mine), height, width)
    x0, y0, x1, y1 = (round(side) for side in region.box)
    under = mask[max(y0, 0) : y1, max(x0, 0) : x1]
    middle = mask[min((y0 + y1) // 2, height - 1), min((x0 + x1) // 2, width - 1)]
    return bool(middle) and bool(under.mean() > 0.5)


def beside(edit: RegionRow, box: tuple[float, float, float, float], row: Row) -> bool:
    """True when `box` touches an edit's mask widened by half its shorter side: a halo, or the rest of a word."""
    x0, y0, x1, y1 = edit["box"]
    rim = 0.5 * min(x1 - x0, y1 - y0)
    if not _touch([x0 - rim, y0 - rim, x1 + rim, y1 + rim], box):
        return False
    mask = rle.from_rle(edit["rle"], row["height"], row["width"])
    return meets(mask, box, 0.5 * side_of(mask, edit["box"], edit["kind"]))


def meets(mask: Mask, box: tuple[float, float, float, float], rim: float) -> bool:
    """True when the box (xyxy pixels), wider by `rim` pixels, holds some of the mask: in its own box a slanted line is
    mostly not."""
    x0, y0 = (max(0, math.floor(side - rim)) for side in box[:2])
    x1, y1 = (max(0, math.ceil(side + rim)) for side in box[2:])
    return bool(mask[y0:y1, x0:x1].any())


def _touch(a: list[float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
