"""Convolutions put together from 8-bit digits are as exact as fp32's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from cleanplate.models.lama.fast.int8 import Digits, digits, split_conv, splitting_pays

needs_amx = pytest.mark.skipif(not splitting_pays(), reason="the split runs where there is AMX only")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def whole(cut: Digits) -> torch.Tensor:
    """The value that the digits stand for, float64."""
    total = torch.zeros(1, dtype=torch.float64)
    for digit in cut.bytes.double().chunk(cut.count, dim=1):
        total = 2**8 * total + digit
    return cut.step * total


def test_digits_hold_the_map_and_its_reflection() -> None:
    maps = [torch.rand(2, c, 6, 5).mul_(9).contiguous(memory_format=torch.channels_last) for c in (3, 4)]
    maps[1][1, 2, 3, 4] = 77.7  # the largest value of all must not carry into a fourth digit
    for reflect in (0, 1, 2):
        got = whole(digits(maps, reflect=reflect))
        want = F.pad(torch.cat(maps, 1).double(), (reflect,) * 4, mode="reflect")
        assert (got - want).abs().max() <= 77.7 * 2**-23
        part = whole(digits(maps, reflect=reflect).part(3))
        assert torch.equal(part, got[:, :3])


def test_two_digits_hold_sixteen_bits() -> None:
    x = torch.rand(1, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    x[0, 0, 0, 0] = 1
    cut = digits([x], reflect=0, count=2)
    assert cut.bytes.shape[1] == 6
    assert (whole(cut) - x).abs().max() <= 2**-16


@needs_amx
def test_two_digits_are_nearer_than_bf16() -> None:
    x = torch.rand(1, 96, 18, 14).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(40, 96, 3, 3), torch.randn(40)
    truth = F.conv2d(x.double(), weight.double(), bias.double())
    rough = F.conv2d(x.bfloat16(), weight.bfloat16(), bias.bfloat16())
    got = split_conv(weight, bias, count=2)(digits([x], reflect=0, count=2))
    assert (got - truth).abs().max() < 0.02 * (rough - truth).abs().max()


def test_a_map_of_zeros_is_zeros() -> None:
    assert not digits([torch.zeros(1, 2, 3, 3)], reflect=1).bytes.any()


@needs_amx
@pytest.mark.parametrize("stride", [1, 2])
def test_no_farther_from_fp64_than_fp32(stride: int) -> None:
    x = torch.randn(1, 96, 18, 14).relu_().contiguous(memory_format=torch.channels_last)
    # Channels of very different size, as folding batch norms makes them.
    weight = torch.randn(40, 96, 3, 3) * torch.logspace(-4, 1, 40).view(-1, 1, 1, 1)
    bias = torch.randn(40)
    padded = F.pad(x, (1,) * 4, mode="reflect")
    truth = F.relu(F.conv2d(padded.double(), weight.double(), bias.double(), stride=stride))
    plain = F.relu(F.conv2d(padded, weight, bias, stride=stride))
    got = split_conv(weight, bias, stride=stride)(digits([x], reflect=1), relu=True)
    size = truth.abs().amax(dim=(0, 2, 3)).clamp_min(1e-3)
    errors = [((out - truth).abs().amax(dim=(0, 2, 3)) / size).max() for out in (got, plain)]
    assert errors[0] <= 2 * errors[1], errors
    assert errors[0] < 1e-5
