"""CUDA graphs: a generator's few hundred kernels, launched as one for each input shape that comes again.

Crops have few sizes (`CropSettings.bucket`) and full batches one number of images, so a few graphs serve a run.
No GPU was at hand when this was written: what runs on one is checked by `pytest -m gpu`, the choice of what to
capture by the ordinary tests.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

from cleanplate.models.lama.generator import Predict

Capture = Callable[[Predict, Tensor], Predict]
WARM_UPS = 3
"""Calls before a capture: libraries choose kernels, plan transforms and take workspace in the first ones."""


def capture(predict: Predict, example: Tensor) -> Predict:
    """predict for inputs of the example's shape and dtype, recorded once and replayed on every call."""
    given = example.clone()
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UPS):
            predict(given)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = predict(given)

    def replay(x: Tensor) -> Tensor:
        given.copy_(x)
        graph.replay()
        return output.clone()  # The next replay overwrites it.

    return replay


def graphed(predict: Predict, *, most: int = 6, capture: Capture = capture) -> Predict:
    """predict, replayed as a graph from the second input of a shape on; a shape that comes once is not worth one.

    most: graphs that are kept, each with its memory; the one not used for longest goes first. The input must not
    decide, by its numbers, what predict does.
    """
    graphs: OrderedDict[torch.Size, Predict] = OrderedDict()
    seen: Counter[torch.Size] = Counter()

    def run(x: Tensor) -> Tensor:
        seen[x.shape] += 1
        if seen[x.shape] == 1:
            return predict(x)
        if x.shape not in graphs:
            while len(graphs) >= most:
                graphs.popitem(last=False)
            graphs[x.shape] = capture(predict, x)
        graphs.move_to_end(x.shape)
        return graphs[x.shape](x)

    return run
