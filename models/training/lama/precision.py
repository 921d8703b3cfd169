"""In which precision a training multiplies: fp32, or bf16 with everything delicate left in fp32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from cleanplate.models.devices import bf16_is_native

TrainPrecision = Literal["fp32", "bf16"]


Native = Callable[[torch.device], bool]
"""Whether a device multiplies bf16 in hardware."""


def available_precision(
    wanted: TrainPrecision, device: torch.device, native: Native = bf16_is_native
) -> TrainPrecision:
    """bf16 where the device multiplies it in hardware; fp32 elsewhere, where bf16 is several times slower."""
    return "bf16" if wanted == "bf16" and native(device) else "fp32"


def in_precision(network: Callable[[Tensor], Any], precision: TrainPrecision) -> Callable[[Tensor], Any]:
    """network with its convolutions in bf16 (or as it is), giving fp32.

    Weights, gradients, optimiser and losses stay in fp32, and so do the Fourier units' transforms
    (cleanplate.models.lama.ffc). bf16 has the exponents of fp32, so no loss scaling is needed.
    """
    if precision == "fp32":
        return network

    def cast(x: Tensor) -> Any:
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            return _as_fp32(network(x))

    return cast


def _as_fp32(given: Any) -> Any:
    if isinstance(given, Tensor):
        return given.float()
    return type(given)(_as_fp32(part) for part in given)
