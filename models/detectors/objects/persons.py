"""Persons: BlazePose's detector (Bazarevsky et al. 2020, arXiv:2006.10204) finds, selfie segmentation cuts out.

Both are MediaPipe's, Apache-2.0, a few hundred kB to 3 MB. The detector was made for one or a few persons near the
camera; photographs are shown to it whole and in overlapping squares. Crowds, backs and small figures are mostly
missed: for those give an ONNX detector of your own (`boxes.OnnxDetector`). The file's sparse weights need LiteRT
(the extra `persons`), which OpenCV and onnxruntime cannot replace.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.detectors.blazeface import anchors, square_of, squares
from cleanplate.models.detectors.views import tiles
from cleanplate.models.devices import subnormals_flushed
from cleanplate.models.types import Image, Mask, Region

SIDE = 224
CUT_SIDE = 256
MIN_SCORE = 0.75
"""docs/notebook.md tells what it was chosen on."""
DOUBT = 0.6
"""From this share of the score that is asked on it may be one: nothing is copied from there."""
REACH = 1.25
"""Of the distance from the hips to the farthest point of the body, as MediaPipe draws its square."""

People = npt.NDArray[np.float64]
"""N x 4: centre x, y, radius of the body in image pixels; score."""


def open_litert(path: Path | str) -> Any:
    """A TFLite interpreter of one thread, ready. Raises ImportError that says what to install."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ImportError("finding persons needs LiteRT: pip install '.[persons]'") from error
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


class PersonDetector:
    """Detector of persons, kind 'person', with their pixels as `Region.mask` where they can be separated.

    pose, selfie: the two TFLite files. min_score: lowest that counts, and Region.score. offset: shift of the
    squares, in a third of them, for a second look. Not thread-safe; holds no state between calls. Raises
    ImportError without LiteRT, nothing for an image's content.
    """

    def __init__(
        self,
        pose: Path | str,
        selfie: Path | str,
        min_score: float = MIN_SCORE,
        offset: float = 0.0,
        name: str = "blazepose",
    ) -> None:
        self.name, self.min_score, self.offset = name, min_score, offset
        self._pose, self._selfie = open_litert(pose), open_litert(selfie)
        self._anchors = anchors(SIDE, ((8, 2), (16, 2), (32, 6)))

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        """One list of regions for each HWC uint8 RGB image, surest first; boxes xyxy pixels, masks HW bool."""
        return [[r for r in regions if not r.doubtful] for regions in self.with_doubts(images)]

    def with_doubts(self, images: list[Image]) -> list[list[Region]]:
        """As a call, and behind them, doubtful, what scores at least DOUBT of what is asked, as boxes."""
        return [self._regions(image) for image in images]

    def _regions(self, image: Image) -> list[Region]:
        height, width = image.shape[:2]
        shift = round(self.offset * max(height, width) / 3)
        looks = [
            (x0 + shift, y0 + shift, x1 + shift, y1 + shift) for x0, y0, x1, y1 in squares(height, width)
        ]
        people = np.concatenate([self._look(image, box) for box in looks])
        people = people[people[:, 2] > 8]

        def near(a: int, b: int) -> float:
            apart = float(np.hypot(*(people[a, :2] - people[b, :2])))
            return 1.0 if apart < 0.4 * max(people[a, 2], people[b, 2]) else 0.0

        kept = tiles.suppress(len(people), people[:, 3].tolist(), near, 0.5)
        rows = people[kept].tolist()
        sure = [found for row in rows if row[3] >= self.min_score and (found := self._region(image, *row))]
        low = [found for row in rows if row[3] < self.min_score and (found := self._doubt(image, *row))]
        return [*sure, *low]

    def _doubt(self, image: Image, x: float, y: float, radius: float, score: float) -> Region | None:
        """The square about the hips of what may be a person; None when it lies outside the picture."""
        height, width = image.shape[:2]
        box = max(0.0, x - radius), max(0.0, y - radius), min(width, x + radius), min(height, y + radius)
        if box[2] - box[0] < 8 or box[3] - box[1] < 8:
            return None
        return Region("person", self.name, score, box, doubtful=True)

    def _look(self, image: Image, box: tuple[int, int, int, int]) -> People:
        seen = square_of(image, box, SIDE).astype(np.float32) / np.float32(127.5) - np.float32(1)
        outputs = {out.shape[-1]: out[0] for out in _run(self._pose, seen[None])}
        logits = np.clip(outputs[1][:, 0].astype(np.float64), -50, 50)
        scores = 1 / (1 + np.exp(-logits))
        sure = scores >= DOUBT * self.min_score
        # Four points follow the box: the middle of the hips, the farthest point of the body, two of the shoulders.
        points = outputs[12][sure, 4:8].reshape(-1, 2, 2) / SIDE + self._anchors[sure, None]
        scale = box[2] - box[0]
        hips = points[:, 0] * scale + box[:2]
        radius = np.hypot(*(points[:, 1] - points[:, 0]).T) * scale
        return np.column_stack([hips, radius, scores[sure]])

    def _region(self, image: Image, x: float, y: float, radius: float, score: float) -> Region | None:
        """The person in the square about the hips; None when the square lies outside the picture."""
        height, width = image.shape[:2]
        reach = round(REACH * radius)
        box = (round(x) - reach, round(y) - reach, round(x) + reach, round(y) + reach)
        x0, y0, x1, y1 = max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3])
        if x1 - x0 < 8 or y1 - y0 < 8:
            return None
        mask = self._cut(image, box)
        ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if mask.sum() < 0.03 * (x1 - x0) * (y1 - y0):
            return Region("person", self.name, score, (float(x0), float(y0), float(x1), float(y1)))
        around = (float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1))
        return Region("person", self.name, score, around, mask)

    def _cut(self, image: Image, box: tuple[int, int, int, int]) -> Mask:
        """HW bool: what selfie segmentation calls person in a square of the image."""
        seen = square_of(image, box, CUT_SIDE).astype(np.float32) / np.float32(255)
        (probability, *_) = _run(self._selfie, seen[None])
        side = box[2] - box[0]
        large = cv2.resize(
            np.ascontiguousarray(probability[0, ..., 0]), (side, side), interpolation=cv2.INTER_LINEAR
        )
        height, width = image.shape[:2]
        out = np.zeros((height, width), np.bool_)
        x0, y0, x1, y1 = max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3])
        out[y0:y1, x0:x1] = large[y0 - box[1] : y1 - box[1], x0 - box[0] : x1 - box[0]] > 0.3
        return out


def _run(interpreter: Any, batch: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
    interpreter.set_tensor(
        interpreter.get_input_details()[0]["index"], np.ascontiguousarray(batch, np.float32)
    )
    with subnormals_flushed():
        interpreter.invoke()
    return [interpreter.get_tensor(out["index"]) for out in interpreter.get_output_details()]
