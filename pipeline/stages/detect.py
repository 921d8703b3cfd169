"""detect: run the recipe's detectors and keep the regions that its limits allow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cleanplate.models.types import Image, Region
from cleanplate.pipeline import schema
from cleanplate.pipeline.factory import detectors as finders
from cleanplate.pipeline.factory import inpainters, static_watermark
from cleanplate.pipeline.recipe import areas
from cleanplate.pipeline.recipe.recipe import Detect as Rule
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.stages.rows import asked_for, pixels_of, region_struct, rows_of, without_pixels
from cleanplate.pipeline.stages.stage import Needs, Work

_ADDS = schema.columns("found", "detectors")
_READS = ["source_uri", "source", "source_sha256", "width", "height", "review"]


@dataclass(frozen=True)
class Detect:
    recipe: Recipe
    needs: Needs
    name: str = "detect"
    adds: pa.Schema = _ADDS

    def open(self) -> Work:
        detectors = inpainters.detectors(self.recipe)
        given, marks = finders.given(self.recipe), static_watermark.opened(self.recipe)
        names = finders.names_of(detectors)

        def detect(table: pa.Table) -> pa.Table:
            rows = rows_of(table, _READS)
            # A person said that there is nothing to remove: no detector is asked again.
            busy = [row for row in rows if not asked_for(row, "wrong")]
            # First, because what is given wrongly fails its row: the halving that finds it costs no detector then.
            looked = [given(row) if given else ("", []) for row in busy]
            pictures = [pixels_of(row) for row in busy]
            finds = [
                [r for r in regions if wanted(r, picture, self.recipe)]
                for (_, regions), picture in zip(looked, pictures, strict=True)
            ]
            for detector in detectors:
                for found, regions, picture in zip(finds, detector(pictures), pictures, strict=True):
                    found += [r for r in regions if wanted(r, picture, self.recipe)]
            told = [[who] if who else [] for who, _ in looked]
            if marks:
                for row, picture, found, who in zip(busy, pictures, finds, told, strict=True):
                    word, regions = marks.find(row, picture)
                    who.append(word)
                    found += [r for r in regions if wanted(r, picture, self.recipe)]
            rest = iter(zip(finds, told, strict=True))
            made = [([], None) if asked_for(row, "wrong") else next(rest) for row in rows]
            structs = [[region_struct(r, r.mask) for r in found] for found, _ in made]
            later = [
                bool(found) or looks_everywhere(row, self.recipe)
                for (found, _), row in zip(made, rows, strict=True)
            ]
            named: list[list[str]] = [[] if also is None else [*names, *also] for _, also in made]
            table = without_pixels(table, later)
            return schema.with_columns(table, _ADDS, {"found": structs, "detectors": named})

        return detect


def looks_everywhere(row: dict[str, Any], recipe: Recipe) -> bool:
    """Does verification look at all of this row, and not only beside what was found? So too where a person asked to
    have it done again: perhaps something was missed."""
    return recipe.verify.scope == "all" or asked_for(row, "redo")


def wanted(region: Region, picture: Image, recipe: Recipe) -> bool:
    """True when the recipe asks for this kind and its limits let the region count."""
    kind = next((k for k in recipe.remove if k == region.kind), None)
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
