"""What the training of `marks` lowers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def losses(logits: Tensor, mask: Tensor, counted: Tensor) -> dict[str, Tensor]:
    """Cross-entropy a counted pixel, and 1 - soft Dice (Milletari et al. 2016) a sample that has a mark."""
    entropy = functional.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    marked = torch.sigmoid(logits) * counted
    true = mask * counted
    both, each = (marked * true).sum((1, 2, 3)), (marked + true).sum((1, 2, 3))
    dice = 1 - (2 * both + 1) / (each + 1)
    has = (true.sum((1, 2, 3)) > 0).float()
    return {
        "cross_entropy": 3 * (entropy * counted).sum() / counted.sum().clamp(min=1),
        "dice": (dice * has).sum() / has.sum().clamp(min=1),
    }
