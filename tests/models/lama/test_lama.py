"""The generators against the numbers of the authors' code (tests/data/oracle)."""

from __future__ import annotations

import hashlib
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cleanplate.models.lama.ffc import FFC, FourierUnit
from cleanplate.models.lama.generator import (
    LamaGenerator,
    build_generator,
    inpaint_batch,
    pad_symmetric,
    params_of,
    to_input,
)
from cleanplate.models.lama.params import LAMA, LamaParams, padded_side

ORACLE = Path(__file__).parents[2] / "data" / "oracle"
RECIPE: dict[str, Any] = runpy.run_path(str(ORACLE / "recipe.py"))
SMALL = LamaParams("fourier", 16, 3, 3, 0.75, 1024)
CASES = ("64x64", "96x120", "127x93")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def io() -> dict[str, np.ndarray]:
    with np.load(ORACLE / "small_io.npz") as f:
        return {k: f[k] for k in f.files}


@pytest.fixture(scope="module")
def small() -> LamaGenerator:
    with np.load(ORACLE / "small_weights_f16.npz") as f:
        state = {k: torch.from_numpy(f[k]) for k in f.files}
    state = {k: v.float() if v.dtype == torch.float16 else v for k, v in state.items()}
    assert params_of(state) == SMALL
    model = build_generator(SMALL).eval()
    model.load_state_dict(state, strict=True)
    return model


def drawn_state(name: str, seed: int, final_gain: float) -> tuple[LamaGenerator, dict[str, np.ndarray]]:
    """A generator of the named shape and the recipe's weights for it, not yet loaded."""
    model = build_generator(LAMA[name]).eval()
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    final = max((k for k in shapes if k.endswith(".weight")), key=lambda k: int(k.split(".")[1]))
    return model, RECIPE["generator_state"](shapes, seed, final, final_gain)


def hwc(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("case", CASES)
def test_small_generator_equals_the_reference(
    small: LamaGenerator, io: dict[str, np.ndarray], case: str
) -> None:
    images, masks = hwc(io[f"image_{case}"]), io[f"mask_{case}"][:, 0] > 0
    x = to_input(pad_symmetric(images), pad_symmetric(masks))
    with torch.inference_mode():
        predicted = small(x).numpy()
    assert predicted.shape == io[f"predicted_{case}"].shape
    np.testing.assert_allclose(predicted, io[f"predicted_{case}"], atol=1e-4, rtol=0)

    result = inpaint_batch(small, images, masks)
    expected = hwc(io[f"result_u8_{case}"])
    # A prediction that lies on a level's border may be truncated to either side.
    assert np.abs(result.astype(int) - expected).max() <= 1
    assert (result != expected).mean() < 1e-4
    assert np.array_equal(result[~masks], images[~masks])


def test_activations_equal_the_reference(small: LamaGenerator, io: dict[str, np.ndarray]) -> None:
    """Finds the layer that is wrong when the prediction is."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: torch.nn.Module, args: Any, out: Any) -> None:
            for i, part in enumerate(out if isinstance(out, tuple) else (out,)):
                if part is not None:
                    seen[f"{name}_{i}"] = part

        return hook

    block: Any = small.model[5]
    layers = {
        "after_model1": small.model[1],
        "after_model4": small.model[4],
        "after_model5": block,
        "block5_conv1_fourier_unit": block.conv1.ffc.convg2g.fu,
        "block5_conv1_spectral": block.conv1.ffc.convg2g,
    }
    hooks = [layer.register_forward_hook(keep(name)) for name, layer in layers.items()]
    with torch.inference_mode():
        small(to_input(hwc(io["image_64x64"]), io["mask_64x64"][:, 0] > 0))
    for hook in hooks:
        hook.remove()
    expected = {k: v for k, v in io.items() if k.startswith("act_")}
    assert len(expected) == 7
    for key, want in expected.items():
        got = seen[key.removeprefix("act_").removesuffix("_sample0")][0].numpy()
        rows, cols = (max(1, n // 8) for n in got.shape[1:])
        np.testing.assert_allclose(got[:, ::rows, ::cols], want, atol=1e-4, rtol=0, err_msg=key)


def test_big_lama_has_the_published_tensors() -> None:
    full = json.loads((ORACLE / "full.json").read_text())
    with torch.device("meta"):
        state = build_generator(LAMA["big-lama"]).state_dict()
    assert {k: list(v.shape) for k, v in state.items()} == full["shapes"]
    assert len(state) == full["n_keys"] == 989


def test_big_lama_equals_the_reference() -> None:
    full = json.loads((ORACLE / "full.json").read_text())
    model, state = drawn_state("big-lama", full["seed"], full["final_gain"])
    model.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()}, strict=True)
    image, mask = RECIPE["image"](64, 64, full["seed"]), RECIPE["mask"](64, 64, full["seed"])
    case = full["cases"]["64x64"]
    assert hashlib.sha256(image.tobytes()).hexdigest() == case["image_sha256"]
    with torch.inference_mode():
        predicted = model(to_input(hwc(image), mask[:, 0] > 0))[0].numpy()
    np.testing.assert_allclose(predicted.mean((1, 2)), case["pred_mean"], atol=1e-4)
    with np.load(ORACLE / "full_samples.npz") as samples:
        want = samples["pred_samples_64x64"]
    got = predicted[:, case["sample_rows"]][:, :, case["sample_cols"]]
    np.testing.assert_allclose(got, want, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("big-lama", 50_975_875),
        ("lama-fourier", 27_048_835),
        ("lama-regular", 45_617_731),
        ("lama-dilated", 45_645_379),
        ("lama-lite", 1_368_675),
    ],
)
def test_parameter_counts(name: str, count: int) -> None:
    with torch.device("meta"):
        model = build_generator(LAMA[name])
    assert sum(p.numel() for p in model.parameters()) == count


def test_fourier_is_two_fifths_smaller_than_regular() -> None:
    with torch.device("meta"):
        sizes = {
            n: sum(p.numel() for p in build_generator(LAMA[n]).parameters())
            for n in ("lama-fourier", "lama-regular")
        }
    assert 0.38 < 1 - sizes["lama-fourier"] / sizes["lama-regular"] < 0.42


@pytest.mark.parametrize("name", LAMA)
def test_params_of_recovers_every_shape(name: str) -> None:
    with torch.device("meta"):
        state = build_generator(LAMA[name]).state_dict()
    assert params_of(state) == LAMA[name]


@pytest.mark.parametrize("kind", ["fourier", "regular", "dilated"])
def test_params_of_recovers_odd_shapes(kind: Any) -> None:
    params = LamaParams(kind, 8, 2, 3, 0.5 if kind == "fourier" else 0.0, 16)
    assert params_of(build_generator(params).state_dict()) == params


def test_params_of_refuses_other_weights() -> None:
    state = build_generator(LAMA["tiny"]).state_dict()
    with pytest.raises(ValueError, match="no first layer"):
        params_of({f"generator.{k}": v for k, v in state.items()})
    with pytest.raises(ValueError, match=r"missing model\.5\.conv1\.bn_g\.bias"):
        params_of({k: v for k, v in state.items() if k != "model.5.conv1.bn_g.bias"})
    with pytest.raises(ValueError, match=r"unexpected model\.99\.weight"):
        params_of({**state, "model.99.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"model\.2\.bn_l\.bias is \(3,\), not \(16,\)"):
        params_of({**state, "model.2.bn_l.bias": torch.zeros(3)})


def test_build_refuses_impossible_shapes() -> None:
    with pytest.raises(ValueError, match="at least one"):
        build_generator(LamaParams("fourier", 8, 3, 0, 0.75, 1024))
    with pytest.raises(ValueError, match="ratio_global"):
        build_generator(LamaParams("regular", 8, 3, 1, 0.75, 1024))
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        FFC(8, 8, 3, ratio_in=1.0)


def test_padding_equals_the_reference() -> None:
    with np.load(ORACLE / "pad.npz") as f:
        x, want = f["x"], f["img_symmetric_mod8"]
    got = pad_symmetric(x.transpose(1, 2, 0)[None])[0].transpose(2, 0, 1)
    np.testing.assert_array_equal(got, want)
    steps = json.loads((ORACLE / "oracle.json").read_text())["pad"]["ceil_modulo"]
    assert {int(k): padded_side(int(k), min_side=0) for k in steps} == {int(k): v for k, v in steps.items()}


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (17, 9)])
@pytest.mark.parametrize("kind", ["fourier", "regular", "dilated"])
def test_any_size_keeps_known_pixels(kind: Any, size: tuple[int, int]) -> None:
    model = build_generator(LamaParams(kind, 8, 3, 1, 0.75 if kind == "fourier" else 0.0, 1024)).eval()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, *size, 3), np.uint8)
    masks = rng.random((2, *size)) < 0.3
    out = inpaint_batch(model, images, masks, min_side=model.params.min_side)
    assert out.shape == images.shape
    assert out.dtype == np.uint8
    assert np.array_equal(out[~masks], images[~masks])


def test_bf16_stays_near_fp32(small: LamaGenerator, io: dict[str, np.ndarray]) -> None:
    images, masks = hwc(io["image_64x64"]), io["mask_64x64"][:, 0] > 0
    exact = inpaint_batch(small, images, masks).astype(int)
    rough = inpaint_batch(small, images, masks, precision="bf16").astype(int)
    assert 0 < np.abs(exact - rough)[masks].mean() < 1.5
    assert np.array_equal(rough[~masks], images[~masks])


def test_wrong_arrays_are_refused(small: LamaGenerator) -> None:
    images, masks = np.zeros((1, 16, 16, 3), np.uint8), np.zeros((1, 16, 16), np.bool_)
    with pytest.raises(ValueError, match="BHWC uint8"):
        inpaint_batch(small, images.astype(np.float32), masks)
    with pytest.raises(ValueError, match="BHW bool"):
        inpaint_batch(small, images, masks[:, :8])


def test_fourier_unit_runs_in_any_dtype() -> None:
    unit = FourierUnit(4, 4).eval()
    x = torch.rand(1, 4, 6, 5)
    want = unit(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = unit(x.bfloat16())
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), want, atol=0.05, rtol=0.05)
    assert unit.double()(x.double()).dtype == torch.float64
    assert unit.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def test_the_spectrum_of_a_bright_map_does_not_overflow_fp16() -> None:
    """The sum over this map, 800,000, is no fp16 number; the transforms must not pass through it."""
    torch.manual_seed(3)
    unit = FourierUnit(2, 2).eval()
    x = 200 + torch.rand(1, 2, 64, 64)
    want = unit(x)
    got = unit.half()(x.half())
    assert got.dtype == torch.float16
    assert got.isfinite().all()
    torch.testing.assert_close(got.float(), want, rtol=0.03, atol=0.03 * float(want.detach().abs().max()))
