"""Real checkpoint files of small random networks, as their authors publish them."""

from __future__ import annotations

from pathlib import Path

import torch

from cleanplate.models.lama.generator import build_generator
from cleanplate.models.lama.params import LAMA
from cleanplate.models.segmenters.sam_network import SAM, build_sam


def lama_checkpoint(path: Path) -> Path:
    """A training checkpoint as the authors publish theirs: the generator among other keys."""
    torch.manual_seed(0)
    generator = build_generator(LAMA["tiny"])
    state = {f"generator.{key}": value for key, value in generator.state_dict().items()}
    state["val_evaluator.x"] = torch.zeros(1)
    torch.save({"epoch": 1, "state_dict": state}, path)
    return path


def sam_checkpoint(path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(build_sam(SAM["tiny"]).state_dict(), path)
    return path
