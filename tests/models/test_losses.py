"""Discriminator and losses against the numbers of the authors' code (tests/data/oracle)."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.discriminator import NLayerDiscriminator
from models.lama import LamaParams, build_generator
from models.losses import (
    LossWeights,
    discriminator_adversarial_loss,
    feature_matching_loss,
    generator_adversarial_loss,
    l1_loss,
    normalise,
    patch_mask,
    perceptual_loss,
    r1_penalty,
)
from models.resnet import DilatedResNet50

ORACLE = Path(__file__).parents[1] / "data" / "oracle"
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
    real, fake = batch[0].float(), batch[1].float().requires_grad_()
    loss = perceptual_loss(encoder, fake, real)
    assert WEIGHTS.perceptual * loss.item() == pytest.approx(want["f64"]["sum_times_30"], rel=1e-4)
    loss.backward()
    assert fake.grad is not None
    assert fake.grad.abs().max() > 0
    with torch.no_grad():
        maps = list(zip(encoder(normalise(fake)), encoder(normalise(real)), strict=True))
    assert [list(a.shape) for a, _ in maps] == want["f64"]["shapes"]
    levels = [F.mse_loss(a, b).item() for a, b in maps]
    assert levels == pytest.approx(want["f64"]["per_level_mse"], rel=1e-4)
