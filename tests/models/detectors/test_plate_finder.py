"""Number plates by our own network: rendered ones on photographs, what reads like one, and the shapes between."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cleanplate.models.detectors.lettering.lines import Line
from cleanplate.models.detectors.objects import plate_finder
from cleanplate.models.detectors.objects.plate_finder import AGAIN, PlateFinder, Sight, close, in_middle
from cleanplate.models.detectors.objects.plate_network import load
from cleanplate.models.types import Image, Region
from cleanplate.models.weights.registry import resolve
from rigs import plate_scenes

Photo = Callable[[str], Image]


class Vehicles:
    """One box in every picture."""

    name = "vehicles"

    def __init__(self, box: tuple[float, float, float, float] | None) -> None:
        self.box = box

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        return [[Region("vehicle", self.name, 0.9, self.box)] if self.box else [] for _ in images]


def scene(photo: Image, form: str, look: str, height: float) -> tuple[Image, np.ndarray]:
    return plate_scenes.scene(photo, np.random.default_rng(4), form, look, height, (300, 200))


@pytest.mark.parametrize(
    ("form", "look"), [("norway", "slanted"), ("colombia", "plain"), ("swiss rear", "night")]
)
@pytest.mark.parametrize("sight", [Sight(), AGAIN], ids=["first", "again"])
def test_a_plate_on_a_vehicle_is_covered(photo: Photo, form: str, look: str, sight: Sight) -> None:
    image, truth = scene(photo("coffee.jpg"), form, look, 30)
    finder = PlateFinder(resolve("plates"), Vehicles((150, 80, 450, 320)), sight=sight, name="p")
    (found,) = finder([image])
    assert found
    masks = [region.mask for region in found if region.mask is not None]
    assert len(masks) == len(found)
    covered = np.logical_or.reduce(masks)
    assert (covered & truth).sum() >= 0.7 * truth.sum()
    for region in found:
        x0, y0, x1, y1 = region.box
        assert 0 <= x0 < x1 <= image.shape[1]
        assert 0 <= y0 < y1 <= image.shape[0]
        assert (region.kind, region.detector) == ("plate", "p")


def test_what_is_not_sure_comes_doubtful_and_is_never_found(photo: Photo) -> None:
    image, _ = scene(photo("coffee.jpg"), "norway", "plain", 30)
    finder = PlateFinder(resolve("plates"), Vehicles(None))
    found, seen = finder([image])[0], finder.with_doubts([image])[0]
    assert [region for region in seen if not region.doubtful] == found
    assert finder([]) == []


def test_a_mirrored_picture_has_its_plates_where_they_are(photo: Photo) -> None:
    image, truth = scene(photo("coffee.jpg"), "norway", "plain", 30)
    box = (150.0, 80.0, 450.0, 320.0)
    finder = PlateFinder(resolve("plates"), Vehicles(box), sight=Sight(mirror=True))
    found = finder([image])[0]
    assert found
    assert found[0].mask is not None
    assert (found[0].mask & truth).sum() >= 0.7 * truth.sum()


@pytest.mark.parametrize("mirror", [False, True])
def test_a_close_look_has_the_plate_in_its_middle(photo: Photo, mirror: bool) -> None:
    image = photo("coffee.jpg")
    quad = np.array([[100, 100], [160, 104], [158, 120], [98, 116]], np.float64)
    seen = close(image, quad, 24, mirror)
    assert seen.shape == (128, 256, 3)
    scale = 24 / np.mean([np.linalg.norm(quad[3] - quad[0]), np.linalg.norm(quad[2] - quad[1])])
    shown = (quad - quad.mean(0)) * scale + [128, 64]
    if mirror:
        shown = (np.array([256, 0]) + shown * [-1, 1])[[1, 0, 3, 2]]
    score, back = in_middle([(0.9, shown.astype(np.float32))], quad, 24, mirror)
    assert score == 0.9
    assert np.abs(back - quad).max() < 0.1
    aside = [(0.9, (shown + 60).astype(np.float32))]
    assert in_middle(aside, quad, 24, mirror)[0] == 0


def line(text: str, read: float, wide: float = 100) -> Line:
    return Line(np.array([[0, 0], [wide, 0], [wide, 25], [0, 25]], np.float64), 1.0, text, read)


def test_a_plate_reads_in_one_line_or_in_two() -> None:
    says = plate_finder._says_plate
    nothing = line("", 0)
    assert says(line("AB 123 CD", 0.9), nothing, nothing)
    assert not says(line("AB 123 CD", 0.4), nothing, nothing)
    assert not says(line("HELLO", 0.9), nothing, nothing)
    assert says(line("", 0, 40), line("AB", 0.8), line("1234", 0.8))
    assert not says(line("", 0), line("AB", 0.8), line("1234", 0.8)), "as long as this it has one line"


def test_other_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="plates"):
        load(resolve("nanodet"))
