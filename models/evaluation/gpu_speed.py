"""What a device does with matrices, with a LaMa, and with memory: figures for `make gpu-check`.

Times are wall seconds between two points at which the device has finished its queue.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cleanplate.models.evaluation.speed import precisions, random_generator
from cleanplate.models.evaluation.speed_limits import gmac
from cleanplate.models.lama.fast.cuda_graphs import graphed
from cleanplate.models.lama.fast.generator import fast_generator
from cleanplate.models.lama.generator import Predict
from cleanplate.models.lama.params import LAMA

TURNS = 7


def seconds(call: Callable[[], object], device: str, turns: int = TURNS) -> float:
    """Median of so many calls, after two that warm up."""
    times = []
    for turn in range(turns + 2):
        settle(device)
        start = time.perf_counter()
        call()
        settle(device)
        times += [time.perf_counter() - start] if turn > 1 else []
    return statistics.median(times)


def settle(device: str) -> None:
    """Wait until the device has done all that it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def matmul_peaks(device: str, side: int) -> dict[str, float]:
    """TMAC/s of square matrices of this side in each precision that the device has."""
    found: dict[str, float] = {}
    for precision in precisions(device):
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        a, b = (torch.rand(side, side, device=device, dtype=dtype) for _ in range(2))
        found[precision] = side**3 / seconds(lambda a=a, b=b: a @ b, device) / 1e12  # type: ignore[misc]
    return found


@torch.inference_mode()
def lama(model: str, device: str, side: int, batch: int, peaks: dict[str, float]) -> list[dict[str, Any]]:
    """A row for each precision, with CUDA graphs and without: images/s of square crops, share of the matmul peak, and
    the largest difference from eager fp32 on the CPU, on a scale of 0 to 1 (B x 4 x side x side in)."""
    plain = random_generator(LAMA[model])
    x = torch.rand(batch, 4, side, side)
    x[:, 3] = (x[:, 3] > 0.8).float()
    want, work = plain(x[:1]), gmac(plain, side)
    plain, y = plain.to(device), x.to(device)
    rows = []
    for precision in precisions(device):
        predict: Predict = fast_generator(plain, precision)
        forms = {"kernels": predict}
        if torch.device(device).type == "cuda":
            forms["graph"] = graphed(predict)
        for form, run in forms.items():
            each = seconds(lambda run=run: run(y), device) / batch  # type: ignore[misc]
            error = float((run(y)[:1].float().cpu() - want).abs().max())
            share = work / 1e3 / each / peaks[precision]
            rows.append(
                {
                    "precision": precision,
                    "form": form,
                    "side": side,
                    "batch": batch,
                    "images_per_s": 1 / each,
                    "of_matmul_peak": share,
                    "max_abs_from_cpu": error,
                }
            )
    return rows


def transfers(device: str, megabytes: int) -> dict[str, float]:
    """GB/s from this machine's memory to the device's, from pageable and from pinned memory."""
    plain = torch.empty(megabytes << 20, dtype=torch.uint8)
    kinds: dict[str, Tensor] = {"pageable": plain}
    if torch.device(device).type == "cuda":
        kinds["pinned"] = plain.pin_memory()
    target = torch.empty_like(plain, device=device)
    return {
        kind: plain.numel() / 1e9 / seconds(lambda data=data: target.copy_(data, non_blocking=True), device)  # type: ignore[misc]
        for kind, data in kinds.items()
    }


def memory_peak(device: str) -> float | None:
    """GiB that torch held on the device at most since the last call; None on a CPU."""
    if torch.device(device).type != "cuda":
        return None
    peak = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    return peak
