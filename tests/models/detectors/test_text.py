"""Text: rendered on real photographs with a known mask; odd sizes; the rules by themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont

from cleanplate.models.detectors.lettering.letters import Lettering
from cleanplate.models.detectors.lettering.lines import Line, quads, shared
from cleanplate.models.detectors.lettering.proposals import LineViews
from cleanplate.models.detectors.lettering.reading import is_text, reads_in_map, strip
from cleanplate.models.detectors.onnx_session import free_shapes
from cleanplate.models.detectors.overlay.overlay_map import Looks
from cleanplate.models.detectors.plates import PlateDetector, is_plate
from cleanplate.models.detectors.text import TextDetector
from cleanplate.models.detectors.views import tiles
from cleanplate.models.segmenters.classic import SEGMENTERS
from cleanplate.models.segmenters.masks import grow
from cleanplate.models.types import Image, Mask, Region

Weights = Callable[[str], Path]
Photo = Callable[[str], Image]
PHOTOS = ("astronaut.jpg", "chelsea.jpg", "coffee.jpg")


@pytest.fixture(scope="module")
def detector(weights_path: Weights) -> TextDetector:
    return TextDetector(weights_path("text-det"), weights_path("text-rec"))


def drawn(image: Image, text: str, at: tuple[int, int], size: int, colour: int = 255) -> tuple[Image, Mask]:
    """Opaque text on a copy, and the pixels that it changes by more than 24 levels (what is visible)."""
    layer = PilImage.new("L", image.shape[1::-1])
    ImageDraw.Draw(layer).text(at, text, fill=255, font=ImageFont.load_default(size))
    alpha = np.asarray(layer, np.float64)[..., None] / 255
    out = np.clip(image * (1 - alpha) + colour * alpha + 0.5, 0, 255).astype(np.uint8)
    return out, np.abs(out.astype(int) - image).max(2) > 24


def union(regions: list[Region], shape: tuple[int, ...]) -> Mask:
    out = np.zeros(shape[:2], np.bool_)
    for region in regions:
        assert region.mask is not None
        assert region.mask.shape == shape[:2]
        out |= region.mask
    return out


def recall(regions: list[Region], truth: Mask) -> float:
    """Of the truth in what would be edited: the strokes with the segmenter's margin and the recipe's 3 pixels."""
    blank = np.zeros((*truth.shape, 3), np.uint8)
    edited = np.logical_or.reduce([np.zeros_like(truth), *SEGMENTERS["auto"]([blank], [regions])[0]])
    return float((grow(edited, 3) & truth).sum() / truth.sum())


def test_the_pixels_of_opaque_text_are_covered(detector: TextDetector, photo: Photo) -> None:
    recalls = []
    for text, at, size, colour in [
        ("stockphoto.com", (20, 20), 26, 255),
        ("Jane Miller 2024", (30, 180), 44, 0),
        ("PREVIEW", (15, 90), 76, 255),
    ]:
        for name in PHOTOS:
            image, truth = drawn(photo(name), text, at, size, colour)
            regions = detector([image])[0]
            recalls.append(recall(regions, truth))
            assert union(regions, image.shape).mean() < 0.25
            assert all(_inside(region.box, image) and 0 <= region.score <= 1 for region in regions)
            assert all(_holds(region) for region in regions), "letters beyond the line widen its box"
    assert min(recalls) >= 0.8
    assert np.mean(recalls) >= 0.95


def _holds(region: Region) -> bool:
    """Whether the box holds the mask."""
    rest, (x0, y0, x1, y1) = np.array(region.mask), (round(side) for side in region.box)
    rest[max(0, y0 - 1) : y1 + 1, max(0, x0 - 1) : x1 + 1] = False
    return not rest.any()


def _inside(box: tuple[float, float, float, float], image: Image) -> bool:
    x0, y0, x1, y1 = box
    return 0 <= x0 < x1 <= image.shape[1] and 0 <= y0 < y1 <= image.shape[0]


def test_photographs_without_text_stay_almost_untouched(detector: TextDetector, photo: Photo) -> None:
    images = [photo("chelsea.jpg"), photo("coffee.jpg")]
    areas = [union(found, im.shape).mean() for im, found in zip(images, detector(images), strict=True)]
    assert max(areas) < 0.02


def test_vertical_text_is_found_and_read(detector: TextDetector, photo: Photo) -> None:
    upright, truth = drawn(photo("coffee.jpg"), "photo by Ann Lee", (60, 60), 30)
    for turns in (1, 3):
        image = np.rot90(upright, turns)  # strides that are not C order, too
        assert recall(detector([image])[0], np.rot90(truth, turns)) >= 0.9
        readings = [line.text.replace(" ", "") for line in detector.lines([image])[0] if line.read > 0.8]
        assert any("AnnLee" in text for text in readings)


class Drawing:
    """An overlay's map that somebody drew, the same for every picture."""

    def __init__(self, chance: npt.NDArray[np.uint8]) -> None:
        self.chance = chance

    def __call__(self, images: list[Image]) -> list[Looks]:
        return [Looks((self.chance,)) for _ in images]


def on_rough_ground(size: int = 40, cell: int = 6) -> tuple[Image, Image, npt.NDArray[np.uint8]]:
    """(coloured specks about as large as strokes are wide; the same with a date on them; the date's coverage)."""
    noise = np.random.default_rng(0).normal(0, 110, (300 // cell, 450 // cell, 3))
    specks = cv2.resize(noise, (450, 300), interpolation=cv2.INTER_CUBIC)
    ground = np.clip(110 + specks, 0, 255).astype(np.uint8)
    date, _ = drawn(np.zeros((300, 450, 3), np.uint8), "2015/07/04", (60, 120), size)
    share = date[..., :1] / 255
    laid = ground * (1 - share) + np.array([150, 130, 200]) * share
    return ground, np.round(laid).astype(np.uint8), date[..., 0]


def test_letters_that_the_ground_hides_are_found_in_the_overlays_map(detector: TextDetector) -> None:
    ground, image, date = on_rough_ground()
    assert detector([image]) == [[]], "on this ground the detector sees no line; else the test shows nothing"
    seeing = detector.with_overlay(Drawing(date))
    (regions,) = seeing([image])
    assert [region.kind for region in regions] == ["text"]
    assert recall(regions, date > 100) > 0.9
    assert detector([image]) == [[]], "the detector that it was made of is as it was"
    assert seeing([ground]) == [[]], "the picture must say so too, not the map alone"


def test_a_line_that_the_picture_shows_is_not_found_again_in_the_map(
    detector: TextDetector, photo: Photo
) -> None:
    image, truth = drawn(photo("coffee.jpg"), "stockphoto.com", (20, 20), 30)
    drawing = Drawing(truth.astype(np.uint8) * 255)
    seeing = detector.with_overlay(drawing)
    assert any(line.drawn and line.sketch > 0.8 for line in seeing.lines([image], drawing([image]))[0])
    (plain,), (both,) = detector([image]), seeing([image])
    assert [region.box for region in both] == [region.box for region in plain]


def test_small_text_on_a_large_photograph_is_seen_in_tiles(detector: TextDetector, photo: Photo) -> None:
    large = np.asarray(cv2.resize(photo("coffee.jpg"), (2400, 1600)), np.uint8)
    image, truth = drawn(large, "www.example.org", (2000, 1540), 20)
    assert recall(detector([image])[0], truth) >= 0.9


def test_a_batch_gives_what_each_image_gives_alone(detector: TextDetector, photo: Photo) -> None:
    images = [drawn(photo(name), "SAMPLE 42", (20, 30), 40)[0] for name in PHOTOS]
    images.append(images[0][::-1].copy())
    together = detector(images)
    for image, regions in zip(images, together, strict=True):
        (alone,) = detector([image])
        assert len(alone) == len(regions)
        for one, other in zip(alone, regions, strict=True):
            assert one.box == pytest.approx(other.box, abs=1)
            assert one.score == pytest.approx(other.score, abs=0.02)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5000), (5000, 3), (1, 40), (64, 64)])
@pytest.mark.parametrize("value", [0, 255])
def test_odd_images_give_no_text(detector: TextDetector, shape: tuple[int, int], value: int) -> None:
    assert detector([np.full((*shape, 3), value, np.uint8)]) == [[]]


def test_nothing_in_nothing_out(detector: TextDetector) -> None:
    assert detector([]) == []


def test_low_scores_are_dropped(weights_path: Weights, photo: Photo) -> None:
    image, _ = drawn(photo("chelsea.jpg"), "SAMPLE", (20, 20), 40)
    strict = TextDetector(weights_path("text-det"), weights_path("text-rec"), min_score=1.0)
    assert strict([image]) == [[]]


def test_the_second_opinion_sees_other_pixels_and_finds_the_text(weights_path: Weights, photo: Photo) -> None:
    second = TextDetector(
        weights_path("text-det"), weights_path("text-rec"), views=LineViews(1280, 0.5), name="b"
    )
    image, truth = drawn(photo("coffee.jpg"), "stockphoto.com", (20, 350), 26)
    (regions,) = second([image])
    assert recall(regions, truth) >= 0.9
    assert {region.detector for region in regions} == {"b"}


def test_plates_are_lines_that_read_like_plates(
    detector: TextDetector, weights_path: Weights, photo: Photo
) -> None:
    image = photo("coffee.jpg").copy()
    image[40:90, 60:280] = 245
    image, truth = drawn(image, "KX 482 BT", (72, 42), 42, colour=10)
    image, _ = drawn(image, "good morning", (40, 300), 40)
    (plates,) = PlateDetector(detector)([image])
    assert [plate.kind for plate in plates] == ["plate"]
    x0, y0, x1, y1 = plates[0].box
    inside = np.zeros(truth.shape, np.bool_)
    inside[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
    assert (inside & truth).sum() >= 0.95 * truth.sum()
    with pytest.raises(ValueError, match="recogniser"):
        PlateDetector(TextDetector(weights_path("text-det")))


def rectangle(x: float, y: float, width: float, height: float) -> np.ndarray:
    return np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], np.float64)


@pytest.mark.parametrize(
    ("text", "width", "plate"),
    [
        ("AB12 CDE", 100, True),
        ("ABCDEFG", 100, False),
        ("A1", 100, False),
        ("1234", 400, False),
        ("7XYZ81", 20, False),
    ],
)
def test_the_rule_for_plates(text: str, width: int, plate: bool) -> None:
    assert is_plate(Line(rectangle(0, 0, width, 25), 0.9, text, 0.9)) is plate


def test_large_lines_must_be_read_to_be_believed() -> None:
    large, small = rectangle(0, 0, 80, 40), rectangle(0, 0, 20, 9)
    assert is_text(Line(large, 0.9, "Hello", 0.95), 10_000)
    assert not is_text(Line(large, 0.9, "", 0.0), 10_000)
    assert not is_text(Line(large, 0.9, "H", 0.9), 10_000)
    assert is_text(Line(small, 0.9, "H", 0.6), 10_000)
    assert not is_text(Line(small, 0.9, "H", 0.4), 10_000)
    assert not is_text(Line(rectangle(0, 0, 4, 4), 0.9, "2", 0.95), 10_000)
    assert not is_text(Line(rectangle(0, 0, 110, 100), 0.9, "OR", 0.95), 10_000)
    assert not is_text(Line(small, 0.9, "\N{BLACK STAR}", 0.9), 10_000)


@pytest.mark.parametrize(
    ("sketch", "sure", "asked"),
    [(0.6, 0.0, True), (0.4, 0.8, False), (0.0, 0.95, True), (0.0, None, False), (0.6, None, True)],
)
def test_a_line_of_the_map_must_read_there_or_have_sure_strokes(
    sketch: float, sure: float | None, asked: bool
) -> None:
    line = Line(np.zeros((4, 2)), 0.8, drawn=True, sketch=sketch)
    seen = None if sure is None else Lettering(np.zeros((2, 2), np.bool_), 0.2, sure)
    assert reads_in_map(line, seen) == asked


def test_lines_of_a_map_are_unclipped_and_ordered() -> None:
    probability = np.zeros((100, 200), np.float32)
    probability[40:50, 50:150] = 0.9
    ((quad, score),) = quads(probability, 0.3, 0.5)
    grown = 1.6 * 100 * 10 / 220
    expected = rectangle(50 - grown, 40 - grown, 100 + 2 * grown, 10 + 2 * grown)
    assert quad == pytest.approx(expected, abs=0.1)
    assert score == pytest.approx(0.9, abs=0.01)
    ((tall, _),) = quads(np.ascontiguousarray(probability.T), 0.3, 0.5)
    along, across = np.linalg.norm(tall[1] - tall[0]), np.linalg.norm(tall[3] - tall[0])
    assert along > across, "a tall line's first edge must run along it"


def test_overlap_of_quadrilaterals() -> None:
    one, half = Line(rectangle(0, 0, 10, 10), 1), Line(rectangle(5, 0, 5, 10), 1)
    assert shared(one, half) == pytest.approx((0.5, 0.5))
    assert shared(half, one) == pytest.approx((0.5, 1.0))
    assert shared(one, Line(rectangle(20, 0, 5, 5), 1)) == (0, 0)


def test_a_strip_is_the_line_straightened() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    image[20:44, 30:78] = (200, 100, 50)
    out = strip(image, rectangle(30, 20, 48, 24))
    assert out.shape == (48, 96, 3)
    assert (np.abs(out[4:44, 4:92].astype(int) - [200, 100, 50]) <= 1).all()
    assert (out[:, 96:] == 127).all()


@pytest.mark.parametrize("offset", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("size", [(900, 1441), (3000, 2000), (10, 20_000), (9000, 9000)])
def test_tiles_cover_the_image_and_shrink_little(size: tuple[int, int], offset: float) -> None:
    height, width = size
    covered = np.zeros((-(-height // 10), -(-width // 10)), np.bool_)
    for view in tiles.views(height, width, 960, offset=offset, most=400)[1:]:
        x0, y0, x1, y1 = view.box
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        assert (view.scale < 1.6).any()
        covered[y0 // 10 : -(-y1 // 10), x0 // 10 : -(-x1 // 10)] = True
    assert covered.all() or max(size) <= 1440
    assert len(tiles.views(60_000, 60_000, 960, offset=offset)) <= 100


def test_a_point_comes_back_from_a_view() -> None:
    view = tiles.View((100, 50, 300, 150), (64, 128))
    assert view.to_image(np.array([[0.0, 0.0], [128.0, 64.0]])) == pytest.approx(
        np.array([[100, 50], [300, 150]])
    )


def test_free_shapes_refuses_what_is_no_model() -> None:
    with pytest.raises(ValueError, match="no input named"):
        free_shapes(b"", {"x": (1,)})
    with pytest.raises(ValueError, match="protocol buffer"):
        free_shapes(b"\xff\xff\xff", {"x": (1,)})


def test_settings_are_checked_and_a_missing_file_is_named(tmp_path: Path, weights_path: Weights) -> None:
    with pytest.raises(ValueError, match="long_side"):
        LineViews(long_side=8)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.onnx"):
        TextDetector(tmp_path / "nowhere.onnx")


def test_opening_a_model_leaves_nothing_in_the_home_folder(tmp_path: Path, weights_path: Weights) -> None:
    """onnxruntime's telemetry writes a device identifier there unless it is off before the import."""
    program = "import sys; from cleanplate.models.detectors.onnx_session import open_session; open_session(sys.argv[1])"
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    path = weights_path("text-det")
    subprocess.run([sys.executable, "-c", program, str(path)], env=environment, check=True, timeout=120)
    assert list(tmp_path.iterdir()) == []
