"""Subnormal numbers count as zero wherever a network computes, and nowhere else."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cleanplate.models.detectors import unet
from cleanplate.models.detectors.onnx_session import Session, _message, _shape, _varint, open_session
from cleanplate.models.devices import FLUSHES, limit_threads, subnormals_flushed
from cleanplate.models.inpainters.inpainters import LamaInpainter
from cleanplate.models.types import Image

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in FLUSHES, reason="the flag is known on Linux only"
)
TINY = np.float32(1e-20)
"""Its square is subnormal."""


def squaring(threads: int) -> Session:
    """A session that squares N numbers (onnx.proto: fields by number)."""

    def number(field: int, value: int) -> bytes:
        return bytes([field << 3]) + _varint(value)

    def described(name: bytes) -> bytes:
        tensor = number(1, 1) + _message(2, _shape(("n",)))
        return _message(1, name) + _message(2, _message(1, tensor))

    node = _message(1, b"x") + _message(1, b"x") + _message(2, b"y") + _message(4, b"Mul")
    graph = _message(1, node) + _message(2, b"square") + _message(11, described(b"x"))
    graph += _message(12, described(b"y"))
    return open_session(
        number(1, 8) + _message(7, graph) + _message(8, _message(1, b"") + number(2, 13)), threads
    )


def keeps_subnormals() -> bool:
    """Whether this thread does. Not a constant, which would be computed once for all."""
    one = np.full(1, TINY)
    return bool((one * one)[0] > 0)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_session_flushes_in_whichever_thread_it_runs(threads: int) -> None:
    session = squaring(threads)
    feeds = {"x": np.full(1 << 20, TINY)}

    def largest(_: int) -> float:
        return float(session.run(None, feeds)[0].max())

    with ThreadPoolExecutor(2) as pool:
        assert {largest(0), *pool.map(largest, range(4))} == {0.0}
        assert all(pool.map(lambda _: keeps_subnormals(), range(4)))
    assert keeps_subnormals()


class Squares(nn.Module):
    """What it gives tells whether a subnormal number was met: 1 or 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), float(TINY)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        squared = self.weight.expand(x.shape[0], 3, *x.shape[2:]).contiguous() ** 2
        return (squared > 0).float()


def test_networks_of_torch_flush_too() -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    with ThreadPoolExecutor(1) as pool:
        chance = pool.submit(unet.probability, Squares(), [picture]).result()  # type: ignore[arg-type]
        assert chance.max() == 0.5  # The sigmoid of 0, not of 1.
        hole = np.zeros((64, 64), np.bool_)
        hole[20:40, 20:40] = True
        filled = pool.submit(LamaInpainter(Squares()), [picture], [hole]).result()[0]
    assert filled.max() == 0
    assert keeps_subnormals()


def test_threads_of_torch_flush_too() -> None:
    before = torch.get_num_threads()
    try:
        limit_threads(2)
        one = torch.full((1 << 20,), float(TINY))
        with subnormals_flushed():
            assert float((one * one).max()) == 0
    finally:
        limit_threads(before)


def test_the_flag_is_taken_back_when_a_run_fails() -> None:
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):
        squaring(1).run(None, {"x": np.zeros((2, 2), np.float32)})
    assert keeps_subnormals()


def test_an_output_is_the_same_to_the_bit(
    weights_path: Callable[[str], Path], photo: Callable[[str], Image]
) -> None:
    """Of the network that met most of them. It also takes a third of the time, which a busy machine could deny."""
    session = open_session(weights_path("text-det"))
    crop = photo("astronaut.jpg")[:256, :256].astype(np.float32)
    feeds = {"x": np.ascontiguousarray(crop.transpose(2, 0, 1)[None]) / np.float32(127.5) - 1}
    bare = session._session  # type: ignore[attr-defined]
    assert np.array_equal(session.run(None, feeds)[0], bare.run(None, feeds)[0])
