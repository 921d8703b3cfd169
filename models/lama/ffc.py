"""Fast Fourier convolution (Chi et al. 2020), as LaMa uses it (Suvorov et al. 2021, arXiv 2109.07161,
section 2.1).

A feature map is split on channels into a local part, treated by ordinary convolutions, and a global part,
which also passes through the frequency domain, so that its receptive field is the whole image from the first
layer on.

The names of sub-modules are those of the authors' released checkpoints, so that these load with strict=True.
The "local Fourier unit" of the FFC paper is left out: no published LaMa configuration switches it on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Split = tuple[Tensor, Tensor | None]
"""(local BxLxHxW, global BxGxHxW); the global part is None where a layer has no global channels."""


class FourierUnit(nn.Module):
    """1x1 convolution on the spectrum: BCHW -> BC'HW, any height and width.

    The transforms run in fp32 (or fp64) whatever autocast says: there is no bf16 FFT, and the constant term
    of an orthonormal FFT grows with the image's side, which fp16 does not hold for long.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_layer = nn.Conv2d(2 * in_channels, 2 * out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(2 * out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        with torch.autocast(x.device.type, enabled=False):
            spectrum = torch.fft.rfft2(_full_precision(x), norm="ortho")
            planes = _complex_to_channels(spectrum)
        planes = self.relu(self.bn(self.conv_layer(planes.to(self.conv_layer.weight.dtype))))
        with torch.autocast(x.device.type, enabled=False):
            spectrum = _channels_to_complex(_full_precision(planes))
            out: Tensor = torch.fft.irfft2(spectrum, s=(height, width), norm="ortho")
        return out.to(x.dtype)


def _full_precision(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _complex_to_channels(spectrum: Tensor) -> Tensor:
    """BxCxHxW complex -> Bx2CxHxW, interleaved: channel 2c is the real part of c, 2c+1 the imaginary part."""
    b, c, h, w = spectrum.shape
    return torch.view_as_real(spectrum).permute(0, 1, 4, 2, 3).reshape(b, 2 * c, h, w)


def _channels_to_complex(planes: Tensor) -> Tensor:
    """The inverse of `_complex_to_channels`."""
    b, c, h, w = planes.shape
    return torch.view_as_complex(planes.reshape(b, c // 2, 2, h, w).permute(0, 1, 3, 4, 2).contiguous())


class SpectralTransform(nn.Module):
    """Global-to-global path: 1x1 down to half the width, Fourier unit with a skip, 1x1 up. BCHW -> BC'HW."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = nn.Sequential(
            nn.Conv2d(in_channels, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(inplace=True)
        )
        self.fu = FourierUnit(half, half)
        self.conv2 = nn.Conv2d(half, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        s = self.conv1(x)
        out: Tensor = self.conv2(s + self.fu(s))
        return out


class ReflectPad2d(nn.Module):
    """Mirrors the border. amounts: pixels (left, right, top, bottom).

    In the dtype that it is given: autocast would cast every map to fp32 and back for it.
    """

    def __init__(self, *amounts: int) -> None:
        super().__init__()
        self.amounts = amounts

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.pad(x, self.amounts, mode="reflect")


class _MirroredConv2d(nn.Conv2d):
    """A convolution without bias whose padding mirrors the border, as ReflectPad2d does."""

    def __init__(self, cin: int, cout: int, kernel_size: int, stride: int, padding: int) -> None:
        super().__init__(cin, cout, kernel_size, stride, padding, bias=False, padding_mode="reflect")
        self.pad = ReflectPad2d(*(padding,) * 4)

    def forward(self, x: Tensor) -> Tensor:
        padded = self.pad(x) if any(self.pad.amounts) else x
        return F.conv2d(padded, self.weight, stride=self.stride)


def global_channels(channels: int, ratio: float) -> int:
    """How many of `channels` are global: the fraction is cut off, as in the reference."""
    return int(channels * ratio)


class FFC(nn.Module):
    """The four paths between local and global channels. Padding is reflected, convolutions have no bias.

    ratio_in, ratio_out: share of global channels before and after, 0 <= ratio < 1. A path exists only where
    both of its ends have channels. Strided layers with global input do not occur in LaMa and are refused.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        ratio_in: float = 0.0,
        ratio_out: float = 0.0,
        stride: int = 1,
        padding: int = 0,
    ) -> None:
        super().__init__()
        if not (0 <= ratio_in < 1 and 0 <= ratio_out < 1):
            raise ValueError(f"FFC ratios must lie in [0, 1), not {ratio_in} and {ratio_out}")
        global_in, global_out = (
            global_channels(in_channels, ratio_in),
            global_channels(out_channels, ratio_out),
        )
        if stride != 1 and global_in and global_out:
            raise ValueError("an FFC from global to global channels has stride 1")
        local_in, local_out = in_channels - global_in, out_channels - global_out

        def conv(cin: int, cout: int) -> nn.Conv2d:
            return _MirroredConv2d(cin, cout, kernel_size, stride, padding)

        self.convl2l = conv(local_in, local_out)
        self.convl2g = conv(local_in, global_out) if global_out else None
        self.convg2l = conv(global_in, local_out) if global_in else None
        self.convg2g = SpectralTransform(global_in, global_out) if global_in and global_out else None

    def forward(self, x: Split) -> Split:
        x_local, x_global = x
        out_local: Tensor = self.convl2l(x_local)
        out_global: Tensor | None = None if self.convl2g is None else self.convl2g(x_local)
        if x_global is not None and self.convg2l is not None:
            out_local = out_local + self.convg2l(x_global)
            if out_global is not None and self.convg2g is not None:
                out_global = out_global + self.convg2g(x_global)
        return out_local, out_global


class FFC_BN_ACT(nn.Module):
    """FFC, then batch norm and ReLU on each part. Takes a tensor (all local) or a Split; gives a Split."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        ratio_in: float = 0.0,
        ratio_out: float = 0.0,
        stride: int = 1,
        padding: int = 0,
    ) -> None:
        super().__init__()
        self.ffc = FFC(
            in_channels,
            out_channels,
            kernel_size,
            ratio_in=ratio_in,
            ratio_out=ratio_out,
            stride=stride,
            padding=padding,
        )
        n_global = global_channels(out_channels, ratio_out)
        self.bn_l = nn.BatchNorm2d(out_channels - n_global)
        self.bn_g = nn.BatchNorm2d(n_global) if n_global else None
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor | Split) -> Split:
        local, glob = self.ffc((x, None) if isinstance(x, Tensor) else x)
        local = self.act(self.bn_l(local))
        if glob is not None and self.bn_g is not None:
            glob = self.act(self.bn_g(glob))
        return local, glob


class FFCResnetBlock(nn.Module):
    """Two 3x3 FFC layers with a skip on each part. The second layer keeps its ReLU; none follows the
    addition."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        self.conv1 = FFC_BN_ACT(channels, channels, 3, ratio_in=ratio, ratio_out=ratio, padding=1)
        self.conv2 = FFC_BN_ACT(channels, channels, 3, ratio_in=ratio, ratio_out=ratio, padding=1)

    def forward(self, x: Split) -> Split:
        local, glob = self.conv2(self.conv1(x))
        return x[0] + local, None if glob is None or x[1] is None else x[1] + glob


class ConcatSplit(nn.Module):
    """Split -> BCHW, local channels first."""

    def forward(self, x: Split) -> Tensor:
        return x[0] if x[1] is None else torch.cat((x[0], x[1]), dim=1)
