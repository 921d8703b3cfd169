"""Random hole masks as LaMa's paper draws them (arXiv 2109.07161, section 2.4 and supplementary A).

Every function takes a numpy Generator and gives an HW bool array, True = hole. Nothing here keeps state:
the same generator state gives the same mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from cleanplate.models.types import Mask


@dataclass(frozen=True)
class Strokes:
    """Polygonal chains drawn with a thick brush.

    min_times, max_times: strokes in one mask; as in the reference the count is uniform over
        {min_times .. max_times + 1} (its one-off is kept, since the published statistics depend on it).
    max_angle: radians, exclusive; whole radians are drawn.  max_len, max_width: pixels; one segment is
        10 .. 9 + max_len long and 5 .. 4 + max_width wide.
    """

    min_times: int
    max_times: int
    max_width: int
    max_len: int
    max_angle: int = 4


@dataclass(frozen=True)
class Boxes:
    """Axis-aligned rectangles with sides of min_size .. max_size pixels, at least margin from the border."""

    margin: int
    min_size: int
    max_size: int
    min_times: int
    max_times: int


@dataclass(frozen=True)
class MaskRecipe:
    """One kind of shape is chosen per mask, with these relative weights (they need not sum to 1).

    The paper's third kind, outlines of objects, depends on the image: cleanplate.models.training.lama.objects.
    """

    strokes: Strokes
    boxes: Boxes | None = None
    strokes_weight: float = 1.0
    boxes_weight: float = 0.0


MASKS: dict[str, MaskRecipe] = {
    "large": MaskRecipe(Strokes(1, 5, 100, 200), Boxes(10, 30, 150, 1, 4), 1.0, 1.0),
    "narrow": MaskRecipe(Strokes(4, 12, 40, 80), Boxes(0, 30, 128, 1, 1), 1.0, 1.0),
    "thin-256": MaskRecipe(Strokes(4, 50, 10, 40)),
    "thin-512": MaskRecipe(Strokes(4, 70, 20, 100)),
    "medium-256": MaskRecipe(Strokes(4, 5, 50, 100), Boxes(0, 10, 50, 1, 5), 1.0, 0.3),
    "medium-512": MaskRecipe(Strokes(4, 10, 100, 200), Boxes(0, 30, 150, 1, 5), 1.0, 0.3),
    "thick-256": MaskRecipe(Strokes(1, 5, 100, 200), Boxes(10, 30, 150, 1, 3), 1.0, 0.3),
    "thick-512": MaskRecipe(Strokes(1, 5, 250, 450), Boxes(10, 30, 300, 1, 4), 1.0, 0.3),
}
"""The paper's masks: `large` and `narrow` for training at 256, the others for evaluation at that size."""


def stroke_mask(rng: np.random.Generator, height: int, width: int, params: Strokes) -> Mask:
    """Chains of 1-5 segments, each drawn with its own angle, length and width (HW bool, True = hole)."""
    canvas = np.zeros((height, width), np.uint8)
    for stroke in range(int(rng.integers(params.min_times, params.max_times + 2))):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        for _ in range(1 + int(rng.integers(5))):
            angle = 0.01 + int(rng.integers(params.max_angle))
            if stroke % 2 == 0:
                angle = 2 * math.pi - angle
            length = 10 + int(rng.integers(params.max_len))
            brush = 5 + int(rng.integers(params.max_width))
            end_x = min(max(int(x + length * math.sin(angle)), 0), width)
            end_y = min(max(int(y + length * math.cos(angle)), 0), height)
            cv2.line(canvas, (x, y), (end_x, end_y), 1, brush)
            x, y = end_x, end_y
    return canvas.astype(bool)


def box_mask(rng: np.random.Generator, height: int, width: int, params: Boxes) -> Mask:
    """The union of some random rectangles (HW bool, True = hole).

    Raises ValueError when the image cannot hold the smallest box inside the margin.
    """
    limit = min(params.max_size + 1, height - 2 * params.margin, width - 2 * params.margin)
    if limit <= params.min_size:
        raise ValueError(
            f"a {height}x{width} image is too small for boxes of {params.min_size} px "
            f"with a margin of {params.margin} px"
        )
    mask = np.zeros((height, width), bool)
    for _ in range(int(rng.integers(params.min_times, params.max_times + 1))):
        box_w, box_h = (int(side) for side in rng.integers(params.min_size, limit, size=2))
        x = int(rng.integers(params.margin, width - params.margin - box_w + 1))
        y = int(rng.integers(params.margin, height - params.margin - box_h + 1))
        mask[y : y + box_h, x : x + box_w] = True
    return mask


def random_mask(rng: np.random.Generator, height: int, width: int, recipe: MaskRecipe) -> Mask:
    """One mask of one kind, chosen by the recipe's weights (HW bool, True = hole; it may be empty).

    Raises ValueError when the recipe asks for boxes without parameters.
    """
    weights = np.array([recipe.strokes_weight, recipe.boxes_weight])
    if weights.sum() <= 0 or weights.min() < 0:
        raise ValueError("a mask recipe needs weights >= 0, one of them above 0")
    if rng.choice(2, p=weights / weights.sum()) == 0:
        return stroke_mask(rng, height, width, recipe.strokes)
    if recipe.boxes is None:
        raise ValueError("the mask recipe gives boxes a weight but no parameters")
    return box_mask(rng, height, width, recipe.boxes)


def bounded_mask(
    rng: np.random.Generator, height: int, width: int, recipe: MaskRecipe, max_area: float = 0.5
) -> Mask:
    """An evaluation mask: drawn again until it has a hole and covers at most max_area of the image.

    The paper's evaluation drops masks over 50 % (its max_tamper_area). Raises ValueError when 1000 draws
    give none, which means that recipe and image size do not fit.
    """
    for _ in range(1000):
        mask = random_mask(rng, height, width, recipe)
        if 0 < mask.mean() <= max_area:
            return mask
    raise ValueError(f"no mask with at most {max_area:.0%} hole in 1000 draws at {height}x{width}")


def scaled(recipe: MaskRecipe, factor: float) -> MaskRecipe:
    """The shapes for an image factor times as large: lengths scale, counts and angles stay.

    The 10 px and 5 px that every segment's length and width start from do not scale, so at half size strokes
    cover somewhat more (medium: .29 of the image instead of .25).
    """

    def px(value: int) -> int:
        return max(1, round(value * factor))

    strokes, boxes = recipe.strokes, recipe.boxes
    return MaskRecipe(
        Strokes(
            strokes.min_times,
            strokes.max_times,
            px(strokes.max_width),
            px(strokes.max_len),
            strokes.max_angle,
        ),
        boxes
        and Boxes(px(boxes.margin), px(boxes.min_size), px(boxes.max_size), boxes.min_times, boxes.max_times),
        recipe.strokes_weight,
        recipe.boxes_weight,
    )


@dataclass(frozen=True)
class Statistics:
    """Of many masks: the hole's share of the image (mean, 10th percentile, median, 90th), and the median over
    masks of the largest inscribed radius in pixels."""

    mean: float
    low: float
    median: float
    high: float
    radius: float


def statistics(masks: Sequence[Mask]) -> Statistics:
    """Raises ValueError for no masks."""
    if not masks:
        raise ValueError("there are no statistics of no masks")
    areas = np.array([mask.mean() for mask in masks])
    radii = [float(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5).max()) for mask in masks]
    low, median, high = (float(value) for value in np.quantile(areas, (0.1, 0.5, 0.9)))
    return Statistics(float(areas.mean()), low, median, high, float(np.median(radii)))
