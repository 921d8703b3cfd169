"""What the benchmark says beside times: exactness, memory, and the distance to what the machine can multiply."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cleanplate.models.devices import bf16_is_native
from cleanplate.models.evaluation.speed import (
    WHOLE,
    blobs,
    cases,
    precisions,
    random_generator,
    traced,
    whole,
)
from cleanplate.models.inpainters.crops import CropSettings
from cleanplate.models.inpainters.inpainters import LamaInpainter
from cleanplate.models.lama.fast.convs import conv
from cleanplate.models.lama.fast.generator import fast_generator
from cleanplate.models.lama.fast.int8 import digits, split_conv, splitting_pays
from cleanplate.models.lama.generator import LamaGenerator, Predict, build_generator, params_of, to_input
from cleanplate.models.lama.params import LAMA
from cleanplate.models.lama.prefill import prefilled
from cleanplate.models.types import Image, Mask
from cleanplate.models.weights import registry
from cleanplate.models.weights.checkpoints import load_notes, load_tensors


def shipped(name: str) -> tuple[LamaGenerator, bool]:
    """A generator of the weights table, and whether it corrects a pyramid fill. Raises WeightsError."""
    path = registry.resolve(name)
    tensors = load_tensors(path)
    model = build_generator(params_of(tensors))
    model.load_state_dict(tensors, strict=True)
    return model.eval(), load_notes(path).get("prefill") == "pyramid"


def lite_inpainter(crops: CropSettings) -> LamaInpainter:
    """lama-lite as a run uses it, with other crops."""
    model, prefill = shipped("lama-lite")
    return LamaInpainter(model, crops=crops, fast=True, prefill=prefill)


def exactness(
    model: LamaGenerator, side: int, *, prefill: bool = False, image: Image | None = None
) -> dict[str, Any]:
    """The prediction of the fast forms against eager fp32's inside the holes of one image, before rounding to
    grey levels, and of both against fp64's. image: HWC uint8 RGB, at least side x side; None: noise."""
    rng = np.random.default_rng(1)
    mask = blobs(rng, side, side, 0.1)
    noise = rng.integers(0, 256, (side, side, 3), np.uint8)
    x = to_input((noise if image is None else image[:side, :side])[None], mask[None])
    wrap: Callable[[Predict], Predict] = prefilled if prefill else lambda predict: predict
    hole = torch.from_numpy(mask)
    with torch.inference_mode():
        plain = wrap(model)(x)[0][:, hole]
        found = {"eager fp32 from fp64": (plain, wrap(_double(model))(x.double())[0][:, hole])}
        for precision in precisions():
            got = wrap(fast_generator(model, precision, holes_only=True))(x)[0][:, hole]
            found[f"ours {precision} from eager fp32"] = (got, plain)
            if precision == "fp32":
                found["ours fp32 from fp64"] = (got, found["eager fp32 from fp64"][1])
    return {name: _apart(a, b) for name, (a, b) in found.items()}


def _double(model: LamaGenerator) -> LamaGenerator:
    exact = build_generator(model.params).double().eval()
    exact.load_state_dict(model.state_dict())
    return exact


def _apart(a: torch.Tensor, b: torch.Tensor) -> dict[str, float]:
    error = (a.double() - b.double()).abs()
    return {"max_abs": float(error.max()), "psnr_db": float(-10 * (error**2).mean().clamp_min(1e-30).log10())}


@torch.inference_mode()
def gmac(model: LamaGenerator, side: int) -> float:
    """Multiply-accumulates, in units of 1e9, of one square image's prediction; the FFTs are left out."""
    from torch.utils.flop_counter import FlopCounterMode

    def count(small: int) -> float:
        with FlopCounterMode(display=False) as counter:
            model(torch.rand(1, 4, small, small))
        return float(counter.get_total_flops()) / 2e9

    # The work grows with the area, and by one column of each spectrum with the side.
    one, two = count(64), count(128)
    by_area = (two - 2 * one) / (128**2 - 2 * 64**2)
    return by_area * side**2 + (one - by_area * 64**2) / 64 * side


def peaks(channels: int = 512, side: int = 64) -> dict[str, float]:
    """GMAC/s of a 3x3 convolution of channels-last maps with weights laid out beforehand, best of seven: what
    this machine's matrix units give in practice with the threads that torch has."""
    x = torch.rand(1, channels, side, side).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(channels, channels, 3, 3), torch.zeros(channels)
    work = channels**2 * 9 * (side - 2) ** 2 / 1e9
    plain = conv(weight, bias, torch.float32)
    found = {"fp32": work / _best(lambda: plain(x))}
    if bf16_is_native("cpu"):
        half, y = conv(weight, bias, torch.bfloat16), x.bfloat16()
        found["bf16"] = work / _best(lambda: half(y))
    if splitting_pays():
        cut, whole_conv = digits([x], reflect=0), split_conv(weight, bias)
        # Six products of digits a value.
        found["int8"] = 6 * work / _best(lambda: whole_conv(cut))
    return found


def limit(name: str, side: int, rounds: int) -> dict[str, Any]:
    """Achieved GMAC/s of whole square images by eager fp32 and the fast forms, in turns, and each as a share of
    the best that its kind of multiplication gives on this machine (`peaks`)."""
    model = random_generator(LAMA[name])
    work, best = gmac(model, side), peaks()
    forms: dict[str, Predict] = {"eager fp32": model}
    forms |= {f"ours {precision}": fast_generator(model, precision) for precision in precisions()}
    x = torch.rand(1, 4, side, side)
    times: dict[str, list[float]] = {form: [] for form in forms}
    for turn in range(rounds + 1):
        for form, predict in forms.items():
            seconds = _once(partial(predict, x))
            times[form] += [seconds] if turn else []  # The first turn warms up.
    rows = {}
    for form, turns in times.items():
        rate = work / statistics.median(turns)
        # Of six 8-bit products a value, where fp32 is split.
        rows[form] = {
            "seconds": statistics.median(turns),
            "gmac_per_s": rate,
            "of_peak": rate / best[form[-4:]],
        }
        if form == "ours fp32" and "int8" in best:
            rows[form]["of_split_peak"] = 6 * rate / best["int8"]
    return {"model": name, "side": side, "gmac": work, "peaks_gmac_per_s": best, "ways": rows}


def crop_costs(model: LamaGenerator, sides: Sequence[int], seconds: float) -> dict[str, Any]:
    """What a square crop costs by its side, a third of it being hole, and the two numbers of
    `cleanplate.models.inpainters.crops.cost`
    fitted to it by least squares, for each precision. seconds: later sides are left out when it is over."""
    end, found = time.perf_counter() + seconds, dict[str, Any]()
    for precision in precisions():
        predict, spent = fast_generator(model, precision, holes_only=True), dict[int, float]()
        for side in sides:
            if len(spent) > 2 and time.perf_counter() > end:
                break
            x = torch.rand(1, 4, side, side)
            x[:, 3] = 0
            x[:, 3, side // 3 : side * 2 // 3, side // 3 : side * 2 // 3] = 1
            _once(partial(predict, x))
            spent[side] = _best(partial(predict, x), 3)
        area = np.array([side**2 for side in spent], np.float64)
        columns = np.stack([np.ones_like(area), area, area * np.log2(np.maximum(area / 256**2, 1.0))], axis=1)
        # By relative error: small crops are the most.
        took = np.array(list(spent.values()))
        fixed, pixel, dearer = np.linalg.lstsq(columns / took[:, None], np.ones_like(took), rcond=None)[0]
        found[precision] = {
            "seconds": {str(side): s for side, s in spent.items()},
            "fixed_px": fixed / pixel,
            "us_per_pixel": pixel * 1e6,
            "growth": dearer / pixel,
        }
    return found


def _best(call: Callable[[], Any], times: int = 7) -> float:
    return min(_once(call) for _ in range(times))


@torch.inference_mode()
def _once(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def memory_of(name: str, model: str, case: int, quick: bool) -> dict[str, float]:
    """Resident MB of a process of its own: before a fill, and its peak after it. Run it in a fresh one."""
    torch.set_num_threads(1)
    generator = random_generator(LAMA[model])
    chosen = cases(quick=quick)[case]
    if name == WHOLE:
        way = whole(traced(generator))
    else:
        inpainter = LamaInpainter(generator, fast=True, precision="bf16" if "bf16" in name else "fp32")

        def way(image: Image, mask: Mask) -> Image:
            return inpainter([image], [mask])[0]

    del generator
    before = peak_mb()
    way(chosen.image, chosen.mask)
    return {"loaded_mb": before, "peak_mb": peak_mb()}


def peak_mb() -> float:
    """Of this process; `ru_maxrss` of a process that another started is at least what that one had."""
    status = Path("/proc/self/status")
    if status.exists():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS tells bytes
