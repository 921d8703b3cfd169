"""The losses LaMa is trained with (Suvorov et al. 2021, section 2.3), as the released code computes them.

Images are Bx3xHxW RGB in [0, 1], masks Bx1xHxW with 1 = hole. All losses are means, so that they do not
depend on the size of a batch. They look at the generator's whole prediction, not at the composite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class LossWeights:
    """What each loss is multiplied by; the defaults are those of the released configurations."""

    l1_known: float = 10.0
    l1_missing: float = 0.0
    adversarial: float = 10.0
    feature_matching: float = 100.0
    perceptual: float = 30.0
    r1: float = 0.001


def l1_loss(predicted: Tensor, target: Tensor, mask: Tensor, *, known: float, missing: float) -> Tensor:
    """Mean over all pixels of |predicted - target|, weighted `known` outside the mask and `missing` inside.

    Not divided by the weights' sum: a large hole lowers the loss, as in the released code. The paper's
    equation 5 does not have this term.
    """
    weights = missing * mask + known * (1 - mask)
    return ((predicted - target).abs() * weights).mean()


def generator_adversarial_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating loss over every patch, known or not (Goodfellow et al. 2014)."""
    return F.softplus(-fake_logits).mean()


def patch_mask(mask: Tensor, size: Sequence[int]) -> Tensor:
    """A mask at the (height, width) of the discriminator's logits: nearest source pixel, Bx1xhxw."""
    return F.interpolate(mask, size=list(size), mode="nearest")


def discriminator_adversarial_loss(real_logits: Tensor, fake_logits: Tensor, mask: Tensor) -> Tensor:
    """Only patches in the hole are told apart as fake; known patches of a prediction count as real.

    A generator copies known pixels, so calling them fake would punish the discriminator for seeing what is
    true.
    """
    hole = patch_mask(mask, fake_logits.shape[-2:])
    fake = hole * F.softplus(fake_logits) + (1 - hole) * F.softplus(-fake_logits)
    return (F.softplus(-real_logits) + fake).mean()


def r1_penalty(real_logits: Tensor, real: Tensor) -> Tensor:
    """Mean over the batch of the squared norm of d sum(logits) / d real (Mescheder et al. 2018).

    real must have had requires_grad set before the logits were made from it. Differentiable itself.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
    return gradient.square().flatten(1).sum(dim=1).mean()


def feature_matching_loss(
    fake: Sequence[Tensor], real: Sequence[Tensor], mask: Tensor | None = None
) -> Tensor:
    """Mean over the discriminator's layers of the mean squared distance of their maps.

    With a mask, only what lies outside it counts (mask resized bilinearly, the mean still over all
    positions).
    """
    levels = []
    for a, b in zip(fake, real, strict=True):
        squared = (a - b).square()
        if mask is not None:
            hole = F.interpolate(mask, size=a.shape[-2:], mode="bilinear", align_corners=False)
            squared = squared * (1 - hole)
        levels.append(squared.mean())
    return torch.stack(levels).mean()


def perceptual_loss(
    encoder: Callable[[Tensor], Sequence[Tensor]], predicted: Tensor, target: Tensor
) -> Tensor:
    """High receptive field perceptual loss: the sum over the encoder's maps of their mean squared distance.

    encoder: cleanplate.models.lama.perceptual.DilatedResNet50 in eval mode, its weights frozen; it sees
    ImageNet-normalised images. The paper writes a mean over the maps; the released code, and this, take the sum.
    """
    with torch.no_grad():
        wanted = encoder(normalise(target))
    got = encoder(normalise(predicted))
    return torch.stack([F.mse_loss(a, b) for a, b in zip(got, wanted, strict=True)]).sum()


def normalise(images: Tensor) -> Tensor:
    """RGB in [0, 1] -> the mean and spread that ImageNet encoders expect. Bx3xHxW."""
    mean = images.new_tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
    std = images.new_tensor(IMAGENET_STD).view(1, 3, 1, 1)
    return (images - mean) / std
