"""Discriminator and losses against the numbers of the authors' code (tests/data/oracle)."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import cv2
import flip_evaluator
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cleanplate.models.lama.discriminator import NLayerDiscriminator
from cleanplate.models.lama.generator import build_generator
from cleanplate.models.lama.losses import (
    LossWeights,
    discriminator_adversarial_loss,
    feature_matching_loss,
    generator_adversarial_loss,
    l1_loss,
    patch_mask,
    perceptual_loss,
    r1_penalty,
)
from cleanplate.models.lama.params import LamaParams
from cleanplate.models.lama.perceptual import DilatedResNet50
from cleanplate.models.metrics.flip import flip_loss, flip_map
from cleanplate.models.training.lama.objective import weave

ORACLE = Path(__file__).parents[2] / "data" / "oracle"
RECIPE: dict[str, Any] = runpy.run_path(str(ORACLE / "recipe.py"))
EXPECTED: dict[str, Any] = json.loads((ORACLE / "oracle.json").read_text())
SEED = 1234
WEIGHTS = LossWeights()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    with np.load(ORACLE / "losses.npz") as f:
        return {k: f[k] for k in f.files}


@pytest.fixture(scope="module")
def batch(arrays: dict[str, np.ndarray]) -> tuple[Tensor, Tensor, Tensor]:
    """real, fake Bx3xHxW in [0, 1]; mask Bx1xHxW, 1 = hole; float64."""
    real, fake, mask = (torch.from_numpy(arrays[k]).double() for k in ("real", "fake", "mask"))
    return real / 255, fake / 255, (mask > 0).double()


@pytest.fixture
def discriminator(arrays: dict[str, np.ndarray]) -> NLayerDiscriminator:
    state = {k[2:]: torch.from_numpy(v) for k, v in arrays.items() if k.startswith("d.")}
    model = NLayerDiscriminator(ndf=8)
    model.load_state_dict(state, strict=True)
    return model.double()


def grad_norm(model: nn.Module) -> float:
    return torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm().item()


def test_size_of_the_discriminator() -> None:
    model = NLayerDiscriminator()
    assert sum(p.numel() for p in model.parameters()) == 6_962_369
    logits, features = model.eval()(torch.zeros(1, 3, 256, 256))
    assert logits.shape == (1, 1, 19, 19)
    assert [f.shape[-1] for f in features] == [129, 65, 33, 17, 18]
    with pytest.raises(ValueError, match="at least one"):
        NLayerDiscriminator(ndf=0)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_losses_equal_the_reference(
    discriminator: NLayerDiscriminator,
    batch: tuple[Tensor, Tensor, Tensor],
    arrays: dict[str, np.ndarray],
    mode: str,
) -> None:
    want = EXPECTED["losses"][f"{mode}_f64"]
    discriminator.train(mode == "train")
    real, fake, mask = batch
    real = real.clone().requires_grad_()
    real_logits, real_features = discriminator(real)
    fake_logits, fake_features = discriminator(fake)
    for logits, name in ((real_logits, "real"), (fake_logits, "fake")):
        got = logits.detach().float().numpy()
        np.testing.assert_allclose(got, arrays[f"{name}_pred_{mode}"], atol=1e-4)
    assert [list(f.shape) for f in fake_features] == want["feature_shapes"]
    assert patch_mask(mask, fake_logits.shape[-2:]).sum().item() == want["scaled_mask_sum"]

    penalty = WEIGHTS.r1 * r1_penalty(real_logits, real)
    loss = discriminator_adversarial_loss(real_logits, fake_logits, mask) + penalty
    loss.backward(retain_graph=True)
    got = {
        "r1_penalty_times_gp_coef": penalty,
        "discr_loss": loss,
        "gen_adv_loss_x10": WEIGHTS.adversarial * generator_adversarial_loss(fake_logits),
        "feature_matching_x1": feature_matching_loss(fake_features, real_features),
        "feature_matching_masked_x1": feature_matching_loss(fake_features, real_features, mask),
        "masked_l1_known10_missing0": l1_loss(
            fake, real, mask, known=WEIGHTS.l1_known, missing=WEIGHTS.l1_missing
        ),
    }
    for key, value in got.items():
        assert value.item() == pytest.approx(want[key], rel=1e-6), key
    assert grad_norm(discriminator) == pytest.approx(want["discr_grad_norm"], rel=1e-6)


def test_one_whole_step_equals_the_reference(
    discriminator: NLayerDiscriminator, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    """A generator step, then a discriminator step with a forward pass of its own, both with Adam."""
    want = EXPECTED["losses"]["train_step_f64"]
    real, _, mask = batch
    generator = tiny_generator()
    x = torch.cat([real * (1 - mask), mask], dim=1)

    predicted = generator(x)
    with torch.no_grad():
        _, real_features = discriminator(real)
    fake_logits, fake_features = discriminator(predicted)
    losses = {
        "gen_l1": l1_loss(predicted, real, mask, known=WEIGHTS.l1_known, missing=WEIGHTS.l1_missing),
        "gen_adv": WEIGHTS.adversarial * generator_adversarial_loss(fake_logits),
        "gen_fm": WEIGHTS.feature_matching * feature_matching_loss(fake_features, real_features),
    }
    for key, loss in losses.items():
        assert loss.item() == pytest.approx(want[key], rel=1e-6), key
    step(generator, torch.stack(list(losses.values())).sum(), 1e-3, want["gen_grad_norm"])

    with torch.no_grad():
        predicted = generator(x)
    real = real.clone().requires_grad_()
    discriminator.zero_grad()
    real_logits, _ = discriminator(real)
    fake_logits, _ = discriminator(predicted)
    penalty = WEIGHTS.r1 * r1_penalty(real_logits, real)
    total = discriminator_adversarial_loss(real_logits, fake_logits, mask) + penalty
    assert penalty.item() == pytest.approx(want["discr_gp"], rel=1e-6)
    assert total.item() == pytest.approx(want["discr_total"], rel=1e-4)
    step(discriminator, total, 1e-4, want["discr_grad_norm"])

    for model, who in ((generator, "gen"), (discriminator, "discr")):
        total_of_params = sum(p.sum().item() for p in model.parameters())
        assert total_of_params == pytest.approx(want[f"{who}_param_sum_after"], rel=1e-4)
    state = generator.state_dict()
    assert state["model.1.bn_l.num_batches_tracked"] == want["gen_model1_bn_batches"]
    assert discriminator.state_dict()["model1.1.num_batches_tracked"] == want["discr_bn_batches"]


def tiny_generator() -> nn.Module:
    generator = build_generator(LamaParams("fourier", 4, 3, 1, 0.75, 1024))
    shapes = {k: tuple(v.shape) for k, v in generator.state_dict().items()}
    final = [k for k in shapes if k.endswith(".weight")][-1]
    state = RECIPE["generator_state"](shapes, SEED, final, 0.8)
    generator.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()}, strict=True)
    return generator.double()


def step(model: nn.Module, loss: Tensor, lr: float, want_norm: float) -> None:
    model.zero_grad()
    loss.backward()
    assert grad_norm(model) == pytest.approx(want_norm, rel=1e-4)
    torch.optim.Adam(model.parameters(), lr=lr).step()


def test_perceptual_loss_equals_the_reference(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    want = EXPECTED["hrfpl"]
    encoder = DilatedResNet50().eval()
    state = encoder.state_dict()
    assert len(state) == want["n_keys"]
    assert sum(p.numel() for p in encoder.parameters()) == want["n_params"]
    drawn = RECIPE["plain_state"]({k: tuple(v.shape) for k, v in state.items()}, SEED, 1.0)
    encoder.load_state_dict({k: torch.from_numpy(v) for k, v in drawn.items()}, strict=True)
    seen: list[list[Tensor]] = []

    def recorded(x: Tensor) -> list[Tensor]:
        seen.append(encoder(x))
        return seen[-1]

    real, fake = batch[0].float(), batch[1].float().requires_grad_()
    loss = perceptual_loss(recorded, fake, real)
    assert WEIGHTS.perceptual * loss.item() == pytest.approx(want["f64"]["sum_times_30"], rel=1e-4)
    assert [list(a.shape) for a in seen[0]] == want["f64"]["shapes"]
    levels = [F.mse_loss(a, b).item() for a, b in zip(*seen, strict=True)]
    assert levels == pytest.approx(want["f64"]["per_level_mse"], rel=1e-4)
    (gradient,) = torch.autograd.grad(loss, fake)
    assert gradient.abs().max() > 0


PHOTOS = Path(__file__).parents[2] / "data" / "photos"


def as_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255


def seen_otherwise(image: np.ndarray, how: str) -> np.ndarray:
    """The image (HWC uint8) changed in its lower half."""
    changed = image.copy()
    part = changed[len(image) // 2 :]
    noise = np.random.default_rng(5).integers(0, 256, part.shape, np.uint8)
    part[:] = {
        "blurred": cv2.GaussianBlur(part, (0, 0), 4),
        "tinted": np.clip(part.astype(int) + np.array([12, -3, 0]), 0, 255).astype(np.uint8),
        "inverted": 255 - part,
        "noise": noise,
    }[how]
    return changed


@pytest.mark.parametrize("how", ["blurred", "tinted", "inverted", "noise"])
def test_flip_equals_its_authors_at_every_pixel(how: str) -> None:
    for path in sorted(PHOTOS.glob("*.jpg")):
        image = cv2.resize(cv2.imread(str(path))[..., ::-1], (120, 90), interpolation=cv2.INTER_AREA)
        changed = seen_otherwise(image, how)
        both = [np.ascontiguousarray(x, np.float32) / 255 for x in (image, changed)]
        wanted, mean, _ = flip_evaluator.evaluate(*both, "LDR", applyMagma=False)
        found = flip_map(as_tensor(changed), as_tensor(image))
        assert mean > 0.005
        np.testing.assert_allclose(found[0, 0].numpy(), wanted[..., 0], atol=1e-3)
        assert float(found.mean()) == pytest.approx(float(mean), abs=2e-5)


def test_flip_has_a_gradient_where_images_are_equal_and_leads_to_them() -> None:
    torch.manual_seed(0)
    image = as_tensor(cv2.resize(cv2.imread(str(PHOTOS / "coffee.jpg")), (48, 40)))
    mask = torch.zeros(1, 1, 40, 48)
    mask[..., 10:30, 10:30] = 1
    same = image.clone().requires_grad_()
    flip_loss(same, image, mask).backward()
    assert same.grad is not None
    assert same.grad.isfinite().all()
    fill = torch.full_like(image, 0.5).requires_grad_()
    optimizer = torch.optim.Adam([fill], 0.02)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = flip_loss(fill, image, mask)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]
    assert fill.grad is not None
    assert float((fill.grad * (1 - mask)).abs().max()) == 0  # known pixels are not the generator's to see


def test_the_gradient_of_flip_is_its_slope() -> None:
    rng = np.random.default_rng(1)
    a, b = (torch.from_numpy(rng.uniform(0.1, 0.9, (1, 3, 12, 14))) for _ in range(2))
    a.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: flip_map(x, b).mean(), (a,), eps=1e-6, atol=1e-6, fast_mode=True
    )


def test_flip_of_a_loss_is_of_the_hole_alone() -> None:
    """Twice the picture around the same hole: the same loss, for it is per pixel of the hole."""
    target = torch.full((1, 3, 64, 128), 0.4)
    mask = torch.zeros(1, 1, 64, 128)
    mask[..., 24:40, 24:40] = 1
    whole, half = (flip_loss(x + 0.2, x, m) for x, m in ((target, mask), (target[..., :64], mask[..., :64])))
    assert float(whole) == pytest.approx(float(half), rel=1e-4)


def test_a_weave_costs_and_what_the_photograph_itself_repeats_does_not() -> None:
    rng = np.random.default_rng(3)
    smooth = torch.full((1, 3, 96, 96), 0.5)
    mask = torch.zeros(1, 1, 96, 96)
    mask[..., 8:88, 12:84] = 1
    rows = torch.arange(96)[:, None]
    cost = {
        period: float(weave(smooth + 0.01 * (rows % period < period // 2), smooth, mask))
        for period in (8, 4, 7)
    }
    assert min(cost[8], cost[4]) > 4 * cost[7]
    assert float(weave(smooth, smooth, mask)) == 0
    cell = torch.from_numpy(rng.uniform(0.3, 0.6, (1, 3, 8, 8)).astype(np.float32))
    tiled = cell.repeat(1, 1, 12, 12)
    assert float(weave(tiled, tiled, mask)) == 0
    assert float(weave(tiled, smooth, mask)) > 0.02


def test_a_weave_is_unlearned() -> None:
    torch.manual_seed(0)
    image = torch.full((2, 3, 64, 64), 0.5)
    mask = torch.zeros(2, 1, 64, 64)
    mask[..., 8:56, 8:56] = 1
    fill = (image + 0.02 * torch.rand(8, 8).repeat(8, 8)).requires_grad_()
    optimizer = torch.optim.Adam([fill], 0.001)
    for _ in range(40):
        optimizer.zero_grad()
        loss = weave(fill, image, mask)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1 * float(
        weave(image + 0.02 * torch.rand(8, 8).repeat(8, 8), image, mask)
    )
    assert fill.grad is not None
    assert float((fill.grad * (1 - mask)).abs().max()) == 0
