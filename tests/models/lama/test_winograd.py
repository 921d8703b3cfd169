"""Convolutions with a quarter of the products give what convolutions give, to a stated rounding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cleanplate.models.lama.fast.winograd import convolve, winograd_conv

ROUNDING = 5e-5
"""Of the results' standard deviation: the module's docstring says 2e-5 was seen."""


def plain(maps: list[Tensor], weight: Tensor, bias: Tensor | None, *, relu: bool) -> Tensor:
    """In fp64."""
    x = torch.cat(maps, dim=1)[:, : weight.shape[1]].double()
    out = F.conv2d(
        F.pad(x, (1,) * 4, mode="reflect"), weight.double(), None if bias is None else bias.double()
    )
    return out.relu() if relu else out


def near(got: Tensor, want: Tensor) -> None:
    assert got.dtype == torch.float32
    assert got.shape == want.shape
    assert float((got - want).abs().max()) < ROUNDING * float(want.std())


@pytest.mark.parametrize(
    "size", [(4, 4), (8, 12), (2, 2), (3, 7), (5, 6), (9, 31), (64, 48)], ids=lambda s: f"{s[0]}x{s[1]}"
)
@pytest.mark.parametrize("batch", [1, 3])
def test_equals_a_convolution_mirrored_at_its_borders(size: tuple[int, int], batch: int) -> None:
    torch.manual_seed(sum(size))
    local, glob = (
        torch.randn(batch, c, *size).contiguous(memory_format=torch.channels_last) for c in (16, 48)
    )
    both, first = torch.randn(24, 64, 3, 3), torch.randn(40, 16, 3, 3)
    bias = torch.randn(24)
    got = convolve(
        [local, glob], [winograd_conv(both, bias, relu=True), winograd_conv(first, None, relu=False)]
    )
    near(got[0], plain([local, glob], both, bias, relu=True))
    near(got[1], plain([local, glob], first, None, relu=False))
    assert got[0].stride(1) == 1, "channels-last"


def test_strips_are_put_together_without_a_seam() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 8, 40, 24), torch.randn(8, 8, 3, 3)
    conv = winograd_conv(weight, None, relu=False)
    rows, whole = (convolve([x], [conv], at_once=tiles)[0] for tiles in (1, 10**6))
    near(rows, plain([x], weight, None, relu=False))
    near(whole, plain([x], weight, None, relu=False))


def test_what_lies_beyond_the_map_is_not_seen() -> None:
    """Memory that was used before and is handed out again may hold anything, NaN too."""
    torch.manual_seed(0)
    conv = winograd_conv(torch.randn(8, 8, 3, 3), None, relu=False)
    for side in (5, 6, 7, 9):
        for _ in range(4):
            full = torch.full((1, 8, 14, 14), torch.nan)
            del full
            assert convolve([torch.randn(1, 8, side, side)], [conv])[0].isfinite().all()


def test_an_infinite_value_stays_where_it_is() -> None:
    """A value that is not finite spoils its own tiles, no others and no other image of the batch."""
    x = torch.zeros(2, 4, 16, 16)
    x[0, 0, 0, 0] = torch.inf
    out = convolve([x], [winograd_conv(torch.randn(4, 4, 3, 3), None, relu=False)])[0]
    assert not out[0, :, :4, :4].isfinite().all()
    assert out[0, :, 8:, 8:].isfinite().all()
    assert out[1].isfinite().all()
