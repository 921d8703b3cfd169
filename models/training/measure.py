"""How well fills match the truth, beside what OpenCV's classical fills reach on the same pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from models import metrics
from models.regions import Image, Mask
from models.training.data import evaluation_crop
from models.training.masks import MaskRecipe, bounded_mask

Fill = Callable[[Image, Mask], Image]
"""(HWC uint8 RGB, HW bool, True = hole) -> HWC uint8 RGB, equal outside the hole."""

OPENCV_RADIUS = 3


def telea(image: Image, mask: Mask) -> Image:
    """OpenCV's fast-marching fill (Telea 2004), radius 3 px."""
    return np.asarray(cv2.inpaint(image, mask.astype(np.uint8), OPENCV_RADIUS, cv2.INPAINT_TELEA), np.uint8)


def navier_stokes(image: Image, mask: Mask) -> Image:
    """OpenCV's fluid fill (Bertalmio et al. 2001), radius 3 px."""
    return np.asarray(cv2.inpaint(image, mask.astype(np.uint8), OPENCV_RADIUS, cv2.INPAINT_NS), np.uint8)


@dataclass(frozen=True)
class Scores:
    """Means over pairs: PSNR in dB and SSIM, in the holes and over whole images; L1 in [0, 1] in holes."""

    hole_psnr: float
    psnr: float
    hole_ssim: float
    ssim: float
    hole_l1: float
    pairs: int


def masked_pairs(
    images: Sequence[Image], recipe: MaskRecipe, size: int, masks_each: int, seed: int
) -> list[tuple[Image, Mask]]:
    """masks_each masks of at most half the area for the central square of every image, by seed alone."""
    pairs = []
    for number, image in enumerate(images):
        crop = evaluation_crop(image, size)
        for repeat in range(masks_each):
            rng = np.random.default_rng([seed, number, repeat])
            pairs.append((crop, bounded_mask(rng, size, size, recipe)))
    return pairs


def measure(pairs: Sequence[tuple[Image, Mask]], fills: Mapping[str, Fill]) -> dict[str, Scores]:
    """Every fill on every pair."""
    table: dict[str, Scores] = {}
    for name, fill in fills.items():
        rows = []
        for image, mask in pairs:
            out = fill(image, mask)
            similarity = metrics.ssim_map(out, image)
            rows.append(
                (
                    metrics.psnr(out, image, mask),
                    metrics.psnr(out, image),
                    float(similarity[mask].mean()),
                    float(similarity.mean()),
                    metrics.l1(out, image, mask),
                )
            )
        hp, wp, hs, ws, hl = np.minimum(np.array(rows), 100.0).mean(axis=0).tolist()
        table[name] = Scores(hp, wp, hs, ws, hl, len(rows))
    return table


def as_table(table: Mapping[str, Scores]) -> str:
    """A Markdown table, one row per fill."""
    lines = [
        "| fill | PSNR in hole | PSNR | SSIM in hole | SSIM | L1 in hole | pairs |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, s in table.items():
        lines.append(
            f"| {name} | {s.hole_psnr:.2f} | {s.psnr:.2f} | {s.hole_ssim:.4f} | {s.ssim:.4f} "
            f"| {s.hole_l1:.4f} | {s.pairs} |"
        )
    return "\n".join(lines)
