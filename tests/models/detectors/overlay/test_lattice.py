"""Tiled marks: from the copies found the others are known, and looked for at their places only."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cleanplate.models.detectors.overlay.lattice import VIEW, Lattice, lattice_of, with_copies
from cleanplate.models.detectors.overlay.overlay_map import Looks
from cleanplate.models.types import Image, Mask, Region

SIZE = (360, 520)
A, B = np.array([130.0, 18.0]), np.array([52.0, 70.0])


def points(rng: np.random.Generator, jitter: float = 1.5) -> np.ndarray:
    """The points of a slanted lattice whose copies lie wholly in the picture."""
    every = Lattice(np.array([60.0, 40.0]), A, B).inside(SIZE[1], SIZE[0], -45)
    return every + rng.uniform(-jitter, jitter, every.shape)


@pytest.mark.parametrize("seed", range(6))
def test_the_period_is_found_from_some_of_the_points(seed: int) -> None:
    rng = np.random.default_rng(seed)
    every = points(rng)
    some = every[rng.permutation(len(every))[: max(6, len(every) * 2 // 3)]]
    fitted = lattice_of(some)
    assert fitted is not None
    lattice, held = fitted
    assert held.all()
    at = lattice.at(every)
    assert np.abs(at - np.round(at)).max() < 0.15
    # No coarser and no finer than the truth, where two neighbours of each direction were given.
    cell = abs(lattice.a[0] * lattice.b[1] - lattice.a[1] * lattice.b[0])
    assert cell >= 0.9 * abs(A[0] * B[1] - A[1] * B[0])


@pytest.mark.parametrize("seed", range(6))
def test_points_anywhere_are_no_lattice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert lattice_of(rng.uniform(0, 500, (12, 2))) is None
    assert lattice_of(rng.uniform(0, 500, (3, 2))) is None


def tiled(level: float, seed: int = 0) -> tuple[Image, list[Mask]]:
    """A noisy picture under a tiled word of this strength, and the pixels of each copy."""
    rng = np.random.default_rng(seed)
    ground = 110 + 25 * np.sin(np.arange(SIZE[1]) / 40)[None, :, None] + rng.normal(0, 6, (*SIZE, 3))
    word = np.zeros((40, 110), np.uint8)
    cv2.putText(word, "DRAFT", (4, 30), cv2.FONT_HERSHEY_DUPLEX, 1.0, 255, 2, cv2.LINE_AA)
    masks = []
    for x, y in points(rng, 0):
        full = np.zeros(SIZE, np.uint8)
        left, top = round(x) - 55, round(y) - 20
        x0, y0 = max(left, 0), max(top, 0)
        part = word[y0 - top :, x0 - left :][: SIZE[0] - y0, : SIZE[1] - x0]
        full[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]] = part
        ground += full[..., None] / 255 * level
        masks.append(full > 127)
    return np.clip(ground, 0, 255).astype(np.uint8), masks


def regions(masks: list[Mask]) -> list[Region]:
    found = []
    for mask in masks:
        ys, xs = np.nonzero(mask)
        box = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
        found.append(Region("text", "x@map", 0.9, box, mask))
    return found


@pytest.mark.parametrize("strength", [60, -45])
def test_missed_copies_are_found_at_their_places(strength: float) -> None:
    picture, masks = tiled(strength)
    missed = masks[1::4]
    given = regions([mask for n, mask in enumerate(masks) if n % 4 != 1])
    found = with_copies(picture, Looks((np.zeros(SIZE, np.uint8),)), given)
    assert found[: len(given)] == given
    more = found[len(given) :]
    assert {(one.kind, one.detector) for one in more} == {("text", "x" + VIEW)}
    together = np.logical_or.reduce([one.mask for one in more if one.mask is not None])
    for mask in missed:
        assert (together & mask).sum() > 0.85 * mask.sum()


def test_where_no_copy_is_nothing_is_taken() -> None:
    picture, masks = tiled(60)
    bare, _ = tiled(0)
    for mask in masks[1::4]:
        wide = cv2.dilate(mask.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
        picture[wide] = bare[wide]
    given = regions([mask for n, mask in enumerate(masks) if n % 4 != 1])
    missed = np.logical_or.reduce(masks[1::4])
    more = with_copies(picture, Looks((np.zeros(SIZE, np.uint8),)), given)[len(given) :]
    assert not any((one.mask & missed).sum() > 50 for one in more if one.mask is not None)


def test_the_map_alone_shows_a_copy() -> None:
    picture, masks = tiled(0)
    seen = np.logical_or.reduce(masks).astype(np.uint8) * 150
    given = regions([mask for n, mask in enumerate(masks) if n % 4 != 1])
    more = with_copies(picture, Looks((seen,)), given)[len(given) :]
    assert len(more) >= len(masks[1::4])


def test_three_finds_are_no_tiling() -> None:
    picture, masks = tiled(60)
    given = regions(masks[:3])
    assert with_copies(picture, Looks((np.zeros(SIZE, np.uint8),)), given) == given
