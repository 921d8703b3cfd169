"""What the generator is pulled towards at one step: our reconstruction losses and the paper's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from cleanplate.models.lama import losses
from cleanplate.models.metrics.flip import flip_loss
from cleanplate.models.training.lama.recipe import FillWeights

Encoder = Callable[[Tensor], Sequence[Tensor]]
"""What the perceptual loss looks through: see losses.perceptual_loss."""

Discriminator = Callable[[Tensor], tuple[Tensor, list[Tensor]]]
"""Images -> (logits, feature maps), as cleanplate.models.lama.discriminator.NLayerDiscriminator."""

SUBSTITUTE = FillWeights(hole_l1=1.0, gradient=1.0)
"""Stands in for the perceptual loss, times its weight / 30, where the encoder's weights are not to be had."""

PERIOD = 8
"""Pixels: the side of the cells that three halvings make."""


def per_hole(error: Tensor, mask: Tensor) -> Tensor:
    """Mean over the hole's pixels of each image, then over images. error: BxCxHxW, mask: Bx1xHxW."""
    area = mask.sum(dim=(1, 2, 3)) * error.shape[1]
    return ((error * mask).sum(dim=(1, 2, 3)) / area.clamp_min(1.0)).mean()


def fill_losses(predicted: Tensor, images: Tensor, masks: Tensor, weights: FillWeights) -> dict[str, Tensor]:
    """The weighted parts. predicted, images: Bx3xHxW in [0, 1]; masks: Bx1xHxW, 1 = hole."""
    parts: dict[str, Tensor] = {}
    difference = predicted - images
    # Of composite - photograph, which is zero off the hole, so that a seam costs as well.
    in_hole = difference * masks
    area = (masks.sum(dim=(1, 2, 3)) * 3).clamp_min(1.0)
    if weights.hole_l1:
        parts["hole_l1"] = weights.hole_l1 * per_hole(difference.abs(), masks)
    if weights.hole_l2:
        parts["hole_l2"] = weights.hole_l2 * per_hole(difference.square(), masks)
    if weights.known_l1:
        parts["known_l1"] = weights.known_l1 * per_hole(difference.abs(), 1 - masks)
    if weights.gradient:
        steps = [in_hole.diff(dim=d).abs().sum(dim=(1, 2, 3)) for d in (2, 3)]
        parts["gradient"] = weights.gradient * ((steps[0] + steps[1]) / area).mean()
    if weights.pyramid:
        levels = []
        error, hole = in_hole, masks
        for _ in range(4):
            error, hole = F.avg_pool2d(error, 2), F.avg_pool2d(hole, 2)
            area = (hole.sum(dim=(1, 2, 3)) * 3).clamp_min(1e-6)
            levels.append((error.abs().sum(dim=(1, 2, 3)) / area).mean())
        parts["pyramid"] = weights.pyramid * torch.stack(levels).mean()
    if weights.flip:
        parts["flip"] = weights.flip * flip_loss(predicted, images, masks)
    if weights.weave:
        parts["weave"] = weights.weave * weave(predicted, images, masks)
    return parts


def weave(predicted: Tensor, images: Tensor, masks: Tensor) -> Tensor:
    """How much the fill repeats itself every PERIOD pixels beyond what the photograph does there; 0 for none.

    A generator that makes its pixels from cells of that side can weave a pattern of its own into smooth ground, and
    a loss that counts edges without asking where they are (FLIP's) may even pay for it. A photograph has no
    reason to lie on that grid: over a large hole its detail at each place of the cell comes to about 0 on the mean.
    predicted, images: Bx3xHxW in [0, 1], masks: Bx1xHxW, 1 = hole; sides are multiples of PERIOD. In grey levels of
    [0, 1], a mean over places, channels, and images by their holes' areas.
    """
    output, there = (_by_place(torch.lerp(images, x, masks), masks) for x in (predicted, images))
    excess = (output.abs() - there.abs()).clamp_min(0).mean(dim=(1, 2, 3))
    area = masks.sum(dim=(1, 2, 3))
    return (excess * area).sum() / area.sum().clamp_min(1.0)


def _by_place(x: Tensor, masks: Tensor) -> Tensor:
    """Bx3xHxW -> Bx3xPERIODxPERIOD: the mean of its fine detail in the hole by row and column modulo PERIOD."""
    fine = x - F.avg_pool2d(x, PERIOD + 1, stride=1, padding=PERIOD // 2, count_include_pad=False)
    b, c, height, width = x.shape
    cells = height // PERIOD, PERIOD, width // PERIOD, PERIOD
    total = (fine * masks).view(b, c, *cells).sum(dim=(2, 4))
    return total / masks.view(b, 1, *cells).sum(dim=(2, 4)).clamp_min(1.0)


def paper_losses(
    predicted: Tensor,
    images: Tensor,
    masks: Tensor,
    weights: losses.LossWeights,
    discriminator: Discriminator | None,
    encoder: Encoder | None,
) -> dict[str, Tensor]:
    """The weighted parts of the paper's generator loss (section 2.3), on the whole prediction.

    Without an encoder the perceptual part is `SUBSTITUTE`'s, under the name perceptual_substitute.
    """
    parts: dict[str, Tensor] = {}
    if weights.l1_known or weights.l1_missing:
        parts["l1"] = losses.l1_loss(
            predicted, images, masks, known=weights.l1_known, missing=weights.l1_missing
        )
    if discriminator is not None:
        logits, features = discriminator(predicted)
        with torch.no_grad():
            _, wanted = discriminator(images)
        parts["adversarial"] = weights.adversarial * losses.generator_adversarial_loss(logits)
        parts["feature_matching"] = weights.feature_matching * losses.feature_matching_loss(features, wanted)
    if weights.perceptual and encoder is not None:
        parts["perceptual"] = weights.perceptual * losses.perceptual_loss(encoder, predicted, images)
    elif weights.perceptual:
        instead = fill_losses(predicted, images, masks, SUBSTITUTE)
        parts["perceptual_substitute"] = weights.perceptual / 30 * torch.stack(list(instead.values())).sum()
    return parts


def discriminator_losses(
    discriminator: Discriminator, predicted: Tensor, images: Tensor, masks: Tensor, r1: float
) -> dict[str, Tensor]:
    """The discriminator's loss on a prediction (detached here) and real images, with the R1 penalty."""
    real = images.detach().requires_grad_(r1 > 0)
    real_logits, _ = discriminator(real)
    fake_logits, _ = discriminator(predicted.detach())
    parts = {"d_adversarial": losses.discriminator_adversarial_loss(real_logits, fake_logits, masks)}
    if r1:
        parts["d_r1"] = r1 * losses.r1_penalty(real_logits, real)
    return parts
