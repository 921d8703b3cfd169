"""Other programs that do a part of the default job, as their users run them: an encoded picture in, one out.

None is a dependency: `pip install deface rapidocr-onnxruntime` beside cleanplate adds them to `benchmark --only main`.
They find once and verify nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np

from cleanplate.models.devices import subnormals_flushed
from cleanplate.models.types import Image, Mask

Rival = Callable[[bytes], bytes]


def rivals() -> dict[str, Rival]:
    """Those that are installed here, by name; of text also with subnormal numbers flushed, as its users do not."""
    found: dict[str, Rival] = {}
    if find_spec("deface") and find_spec("onnx"):
        found["deface (face, unverified)"] = _deface()
    if find_spec("rapidocr_onnxruntime"):
        text = _rapidocr()
        found["rapidocr + Telea (text, unverified)"] = text
        found["the same, subnormals flushed"] = _flushed(text)
    return found


def _flushed(rival: Rival) -> Rival:
    def run(data: bytes) -> bytes:
        with subnormals_flushed():
            return rival(data)

    return run


def _deface() -> Rival:
    finder = import_module("deface.centerface").CenterFace(
        backend="onnxrt", override_execution_provider="CPUExecutionProvider"
    )
    anonymize_frame = import_module("deface.deface").anonymize_frame

    def run(data: bytes) -> bytes:
        picture = _decoded(data)
        faces, _ = finder(picture, threshold=0.2)
        anonymize_frame(
            faces,
            picture,
            1.3,
            replacewith="blur",
            ellipse=True,
            draw_scores=False,
            replaceimg=None,
            mosaicsize=20,
        )
        return _encoded(picture)

    return run


def _rapidocr() -> Rival:
    reader = import_module("rapidocr_onnxruntime").RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1)

    def run(data: bytes) -> bytes:
        picture = _decoded(data)
        lines, _ = reader(picture)
        mask = _polygons([line[0] for line in lines or []], picture.shape[:2])
        filled = cv2.inpaint(picture, mask.astype(np.uint8), 3, cv2.INPAINT_TELEA) if mask.any() else picture
        return _encoded(np.asarray(filled, np.uint8))

    return run


def _polygons(lines: list[Any], size: tuple[int, ...]) -> Mask:
    """HW bool: the boxes of lines, four corners each."""
    canvas = np.zeros(size, np.uint8)
    for corners in lines:
        cv2.fillPoly(canvas, [np.rint(np.array(corners)).astype(np.int32)], color=1)
    return canvas.astype(bool)


def _decoded(data: bytes) -> Image:
    """HWC uint8 BGR, as these programs take it."""
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def _encoded(picture: Image) -> bytes:
    return cv2.imencode(".jpg", picture)[1].tobytes()
