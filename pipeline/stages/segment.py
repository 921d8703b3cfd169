"""segment: turn each region into the pixels that change, within the recipe's limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cleanplate.models.metrics.pixelwise import thickness
from cleanplate.models.segmenters.masks import close_gaps, fill_holes, short_side, swept, whole_blocks
from cleanplate.models.segmenters.masks import grow as grow_mask
from cleanplate.models.types import Mask, Region
from cleanplate.pipeline import schema
from cleanplate.pipeline.factory import segmenters
from cleanplate.pipeline.factory.static_watermark import KIND
from cleanplate.pipeline.images import rle
from cleanplate.pipeline.recipe.recipe import Masks, Recipe
from cleanplate.pipeline.schema.rows import Row
from cleanplate.pipeline.stages.rows import asked_for, pixels_of, region_of, region_struct, rows_of
from cleanplate.pipeline.stages.stage import Needs, Work

STROKES = 12
"""A line of text is about so many strokes high."""
_ADDS = schema.columns("regions", "mask_rle", "mask_coverage", "segmenter", "status", "error")
_READS = ["source", "source_sha256", "source_format", "width", "height", "found", "review"]


@dataclass(frozen=True)
class Segment:
    recipe: Recipe
    needs: Needs
    name: str = "segment"
    adds: pa.Schema = _ADDS

    def open(self) -> Work:
        segmenter = segmenters.segmenter(self.recipe)

        def segment(table: pa.Table) -> pa.Table:
            rows = rows_of(table, _READS)
            found = [[region_of(s, row["height"], row["width"]) for s in row["found"]] for row in rows]
            busy = [n for n, regions in enumerate(found) if regions]
            drawn = segmenter([pixels_of(rows[n]) for n in busy], [found[n] for n in busy]) if busy else []
            cut = dict(zip(busy, drawn, strict=True))
            results = [
                mask_row(row, found[n], cut.get(n, []), self.recipe, segmenter.name)
                for n, row in enumerate(rows)
            ]
            return schema.with_rows(table, _ADDS, results)

        return segment


def mask_row(row: Row, regions: list[Region], drawn: list[Mask], recipe: Recipe, segmenter: str) -> Row:
    """The segment stage's columns of one row. A mask above the recipe's limit sets status `skipped`."""
    # A mark of the collection is known to the pixel; no segmenter knows it better.
    drawn = [
        r.mask if r.kind == KIND and r.mask is not None else m for m, r in zip(drawn, regions, strict=True)
    ]
    more = row["review"]["grow"] if row["review"] and asked_for(row, "redo") else 0.0
    grown = [grow(mask, region, recipe.masks, more) for mask, region in zip(drawn, regions, strict=True)]
    whole = together(grown, row, recipe.masks)
    coverage = float(np.count_nonzero(whole)) / whole.size
    filled = share_filled(regions, grown, row, recipe)
    fields: Row = {
        "regions": [region_struct(region, mask) for region, mask in zip(regions, grown, strict=True)],
        "mask_rle": rle.to_rle(whole) if regions else None,
        "mask_coverage": coverage,
        "segmenter": segmenter if regions else None,
        "status": None,
        "error": None,
    }
    if filled > recipe.masks.max_coverage:
        limit = f"the masks cover {filled:.0%} of the picture; masks.max_coverage is {recipe.masks.max_coverage:.0%}"
        fields |= {
            "status": "skipped",
            "error": {"stage": "segment", "kind": "max_coverage", "message": limit},
        }
    return fields


def share_filled(regions: Sequence[Region], grown: list[Mask], row: Row, recipe: Recipe) -> float:
    """Share of the picture that is drawn anew: what masks.max_coverage bounds. What only hides, at the very place, may
    be as large as it is: a portrait's face."""
    drawn = [
        mask for region, mask in zip(regions, grown, strict=True) if not recipe.inpaint.hides(region.kind)
    ]
    whole = together(drawn, row, recipe.masks)
    return float(np.count_nonzero(whole)) / whole.size


def grow(mask: Mask, region: Region, rule: Masks, more: float = 0.0) -> Mask:
    """Widen a mask by the recipe's share of its shorter side (`side_of`), and at least grow_px: what a mark leaves
    at its edge (halo, JPEG ringing) is drawn again by an inpainter that sees it. With its holes and its shadow,
    where the recipe says so.

    more: a further share of that side, and at least 4 pixels, where a review asked for a larger mask."""
    x0, y0, x1, y1 = region.box
    side = side_of(mask, region.box, region.kind)
    pixels = max(rule.grow_px, round(rule.grow * side)) + (max(4, round(more * side)) if more else 0)
    wide = grow_mask(fill_holes(mask) if rule.fill_holes else mask, pixels)
    if rule.shadow:
        wide = swept(wide, round(rule.shadow * (y1 - y0)), round(rule.shadow * (x1 - x0) / 2))
    return wide


def side_of(mask: Mask, box: Sequence[float], kind: str) -> float:
    """Pixels of a thing's shorter side: its box's (xyxy pixels), or less where the box says little. A slanted line lies
    in a large one; a watermark may span the picture, and its strokes say how wide its edges are."""
    side = min(box[2] - box[0], box[3] - box[1])
    return min(side, STROKES * thickness(mask) if kind == "watermark" else short_side(mask))


def together(grown: list[Mask], row: Row, rule: Masks) -> Mask:
    """Every pixel of a row that may change: the regions' masks, gaps closed, on the grid of the JPEG's blocks."""
    whole = close_gaps(rle.union(grown, row["height"], row["width"]), rule.merge_px)
    return whole_blocks(whole, rule.align) if rule.align and row["source_format"] == "jpeg" else whole
