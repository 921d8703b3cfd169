"""Samples for the training of `plates`: plates on vehicles, plates anywhere, and photographs without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cleanplate.models.detectors.objects.plate_network import REACH, STRIDE
from cleanplate.models.training.data import PhotoBank, augment, random_crop
from cleanplate.models.training.marks.data import varied
from cleanplate.models.training.marks.fonts import Fonts
from cleanplate.models.training.plates.layouts import choose
from cleanplate.models.training.plates.scene import Picture, Quad, decoy, finished, hung, pose
from cleanplate.models.types import Image

VEHICLES, ANYWHERE = 0.42, 0.3
"""Shares of samples with plates on a vehicle, and with plates anywhere; the others have none."""
BARE = 0.15
"""Share of the vehicles that get no plate."""
LEAST, MOST = 7.0, 62.0
"""Heights of plates, pixels of the sample."""
CORE, WHOLE = (0.62, 0.5), 1.15
"""Along and across: so much of a plate about its middle says that it is one; and so much about the plate neither."""


@dataclass(frozen=True)
class Vehicles:
    """Where vehicles are: (number of the photograph in its bank, box xyxy in its pixels)."""

    boxes: Sequence[tuple[int, tuple[float, float, float, float]]]


class PlateSamples(Dataset[tuple[Tensor, Tensor, Tensor, Tensor]]):
    """Sample i of a training is made from (seed, i) alone, so a run that goes on sees what it would have seen.

    size: (height, width). held: layouts that training does not see, for measuring. Gives 3 x H x W in [0, 1]; 1 x h x w
    middles; 1 x h x w what counts; 8 x h x w offsets of corners; h, w of the network's cells.
    """

    def __init__(
        self,
        bank: PhotoBank,
        vehicles: Vehicles,
        fonts: Fonts,
        size: tuple[int, int],
        seed: int,
        held: bool = False,
    ) -> None:
        self.bank, self.vehicles, self.fonts = bank, vehicles, fonts
        self.size, self.seed, self.held = size, seed, held

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        image, quads = self.sample(index)
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255
        middle, counted, offsets = (torch.from_numpy(part) for part in targets(quads, self.size))
        return pixels, middle, counted, offsets

    def sample(self, index: int) -> tuple[Image, list[Quad]]:
        """As arrays: HWC uint8 RGB, and the corners of each plate in it."""
        rng = np.random.default_rng([self.seed, index])
        chance = rng.random()
        quads: list[Quad] = []
        if chance < VEHICLES and self.vehicles.boxes:
            picture, box = self._vehicle(rng)
            self._decoys(rng, picture, 0.3)
            if rng.random() > BARE:
                quads = self._on_vehicle(rng, picture, box)
        else:
            picture = self._anywhere(rng)
            self._decoys(rng, picture, 0.5 if chance > VEHICLES + ANYWHERE else 0.3)
            if chance < VEHICLES + ANYWHERE:
                quads = self._hung(rng, picture, int(rng.integers(1, 4)))
        image = finished(rng, picture)
        if rng.random() < 0.12:
            return mirrored(image, quads)
        return image, quads

    def _vehicle(self, rng: np.random.Generator) -> tuple[Picture, npt.NDArray[np.float64]]:
        """A window about a vehicle, which is 60 to 420 pixels wide in it; and the vehicle's box there."""
        height, width = self.size
        number, box = self.vehicles.boxes[int(rng.integers(len(self.vehicles.boxes)))]
        photo = self.bank.images[number]
        x0, y0, x1, y1 = box
        scale = float(np.exp(rng.uniform(np.log(60), np.log(420)))) / max(x1 - x0, 1)
        scale = min(scale, 3.0)
        middle = np.array([rng.uniform(x0, x1), y0 + (y1 - y0) * rng.uniform(0.35, 0.9)])
        low = middle - np.array([width, height]) / 2 / scale
        picture = window(photo, low, scale, self.size)
        picture = recoloured(rng, picture)
        inside = (np.array([[x0, y0], [x1, y1]]) - low) * scale
        if rng.random() < 0.5:
            picture = np.ascontiguousarray(picture[:, ::-1])
            inside[:, 0] = width - inside[::-1, 0]
        return picture.astype(np.float32), inside

    def _anywhere(self, rng: np.random.Generator) -> Picture:
        height, width = self.size
        square = varied(rng, random_crop(rng, self.bank.draw(rng), width, (0.5, 2.2)))
        top = int(rng.integers(width - height + 1))
        return np.ascontiguousarray(augment(rng, square)[top : top + height]).astype(np.float32)

    def _on_vehicle(
        self, rng: np.random.Generator, picture: Picture, box: npt.NDArray[np.float64]
    ) -> list[Quad]:
        (x0, y0), (x1, y1) = box
        layout = choose(rng, self.held)
        aspect = sum(layout.aspect) / 2
        share = 0.27 if aspect > 2.5 else 0.2
        height = float(np.clip((x1 - x0) * share / aspect * np.exp(rng.normal(0, 0.35)), LEAST, MOST))
        # Where a plate may hang, and the window shows it.
        places = [
            (np.clip(x0 + (x1 - x0) * rng.uniform(0.15, 0.85), 0, self.size[1]),
             np.clip(y0 + (y1 - y0) * rng.uniform(0.35, 0.95), 0, self.size[0]))
            for _ in range(1 + (rng.random() < 0.15))
        ]  # fmt: skip
        return self._placed(rng, picture, [(float(x), float(y), height) for x, y in places])

    def _hung(self, rng: np.random.Generator, picture: Picture, count: int) -> list[Quad]:
        high, wide = self.size
        return self._placed(
            rng,
            picture,
            [
                (
                    float(rng.uniform(0.05, 0.95) * wide),
                    float(rng.uniform(0.08, 0.92) * high),
                    float(np.exp(rng.uniform(np.log(LEAST), np.log(MOST)))),
                )
                for _ in range(count)
            ],
        )

    def _placed(
        self, rng: np.random.Generator, picture: Picture, places: list[tuple[float, float, float]]
    ) -> list[Quad]:
        """A plate at each x, y, height that touches none before it."""
        quads: list[Quad] = []
        for x, y, height in places:
            reach = np.array([3.2, 1.6]) * height
            if any(
                (np.abs(quad.mean(0) - [x, y]) < reach + np.ptp(quad, axis=0) / 2).all() for quad in quads
            ):
                continue
            quads.append(hung(rng, picture, self.fonts, choose(rng, self.held), pose(rng, (x, y), height)))
        return quads

    def _decoys(self, rng: np.random.Generator, picture: Picture, share: float) -> None:
        for _ in range(int(rng.integers(1, 4)) if rng.random() < share else 0):
            x, y = rng.uniform(0, self.size[1]), rng.uniform(0, self.size[0])
            height = float(np.exp(rng.uniform(np.log(LEAST), np.log(MOST))))
            decoy(rng, picture, self.fonts, pose(rng, (float(x), float(y)), height))


def window(photo: Image, low: npt.NDArray[np.float64], scale: float, size: tuple[int, int]) -> Image:
    """size (height, width) of the photograph from x, y = low at a scale; mirrored beyond its edge."""
    height, width = size
    x0, y0 = np.floor(low).astype(int).tolist()
    wide, high = max(2, round(width / scale)), max(2, round(height / scale))
    left, top = max(0, x0), max(0, y0)
    right, bottom = min(photo.shape[1], x0 + wide), min(photo.shape[0], y0 + high)
    cut = photo[top : max(bottom, top + 1), left : max(right, left + 1)]
    if cut.size == 0:
        cut = photo[:2, :2]
    above, below = max(0, top - y0), max(0, y0 + high - top - cut.shape[0])
    before, behind = max(0, left - x0), max(0, x0 + wide - left - cut.shape[1])
    cut = np.asarray(cv2.copyMakeBorder(cut, above, below, before, behind, cv2.BORDER_REFLECT), np.uint8)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(cut, (width, height), interpolation=how), np.uint8)


def recoloured(rng: np.random.Generator, image: Image) -> Image:
    """Another paint, another light: channels exchanged, gamma, brightness."""
    if rng.random() < 0.4:
        image = image[..., rng.permutation(3)]
    if rng.random() < 0.5:
        gamma = np.exp(rng.uniform(-0.6, 0.6) + rng.uniform(-0.15, 0.15, 3))
        tones = (np.arange(256) / 255)[:, None] ** gamma * 255
        image = np.asarray(
            cv2.LUT(np.ascontiguousarray(image), np.round(tones).astype(np.uint8)[:, None]), np.uint8
        )
    return np.ascontiguousarray(image)


def mirrored(image: Image, quads: list[Quad]) -> tuple[Image, list[Quad]]:
    """Left and right exchanged; corners are named by where they are, not by what is read."""
    turned = [np.array([image.shape[1], 0]) + quad[[1, 0, 3, 2]] * np.array([-1, 1]) for quad in quads]
    return np.ascontiguousarray(image[:, ::-1]), [np.asarray(quad, np.float32) for quad in turned]


def targets(
    quads: list[Quad], size: tuple[int, int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """1 x h x w middles, 1 x h x w what counts, 8 x h x w offsets to the corners over REACH."""
    height, width = size[0] // STRIDE, size[1] // STRIDE
    middle, counted = np.zeros((height, width), np.float32), np.ones((height, width), np.float32)
    offsets = np.zeros((8, height, width), np.float32)
    y, x = np.mgrid[:height, :width]
    at = (np.stack([x, y], -1) + 0.5) * STRIDE
    for quad in quads:
        centre = quad.mean(0)
        along = ((quad[1] + quad[2]) - (quad[0] + quad[3])) / 2
        across = ((quad[2] + quad[3]) - (quad[0] + quad[1])) / 2
        core = centre + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) @ np.stack(
            [along * CORE[0] / 2, across * CORE[1] / 2]
        )
        inside = _filled(core, (height, width))
        column, row = np.floor(centre / STRIDE).astype(int)
        shown = 0 <= row < height and 0 <= column < width
        counted[_filled(centre + (quad - centre) * WHOLE, (height, width))] = 0
        if not shown:
            continue  # most of it is outside
        inside[row, column] = True
        middle[inside], counted[inside] = 1, 1
        offsets[:, inside] = ((quad[None] - at[inside][:, None]) / REACH).reshape(-1, 8).T
    return middle[None], counted[None], offsets


def _filled(quad: npt.NDArray[np.floating], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Cells whose middles lie in a quad of the sample's pixels."""
    canvas = np.zeros(size, np.uint8)
    points = np.round((quad / STRIDE - 0.5) * 16).astype(np.int32)
    cv2.fillConvexPoly(canvas, points, 1, cv2.LINE_8, 4)
    return np.asarray(canvas > 0)
