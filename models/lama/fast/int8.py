"""fp32 convolutions out of exact 8-bit ones, for processors whose matrix unit (Intel AMX) has no fp32.

Ozaki's scheme (Ootomo, Ozaki, Yokota 2024, arXiv 2306.11975, for fp64 matrices): an fp32 map and its weights
are cut into three 8-bit digits each; products of digits are summed exactly in int32 and put together in fp32.
Of the nine products the six largest are computed, which leaves an error of about 2^-24 of the largest value:
that of fp32 itself (tests/models/lama/test_split.py compares both with fp64). AMX multiplies 8-bit integers some
13 times faster than AVX-512 multiplies fp32, so six products take less than half of the time of one in fp32.

The operators are those of PyTorch's x86 quantization back end. They are probed once, like those of `convs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from cleanplate.models.lama.fast.convs import mirror

EXACT = 3
"""Digits as exact as fp32. Two, with three products, leave an error of about 2^-16 of the largest value."""
_AT_ONCE = 2**17
"""Values cut at a time, so that what lies between stays in the cache."""


def _x_max(count: int) -> int:
    """Largest integer of a map: a little below `count` full digits, so that rounding cannot carry into another."""
    return int(2 ** (8 * count) - 2 ** (8 * count - 21 if count > 2 else 1))


def _w_max(count: int) -> int:
    """Largest integer of a weight: its first signed digit must not reach 128."""
    return int(126 * 2 ** (8 * (count - 1)))


@dataclass(frozen=True)
class Digits:
    """A map as integers: of three digits, value = step * (2^16 first + 2^8 second + third).

    bytes: Bx(count*C)xHxW uint8, channels-last, the first digits of all channels, then the second, ...
    """

    bytes: Tensor
    step: float
    count: int

    @property
    def channels(self) -> int:
        return self.bytes.shape[1] // self.count

    def part(self, channels: int) -> Digits:
        """The first so many channels."""
        each = self.bytes.chunk(self.count, dim=1)
        picked = torch.cat([digit[:, :channels] for digit in each], dim=1)
        return Digits(picked.contiguous(memory_format=torch.channels_last), self.step, self.count)


def digits(maps: list[Tensor], *, reflect: int, count: int = EXACT) -> Digits:
    """Maps BxCxHxW float32 channels-last without negative values, side by side, `reflect` pixels mirrored on
    each side."""
    top = max(float(x.amax()) for x in maps) or 1.0
    b, _, height, width = maps[0].shape
    channels, r = sum(x.shape[1] for x in maps), reflect
    out = torch.empty(b, height + 2 * r, width + 2 * r, count * channels, dtype=torch.uint8)
    inner, start = out[:, r : r + height, r : r + width], 0
    for x in maps:
        rows = max(1, _AT_ONCE // (width * x.shape[1]))
        for image, target in zip(x.permute(0, 2, 3, 1), inner, strict=True):
            for y in range(0, height, rows):
                _cut(
                    image[y : y + rows], _x_max(count) / top, target[y : y + rows, :, start:], channels, count
                )
        start += x.shape[1]
    mirror(out, r)
    return Digits(out.permute(0, 3, 1, 2), top / _x_max(count), count)


def _cut(x: Tensor, factor: float, out: Tensor, channels: int, count: int) -> None:
    """The digits of x * factor (HxWxC), written to the channels 0.., channels.., 2 channels.. of out."""
    whole = (x * factor).round_().to(torch.int32)
    for digit in range(count - 1, -1, -1):
        # The copy keeps the low byte of each integer.
        out[..., digit * channels : digit * channels + x.shape[2]].copy_(whole)
        if digit:
            whole >>= 8


_OUTPUTS = 128
"""Output channels of one operator. For more, oneDNN wants another layout of the weights for other sizes of input,
and turning one packed layout into another took ten times as long as the convolution."""


@dataclass(frozen=True)
class _Part:
    """Some of a SplitConv's output channels. orders: one packed int8 weight for each power of 2^8 that is kept, the
    smallest first; scale: per output channel."""

    orders: tuple[Tensor, ...]
    scale: Tensor
    zero: Tensor
    bias: Tensor
    stride: int

    def __call__(self, maps: list[Tensor], step: float, *, relu: bool) -> Tensor:
        """maps: the digits that each order meets, in the orders' order."""
        out: Tensor | None = None
        geometry = [self.stride] * 2, [0, 0], [1, 1], 1
        last_order = len(self.orders) - 1
        for order, weight, some in zip(range(last_order, -1, -1), self.orders, maps, strict=True):
            given = some, step * 2.0 ** (16 * last_order - 8 * order), 0, weight, self.scale, self.zero
            if out is None:
                out = torch.ops.onednn.qconv2d_pointwise(
                    *given, self.bias, *geometry, 1.0, 0, torch.float32, "none", [], ""
                )
            else:
                last = "relu" if relu and order == 0 else "none"
                out = torch.ops.onednn.qconv2d_pointwise.binary(
                    *given, out, None, *geometry, 1.0, 0, torch.float32, 1.0, 0, "sum", 1.0, last, [], ""
                )
        assert out is not None
        return out


@dataclass(frozen=True)
class SplitConv:
    """A convolution of Digits, so many a value as its weights have; BxCxHxW float32 channels-last out."""

    parts: tuple[_Part, ...]
    count: int

    def __call__(self, x: Digits, *, relu: bool = False) -> Tensor:
        ends = [x.channels * (order + 1) for order in range(x.count - 1, -1, -1)]
        maps = [x.bytes[:, :end].contiguous(memory_format=torch.channels_last) for end in ends]
        outs = [part(maps, x.step, relu=relu) for part in self.parts]
        return outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)


def split_conv(weight: Tensor, bias: Tensor, *, stride: int = 1, count: int = EXACT) -> SplitConv:
    """A SplitConv of weights OxIxkxk and bias O, float32."""
    pairs = zip(torch.split(weight.detach(), _OUTPUTS), torch.split(bias.detach(), _OUTPUTS), strict=True)
    return SplitConv(tuple(_part(some, add, stride, count) for some, add in pairs), count)


def _part(weight: Tensor, bias: Tensor, stride: int, count: int) -> _Part:
    weight = weight.double()
    top = weight.abs().amax(dim=(1, 2, 3)).clamp_min(1e-30)
    rest = (weight * (_w_max(count) / top).view(-1, 1, 1, 1)).round().to(torch.int64)
    parts: list[Tensor] = []
    for _ in range(count):
        digit = (rest + 128) % 256 - 128
        parts.insert(0, digit.to(torch.int8))
        rest = (rest - digit) // 256
    scale = (top / _w_max(count)).float()
    packed = []
    for order in range(count - 1, -1, -1):
        # Digit i of the map meets digit order - i of the weight.
        one = torch.cat([parts[order - i] for i in range(order + 1)], dim=1)
        size = [1, one.shape[1], 66, 66]
        packed.append(
            torch.ops.onednn.qconv_prepack(one, scale, 1.0, 0, [stride] * 2, [0, 0], [1, 1], 1, size)
        )
    zero = torch.zeros(len(scale), dtype=torch.int32)
    return _Part(tuple(packed), scale, zero, bias.float().clone(), stride)


@cache
def splitting_pays() -> bool:
    """Whether this processor has AMX and these operators give what an fp32 convolution gives."""
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    if not amx or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    rng = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.rand(s, generator=rng) - 0.3 for s in ((1, 16, 12, 9), (16, 16, 3, 3), (16,)))
    x = x.relu_().contiguous(memory_format=torch.channels_last)
    try:
        got = split_conv(weight, bias)(digits([x], reflect=1), relu=True)
    except (RuntimeError, AttributeError, TypeError, NotImplementedError):
        return False
    want = F.relu(F.conv2d(F.pad(x, (1,) * 4, mode="reflect"), weight, bias))
    return torch.allclose(got, want, atol=1e-5)
