"""Codes rendered onto photographs, as they come in real ones: turned, slanted, blurred, compressed."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import zxingcpp

from cleanplate.models.types import Image

FORMS = {
    "QRCode": "https://example.org/{n}",
    "DataMatrix": "lot {n}",
    "Aztec": "ticket {n}",
    "PDF417": "boarding {n}",
    "EAN13": "40063813{n:04d}",
    "Code128": "parcel-{n}",
    "ITF": "{n:010d}",
    "UPCA": "03600029{n:03d}",
}


def drawn(form: str, n: int, modules: int) -> Image:
    """HWC uint8 RGB: a code with its quiet zone, so many pixels a module."""
    result: Any = zxingcpp.create_barcode(FORMS[form].format(n=n), getattr(zxingcpp.BarcodeFormat, form))
    grey = np.array(result.to_image(scale=modules, add_quiet_zones=True))
    return np.repeat(grey[..., None], 3, 2)


def scene(photo: Image, form: str, rng: np.random.Generator) -> tuple[Image, np.ndarray[Any, Any], str]:
    """(the photograph with one code stuck on it, HW bool of the code with its quiet zone, its text)."""
    n = int(rng.integers(100, 999))
    code = drawn(form, n, int(rng.integers(3, 6)))
    height, width = photo.shape[:2]
    factor = min(1.0, 0.6 * min(width / code.shape[1], height / code.shape[0]))
    side = np.array([code.shape[1], code.shape[0]]) * factor
    turn = np.deg2rad(rng.uniform(-180, 180) if rng.random() < 0.5 else rng.normal(0, 8))
    reach = 0.5 * np.hypot(*side) * 1.05
    middle = np.array(
        [
            rng.uniform(min(reach, width / 2), max(width - reach, width / 2)),
            rng.uniform(min(reach, height / 2), max(height - reach, height / 2)),
        ]
    )
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * side / 2
    corners = corners * (1 + rng.uniform(-0.08, 0.08, (4, 1)))
    cos, sin = np.cos(turn), np.sin(turn)
    target = (corners @ np.array([[cos, sin], [-sin, cos]]) + middle).astype(np.float32)
    source = np.array(
        [[0, 0], [code.shape[1], 0], [code.shape[1], code.shape[0]], [0, code.shape[0]]], np.float32
    )
    matrix = cv2.getPerspectiveTransform(source, target)
    laid = cv2.warpPerspective(code, matrix, (width, height), flags=cv2.INTER_AREA)
    cover = (
        cv2.warpPerspective(np.full(code.shape[:2], 255, np.uint8), matrix, (width, height))[..., None] / 255
    )
    shade = rng.uniform(0.6, 1.0)
    out = photo * (1 - cover) + (laid * shade * 0.9 + 15) * cover
    blur = rng.uniform(0.3, 0.9)
    out = cv2.GaussianBlur(out.astype(np.float32), (0, 0), blur)
    _, data = cv2.imencode(
        ".jpg",
        np.clip(out[..., ::-1], 0, 255).astype(np.uint8),
        [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(70, 95))],
    )
    return (
        np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]),
        cover[..., 0] > 0.5,
        FORMS[form].format(n=n),
    )
