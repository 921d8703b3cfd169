"""Rendered plates, what a network is to say about them, and the loop that trains it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cleanplate.models.detectors.objects.plate_network import PlateNet, plates
from cleanplate.models.training.checkpoint import CheckpointError
from cleanplate.models.training.data import PhotoBank
from cleanplate.models.training.marks.fonts import floor_fonts
from cleanplate.models.training.plates.data import PlateSamples, Vehicles, mirrored, targets, window
from cleanplate.models.training.plates.draw import draw
from cleanplate.models.training.plates.layouts import LAYOUTS, choose, written
from cleanplate.models.training.plates.loop import PlatesRecipe, check_recipe, losses, train
from cleanplate.models.types import Image

SIZE = (96, 160)


@pytest.fixture(scope="module")
def bank() -> PhotoBank:
    rng = np.random.default_rng(1)
    images = [np.asarray(rng.integers(60, 200, (180, 240, 3)), np.uint8) for _ in range(3)]
    return PhotoBank(("a", "b", "c"), images, np.full(3, 1 / 3))


def samples_of(bank: PhotoBank, seed: int = 0, size: tuple[int, int] = SIZE) -> PlateSamples:
    return PlateSamples(bank, Vehicles([(0, (40.0, 40.0, 200.0, 160.0))]), floor_fonts(), size, seed)


def test_a_sample_is_made_from_its_number_alone(bank: PhotoBank) -> None:
    one, other = samples_of(bank).sample(5), samples_of(bank).sample(5)
    assert (one[0] == other[0]).all()
    assert all((a == b).all() for a, b in zip(one[1], other[1], strict=True))
    assert one[0].shape == (*SIZE, 3)
    assert (samples_of(bank, 1).sample(5)[0] != one[0]).any()


def test_some_samples_have_plates_and_some_none(bank: PhotoBank) -> None:
    counts = [len(samples_of(bank).sample(number)[1]) for number in range(30)]
    assert min(counts) == 0
    assert max(counts) >= 1
    assert 0.3 < np.mean([count > 0 for count in counts]) < 0.9


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_every_layout_is_drawn_in_its_proportions(layout: object) -> None:
    assert layout in LAYOUTS
    rng = np.random.default_rng(3)
    chosen = LAYOUTS[LAYOUTS.index(layout)]  # type: ignore[arg-type]
    plate = draw(rng, chosen, floor_fonts(), 40)
    aspect = plate.paint.shape[1] / plate.paint.shape[0]
    assert chosen.aspect[0] * 0.95 <= aspect <= chosen.aspect[1] * 1.05
    assert plate.paint.std() > 10, "letters stand out"
    assert plate.text


def test_texts_follow_their_pattern() -> None:
    rng = np.random.default_rng(0)
    text = written(rng, "LL-DD P S", "arabic")
    assert text[:2].isalpha()
    assert text[2] == "-"
    assert text[3:5].isdigit()
    assert all(choose(rng).held is False for _ in range(50))
    assert all(choose(rng, held=True).held for _ in range(20))


def test_what_is_asked_of_the_network_gives_the_plates_back() -> None:
    quads = [np.array([[20, 20], [80, 24], [78, 40], [18, 36]], np.float32)]
    middle, counted, offsets = targets(quads, SIZE)
    assert middle.shape == (1, 24, 40)
    assert offsets.shape == (8, 24, 40)
    assert middle.sum() > 3
    assert (counted[middle > 0] == 1).all()
    assert counted.sum() < counted.size, "its rim counts neither way"
    ((score, quad),) = plates(middle[0] * 0.9, offsets, 0.5)
    assert score == pytest.approx(0.9)
    assert np.abs(quad - quads[0]).max() < 0.1


def test_a_tiny_plate_has_a_cell_and_one_outside_has_none() -> None:
    tiny = np.array([[50, 50], [58, 50], [58, 53], [50, 53]], np.float32)
    assert targets([tiny], SIZE)[0].sum() >= 1
    outside = tiny + np.array([200, 0], np.float32)
    assert targets([outside], SIZE)[0].sum() == 0


def test_mirrored_corners_stay_where_they_are_named() -> None:
    quad = np.array([[10, 5], [30, 6], [30, 16], [10, 15]], np.float32)
    _, (turned,) = mirrored(np.zeros((*SIZE, 3), np.uint8), [quad])
    assert turned.tolist() == [[130, 6], [150, 5], [150, 15], [130, 16]]


def test_a_window_beyond_the_picture_is_mirrored() -> None:
    photo: Image = np.arange(40 * 50 * 3, dtype=np.uint32).reshape(40, 50, 3).astype(np.uint8)
    out = window(photo, np.array([-10.0, -10.0]), 1.0, (64, 96))
    assert out.shape == (64, 96, 3)
    assert (out[10:50, 10:60] == photo).all()


def test_right_answers_cost_little_and_wrong_ones_much() -> None:
    quads = [np.array([[20, 20], [80, 24], [78, 40], [18, 36]], np.float32)]
    middle, counted, offsets = (torch.from_numpy(part)[None] for part in targets(quads, SIZE))
    right = torch.cat([middle * 20 - 10, offsets], 1)
    good = losses(right, middle, counted, offsets, 4)
    bad = losses(torch.cat([-(middle * 20 - 10), offsets + 0.5], 1), middle, counted, offsets, 4)
    assert sum(good.values()) < 0.01
    assert bad["middle"] > 5
    assert bad["corners"] > good["corners"] + 0.1


def test_recipes_that_cannot_be_trained() -> None:
    good = {"model": "plates", "steps": 2, "height": 96, "width": 160, "batch": 2, "lr": 1e-3}
    check_recipe(PlatesRecipe(**good))  # type: ignore[arg-type]
    for change in ({"height": 100}, {"height": 192}, {"model": "marks"}, {"steps": 0}):
        with pytest.raises(ValueError, match=r"must be|is not"):
            check_recipe(PlatesRecipe(**{**good, **change}))  # type: ignore[arg-type]


def test_a_training_goes_on_as_if_it_had_not_stopped(bank: PhotoBank, tmp_path: Path) -> None:
    small = (64, 96)
    recipe = PlatesRecipe("plates", 3, *small, batch=2, lr=1e-3, checked=6, validate_every=3)
    whole = train(recipe, samples_of(bank, 0, small), samples_of(bank, 7, small), tmp_path / "whole")
    train(recipe, samples_of(bank, 0, small), samples_of(bank, 7, small), tmp_path / "parts", stop_after=1)
    parts = train(recipe, samples_of(bank, 0, small), samples_of(bank, 7, small), tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert (tmp_path / "parts" / "best.pt").exists()
    assert len((tmp_path / "parts" / "validation.csv").read_text().splitlines()) >= 2
    other = PlatesRecipe("plates", 4, *small, batch=2, lr=1e-3, checked=6)
    with pytest.raises(CheckpointError):
        train(other, samples_of(bank, 0, small), samples_of(bank, 7, small), tmp_path / "parts")


def test_the_network_gives_nine_values_a_cell() -> None:
    out = PlateNet().eval()(torch.zeros(1, 3, 64, 96))
    assert out.shape == (1, 9, 16, 24)
    assert sum(p.numel() for p in PlateNet().parameters()) < 750_000
