"""verify: look at the result with a detector that is independent of the first, repair, and say what is left.

A repair starts again from the source, with a larger mask and the recipe's next fallback for it: inpainting an
inpainted picture would keep what the first pass left. A find counts only above `verify.min_score`, the guard
against false alarms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cleanplate.models.segmenters.masks import grow as grow_mask
from cleanplate.models.types import Image, Inpainter, Mask, Region, Segmenter
from cleanplate.pipeline import schema
from cleanplate.pipeline.factory import inpainters, kinds, segmenters, static_watermark
from cleanplate.pipeline.factory.detectors import IMPRINT, Verifier
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

from .detect import looks_everywhere
from .inpaint import edit
from .residue import look_again, meets
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
    sources = [pixels_of(row) for row in rows]
    results = [paste_patches(source, row["patches"]) for source, row in zip(sources, rows, strict=True)]
    finds = look_again(rows, results, tools.verifiers, tools.recipe, sources)
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
        if any(meets(mask, region.box, 0) for region in seen)
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
