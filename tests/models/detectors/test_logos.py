"""Given marks: found at other sizes, turns and opacities, masked in shape, and not where they are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image as Pil

from cleanplate.models.detectors.known_marks.places import shape_of
from cleanplate.models.detectors.known_marks.reference import Mark, mark_of
from cleanplate.models.detectors.logos import LogoDetector
from cleanplate.models.types import Image
from rigs.finders_rig import badge, laid


@pytest.fixture(scope="module")
def mark() -> Mark:
    return mark_of("badge.png", np.asarray(badge()))


@pytest.fixture(scope="module")
def detector(mark: Mark) -> LogoDetector:
    return LogoDetector([mark])


@pytest.mark.parametrize(
    ("side", "turn", "alpha"), [(60, 0, 0.9), (90, 13, 0.6), (150, -14, 0.4), (230, 5, 0.9)]
)
def test_found_at_any_size_turn_and_opacity(
    detector: LogoDetector, photo: Callable[[str], Image], side: int, turn: float, alpha: float
) -> None:
    image, truth = laid(photo("coffee.jpg"), 120, 100, side, turn, alpha)
    (found,) = detector([image])
    assert found[0].kind == "logo"  # The surest; the cup's rim may be taken for the ring as well.
    assert found[0].mask is not None
    shared, either = found[0].mask & truth, found[0].mask | truth
    assert shared.sum() / truth.sum() > 0.85
    assert shared.sum() / either.sum() > 0.75


def test_a_mark_that_scores_too_low_is_doubted(mark: Mark, photo: Callable[[str], Image]) -> None:
    image, truth = laid(photo("coffee.jpg"), 120, 100, 90, 5, 0.8)
    (found,) = LogoDetector([mark])([image])
    strict = LogoDetector([mark], min_score=min(1.0, found[0].score * 1.1))
    assert strict([image]) == [[]]
    doubts = strict.with_doubts([image])[0]
    assert 0 < len(doubts) <= 8
    assert all(r.doubtful and r.mask is not None for r in doubts)
    assert max((r.mask & truth).sum() for r in doubts) > 0.85 * truth.sum()  # type: ignore[operator]


def test_many_in_one_picture_each_once(detector: LogoDetector, photo: Callable[[str], Image]) -> None:
    image = photo("coffee.jpg")
    for n in range(6):
        image, _ = laid(image, 20 + 190 * (n % 3), 30 + 200 * (n // 3), 70, 5 * n - 12, 0.8)
    (found,) = detector([image])
    assert len(found) == 6


def test_a_dark_mark_from_a_light_reference(detector: LogoDetector, photo: Callable[[str], Image]) -> None:
    image, truth = laid(photo("astronaut.jpg"), 380, 380, 100, 0, 1.0)
    image[truth] = 10
    (found,) = detector([image])
    assert len(found) == 1


@pytest.mark.parametrize("name", ["astronaut.jpg", "coffee.jpg", "chelsea.jpg"])
def test_nothing_in_clean_photographs(
    detector: LogoDetector, photo: Callable[[str], Image], name: str
) -> None:
    assert detector([photo(name)]) == [[]]


def test_a_reference_without_alpha_is_cut_to_its_ground() -> None:
    page = Pil.new("RGB", (400, 300), "white")
    page.paste((200, 20, 20), (100, 80, 220, 180))
    mark = mark_of("page.jpg", np.asarray(page))
    assert mark.cover.sum() == 100 * 120
    # A flat patch has no edge but its outline, and that is known here.
    photo = np.full((300, 400, 3), 90, np.uint8)
    photo[100:200, 120:240] = (200, 20, 20)
    ((found,),) = LogoDetector([mark], rotation=0)([photo])
    assert found.mask is not None
    assert found.mask[102:198, 122:238].all()


@pytest.mark.parametrize("colour", [(0, 0, 0, 0), (30, 30, 30, 255)])
def test_references_that_show_nothing_are_refused(colour: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="nothing but background"):
        mark_of("blank.png", np.asarray(Pil.new("RGBA", (50, 50), colour)))


def test_the_shape_lies_where_it_was_drawn(mark: Mark) -> None:
    from cleanplate.models.detectors.known_marks.places import Place

    _, truth = laid(np.zeros((300, 400, 3), np.uint8), 90, 40, 200, 12, 1.0)
    drawn = shape_of(mark, Place(190, 140, 200 * mark.side / 240, 12, 1.0), (300, 400))
    assert (drawn & truth).sum() / (drawn | truth).sum() > 0.97


@pytest.mark.parametrize("shape", [(1, 1), (8, 3000), (3000, 8), (40, 40)])
def test_odd_images(detector: LogoDetector, shape: tuple[int, int]) -> None:
    assert detector([np.zeros((*shape, 3), np.uint8)]) == [[]]


def test_settings_are_checked(mark: Mark) -> None:
    with pytest.raises(ValueError, match="reference"):
        LogoDetector([])
    with pytest.raises(ValueError, match="sizes"):
        LogoDetector([mark], smallest=0.5, largest=0.1)
