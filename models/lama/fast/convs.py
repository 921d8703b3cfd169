"""One convolution for inference, as fast as the device allows: weights laid out once, ReLU and sum fused.

On a CPU, oneDNN can keep a convolution's weights in the layout that its kernels want and apply ReLU or add
to a map that exists while the result is still in registers. PyTorch reaches this through operators that are
not public. They are probed once (`onednn_fuses`), against the public convolution; where they are absent,
refuse, or disagree, and on every other device, the public operators do the same in more passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

_STABLE = (16, 32, 64, 128)
"""Output channels for which one layout was as fast as the best at every size of input tried."""


def mirror(x: Tensor, r: int) -> None:
    """Fills the outer r rows and columns of BxHxWxC by reflection, in place."""
    for k in range(r):
        x[:, k, r:-r], x[:, -1 - k, r:-r] = x[:, 2 * r - k, r:-r], x[:, -1 - (2 * r - k), r:-r]
    for k in range(r):
        x[:, :, k], x[:, :, -1 - k] = x[:, :, 2 * r - k], x[:, :, -1 - (2 * r - k)]


@dataclass(frozen=True)
class Conv:
    """A convolution without padding of its own. `packed`: the weight is in oneDNN's layout.

    Maps are BxCxHxW, channels-last, of the weight's dtype.
    """

    weight: Tensor
    bias: Tensor | None
    stride: int = 1
    packed: bool = False

    def __call__(self, x: Tensor, *, relu: bool = False) -> Tensor:
        """The convolution of x, then ReLU if asked for."""
        if self.packed:
            out: Tensor = torch.ops.mkldnn._convolution_pointwise(
                x, self.weight, self.bias, *self._numbers(), "relu" if relu else "none", [], ""
            )
            return out
        out = F.conv2d(x, self.weight, self.bias, stride=self.stride)
        return F.relu_(out) if relu else out

    def onto(self, out: Tensor, x: Tensor) -> Tensor:
        """relu(out + convolution of x), written into `out`."""
        if self.packed:
            torch.ops.mkldnn._convolution_pointwise_.binary(
                out, x, self.weight, self.bias, *self._numbers(), "add", 1.0, "relu", [], None
            )
            return out
        return F.relu_(out.add_(F.conv2d(x, self.weight, self.bias, stride=self.stride)))

    def _numbers(self) -> tuple[list[int], list[int], list[int], int]:
        return [0, 0], [self.stride] * 2, [1, 1], 1


def conv(weight: Tensor, bias: Tensor | None, dtype: torch.dtype, *, stride: int = 1) -> Conv:
    """A Conv with weights (OxIxkxk) and bias (O) copied to `dtype` in the best layout for their device."""
    weight = weight.detach().to(dtype).contiguous(memory_format=torch.channels_last)
    bias = None if bias is None else bias.detach().to(dtype)
    # Packed once for every size of input. For 3x3 kernels with other numbers of outputs oneDNN wants another layout
    # for other sizes, and turning one packed layout into another took ten times as long as the convolution.
    stable = weight.shape[2:] == (1, 1) or weight.shape[0] in _STABLE
    if weight.device.type == "cpu" and stable and onednn_fuses(dtype):
        return Conv(_pack(weight, stride), bias, stride, packed=True)
    return Conv(weight, bias, stride)


def _pack(weight: Tensor, stride: int) -> Tensor:
    size = [1, weight.shape[1], 66, 66]
    packed: Tensor = torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg]
        weight.to_mkldnn(), [0, 0], [stride] * 2, [1, 1], 1, size
    )
    return packed


@cache
def onednn_fuses(dtype: torch.dtype) -> bool:
    """Whether the fused operators are there for this dtype and give what the public ones give."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    rng = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(s, generator=rng).to(dtype) for s in ((1, 16, 9, 9), (16, 16, 3, 3), (16,))
    )
    x = x.contiguous(memory_format=torch.channels_last)
    plain = Conv(weight, bias)
    try:
        fused = Conv(_pack(weight, 1), bias, packed=True)
        first = fused(x, relu=True)
        pairs = ((first.clone(), plain(x, relu=True)), (fused.onto(first.clone(), x), plain.onto(first, x)))
    except (RuntimeError, AttributeError, TypeError, NotImplementedError):
        return False
    tolerance = 1e-4 if dtype == torch.float32 else 0.2
    return all(torch.allclose(a.float(), b.float(), atol=tolerance) for a, b in pairs)
