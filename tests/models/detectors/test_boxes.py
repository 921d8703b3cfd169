"""A user's own ONNX detectors: the three forms, as files whose outputs are fixed; and persons by BlazePose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from cleanplate.models.detectors.blazeface import anchors, square_of, squares
from cleanplate.models.detectors.onnx_boxes import OnnxDetector
from cleanplate.models.detectors.onnx_session import _message, _shape, _varint
from cleanplate.models.types import Image


def onnx_file(path: Path, shape: tuple[int | str, ...], outputs: dict[str, np.ndarray]) -> Path:
    """An ONNX model that gives these arrays whatever it sees (onnx.proto: fields by number)."""

    def number(field: int, value: int) -> bytes:
        return bytes([field << 3]) + _varint(value)

    def described(name: str, kind: int, dimensions: tuple[int | str, ...]) -> bytes:
        tensor = number(1, kind) + _message(2, _shape(dimensions))
        return _message(1, name.encode()) + _message(2, _message(1, tensor))

    graph = _message(2, b"fixed") + _message(11, described("images", 1, shape))
    for name, array in outputs.items():
        kind = 1 if array.dtype == np.float32 else 7
        sides = b"".join(number(1, side) for side in array.shape)
        tensor = sides + number(2, kind) + _message(8, f"{name}_0".encode()) + _message(9, array.tobytes())
        node = _message(1, f"{name}_0".encode()) + _message(2, name.encode()) + _message(4, b"Identity")
        graph = _message(1, node) + graph + _message(5, tensor)
        graph += _message(12, described(name, kind, array.shape))
    path.write_bytes(number(1, 8) + _message(7, graph) + _message(8, _message(1, b"") + number(2, 13)))
    return path


PICTURE = np.zeros((200, 400, 3), np.uint8)


def logit(share: float) -> float:
    return float(np.log(share / (1 - share)))


def test_detr_queries(tmp_path: Path) -> None:
    logits = np.full((1, 3, 2), -9, np.float32)
    logits[0, 0, 1], logits[0, 1, 0] = logit(0.9), logit(0.6)
    boxes = np.array([[[0.5, 0.5, 0.2, 0.4], [0.1, 0.1, 0.4, 0.4], [0.5, 0.5, 1, 1]]], np.float32)
    file = onnx_file(tmp_path / "d.onnx", (1, 3, 64, 64), {"logits": logits, "pred_boxes": boxes})
    (found,) = OnnxDetector(file, "person", min_score=0.5, name="mine")([PICTURE])
    assert [(r.detector, round(r.score, 2)) for r in found] == [("mine:1", 0.9), ("mine:0", 0.6)]
    assert found[0].box == pytest.approx((160, 60, 240, 140))
    assert found[1].box == pytest.approx((0, 0, 120, 60), abs=1e-3)
    (only,) = OnnxDetector(file, "person", (0,), 0.5)([PICTURE])
    assert len(only) == 1


def test_yolox_cells(tmp_path: Path) -> None:
    out = np.zeros((1, 64 + 16 + 4, 7), np.float32)
    # Cell x 3, y 2 of stride 8 in a 64-pixel square: centre (28, 20), 16 x 8 pixels; the picture is 6.25 times larger.
    out[0, 2 * 8 + 3] = [0.5, 0.5, np.log(2), 0, 0.8, 0.1, 1.0]
    file = onnx_file(tmp_path / "y.onnx", (1, 3, 64, 64), {"output": out})
    detector = OnnxDetector(file, "object")
    assert detector.form == "yolox"
    ((region,),) = detector([PICTURE])
    assert region.score == pytest.approx(0.8)
    assert region.box == pytest.approx((125, 100, 225, 150))


def test_boxes_with_suppression_inside(tmp_path: Path) -> None:
    boxes = np.array([[10, 20, 30, 40], [0, 0, 0, 0]], np.float32)
    outputs = {"boxes": boxes, "scores": np.array([0.9, 0.9], np.float32), "labels": np.array([2, 2])}
    file = onnx_file(tmp_path / "n.onnx", (1, 3, 100, 100), outputs)
    ((region,),) = OnnxDetector(file, "object")([PICTURE])
    assert region.box == pytest.approx((40, 40, 120, 80))


def test_other_files_are_refused(tmp_path: Path) -> None:
    odd = onnx_file(tmp_path / "o.onnx", (1, 3, 64, 64), {"x": np.zeros((1, 7), np.float32)})
    with pytest.raises(ValueError, match="no known form"):
        OnnxDetector(odd, "object")
    flat = onnx_file(tmp_path / "f.onnx", (1, 64), {"x": np.zeros((1, 7), np.float32)})
    with pytest.raises(ValueError, match="first input"):
        OnnxDetector(flat, "object")
    with pytest.raises(FileNotFoundError):
        OnnxDetector(tmp_path / "none.onnx", "object")


def test_anchors_and_squares() -> None:
    assert len(anchors(128, ((8, 2), (16, 6)))) == 896
    assert len(anchors(224, ((8, 2), (16, 2), (32, 6)))) == 2254
    for height, width in ((100, 100), (512, 768), (3000, 400), (1, 1)):
        seen = np.zeros((height, width), np.bool_)
        for x0, y0, x1, y1 in squares(height, width):
            assert x1 - x0 == y1 - y0
            seen[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = True
        assert seen.all()


def test_a_square_that_hangs_over_is_black_there() -> None:
    image = np.full((40, 60, 3), 200, np.uint8)
    out = square_of(image, (-10, -10, 30, 30), 40)
    assert (out[10:, 10:] == 200).all()
    assert (out[:10] == 0).all()


def test_a_person_is_found_and_cut_out(
    weights_path: Callable[[str], Path], photo: Callable[[str], Image]
) -> None:
    pytest.importorskip("ai_edge_litert")
    from cleanplate.models.detectors.objects.persons import PersonDetector

    detector = PersonDetector(weights_path("blazepose"), weights_path("selfie"))
    astronaut = photo("astronaut.jpg")
    small = photo("coffee.jpg").copy()
    small[100:356, 300:556] = cv2.resize(astronaut, (256, 256))
    large, inside, none = detector([astronaut, small, photo("coffee.jpg")])
    mask = large[0].mask
    assert mask is not None
    assert mask[120, 225]  # the face
    assert mask[400, 200]  # the suit
    assert not mask[40, 20]  # the flag's corner
    assert none == []
    assert any(r.mask is not None and r.mask[160, 412] for r in inside)
