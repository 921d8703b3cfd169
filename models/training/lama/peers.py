"""Several processes that train one set of weights: what they must agree on at each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


def _alone(tensors: Sequence[Tensor]) -> None:
    """One worker is its own mean."""


@dataclass(frozen=True)
class Peers:
    """The workers of a run. mean: replaces each tensor, in place, by its mean over all workers."""

    rank: int = 0
    world: int = 1
    mean: Callable[[Sequence[Tensor]], None] = _alone


def current_peers() -> Peers:
    """The process group torch.distributed was initialised with (torchrun, Ray Train), else one worker."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return Peers()
    return Peers(dist.get_rank(), dist.get_world_size(), _mean_of_group)


@torch.no_grad()
def _mean_of_group(tensors: Sequence[Tensor]) -> None:
    """One all-reduce for all tensors: on a CPU the messages cost more than their bytes."""
    if not tensors:
        return
    flat = torch.cat([t.detach().reshape(-1) for t in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    start = 0
    for tensor in tensors:
        tensor.copy_(flat[start : start + tensor.numel()].view(tensor.shape))
        start += tensor.numel()
