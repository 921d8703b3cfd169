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
import numpy.typing as npt

from models.regions import Mask


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

    segm_weight needs a bank of object shapes at drawing time: see `random_mask`.
    """

    strokes: Strokes
    boxes: Boxes | None = None
    strokes_weight: float = 1.0
    boxes_weight: float = 0.0
    segm_weight: float = 0.0


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


def segmentation_mask(
    rng: np.random.Generator, height: int, width: int, shapes: Sequence[Mask], max_area: float = 0.5
) -> Mask:
    """An object's outline, mirrored, scaled and moved to a random place (HW bool, True = hole).

    shapes: HW bool outlines of any size, from a segmenter. The paper moves masks of detected objects so that
    the hole does not cover the object itself; its exact parameters are not published in the text, so scale
    (30-100 % of the largest that fits) is ours.  max_area: share of the image that the hole may cover.
    Raises ValueError when shapes is empty or the chosen one has no True pixel.
    """
    if not shapes:
        raise ValueError("segmentation masks need at least one object shape")
    shape = shapes[int(rng.integers(len(shapes)))]
    ys, xs = np.nonzero(shape)
    if not len(ys):
        raise ValueError("an object shape has no pixel set")
    cut: npt.NDArray[np.uint8] = shape[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].astype(np.uint8)
    if rng.random() < 0.5:
        cut = cut[:, ::-1]
    fit = min(height / cut.shape[0], width / cut.shape[1], math.sqrt(max_area * height * width / cut.sum()))
    scale = fit * rng.uniform(0.3, 1.0)
    cut_h = min(max(int(cut.shape[0] * scale), 1), height)
    cut_w = min(max(int(cut.shape[1] * scale), 1), width)
    cut = np.asarray(
        cv2.resize(np.ascontiguousarray(cut), (cut_w, cut_h), interpolation=cv2.INTER_NEAREST), np.uint8
    )
    y, x = int(rng.integers(height - cut_h + 1)), int(rng.integers(width - cut_w + 1))
    mask = np.zeros((height, width), bool)
    mask[y : y + cut_h, x : x + cut_w] = cut.astype(bool)
    return mask


def random_mask(
    rng: np.random.Generator, height: int, width: int, recipe: MaskRecipe, shapes: Sequence[Mask] = ()
) -> Mask:
    """One mask of one kind, chosen by the recipe's weights (HW bool, True = hole; it may be empty).

    Raises ValueError when the recipe asks for boxes without parameters or for object shapes without a bank.
    """
    weights = np.array([recipe.strokes_weight, recipe.boxes_weight, recipe.segm_weight])
    if weights.sum() <= 0 or weights.min() < 0:
        raise ValueError("a mask recipe needs weights >= 0, one of them above 0")
    kind = int(rng.choice(3, p=weights / weights.sum()))
    if kind == 0:
        return stroke_mask(rng, height, width, recipe.strokes)
    if kind == 1:
        if recipe.boxes is None:
            raise ValueError("the mask recipe gives boxes a weight but no parameters")
        return box_mask(rng, height, width, recipe.boxes)
    return segmentation_mask(rng, height, width, shapes)


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
        recipe.segm_weight,
    )
