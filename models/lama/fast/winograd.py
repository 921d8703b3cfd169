"""3x3 convolutions on the CPU with a quarter of the products: Winograd's F(4x4, 3x3).

A tile of 4x4 results of a 3x3 convolution depends on 6x6 values. Seen as polynomials that are multiplied by being
evaluated at six points, it takes 36 products a tile instead of 144 (Winograd 1980; Lavin and Gray 2016,
arXiv:1509.09308, section 4.1), and these are 36 products of matrices, tiles x channels by channels x channels.
Both changes of base are products of matrices too, with the Kronecker product of the two axes' bases, so nothing is
left to tensor operators but copies.

The price is rounding: results are some ten times as far from fp64 as those of a plain fp32 convolution, 2e-5 of their
standard deviation at most where that is 1.2e-6. The points, 0, +-1/2, +-3/2 and infinity, were the best of those tried
(0, +-1, +-2: 5e-5), as Barabasz et al. 2020 (arXiv:1803.10986) lead to expect: small, and of both signs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from cleanplate.models.lama.fast.convs import mirror

TILE, SEEN = 4, 6
"""Sides of a tile of results and of what it depends on."""

_POINTS = (0.0, 0.5, -0.5, 1.5, -1.5)
"""And infinity."""

AT_ONCE = 256
"""Tiles of a strip, about: their values (36 x 256 x 512 channels are 19 MB) should stay near the processor, and a
product of matrices should not be much smaller. A strip is whole rows of tiles of one image."""


@dataclass(frozen=True)
class WinogradConv:
    """A 3x3 convolution of the first channels of a map, reflected by one pixel at its borders.

    weight: 36 x I x O float32, the changed weights; bias: O float32 or None.
    """

    weight: Tensor
    bias: Tensor | None
    relu: bool


def winograd_conv(weight: Tensor, bias: Tensor | None, *, relu: bool) -> WinogradConv:
    """A WinogradConv of weights OxIx3x3 and bias O; relu: its results are cut off at 0."""
    evaluate = _bases()[1]
    changed = torch.einsum("ai,ocij,bj->abco", evaluate, weight.detach().double(), evaluate)
    return WinogradConv(
        changed.flatten(0, 1).float().contiguous(), None if bias is None else bias.detach().float(), relu
    )


def convolve(
    maps: Sequence[Tensor], convs: Sequence[WinogradConv], *, at_once: int = AT_ONCE
) -> list[Tensor]:
    """BxCxHxW float32 maps, channels-last, side by side -> BxOxHxW of each convolution, channels-last.

    at_once: about so many tiles are in work at a time.
    """
    b, _, height, width = maps[0].shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    side_by_side = _framed(maps, rows, columns)
    # As high and wide as the tiles; what lies beyond the map is cut off at the end.
    outs = [side_by_side.new_empty(b, rows * TILE, columns * TILE, conv.weight.shape[2]) for conv in convs]
    strip = max(1, at_once // columns)
    for image in range(b):
        for top in range(0, rows, strip):
            bottom = min(top + strip, rows)
            values = _changed(side_by_side[image], top, bottom, columns)
            for conv, out in zip(convs, outs, strict=True):
                products = torch.bmm(values[:, :, : conv.weight.shape[1]], conv.weight)
                _changed_back(products, conv, out[image, top * TILE : bottom * TILE], columns)
    return [out[:, :height, :width].permute(0, 3, 1, 2) for out in outs]


def _framed(maps: Sequence[Tensor], rows: int, columns: int) -> Tensor:
    """The maps side by side, BxHxWxC, mirrored by one pixel; below and on the right 0 up to the last tile's end."""
    b, _, height, width = maps[0].shape
    size = b, rows * TILE + 2, columns * TILE + 2, sum(x.shape[1] for x in maps)
    out, start = maps[0].new_empty(size), 0
    out[:, height + 2 :] = 0
    out[:, :, width + 2 :] = 0
    for x in maps:
        out[:, 1 : height + 1, 1 : width + 1, start : start + x.shape[1]] = x.permute(0, 2, 3, 1)
        start += x.shape[1]
    mirror(out[:, : height + 2, : width + 2], 1)
    return out


def _changed(image: Tensor, top: int, bottom: int, columns: int) -> Tensor:
    """HxWxC -> 36 x tiles x C, tiles of the rows top to bottom (exclusive) of tiles."""
    down, right, channel = image.stride()
    channels = image.shape[2]
    out = image.new_empty(SEEN * SEEN, bottom - top, columns * channels)
    seen = image.new_empty(SEEN, SEEN, columns, channels)
    for row in range(top, bottom):
        # Row by row: what is gathered is still in the cache when it is multiplied.
        tiles = image.as_strided(
            (SEEN, SEEN, columns, channels),
            (down, right, TILE * right, channel),
            image.storage_offset() + row * TILE * down,
        )
        torch.mm(_bases()[0], seen.copy_(tiles).flatten(0, 1).flatten(1), out=out[:, row - top])
    return out.view(SEEN * SEEN, -1, channels)


def _changed_back(products: Tensor, conv: WinogradConv, out: Tensor, columns: int) -> None:
    """36 x tiles x O -> the rows HxWxO of `out` that they make up, with the bias and the ReLU."""
    channels = products.shape[2]
    by_row = products.view(SEEN * SEEN, -1, columns * channels)
    results = products.new_empty(TILE * TILE, columns * channels)
    for row in range(by_row.shape[1]):
        torch.mm(_bases()[2], by_row[:, row], out=results)
        tiles = results.view(TILE, TILE, columns, channels)
        if conv.bias is not None:
            tiles += conv.bias
        if conv.relu:
            tiles.relu_()
        out[row * TILE : (row + 1) * TILE].view(TILE, columns, TILE, channels).copy_(tiles.transpose(1, 2))


@cache
def _bases() -> tuple[Tensor, Tensor, Tensor]:
    """(36x36 that changes 6x6 values, 6x3 that evaluates a kernel's row, 16x36 that changes back); the second
    float64, the others float32."""
    # A correlation is the transpose of the product of polynomials.
    values = torch.linalg.inv(_evaluating(SEEN)).T.contiguous()
    back = _evaluating(TILE).T.contiguous()
    return torch.kron(values, values).float(), _evaluating(3), torch.kron(back, back).float()


def _evaluating(count: int) -> Tensor:
    """SEEN x count float64, a polynomial's coefficients -> its values at the points; at infinity, its last one."""
    at = torch.zeros(SEEN, count, dtype=torch.float64)
    at[:-1] = torch.tensor(_POINTS, dtype=torch.float64)[:, None] ** torch.arange(count)
    at[-1, -1] = 1
    return at
