"""What is captured as a graph, and (with a GPU) that a replay gives what the generator gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cleanplate.models.lama.fast.cuda_graphs import graphed
from cleanplate.models.lama.fast.generator import fast_generator
from cleanplate.models.lama.generator import Predict, build_generator
from cleanplate.models.lama.params import LAMA


def test_a_shape_is_captured_when_it_comes_again_and_the_oldest_goes() -> None:
    captured: list[tuple[int, ...]] = []

    def capture(predict: Predict, example: Tensor) -> Predict:
        captured.append(tuple(example.shape))
        return lambda x: predict(x) + 100

    run = graphed(lambda x: x + 1, most=2, capture=capture)
    shapes = {n: torch.zeros(n) for n in (1, 2, 3)}
    assert [run(shapes[1]).item() for _ in range(3)] == [1, 101, 101]
    assert captured == [(1,)]
    for n in (2, 3):
        assert run(shapes[n])[0] == 1
        assert run(shapes[n])[0] == 101
    run(shapes[1])  # its graph has gone for the third
    assert captured == [(1,), (2,), (3,), (1,)]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_replay_gives_what_the_generator_gives(precision: str) -> None:
    torch.manual_seed(0)
    predict = fast_generator(build_generator(LAMA["tiny"]).cuda().eval(), precision)
    run = graphed(predict)
    for _ in range(4):
        x = torch.rand(2, 4, 64, 96, device="cuda")
        torch.testing.assert_close(run(x), predict(x), atol=2e-3, rtol=0)
