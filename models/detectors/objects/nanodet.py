"""Persons, vehicles and 78 other kinds of thing: NanoDet-g, one network of 3.8 million parameters on COCO's 80 words.

RangiLyu/nanodet (Apache-2.0), an anchor-free detector in one stage: each cell of three grids gives the chance of each
word, and for each side of a box a distribution over 11 distances (Li et al. 2020, arXiv:2006.04388). The weights are
converted from the package that carries them by `python -m cleanplate.jobs.train.convert_nanodet`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from cleanplate.models.detectors.objects.coco import NAMES
from cleanplate.models.detectors.views import tiles
from cleanplate.models.types import Image, Region, iou

SIDE = 416
"""Long side of what the network sees; it was trained on squares of this."""
STRIDES = (8, 16, 32)
BINS = 11
MEAN = np.array([103.53, 116.28, 123.675], np.float32)
STD = np.array([57.375, 57.12, 58.395], np.float32)
"""Of blue, green and red."""
MIN_SCORE, MIN_SCORES = 0.4, {"vehicle": 0.35}
"""Lowest that counts, and of kinds that differ. As measured on other photographs before these were looked at."""
SAME = 0.6
"""Intersection over union from which two boxes of a kind are one thing."""
PIECE, INSIDE = 16.0, 0.5
"""A box that ends within so many pixels of the network at an inner edge of its tile is a piece of a thing, and is
left out when so much of it lies in another box."""
BATCH_PIXELS = 16 * SIDE * SIDE

DOUBT, MOST_DOUBTS = 0.6, 60
"""From this share of the score that is asked on it may be one: nothing is copied from there. The surest of one picture,
at most."""
Rows = npt.NDArray[np.float64]
"""N x 7: x0, y0, x1, y1 in image pixels, score, class, 1 for a piece that its tile cuts off."""


class _Stage(nn.Module):
    """Convolutions that pass half of their channels on beside what the next makes of them: C channels in, 2 C out."""

    def __init__(self, channels: int, stride: int, pairs: int) -> None:
        super().__init__()
        half = channels // 2
        self.first = nn.Conv2d(channels, channels, 3, stride, 1)
        self.pairs = nn.ModuleList(
            nn.ModuleList([nn.Conv2d(channels, half, 3, 1, 1), nn.Conv2d(half, half, 3, 1, 1)])
            for _ in range(pairs)
        )
        self.last = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        whole = x = _bent(self.first(x))
        for pair in self.pairs:
            one, two = cast(nn.ModuleList, pair)
            half = _bent(one(x))
            x = torch.cat([_bent(two(half)), half], 1)
        return torch.cat([_bent(self.last(x)), whole], 1)


def _bent(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, 0.1, inplace=True)


def _sized(x: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


class NanoDet(nn.Module):
    """B x 3 x H x W float, BGR less MEAN over STD, sides multiples of 32 -> for each stride B x (80 + 4 * 11) x H/s x
    W/s: logits of the words, then of the distances to the left, upper, right and lower side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, 1)
        shapes = ((32, 1, 1), (64, 2, 2), (128, 2, 2), (256, 2, 3))
        self.stages = nn.ModuleList(_Stage(*shape) for shape in shapes)
        self.laterals = nn.ModuleList(nn.Conv2d(channels, 128, 1) for channels in (128, 256, 512))
        self.heads = nn.ModuleList(nn.Conv2d(128, 128, 3, 1, 1) for _ in STRIDES)
        self.outputs = nn.ModuleList(nn.Conv2d(128, len(NAMES) + 4 * BINS, 1) for _ in STRIDES)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = functional.max_pool2d(_bent(self.stem(x.contiguous(memory_format=torch.channels_last))), 3, 2, 1)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        fine, middle, coarse = (one(level) for one, level in zip(self.laterals, levels[1:], strict=True))
        # Down the pyramid, and up again.
        middle = middle + _sized(coarse, middle)
        fine = fine + _sized(middle, fine)
        middle = middle + _sized(fine, middle)
        coarse = coarse + _sized(middle, coarse)
        parts = zip(self.heads, self.outputs, (fine, middle, coarse), strict=True)
        return [output(_bent(head(level))) for head, output, level in parts]


def load(path: Path | str) -> NanoDet:
    """Weights of a safetensors file (fp16 or fp32), in eval mode. Raises ValueError when they do not fit."""
    net = NanoDet()
    try:
        net.load_state_dict({key: tensor.float() for key, tensor in load_file(path).items()})
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold the weights of NanoDet-g: {error}") from error
    return net.to(memory_format=torch.channels_last).eval()  # type: ignore[no-any-return, call-overload]


@dataclass(frozen=True)
class Wanted:
    """What one class counts as. kind: of its regions. min_score: lowest that counts, and Region.score."""

    kind: str
    min_score: float = MIN_SCORE


class NanoDetDetector:
    """Detector of some of COCO's words; `Region.detector` ends in the word.

    wanted: class -> what it counts as; one pass serves them all. offset, mirror: tiles cut elsewhere (in tiles), and
    everything mirrored, for a second opinion. most: tiles of a picture at most, 0 for none. Holds no state between
    calls. Raises ValueError for weights of another network, nothing for an image's content.
    """

    def __init__(
        self,
        path: Path | str,
        wanted: Mapping[int, Wanted],
        side: int = SIDE,
        offset: float = 0.0,
        mirror: bool = False,
        most: int = 16,
        device: str = "cpu",
        name: str = "nanodet",
    ) -> None:
        self.name, self.wanted, self.side = name, dict(wanted), side
        self.offset, self.mirror, self.most = offset, mirror, most
        self._device = torch.device(device)
        self._net = load(path).to(self._device)

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        """One list of regions for each HWC uint8 RGB image, surest first; boxes xyxy pixels."""
        return [[r for r in regions if not r.doubtful] for regions in self.with_doubts(images)]

    def with_doubts(self, images: list[Image]) -> list[list[Region]]:
        """As a call, and behind them, doubtful, what scores at least DOUBT of what is asked."""
        found: list[list[Rows]] = [[] for _ in images]
        plans = [self._views(*image.shape[:2]) for image in images]
        for members, crops in tiles.batches(images, plans, BATCH_PIXELS, self._device.type == "cuda"):
            for (number, view), rows in zip(members, self._rows(crops), strict=True):
                found[number].append(placed(rows, view, images[number].shape))
        return [
            self._sorted_out(image, np.concatenate(rows)) for image, rows in zip(images, found, strict=True)
        ]

    def _sorted_out(self, image: Image, rows: Rows) -> list[Region]:
        asked = np.array([self.wanted[int(label)].min_score for label in rows[:, 5]])
        sure = rows[:, 4] >= asked
        low = rows[~sure]
        low = low[np.argsort(-low[:, 4], kind="stable")[:MOST_DOUBTS]]
        doubts = [replace(region, doubtful=True) for region in self._regions(image, low)]
        return [*self._regions(image, rows[sure]), *doubts]

    def _views(self, height: int, width: int) -> list[tiles.View]:
        """The whole picture, and tiles that are shown as large as they are."""
        if not self.most:
            return [tiles.whole(height, width, self.side)]
        return tiles.views(
            height,
            width,
            self.side,
            enlarge=8.0,
            shrink=1.0,
            overlap=0.25,
            offset=self.offset,
            most=self.most,
        )

    @torch.inference_mode()
    def _rows(self, crops: Sequence[Image]) -> list[Rows]:
        """Views of one size -> what is seen in each, in its own pixels."""
        pixels = np.stack(crops)[:, :, ::-1] if self.mirror else np.stack(crops)
        batch = (pixels[..., ::-1].astype(np.float32) - MEAN) / STD
        outputs = self._net(
            torch.from_numpy(np.ascontiguousarray(batch.transpose(0, 3, 1, 2))).to(self._device)
        )
        chances = torch.cat([out[:, : len(NAMES)].flatten(2) for out in outputs], 2).sigmoid().cpu().numpy()
        bins = torch.arange(BINS, dtype=torch.float32, device=self._device)
        sides = [
            (out[:, len(NAMES) :].flatten(2).unflatten(1, (4, BINS)).softmax(2) * bins[:, None]).sum(2)
            * stride
            for out, stride in zip(outputs, STRIDES, strict=True)
        ]
        reach = torch.cat(sides, 2).cpu().numpy()
        grids = zip(outputs, STRIDES, strict=True)
        centres = np.concatenate([_centres(out.shape[2], out.shape[3], stride) for out, stride in grids])
        return [self._decoded(*one, centres, pixels.shape[2]) for one in zip(chances, reach, strict=True)]

    def _decoded(
        self, chance: npt.NDArray[np.float32], reach: npt.NDArray[np.float32], centres: Rows, width: int
    ) -> Rows:
        """Classes x cells, sides x cells of one view -> rows of what is wanted, at most one a cell and kind."""
        out = []
        for kind in dict.fromkeys(one.kind for one in self.wanted.values()):
            classes = [number for number, one in self.wanted.items() if one.kind == kind]
            own = chance[classes]
            best = own.argmax(0)
            score = own.max(0)
            low = np.array([self.wanted[number].min_score for number in classes])
            (cells,) = np.nonzero(score >= DOUBT * low[best])
            left, top, right, bottom = reach[:, cells]
            x, y = centres[cells].T
            x0, x1 = x - left, x + right
            if self.mirror:
                x0, x1 = width - x1, width - x0
            label = np.array(classes)[best[cells]]
            out.append(
                np.column_stack([x0, y - top, x1, y + bottom, score[cells], label, np.zeros(len(cells))])
            )
        return np.concatenate(out).astype(np.float64)

    def _regions(self, image: Image, rows: Rows) -> list[Region]:
        height, width = image.shape[:2]
        rows[:, 0:4] = np.clip(rows[:, 0:4], 0, [width, height, width, height])
        rows = rows[(rows[:, 2] > rows[:, 0] + 1) & (rows[:, 3] > rows[:, 1] + 1)]
        kinds = [self.wanted[int(label)].kind for label in rows[:, 5]]
        kept = []
        for kind in dict.fromkeys(kinds):
            own = rows[[one == kind for one in kinds]]
            kept += [(kind, row) for row in own[once(own)].tolist()]
        return [
            Region(kind, f"{self.name}:{NAMES[int(label)]}", min(1.0, score), (x0, y0, x1, y1))
            for kind, (x0, y0, x1, y1, score, label, _) in sorted(kept, key=lambda one: -one[1][4])
        ]


def _centres(height: int, width: int, stride: int) -> Rows:
    """height * width x 2: x, y of the middles of a grid's cells, in the network's pixels."""
    y, x = np.mgrid[:height, :width]
    return (np.stack([x.ravel(), y.ravel()], 1) + 0.5) * stride


def placed(rows: Rows, view: tiles.View, shape: tuple[int, ...]) -> Rows:
    """Rows of a view in the frame of its image of this shape (height, width), pieces marked."""
    inner = np.array([view.box[0] > 0, view.box[1] > 0, view.box[2] < shape[1], view.box[3] < shape[0]])
    ends = np.array([0, 0, view.size[1], view.size[0]])
    cut = (np.abs(rows[:, 0:4] - ends) < PIECE) | ((rows[:, 0:4] - ends) * [1, 1, -1, -1] < 0)
    out = rows.copy()
    out[:, 0:2], out[:, 2:4] = view.to_image(rows[:, 0:2]), view.to_image(rows[:, 2:4])
    out[:, 6] = (cut & inner).any(1)
    return out


def once(rows: Rows) -> list[int]:
    """Which rows of one kind to keep: each thing once, pieces only where no whole holds them."""
    kept: list[int] = []
    for one in sorted(range(len(rows)), key=lambda n: (rows[n, 6], -rows[n, 4])):
        double = any(iou(rows[one], rows[other]) > SAME for other in kept)
        if not double and not (
            rows[one, 6] and any(_share(rows[one], rows[other]) > INSIDE for other in kept)
        ):
            kept.append(one)
    return kept


def _share(one: Rows, other: Rows) -> float:
    """How much of one box lies in the other."""
    sides = np.minimum(one[2:4], other[2:4]) - np.maximum(one[:2], other[:2])
    return float(np.prod(np.maximum(sides, 0)) / np.prod(one[2:4] - one[:2]))
