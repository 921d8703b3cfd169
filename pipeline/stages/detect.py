"""detect: run the recipe's detectors and keep the regions that its limits allow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from cleanplate.models.types import Image, Region
from cleanplate.pipeline import schema
from cleanplate.pipeline.factory import kinds, static_watermark
from cleanplate.pipeline.images import rle
from cleanplate.pipeline.recipe import areas
from cleanplate.pipeline.recipe.recipe import Detect as Rule
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.schema.rows import Row
from cleanplate.pipeline.stages.rows import asked_for, pixels_of, region_struct, rows_of, without_pixels
from cleanplate.pipeline.stages.stage import Needs, Work

_ADDS = schema.columns("found", "detectors", "forbidden")
_READS = ["source_uri", "source", "source_sha256", "width", "height", "review"]


@dataclass(frozen=True)
class Detect:
    recipe: Recipe
    needs: Needs
    name: str = "detect"
    adds: pa.Schema = _ADDS

    def open(self) -> Work:
        detectors = kinds.detectors(self.recipe)
        look_up, marks = kinds.given(self.recipe), static_watermark.opened(self.recipe)
        names = kinds.names_of(detectors)

        def detect(table: pa.Table) -> pa.Table:
            rows = rows_of(table, _READS)
            # A person decided that there is nothing to remove: no detector is asked again.
            busy = [row for row in rows if not asked_for(row, "wrong")]
            # First, because what is given wrongly fails its row: the halving that finds it costs no detector then.
            looked = [look_up(row) if look_up else ("", []) for row in busy]
            pictures = [pixels_of(row) for row in busy]
            views = [shrunk(picture, self.recipe.limits.detect_pixels) for picture in pictures]
            seen = [list(regions) for _, regions in looked]
            for detector in detectors:
                found_in = kinds.seen_by(detector, views)
                for more, regions, picture, view in zip(seen, found_in, pictures, views, strict=True):
                    more += regions if view is picture else [enlarged(r, view, picture) for r in regions]
            names_of = [[who] if who else [] for who, _ in looked]
            for who, picture, view in zip(names_of, pictures, views, strict=True):
                if view is not picture:
                    who.append(f"searched at {view.shape[1]}x{view.shape[0]}")
            if marks:
                for row, picture, more, who in zip(busy, pictures, seen, names_of, strict=True):
                    word, regions = marks.find(row, picture)
                    who.append(word)
                    more += regions
            sorted_out = [apart(*one, self.recipe) for one in zip(seen, pictures, strict=True)]
            rest = iter(zip(sorted_out, names_of, strict=True))
            results = [(([], None), None) if asked_for(row, "wrong") else next(rest) for row in rows]
            structs = [[region_struct(r, r.mask) for r in found] for (found, _), _ in results]
            later = [
                bool(found) or looks_everywhere(row, self.recipe)
                for ((found, _), _), row in zip(results, rows, strict=True)
            ]
            named: list[list[str]] = [[] if also is None else [*names, *also] for _, also in results]
            table = without_pixels(table, later)
            closed = [forbidden for (_, forbidden), _ in results]
            values: dict[str, list[Any]] = {"found": structs, "detectors": named, "forbidden": closed}
            return schema.with_columns(table, _ADDS, values)

        return detect


def shrunk(picture: Image, most: int) -> Image:
    """The picture, or where it has more than `most` pixels one of so many: networks take time by pixels."""
    height, width = picture.shape[:2]
    if height * width <= most:
        return picture
    scale = (most / (height * width)) ** 0.5
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def enlarged(region: Region, view: Image, picture: Image) -> Region:
    """A region of the shrunk view, in the picture's frame."""
    height, width = picture.shape[:2]
    across, down = width / view.shape[1], height / view.shape[0]
    x0, y0, x1, y1 = region.box
    box = (x0 * across, y0 * down, min(x1 * across, float(width)), min(y1 * down, float(height)))
    if region.mask is None:
        return replace(region, box=box)
    mask = cv2.resize(region.mask.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    return replace(region, box=box, mask=mask.view(np.bool_))


def apart(regions: list[Region], picture: Image, recipe: Recipe) -> tuple[list[Region], str | None]:
    """What is wanted of the regions; the others as run lengths, where there is something to fill: perhaps one of them
    is what must go, too, and a fill must not make a second one of it."""
    keep = [wanted(region, picture, recipe) for region in regions]
    found = [region for region, kept in zip(regions, keep, strict=True) if kept]
    others = [
        region
        for region, kept in zip(regions, keep, strict=True)
        if not kept and not any(_sees_again(region, one) for one in found)
    ]
    if not found or not others:
        return found, None
    height, width = picture.shape[:2]
    closed = np.zeros((height, width), np.bool_)
    for region in others:
        closed |= rle.from_box(region.box, height, width) if region.mask is None else region.mask
    return found, rle.to_rle(closed)


def _sees_again(doubt: Region, found: Region) -> bool:
    """Whether a doubtful box holds most of a find of its kind. It is then another view of it: the box about a slanted
    word would close all that lies round the word, and leave nothing near to fill it with."""
    if not doubt.doubtful or doubt.mask is not None or doubt.kind != found.kind:
        return False
    (x0, y0, x1, y1), (a0, b0, a1, b1) = found.box, doubt.box
    shared = max(0.0, min(x1, a1) - max(x0, a0)) * max(0.0, min(y1, b1) - max(y0, b0))
    return shared > 0.5 * (x1 - x0) * (y1 - y0)


def looks_everywhere(row: Row, recipe: Recipe) -> bool:
    """Does verification look at all of this row, and not only beside what was found? So too where a person asked to
    have it done again: perhaps something was missed."""
    return recipe.verify.scope == "all" or asked_for(row, "redo")


def wanted(region: Region, picture: Image, recipe: Recipe) -> bool:
    """True when the recipe asks for this kind and its limits let the region count."""
    kind = None if region.doubtful else next((k for k in recipe.remove if k == region.kind), None)
    return kind is not None and allowed(region, picture, recipe.detect_for(kind))


def allowed(region: Region, picture: Image, rule: Rule) -> bool:
    """The limits of one kind: score, area, share of the picture, place of the region's centre, areas to keep."""
    height, width = picture.shape[:2]
    size = (height, width)
    x0, y0, x1, y1 = region.box
    area = (x1 - x0) * (y1 - y0) if region.mask is None else float(np.count_nonzero(region.mask))
    if rule.min_score is not None and region.score < rule.min_score:
        return False
    if area < rule.min_area or area > rule.max_coverage * width * height:
        return False
    if rule.where is not None and not areas.centre_inside(region, size, rule.where):
        return False
    return not rule.keep or areas.share_inside(region, size, rule.keep) <= 0.5
