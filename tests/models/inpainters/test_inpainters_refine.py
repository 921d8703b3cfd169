"""LaMa's inpainter with refinement: large crops are refined, small ones filled as ever."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import torch

from cleanplate.jobs.cli.flags import add_recipe_flags, recipe_of
from cleanplate.models.inpainters.crops import CropSettings
from cleanplate.models.inpainters.inpainters import LamaInpainter
from cleanplate.models.lama.generator import LamaGenerator, build_generator
from cleanplate.models.lama.params import LAMA
from cleanplate.models.lama.prefill import prefilled
from cleanplate.models.lama.refine import RefineSettings, refine_image
from cleanplate.models.types import Image, Mask

SETTINGS = RefineSettings(n_iters=3, min_side=48, lr=0.5)  # large steps, to be seen in whole grey levels
WHOLE = CropSettings(whole_image=True)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tiny() -> LamaGenerator:
    torch.manual_seed(0)
    return build_generator(LAMA["tiny"]).eval()


def holed(side: int) -> tuple[Image, Mask]:
    rng = np.random.default_rng(side)
    mask = np.zeros((side, side), bool)
    mask[side // 4 : side // 2, side // 4 : -side // 4] = True
    return rng.integers(0, 256, (side, side, 3), dtype=np.uint8), mask


def test_a_large_crop_is_refined_and_a_small_one_is_not(tiny: LamaGenerator) -> None:
    plain = LamaInpainter(tiny, crops=WHOLE)
    refining = LamaInpainter(tiny, crops=WHOLE, refine=SETTINGS)
    (large, large_mask), (small, small_mask) = holed(112), holed(64)
    images, masks = [large, small], [large_mask, small_mask]
    got, unrefined = refining(images, masks), plain(images, masks)
    np.testing.assert_array_equal(got[0], refine_image(tiny, large, large_mask, SETTINGS))
    assert (got[0] != unrefined[0]).any(axis=2)[large_mask].mean() > 0.1
    np.testing.assert_array_equal(got[1], unrefined[1])
    np.testing.assert_array_equal(got[0][~large_mask], large[~large_mask])


def test_the_pixel_budget_bounds_what_is_refined(tiny: LamaGenerator) -> None:
    image, mask = holed(112)
    budget = RefineSettings(n_iters=3, min_side=48, px_budget=64 * 64)
    plain, bounded = LamaInpainter(tiny, crops=WHOLE), LamaInpainter(tiny, crops=WHOLE, refine=budget)
    np.testing.assert_array_equal(bounded([image], [mask])[0], plain([image], [mask])[0])


def test_only_a_generator_can_be_refined(tiny: LamaGenerator) -> None:
    class Prefilled(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return prefilled(tiny)(x)

    with pytest.raises(ValueError, match="LamaGenerator, not Prefilled"):
        LamaInpainter(Prefilled(), refine=SETTINGS)


def test_the_flag_is_the_recipe_key() -> None:
    parser = argparse.ArgumentParser()
    add_recipe_flags(parser)
    assert recipe_of(parser.parse_args(["--refine"])).inpaint.refine is True
    assert recipe_of(parser.parse_args([])).inpaint.refine is False
    changed = parser.parse_args(["--refine", "--set", "inpaint.refine_pixels=500000"])
    assert recipe_of(changed).inpaint.refine_pixels == 500_000
