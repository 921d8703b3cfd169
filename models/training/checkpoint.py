"""Checkpoints of a training run: written whole or not at all, read without running code from them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cleanplate.models.types import CleanplateError

CHECKPOINT_NAME = "last.pt"


class CheckpointError(CleanplateError):
    """A checkpoint that cannot be used: damaged, or of another training."""


def save_checkpoint(folder: Path, state: Mapping[str, Any]) -> Path:
    """Write state (tensors, numbers, text, and dicts and lists of them) to folder/last.pt by one rename."""
    path = folder / CHECKPOINT_NAME
    write_whole(path, state)
    return path


def write_whole(path: Path, state: Mapping[str, Any]) -> None:
    """torch.save to path by one rename, so that a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as stream:
        torch.save(dict(state), stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The state of folder/last.pt on the CPU, or None when there is none.

    Raises CheckpointError when the file cannot be read.
    """
    path = folder / CHECKPOINT_NAME
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything from EOFError to UnpicklingError
        raise CheckpointError(
            f"cannot read {path} ({type(error).__name__}: {error}); remove it to start again, or put back "
            "a copy of an earlier one"
        ) from error
    if not isinstance(state, dict) or "step" not in state:
        raise CheckpointError(f"{path} is no training checkpoint of this program")
    return state


def recipes_of(
    state: Mapping[str, Any], required: Set[str], digest: str, folder: Path, *, allow_changed: bool
) -> list[str]:
    """The digests of the recipes that made a checkpoint, the one to go on with last.

    Raises CheckpointError for a state without all that is required, and for one of another recipe unless
    allow_changed.
    """
    if missing := sorted(required - set(state)):
        raise CheckpointError(f"{folder} holds no whole checkpoint: it has no {', '.join(missing)}")
    recipes: list[str] = list(state["recipes"])
    if recipes[-1] == digest:
        return recipes
    if not allow_changed:
        raise CheckpointError(
            f"{folder} holds a training with another recipe; take another folder, or say that the "
            "recipe may change on the way"
        )
    return [*recipes, digest]


def restore(parts: Mapping[str, Any], state: Mapping[str, Any], folder: Path, whose: str) -> None:
    """Give each part (a network, an optimiser) its state. Raises CheckpointError where it does not fit."""
    for name, part in parts.items():
        try:
            part.load_state_dict(state[name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"the checkpoint in {folder} does not fit {whose} ({name}): {error}"
            ) from error


def load_best(folder: Path) -> dict[str, Any]:
    """What folder/best.pt holds: the averaged weights with the best score. Raises CheckpointError."""
    path = folder / "best.pt"
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # as above
        raise CheckpointError(f"cannot read {path}: {type(error).__name__}: {error}") from error
    return state


def blended(first: Mapping[str, Tensor], last: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """`share` of last and the rest of first, tensor by tensor; whole numbers are last's. Raises KeyError."""
    return {
        name: torch.lerp(first[name].to(tensor), tensor, share) if tensor.is_floating_point() else tensor
        for name, tensor in last.items()
    }


def export_weights(weights: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> int:
    """Write weights as safetensors with floating tensors in fp16; gives the file's size in bytes.

    Raises ValueError when a value is not finite or does not fit fp16.
    """
    halves: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        half = tensor.detach().cpu().contiguous()
        if half.is_floating_point():
            half = half.half()
            if not torch.isfinite(half).all():
                raise ValueError(f"{name} has values that are not finite in fp16; nothing was written")
        halves[name] = half
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(halves, partial, metadata=dict(metadata))
    os.replace(partial, path)
    return path.stat().st_size


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or a torch.save'd state dict. Raises ValueError when unreadable."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # as above
        raise ValueError(f"cannot read weights from {path}: {type(error).__name__}: {error}") from error
    return tensors
