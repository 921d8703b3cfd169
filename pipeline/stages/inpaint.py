"""inpaint: fill the masks. Every pixel outside stays as it is, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cleanplate.models.inpainters.by_hole import chosen, parts_of
from cleanplate.models.types import Image, Inpainter, Mask
from cleanplate.pipeline import schema
from cleanplate.pipeline.errors import ContractError
from cleanplate.pipeline.factory import inpainters, static_watermark
from cleanplate.pipeline.images import rle
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.schema.rows import Row
from cleanplate.pipeline.stages.rows import cut_patches, pixels_of, rows_of
from cleanplate.pipeline.stages.stage import Needs, Work

_ADDS = schema.columns("patches", "inpainter", "passes", "regions")
_READS = ["source_uri", "source", "source_sha256", "width", "height", "regions", "mask_rle", "forbidden"]


TAKE_OFF = "take-off"
"""What a mark of the collection is cleaned by where its opacity allows it: computed back, not filled."""


@dataclass(frozen=True)
class Inpaint:
    recipe: Recipe
    needs: Needs
    name: str = "inpaint"
    adds: pa.Schema = _ADDS

    def open(self) -> Work:
        fillers = inpainters.inpainters(self.recipe)
        marks = static_watermark.opened(self.recipe)

        def inpaint(table: pa.Table) -> pa.Table:
            rows = rows_of(table, _READS)
            busy = [n for n, row in enumerate(rows) if row["mask_rle"]]
            edited = edit([rows[n] for n in busy], fillers, marks)
            results: list[Row] = [
                {"patches": [], "inpainter": None, "passes": 0, "regions": row["regions"]} for row in rows
            ]
            for n, (picture, by) in zip(busy, edited, strict=True):
                mask = rle.from_rle(rows[n]["mask_rle"], rows[n]["height"], rows[n]["width"])
                results[n] |= {"patches": cut_patches(picture, mask), "inpainter": by, "passes": 1}
            return schema.with_rows(table, _ADDS, results)

        return inpaint


def edit(
    rows: list[Row], fillers: Mapping[str, Inpainter], marks: static_watermark.Consensus | None
) -> list[tuple[Image, str]]:
    """Each row's source with its masks filled, HWC uint8 RGB, and what filled them. Marks of the collection are
    taken off first, where their opacity allows it; what stands below them then needs no filler."""
    starts = [marks.lifted(row, pixels_of(row)) if marks else (pixels_of(row), None) for row in rows]
    jobs = [masks_by_filler(row, fillers, done) for row, (_, done) in zip(rows, starts, strict=True)]
    edited = fill([picture for picture, _ in starts], jobs, fillers, [closed_of(row) for row in rows])
    by = [
        "+".join([*([TAKE_OFF] if done is not None else []), *job])
        for job, (_, done) in zip(jobs, starts, strict=True)
    ]
    return list(zip(edited, by, strict=True))


def masks_by_filler(row: Row, fillers: Mapping[str, Inpainter], done: Mask | None = None) -> dict[str, Mask]:
    """filler's name -> HW bool: the pixels that it has to fill. `fillers` is keyed by kind, "" for the rest; a
    region's own "filler" is the key that a repair chose instead of its kind. done: where the marks of the
    collection are taken off already.

    Writes into each region what cleans it. Pixels under two kinds go to the last filler named, so that nothing of
    the first kind shows through."""
    height, width = row["height"], row["width"]
    whole = rle.from_rle(row["mask_rle"], height, width)
    jobs: dict[str, Mask] = {}
    taken = np.zeros_like(whole)
    for region in row["regions"]:
        mask = rle.from_rle(region["rle"], height, width)
        name = chosen(fillers.get(region.get("filler") or region["kind"], fillers[""]), mask).name
        taken |= mask
        region["by"] = name
        if done is not None and region["kind"] == static_watermark.KIND and not region.get("filler"):
            mask &= ~done
            region["by"] = f"{TAKE_OFF}+{name}" if mask.any() else TAKE_OFF
            if not mask.any():
                continue
        jobs[name] = jobs[name] | mask if name in jobs else mask
    if np.any(rest := whole & ~taken):
        there = [part.name for part in parts_of(fillers[""]) if part.name in jobs]
        name = there[0] if there else chosen(fillers[""], whole).name
        jobs[name] = jobs[name] | rest if name in jobs else rest
    return jobs


def closed_of(row: Row) -> Mask:
    """What no fill may copy, HW bool: all that the row edits, and what may be more of it."""
    closed = rle.from_rle(row["mask_rle"], row["height"], row["width"])
    if row.get("forbidden"):
        closed |= rle.from_rle(row["forbidden"], row["height"], row["width"])
    return closed


def fill(
    pictures: list[Image],
    jobs: list[dict[str, Mask]],
    fillers: Mapping[str, Inpainter],
    closed: Sequence[Mask],
) -> list[Image]:
    """Each picture with its masks filled: HWC uint8 RGB in and out. Batches all pictures of one filler.

    closed: of each picture HW bool, True = may not be copied from.

    Raises ContractError when a filler changed a pixel outside its mask."""
    edited = list(pictures)
    for filler in {part.name: part for f in fillers.values() for part in parts_of(f)}.values():
        wants = [n for n, job in enumerate(jobs) if filler.name in job]
        if not wants:
            continue
        masks = [jobs[n][filler.name] for n in wants]
        results = filler([edited[n] for n in wants], masks, [closed[n] for n in wants])
        for n, result in zip(wants, results, strict=True):
            outside = ~jobs[n][filler.name]
            if result.shape != edited[n].shape or not np.array_equal(result[outside], edited[n][outside]):
                raise ContractError(f"inpainter {filler.name} changed pixels outside its mask")
            edited[n] = result
    return edited
