"""Feature refinement against the numbers of the authors' code (tests/data/oracle)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cleanplate.models.lama.generator import LamaGenerator, build_generator, inpaint_batch
from cleanplate.models.lama.params import LAMA, LamaParams
from cleanplate.models.lama.refine import (
    RefineSettings,
    decode,
    encode,
    erode,
    n_scales,
    pyramid,
    refine,
    refine_image,
)

ORACLE = Path(__file__).parents[2] / "data" / "oracle"
WANT: dict[str, Any] = json.loads((ORACLE / "oracle.json").read_text())["refine"]
SETTINGS = RefineSettings(n_iters=5, min_side=40)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def case() -> dict[str, np.ndarray]:
    with np.load(ORACLE / "refine.npz") as f:
        return {k: f[k] for k in f.files}


@pytest.fixture(scope="module")
def tensors(case: dict[str, np.ndarray]) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(case["image"]) / 255, (torch.from_numpy(case["mask"]) > 0).float()


@pytest.fixture(scope="module")
def small() -> LamaGenerator:
    model = build_generator(LamaParams("fourier", 16, 3, 3, 0.75, 1024)).eval()
    with np.load(ORACLE / "small_weights_f16.npz") as f:
        model.load_state_dict({k: torch.from_numpy(f[k]) for k in f.files}, strict=True)
    return model


def test_pyramid_equals_the_reference(case: dict[str, np.ndarray], tensors: tuple[Tensor, Tensor]) -> None:
    pairs = pyramid(*tensors, SETTINGS)
    assert [list(image.shape[-2:]) for image, _ in pairs] == WANT["scales"]
    for i in (0, 1):
        image, mask = pairs[i]
        np.testing.assert_allclose(image.numpy(), case[f"pyr_image_{i}"], atol=1e-5)
        np.testing.assert_array_equal(mask.numpy() > 0, case[f"pyr_mask_{i}"] > 0)


def test_refinement_equals_the_reference(
    small: LamaGenerator, case: dict[str, np.ndarray], tensors: tuple[Tensor, Tensor]
) -> None:
    losses: list[float] = []
    refined = refine(small, *tensors, SETTINGS, on_loss=lambda _, loss: losses.append(loss))
    assert losses == pytest.approx(WANT["f64_losses"], rel=1e-5)
    np.testing.assert_allclose(refined.numpy(), case["refined_f64"], atol=1e-4)
    assert all(p.requires_grad for p in small.parameters())
    assert all(p.grad is None for p in small.parameters())


def test_encode_and_decode_are_the_generator() -> None:
    for kind in ("fourier", "regular", "dilated"):
        params = LamaParams(kind, 8, 3, 1, 0.75 if kind == "fourier" else 0.0, 1024)  # type: ignore[arg-type]
        model = build_generator(params).eval()
        x = torch.rand(1, 4, 64, 72)
        with torch.no_grad():
            assert torch.equal(decode(model, encode(model, x)), model(x))


def scene(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (height, width, 3), np.uint8), np.zeros((height, width), np.bool_)


@pytest.mark.parametrize("hole", ["wide", "narrow", "all"])
def test_known_pixels_stay_and_nothing_is_nan(hole: str) -> None:
    """A narrow hole has no core, and a hole that covers all has no known pixel: means over nothing."""
    torch.manual_seed(0)
    model = build_generator(LAMA["tiny"]).eval()
    image, mask = scene(90, 101)
    mask[20:70, 30 : 80 if hole == "wide" else 32] = True
    mask |= hole == "all"
    settings = RefineSettings(n_iters=2, min_side=32)
    losses: list[float] = []
    tensors = torch.from_numpy(image).permute(2, 0, 1)[None] / 255, torch.from_numpy(mask)[None, None].float()
    refined = refine(model, *tensors, settings, on_loss=lambda _, loss: losses.append(loss))
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    assert torch.isfinite(refined).all()
    result = refine_image(model, image, mask, settings)
    assert np.array_equal(result[~mask], image[~mask])
    assert (result[mask] != image[mask]).mean() > 0.5


def test_small_images_are_filled_as_plain_lama_does() -> None:
    model = build_generator(LAMA["tiny"]).eval()
    image, mask = scene(40, 50)
    assert refine_image(model, image, mask).tobytes() == image.tobytes()
    mask[5:20, 5:20] = True
    plain = inpaint_batch(model, image[None], mask[None])[0]
    assert np.array_equal(refine_image(model, image, mask), plain)


def test_the_budget_bounds_the_size() -> None:
    settings = RefineSettings(n_iters=1, min_side=32, px_budget=4000)
    image, mask = scene(120, 200)
    mask[30:90, 40:90] = True
    tensors = torch.from_numpy(image).permute(2, 0, 1)[None] / 255, torch.from_numpy(mask)[None, None].float()
    assert max(t.shape[-2] * t.shape[-1] for t, _ in pyramid(*tensors, settings)) <= 4000
    settings = RefineSettings(n_iters=1, min_side=32, px_budget=15000)
    result = refine_image(build_generator(LAMA["tiny"]).eval(), image, mask, settings)
    assert result.shape == image.shape
    assert np.array_equal(result[~mask], image[~mask])


def test_scales_follow_the_shorter_side() -> None:
    sides = {700: 1, 730: 2, 1100: 2, 1300: 2}
    assert {s: n_scales((s, s), RefineSettings()) for s in sides} == sides
    wide = RefineSettings(px_budget=10**8)
    assert [n_scales((s, 2 * s), wide) for s in (1400, 1500, 9000)] == [2, 3, 3]


def test_the_border_does_not_erode() -> None:
    mask = torch.zeros(1, 1, 40, 40)
    mask[..., :20, :20] = 1
    core = erode(mask)
    assert core[0, 0, :13, :13].all()
    assert core.sum() == 13 * 13


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ValueError, match="min_side"):
        RefineSettings(min_side=8)
    model = build_generator(LamaParams("dilated", 8, 3, 1, 0.0, 1024)).eval()
    with pytest.raises(ValueError, match="coarsest scale"):
        refine(model, torch.rand(1, 3, 80, 80), torch.ones(1, 1, 80, 80), RefineSettings(min_side=32))
