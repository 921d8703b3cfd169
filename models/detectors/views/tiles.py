"""Looking at a large photograph in pieces: where to cut, at what size to look, what was seen twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.types import Image


@dataclass(frozen=True)
class View:
    """A window of an image and the size at which a network sees it.

    box: x0, y0, x1, y1 integer pixels of the image. size: (height, width) of the network's input.
    """

    box: tuple[int, int, int, int]
    size: tuple[int, int]

    def crop(self, image: Image) -> Image:
        """HWC uint8 RGB of `size`; averaging when it shrinks, bilinear when it grows."""
        x0, y0, x1, y1 = self.box
        height, width = self.size
        shrinks = height * width < (y1 - y0) * (x1 - x0)
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        resized = cv2.resize(np.ascontiguousarray(image[y0:y1, x0:x1]), (width, height), interpolation=how)
        return np.asarray(resized, dtype=np.uint8)

    @property
    def scale(self) -> npt.NDArray[np.float64]:
        """(x, y): image pixels for one pixel of the view."""
        x0, y0, x1, y1 = self.box
        return np.array([(x1 - x0) / self.size[1], (y1 - y0) / self.size[0]])

    def to_image(self, points: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Points (..., 2) as x, y in the view -> the same in the image."""
        return np.asarray(points * self.scale + np.array(self.box[:2]), dtype=np.float64)


def slanted(
    image: Image,
    degrees: float,
    long_side: int,
    multiple: int = 32,
    window: tuple[int, int, int, int] | None = None,
) -> tuple[Image, npt.NDArray[np.float64]]:
    """(the image turned clockwise, its own long side at `long_side` and never enlarged, on a canvas that holds all of
    it or a window (xyxy pixels) of it, mirrored beyond its edges; 2x3 from the canvas's x, y back to the image's, both
    in pixel edges).

    For networks that know level lines only. On a plain ground a detector of text took the whole picture for one line,
    and saw nothing in it.
    """
    height, width = image.shape[:2]
    factor = min(1.0, long_side / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    left, top, right, bottom = np.array(window or (0, 0, width, height)) * np.tile(
        [size[0] / width, size[1] / height], 2
    )
    wide, high = right - left, bottom - top
    across = math.ceil(round(wide * abs(cos) + high * abs(sin), 6) / multiple) * multiple
    down = math.ceil(round(wide * abs(sin) + high * abs(cos), 6) / multiple) * multiple
    turn = np.array([[cos, -sin], [sin, cos]])
    shift = np.array([across, down]) / 2 - turn @ (np.array([left + right, top + bottom]) / 2)
    # A warp counts pixel centres: half a pixel before and after.
    centred = np.column_stack([turn, shift + turn @ [0.5, 0.5] - 0.5])
    canvas = cv2.warpAffine(small, centred, (across, down), borderMode=cv2.BORDER_REFLECT)
    scale = np.diag([width / size[0], height / size[1]])
    return np.asarray(canvas, np.uint8), np.column_stack([scale @ turn.T, -scale @ turn.T @ shift])


def fitted(
    height: int, width: int, long_side: int, enlarge: float = 1.0, multiple: int = 32
) -> tuple[int, int]:
    """(height, width) with the long side at `long_side`, at most `enlarge` times the original, both sides
    multiples of `multiple` (rounded, at least one)."""
    factor = min(enlarge, long_side / max(height, width))
    sides = (max(1, round(side * factor / multiple)) * multiple for side in (height, width))
    return next(sides), next(sides)


def whole(height: int, width: int, long_side: int, enlarge: float = 1.0) -> View:
    """The whole image at the size that `fitted` gives."""
    return View((0, 0, width, height), fitted(height, width, long_side, enlarge))


def views(
    height: int,
    width: int,
    long_side: int,
    enlarge: float = 1.0,
    shrink: float = 1.5,
    overlap: float = 0.15,
    offset: float = 0.0,
    most: int = 64,
) -> list[View]:
    """The whole image, and tiles of it where the whole would be shrunk by more than `shrink`.

    A tile has sides of `shrink * long_side` image pixels, so nothing is shrunk by more than `shrink` unless
    that would take more than `most` tiles; then the tiles grow. overlap: share of a tile's side that its
    neighbour has too. offset in [0, 1): shift of the grid in steps (another grid cuts things elsewhere).
    """
    full = whole(height, width, long_side, enlarge)
    if max(height, width) <= shrink * long_side:
        return [full]
    side = math.ceil(shrink * long_side)
    while True:
        rows = _cuts(height, side, overlap, offset)
        columns = _cuts(width, side, overlap, offset)
        if len(rows) * len(columns) <= most:
            break
        side = math.ceil(side * 1.25)
    boxes = [(x0, y0, x1, y1) for y0, y1 in rows for x0, x1 in columns]
    return [full] + [View(b, fitted(b[3] - b[1], b[2] - b[0], long_side)) for b in boxes]


def _cuts(length: int, side: int, overlap: float, offset: float) -> list[tuple[int, int]]:
    """Windows of one axis: as few as sides of at most `side` allow, and then no longer than they must be."""
    if length <= side:
        return [(0, length)]
    count = math.ceil((length / side - overlap) / (1 - overlap))
    side = math.ceil(length / (count - (count - 1) * overlap))
    step = side * (1 - overlap)
    shift = (offset % 1.0) * step
    windows = []
    for number in range(count + (shift > 0)):
        start = round(number * step - shift)
        window = (max(0, start), min(length, start + side))
        # What the shift pushed over the edge is narrower than the overlap: its neighbour has it all.
        if window[1] - window[0] > overlap * side:
            windows.append(window)
    return windows


def batches(
    images: Sequence[Image], plans: Sequence[Sequence[View]], pixels: int, on_gpu: bool
) -> Iterator[tuple[list[tuple[int, View]], list[Image]]]:
    """Views of one size together, at most about `pixels` network pixels at a time on a GPU; one at a time on the CPU,
    where more are no faster and take as many times the memory (1,015 instead of 741 MB at the most, docs/notebook.md).

    Gives ((image number, view), ...) and the resized crops, in the same order.
    """
    by_size: dict[tuple[int, int], list[tuple[int, View]]] = {}
    for number, plan in enumerate(plans):
        for view in plan:
            by_size.setdefault(view.size, []).append((number, view))
    for (height, width), members in by_size.items():
        count = max(1, pixels // (height * width)) if on_gpu else 1
        for start in range(0, len(members), count):
            some = members[start : start + count]
            yield some, [view.crop(images[number]) for number, view in some]


def suppress(
    count: int, scores: Sequence[float], overlap: Callable[[int, int], float], limit: float
) -> list[int]:
    """Greedy non-maximum suppression: indices kept, best score first; `overlap` is asked for pairs."""
    kept: list[int] = []
    for one in sorted(range(count), key=lambda i: -scores[i]):
        if all(overlap(one, other) <= limit for other in kept):
            kept.append(one)
    return kept
