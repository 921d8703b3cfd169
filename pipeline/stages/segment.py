"""segment: turn each region into the pixels that change, within the recipe's limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from models.masks import close_gaps, fill_holes, swept, whole_blocks
from models.masks import grow as grow_mask
from models.regions import Mask, Region
from models.segmenters import thickness
from pipeline import kit, masks, schema
from pipeline.consensus import KIND
from pipeline.recipe import Masks, Recipe
from pipeline.rows import asked_for, pixels_of, region_of, region_struct, rows_of
from pipeline.stage import Needs, Work

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
        segmenter = kit.segmenter(self.recipe)

        def segment(table: pa.Table) -> pa.Table:
            rows = rows_of(table, _READS)
            found = [[region_of(s, row["height"], row["width"]) for s in row["found"]] for row in rows]
            busy = [n for n, regions in enumerate(found) if regions]
            drawn = segmenter([pixels_of(rows[n]) for n in busy], [found[n] for n in busy]) if busy else []
            cut = dict(zip(busy, drawn, strict=True))
            made = [
                mask_row(row, found[n], cut.get(n, []), self.recipe, segmenter.name)
                for n, row in enumerate(rows)
            ]
            return schema.with_columns(table, _ADDS, {name: [m[name] for m in made] for name in _ADDS.names})

        return segment


def mask_row(
    row: dict[str, Any], regions: list[Region], drawn: list[Mask], recipe: Recipe, segmenter: str
) -> dict[str, Any]:
    """The segment stage's columns of one row. A mask above the recipe's limit sets status `skipped`."""
    # A mark of the collection is known to the pixel; no segmenter knows it better.
    drawn = [
        r.mask if r.kind == KIND and r.mask is not None else m for m, r in zip(drawn, regions, strict=True)
    ]
    more = row["review"]["grow"] if asked_for(row, "redo") else 0.0
    grown = [grow(mask, region, recipe.masks, more) for mask, region in zip(drawn, regions, strict=True)]
    whole = together(grown, row, recipe.masks)
    coverage = float(np.count_nonzero(whole)) / whole.size
    made: dict[str, Any] = {
        "regions": [region_struct(region, mask) for region, mask in zip(regions, grown, strict=True)],
        "mask_rle": masks.to_rle(whole) if regions else None,
        "mask_coverage": coverage,
        "segmenter": segmenter if regions else None,
        "status": None,
        "error": None,
    }
    if coverage > recipe.masks.max_coverage:
        limit = f"the masks cover {coverage:.0%} of the picture; masks.max_coverage is {recipe.masks.max_coverage:.0%}"
        made |= {"status": "skipped", "error": {"stage": "segment", "kind": "max_coverage", "message": limit}}
    return made


def grow(mask: Mask, region: Region, rule: Masks, more: float = 0.0) -> Mask:
    """Widen a mask by the recipe's share of its box's shorter side, and at least grow_px: what a mark leaves
    at its edge (halo, JPEG ringing) is drawn again by an inpainter that sees it. With its holes and its shadow,
    where the recipe says so.

    more: a further share of that side, and at least 4 pixels, where a review asked for a larger mask."""
    x0, y0, x1, y1 = region.box
    side = min(x1 - x0, y1 - y0)
    if region.kind == "watermark":  # one mark may span the picture: its strokes say how wide its edges are
        side = min(side, STROKES * thickness(mask))
    pixels = max(rule.grow_px, round(rule.grow * side)) + (max(4, round(more * side)) if more else 0)
    wide = grow_mask(fill_holes(mask) if rule.fill_holes else mask, pixels)
    if rule.shadow:
        wide = swept(wide, round(rule.shadow * (y1 - y0)), round(rule.shadow * (x1 - x0) / 2))
    return wide


def together(grown: list[Mask], row: dict[str, Any], rule: Masks) -> Mask:
    """Every pixel of a row that may change: the regions' masks, gaps closed, on the grid of the JPEG's blocks."""
    whole = close_gaps(masks.union(grown, row["height"], row["width"]), rule.merge_px)
    return whole_blocks(whole, rule.align) if rule.align and row["source_format"] == "jpeg" else whole
