"""Which views of a picture are asked: the dear ones where the cheap ones leave a question, or all of them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from cleanplate.models.detectors.lettering.proposals import LEVELS, LineProposer, LineViews
from cleanplate.models.detectors.onnx_session import planes
from cleanplate.models.detectors.overlay.overlay_map import Looks
from cleanplate.models.detectors.views.windows import holding
from cleanplate.models.types import Image


class Bright:
    """A network that calls what is bright lettering, and notes the sizes that it was shown."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def run(self, names: list[str] | None, feeds: dict[str, Any]) -> list[Any]:
        self.shapes.append(feeds["x"].shape[2:])
        return [(feeds["x"].mean(1, keepdims=True) > 1.5).astype(np.float32)]

    def get_providers(self) -> list[str]:
        return []


def written(angle: float, size: tuple[int, int] = (300, 480)) -> Image:
    """A dark picture with a bright bar of 16 x 150 pixels at an angle, in the middle."""
    image = np.zeros((*size, 3), np.uint8)
    corners = cv2.boxPoints(((size[1] / 2, size[0] / 2), (150, 16), angle)).astype(np.int32)
    return np.asarray(cv2.fillPoly(image, [corners], (255, 255, 255)), np.uint8)


NOTHING = np.zeros((300, 480), np.uint8)


def looks_of(image: Image) -> Looks:
    return Looks((np.ascontiguousarray(image[..., 0]),))


@pytest.mark.parametrize("angle", [0, 8, 90, 84])
def test_a_clear_level_line_leaves_no_question(angle: float) -> None:
    network = Bright()
    (found,) = LineProposer(network, LineViews())([written(angle)], None, True)  # type: ignore[arg-type]
    assert (len(found.level), found.slanted) == (2, []), "by the whole view and the small one"
    assert len(network.shapes) == 2


@pytest.mark.parametrize("angle", [30, 45, -40])
def test_a_slanted_one_is_asked_about_turned(angle: float) -> None:
    network = Bright()
    (found,) = LineProposer(network, LineViews())([written(angle)], None, True)  # type: ignore[arg-type]
    assert found.slanted
    assert all(line.slanted and line.view == "@slanted" for line in found.slanted)
    middles = [line.quad.mean(0) for line in found.slanted]
    assert np.abs(np.array(middles) - [240, 150]).max() < 4
    assert len(network.shapes) == 4
    assert all(max(shape) < 448 for shape in network.shapes[2:]), "about the line, not the whole picture"


def test_what_only_the_map_shows_is_asked_about_turned_and_in_the_map() -> None:
    network = Bright()
    dark = np.zeros((300, 480, 3), np.uint8)
    looks = [looks_of(written(45))]
    (found,) = LineProposer(network, LineViews())([dark], looks, True)  # type: ignore[arg-type]
    assert len(network.shapes) == 2 + 2 + 1 + 2
    assert all(line.drawn and line.view == "@map" for line in found.drawn)
    assert found.drawn


@pytest.mark.parametrize("thorough", [False, True])
def test_thorough_asks_every_view_about_everything(thorough: bool) -> None:
    network = Bright()
    speck = NOTHING.copy()
    speck[5, 5] = 255
    dark = np.zeros((300, 480, 3), np.uint8)
    views = LineViews(thorough=thorough)
    LineProposer(network, views)([dark], [Looks((speck,))], True)  # type: ignore[arg-type]
    assert len(network.shapes) == (2 + 2 + 1 + 2 if thorough else 2), "one pixel is no piece of a mark"


def test_what_it_saw_of_the_same_pictures_is_not_looked_at_again() -> None:
    network = Bright()
    proposer = LineProposer(network, LineViews())  # type: ignore[arg-type]
    image = written(0)
    proposer([image], None, False)
    proposer([image], None, False)
    assert len(network.shapes) == 4, "it may have been written to in between"
    image.flags.writeable = False
    first = proposer([image], None, False)
    again = proposer([image], None, False)
    assert len(network.shapes) == 6
    assert [line.found for line in first[0].level] == [line.found for line in again[0].level]
    proposer([image.copy()], None, False)
    assert len(network.shapes) == 8


def test_the_window_that_holds_what_is_there() -> None:
    mask = np.zeros((400, 600), np.bool_)
    assert holding(mask, 0) == []
    mask[10:14, 300:340] = True
    assert holding(mask, 1e-3) == [], "too little"
    assert holding(mask, 1e-4, rim=20, side=16) == [(280, 0, 360, 34)]
    assert holding(mask, 1e-4, rim=20, side=128) == [(256, 0, 384, 76)]
    mask[200:204, 20:60] = True
    assert holding(mask, 1e-4, rim=20, side=16, step=32) == [(0, 0, 384, 224)]


def test_planes_are_what_arithmetic_gives() -> None:
    crops = [np.random.default_rng(n).integers(0, 256, (40, 56, 3)).astype(np.uint8) for n in (0, 1)]
    mean, spread = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
    wanted = ((np.stack(crops)[..., ::-1] / np.float32(255) - mean) / spread).transpose(0, 3, 1, 2)
    assert planes(crops, LEVELS, bgr=True) == pytest.approx(wanted, abs=2e-6)
