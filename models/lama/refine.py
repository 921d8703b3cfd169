"""Multi-scale feature refinement of large holes (Kulshreshtha et al. 2022, arXiv 2206.13644).

LaMa was trained on 256-pixel crops; in large images its fills lose structure. Here the hole is filled at a
small scale first; then, scale by scale, the features behind the encoder are optimised so that the
prediction, made small again, looks like the fill of the scale before. The weights stay as they are.

Cost: n_iters forward and backward passes for every scale but the coarsest, and the memory of training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cleanplate.models.devices import progressed
from cleanplate.models.lama.ffc import FFCResnetBlock
from cleanplate.models.lama.generator import LamaGenerator, inpaint_batch
from cleanplate.models.lama.params import MODULO
from cleanplate.models.types import Image, Mask

Pair = tuple[Tensor, Tensor]
"""image 1x3xHxW in [0, 1] and mask 1x1xHxW in {0, 1}, 1 = hole"""

ERODE_SIDE = 15


@dataclass(frozen=True)
class RefineSettings:
    """The defaults are the released ones.

    n_iters: predictions per scale; there is one step less. lr: Adam's. min_side: a further scale is added
    while the shorter side is above about 1.4 times this. max_scales: at most so many. px_budget: larger
    images (height * width) are refined at a reduced size; it bounds the memory.
    """

    n_iters: int = 15
    lr: float = 0.002
    min_side: int = 512
    max_scales: int = 3
    px_budget: int = 1_800_000

    def __post_init__(self) -> None:
        if self.n_iters < 1 or self.max_scales < 1 or self.min_side < 32 or self.px_budget < 32 * 32:
            raise ValueError(f"n_iters, max_scales >= 1, min_side >= 32, px_budget >= 1024 must hold: {self}")


def refine_image(
    generator: LamaGenerator, image: Image, mask: Mask, settings: RefineSettings | None = None
) -> Image:
    """Fills a hole with refinement: HWC uint8 RGB and HW bool (True = remove) -> HWC uint8 RGB.

    Pixels outside the mask are bit-equal to the input. An image too small for a second scale is filled as
    plain LaMa fills it. The generator must be in eval mode; its weights and their gradients are left as they
    are.
    """
    settings = settings or RefineSettings()
    if not mask.any():
        return image.copy()
    weight = next(generator.parameters())
    height, width = image.shape[:2]
    if n_scales((height, width), settings) == 1:
        side = max(16, generator.params.min_side)
        filled = inpaint_batch(generator, image[None], mask[None], device=weight.device, min_side=side)
        return np.asarray(filled[0], np.uint8)
    rgb = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].to(weight) / 255
    hole = torch.from_numpy(np.ascontiguousarray(mask))[None, None].to(weight)
    refined = refine(generator, rgb, hole, settings)
    if refined.shape[-2:] != (height, width):
        refined = F.interpolate(refined, size=(height, width), mode="bilinear", align_corners=False)
    levels = (refined[0].permute(1, 2, 0) * 255).clamp(0, 255).to(torch.uint8).cpu().numpy()
    return np.where(mask[..., None], levels, image)


def refine(
    generator: LamaGenerator,
    image: Tensor,
    mask: Tensor,
    settings: RefineSettings,
    *,
    on_loss: Callable[[int, float], None] | None = None,
) -> Tensor:
    """1x3xHxW in [0, 1] and 1x1xHxW in {0, 1} -> the composite 1x3xhxw, h*w at most px_budget.

    on_loss is called with (scale, loss) of every prediction after the coarsest scale. Raises ValueError where the
    coarsest scale is too small for the generator.
    """
    pairs = pyramid(image, mask, settings)
    if min(pairs[0][0].shape[-2:]) + MODULO - 1 < generator.params.min_side:
        raise ValueError(
            f"the coarsest scale is {tuple(pairs[0][0].shape[-2:])}; this generator needs "
            f"{generator.params.min_side}: raise min_side"
        )
    result: Tensor | None = None
    with _frozen(generator):
        for scale, (image, mask) in enumerate(pairs):

            def tell(loss: float, scale: int = scale) -> None:
                if on_loss is not None:
                    on_loss(scale, loss)

            result = _refine_scale(generator, image, mask, result, settings, tell)
    assert result is not None
    return result


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """No gradients for weights meanwhile: without it, every layer would keep its input for them."""
    before = [(p, p.requires_grad) for p in module.parameters()]
    for p, _ in before:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p, needed in before:
            p.requires_grad_(needed)


def _refine_scale(
    generator: LamaGenerator,
    image: Tensor,
    mask: Tensor,
    coarser: Tensor | None,
    settings: RefineSettings,
    on_loss: Callable[[float], None],
) -> Tensor:
    """The composite at one scale, its features led by the composite of the coarser one if there is one."""
    height, width = image.shape[-2:]
    image, mask = _pad_reflect(image), _pad_reflect(mask)
    with torch.no_grad():
        features = encode(generator, torch.cat([image * (1 - mask), mask], dim=1))
        if coarser is None:
            predicted = decode(generator, features)
            return (mask * predicted + (1 - mask) * image)[..., :height, :width]
    core = erode(halve_mask_inner(mask[..., :height, :width]))
    features = [f.detach().requires_grad_() for f in features]
    optimiser = torch.optim.Adam(features, lr=settings.lr)
    for i in range(settings.n_iters):
        predicted = decode(generator, features)
        loss = _known_loss(predicted, image, mask) + _coarse_loss(
            pyramid_down(predicted[..., :height, :width]), coarser, core
        )
        on_loss(loss.item())
        progressed()
        # The last prediction is the result: a step after it would be lost.
        if i < settings.n_iters - 1 and loss.requires_grad:
            for feature, gradient in zip(features, torch.autograd.grad(loss, features), strict=True):
                feature.grad = gradient
            optimiser.step()
    return (mask * predicted + (1 - mask) * image)[..., :height, :width].detach()


def _known_loss(predicted: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Mean |predicted - image| over known pixels, padding included; 0 if there are none."""
    known = (mask == 0).expand_as(predicted)
    return (predicted - image)[known].abs().mean() if known.any() else predicted.new_zeros(())


def _coarse_loss(halved: Tensor, coarser: Tensor, core: Tensor) -> Tensor:
    """Mean |halved - coarser| over the hole's core; 0 if a narrow hole has none (a mean over nothing is
    NaN)."""
    inside = (core > 0).expand_as(halved)
    return (halved - coarser)[inside].abs().mean() if inside.any() else halved.new_zeros(())


def encode(generator: LamaGenerator, x: Tensor) -> list[Tensor]:
    """What goes into the first residual block: (local, global) or one map. x: Bx4xHxW."""
    out = generator.model[: _first_block(generator)](x)
    return [part for part in (out if isinstance(out, tuple) else (out,)) if part is not None]


def decode(generator: LamaGenerator, features: list[Tensor]) -> Tensor:
    """The prediction Bx3xHxW in [0, 1] from what `encode` gives."""
    start = _first_block(generator)
    if isinstance(generator.model[start], FFCResnetBlock):
        out: Tensor = generator.model[start:]((features[0], features[1] if len(features) > 1 else None))
    else:
        out = generator.model[start:](features[0])
    return generator.crop(out)


def _first_block(generator: LamaGenerator) -> int:
    p = generator.params
    return 2 + p.n_downsampling if p.kind == "fourier" else 4 + 3 * p.n_downsampling


def n_scales(shape: tuple[int, int], settings: RefineSettings) -> int:
    """How many scales an image of this (height, width) is refined at."""
    side = min(_budgeted(shape, settings.px_budget))
    return min(1 + round(max(0.0, math.log2(side / settings.min_side))), settings.max_scales)


def _budgeted(shape: tuple[int, int], px_budget: int) -> tuple[int, int]:
    height, width = shape
    if height * width <= px_budget:
        return shape
    ratio = math.sqrt(px_budget / (height * width))
    return max(1, int(height * ratio)), max(1, int(width * ratio))


def pyramid(image: Tensor, mask: Tensor, settings: RefineSettings) -> list[Pair]:
    """Image 1x3xHxW and mask 1x1xHxW at all scales, the coarsest first."""
    shape = (image.shape[-2], image.shape[-1])
    size = _budgeted(shape, settings.px_budget)
    if size != shape:
        image, mask = (F.interpolate(t, size=size, mode="bilinear") for t in (image, mask))
    pairs = [(image, _any(mask))]
    for _ in range(n_scales(shape, settings) - 1):
        image, mask = pairs[-1]
        pairs.append((pyramid_down(image), _any(pyramid_down(mask))))
    return pairs[::-1]


def _any(mask: Tensor) -> Tensor:
    """A mask with soft edges -> {0, 1}: whatever was touched is hole."""
    return (mask > 1e-8).to(mask.dtype)


def pyramid_down(x: Tensor) -> Tensor:
    """BCHW -> half the size, rounded down: a Gaussian (5x5, sigma 1, reflected borders), then bilinear."""
    taps = torch.exp(-0.5 * torch.arange(-2, 3, device=x.device, dtype=x.dtype) ** 2)
    taps = taps / taps.sum()
    channels = x.shape[1]
    kernel = torch.outer(taps, taps).expand(channels, 1, 5, 5)
    blurred = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, groups=channels)
    return _half(blurred)


def halve_mask_inner(mask: Tensor) -> Tensor:
    """Bx1xHxW in {0, 1} -> half the size, rounded down: 1 only where all source pixels were."""
    return (_half(mask) >= 1 - 1e-8).to(mask.dtype)


def _half(x: Tensor) -> Tensor:
    size = (x.shape[-2] // 2, x.shape[-1] // 2)
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def erode(mask: Tensor) -> Tensor:
    """1x1xHxW in {0, 1}, less a rim of 7 pixels (an ellipse of 15x15); the image's border does not erode."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (ERODE_SIDE, ERODE_SIDE))
    eroded = cv2.erode(mask[0, 0].cpu().numpy().astype(np.uint8), kernel)
    return torch.from_numpy(np.asarray(eroded))[None, None].to(mask)


def _pad_reflect(x: Tensor) -> Tensor:
    """BCHW, padded at the bottom and the right to multiples of 8 by mirroring without the edge pixel."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % MODULO, 0, -height % MODULO), mode="reflect")
