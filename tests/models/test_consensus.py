"""Marks shared by a collection: found, measured, taken off; drawn here on crops of real photographs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from marked import SIZE, blended, crops, drawn

from models.consensus import find_marks
from models.overlay import PRESENT, Mark, placed, strength, take_off

Floats = npt.NDArray[np.float32]


def psnr(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8], where: npt.NDArray[np.bool_]) -> float:
    error = float(((a[where].astype(np.float64) - b[where]) ** 2).mean())
    return 10 * float(np.log10(255**2 / max(error, 1e-9)))


def one(marks: list[Mark]) -> tuple[Mark, Floats]:
    """The mark, and its opacity over the whole frame."""
    assert len(marks) == 1
    whole = np.zeros(SIZE[::-1], np.float32)
    x0, y0, x1, y1 = marks[0].box
    whole[y0:y1, x0:x1] = marks[0].alpha
    return marks[0], whole


@pytest.mark.parametrize("opacity", [0.25, 0.6])
def test_a_mark_is_found_and_taken_off(opacity: float) -> None:
    pictures = crops(44)
    alpha, colour = drawn("text", opacity)
    marked = [blended(p, alpha, colour) for p in pictures]
    mark, found = one(find_marks(np.stack(marked)))
    true = alpha > 0.04
    assert (true & (found > 0)).sum() / (true | (found > 0)).sum() > 0.9
    assert np.abs(found - alpha)[true].mean() < 0.03
    assert mark.support >= 42
    clean, rest = take_off(marked[0], mark)
    assert not rest.any()
    outside = found == 0
    assert np.array_equal(clean[outside], marked[0][outside])
    assert np.mean([psnr(take_off(m, mark)[0], p, true) for m, p in zip(marked, pictures, strict=True)]) > 35


def test_strength_tells_with_from_without_and_after() -> None:
    pictures = crops(52)
    alpha, colour = drawn("text", 0.4)
    mark, _ = one(find_marks(np.stack([blended(p, alpha, colour) for p in pictures[:40]])))
    for picture in pictures[40:]:  # Seen by nobody before.
        marked = blended(picture, alpha, colour)
        assert strength(marked, mark) > 0.8
        assert abs(strength(picture, mark)) < 0.2
        assert abs(strength(take_off(marked, mark)[0], mark)) < 0.3


def test_two_colours_and_what_is_opaque() -> None:
    pictures = crops(44)
    alpha, colour = drawn("logo", 0.3)
    mark, found = one(find_marks(np.stack([blended(p, alpha, colour) for p in pictures])))
    true = alpha > 0.04
    assert (true & (found > 0)).sum() / (true | (found > 0)).sum() > 0.85
    across = np.broadcast_to(np.arange(mark.box[0], mark.box[2]), mark.alpha.shape)
    red, blue = (np.median(mark.colour[mark.mask & side], axis=0) for side in (across < 50, across > 60))
    assert red[0] > red[2] + 80
    assert blue[2] > blue[0] + 80
    alpha, colour = drawn("text", 0.95)
    mark, _ = one(find_marks(np.stack([blended(p, alpha, colour) for p in pictures])))
    _, rest = take_off(blended(pictures[0], alpha, colour), mark)
    assert rest.sum() > 0.5 * (alpha > 0.9).sum(), "what is opaque is left to an inpainter"


def test_nothing_in_common_gives_nothing() -> None:
    assert find_marks(np.stack(crops(40))) == []
    assert find_marks(np.stack(crops(7))) == [], "too few to tell"
    flat = np.full((20, 40, 60, 3), 200, np.uint8)
    assert find_marks(flat) == [], "no gradients at all"


def test_a_mark_in_another_size() -> None:
    alpha, colour = drawn("text", 0.5)
    mark, found = one(find_marks(np.stack([blended(p, alpha, colour) for p in crops(40)])))
    twice = placed(mark, (2 * SIZE[0], 2 * SIZE[1]))
    assert twice is not None
    assert twice.box == tuple(2 * v for v in mark.box)
    assert twice.alpha.shape == (2 * mark.alpha.shape[0], 2 * mark.alpha.shape[1])
    assert abs(float(twice.alpha.mean()) - float(mark.alpha.mean())) < 0.01
    assert placed(mark, SIZE) is mark
    assert PRESENT < 1
    assert found.max() < 0.6
