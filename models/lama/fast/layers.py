"""The FFC layers of the fast generator's blocks, in the form that is fastest where they run.

`fast_ffc` chooses by processor and width: plain convolutions, Winograd's
(`cleanplate.models.lama.fast.winograd`) or split ones (`cleanplate.models.lama.fast.int8`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cleanplate.models.lama.fast.convs import Conv, conv
from cleanplate.models.lama.fast.int8 import SplitConv, digits, split_conv
from cleanplate.models.lama.fast.winograd import WinogradConv, convolve, winograd_conv
from cleanplate.models.lama.ffc import FFC_BN_ACT

WIDE = 256
"""Channels of the blocks from which Winograd's convolutions and split ones pay: of fewer channels, changing the
values costs as much as it saves (128: the same; 256: 1.5x; 512: 2.1x, docs/notebook.md)."""


@dataclass(frozen=True)
class _Spectral:
    """Global to global: 1x1 down, Fourier unit with a skip. The 1x1 up is the layer's, which adds it."""

    down: Conv
    unit: Conv

    def __call__(self, x: Tensor) -> Tensor:
        s = self.down(x, relu=True)
        size = (s.shape[2], s.shape[3])
        spectrum = torch.fft.rfft2(_to_planes(s).float(), norm="ortho")
        # A complex channel is two real ones side by side, as the unit wants them.
        parts = torch.view_as_real(_to_pixels(spectrum)).flatten(3).permute(0, 3, 1, 2)
        mixed = self.unit(parts.to(s.dtype), relu=True).permute(0, 2, 3, 1).float()
        spectrum = _to_planes(
            torch.view_as_complex(mixed.reshape(*mixed.shape[:3], -1, 2)).permute(0, 3, 1, 2)
        )
        back = torch.fft.irfft2(spectrum, s=size, norm="ortho")
        return s.add_(_to_pixels(back).permute(0, 3, 1, 2).to(s.dtype))


def _to_planes(x: Tensor) -> Tensor:
    """BxCxHxW, channels-last -> the same, contiguous planes."""
    b, c, h, w = x.shape
    return _turned(x.permute(0, 2, 3, 1).reshape(b, h * w, c)).view(b, c, h, w)


def _to_pixels(x: Tensor) -> Tensor:
    """BxCxHxW, contiguous planes -> BxHxWxC, contiguous."""
    b, c, h, w = x.shape
    return _turned(x.reshape(b, c, h * w)).view(b, h, w, c)


def _turned(x: Tensor) -> Tensor:
    """BxMxN -> BxNxM, contiguous. On a CPU torch has a fast copy for single matrices only."""
    if x.device.type != "cpu":
        return x.transpose(1, 2).contiguous()
    turned = [matrix.t().contiguous() for matrix in x]
    return turned[0][None] if len(turned) == 1 else torch.stack(turned)


@dataclass(frozen=True)
class Layer:
    """FFC, batch norm, ReLU between maps that both have local and global channels."""

    local_to_local: Conv
    global_to_local: Conv
    local_to_global: Conv
    spectral: _Spectral
    up: Conv

    def __call__(self, local: Tensor, glob: Tensor) -> tuple[Tensor, Tensor]:
        near, far = reflected(local, 1), reflected(glob, 1)
        new_local = self.global_to_local.onto(self.local_to_local(near), far)
        return new_local, self.up.onto(self.local_to_global(near), self.spectral(glob))


@dataclass(frozen=True)
class SplitLayer:
    """A Layer whose 3x3 convolutions are split into exact 8-bit ones. Its maps are never negative."""

    to_local: SplitConv
    local_to_global: SplitConv
    spectral: _Spectral
    up: Conv

    def __call__(self, local: Tensor, glob: Tensor) -> tuple[Tensor, Tensor]:
        both = digits([local, glob], reflect=1, count=self.to_local.count)
        new_global = self.local_to_global(both.part(local.shape[1]))
        return self.to_local(both, relu=True), self.up.onto(new_global, self.spectral(glob))


@dataclass(frozen=True)
class WinogradLayer:
    """A Layer whose 3x3 convolutions are Winograd's: fp32 on a CPU."""

    to_local: WinogradConv
    local_to_global: WinogradConv
    spectral: _Spectral
    up: Conv

    def __call__(self, local: Tensor, glob: Tensor) -> tuple[Tensor, Tensor]:
        new_local, new_global = convolve([local, glob], [self.to_local, self.local_to_global])
        return new_local, self.up.onto(new_global, self.spectral(glob))


def fast_ffc(layer: FFC_BN_ACT, dtype: torch.dtype, *, split: int) -> Layer | SplitLayer | WinogradLayer:
    """A layer of the blocks for maps of this dtype; split: its 3x3 convolutions into so many digits; 0: not.

    Called with (local, global) BxCxHxW channels-last, it gives both after batch norm and ReLU; they may be written
    over. Raises ValueError for a layer without global channels.
    """
    ffc, bn_l, bn_g = layer.ffc, layer.bn_l, layer.bn_g
    if ffc.convl2g is None or ffc.convg2l is None or ffc.convg2g is None or bn_g is None:
        raise ValueError("a layer of the blocks has no global channels")
    spectral = ffc.convg2g
    down, down_bn = cast(nn.Conv2d, spectral.conv1[0]), cast(nn.BatchNorm2d, spectral.conv1[1])
    unit = folded(spectral.fu.conv_layer.weight, spectral.fu.bn)
    fourier = _Spectral(conv(*folded(down.weight, down_bn), dtype), conv(*unit, dtype))
    # The bias of each sum sits in the first of its terms.
    up = conv(folded(spectral.conv2.weight, bn_g)[0], None, dtype)
    local, local_bias = folded(ffc.convl2l.weight, bn_l)
    from_global, _ = folded(ffc.convg2l.weight, bn_l)
    to_global = folded(ffc.convl2g.weight, bn_g)
    wide = local.shape[1] + from_global.shape[1] >= WIDE
    if not split and not (wide and dtype == torch.float32 and local.device.type == "cpu"):
        from_local, rest = conv(local, local_bias, dtype), conv(from_global, None, dtype)
        return Layer(from_local, rest, conv(*to_global, dtype), fourier, up)
    both = torch.cat([local, from_global], dim=1)
    if split:
        return SplitLayer(
            split_conv(both, local_bias, count=split), split_conv(*to_global, count=split), fourier, up
        )
    return WinogradLayer(
        winograd_conv(both, local_bias, relu=True), winograd_conv(*to_global, relu=False), fourier, up
    )


def folded(
    weight: Tensor, bn: nn.BatchNorm2d, bias: Tensor | None = None, dim: int = 0
) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution followed by a batch norm in eval mode; dim: the weight's output
    channels."""
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError("a batch norm without running statistics cannot be folded")
    scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    shape = [1] * weight.dim()
    shape[dim] = -1
    start = -bn.running_mean if bias is None else bias - bn.running_mean
    return weight * scale.view(shape), bn.bias + start * scale


def reflected(x: Tensor, by: int) -> Tensor:
    return F.pad(x, (by,) * 4, mode="reflect")
