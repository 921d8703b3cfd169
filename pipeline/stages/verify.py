"""verify: look at the result with a detector that is independent of the first, repair, and say what is left.

A repair starts again from the source, with a larger mask and the recipe's next fallback for it: inpainting an
inpainted picture would keep what the first pass left. A find counts only above `verify.min_score`, the guard
against false alarms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from cleanplate.models.detectors.views.windows import Window, look_at, windows
from cleanplate.models.segmenters.masks import grow as grow_mask
from cleanplate.models.types import Image, Inpainter, Mask, Region, Segmenter
from cleanplate.pipeline import schema
from cleanplate.pipeline.factory import inpainters, kinds, segmenters, static_watermark
from cleanplate.pipeline.factory.detectors import IMPRINT, LEFT, Verifier
from cleanplate.pipeline.images import rle
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.recipe.sections import hidden_by
from cleanplate.pipeline.schema.rows import RegionRow, Row
from cleanplate.pipeline.stages.rows import (
    asked_for,
    cut_patches,
    paste_patches,
    pixels_of,
    region_of,
    region_struct,
    rows_of,
    without_pixels,
)
from cleanplate.pipeline.stages.stage import Needs, Work

from .detect import looks_everywhere, wanted
from .inpaint import edit
from .repeats import of_its_size, repeating
from .segment import grow, share_filled, side_of, together

_ADDS = schema.columns(
    "status",
    "hidden",
    "residual",
    "passes",
    "patches",
    "regions",
    "mask_rle",
    "mask_coverage",
    "inpainter",
    "segmenter",
    "verifiers",
)
_SOURCE = ["source_uri", "source", "source_sha256", "source_format", "width", "height", "review", "forbidden"]
_READS = [*(n for n in _ADDS.names if n not in ("residual", "verifiers", "hidden")), *_SOURCE]


_FILLED = "again"
"""The key of no filler, which means the recipe's own."""


@dataclass(frozen=True)
class Verify:
    recipe: Recipe
    needs: Needs
    name: str = "verify"
    adds: pa.Schema = _ADDS

    def open(self) -> Work:
        tools = _Tools(
            kinds.verifiers(self.recipe),
            segmenters.segmenter(self.recipe),
            inpainters.inpainters(self.recipe),
            self.recipe,
            static_watermark.opened(self.recipe),
        )

        def verify(table: pa.Table) -> pa.Table:
            rows = rows_of(table, _READS)
            for row in rows:
                row |= {"residual": [], "verifiers": []}
            suspects = [row for row in rows if _in_scope(row, self.recipe)]
            for repairs_left in range(self.recipe.verify.passes, -1, -1):
                suspects = _look(suspects, tools, repairs_left) if suspects else []
            for row in rows:
                row["hidden"] = [] if row["status"] else hidden_by(r["by"] for r in row["regions"] or [])
                row["status"] = row["status"] or _status(row)
            table = without_pixels(table)
            return schema.with_rows(table, _ADDS, rows)

        return verify


@dataclass(frozen=True)
class _Tools:
    verifiers: list[Verifier]
    segmenter: Segmenter
    fillers: Mapping[str, Inpainter]
    recipe: Recipe
    marks: static_watermark.Consensus | None = None

    def fallback(self, repairs: int) -> str | None:
        """The key of what fills again what was repaired so many times: the next fallback, the last one for ever."""
        last = len(self.recipe.inpaint.fallbacks) - 1
        return None if last < 0 else f"again {min(last, repairs)}"


def _status(row: Row) -> str:
    if row["residual"]:
        return "residual"
    if row["hidden"]:
        return "hidden"
    return "cleaned" if row["mask_rle"] else "unchanged"


def _in_scope(row: Row, recipe: Recipe) -> bool:
    if recipe.verify.scope == "none" or row["status"] == "skipped" or asked_for(row, "wrong"):
        return False
    return looks_everywhere(row, recipe) or bool(row["mask_rle"])


def _look(rows: list[Row], tools: _Tools, repairs_left: int) -> list[Row]:
    """One look at the rows' results; what is found is reported, and repaired when repairs are left. Gives the rows
    that were repaired: they are looked at again."""
    results = [paste_patches(pixels_of(row), row["patches"]) for row in rows]
    finds = look_again(rows, results, tools.verifiers, tools.recipe)
    if tools.marks:
        for found, row, picture in zip(finds, rows, results, strict=True):
            found += tools.marks.left(row, picture)
    again = []
    for row, found, picture in zip(rows, finds, results, strict=True):
        row["residual"] = [_residual(region) for region in found]
        if found and repairs_left and _enlarge(row, found, picture, tools):
            again.append(row)
    _refill(again, tools)
    return again


def look_again(
    rows: list[Row], results: list[Image], verifiers: Sequence[Verifier], recipe: Recipe
) -> list[list[Region]]:
    """What the verifiers find in each row's result (HWC uint8 RGB) that counts as residue; writes into each row which
    of them looked."""
    finds: list[list[Region]] = [[] for _ in rows]
    for row in rows:
        row["verifiers"] = []
    for verifier in verifiers:
        seen = (
            _close_ups(verifier, rows, results) if verifier.close else _near(verifier, rows, results, recipe)
        )
        for found, regions, row, picture in zip(finds, seen, rows, results, strict=True):
            left = [r for r in regions if r.score >= verifier.guard and _counts(r, row, picture, recipe)]
            found += [r for r in left if not verifier.inside or _is_left(r, row, verifier)]
    return finds


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
    near = looks_everywhere(row, recipe) or any(_beside(r, region.box, row) for r in row["regions"])
    if not near and not of_its_size(region.kind, region.box, repeating(row["regions"])):
        return False
    return wanted(region, picture, recipe) and not _stays_hidden(region, row, recipe)


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


def _stays_hidden(region: Region, row: Row, recipe: Recipe) -> bool:
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


def _beside(edit: RegionRow, box: tuple[float, float, float, float], row: Row) -> bool:
    """True when `box` touches an edit's mask widened by half its shorter side: a halo, or the rest of a word."""
    x0, y0, x1, y1 = edit["box"]
    rim = 0.5 * min(x1 - x0, y1 - y0)
    if not _touch([x0 - rim, y0 - rim, x1 + rim, y1 + rim], box):
        return False
    mask = rle.from_rle(edit["rle"], row["height"], row["width"])
    return _meets(mask, box, 0.5 * side_of(mask, edit["box"], edit["kind"]))


def _meets(mask: Mask, box: tuple[float, float, float, float], rim: float) -> bool:
    """True when the box (xyxy pixels), wider by `rim` pixels, holds some of the mask: in its own box a slanted line is
    mostly not."""
    x0, y0 = (max(0, math.floor(side - rim)) for side in box[:2])
    x1, y1 = (max(0, math.ceil(side + rim)) for side in box[2:])
    return bool(mask[y0:y1, x0:x1].any())


def _residual(region: Region) -> RegionRow:
    box = [float(side) for side in region.box]
    return {"kind": region.kind, "detector": region.detector, "score": region.score, "box": box}


def _enlarge(row: Row, found: list[Region], picture: Image, tools: _Tools) -> bool:
    """Widen the row's masks and add the finds; False when that would cross the recipe's limit."""
    height, width = row["height"], row["width"]
    added = [
        grow(mask, region, tools.recipe.masks)
        for mask, region in zip(tools.segmenter([picture], [found])[0], found, strict=True)
    ]
    old = [(r, rle.from_rle(r["rle"], height, width)) for r in row["regions"] or []]
    again = tools.fallback(row["passes"] - 1)
    seen = [region for region in found if not _is_imprint(region)]
    wider = [
        (_given_to(_unless_hidden(again, r, tools), r), _wider(mask, r, tools.recipe.verify.grow))
        if any(_meets(mask, region.box, 0) for region in seen)
        else (r, mask)
        for r, mask in old
    ]
    whole = together([mask for _, mask in wider] + added, row, tools.recipe.masks)
    coverage = float(np.count_nonzero(whole)) / whole.size
    every = [*(region_of(r, height, width) for r, _ in wider), *found]
    masks = [*(mask for _, mask in wider), *added]
    if share_filled(every, masks, row, tools.recipe) > tools.recipe.masks.max_coverage:
        return False
    kept: list[RegionRow] = [
        {**r, "area_px": int(np.count_nonzero(m)), "rle": rle.to_rle(m)} for r, m in wider
    ]
    fresh = [region_struct(region, mask) for region, mask in zip(found, added, strict=True)]
    row["regions"] = kept + [_given_to(_unless_hidden(again, r, tools), r) for r in fresh]
    row |= {"mask_rle": rle.to_rle(whole), "mask_coverage": coverage, "segmenter": tools.segmenter.name}
    return True


def _is_imprint(region: Region) -> bool:
    """True for what a fill left in the shape of a mark: known to the pixel, so that its edits need not be wider."""
    return region.detector == IMPRINT


def _unless_hidden(filler: str | None, region: RegionRow, tools: _Tools) -> str | None:
    """The key of the next filler; none for what is hidden, which a filler that removes would bring back changed."""
    return None if tools.recipe.inpaint.hides(region["kind"]) else filler


def _given_to(filler: str | None, region: RegionRow) -> RegionRow:
    """The region with the key of what fills it now; without one its kind's own filler does it again. A mark that
    was taken off, and shows all the same, is filled."""
    return {**region, "filler": filler or (_FILLED if region["kind"] == static_watermark.KIND else None)}


def _wider(mask: Mask, region: RegionRow, share: float) -> Mask:
    """The mask grown by a share of its shorter side; masks that did their work are not asked for. A mark of the
    collection is known to the pixel, and may be thin strokes across a large box."""
    if region["kind"] == static_watermark.KIND:
        return grow_mask(mask, 4)
    return grow_mask(mask, max(4, round(share * side_of(mask, region["box"], region["kind"]))))


def _touch(a: list[float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _refill(rows: list[Row], tools: _Tools) -> None:
    if not rows:
        return
    for row, (picture, by) in zip(rows, edit(rows, tools.fillers, tools.marks), strict=True):
        mask = rle.from_rle(row["mask_rle"], row["height"], row["width"])
        row |= {
            "patches": cut_patches(picture, mask),
            "inpainter": by,
            "passes": row["passes"] + 1,
        }
