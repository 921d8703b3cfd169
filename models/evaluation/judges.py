"""What a fill is judged by, and what is missing where something cannot be measured here.

A metric that needs what is not there has no function and says what it needs; nothing stands in for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
from torch import nn

from cleanplate.models.metrics import pixelwise
from cleanplate.models.metrics.inception import FidInception, features_of
from cleanplate.models.metrics.lpips import Compared, load_lpips
from cleanplate.models.types import Image, Mask
from cleanplate.models.weights.checkpoints import load_tensors
from cleanplate.models.weights.registry import WeightsError, find, resolve

Judge = Callable[[Image, Image, Mask], float]
"""(fill, truth, hole) -> value."""
Embed = Callable[[Image], npt.NDArray[np.float64]]
"""An image -> the features whose distribution FID compares."""


@dataclass(frozen=True)
class Metric:
    """name: a column. needs: what to install or fetch when `of` is None, in the words of a table's cell. target: the
    best value, where neither more nor less is better."""

    name: str
    title: str
    higher_is_better: bool
    of: Judge | None
    needs: str = ""
    decimals: int = 4
    target: float | None = None


def pair_metrics(device: str = "cpu") -> list[Metric]:
    """Every metric of one fill: over the whole image, and in the hole (PSNR in dB, the others in [0, 1])."""
    return [
        Metric("l1", "L1", False, lambda fill, truth, _: pixelwise.l1(fill, truth)),
        Metric("psnr", "PSNR", True, lambda fill, truth, _: min(pixelwise.psnr(fill, truth), 100.0), "", 2),
        Metric("ssim", "SSIM", True, lambda fill, truth, _: pixelwise.ssim(fill, truth)),
        Metric("hole_l1", "L1 in hole", False, pixelwise.l1),
        Metric(
            "hole_psnr", "PSNR in hole", True, lambda f, t, m: min(pixelwise.psnr(f, t, m), 100.0), decimals=2
        ),
        Metric("hole_ssim", "SSIM in hole", True, pixelwise.ssim),
        Metric("texture", "texture over truth", False, texture_over_truth, decimals=2, target=1.0),
        Metric("texture_ring", "texture over ring", False, texture_over_ring, decimals=2, target=1.0),
        flip_metric(),
        lpips_metric(device),
    ]


LEAST = 0.5
"""Grey levels: texture below counts as this much, so that a ratio of two smooth places says nothing strange."""


def texture_over_truth(fill: Image, truth: Image, hole: Mask) -> float:
    """Strength of fine detail in the hole over what was there; 1 = as strong."""
    return max(pixelwise.texture(fill, hole), LEAST) / max(pixelwise.texture(truth, hole), LEAST)


def texture_over_ring(fill: Image, truth: Image, hole: Mask) -> float:
    """... over what lies round the hole; 1 where there is nothing round it."""
    around = pixelwise.ring(hole)
    if not around.any():
        return 1.0
    return max(pixelwise.texture(fill, hole), LEAST) / max(pixelwise.texture(truth, around), LEAST)


def flip_metric(package: str = "flip_evaluator") -> Metric:
    """FLIP, or what it needs where `package` is not installed."""
    if find_spec(package) is None:
        return Metric("flip", "FLIP", False, None, "needs flip-evaluator: pip install '.[eval]'")
    return Metric("flip", "FLIP", False, flip)


def flip(fill: Image, truth: Image, _: Mask | None = None) -> float:
    """LDR-FLIP (Andersson et al. 2020) of the whole image at its authors' default viewing distance."""
    import flip_evaluator

    both = [np.ascontiguousarray(image, np.float32) / 255 for image in (truth, fill)]
    _map, mean, _parameters = flip_evaluator.evaluate(both[0], both[1], "LDR", applyMagma=False)
    return float(mean)


VGG_FEATURES = "vgg16-features"
"""A name that a user may give the convolutions of torchvision's VGG-16 alone (59 of the 553 MB of `vgg16`)."""


def lpips_metric(device: str = "cpu", names: tuple[str, str] = ("vgg16", "lpips-vgg")) -> Metric:
    """LPIPS from its two files by their names in the weights table, or what it needs.

    Where there is no `vgg16`, a file of the user's named VGG_FEATURES stands for it: the same tensors.
    """
    if missing_weights(names[0]) and not missing_weights(VGG_FEATURES):
        names = (VGG_FEATURES, names[1])
    if needs := missing_weights(*names):
        return Metric("lpips", "LPIPS", False, None, needs)
    vgg, linear = (load_tensors(resolve(name, download=False)) for name in names)
    compared = Compared(load_lpips(vgg, linear).to(device))
    return Metric("lpips", "LPIPS", False, lambda fill, truth, _: compared(fill, truth))


def fid_embedding(device: str = "cpu") -> Embed | str:
    """The embedding of FID, or what it needs."""
    if needs := missing_weights("fid-inception"):
        return needs
    network: nn.Module = FidInception()
    try:
        network.load_state_dict(load_tensors(resolve("fid-inception", download=False)))
    except RuntimeError as error:
        raise WeightsError(f"fid-inception does not hold the network of FID: {error}") from error
    network = network.requires_grad_(False).eval().to(device)
    return lambda image: features_of(network, [image])[0]


def missing_weights(*names: str) -> str:
    """'needs weights: a, b' for those that are not on this machine, "" when all are."""
    absent = []
    for name in names:
        try:
            resolve(find(name), download=False)
        except WeightsError:
            absent.append(name)
    return f"needs weights: {', '.join(absent)}" if absent else ""
