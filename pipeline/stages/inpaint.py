"""inpaint: fill the masks. Every pixel outside stays as it is, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from models.regions import Image, Inpainter, Mask
from pipeline import kit, masks, schema
from pipeline.errors import ContractError
from pipeline.recipe import Recipe
from pipeline.rows import cut_patches, decoded
from pipeline.stage import Needs, Work

_ADDS = schema.columns("patches", "inpainter", "passes")
_READS = ["source", "source_sha256", "width", "height", "regions", "mask_rle"]


@dataclass(frozen=True)
class Inpaint:
    recipe: Recipe
    needs: Needs
    name: str = "inpaint"
    adds: pa.Schema = _ADDS

    def open(self) -> Work:
        fillers = kit.inpainters(self.recipe)

        def inpaint(table: pa.Table) -> pa.Table:
            rows = table.select(_READS).to_pylist()
            busy = [n for n, row in enumerate(rows) if row["mask_rle"]]
            jobs = [masks_by_filler(rows[n], fillers) for n in busy]
            edited = fill([decoded(rows[n]).pixels for n in busy], jobs, fillers)
            made: list[dict[str, Any]] = [{"patches": [], "inpainter": None, "passes": 0} for _ in rows]
            for n, picture, job in zip(busy, edited, jobs, strict=True):
                mask = masks.from_rle(rows[n]["mask_rle"], rows[n]["height"], rows[n]["width"])
                made[n] = {"patches": cut_patches(picture, mask), "inpainter": "+".join(job), "passes": 1}
            return schema.with_columns(table, _ADDS, {name: [m[name] for m in made] for name in _ADDS.names})

        return inpaint


def masks_by_filler(row: dict[str, Any], fillers: Mapping[str, Inpainter]) -> dict[str, Mask]:
    """filler's name -> HW bool: the pixels that it has to fill. `fillers` is keyed by kind, "" for the rest; a
    region's own "filler" is the key that a repair chose instead of its kind.

    Pixels under two kinds go to the last filler named, so that nothing of the first kind shows through."""
    height, width = row["height"], row["width"]
    whole = masks.from_rle(row["mask_rle"], height, width)
    jobs: dict[str, Mask] = {}
    for region in row["regions"]:
        name = fillers.get(region.get("filler") or region["kind"], fillers[""]).name
        mask = masks.from_rle(region["rle"], height, width)
        jobs[name] = jobs[name] | mask if name in jobs else mask
    taken = np.logical_or.reduce(list(jobs.values())) if jobs else np.zeros_like(whole)
    if np.any(rest := whole & ~taken):
        name = fillers[""].name
        jobs[name] = jobs[name] | rest if name in jobs else rest
    return jobs


def fill(pictures: list[Image], jobs: list[dict[str, Mask]], fillers: Mapping[str, Inpainter]) -> list[Image]:
    """Each picture with its masks filled: HWC uint8 RGB in and out. Batches all pictures of one filler.

    Raises ContractError when a filler changed a pixel outside its mask."""
    edited = list(pictures)
    for filler in {f.name: f for f in fillers.values()}.values():
        wants = [n for n, job in enumerate(jobs) if filler.name in job]
        if not wants:
            continue
        results = filler([edited[n] for n in wants], [jobs[n][filler.name] for n in wants])
        for n, result in zip(wants, results, strict=True):
            outside = ~jobs[n][filler.name]
            if result.shape != edited[n].shape or not np.array_equal(result[outside], edited[n][outside]):
                raise ContractError(f"inpainter {filler.name} changed pixels outside its mask")
            edited[n] = result
    return edited
