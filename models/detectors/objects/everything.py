"""Everything that Segment Anything sees, by its automatic masks (Kirillov et al. 2023, appendix B), with rules.

Points on a grid prompt three masks each; a mask stays when its predicted IoU and its stability are high enough and no
better one has its box. Meant with limits of area and place in the recipe: without them it removes the picture.
"""

from __future__ import annotations

import numpy as np
import torch

from cleanplate.models.detectors.views import tiles
from cleanplate.models.devices import progressed, subnormals_flushed
from cleanplate.models.segmenters.sam import PROMPTS_AT_ONCE, SamSegmenter
from cleanplate.models.types import Image, Mask, Region, iou

STABILITY_OFFSET = 1.0
"""Of the logits, as the authors' generator."""
SAME_BOX = 0.7


class EverythingDetector:
    """Detector of whatever stands out, kind 'everything', with masks.

    sam: the network; points: a side of the grid of prompts (points squared decodings: 0.15 s each with vit_b on a
    CPU core). min_iou: lowest predicted IoU, and Region.score. min_stability: lowest IoU of the mask cut a logit
    higher and a logit lower. Raises ValueError for settings, nothing for an image's content.
    """

    def __init__(
        self,
        sam: SamSegmenter,
        points: int = 16,
        min_iou: float = 0.88,
        min_stability: float = 0.95,
        name: str = "everything",
    ) -> None:
        if points < 1:
            raise ValueError(f"points must be at least 1, got {points}")
        self.name, self.points = name, points
        self.min_iou, self.min_stability = min_iou, min_stability
        self._sam = sam

    @subnormals_flushed()
    @torch.inference_mode()
    def __call__(self, images: list[Image]) -> list[list[Region]]:
        """One list of regions for each HWC uint8 RGB image, surest first; boxes xyxy pixels, masks HW bool."""
        return [
            self._regions(image, encoded, size)
            for image, (encoded, size) in zip(images, self._sam.encoded(images), strict=True)
        ]

    def _regions(self, image: Image, encoded: torch.Tensor, size: tuple[int, int]) -> list[Region]:
        shape = (image.shape[0], image.shape[1])
        steps = (np.arange(self.points) + 0.5) / self.points
        grid = np.stack(np.meshgrid(steps * shape[1], steps * shape[0]), -1).reshape(-1, 2)
        found: list[tuple[float, Mask]] = []
        for start in range(0, len(grid), PROMPTS_AT_ONCE):
            some = self._sam.placed(grid[start : start + PROMPTS_AT_ONCE], shape)
            logits, quality = self._sam.prompted(encoded, some, None, True)
            progressed()
            logits, quality = logits.flatten(0, 1), quality.flatten()
            good = (quality >= self.min_iou) & (stability(logits) >= self.min_stability)
            masks = self._sam.full(logits[good], size, shape)
            for mask, score in zip(masks, quality[good].tolist(), strict=True):
                if mask.any():
                    found.append((min(1.0, score), mask))
        boxes = np.array([_box(mask) for _, mask in found]).reshape(-1, 4)
        scores = [score for score, _ in found]
        kept = tiles.suppress(len(found), scores, lambda a, b: iou(boxes[a], boxes[b]), SAME_BOX)
        regions = []
        for i in kept:
            x0, y0, x1, y1 = boxes[i].tolist()
            regions.append(Region("everything", self.name, scores[i], (x0, y0, x1, y1), found[i][1]))
        return regions


def stability(logits: torch.Tensor) -> torch.Tensor:
    """N x h x w logits -> N: IoU of each mask cut STABILITY_OFFSET higher and lower; 0 where there is no mask."""
    high = (logits > STABILITY_OFFSET).sum((-1, -2))
    low = (logits > -STABILITY_OFFSET).sum((-1, -2))
    return high / low.clamp(min=1)


def _box(mask: Mask) -> tuple[float, float, float, float]:
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1)
