"""A mark taken off in a JPEG's own planes: the picture below it that the file's coefficients allow.

Blending commutes with JPEG's colours and with the halving of colour, so each plane is  y = (1 - a) x + aW,  with a
and aW brought to the plane's size as the encoder brought the colours. The file tells y only to within half a step of
each coefficient, and 1 / (1 - a) makes that error larger. Among all x whose blend falls into the file's steps the
most likely one is looked for: a natural picture has few coefficients in every 8 x 8 window, not only in those of the
grid. So, in turn: small coefficients of all windows are dropped, each by what the steps and the opacity make of noise
there (Yu and Sapiro, "DCT Image Denoising", IPOL 2011), and the blend is brought back into the steps of the file
(Zakhor, "Iterative Procedures for Reduction of Blocking Effects in Transform Image Coding", 1992).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from cleanplate.models.static_watermark.edges import Floats
from cleanplate.models.static_watermark.overlay import Mark, laid
from cleanplate.models.static_watermark.ycc import to_rgb, to_ycc
from cleanplate.models.types import Image, Mask

_WINDOWS_AT_ONCE = 1 << 17
"""32 MB for each array of their coefficients."""
_MARGIN = 16
"""Pixels of a plane round the mark that take part."""
_ROUNDS = 3
_THRESHOLD = 1.5
"""In standard deviations of an even error within the file's steps."""
_LEAST = 0.05
"""Of the picture that must come through: what is less is inpainted anyway."""


@dataclass(frozen=True)
class Plane:
    """A component of a JPEG. blocks: rows x columns x 8 x 8 integers, quantised; table: 8 x 8 steps; down: (y, x),
    pixels of the picture under one of its own. Y, Cb, Cr in this order, or Y alone."""

    blocks: npt.NDArray[np.integer]
    table: npt.NDArray[np.integer]
    down: tuple[int, int]


_ZERO = np.array([128, 0, 0], np.float32)
"""Y, Cb, Cr of what a coefficient block of zeros shows."""


def _basis() -> Floats:
    k = np.arange(8)
    basis = np.cos((2 * k[None, :] + 1) * k[:, None] * np.pi / 16) / 2
    basis[0] /= np.sqrt(2)
    return basis.astype(np.float32)


_BASIS = _basis()
_WINDOWS = torch.from_numpy(np.einsum("ky,lx->klyx", _BASIS, _BASIS).reshape(64, 64))


def take_off_jpeg(image: Image, planes: Sequence[Plane], mark: Mark, most: float = 0.7) -> tuple[Image, Mask]:
    """As overlay.take_off, for a picture decoded from these planes. image, mark: in the file's own frame."""
    height, width = image.shape[:2]
    # Whole MCUs round the mark, so that every plane is cut along its blocks.
    high, wide = (8 * max(p.down[n] for p in planes) for n in (0, 1))
    x0, y0, x1, y1 = mark.box
    top, left = max(0, (y0 - _MARGIN) // high) * high, max(0, (x0 - _MARGIN) // wide) * wide
    rows = -(-(min(height, y1 + _MARGIN) - top) // high) * high
    columns = -(-(min(width, x1 + _MARGIN) - left) // wide) * wide
    alpha, over = np.zeros((rows, columns), np.float32), np.zeros((rows, columns, 3), np.float32)
    at = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    alpha[at], over[at] = mark.alpha, (to_ycc(mark.colour) - _ZERO) * mark.alpha[..., None]
    # An encoder repeats the picture's last row and column up to the block's end.
    bottom, right = min(rows, height - top), min(columns, width - left)
    alpha, over = (
        np.pad(f[:bottom, :right], ((0, rows - bottom), (0, columns - right), (0, 0)), "edge")
        for f in (alpha[..., None], over)
    )
    found = [_below(plane, (top, left), alpha[..., 0], over[..., n]) for n, plane in enumerate(planes)]
    colours = found[1:] or [np.zeros_like(found[0])] * 2
    return laid(image, mark, to_rgb(np.stack([found[0], *colours], axis=-1) + _ZERO)[at], most)


def _below(plane: Plane, corner: tuple[int, int], alpha: Floats, over: Floats) -> Floats:
    """A window of a plane without the mark, at the picture's size. corner: (y, x) of the window in the picture."""
    fy, fx = plane.down
    rows, columns = alpha.shape[0] // fy // 8, alpha.shape[1] // fx // 8
    top, left = corner[0] // fy // 8, corner[1] // fx // 8
    blocks = plane.blocks[top : top + rows, left : left + columns].astype(np.float32)
    # A file may leave out blocks below and to the right of the picture.
    blocks = np.pad(
        blocks, ((0, rows - blocks.shape[0]), (0, columns - blocks.shape[1]), (0, 0), (0, 0)), "edge"
    )
    table = plane.table.astype(np.float32)
    found = _likely(blocks * table, table, _reduced(alpha, fy, fx), _reduced(over, fy, fx))
    if (fy, fx) == (1, 1):
        return found
    return np.asarray(cv2.resize(found, alpha.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _reduced(field: Floats, fy: int, fx: int) -> Floats:
    """HW, each cell of fy x fx pixels its mean, as encoders reduce colour."""
    height, width = field.shape
    return np.asarray(field.reshape(height // fy, fy, width // fx, fx).mean(axis=(1, 3)), np.float32)


def _likely(blocks: Floats, table: Floats, alpha: Floats, over: Floats) -> Floats:
    """The most likely plane below the mark. blocks: dequantised; alpha, over: HW."""
    through = np.maximum(1 - alpha, _LEAST)
    noise = (table / np.sqrt(12)).astype(np.float32)
    half, gain = table / 2, np.asarray(1 / through, np.float32)
    plane = (_plane(blocks) - over) / through
    for _ in range(_ROUNDS):
        smooth = _sparse(np.asarray(plane, np.float32), noise, gain)
        blend = _blocks(through * smooth + over)
        plane = (_plane(np.clip(blend, blocks - half, blocks + half)) - over) / through
    return np.asarray(plane, np.float32)


def _sparse(plane: Floats, noise: Floats, gain: Floats) -> Floats:
    """The plane from all its 8 x 8 windows, without their small coefficients. noise: 8 x 8, the standard deviation
    for each coefficient; gain: HW, by how much it is larger at each pixel."""
    pad = 7
    seen, power = (torch.from_numpy(np.pad(a, pad, "symmetric")) for a in (plane, gain * gain))
    total, share = torch.zeros_like(seen), torch.zeros_like(seen)
    limit = _THRESHOLD * torch.from_numpy(noise).reshape(64, 1)
    height, width = seen.shape
    strip = max(1, _WINDOWS_AT_ONCE // width)
    with torch.inference_mode():
        for y in range(0, height - pad, strip):
            rows = min(strip, height - pad - y) + pad
            at = slice(y, y + rows)
            windows = functional.unfold(seen[None, None, at], 8)[0]
            variance = functional.avg_pool2d(power[None, None, at], 8, stride=1).reshape(1, -1)
            found = _WINDOWS @ windows
            keep = found.abs() > limit * variance.sqrt()
            keep[0] = True
            # A window counts by how little noise it still holds.
            weight = 1 / (keep.sum(0, keepdim=True) * variance)
            image = _WINDOWS.T @ (found * keep * weight)
            total[at] += functional.fold(image[None], (rows, width), 8)[0, 0]
            share[at] += functional.fold(weight.expand(64, -1)[None], (rows, width), 8)[0, 0]
    return np.asarray((total / share)[pad:-pad, pad:-pad].numpy(), np.float32)


def _plane(blocks: Floats) -> Floats:
    """Rows x columns x 8 x 8 coefficients -> HW (T.81 A.3.3)."""
    rows, columns = blocks.shape[:2]
    pixels = _BASIS.T @ blocks @ _BASIS
    return np.asarray(pixels.transpose(0, 2, 1, 3).reshape(rows * 8, columns * 8), np.float32)


def _blocks(plane: Floats) -> Floats:
    height, width = plane.shape
    cells = plane.reshape(height // 8, 8, width // 8, 8).transpose(0, 2, 1, 3)
    return np.asarray(_BASIS @ cells @ _BASIS.T, np.float32)
