"""Samples for the training of `strokes`: straightened lines with their letters' pixels, and strips without any."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.utils.data import Dataset

from cleanplate.models.detectors.lettering.letters import HEIGHT, close_up, placing, warped
from cleanplate.models.detectors.lettering.lines import Quad
from cleanplate.models.training.data import PhotoBank, random_crop
from cleanplate.models.training.marks.data import Sample, as_tensors
from cleanplate.models.training.marks.figures import Kind, Mark
from cleanplate.models.training.marks.fonts import Fonts
from cleanplate.models.training.marks.render import Marked, plan_mark, render
from cleanplate.models.types import Image, Mask

CLEAN = 0.3
"""Share of strips without lettering: the busiest of TRIES places of a photograph, as a text detector's false
alarms are."""
TRIES = 4
SIDE = 256
"""Pixels of the crops of photographs that lines are laid on."""
CLOSE = 0.5
"""Share of lines that are looked at as `StrokeFinder.closer` does."""
OPAQUE, SEEN = (0.8, 1.0), (0.3, 0.8)
"""Opacities of two lines in three, and of the others."""


Places = npt.NDArray[np.float64]


class LineSamples(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Sample i of a training is made from (seed, i) alone.

    Gives (3 x HEIGHT x W in [0, 1], 1 x HEIGHT x W mask, 1 x HEIGHT x W counted) as float tensors.
    """

    def __init__(self, bank: PhotoBank, fonts: Fonts, width: int, seed: int) -> None:
        self.bank, self.fonts, self.width, self.seed = bank, fonts, width, seed

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        return as_tensors(self.sample(index))

    def sample(self, index: int) -> Sample:
        """As arrays, HEIGHT x width."""
        rng = np.random.default_rng([self.seed, index])
        crop = random_crop(rng, self.bank.draw(rng), SIDE, (0.7, 2.2))
        if rng.random() >= CLEAN:
            marked = render(rng, crop, self.fonts, _lines(rng))
            quad = line_of(rng, marked)
            if quad is not None:
                return self._cut(rng, marked.image, quad, marked.mask, marked.seen)
        strips = [self._cut(rng, crop, _anywhere(rng)) for _ in range(TRIES)]
        return max(strips, key=lambda strip: _busy(strip[0]))

    def _cut(
        self,
        rng: np.random.Generator,
        image: Image,
        quad: Quad,
        mask: Mask | None = None,
        seen: Mask | None = None,
    ) -> Sample:
        """The strip of a line, a random piece of it when it is longer than the width; half of them from close by."""
        quad = close_up(quad) if rng.random() < CLOSE else quad
        matrix, width = placing(quad)
        slack = self.width - width
        move = slack / 2 if slack > 0 else rng.uniform(slack, 0)
        matrix = np.array([[1, 0, move], [0, 1, 0], [0, 0, 1]], np.float64) @ matrix
        pixels = warped(image, matrix, self.width)
        if mask is None or seen is None:
            nothing = np.zeros((HEIGHT, self.width), np.bool_)
            return pixels, nothing, ~nothing
        parts = (warped(part.astype(np.uint8) * 255, matrix, self.width) for part in (mask, seen))
        inside, sure = (part > 127 for part in parts)
        return pixels, np.asarray(inside), np.asarray(sure)


def _lines(rng: np.random.Generator) -> Mark:
    """A line or lines under each other, more opaque than marks are."""
    kinds: list[Kind] = ["line", "line", "large", "stack"]
    kind = kinds[int(rng.integers(len(kinds)))]
    mark = plan_mark(rng, kind, OPAQUE if rng.random() < 0.67 else SEEN)
    # As high as a text detector can find them, and often small.
    size = float(np.exp(rng.uniform(math.log(0.03), math.log(0.3))))
    return replace(mark, blend="normal", size=size)


def line_of(rng: np.random.Generator, marked: Marked) -> Quad | None:
    """The quadrilateral of one of a mark's lines as a detector might give it: wider and higher than the letters by a
    varying margin, a little turned and shifted, sometimes cut short. None when there is hardly a pixel."""
    ys, xs = np.nonzero(marked.mask)
    if xs.size < 30:
        return None
    turn = -math.radians(
        marked.mark.angle
    )  # angles of marks run against the clock, the picture's y downwards
    along, down = np.array([math.cos(turn), math.sin(turn)]), np.array([-math.sin(turn), math.cos(turn)])
    points = np.stack([xs + 0.5, ys + 0.5], 1)
    u, v = points @ along, points @ down
    if marked.mark.kind == "stack":
        u, v = _one_row(rng, u, v)
    left, right, top, bottom = u.min() - 0.5, u.max() + 0.5, v.min() - 0.5, v.max() + 0.5
    high = max(4.0, bottom - top)
    left, right = left - high * rng.uniform(-0.05, 0.35), right + high * rng.uniform(-0.05, 0.35)
    if rng.random() < 0.2:  # cut short, as where a detector lost the rest
        cut = (right - left) * rng.uniform(0.1, 0.4)
        left, right = (left + cut, right) if rng.random() < 0.5 else (left, right - cut)
    top, bottom = top - high * rng.uniform(-0.08, 0.25), bottom + high * rng.uniform(-0.08, 0.25)
    slant = rng.normal(0, 0.02) * (right - left) / 2
    corners = [(left, top - slant), (right, top + slant), (right, bottom + slant), (left, bottom - slant)]
    return np.array([a * along + b * down for a, b in corners])


def _one_row(rng: np.random.Generator, u: Places, v: Places) -> tuple[Places, Places]:
    """Of pixels at places u along the lines and v across them those of one line, where a gap of 2 pixels parts them."""
    rows = np.unique(np.floor(v).astype(int))
    starts = np.concatenate([[rows[0]], rows[1:][np.diff(rows) > 2]])
    number = int(rng.integers(len(starts)))
    low = starts[number]
    high = starts[number + 1] if number + 1 < len(starts) else rows[-1] + 1
    own = (v >= low) & (v < high)
    return u[own], v[own]


def _anywhere(rng: np.random.Generator) -> Quad:
    """A line's quadrilateral anywhere in a crop, of any height and turn."""
    high = float(np.exp(rng.uniform(math.log(10), math.log(100))))
    long = high * float(rng.uniform(1, 7))
    turn = rng.normal(0, 0.3) if rng.random() < 0.8 else rng.uniform(-math.pi, math.pi)
    along, down = np.array([math.cos(turn), math.sin(turn)]), np.array([-math.sin(turn), math.cos(turn)])
    middle = rng.uniform(0.1 * SIDE, 0.9 * SIDE, 2)
    corners = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    return np.array([middle + a * along * long / 2 + b * down * high / 2 for a, b in corners])


def _busy(strip: Image) -> float:
    """How much the middle of a strip changes from pixel to pixel."""
    middle = strip[HEIGHT // 6 : -HEIGHT // 6].astype(np.int16)
    return float(np.abs(np.diff(middle, axis=1)).mean() + np.abs(np.diff(middle, axis=0)).mean())
