"""The same Fourier generator, rearranged for speed: inference only, the same numbers to rounding.

What is gained, and where (measured in docs/notebook.md):

* batch norm is folded into the convolutions, whose ReLU and sums are fused into them
(`cleanplate.models.lama.fast.convs`);
* all maps are channels-last (NHWC in memory), which is what CPU and GPU convolutions like best;
* the Fourier transform gets planes (NCHW), which it likes best: turning the maps, as matrices, costs less
  than that saves;
* the last convolution has three outputs, too few to fill a vector: neighbours along a row are computed as one
  pixel of twelve channels;
* on a CPU the 3x3 convolutions of 'fp32' take a quarter of the products
(`cleanplate.models.lama.fast.winograd`); where it has a matrix
  unit for bf16 and integers only (Intel AMX) they are put together from exact 8-bit ones
  (`cleanplate.models.lama.fast.int8`);
* with `holes_only` only the box round the holes is decoded: behind the blocks nothing looks further than a
  few pixels. Exact; on a crop round a hole it saves more than half of the decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cleanplate.models.lama.fast.convs import Conv, conv
from cleanplate.models.lama.fast.int8 import EXACT, SplitConv, digits, split_conv, splitting_pays
from cleanplate.models.lama.fast.layers import WIDE, fast_ffc, folded, reflected
from cleanplate.models.lama.ffc import FFC_BN_ACT, FFCResnetBlock
from cleanplate.models.lama.generator import LamaGenerator, Precision, Predict

ROW = 4
"""Neighbours along a row that the last convolution takes as one pixel; sides are multiples of 8."""

UNSPLIT = 1
"""Layers of the encoder, after the stem, that are not split: their maps are large, their channels few."""

CAREFUL_BLOCKS = 1
"""Blocks of wide 'bf16' generators that stay in fp32, behind an encoder that does: what is rounded off early is
enlarged by all that follows. On random big-lama weights at 192 px (docs/notebook.md): all in bf16 39.4 dB from fp32,
the encoder in fp32 44.6, with the blocks' sum in fp32 45.2, with the first block 47.5, with six blocks 52."""

Span = tuple[int, int]
"""Pixels from .. to (exclusive) along one axis."""


@dataclass(frozen=True)
class _Down:
    """A layer of the encoder: reflected at the borders, convolution, ReLU. A split one takes no negative x."""

    conv: Conv | SplitConv
    reflect: int

    def __call__(self, x: Tensor) -> Tensor:
        if isinstance(self.conv, SplitConv):
            return self.conv(digits([x], reflect=self.reflect, count=self.conv.count), relu=True)
        return self.conv(reflected(x, self.reflect), relu=True)


@dataclass(frozen=True)
class _Up:
    """Twice as large: transposed convolution with its batch norm folded in, ReLU."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return F.relu_(F.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=1, output_padding=1))


@dataclass(frozen=True)
class _Decoder:
    """From the blocks' map to RGB in [0, 1]: the upsampling layers, then the 7x7 convolution."""

    ups: tuple[_Up, ...]
    last: Conv

    def __call__(self, x: Tensor, rows: Span, columns: Span) -> Tensor:
        """x: BxCxhxw -> Bx3x(rows)x(columns) float32: the prediction at these pixels; ends are multiples of
        ROW."""
        cell = 1 << len(self.ups)
        height, width = x.shape[2] * cell, x.shape[3] * cell
        (top, bottom), (left, right) = _cells(rows, cell), _cells(columns, cell)
        x = x[:, :, top:bottom, left:right].contiguous(memory_format=torch.channels_last)
        for up in self.ups:
            x = up(x)
        # Two more columns on the right than the kernel reaches fill up the last pixel of ROW; their weight is 0.
        (y0, y1), above, below = _within(rows, 3, 3, height)
        (x0, x1), before, after = _within(columns, 3, 5, width)
        x = x[:, :, y0 - top * cell : y1 - top * cell, x0 - left * cell : x1 - left * cell]
        x = F.pad(x, (before, after, above, below), mode="reflect")
        x = x.permute(0, 2, 3, 1).reshape(x.shape[0], x.shape[2], x.shape[3] // ROW, ROW * x.shape[1])
        out = self.last(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).float()
        return torch.sigmoid(out.reshape(*out.shape[:2], -1, 3).permute(0, 3, 1, 2)).contiguous()


def _cells(pixels: Span, cell: int) -> Span:
    """The cells of the blocks' map that the prediction at these pixels depends on; may end behind the map.

    The 7x7 convolution looks 3 pixels round; pixel p of an upsampled map depends on p // 2 and the next."""
    return max(0, (pixels[0] - 3) // cell), (pixels[1] + 2 + cell - 1) // cell + 1


def _within(pixels: Span, before: int, after: int, side: int) -> tuple[Span, int, int]:
    """The pixels grown at both ends, cut to 0..side, and how much was cut off at each end."""
    low, high = pixels[0] - before, pixels[1] + after
    return (max(low, 0), min(high, side)), max(-low, 0), max(high - side, 0)


def fast_generator(
    model: LamaGenerator, precision: Precision = "fp32", *, holes_only: bool = False
) -> Predict:
    """The generator as a function, Bx4xHxW float32 -> Bx3xHxW float32 in [0, 1], on the model's device.

    'fp32' gives what the model gives in eval mode, to rounding; 'bf16' runs the convolutions in bf16, the
    FFT and the sigmoid in fp32, and of a wide generator also the encoder, the first block and the sum that the
    blocks add to. holes_only: the prediction is made in the box round all holes (channel 3 of
    the input) of the batch, and is 0 elsewhere. The weights are copied: later changes to the model do not
    show. Raises ValueError for a generator without FFC blocks.
    """
    p = model.params
    if p.kind != "fourier":
        raise ValueError(f"there is a fast form of Fourier generators only, not of kind {p.kind!r}")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    layers = list(model.model)
    n_front = 2 + p.n_downsampling
    wide = p.width(p.n_downsampling) >= WIDE
    on_cpu = next(model.parameters()).device.type == "cpu"
    split = wide and on_cpu and splitting_pays()
    early = torch.float32 if wide else dtype
    count = (EXACT if precision == "fp32" else 2) if split else 0
    encoder = _encoder(layers[1:n_front], early, count)
    blocks = [cast(FFCResnetBlock, layer) for layer in layers[n_front : n_front + p.n_blocks]]
    kinds = [early if n < CAREFUL_BLOCKS else dtype for n in range(len(blocks))]
    pairs = [
        tuple(
            fast_ffc(conv, kind, split=count if kind == torch.float32 else 0)
            for conv in (block.conv1, block.conv2)
        )
        for block, kind in zip(blocks, kinds, strict=True)
    ]
    decoder = _decoder(layers[n_front + p.n_blocks + 1 :], dtype)
    n_local = blocks[0].conv1.bn_l.num_features

    @torch.inference_mode()
    def predict(x: Tensor) -> Tensor:
        rows, columns = box_of_holes(x[:, 3]) if holes_only else ((0, x.shape[2]), (0, x.shape[3]))
        out = x.new_zeros(x.shape[0], 3, *x.shape[2:], dtype=torch.float32)
        if rows[0] == rows[1]:
            return out
        # Not under autocast: the precision is decided here, layer by layer.
        with torch.autocast(x.device.type, enabled=False):
            z = x.to(early).contiguous(memory_format=torch.channels_last)
            for layer in encoder:
                z = layer(z)
            local, glob = (part.contiguous(memory_format=torch.channels_last) for part in _parts(z, n_local))
            for (first, second), kind in zip(pairs, kinds, strict=True):
                more_local, more_global = second(*first(local.to(kind), glob.to(kind)))
                local, glob = local.add_(more_local), glob.add_(more_global)
            z = torch.cat([local, glob], dim=1).to(dtype)
            out[:, :, slice(*rows), slice(*columns)] = decoder(z, rows, columns)
        return out

    return predict


def box_of_holes(masks: Tensor) -> tuple[Span, Span]:
    """BxHxW, above 0 = hole -> rows and columns of the box round all holes of the batch, grown to multiples
    of ROW; empty spans without a hole."""
    hole = (masks > 0).any(dim=0)
    rows, columns = hole.any(dim=1).nonzero(), hole.any(dim=0).nonzero()
    if not len(rows):
        return (0, 0), (0, 0)
    ends = [(int(found[0]), int(found[-1]) + 1) for found in (rows, columns)]
    first, second = ((low // ROW * ROW, -(-high // ROW) * ROW) for low, high in ends)
    return first, second


def _parts(x: Tensor, n_local: int) -> tuple[Tensor, Tensor]:
    return x[:, :n_local], x[:, n_local:]


def _encoder(layers: list[nn.Module], dtype: torch.dtype, split: int) -> list[_Down]:
    """The stem and the downsampling layers; those from UNSPLIT on are split into so many digits, 0: not."""
    stem, *downs = (cast(FFC_BN_ACT, layer) for layer in layers)
    # The stem's input has 4 channels: nothing to gain by splitting.
    return [
        _first(stem, dtype, 3),
        *(_first(layer, dtype, 1, split=split if n >= UNSPLIT else 0) for n, layer in enumerate(downs)),
    ]


def _first(layer: FFC_BN_ACT, dtype: torch.dtype, reflect: int, *, split: int = 0) -> _Down:
    """A layer of the encoder: local channels in; local and perhaps global ones out, as one map. split: into so
    many digits; 0: not."""
    ffc = layer.ffc
    weight, bias = folded(ffc.convl2l.weight, layer.bn_l)
    if ffc.convl2g is not None and layer.bn_g is not None:
        more_weight, more_bias = folded(ffc.convl2g.weight, layer.bn_g)
        weight, bias = torch.cat([weight, more_weight]), torch.cat([bias, more_bias])
    stride = int(ffc.convl2l.stride[0])
    if split:
        return _Down(split_conv(weight, bias, stride=stride, count=split), reflect)
    return _Down(conv(weight, bias, dtype, stride=stride), reflect)


def _decoder(layers: list[nn.Module], dtype: torch.dtype) -> _Decoder:
    """Upsampling layers (transposed convolution, batch norm, ReLU), then the last convolution."""
    ups = []
    for up, bn in pairwise(layers):
        if isinstance(up, nn.ConvTranspose2d) and isinstance(bn, nn.BatchNorm2d):
            weight, bias = folded(up.weight, bn, up.bias, dim=1)
            weight = weight.detach().to(dtype).contiguous(memory_format=torch.channels_last)
            ups.append(_Up(weight, bias.detach().to(dtype)))
    last = cast(nn.Conv2d, layers[-2])
    bias = torch.zeros(3) if last.bias is None else last.bias
    return _Decoder(tuple(ups), conv(_in_rows(last.weight), bias.repeat(ROW), dtype))


def _in_rows(weight: Tensor) -> Tensor:
    """OxIx7x7 on pixels -> (ROW*O)x(ROW*I)x7x3 on ROW pixels as one: channels are (pixel, channel) in order."""
    o, i, height, width = weight.shape
    blocks = -(-(width + ROW - 1) // ROW)
    out = weight.new_zeros(ROW, o, ROW * blocks, i, height)
    for pixel in range(ROW):
        out[pixel, :, pixel : pixel + width] = weight.permute(0, 3, 1, 2)
    return out.reshape(ROW * o, blocks, ROW * i, height).permute(0, 2, 3, 1)
