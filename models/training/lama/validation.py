"""Fixed pairs of photographs and holes on which a training is judged while it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from cleanplate.models.lama import losses
from cleanplate.models.lama.generator import Predict, inpaint_batch
from cleanplate.models.metrics import pixelwise
from cleanplate.models.metrics.flip import flip_map
from cleanplate.models.training.data import evaluation_crop
from cleanplate.models.training.lama.masks import MASKS, bounded_mask, scaled
from cleanplate.models.training.lama.objective import Encoder
from cleanplate.models.types import Image, Mask


@dataclass(frozen=True)
class Validation:
    """Pairs of one size: HWC uint8 RGB photographs and HW bool masks, True = hole."""

    images: tuple[Image, ...]
    masks: tuple[Mask, ...]


def make_validation(images: Sequence[Image], size: int = 256, seed: int = 7) -> Validation:
    """Thick and medium masks in turn, the same on every call; for sizes other than 256 the masks scale."""
    crops: list[Image] = []
    masks: list[Mask] = []
    for number, image in enumerate(images):
        rng = np.random.default_rng([seed, number])
        kind = scaled(MASKS["medium-256" if number % 2 else "thick-256"], size / 256)
        crops.append(evaluation_crop(image, size))
        masks.append(bounded_mask(rng, size, size, kind))
    return Validation(tuple(crops), tuple(masks))


def validate(
    model: nn.Module, predict: Predict, validation: Validation, encoder: Encoder | None = None
) -> tuple[dict[str, float], list[Image]]:
    """({hole_psnr, psnr, ssim, flip, texture}: means over the images, the fills); with an encoder also perceptual,
    the loss of that name of the whole image. texture is the fill's over the photograph's, in the hole.

    predict: the model, or a function around it; the model is in eval mode while it is judged.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    fills: list[Image] = []
    for image, mask in zip(validation.images, validation.masks, strict=True):
        filled = inpaint_batch(predict, image[None], mask[None], device=device)
        fills.append(np.asarray(filled[0], np.uint8))
    model.train(was_training)
    rows = [
        {
            "hole_psnr": pixelwise.psnr(fill, image, mask),
            "psnr": pixelwise.psnr(fill, image),
            "ssim": pixelwise.ssim(fill, image),
            "flip": flip(fill, image),
            "texture": pixelwise.texture(fill, mask) / max(pixelwise.texture(image, mask), 0.5),
            **({} if encoder is None else {"perceptual": perceptual(encoder, fill, image, device)}),
        }
        for fill, image, mask in zip(fills, validation.images, validation.masks, strict=True)
    ]
    # A perfect fill has infinite PSNR, which a mean does not survive.
    return {name: float(np.mean([min(row[name], 100.0) for row in rows])) for name in rows[0]}, fills


@torch.no_grad()
def perceptual(encoder: Encoder, fill: Image, truth: Image, device: torch.device) -> float:
    """The perceptual loss of two HWC uint8 RGB images."""
    both = torch.from_numpy(np.stack([fill, truth])).permute(0, 3, 1, 2).to(device).float() / 255
    return float(losses.perceptual_loss(encoder, both[:1], both[1:]))


def flip(fill: Image, truth: Image) -> float:
    """FLIP of two HWC uint8 RGB images, the mean over all pixels."""
    both = torch.from_numpy(np.stack([fill, truth])).permute(0, 3, 1, 2).float() / 255
    return float(flip_map(both[:1], both[1:]).mean())


def save_sheet(path: Path, rows: Sequence[Sequence[Image]]) -> None:
    """A picture of rows of equally sized HWC uint8 RGB images, in two columns of rows. Raises OSError."""
    lines = [np.concatenate(list(row), axis=1) for row in rows]
    half = (len(lines) + 1) // 2
    lines += [np.zeros_like(lines[0])] * (2 * half - len(lines))
    sheet = np.concatenate([np.concatenate(lines[:half]), np.concatenate(lines[half:])], axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92]):
        raise OSError(f"cannot write {path}")


def holed(image: Image, mask: Mask) -> Image:
    """The image with its hole grey (HWC uint8 RGB), as a person looks at it."""
    return np.where(mask[..., None], np.uint8(127), image).astype(np.uint8)


def save_samples(path: Path, validation: Validation, fills: Sequence[Image], count: int = 8) -> None:
    """A picture with a row for each of the first photographs: with the hole, filled, true."""
    pairs = list(zip(validation.images, validation.masks, fills, strict=True))[:count]
    save_sheet(path, [(holed(image, mask), fill, image) for image, mask, fill in pairs])
