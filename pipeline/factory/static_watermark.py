"""static-watermark, for one row: which marks its collection shares, whether they show in it, and how they come off.

`pipeline/engine/estimate_watermarks.py` finds them before the run and stores them beside it:
consensus/index.json, and consensus/<group>.npz and .png for each group.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np

from cleanplate.models.types import Image, Mask, Region
from cleanplate.pipeline.errors import ConfigError, ContractError
from cleanplate.pipeline.images.decode import upright, upright_to_stored
from cleanplate.pipeline.images.formats.jpeg_coding import blocks as jpeg_blocks
from cleanplate.pipeline.images.formats.table import orientation_of, sniff
from cleanplate.pipeline.recipe.kind_sections import Consensus as Rule
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.schema.rows import RegionRow, Row
from cleanplate.pipeline.storage.connect import Store, open_store

if TYPE_CHECKING:
    from cleanplate.models.static_watermark.overlay import Mark
    from cleanplate.models.static_watermark.overlay_jpeg import Plane

KIND = "static-watermark"
FOLDER = "consensus"
INDEX = f"{FOLDER}/index.json"
WAYS: dict[str, tuple[str, ...]] = {
    "auto": ("size", "folder", "all"),
    "size": ("size",),
    "folder": ("folder",),
    "all": ("all",),
}
"""By `consensus.group`: how images are grouped; the next way takes those whose group is too small."""
_LEFT = 0.35
"""A result whose strength is beyond this (either way: taken off too little or too much) still shows the mark."""


def group_of(uri: str, size: tuple[int, int], by: str) -> str:
    """The group of an image: "640x480", the folder that it (or its container) lies in, or "all"."""
    if by == "all":
        return "all"
    return f"{size[0]}x{size[1]}" if by == "size" else unquote(uri.partition("#")[0].rpartition("/")[0])


def key_of(group: str, digest: str, ending: str = "npz") -> str:
    return f"{FOLDER}/{hashlib.sha256(group.encode()).hexdigest()[:16]}-{digest[:12]}.{ending}"


def packed(marks: Sequence[Mark], count: int) -> bytes:
    sink = io.BytesIO()
    arrays: dict[str, Any] = {"images": np.array(count)}
    for n, mark in enumerate(marks):
        fields = asdict(mark) | {"anchor": mark.anchor or ()}
        arrays |= {f"{n}.{name}": np.asarray(v) for name, v in fields.items() if v is not None}
    np.savez_compressed(sink, **arrays)
    return sink.getvalue()


def _unpacked(data: bytes) -> list[Mark]:
    from cleanplate.models.static_watermark.overlay import Mark

    with np.load(io.BytesIO(data), allow_pickle=False) as held:
        count = sum(name.endswith(".box") for name in held.files)
        return [
            Mark(
                tuple(held[f"{n}.box"].tolist()),
                held[f"{n}.alpha"],
                held[f"{n}.colour"],
                tuple(held[f"{n}.frame"].tolist()),
                int(held[f"{n}.support"]),
                tuple(held[f"{n}.anchor"].tolist()) or None,
                *(held.get(f"{n}.{name}") for name in ("relief", "parts", "unsure")),
            )
            for n in range(count)
        ]


class Consensus:
    """The marks of a run, looked up for each row. The stages of a worker share one (`opened`); a group's marks are
    fetched when its first row comes, and brought to each size once."""

    def __init__(self, rule: Rule, index: bytes) -> None:
        from cleanplate.models.static_watermark import overlay, traces

        self.model, self.traces, self.rule = overlay, traces, rule
        self.store, self.index = open_store(rule.found or ""), dict(json.loads(index))
        self._fetched = lru_cache(maxsize=16)(self._fetch)
        self._placed = lru_cache(maxsize=32)(self._place)

    def _fetch(self, group: str) -> list[Mark]:
        digest = self.index[group]["sha256"]
        data = self.store.get(key_of(group, digest))
        if hashlib.sha256(data).hexdigest() != digest:
            raise ContractError(f"{self.store.url}/{key_of(group, digest)} is not what {INDEX} says")
        return _unpacked(data)

    def _place(self, group: str, size: tuple[int, int]) -> list[Mark]:
        return [
            there for mark in self._fetched(group) if (there := self.model.placed(mark, size)) is not None
        ]

    def _group(self, row: Row) -> str | None:
        """The first of the row's groups that is large enough; None where none is."""
        size = (row["width"], row["height"])
        names = (group_of(row["source_uri"], size, by) for by in WAYS[self.rule.group])
        return next((n for n in names if self._images(n) >= self.rule.min_images), None)

    def _images(self, group: str) -> int:
        return int(self.index.get(group, {"images": 0})["images"])

    def marks(self, row: Row) -> list[Mark]:
        """The marks of the row's group, as they lie in its image."""
        group = self._group(row)
        if group is None or not self.index[group]["marks"]:
            return []
        return self._placed(group, (row["width"], row["height"]))

    def find(self, row: Row, picture: Image) -> tuple[str, list[Region]]:
        """(what looked, the marks that this image carries)."""
        group = self._group(row)
        if group is None:
            return "consensus: too few images alike", []
        known = self.index[group]
        scored = [(mark, self.model.strength(picture, mark)) for mark in self.marks(row)]
        found = [_region(m, picture, min(1.0, s)) for m, s in scored if s >= self.model.PRESENT]
        which = f" ({known['sha256'][:12]})" if known["sha256"] else ""
        return f"consensus of {known['images']} images{which}", found

    def left(self, row: Row, result: Image) -> list[Region]:
        """The marks that still show in a result, as a whole or by one of their parts, among those that were found in
        the source. Writes into the row's regions how strongly each does."""
        found = []
        for mark, region in self._of(row):
            scores = (self.model.strength(result, mark), self.traces.showing(result, mark, _LEFT))
            score = max(scores, key=lambda s: abs(s) if np.isfinite(s) else 0.0)
            region["left"] = score if np.isfinite(score) else None
            if abs(score) > _LEFT:
                found.append(_region(mark, result, min(1.0, abs(score))))
        return found

    def lifted(self, row: Row, picture: Image) -> tuple[Image, Mask | None]:
        """The picture with the row's marks taken off where their opacity allows it, and HW bool: where that was
        done and nothing is left to fill; None for a row without such marks. A region that a repair gave to a filler
        is left to it."""
        mine = [mark for mark, region in self._of(row) if not region.get("filler")]
        if not mine:
            return picture, None
        done = np.zeros(picture.shape[:2], np.bool_)
        planes = planes_of(row["source"])
        turn = orientation_of(row["source"], "jpeg") if planes else 1
        for mark in mine:
            picture, rest = self._taken_off(picture, mark, planes, turn)
            x0, y0, x1, y1 = mark.box
            done[y0:y1, x0:x1] |= ~rest[y0:y1, x0:x1]
        return picture, done

    def _taken_off(
        self, picture: Image, mark: Mark, planes: list[Plane], orientation: int
    ) -> tuple[Image, Mask]:
        if not planes:
            return self.model.take_off(picture, mark, self.rule.max_opacity)
        from cleanplate.models.static_watermark.overlay_jpeg import take_off_jpeg

        stored = np.ascontiguousarray(upright_to_stored(picture, orientation))
        turned = _turned(mark, picture.shape[:2], orientation)
        restored, rest = take_off_jpeg(stored, planes, turned, self.rule.max_opacity)
        return np.ascontiguousarray(upright(restored, orientation)), upright(rest, orientation)

    def _of(self, row: Row) -> Iterator[tuple[Mark, RegionRow]]:
        """The marks that were found in the row, each with its region."""
        boxes = {tuple(round(v) for v in r["box"]): r for r in row["regions"] or [] if r["kind"] == KIND}
        return ((mark, boxes[mark.box]) for mark in self.marks(row) if mark.box in boxes)


def planes_of(source: bytes) -> list[Plane]:
    """The planes of a JPEG in brightness and colour differences; none for any other file."""
    from cleanplate.models.static_watermark.overlay_jpeg import Plane

    if sniff(source) != "jpeg":
        return []
    try:
        found = jpeg_blocks.read(source)
        if found.space not in ("L", "YCC"):
            return []
        sides = [jpeg_blocks.footprint(found.components, c) for c in found.components]
    except jpeg_blocks.SpliceError:
        return []
    return [
        Plane(c.blocks.reshape(*c.blocks.shape[:2], 8, 8), table, (high // 8, wide // 8))
        for c, table, (high, wide) in zip(found.components, found.tables, sides, strict=True)
    ]


def _turned(mark: Mark, shape: tuple[int, int], orientation: int) -> Mark:
    """The mark in the file's own frame. shape: (height, width) of the upright picture."""
    if orientation == 1:
        return mark
    x0, y0, x1, y1 = mark.box
    here = np.zeros(shape, np.bool_)
    here[y0:y1, x0:x1] = True
    there = upright_to_stored(here, orientation)
    rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    alpha, colour = (upright_to_stored(field, orientation) for field in (mark.alpha, mark.colour))
    unsure = None if mark.unsure is None else upright_to_stored(mark.unsure, orientation)
    mark = replace(mark, relief=None, parts=None, unsure=unsure)
    return replace(mark, box=box, alpha=alpha, colour=colour, frame=(there.shape[1], there.shape[0]))


def _region(mark: Mark, picture: Image, score: float) -> Region:
    x0, y0, x1, y1 = mark.box
    mask = np.zeros(picture.shape[:2], np.bool_)
    mask[y0:y1, x0:x1] = mark.mask
    return Region(KIND, "consensus", score, (float(x0), float(y0), float(x1), float(y1)), mask)


def opened(recipe: Recipe) -> Consensus | None:
    """What looks up a row's marks, when the recipe removes static-watermark. Raises ConfigError outside a run."""
    if KIND not in recipe.remove:
        return None
    if recipe.consensus.found is None:
        raise ConfigError(
            f"{KIND} is what a whole collection has in common: only `cleanplate run` can remove it; one image alone "
            "cannot be looked at with this recipe"
        )
    return _shared(recipe.consensus, open_store(recipe.consensus.found).get(INDEX))


@lru_cache(maxsize=2)
def _shared(rule: Rule, index: bytes) -> Consensus:
    return Consensus(rule, index)


def placed(recipe: Recipe, output: Store) -> Recipe:
    """The recipe that travels to the workers: it names the place of the run's marks."""
    return recipe.model_copy(update={"consensus": recipe.consensus.model_copy(update={"found": output.url})})
