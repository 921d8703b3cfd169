"""Faces: CenterFace (Xu et al. 2019, arXiv:1911.03599), an ONNX file of 7.3 MB under the MIT licence.

The published file has an input frozen at 10 x 3 x 32 x 32. The network is fully convolutional, so the
frozen sizes are taken out of the file's bytes when it is opened (`onnx.free_shapes`); it then runs at any
multiple of 32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from cleanplate.models.detectors.onnx_session import (
    Floats,
    fixed_weights,
    free_shapes,
    levels,
    on_gpu,
    open_session,
    planes,
)
from cleanplate.models.detectors.views import tiles
from cleanplate.models.types import Image, Region, iou

STRIDE = 4
DOUBT = 0.15
"""Peaks from here on may be faces: nothing is copied from them."""
BATCH_PIXELS = 2 * 1280 * 1280
SMALL = 320
"""Long side of one more look: a face that fills a large view is too large for the receptive field."""

LEVELS = levels((0, 0, 0), (1, 1, 1))
"""The network takes levels as they are."""
TURNED, TURNED_SCORE = 480, 0.55
"""Long side and lowest score of the turned views, by 90, 180 and 270 and by 45 degrees either way: the network knows
upright faces only."""
SLANTS = (-45.0, 45.0)

Boxes = npt.NDArray[np.float64]


class FaceDetector:
    """Detector of faces, kind 'face', boxes from forehead to chin.

    path: centerface.onnx. min_score: lowest peak of the heat map that counts, and Region.score.
    long_side: pixels of the long side that the network sees. Photographs more than 1.5 times larger are seen
    whole and again in tiles, so a face 12 pixels wide is seen as at least 8. offset: shift of the tiling, in tiles.
    upright: look at the picture as it is. turned: look at the whole picture turned by quarters and by 45 degrees either
    way, smaller, for faces that lie, hang or lean (five views of TURNED pixels); the detector of such finds ends in
    "@turned".
    For a second opinion show it the mirrored picture (`looks.Mirrored`): other pixels, the same network.

    Holds no state between calls. Raises ValueError for settings, nothing for an image's content.
    """

    def __init__(
        self,
        path: Path | str,
        min_score: float = 0.35,
        long_side: int = 1280,
        offset: float = 0.0,
        overlap: float = 0.3,
        upright: bool = True,
        turned: bool = True,
        device: str = "cpu",
        name: str = "centerface",
    ) -> None:
        if long_side < 32:
            raise ValueError(f"long_side must be at least 32 pixels, got {long_side}")
        if not Path(path).is_file():
            raise FileNotFoundError(f"no model file at {path}")
        self.name = name
        self.min_score = min_score
        self.long_side = long_side
        self.offset = offset
        self.overlap = overlap
        self.upright, self.turned = upright, turned
        model = free_shapes(Path(path).read_bytes(), {"input.1": ("batch", 3, "height", "width")})
        self._session = open_session(fixed_weights(model), device=device)

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        """One list of regions for each HWC uint8 RGB image, surest first; boxes xyxy pixels."""
        return [[r for r in regions if not r.doubtful] for regions in self.with_doubts(images)]

    def with_doubts(self, images: list[Image]) -> list[list[Region]]:
        """As a call, and behind them, doubtful, the upright peaks from DOUBT on."""
        plans = [self._views(*image.shape[:2]) if self.upright else [] for image in images]
        seen = self._look(images, plans, min(DOUBT, self.min_score))
        found = [[rows[rows[:, 4] > self.min_score] for rows in some] for some in seen]
        turned, leaning = (
            self._turned(images) if self.turned else ([[] for _ in images], [[] for _ in images])
        )
        return [
            [*self._regions(image, *one), *self._doubts(image, low)]
            for image, low, *one in zip(images, seen, found, turned, leaning, strict=True)
        ]

    def _doubts(self, image: Image, seen: list[Boxes]) -> list[Region]:
        low, _ = _apart(image, [rows[rows[:, 4] <= self.min_score] for rows in seen])
        return [
            Region("face", self.name, score, (x0, y0, x1, y1), doubtful=True)
            for x0, y0, x1, y1, score in low.tolist()
        ]

    def _turned(self, images: list[Image]) -> tuple[list[list[Boxes]], list[list[Boxes]]]:
        """What is seen in each picture turned by quarters and by SLANTS, in its own frame."""
        found: list[list[Boxes]] = [[] for _ in images]
        leaning: list[list[Boxes]] = [[] for _ in images]
        score = max(self.min_score, TURNED_SCORE)
        for quarters in (1, 2, 3):
            turned = [np.ascontiguousarray(np.rot90(image, quarters)) for image in images]
            views = [[tiles.whole(image.shape[0], image.shape[1], TURNED)] for image in turned]
            for image, rows, more in zip(images, found, self._look(turned, views, score), strict=True):
                rows += [turned_back(some, quarters, *image.shape[:2]) for some in more]
        for degrees in SLANTS:
            slanted = [tiles.slanted(image, degrees, TURNED) for image in images]
            canvases = [canvas for canvas, _ in slanted]
            views = [[tiles.whole(one.shape[0], one.shape[1], max(one.shape))] for one in canvases]
            looks = self._look(canvases, views, score)
            for image, rows, (_, back), (seen,) in zip(images, leaning, slanted, looks, strict=True):
                boxes = slanted_back(seen, back)
                whole = np.array([[0, 0, *image.shape[1::-1]]], np.float64)
                # Not in what is mirrored beyond the edges.
                rows.append(boxes[middles_in(boxes, whole)[:, 0]])
        return found, leaning

    def _look(self, images: list[Image], plans: list[list[tiles.View]], score: float) -> list[list[Boxes]]:
        """The peaks above a score in every view of each image, in image pixels."""
        found: list[list[Boxes]] = [[] for _ in images]
        for members, crops in tiles.batches(images, plans, BATCH_PIXELS, on_gpu(self._session)):
            heat, size, shift, *_ = self._session.run(None, {"input.1": planes(crops, LEVELS)})
            for n, (number, view) in enumerate(members):
                rows = peaks(heat[n, 0], size[n], shift[n], score)
                rows[:, 0:2], rows[:, 2:4] = view.to_image(rows[:, 0:2]), view.to_image(rows[:, 2:4])
                found[number].append(rows)
        return found

    def _views(self, height: int, width: int) -> list[tiles.View]:
        views = tiles.views(height, width, self.long_side, overlap=self.overlap, offset=self.offset)
        if max(height, width) > 1.5 * SMALL:
            views.append(tiles.whole(height, width, SMALL))
        return views

    def _regions(
        self, image: Image, found: list[Boxes], turned: list[Boxes], leaning: list[Boxes]
    ) -> list[Region]:
        """Each face once; leaning ones, whose boxes fit worse, only where nothing else was found."""
        upright = sum(map(len, found))
        rows, kept = _apart(image, [*found, *turned])
        lies = kept >= upright
        more, _ = _apart(image, leaning)
        more = more[~(middles_in(more, rows).any(1) | middles_in(rows, more).any(0))]
        rows, lies = np.concatenate([rows, more]), np.concatenate([lies, np.ones(len(more), np.bool_)])
        order = np.argsort(-rows[:, 4], kind="stable")
        name = self.name.removesuffix("@turned")
        return [
            Region("face", f"{name}@turned" if lain else name, min(1.0, score), (x0, y0, x1, y1))
            for (x0, y0, x1, y1, score), lain in zip(rows[order].tolist(), lies[order].tolist(), strict=True)
        ]


def _apart(image: Image, found: list[Boxes]) -> tuple[Boxes, npt.NDArray[np.intp]]:
    """(the boxes within the image, of those that overlap the surest; their numbers among all)."""
    height, width = image.shape[:2]
    rows = np.concatenate(found) if found else np.zeros((0, 5))
    rows[:, 0:4] = np.clip(rows[:, 0:4], 0, [width, height, width, height])
    inside = np.flatnonzero((rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1]))
    rows = rows[inside]
    kept = tiles.suppress(len(rows), rows[:, 4].tolist(), lambda a, b: iou(rows[a], rows[b]), 0.3)
    return np.asarray(rows[kept]), inside[kept]


def middles_in(rows: Boxes, others: Boxes) -> npt.NDArray[np.bool_]:
    """N x M: whether the middle of each row lies in each of the others."""
    x, y = ((rows[:, 0:2] + rows[:, 2:4]) / 2).T[..., None]
    inside = (x >= others[:, 0]) & (x < others[:, 2]) & (y >= others[:, 1]) & (y < others[:, 3])
    return np.asarray(inside, np.bool_)


def turned_back(rows: Boxes, quarters: int, height: int, width: int) -> Boxes:
    """Boxes of an image turned by np.rot90(image, quarters) -> the same in the image of height x width."""
    x0, y0, x1, y1, score = rows.T
    if quarters == 1:
        sides = [width - y1, x0, width - y0, x1]
    elif quarters == 2:
        sides = [width - x1, height - y1, width - x0, height - y0]
    else:
        sides = [y0, height - x1, y1, height - x0]
    return np.stack([*sides, score], axis=1)


def slanted_back(rows: Boxes, back: npt.NDArray[np.float64]) -> Boxes:
    """Boxes of a turned picture -> in the picture itself those round the ellipses in them, as a face nearly is.
    back: 2x3, x, y of the one to the other."""
    low, high = rows[:, 0:2], rows[:, 2:4]
    middle = (low + high) / 2 @ back[:, :2].T + back[:, 2]
    half = np.sqrt(((high - low) / 2) ** 2 @ (back[:, :2] ** 2).T)
    return np.column_stack([middle - half, middle + half, rows[:, 4]])


def peaks(heat: Floats, size: Floats, shift: Floats, min_score: float) -> Boxes:
    """Heat map H x W, log sizes and centre shifts 2 x H x W (both y first) -> N x 5: xyxy pixels, score.

    A map pixel stands for STRIDE pixels; a box's side is exp(size) * STRIDE (paper, section 3.1).
    """
    y, x = np.nonzero(heat > min_score)
    centre_y = (y + shift[0, y, x] + 0.5) * STRIDE
    centre_x = (x + shift[1, y, x] + 0.5) * STRIDE
    # exp of at most 8 (3000 map pixels): noise in the map must not become an infinity.
    half_h, half_w = np.exp(np.minimum(size[:, y, x], 8)) * STRIDE / 2
    sides = [centre_x - half_w, centre_y - half_h, centre_x + half_w, centre_y + half_h, heat[y, x]]
    return np.stack(sides, axis=1).astype(np.float64)
