"""The fast form of a generator gives what the generator gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cleanplate.models.devices import bf16_is_native
from cleanplate.models.evaluation.speed import random_generator
from cleanplate.models.inpainters.crops import CropSettings
from cleanplate.models.inpainters.inpainters import LamaInpainter
from cleanplate.models.lama.fast.generator import fast_generator
from cleanplate.models.lama.generator import LamaGenerator, Precision, build_generator, params_of, to_input
from cleanplate.models.lama.params import LamaParams

ORACLE = Path(__file__).parents[2] / "data" / "oracle"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def small() -> LamaGenerator:
    """Weights whose batch norms are far from the identity, so that a mistake in folding shows."""
    with np.load(ORACLE / "small_weights_f16.npz") as f:
        state = {k: torch.from_numpy(f[k]) for k in f.files}
    model = build_generator(params_of(state)).eval()
    model.load_state_dict(state, strict=True)
    return model


@pytest.mark.parametrize("case", ["64x64", "96x120"])
def test_fp32_equals_the_reference(small: LamaGenerator, case: str) -> None:
    with np.load(ORACLE / "small_io.npz") as f:
        image, mask, want = (f[f"{k}_{case}"] for k in ("image", "mask", "predicted"))
    got = fast_generator(small)(to_input(image.transpose(0, 2, 3, 1), mask[:, 0] > 0))
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), want, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "params", [LamaParams("fourier", 8, 2, 1, 0.5, 1024), LamaParams("fourier", 12, 3, 2, 0.75, 64)]
)
def test_fp32_equals_the_generator_for_other_shapes(params: LamaParams) -> None:
    torch.manual_seed(0)
    model = build_generator(params).eval()
    x = torch.rand(2, 4, 16, 40)
    with torch.inference_mode():
        torch.testing.assert_close(fast_generator(model)(x), model(x), atol=1e-4, rtol=0)


def test_wide_generators_are_equal() -> None:
    """Blocks wide enough for Winograd's convolutions, or split ones where the processor has AMX."""
    torch.manual_seed(1)
    model = build_generator(LamaParams("fourier", 64, 2, 1, 0.75, 1024)).eval()
    x = torch.rand(1, 4, 32, 40)
    with torch.inference_mode():
        torch.testing.assert_close(fast_generator(model)(x), model(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "box", [(0, 0, 9, 5), (40, 30, 57, 41), (87, 83, 96, 96), (0, 20, 96, 22), (33, 0, 35, 96)]
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_decoding_the_holes_only_is_exact(
    small: LamaGenerator, box: tuple[int, int, int, int], precision: Precision
) -> None:
    x0, y0, x1, y1 = box
    x = torch.rand(2, 4, 96, 96)
    x[:, 3] = 0
    x[1, 3, y0:y1, x0:x1] = 1
    want = fast_generator(small, precision)(x)
    got = fast_generator(small, precision, holes_only=True)(x)
    hole = np.s_[:, :, y0:y1, x0:x1]
    torch.testing.assert_close(got[hole], want[hole], atol=1e-6 if precision == "fp32" else 2e-3, rtol=0)
    assert not got[:, :, :, -1].any() or x1 == 96, "nothing is decoded far from the hole"


def test_without_a_hole_nothing_is_decoded(small: LamaGenerator) -> None:
    assert not fast_generator(small, holes_only=True)(torch.zeros(1, 4, 32, 32)).any()


def test_bf16_is_near(small: LamaGenerator) -> None:
    x = torch.rand(1, 4, 64, 48)
    exact, rough = fast_generator(small)(x), fast_generator(small, "bf16")(x)
    assert rough.dtype == torch.float32
    assert 0 < (exact - rough).abs().mean() < 0.005
    # Not rounded to bf16 at the end: that would leave at most 256 values above one half.
    assert len(rough[rough > 0.5].unique()) > 256


def test_outer_autocast_changes_nothing(small: LamaGenerator) -> None:
    x = torch.rand(1, 4, 32, 32)
    predict = fast_generator(small)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = predict(x)
    assert torch.equal(got, predict(x))


def test_the_inpainter_uses_it(small: LamaGenerator) -> None:
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (90, 100, 3), np.uint8), np.zeros((90, 100), np.bool_)
    mask[20:50, 30:60] = True
    crops = CropSettings(min_side=64, bucket=32, max_side=128)
    (plain,) = LamaInpainter(small, crops=crops)([image], [mask])
    (fast,) = LamaInpainter(small, crops=crops, fast=True)([image], [mask])
    assert np.array_equal(fast[~mask], image[~mask])
    assert np.abs(fast.astype(int) - plain).max() <= 1
    assert (fast != plain).mean() < 1e-3


def test_other_kinds_are_refused() -> None:
    model = build_generator(LamaParams("regular", 8, 3, 1, 0.0, 1024))
    with pytest.raises(ValueError, match="kind 'regular'"):
        fast_generator(model)
    with pytest.raises(ValueError, match="LamaGenerator"):
        LamaInpainter(torch.nn.Identity(), fast=True)


def test_probe_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bf16_is_native("cpu") in (True, False)
    for isa in ("AVX2", "avx512_core", "AVX512_CORE_VNNI"):
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
        assert not bf16_is_native("cpu"), "oneDNN would emulate it, several times slower than fp32"


def test_bf16_of_a_wide_generator_is_within_45_db() -> None:
    """Random weights with the statistics of trained ones; all in bf16 gave 39 dB on big-lama."""
    model = random_generator(LamaParams("fourier", 32, 3, 6, 0.75, 1024))
    x = torch.rand(1, 4, 96, 96)
    x[:, 3] = 0
    x[:, 3, 30:60, 40:70] = 1
    x[:, :3] *= 1 - x[:, 3:]
    exact, rough = (fast_generator(model, p, holes_only=True)(x) for p in ("fp32", "bf16"))
    apart = (exact - rough)[:, :, 30:60, 40:70].square().mean()
    assert 0 < apart < 10**-4.5
    with torch.inference_mode():
        torch.testing.assert_close(exact[:, :, 30:60, 40:70], model(x)[:, :, 30:60, 40:70], atol=1e-4, rtol=0)
