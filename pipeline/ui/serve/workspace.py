"""The pictures that are open in the page of `cleanplate serve`, and what a recipe does to one by hand.

It speaks arrays and encoded bytes, no HTTP. Everything here blocks, and models are not safe to share: the page's
server calls it from one thread. A picture keeps what its detectors found, so that a threshold, a toggle or another
inpainter does not ask them again.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal, cast

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cleanplate.models.segmenters.masks import grow as grow_mask
from cleanplate.models.types import Image, Mask, Region
from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.factory import check, inpainters, kinds, segmenters
from cleanplate.pipeline.images import encode, rle
from cleanplate.pipeline.images.decode import decode
from cleanplate.pipeline.images.encode import Decoded, Encoded
from cleanplate.pipeline.recipe.recipe import Kind, Recipe
from cleanplate.pipeline.schema.rows import Row
from cleanplate.pipeline.stages.detect import allowed
from cleanplate.pipeline.stages.inpaint import fill, masks_by_filler
from cleanplate.pipeline.stages.residue import look_again
from cleanplate.pipeline.stages.rows import region_struct
from cleanplate.pipeline.stages.segment import grow

if TYPE_CHECKING:
    from cleanplate.models.segmenters.clicks import Clicks

KEPT_PICTURES, KEPT_PIXELS, KEPT_RESULTS = 12, 200_000_000, 8
"""What is kept in memory: the newest pictures, and the newest results of each."""


Point = tuple[float, float]


class Stroke(BaseModel):
    """One pull of the brush, in pixels of the upright picture. size: its width. object: no brush, but a click: what
    lies under its first point."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["paint", "erase", "object"]
    size: Annotated[float, Field(gt=0, le=4096)]
    points: Annotated[tuple[Point, ...], Field(min_length=1, max_length=20_000)]


class Wanted(BaseModel):
    """What a person asks to be filled. on: numbers of the finds whose masks count; strokes: laid over them in
    order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Recipe
    on: tuple[int, ...] = ()
    strokes: Annotated[tuple[Stroke, ...], Field(max_length=5000)] = ()


@dataclass(frozen=True)
class Found:
    """One find. mask: HW bool, grown as the recipe says. allowed: the recipe's limits of size and place let it count,
    whatever its score: the page has that on a slider."""

    region: Region
    mask: Mask
    allowed: bool


@dataclass(frozen=True)
class Result:
    """What became of a picture. left: what the verifying detectors still find where something was edited."""

    after: Image
    mask: Mask
    file: Encoded
    inpainter: str
    left: list[Region]
    seconds: float


@dataclass
class Picture:
    """An open picture and the results of every request for it."""

    name: str
    source: bytes
    decoded: Decoded
    regions: dict[str, list[Region]] = field(default_factory=dict)
    """By the recipe's detectors, as their settings are in JSON."""
    results: OrderedDict[str, Result] = field(default_factory=OrderedDict)
    clicks: tuple[str, Clicks] | None = None
    """By the name of the weights: what knows the objects of this picture."""
    objects: dict[tuple[str, Point], Mask] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        return self.decoded.height, self.decoded.width


class Workspace:
    """Pictures by an id that cannot be guessed. Methods raise KeyError for one that is no longer there."""

    def __init__(self) -> None:
        self.pictures: OrderedDict[str, Picture] = OrderedDict()
        self.doing = ""
        """What the thread that works is at, in words."""
        self._checked: set[tuple[str, ...]] = set()

    def put(self, name: str, source: bytes, max_pixels: int) -> str:
        """Decode a file and keep it. Raises ImageError for what is no picture or too large."""
        decoded = decode(source, max_pixels=max_pixels)
        key = secrets.token_urlsafe(12)
        self.pictures[key] = Picture(name, source, decoded)
        while len(self.pictures) > 1 and (
            len(self.pictures) > KEPT_PICTURES
            or sum(p.decoded.pixels.size // 3 for p in self.pictures.values()) > KEPT_PIXELS
        ):
            self.pictures.popitem(last=False)
        return key

    def get(self, key: str) -> Picture:
        self.pictures.move_to_end(key)
        return self.pictures[key]

    def find(self, key: str, recipe: Recipe) -> list[Found]:
        """What the recipe's detectors see, each with its mask; also what the recipe's limits would drop.

        Raises WeightsError or ConfigError where a model of the recipe cannot be had.
        """
        picture = self.get(key)
        regions = self._regions(picture, recipe)
        self.doing = "Drawing the masks"
        self._check(recipe)
        drawn = segmenters.segmenter(recipe)([picture.decoded.pixels], [regions])[0] if regions else []
        return [
            Found(region, grow(mask, region, recipe.masks), _allowed(region, picture.decoded.pixels, recipe))
            for region, mask in zip(regions, drawn, strict=True)
        ]

    def _regions(self, picture: Picture, recipe: Recipe) -> list[Region]:
        asked = recipe.model_dump_json(exclude={"detect", "masks", "inpaint", "verify", "output", "engine"})
        if asked not in picture.regions:
            self.doing = "Loading the detectors"
            self._check(recipe)
            found: list[Region] = []
            for detector in kinds.detectors(recipe):
                self.doing = f"Looking with {detector.name}"
                found += [r for r in detector([picture.decoded.pixels])[0] if r.kind in recipe.remove]
            picture.regions[asked] = found
        return picture.regions[asked]

    def object_at(self, key: str, recipe: Recipe, point: Point) -> Mask:
        """HW bool: the object under x, y. Raises WeightsError, and ConfigError for a point outside the picture."""
        picture, name = self.get(key), segmenters.sam_clicked(recipe)
        if (name, point) not in picture.objects:
            if picture.clicks is None or picture.clicks[0] != name:
                self.doing = f"Encoding the picture with {name}"
                picture.clicks = name, segmenters.by_clicks(recipe, picture.decoded.pixels)
            self.doing = "Finding the object"
            try:
                found = picture.clicks[1](*point)
            except ValueError as error:
                raise ConfigError(str(error)) from error
            picture.objects[name, point] = grow_mask(found, recipe.masks.grow_px)
        return picture.objects[name, point]

    def run(self, key: str, wanted: Wanted) -> str:
        """Fill what is wanted, look at the result, write the file; the id of the result.

        Raises ConfigError when nothing is masked, when all is, or where a find's number is unknown; WeightsError.
        """
        picture, recipe, start = self.get(key), wanted.recipe, time.perf_counter()
        found = self.find(key, recipe)
        if any(not 0 <= n < len(found) for n in wanted.on):
            raise ConfigError("the finds have changed since: find again")
        objects = {
            s.points[0]: self.object_at(key, recipe, s.points[0])
            for s in wanted.strokes
            if s.mode == "object"
        }
        mask = painted([found[n].mask for n in wanted.on], wanted.strokes, *picture.size, objects)
        if not mask.any():
            raise ConfigError("nothing is masked: switch a find on, or paint with the brush")
        if mask.all():
            raise ConfigError("the mask covers the whole picture: nothing is left to fill it from")
        self.doing = f"Loading {recipe.inpaint.name}"
        self._check(recipe)
        fillers = inpainters.inpainters(recipe)
        row = _row([found[n] for n in wanted.on], mask)
        job = masks_by_filler(row, fillers)
        self.doing = f"Filling with {' and '.join(job)}"
        # Not from what a person switched off either: it was found, and may be another of the same.
        closed = painted([one.mask for one in found], wanted.strokes, *picture.size, objects)
        after = fill([picture.decoded.pixels], [job], fillers, [closed | mask])[0]
        self.doing = "Looking at the result"
        verifiers = kinds.verifiers(recipe) if recipe.verify.scope != "none" else []
        left = look_again([row], [after], verifiers, recipe, [picture.decoded.pixels])[0]
        self.doing = "Writing the file"
        file = encode.encode(
            picture.source,
            picture.decoded,
            after,
            mask,
            format=recipe.output.format,
            quality=recipe.output.quality,
            metadata=recipe.output.metadata,
        )
        done = Result(after, mask, file, "+".join(job), left, time.perf_counter() - start)
        name = secrets.token_urlsafe(12)
        picture.results[name] = done
        while len(picture.results) > KEPT_RESULTS:
            picture.results.popitem(last=False)
        return name

    def _check(self, recipe: Recipe) -> None:
        """Fetch, hash and open the recipe's weights, once for each set of them."""
        names = check.weights_of(recipe)
        if names not in self._checked:
            check.check(recipe)
            self._checked.add(names)


def _allowed(region: Region, pixels: Image, recipe: Recipe) -> bool:
    rule = recipe.detect_for(cast(Kind, region.kind))  # Of the recipe's kinds: see _regions.
    return allowed(region, pixels, rule.model_copy(update={"min_score": None}))


def painted(
    drawn: list[Mask],
    strokes: tuple[Stroke, ...],
    height: int,
    width: int,
    objects: Mapping[Point, Mask] | None = None,
) -> Mask:
    """HW bool: the union of the masks, with the strokes laid over it one after the other. objects: by the point that
    was clicked."""
    canvas = rle.union(drawn, height, width).astype(np.uint8)
    for stroke in strokes:
        if stroke.mode == "object":
            canvas |= (objects or {})[stroke.points[0]].view(np.uint8)
            continue
        # Far outside the picture is as good as just outside it, and fits OpenCV's fixed point numbers.
        points = np.clip(np.rint(np.array(stroke.points)), -20_000, 40_000).astype(np.int32).reshape(-1, 1, 2)
        value, thickness = int(stroke.mode == "paint"), max(1, round(stroke.size))
        cv2.polylines(canvas, [points], isClosed=False, color=value, thickness=thickness)
        if len(points) == 1:
            x, y = points[0, 0].tolist()
            cv2.circle(canvas, (x, y), max(1, thickness // 2), color=value, thickness=cv2.FILLED)
    return canvas.astype(bool)


def _row(found: list[Found], mask: Mask) -> Row:
    """The finds as the stages' rows have them, cut down to what is left of them under the brush."""
    kept = [(one.region, one.mask & mask) for one in found]
    boxes = [region_struct(region, cut) for region, cut in kept if cut.any()]
    painted = mask & ~rle.union([cut for _, cut in kept], *mask.shape)
    painted_box = rle.box_of(painted)
    if painted_box:  # The look at the result looks beside what was painted by hand, too.
        boxes.append({"kind": "", "box": list(painted_box), "rle": rle.to_rle(painted)})
    return {
        "height": mask.shape[0],
        "width": mask.shape[1],
        "regions": boxes,
        "mask_rle": rle.to_rle(mask),
        "review": None,
    }
