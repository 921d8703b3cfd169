"""Number plates by our own network: in each vehicle, enlarged, and in the whole picture, where it has to be surer.

What the network sees is shown to it again from close by, at three sizes, once mirrored: a plate stays one, much else
does not. What it is not sure of even then must read like a plate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from cleanplate.models.detectors.lettering.lines import Line, box_of
from cleanplate.models.detectors.lettering.reading import Reader
from cleanplate.models.detectors.objects.plate_network import Seen, load, look
from cleanplate.models.detectors.plates import reads_as_plate
from cleanplate.models.detectors.views import tiles
from cleanplate.models.segmenters.masks import polygon_mask
from cleanplate.models.types import Detector, Image, Region

SEEN = 0.6
"""Chance from which a find is looked at again."""
ON_VEHICLE, ANYWHERE, IF_READ = 0.9, 0.998, 0.6
"""Chances of all looks together from which a find counts: on a vehicle, elsewhere, and where it reads like a plate."""
TWO_LINES = 2.6
"""Width over height below which a plate may be read in two lines."""
CLOSE = ((16, False), (24, True), (36, False))
"""Height of a plate in pixels, and whether mirrored, of each look from close by."""
CLOSE_SIZE = (128, 256)
"""Height and width of that look."""
NEAR = 0.35
"""How far from the middle of such a look, as a share of the plate's sides, a find is the same one."""
ROUND = 0.12
"""Of each side: so much of what surrounds a vehicle is shown with it."""
GROWN = 1.12
"""A plate's mask over the quadrilateral that was found: its rim goes too."""
BATCH_PIXELS = 8 * 960 * 640
LEAST = 1e-3
"""Lowest chance that is told from nothing."""

Quad = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sight:
    """How pictures are shown. long_side: of the whole picture and of its tiles, and half of it for large plates.
    vehicle: long side of a vehicle. offset: tiles cut elsewhere (in tiles). mirror: left and right exchanged."""

    long_side: int = 960
    vehicle: int = 416
    offset: float = 0.0
    mirror: bool = False


AGAIN = Sight(832, 352, 0.5, mirror=True)
"""Another scale, other tiles, mirrored: for a second opinion."""


@dataclass(frozen=True)
class _Find:
    """outline: N x 2, what all looks together call plate."""

    quad: Quad
    score: float
    on_vehicle: bool
    outline: Quad


class PlateFinder:
    """Detector of number plates, kind 'plate', each with its quadrilateral as `Region.mask`.

    vehicles: a detector of kind 'vehicle', in whose boxes plates are looked for enlarged. reader: reads what the
    network is not sure of; None for none. Region.score is the network's chance. Holds no state between
    calls. Raises ValueError for weights of another network, nothing for an image's content.
    """

    def __init__(
        self,
        path: Path | str,
        vehicles: Detector,
        reader: Reader | None = None,
        sight: Sight | None = None,
        device: str = "cpu",
        name: str = "plates",
    ) -> None:
        self.name, self.sight = name, sight or Sight()
        self._vehicles, self._reader = vehicles, reader
        self._device = torch.device(device)
        self._net = load(path).to(self._device)

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        """One list of regions for each HWC uint8 RGB image, surest first; boxes xyxy pixels."""
        return [[region for region in some if not region.doubtful] for some in self.with_doubts(images)]

    def with_doubts(self, images: list[Image]) -> list[list[Region]]:
        """As a call, and behind them, doubtful, what the network saw and was not sure of."""
        finds = [self._again(image, some) for image, some in zip(images, self.finds(images), strict=True)]
        sure = [
            [find.score >= (ON_VEHICLE if find.on_vehicle else ANYWHERE) for find in some] for some in finds
        ]
        asked = [
            [find for find, known in zip(some, knows, strict=True) if not known and find.score >= IF_READ]
            for some, knows in zip(finds, sure, strict=True)
        ]
        read = [set(map(id, some)) for some in self._read_as_plates(images, asked)]
        out = []
        for image, some, knows, confirmed in zip(images, finds, sure, read, strict=True):
            judged = [
                self._region(image, find, known or id(find) in confirmed)
                for find, known in zip(some, knows, strict=True)
            ]
            regions = [region for region in judged if region is not None]
            out.append(sorted(regions, key=lambda region: (region.doubtful, -region.score)))
        return out

    def finds(self, images: list[Image]) -> list[list[_Find]]:
        """What the network sees from SEEN up, each plate once."""
        boxes = [[region.box for region in some] for some in self._vehicles(images)]
        plans = [self._views(image, some) for image, some in zip(images, boxes, strict=True)]
        found: list[list[_Find]] = [[] for _ in images]
        for members, crops in tiles.batches(images, plans, BATCH_PIXELS, self._device.type == "cuda"):
            if self.sight.mirror:
                crops = [np.ascontiguousarray(crop[:, ::-1]) for crop in crops]
            for (number, view), seen in zip(members, look(self._net, crops, SEEN), strict=True):
                for score, quad in seen:
                    if self.sight.mirror:
                        quad = np.array([view.size[1], 0]) + quad[[1, 0, 3, 2]] * np.array([-1, 1])
                    placed = view.to_image(quad)
                    found[number].append(_Find(placed, score, _in_any(placed, boxes[number]), placed))
        return [_once(some) for some in found]

    def _views(self, image: Image, vehicles: Sequence[tuple[float, float, float, float]]) -> list[tiles.View]:
        height, width = image.shape[:2]
        side = self.sight.long_side
        views = tiles.views(height, width, side, 1.5, 1.0, 0.2, self.sight.offset, 16)
        if max(height, width) > side / 2:
            views.append(tiles.whole(height, width, side // 2))
        for x0, y0, x1, y1 in vehicles:
            rim = ROUND * np.array([x1 - x0, y1 - y0])
            left, top = np.maximum(np.floor(np.array([x0, y0]) - rim), 0).astype(int).tolist()
            right, bottom = (
                np.minimum(np.ceil(np.array([x1, y1]) + rim), [width, height]).astype(int).tolist()
            )
            size = tiles.fitted(bottom - top, right - left, self.sight.vehicle, 3.0)
            views.append(tiles.View((left, top, right, bottom), size))
        return views

    def _again(self, image: Image, finds: list[_Find]) -> list[_Find]:
        """The finds with the chance of all looks together, the mean of their logits, and with all that the looks agree
        to be the plate."""
        views = [close(image, find.quad, height, mirror) for find in finds for height, mirror in CLOSE]
        seen = look(self._net, views, LEAST) if views else []
        out = []
        for number, find in enumerate(finds):
            looks = zip(seen[len(CLOSE) * number : len(CLOSE) * (number + 1)], CLOSE, strict=True)
            again = [in_middle(one, find.quad, height, mirror) for one, (height, mirror) in looks]
            chances = np.clip([find.score, *(score for score, _ in again)], LEAST, 1 - LEAST)
            logit = float(np.log(chances / (1 - chances)).mean())
            outlines = [
                find.quad,
                *(quad for score, quad in again if score > 0.5 and _shared(quad, find.quad) > 0.5),
            ]
            hull = np.asarray(cv2.convexHull(np.concatenate(outlines).astype(np.float32))[:, 0], np.float64)
            out.append(replace(find, score=1 / (1 + float(np.exp(-logit))), outline=hull))
        return out

    def _read_as_plates(self, images: list[Image], finds: list[list[_Find]]) -> list[list[_Find]]:
        """Those that read like a plate: in one line, or in two."""
        if self._reader is None or not any(finds):
            return [[] for _ in images]
        lines = [
            [Line(part, find.score) for find in some for part in (find.quad, *_halves(find.quad))]
            for some in finds
        ]
        read = self._reader(images, lines)
        confirmed: list[list[_Find]] = []
        for some, texts in zip(finds, read, strict=True):
            trios = [texts[n : n + 3] for n in range(0, len(texts), 3)]
            confirmed.append([find for find, trio in zip(some, trios, strict=True) if _says_plate(*trio)])
        return confirmed

    def _region(self, image: Image, find: _Find, believed: bool) -> Region | None:
        height, width = image.shape[:2]
        grown = find.outline.mean(0) + (find.outline - find.outline.mean(0)) * GROWN
        box = box_of(grown, height, width)
        if box is None:
            return None
        mask = polygon_mask((height, width), grown)
        if not mask.any():
            return None
        return Region("plate", self.name, min(1.0, find.score), box, mask, doubtful=not believed)


def _scale(quad: Quad, height: int) -> float:
    """What brings a plate to this height, or to most of the width of a close look."""
    across = max(2.0, float(np.linalg.norm(quad[3] - quad[0]) + np.linalg.norm(quad[2] - quad[1])) / 2)
    along = max(2.0, float(np.linalg.norm(quad[1] - quad[0]) + np.linalg.norm(quad[2] - quad[3])) / 2)
    return min(height / across, 0.8 * CLOSE_SIZE[1] / along)


def close(image: Image, quad: Quad, height: int, mirror: bool) -> Image:
    """CLOSE_SIZE of the image (HWC uint8 RGB) about a find, its edge repeated, at the scale that `_scale` gives."""
    high, wide = CLOSE_SIZE
    scale = _scale(quad, height)
    x, y = quad.mean(0)
    reach = np.array([wide, high]) / 2 / scale + 2
    x0, y0 = np.maximum(np.floor(np.array([x, y]) - reach), 0).astype(int).tolist()
    x1, y1 = np.minimum(np.ceil(np.array([x, y]) + reach), image.shape[1::-1]).astype(int).tolist()
    part = np.ascontiguousarray(image[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)])
    shrink = min(1.0, 1.4 * scale)
    if shrink < 0.8:
        size = (max(1, round(part.shape[1] * shrink)), max(1, round(part.shape[0] * shrink)))
        part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
    else:
        shrink = 1.0
    own = scale / shrink
    move = np.array([[own, 0, wide / 2 - (x - x0) * scale], [0, own, high / 2 - (y - y0) * scale]])
    seen = cv2.warpAffine(part, move, (wide, high), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(seen[:, ::-1] if mirror else seen).astype(np.uint8)


def in_middle(seen: Seen, quad: Quad, height: int, mirror: bool) -> tuple[float, Quad]:
    """The best of what was seen in the middle of a close look: chance, and corners in the image; 0 for nothing."""
    scale = _scale(quad, height)
    half = NEAR * scale * np.maximum(np.ptp(quad, axis=0), 4)
    middle = np.array([CLOSE_SIZE[1], CLOSE_SIZE[0]]) / 2
    for score, found in seen:  # the surest first
        if (np.abs(found.mean(0) - middle) <= half).all():
            own = found[[1, 0, 3, 2]] * np.array([-1, 1]) + np.array([CLOSE_SIZE[1], 0]) if mirror else found
            return score, np.asarray(quad.mean(0) + (own - middle) / scale, np.float64)
    return 0.0, quad


def _halves(quad: Quad) -> tuple[Quad, Quad]:
    """The upper and the lower line of a plate of two."""
    left, right = (quad[0] + quad[3]) / 2, (quad[1] + quad[2]) / 2
    return np.array([quad[0], quad[1], right, left]), np.array([left, right, quad[2], quad[3]])


def _says_plate(whole: Line, upper: Line, lower: Line) -> bool:
    if whole.read > 0.5 and reads_as_plate(whole.text):
        return True
    two = whole.width < TWO_LINES * whole.height and min(upper.read, lower.read) > 0.5
    return two and reads_as_plate(upper.text + lower.text)


def _in_any(quad: Quad, boxes: Sequence[tuple[float, float, float, float]]) -> bool:
    """Whether the middle lies in one of the boxes, a little grown."""
    x, y = quad.mean(0)
    for x0, y0, x1, y1 in boxes:
        rim_x, rim_y = 0.05 * (x1 - x0), 0.05 * (y1 - y0)
        if x0 - rim_x <= x <= x1 + rim_x and y0 - rim_y <= y <= y1 + rim_y:
            return True
    return False


def _once(finds: list[_Find]) -> list[_Find]:
    """Each plate once: of finds that share most of the smaller one the surest, on a vehicle if any is."""
    kept: list[_Find] = []
    for find in sorted(finds, key=lambda one: -one.score):
        if not any(_shared(find.quad, other.quad) > 0.5 for other in kept):
            kept.append(find)
    return kept


def _shared(one: Quad, other: Quad) -> float:
    """How much of the smaller quadrilateral lies in the other."""
    if (one.max(0) < other.min(0)).any() or (other.max(0) < one.min(0)).any():
        return 0.0
    first, second = (cv2.convexHull(quad.astype(np.float32)) for quad in (one, other))
    area, _ = cv2.intersectConvexConvex(first, second)
    return float(area / max(1e-6, min(cv2.contourArea(first), cv2.contourArea(second))))
