"""Faces: a real one at several sizes; decoding on a drawn heat map; odd images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from cleanplate.models.detectors.faces import FaceDetector, middles_in, peaks, slanted_back, turned_back
from cleanplate.models.detectors.onnx_session import fixed_weights, free_shapes, open_session
from cleanplate.models.types import Image, iou

# Forehead to chin of astronaut.jpg, by eye.
FACE = np.array([178.0, 60, 272, 178])


@pytest.fixture(scope="module")
def detector(weights_path: Callable[[str], Path]) -> FaceDetector:
    return FaceDetector(weights_path("centerface"))


@pytest.fixture
def astronaut(photo: Callable[[str], Image]) -> Image:
    return photo("astronaut.jpg")


@pytest.mark.parametrize("factor", [0.25, 0.5, 1.0, 2.5])
def test_one_face_at_any_size(detector: FaceDetector, astronaut: Image, factor: float) -> None:
    image = np.asarray(cv2.resize(astronaut, None, fx=factor, fy=factor), np.uint8)
    (faces,) = detector([image])
    best = faces[0]
    assert best.kind == "face"
    assert best.score > 0.6
    assert iou(np.array(best.box) / factor, FACE) > 0.6
    assert all(iou(np.array(face.box) / factor, FACE) > 0.1 for face in faces), "a face where none is"


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_face_that_lies_or_hangs(
    detector: FaceDetector, astronaut: Image, photo: Callable[[str], Image], quarters: int
) -> None:
    image = photo("coffee.jpg").copy()
    image[60:316, 200:456] = np.rot90(cv2.resize(astronaut, (256, 256)), quarters)
    (faces,) = detector([image])
    corners = np.array([*FACE / 2, 1.0])[None]
    # Turning back by the quarters that are left is turning on.
    where = turned_back(corners, 4 - quarters, 256, 256)[0, :4] + np.array([200, 60, 200, 60])
    assert max(iou(np.array(face.box), where) for face in faces) > 0.5


@pytest.mark.parametrize("degrees", [-33, 55])
def test_a_face_that_leans(
    weights_path: Callable[[str], Path],
    astronaut: Image,
    degrees: int,
) -> None:
    """Of this one the level looks are sure by .86, those that it stands upright in by .89 and more."""
    turn = cv2.getRotationMatrix2D((256, 256), degrees, 0.5)
    image = np.asarray(cv2.warpAffine(astronaut, turn, (512, 512), borderValue=(128, 128, 128)), np.uint8)
    strict = FaceDetector(weights_path("centerface"), min_score=0.873)
    (faces,) = strict([image])
    middle = turn @ np.array([225, 119, 1])  # of FACE
    where = np.array([*(middle - 27), *(middle + 27)])
    assert [iou(np.array(face.box), where) > 0.5 for face in faces] == [True], "found, and once"
    level = FaceDetector(weights_path("centerface"), min_score=0.873, turned=False)
    assert level([image]) == [[]]


def test_a_box_of_a_turned_picture_comes_back_round_its_ellipse() -> None:
    root = np.sqrt(0.5)
    back = np.array(
        [[2 * root, -2 * root, 5], [2 * root, 2 * root, 7]]
    )  # turned by 45 degrees, enlarged twice
    ((x0, y0, x1, y1, score),) = slanted_back(np.array([[10.0, 20, 16, 28, 0.7]]), back)
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx(back[:, :2] @ [13, 24] + [5, 7])
    assert (x1 - x0, y1 - y0) == pytest.approx((10 * np.sqrt(2), 10 * np.sqrt(2)))  # half sides 3 and 4
    assert score == 0.7


def test_which_boxes_hold_the_middle_of_another() -> None:
    rows, others = np.array([[0.0, 0, 10, 10, 1], [20, 20, 30, 30, 1]]), np.array([[4.0, 4, 6, 6, 1]])
    assert middles_in(rows, others).tolist() == [[True], [False]]
    assert middles_in(others, rows).tolist() == [[True, False]]
    assert middles_in(rows, np.zeros((0, 5))).shape == (2, 0)


def test_pixels_in_another_order_in_memory(detector: FaceDetector, astronaut: Image) -> None:
    turned_back = np.rot90(np.rot90(astronaut, 1).copy(), -1)
    assert not turned_back.flags.c_contiguous
    (faces,) = detector([turned_back])
    assert iou(np.array(faces[0].box), FACE) > 0.6


def test_a_small_face_in_a_large_photograph(
    detector: FaceDetector, astronaut: Image, photo: Callable[[str], Image]
) -> None:
    image = np.asarray(cv2.resize(photo("coffee.jpg"), (2700, 1800)), np.uint8)
    # A head 17 pixels wide would be 8 in the whole view.
    small = cv2.resize(astronaut, (92, 92), interpolation=cv2.INTER_AREA)
    image[1500:1592, 2200:2292] = small
    (faces,) = detector([image])
    where = FACE * 92 / 512 + np.array([2200, 1500, 2200, 1500])
    assert max((iou(np.array(face.box), where) for face in faces), default=0) > 0.5


def test_no_face_in_coffee(detector: FaceDetector, photo: Callable[[str], Image]) -> None:
    assert detector([photo("coffee.jpg")]) == [[]]


def test_boxes_stay_in_the_image(detector: FaceDetector, astronaut: Image) -> None:
    image = np.ascontiguousarray(astronaut[80:, 200:])
    for face in detector([image])[0]:
        x0, y0, x1, y1 = face.box
        assert 0 <= x0 < x1 <= image.shape[1]
        assert 0 <= y0 < y1 <= image.shape[0]


def test_a_batch_gives_what_each_image_gives_alone(detector: FaceDetector, astronaut: Image) -> None:
    images = [astronaut, astronaut[:, ::-1].copy(), astronaut[:300].copy(), np.zeros_like(astronaut)]
    for image, faces in zip(images, detector(images), strict=True):
        (alone,) = detector([image])
        assert len(alone) == len(faces)
        for one, other in zip(alone, faces, strict=True):
            assert one.box == pytest.approx(other.box, abs=0.5)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5000), (5000, 3), (33, 31)])
@pytest.mark.parametrize("value", [0, 255])
def test_odd_images_have_no_face(detector: FaceDetector, shape: tuple[int, int], value: int) -> None:
    assert detector([np.full((*shape, 3), value, np.uint8)]) == [[]]


def test_peaks_of_a_drawn_map() -> None:
    heat, size, shift = np.zeros((8, 8)), np.zeros((2, 8, 8)), np.zeros((2, 8, 8))
    heat[3, 5] = 0.8
    size[:, 3, 5] = np.log(4), np.log(2)
    shift[:, 3, 5] = 0.25, -0.25
    floats = [a.astype(np.float32) for a in (heat, size, shift)]
    # Centre (5.25, 3.75) map pixels = (21, 15); 16 high, 8 wide.
    assert peaks(floats[0], floats[1], floats[2], 0.5) == pytest.approx(
        np.array([[17, 7, 25, 23, 0.8]]), abs=1e-4
    )
    assert peaks(floats[0], floats[1], floats[2], 0.9).shape == (0, 5)


def test_settings_are_checked(weights_path: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="long_side"):
        FaceDetector(weights_path("centerface"), long_side=0)
    with pytest.raises(FileNotFoundError, match=r"none\.onnx"):
        FaceDetector(tmp_path / "none.onnx")


def test_weights_are_fixed_when_the_file_is_opened(
    detector: FaceDetector, weights_path: Callable[[str], Path], astronaut: Image
) -> None:
    """The published file lists every weight as an input, with which the network takes 2.4 times as long."""
    published = free_shapes(
        weights_path("centerface").read_bytes(), {"input.1": ("batch", 3, "height", "width")}
    )
    slow, fast = open_session(published), open_session(fixed_weights(published))
    variable = [one._session.get_overridable_initializers() for one in (slow, fast, detector._session)]  # type: ignore[attr-defined]
    assert [len(some) for some in variable] == [194, 0, 0]
    batch = np.ascontiguousarray(astronaut[:256, 100:356].transpose(2, 0, 1)[None], dtype=np.float32)
    for one, other in zip(
        slow.run(None, {"input.1": batch}), fast.run(None, {"input.1": batch}), strict=True
    ):
        assert other == pytest.approx(one, abs=1e-3)
