"""Any object detector that a user has as an ONNX file: boxes, scores and classes out.

Known by the shapes of input and outputs (checked when the file is opened):

    yolox    one output 1 x N x (5 + classes), N = the cells of strides 8, 16, 32: centre and log size relative to
             the cell, objectness, class scores. BGR 0..255, letterboxed at the top left with grey 114
             (Ge et al. 2021, arXiv:2107.08430; demo/ONNXRuntime of that project, without --decode_in_inference)
    detr     outputs `logits` (1 x Q x classes) and `pred_boxes` (1 x Q x 4, centre and size in shares): RT-DETR,
             RF-DETR, D-FINE and the like as transformers or their authors export them. RGB, stretched; 0..1, or with
             ImageNet's statistics where asked
    nms      outputs of N x 4 boxes in input pixels, N scores, N classes, in this order or named so: models with
             suppression inside (torchvision's export)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.detectors.onnx_session import open_session
from cleanplate.models.detectors.views import tiles
from cleanplate.models.types import Image, Region, iou

Form = Literal["yolox", "detr", "nms"]
Rows = npt.NDArray[np.float64]
"""N x 6: x0, y0, x1, y1 in image pixels, score, class."""
MIN_SCORE = 0.4
STRIDES = (8, 16, 32)
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


class OnnxDetector:
    """Detector out of an ONNX file. `kind` is what its regions are called.

    classes: numbers of the classes that count; empty = all. min_score: lowest that counts, and Region.score.
    side: pixels of the square input where the file leaves it open. normalise: ImageNet's statistics (detr).
    Raises FileNotFoundError, ValueError for a file of another form; nothing for an image's content.
    """

    def __init__(
        self,
        path: Path | str,
        kind: str,
        classes: Sequence[int] = (),
        min_score: float = MIN_SCORE,
        side: int = 640,
        normalise: bool = False,
        name: str = "onnx",
        device: str = "cpu",
    ) -> None:
        self.name, self.kind, self.min_score = name, kind, min_score
        self.classes, self.normalise = tuple(classes), normalise
        self._session = open_session(path, device=device)
        (first, *_) = self._session.get_inputs()
        self._input = first.name
        sides = [s if isinstance(s, int) else side for s in first.shape[2:]]
        if len(first.shape) != 4 or first.shape[1] not in (3, "3") or min(sides) < 32:
            raise ValueError(f"{path}: the first input must be N x 3 x H x W, not {first.shape}")
        self._size = (sides[0], sides[1])
        self._names = [out.name for out in self._session.get_outputs()]
        self.form: Form = self._form(str(path))

    def _form(self, path: str) -> Form:
        """Learned from one run over a grey picture: the names and shapes of what comes out."""
        outputs = self._run(np.full((1, 3, *self._size), 0.5, np.float32))
        shapes = [out.shape for out in outputs]
        cells = sum((self._size[0] // s) * (self._size[1] // s) for s in STRIDES)
        if len(outputs) == 1 and len(shapes[0]) == 3 and shapes[0][1] == cells and shapes[0][2] > 5:
            return "yolox"
        if {"logits", "pred_boxes"} <= set(self._names):
            return "detr"
        if len(outputs) == 3 and len(shapes[0]) == 2 and shapes[0][1] == 4:
            return "nms"
        raise ValueError(
            f"{path}: outputs {dict(zip(self._names, shapes, strict=True))} are of no known form: yolox, detr or nms "
            "(models/detectors/onnx_boxes.py tells what they look like)"
        )

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        """One list of regions for each HWC uint8 RGB image, surest first; boxes xyxy pixels."""
        return [self._regions(image) for image in images]

    def _regions(self, image: Image) -> list[Region]:
        height, width = image.shape[:2]
        if self.form == "yolox":
            rows = self._yolox(image)
        else:
            rows = self._detr(image) if self.form == "detr" else self._nms(image)
        rows[:, 0:4] = np.clip(rows[:, 0:4], 0, [width, height, width, height])
        fits = (rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1]) & (rows[:, 4] >= self.min_score)
        if self.classes:
            fits &= np.isin(rows[:, 5], self.classes)
        rows = rows[fits]
        kept = tiles.suppress(len(rows), rows[:, 4].tolist(), lambda a, b: iou(rows[a], rows[b]), 0.5)
        return [
            Region(self.kind, f"{self.name}:{int(label)}", min(1.0, score), (x0, y0, x1, y1))
            for x0, y0, x1, y1, score, label in rows[kept].tolist()
        ]

    def _run(self, batch: npt.NDArray[np.float32]) -> list[Any]:
        return list(self._session.run(None, {self._input: batch}))

    def _yolox(self, image: Image) -> Rows:
        factor = min(self._size[0] / image.shape[0], self._size[1] / image.shape[1])
        size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
        framed = np.full((*self._size, 3), 114, np.uint8)
        framed[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        batch = framed[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32)
        out = self._run(np.ascontiguousarray(batch))[0][0].astype(np.float64)
        grids, steps = [], []
        for stride in STRIDES:
            y, x = np.mgrid[: self._size[0] // stride, : self._size[1] // stride]
            grids.append(np.stack([x.ravel(), y.ravel()], 1))
            steps.append(np.full((x.size, 1), stride))
        step = np.concatenate(steps)
        middle = (out[:, :2] + np.concatenate(grids)) * step
        half = np.exp(np.minimum(out[:, 2:4], 20)) * step / 2
        scores = out[:, 4:5] * out[:, 5:]
        label = scores.argmax(1)
        boxes = np.hstack([middle - half, middle + half]) / factor
        return np.column_stack([boxes, scores.max(1), label])

    def _stretched(self, image: Image) -> npt.NDArray[np.float32]:
        resized = cv2.resize(image, self._size[::-1], interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255
        if self.normalise:
            resized = (resized - MEAN) / STD
        return np.ascontiguousarray(resized.transpose(2, 0, 1)[None], np.float32)

    def _detr(self, image: Image) -> Rows:
        found = dict(zip(self._names, self._run(self._stretched(image)), strict=True))
        scores = 1 / (1 + np.exp(-np.clip(found["logits"][0].astype(np.float64), -50, 50)))
        boxes = found["pred_boxes"][0].astype(np.float64)
        sides = np.tile([image.shape[1], image.shape[0]], 2)
        corners = np.hstack([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2]) * sides
        return np.column_stack([corners, scores.max(1), scores.argmax(1)])

    def _nms(self, image: Image) -> Rows:
        outputs = self._run(self._stretched(image))
        named = dict(zip(self._names, outputs, strict=True))
        boxes = named.get("boxes", outputs[0]).astype(np.float64)
        scores, labels = named.get("scores", outputs[1]), named.get("labels", outputs[2])
        if np.issubdtype(scores.dtype, np.integer):
            scores, labels = labels, scores
        scale = np.tile([image.shape[1] / self._size[1], image.shape[0] / self._size[0]], 2)
        return np.column_stack([boxes * scale, scores, labels])
