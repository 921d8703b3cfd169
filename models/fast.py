"""The same Fourier generator, rearranged for speed: inference only, the same numbers to rounding.

What is gained, and where: batch norm is folded into the convolutions; all maps are channels-last (NHWC in
memory), which is what CPU and GPU convolutions like best; the two convolutions that read the local channels
are one; the spectrum of an NHWC map is again NHWC with real and imaginary parts side by side, so the Fourier
unit copies nothing. Only public torch operations are used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.ffc import FFC_BN_ACT, FFCResnetBlock
from models.lama import LamaGenerator, Precision, Predict


@dataclass(frozen=True)
class _Conv:
    """A convolution with its batch norm folded in. reflect: pixels mirrored on each side before it."""

    weight: Tensor
    bias: Tensor | None
    stride: int = 1
    reflect: int = 0
    transposed: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        if self.transposed:
            return F.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=1, output_padding=1)
        if self.reflect:
            x = F.pad(x, (self.reflect,) * 4, mode="reflect")
        return F.conv2d(x, self.weight, self.bias, stride=self.stride)

    def cast(self, dtype: torch.dtype) -> _Conv:
        weight = self.weight.detach().to(dtype).contiguous(memory_format=torch.channels_last)
        return replace(self, weight=weight, bias=None if self.bias is None else self.bias.detach().to(dtype))


@dataclass(frozen=True)
class _Spectral:
    """Global to global: 1x1 down, Fourier unit with a skip, 1x1 up."""

    down: _Conv
    unit: _Conv
    up: _Conv

    def __call__(self, x: Tensor) -> Tensor:
        s = F.relu_(self.down(x))
        return self.up(s + self._fourier(s))

    def _fourier(self, s: Tensor) -> Tensor:
        nhwc = s.permute(0, 2, 3, 1)
        spectrum = torch.view_as_real(torch.fft.rfft2(nhwc.float(), dim=(1, 2), norm="ortho"))
        planes = spectrum.flatten(3).permute(0, 3, 1, 2)
        planes = F.relu_(self.unit(planes.to(s.dtype))).permute(0, 2, 3, 1).float()
        pairs = torch.view_as_complex(planes.reshape(*planes.shape[:3], -1, 2).contiguous())
        out: Tensor = torch.fft.irfft2(pairs, s=nhwc.shape[1:3], dim=(1, 2), norm="ortho")
        return out.permute(0, 3, 1, 2).to(s.dtype)


@dataclass(frozen=True)
class _Layer:
    """FFC, batch norm, ReLU between maps that both have local and global channels."""

    from_local: _Conv
    to_local: _Conv
    spectral: _Spectral
    n_local: int

    def __call__(self, local: Tensor, glob: Tensor) -> tuple[Tensor, Tensor]:
        both = self.from_local(local)
        new_local = both[:, : self.n_local] + self.to_local(glob)
        new_global = both[:, self.n_local :] + self.spectral(glob)
        return F.relu_(new_local), F.relu_(new_global)


def bf16_is_native(device: str | torch.device) -> bool:
    """Whether the device multiplies bf16 in hardware; where it does not, 'bf16' is slower than 'fp32'."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in probes)


def fast_generator(model: LamaGenerator, precision: Precision = "fp32") -> Predict:
    """The generator as a function, Bx4xHxW float32 -> Bx3xHxW float32 in [0, 1], on the model's device.

    'fp32' gives what the model gives in eval mode, to rounding; 'bf16' runs the convolutions in bf16, the
    FFT and the sigmoid in fp32. The weights are copied: later changes to the model do not show. Raises
    ValueError for a generator without FFC blocks.
    """
    p = model.params
    if p.kind != "fourier":
        raise ValueError(f"there is a fast form of Fourier generators only, not of kind {p.kind!r}")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    layers = list(model.model)
    n_front = 2 + p.n_downsampling
    encoder = [_first(cast(FFC_BN_ACT, layers[1]), dtype, reflect=3)]
    encoder += [_first(cast(FFC_BN_ACT, layer), dtype, reflect=1) for layer in layers[2:n_front]]
    blocks = [cast(FFCResnetBlock, layer) for layer in layers[n_front : n_front + p.n_blocks]]
    pairs = [(_ffc(block.conv1, dtype), _ffc(block.conv2, dtype)) for block in blocks]
    decoder = _decoder(layers[n_front + p.n_blocks + 1 :], dtype)
    n_local = blocks[0].conv1.bn_l.num_features

    @torch.inference_mode()
    def predict(x: Tensor) -> Tensor:
        # Not under autocast: the precision is decided here, layer by layer.
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(dtype).contiguous(memory_format=torch.channels_last)
            for conv in encoder:
                x = F.relu_(conv(x))
            local, glob = (part.contiguous(memory_format=torch.channels_last) for part in _parts(x, n_local))
            for first, second in pairs:
                more_local, more_global = second(*first(local, glob))
                local, glob = local + more_local, glob + more_global
            x = torch.cat([local, glob], dim=1)
            for conv in decoder[:-1]:
                x = F.relu_(conv(x))
            return torch.sigmoid(decoder[-1](x).float()).contiguous()

    return predict


def _parts(x: Tensor, n_local: int) -> tuple[Tensor, Tensor]:
    return x[:, :n_local], x[:, n_local:]


def _folded(
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


def _first(layer: FFC_BN_ACT, dtype: torch.dtype, *, reflect: int) -> _Conv:
    """A layer of the encoder: local channels in; local and perhaps global ones out, as one map."""
    ffc = layer.ffc
    weight, bias = _folded(ffc.convl2l.weight, layer.bn_l)
    if ffc.convl2g is not None and layer.bn_g is not None:
        more_weight, more_bias = _folded(ffc.convl2g.weight, layer.bn_g)
        weight, bias = torch.cat([weight, more_weight]), torch.cat([bias, more_bias])
    return _Conv(weight, bias, stride=int(ffc.convl2l.stride[0]), reflect=reflect).cast(dtype)


def _ffc(layer: FFC_BN_ACT, dtype: torch.dtype) -> _Layer:
    ffc, bn_l, bn_g = layer.ffc, layer.bn_l, layer.bn_g
    if ffc.convg2l is None or ffc.convg2g is None or bn_g is None:
        raise ValueError("a layer of the blocks has no global channels")
    spectral = ffc.convg2g
    unit = spectral.fu
    # The bias of each sum sits in the first of its terms.
    to_local, _ = _folded(ffc.convg2l.weight, bn_l)
    up, _ = _folded(spectral.conv2.weight, bn_g)
    down = _folded(cast(nn.Conv2d, spectral.conv1[0]).weight, cast(nn.BatchNorm2d, spectral.conv1[1]))
    return _Layer(
        from_local=_first(layer, dtype, reflect=1),
        to_local=_Conv(to_local, None, reflect=1).cast(dtype),
        spectral=_Spectral(
            down=_Conv(*down).cast(dtype),
            unit=_Conv(*_folded(unit.conv_layer.weight, unit.bn)).cast(dtype),
            up=_Conv(up, None).cast(dtype),
        ),
        n_local=bn_l.num_features,
    )


def _decoder(layers: list[nn.Module], dtype: torch.dtype) -> list[_Conv]:
    """Upsampling layers (transposed convolution, batch norm, ReLU), then the last convolution."""
    convs = []
    for up, bn in pairwise(layers):
        if isinstance(up, nn.ConvTranspose2d) and isinstance(bn, nn.BatchNorm2d):
            convs.append(_Conv(*_folded(up.weight, bn, up.bias, dim=1), transposed=True).cast(dtype))
    last = cast(nn.Conv2d, layers[-2])
    return [*convs, _Conv(last.weight, last.bias, reflect=3).cast(dtype)]
