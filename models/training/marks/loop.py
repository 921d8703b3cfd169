"""The training of `marks`: a recipe, samples made by a seed, a loop that a checkpoint continues."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from cleanplate.models.detectors.unet import MARKS, STRIDE, MarksNet, build
from cleanplate.models.training.checkpoint import (
    load_checkpoint,
)
from cleanplate.models.training.data import PhotoBank
from cleanplate.models.training.lama.state import Initial
from cleanplate.models.training.lama.validation import save_sheet
from cleanplate.models.training.marks.data import MarkSamples, Sample
from cleanplate.models.training.marks.fonts import Fonts
from cleanplate.models.training.marks.lines_data import LineSamples
from cleanplate.models.training.marks.objective import losses
from cleanplate.models.training.marks.validation import judge, validation_samples
from cleanplate.models.training.run import Run, Writer, learning_rate

log = logging.getLogger(__name__)

COLUMNS = ("step", "loss", "cross_entropy", "dice", "grad_norm", "lr", "images_per_s", "unix_time")
REQUIRED = {"model", "optimizer", "average", "step", "best", "recipes"}
"""What every checkpoint has."""
SCORES = ("step", "score", "iou", "recall", "precision", "clean_false_share", "unix_time")


@dataclass(frozen=True)
class MarksRecipe:
    """model: a key of MARKS.  crop: pixels, a multiple of 32.  batch: samples of a step.

    lr is held after the warm-up and falls on a half cosine over the last `decay` of the steps, so that the
    number of steps may be changed while it is held.  ema: decay of the averaged weights.  muon_ratio: kernels are
    stepped by Muon at this many times the learning rate, the rest by Adam.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    model: str
    steps: int
    crop: int
    batch: int
    lr: float
    seed: int = 0
    warmup: int = 100
    decay: float = 0.35
    muon_ratio: float = 10.0
    ema: float = 0.998
    clip: float = 1.0
    photo_short_side: int = 512
    source_power: float = 0.5
    validation_share: float = 0.05
    validate_every: int = 250
    log_every: int = 20
    checkpoint_seconds: float = 240.0

    def digest(self) -> str:
        """sha256, hex, of all fields."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()


def check_recipe(recipe: MarksRecipe) -> None:
    """Raises ValueError for a recipe that cannot be trained."""
    if recipe.model not in MARKS:
        raise ValueError(f"model {recipe.model!r} is not one of {sorted(MARKS)}")
    if recipe.crop % STRIDE or recipe.crop <= 0:
        raise ValueError(f"crop must be a multiple of {STRIDE}, got {recipe.crop}")
    if min(recipe.steps, recipe.batch) < 1 or not 0 < recipe.decay <= 1:
        raise ValueError("steps and batch must be at least 1, decay in (0, 1]")


def samples_of(
    recipe: MarksRecipe, bank: PhotoBank, fonts: Fonts, seed: int
) -> Dataset[tuple[Tensor, Tensor, Tensor]]:
    """Straightened lines for `strokes`, crop pixels long; marked crops for the others."""
    make = LineSamples if recipe.model == "strokes" else MarkSamples
    return make(bank, fonts, recipe.crop, seed)


def checks_of(recipe: MarksRecipe, held: PhotoBank, fonts: Fonts) -> list[Sample]:
    """The validation's samples, the same on every call."""
    if recipe.model == "strokes":
        lines = LineSamples(held, fonts, recipe.crop, seed=7)
        return [lines.sample(number) for number in range(4 * len(held.images))]
    return validation_samples(held.images, fonts, recipe.crop)


def train(
    recipe: MarksRecipe,
    bank: PhotoBank,
    held: PhotoBank,
    fonts: Fonts,
    out_dir: Path,
    *,
    device: str | torch.device = "cpu",
    renderers: int = 1,
    compiled: bool = False,
    saved: Callable[[Path], None] | None = None,
    allow_changed_recipe: bool = False,
    stop_after: int | None = None,
    initial: Initial | None = None,
) -> dict[str, Tensor]:
    """Train to the recipe's end, or to step stop_after; gives the averaged weights.

    bank, held: photographs to lay marks on, and those of the validation. renderers: processes that make samples;
    0 makes them here. compiled: fuse the network's steps by torch.compile, which needs a C++ compiler. initial:
    where a new training starts. saved: called with every file that is written. out_dir gets last.pt, best.pt
    (averaged weights of the best validation score), train.csv, validation.csv, samples/*.jpg; the same call goes
    on from last.pt. Raises ValueError for a recipe that cannot be trained and
    for weights of another network, CheckpointError for a checkpoint of another recipe, TrainingDiverged.
    """
    check_recipe(recipe)
    net = partial(build, MARKS[recipe.model])
    run = Run(recipe, net, recipe.model, torch.device(device), log)
    forward: Callable[[Tensor], Tensor] = torch.compile(run.net) if compiled else run.net
    state = load_checkpoint(out_dir)
    if state is not None:
        run.restore(state, REQUIRED, allow_changed_recipe, out_dir)
    elif initial is not None:
        run.warm(initial)
    checks = checks_of(recipe, held, fonts)
    judged = net().to(run.device)
    writer = Writer(
        run, partial(_drawn, judged, checks), judged, (COLUMNS, SCORES), out_dir, saved or (lambda path: None)
    )
    end = min(recipe.steps, stop_after or recipe.steps)
    for batch in _batches(recipe, bank, fonts, run.step, end, renderers):
        values = _step(recipe, run, forward, [tensor.to(run.device) for tensor in batch])
        writer.after_step(values, last=run.step == end)
    return run.average


def _batches(
    recipe: MarksRecipe, bank: PhotoBank, fonts: Fonts, start: int, end: int, renderers: int
) -> Iterator[list[Tensor]]:
    samples = samples_of(recipe, bank, fonts, recipe.seed)
    wanted = Subset(samples, range(start * recipe.batch, end * recipe.batch))
    context = "fork" if renderers else None  # the decoded photographs are shared, not copied
    ahead = 4 if renderers else None
    return iter(
        DataLoader(
            wanted,
            recipe.batch,
            num_workers=renderers,
            prefetch_factor=ahead,
            multiprocessing_context=context,
        )
    )


def _drawn(judged: MarksNet, checks: list[Sample], path: Path) -> dict[str, float]:
    scores, shown = judge(judged, checks)
    rows = [
        (image, np.repeat(mask[..., None] * np.uint8(255), 3, 2), chance)
        for (image, mask, _), chance in zip(checks, shown, strict=True)
    ]
    save_sheet(path, rows[:18])
    return scores


def _step(
    recipe: MarksRecipe, run: Run[MarksNet], forward: Callable[[Tensor], Tensor], batch: list[Tensor]
) -> dict[str, float]:
    images, mask, counted = batch
    rate = learning_rate(recipe, run.step)
    run.optimizer.set_lr(rate)
    run.net.train()
    with torch.autocast(images.device.type, torch.bfloat16, enabled=run.bf16):
        logits = forward(images.contiguous(memory_format=torch.channels_last))
    return run.stepped(losses(logits.float(), mask, counted), rate)
