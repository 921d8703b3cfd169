"""What `cleanplate benchmark` measures of LaMa alone: ways to fill a mask, timed in turns, and the limits.

The rivals are the two ways in which LaMa is run today: a TorchScript module that sees the whole image, one
image at a time, and the same module on one crop for each connected part of the mask, 128 pixels of margin round
it (the defaults of widely used front ends). All ways share one set of weights.
"""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from cleanplate.models.devices import bf16_is_native
from cleanplate.models.inpainters.crops import CropSettings, hole_boxes, plan_crops
from cleanplate.models.inpainters.inpainters import LamaInpainter, growth_of
from cleanplate.models.lama.fast.generator import fast_generator
from cleanplate.models.lama.generator import LamaGenerator, Precision, Predict, build_generator, inpaint_batch
from cleanplate.models.lama.params import LamaParams
from cleanplate.models.types import Image, Mask

Way = Callable[[Image, Mask], Image]
"""HWC uint8 RGB and HW bool (True = fill) -> HWC uint8 RGB."""

MARGIN = 128
"""Pixels round each connected part that the rival's crops have."""

WHOLE, CROPS, EAGER = "TorchScript, whole image", "TorchScript, a crop a part", "eager, whole image"
OURS, OURS_BF16 = "ours fp32", "ours bf16"
NEEDED = (WHOLE, CROPS, OURS, OURS_BF16)


@dataclass(frozen=True)
class Case:
    """A mask to fill. name: what the table calls it; image: HWC uint8 RGB; mask: HW bool."""

    name: str
    image: Image
    mask: Mask

    @property
    def coverage(self) -> float:
        return float(self.mask.mean())


def cases(*, quick: bool = False) -> list[Case]:
    """Squares of three sizes with three coverages, one hole in a photograph's size, and twenty scattered marks."""
    rng = np.random.default_rng(0)
    sides = (64, 96) if quick else (512, 1024, 2048)
    squares = [
        Case(f"{side}x{side}, {share:.0%}", _noise(rng, side, side), blobs(rng, side, side, share))
        for side in sides
        for share in (0.02, 0.1, 0.3)
    ]
    built, unit = squares[:3], 8 if quick else 1
    height, width = 1536 // unit, 2048 // unit
    hole = np.zeros((height, width), np.bool_)
    hole[600 // unit : 800 // unit, 900 // unit : 1200 // unit] = True
    built.append(Case("2048x1536, one hole 300x200", _noise(rng, height, width), hole))
    side, mark = 1024 // unit, 40 // unit
    marks = np.zeros((side, side), np.bool_)
    for y, x in rng.integers(0, side - mark, (20, 2)):
        marks[y : y + mark, x : x + mark] = True
    built.append(Case("1024x1024, twenty marks of 40", _noise(rng, side, side), marks))
    return built + squares[3:]


def _noise(rng: np.random.Generator, height: int, width: int) -> Image:
    return rng.integers(0, 256, (height, width, 3), np.uint8)


def blobs(rng: np.random.Generator, height: int, width: int, share: float) -> Mask:
    """HW bool: ellipses, each a fifth of the wanted area or less, until they cover `share` of the image."""
    mask = np.zeros((height, width), np.bool_)
    ys, xs = np.ogrid[:height, :width]
    radius = math.sqrt(share * height * width / 5 / math.pi)
    while mask.mean() < share:
        a, b = radius * rng.uniform(0.6, 1.2, 2)
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        mask |= ((ys - y) / b) ** 2 + ((xs - x) / a) ** 2 <= 1
    return mask


def random_generator(params: LamaParams, seed: int = 0) -> LamaGenerator:
    """A generator of random weights that behaves like a trained one where rounding is concerned.

    Its batch norms hold the statistics of what they are given, as training leaves them, each with a scale and shift
    off the identity, so that no block makes its map larger than the one before; and its output spreads like a
    photograph's, .25, about the middle. Without the first the maps doubled from block to block; without the second
    the sigmoid made zeros and ones of everything. Both hide errors in one place and blow them up in others.
    """
    model = build_generator(params)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            noise = torch.randn(tensor.shape, generator=rng)
            if tensor.dim() == 4:
                tensor.copy_(noise / math.sqrt(tensor.numel() / tensor.shape[0]))
            elif name.endswith(("running_mean", "running_var")):
                continue
            elif tensor.dtype.is_floating_point:
                tensor.copy_(0.2 * noise + (1 if name.endswith("weight") else 0))
        _settle(model, rng)
    return model.eval()


def _settle(model: LamaGenerator, rng: torch.Generator) -> None:
    """Batch norms take the statistics of a few images with a hole; the last convolution is scaled to spread."""
    x = torch.rand(2, 4, 96, 96, generator=rng)
    x[:, 3] = 0
    x[:, 3, 30:60, 30:60] = 1
    x[:, :3] *= 1 - x[:, 3:]
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    model.train()(x)
    for norm in norms:
        norm.momentum = 0.1
    layers: list[Any] = list(model.eval().model)
    z: Any = x
    for layer in layers[:-2]:
        z = layer(z)
    last = layers[-2]
    logits = last(z)
    # A sigmoid's slope in the middle is 1/4.
    last.weight /= logits.std()
    last.bias.copy_((last.bias - logits.mean(dim=(0, 2, 3))) / logits.std())


def traced(model: LamaGenerator) -> Predict:
    """The generator as a TorchScript module, frozen for inference, sizes left open."""
    with warnings.catch_warnings():
        # Deprecated since torch 2.9, and still how LaMa is handed round.
        warnings.simplefilter("ignore")
        module = torch.jit.trace(model, torch.rand(1, 4, 64, 96, device=next(model.parameters()).device))  # type: ignore[no-untyped-call]
        frozen: Predict = torch.jit.freeze(module)
    return frozen


def component_boxes(mask: Mask, margin: int = MARGIN) -> list[tuple[int, int, int, int]]:
    """xyxy boxes round the connected parts of a mask, grown by the margin and moved inwards at the borders."""
    height, width = mask.shape
    boxes = []
    for x0, y0, x1, y1 in hole_boxes(mask).tolist():
        w, h = min(x1 - x0 + 2 * margin, width), min(y1 - y0 + 2 * margin, height)
        x = min(max((x0 + x1 - w) // 2, 0), width - w)
        y = min(max((y0 + y1 - h) // 2, 0), height - h)
        boxes.append((x, y, x + w, y + h))
    return boxes


def whole(predict: Predict, device: str = "cpu") -> Way:
    def fill(image: Image, mask: Mask) -> Image:
        return np.asarray(inpaint_batch(predict, image[None], mask[None], device=device)[0], np.uint8)

    return fill


def crop_by_crop(predict: Predict, device: str = "cpu") -> Way:
    """One crop for each connected part, one after the other; each sees what the ones before it filled."""

    def fill(image: Image, mask: Mask) -> Image:
        out, left = image.copy(), mask.copy()
        for x0, y0, x1, y1 in component_boxes(mask):
            at = np.s_[y0:y1, x0:x1]
            out[at] = inpaint_batch(predict, out[at][None], left[at][None], device=device)[0]
        return out

    return fill


def ways(model: LamaGenerator, device: str = "cpu") -> dict[str, Way]:
    """What is timed: the rivals first, then ours in both precisions (bf16 only where it is native), on
    whole images, on the rival's crops, and as a run uses it."""
    model = model.to(device)
    script = traced(model)
    found = {WHOLE: whole(script, device), CROPS: crop_by_crop(script, device), EAGER: whole(model, device)}
    for precision in precisions(device):
        predict = fast_generator(model, precision, holes_only=True)
        found[f"ours {precision}, whole image"] = whole(predict, device)
        found[f"ours {precision}, the same crops"] = crop_by_crop(predict, device)
        found[f"ours {precision}"] = _single(
            LamaInpainter(model, fast=True, precision=precision, device=device)
        )
    return found


def precisions(device: str = "cpu") -> tuple[Precision, ...]:
    return ("fp32", "bf16") if bf16_is_native(device) else ("fp32",)


def _single(inpainter: LamaInpainter) -> Way:
    return lambda image, mask: inpainter([image], [mask])[0]


def timed(case: Case, ways: dict[str, Way], rounds: int, pace: Pace | None = None) -> dict[str, Any]:
    """Every way in turn, up to `rounds` times; medians of wall and CPU seconds, how often each ran, and how far
    the fills are from the rivals'. pace: leaves ways out that there is no time for; in the first turn only
    those that no figure of merit needs."""
    pixels = {name: seen_by(name, case.mask) for name in ways}
    walls: dict[str, list[float]] = {name: [] for name in ways}
    cpus: dict[str, list[float]] = {name: [] for name in ways}
    fills: dict[str, Image] = {}
    for turn in range(rounds):
        for name, way in ways.items():
            if pace and not pace.allows(name, pixels[name], needed=turn == 0 and name in NEEDED):
                continue
            wall, cpu = time.perf_counter(), time.process_time()
            fills[name] = way(case.image, case.mask)
            walls[name].append(time.perf_counter() - wall)
            cpus[name].append(time.process_time() - cpu)
            if pace:
                pace.saw(name, pixels[name], walls[name][-1])
    rows: dict[str, dict[str, Any]] = {
        name: {
            "wall_s": statistics.median(walls[name]),
            "cpu_s": statistics.median(cpus[name]),
            "turns": len(walls[name]),
            "walls": walls[name],
            "cpus": cpus[name],
        }
        for name in fills
    }
    for name in fills:
        rival = WHOLE if "whole" in name else CROPS if "crop" in name else None
        if rival in fills and name.startswith("ours"):
            rows[name] |= difference(fills[name], fills[rival], case.mask)
        exact = name.replace("bf16", "fp32")
        if exact != name and exact in fills:
            rows[name]["psnr_from_fp32_db"] = difference(fills[name], fills[exact], case.mask)["psnr_db"]
    area = {
        "image": case.mask.size,
        "crop_a_part": seen_by(CROPS, case.mask),
        "ours": seen_by(OURS, case.mask),
    }
    return {"case": case.name, "coverage": case.coverage, "pixels_seen": area, "ways": rows}


def seen_by(way: str, mask: Mask) -> int:
    """Pixels that a way (by its name) looks at."""
    if "whole" in way:
        return mask.size
    if "crop" in way:
        return sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in component_boxes(mask))
    growth = growth_of("cpu", "bf16" if "bf16" in way else "fp32")
    return sum(c.size[0] * c.size[1] for c in plan_crops(mask, CropSettings(growth=growth)))


@dataclass
class Pace:
    """Which ways there is still time for: by their seconds a pixel so far, and what is left.

    end: of all cases, share: of the case at hand; both as time.perf_counter() tells."""

    end: float = math.inf
    share: float = math.inf
    rates: dict[str, float] = field(default_factory=dict)

    def allows(self, way: str, pixels: int, *, needed: bool) -> bool:
        until = time.perf_counter() + self.rates.get(way, 0.0) * pixels
        return until <= (self.end if needed else min(self.share, self.end))

    def saw(self, way: str, pixels: int, seconds: float) -> None:
        self.rates[way] = seconds / pixels


def share_of(case: Case) -> float:
    """A case's part of the time, beside others': large ones cost more, but need fewer turns."""
    merit = 2 if "hole" in case.name or "marks" in case.name else 1
    return merit * math.sqrt(case.mask.size)


def difference(one: Image, other: Image, mask: Mask) -> dict[str, float | None]:
    """How far two fills are apart inside the mask: largest difference in grey levels, and PSNR in dB (None:
    equal)."""
    apart = one[mask].astype(np.float64) - other[mask]
    mse = float((apart**2).mean()) if apart.size else 0.0
    return {
        "max_levels": float(np.abs(apart).max()) if apart.size else 0.0,
        "psnr_db": 10 * math.log10(255**2 / mse) if mse else None,
    }
