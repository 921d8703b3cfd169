"""BlazeFace (Bazarevsky et al. 2019, arXiv:1907.05047): a face detector of 230 kB, of another family than CenterFace.

It sees 128 x 128 pixels and is meant for faces that fill a good part of them, so it is shown close-ups: whole
photographs in overlapping squares here, the surroundings of an edit in verification. Runs in OpenCV's dnn module.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.detectors.views import tiles
from cleanplate.models.devices import subnormals_flushed
from cleanplate.models.types import Image, Region, iou

SIDE = 128
Rows = npt.NDArray[np.float64]
"""N x 5: x0, y0, x1, y1, score."""


def anchors(side: int, layers: tuple[tuple[int, int], ...]) -> npt.NDArray[np.float64]:
    """N x 2 centres x, y as shares of the square, of MediaPipe's single-shot detectors.

    layers: (stride, anchors in a cell) each; a cell's anchors share its centre and differ in what they learnt.
    """
    found = []
    for stride, count in layers:
        cells = (np.arange(side // stride) + 0.5) * stride / side
        x, y = np.meshgrid(cells, cells)
        found.append(np.repeat(np.stack([x.ravel(), y.ravel()], 1), count, axis=0))
    return np.concatenate(found)


def squares(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """The whole picture, its halves and its thirds as overlapping squares x0, y0, x1, y1 (they may hang over)."""
    long = max(height, width)
    found = [(-(long - width) // 2, -(long - height) // 2, 0, 0)]
    found = [(x, y, x + long, y + long) for x, y, _, _ in found]
    for parts in (2, 3):
        side = round(long / parts * 1.3)
        if side < SIDE:
            break
        for y in _starts(height, side):
            found += [(x, y, x + side, y + side) for x in _starts(width, side)]
    return found


def _starts(length: int, side: int) -> list[int]:
    if length <= side:
        return [(length - side) // 2]
    count = 1 + int(np.ceil((length - side) / (0.7 * side)))
    return [round(v) for v in np.linspace(0, length - side, count)]


def square_of(image: Image, box: tuple[int, int, int, int], side: int) -> Image:
    """side x side x 3 uint8: the square of the image, black where it hangs over."""
    x0, y0, x1, y1 = box
    height, width = image.shape[:2]
    inner = image[max(0, y0) : min(height, y1), max(0, x0) : min(width, x1)]
    rims = (max(0, -y0), max(0, y1 - height), max(0, -x0), max(0, x1 - width))
    framed = cv2.copyMakeBorder(np.ascontiguousarray(inner), *rims, cv2.BORDER_CONSTANT)
    shrinks = framed.shape[0] > side
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(framed, (side, side), interpolation=how), np.uint8)


class BlazeFaceDetector:
    """Detector of faces, kind 'face', for a second opinion.

    path: face_detection_short_range.tflite. min_score: lowest that counts, and Region.score. Faces below a twelfth
    of the picture are missed, and so are most that are turned by more than 45 degrees: by itself it is no finder.
    Holds no state between calls. Raises ValueError for settings, nothing for an image's content.
    """

    def __init__(
        self, path: Path | str, min_score: float = 0.5, device: str = "cpu", name: str = "blazeface"
    ) -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"no model file at {path}")
        self.name, self.min_score = name, min_score
        # OpenCV 5.0's new engine loses the second output; OpenCV 4 has one engine and no word for it.
        classic = getattr(cv2.dnn, "ENGINE_CLASSIC", None)
        self._net = cv2.dnn.readNetFromTFLite(str(path), *([] if classic is None else [classic]))
        # Packaged builds of OpenCV have no CUDA; it is 9 ms a picture.
        if device != "cpu" and cv2.cuda.getCudaEnabledDeviceCount() > 0:
            self._net.setPreferableBackend(cv2.dnn.DNN_BACKEND_CUDA)
            self._net.setPreferableTarget(cv2.dnn.DNN_TARGET_CUDA)
        self._anchors = anchors(SIDE, ((8, 2), (16, 6)))

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        """One list of regions for each HWC uint8 RGB image, surest first; boxes xyxy pixels."""
        return [self._regions(image) for image in images]

    def _regions(self, image: Image) -> list[Region]:
        height, width = image.shape[:2]
        rows = np.concatenate([self._look(image, box) for box in squares(height, width)])
        rows[:, 0:4] = np.clip(rows[:, 0:4], 0, [width, height, width, height])
        rows = rows[(rows[:, 2] > rows[:, 0] + 1) & (rows[:, 3] > rows[:, 1] + 1)]
        kept = tiles.suppress(len(rows), rows[:, 4].tolist(), lambda a, b: iou(rows[a], rows[b]), 0.3)
        return [
            Region("face", self.name, score, (x0, y0, x1, y1))
            for x0, y0, x1, y1, score in rows[kept].tolist()
        ]

    def _look(self, image: Image, box: tuple[int, int, int, int]) -> Rows:
        """What is seen in one square, in image pixels."""
        seen = square_of(image, box, SIDE).astype(np.float32) / 127.5 - 1
        self._net.setInput(np.ascontiguousarray(seen.transpose(2, 0, 1)[None]))
        with subnormals_flushed():
            places, logits = self._net.forward(["regressors", "classificators"])
        return decoded(places[0], logits[0].reshape(-1), self._anchors, SIDE, box, self.min_score)


def decoded(
    places: npt.NDArray[np.float32],
    logits: npt.NDArray[np.float32],
    centres: npt.NDArray[np.float64],
    side: int,
    box: tuple[int, int, int, int],
    min_score: float,
) -> Rows:
    """Outputs of a single-shot detector for one square -> rows in image pixels.

    places: N x (4 or more): centre x, y from the anchor, width, height, in the square's pixels. logits: N.
    """
    scores = 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -50, 50)))
    sure = scores >= min_score
    scale = box[2] - box[0]
    middle = places[sure, :2] / side + centres[sure]
    half = places[sure, 2:4] / side / 2
    low, high = (middle - half) * scale + box[:2], (middle + half) * scale + box[:2]
    return np.column_stack([low, high, scores[sure]])
