"""Samples for the training of `marks`: photographs with marks, without, and with lettering that belongs."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cleanplate.models.training.data import PhotoBank, draw_crop
from cleanplate.models.training.marks import glyphs
from cleanplate.models.training.marks.fonts import Fonts
from cleanplate.models.training.marks.render import Marked, as_jpeg, plan_mark, render
from cleanplate.models.types import Image, Mask

CLEAN = 0.12
LETTERED = 0.15
"""Share of samples without a mark; and with scene-like lettering, half of which carry a mark as well."""

PIECES = 0.3
"""Share of the marked samples that are a piece of a picture up to twice as wide and high, cut where its mark is: a
detector that looks at a picture in full sees marks that are larger than what it was taught on."""

FAINT, PLAIN = (0.15, 0.3), (0.3, 1.0)
"""Opacities of one mark in five, and of the others: too many that can hardly be seen teach little."""

Sample = tuple[Image, Mask, Mask]
"""image HWC uint8 RGB; mask HW bool; counted HW bool, False where a mark cannot be seen."""


def as_tensors(sample: Sample) -> tuple[Tensor, Tensor, Tensor]:
    """3 x H x W in [0, 1], 1 x H x W mask, 1 x H x W counted, float32."""
    image, mask, counted = sample
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255
    return pixels, torch.from_numpy(mask)[None].float(), torch.from_numpy(counted)[None].float()


class MarkSamples(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Sample i of a training is made from (seed, i) alone, so a run that goes on sees what it would have seen.

    Gives (3 x S x S in [0, 1], 1 x S x S mask, 1 x S x S counted) as float tensors.
    """

    def __init__(self, bank: PhotoBank, fonts: Fonts, size: int, seed: int) -> None:
        self.bank, self.fonts, self.size, self.seed = bank, fonts, size, seed

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        return as_tensors(self.sample(index))

    def sample(self, index: int) -> Sample:
        """As arrays."""
        rng = np.random.default_rng([self.seed, index])
        # Some marks are laid on before the picture is reduced or enlarged, most after.
        scale = float(rng.choice([1.0, 1.0, 1.0, 1.0, 1.5, 0.75]))
        piece = rng.random() < PIECES
        if piece:
            scale = float(rng.uniform(1.3, 2.2))
        side = round(self.size * scale)
        crop = varied(rng, draw_crop(rng, self.bank, side, (0.6, 2.2)))
        chance = rng.random()
        if chance < LETTERED:
            crop = lettered(rng, crop, self.fonts)
        if chance > 1 - CLEAN or chance < LETTERED / 2:
            crop = as_jpeg(rng, crop) if rng.random() < 0.5 else crop
            nothing = np.zeros(crop.shape[:2], np.bool_)
            return _fitted((crop, nothing, ~nothing), self.size)
        alpha = FAINT if rng.random() < 0.2 else PLAIN
        marked = render(rng, crop, self.fonts, plan_mark(rng, alpha=alpha), jpeg=piece or scale == 1.0)
        parts = _parts(marked)
        if piece:
            return _piece(rng, parts, self.size)
        if rng.random() < 0.12:
            more = render(rng, marked.image, self.fonts, plan_mark(rng), jpeg=False)
            parts = (more.image, marked.mask | more.mask, marked.seen & more.seen)
        return _fitted(parts, self.size)


def varied(rng: np.random.Generator, crop: Image) -> Image:
    """A square of ground (HWC uint8 RGB, not changed) as another place might look: turned by quarters, channels
    exchanged, lighter or darker, more or less coloured. A few hundred photographs seen a thousand times each are
    learnt by heart otherwise, and what is like none of them is called overlay."""
    if rng.random() < 0.4:
        crop = np.rot90(crop, int(rng.integers(1, 4)))
    if rng.random() < 0.3:
        crop = crop[..., rng.permutation(3)]
    crop = np.ascontiguousarray(crop)
    if rng.random() < 0.3:
        grey = cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        colour = 0.0 if rng.random() < 0.3 else float(rng.uniform(0, 1.8))
        crop = np.asarray(cv2.addWeighted(crop, colour, grey, 1 - colour, 0), np.uint8)
    if rng.random() < 0.5:
        gamma = np.exp(rng.uniform(-0.6, 0.6) + rng.uniform(-0.15, 0.15, 3))
        tones = (np.arange(256) / 255)[:, None] ** gamma * 255
        crop = np.asarray(cv2.LUT(crop, np.round(tones).astype(np.uint8)[:, None]), np.uint8)
    return crop


def _parts(marked: Marked) -> Sample:
    return marked.image, marked.mask, marked.seen


def _piece(rng: np.random.Generator, sample: Sample, size: int) -> Sample:
    """size x size of the sample, a pixel of its mark somewhere in it."""
    mask = sample[1]
    rows, columns = np.nonzero(mask) if mask.any() else np.nonzero(~mask)
    chosen = int(rng.integers(rows.size))
    y, x = (
        int(np.clip(at - rng.integers(size), 0, side - size))
        for at, side in zip((rows[chosen], columns[chosen]), mask.shape, strict=True)
    )
    image, mask, counted = sample
    cut = np.s_[y : y + size, x : x + size]
    return (
        np.ascontiguousarray(image[cut]),
        np.ascontiguousarray(mask[cut]),
        np.ascontiguousarray(counted[cut]),
    )


def _fitted(sample: Sample, size: int) -> Sample:
    image, mask, counted = sample
    if image.shape[0] == size:
        return sample
    how = cv2.INTER_AREA if image.shape[0] > size else cv2.INTER_CUBIC
    small = np.asarray(cv2.resize(image, (size, size), interpolation=how), np.uint8)
    inside, sure = (
        cv2.resize(part.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
        for part in (mask, counted)
    )
    return small, np.asarray(inside >= 0.4), np.asarray(sure > 0.5)


def lettered(rng: np.random.Generator, image: Image, fonts: Fonts) -> Image:
    """The picture (HWC uint8 RGB) with lettering that belongs to the scene: what must stay.

    Words or a sign in perspective, in the light and with the grain of the place it hangs at, a little blurred.
    """
    height, width = image.shape[:2]
    out = image.astype(np.float32)
    for _ in range(int(rng.integers(1, 4))):
        words = glyphs.text(rng, fonts, max(8, round(float(rng.uniform(0.03, 0.16)) * height)))
        pad = max(2, words.shape[0] // 3)
        board = np.pad(words, pad)
        matrix, quad = _hung(rng, board.shape, height, width)
        cover = cv2.warpPerspective(board, matrix, (width, height), flags=cv2.INTER_LINEAR)
        panel = np.zeros((height, width), np.float32)
        cv2.fillConvexPoly(panel, quad.astype(np.int32), 1.0, cv2.LINE_AA)
        ink, ground = rng.uniform(0, 1, 3), rng.uniform(0, 1, 3)
        light = _light(image)
        paint = np.broadcast_to(ground, image.shape)
        if rng.random() < 0.65:  # a board; else letters on what is there
            alpha = cover[..., None]
            paint, share = ground * (1 - alpha) + ink * alpha, panel
        else:
            paint, share = np.broadcast_to(ink, image.shape), cover * np.float32(rng.uniform(0.75, 1))
        lit = np.clip(paint * light[..., None] * 255, 0, 255)
        lit = lit + rng.normal(0, rng.uniform(1, 8), lit.shape)
        blurred = cv2.GaussianBlur(share, (0, 0), float(rng.uniform(0.5, 1.5)))[..., None]
        out = out * (1 - blurred) + cv2.GaussianBlur(lit.astype(np.float32), (0, 0), 0.7) * blurred
    return np.asarray(np.clip(out, 0, 255), np.uint8)


def _hung(
    rng: np.random.Generator, shape: tuple[int, ...], height: int, width: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(3x3 perspective of a board onto the picture, its 4x2 corners there)."""
    high, wide = shape
    scale = min(1.0, 0.8 * width / wide)
    corners = np.array([[0, 0], [wide, 0], [wide, high], [0, high]], np.float64) * scale
    place = rng.uniform([0, 0], [max(1, width - wide * scale), max(1, height - high * scale)])
    angle = rng.normal(0, 0.12)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    tilt = rng.uniform(-0.28, 0.28, (4, 2)) * np.array([0.35 * wide, high]) * scale
    quad = (corners + tilt) @ turn.T + place
    source = np.array([[0, 0], [wide, 0], [wide, high], [0, high]], np.float32)
    return np.asarray(cv2.getPerspectiveTransform(source, quad.astype(np.float32)), np.float64), quad


def _light(image: Image) -> npt.NDArray[np.float32]:
    """HW: how light falls on the picture, about .2 to 1.3, from its own blurred brightness."""
    grey = image.mean(2).astype(np.float32) / 255
    broad = cv2.GaussianBlur(grey, (0, 0), max(2.0, image.shape[0] / 12))
    fine = cv2.GaussianBlur(grey, (0, 0), 1.5)
    return np.asarray(np.clip(0.25 + broad * 1.1 + 0.5 * (fine - broad), 0.1, 1.3), np.float32)
