"""The training of `marks`: a recipe, samples made by a seed, a loop that a checkpoint continues."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from cleanplate.models.detectors.unet import MARKS, STRIDE, build
from cleanplate.models.devices import bf16_is_native
from cleanplate.models.training.checkpoint import (
    load_checkpoint,
    recipes_of,
    restore,
    save_checkpoint,
    write_whole,
)
from cleanplate.models.training.data import PhotoBank
from cleanplate.models.training.lama.loop import TrainingDiverged
from cleanplate.models.training.lama.state import Initial, first_average, update_average, warmed
from cleanplate.models.training.lama.validation import save_sheet
from cleanplate.models.training.marks.data import MarkSamples, Sample
from cleanplate.models.training.marks.fonts import Fonts
from cleanplate.models.training.marks.lines_data import LineSamples
from cleanplate.models.training.marks.objective import losses
from cleanplate.models.training.marks.validation import judge, validation_samples
from cleanplate.models.training.muon import KernelsAndRest
from cleanplate.models.training.scalars import Scalars

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


def learning_rate(recipe: MarksRecipe, step: int) -> float:
    """Warm-up, level, half cosine to nothing."""
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    start = recipe.steps * (1 - recipe.decay)
    share = min(1.0, max(0.0, (step - start) / max(1.0, recipe.steps - start)))
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * share))


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


class _Run:
    """What a checkpoint holds, alive."""

    def __init__(self, recipe: MarksRecipe, device: torch.device, compiled: bool = False) -> None:
        torch.manual_seed(recipe.seed)
        self.device = device
        self.net = build(MARKS[recipe.model]).to(device)
        self.forward: Callable[[Tensor], Tensor] = torch.compile(self.net) if compiled else self.net
        # Where it is not in hardware a step in bf16 takes several times as long as one in fp32.
        self.bf16 = bf16_is_native(device)
        self.optimizer = KernelsAndRest(self.net, recipe.lr, (0.9, 0.99), recipe.muon_ratio, self.bf16)
        self.average = first_average(self.net)
        self.step, self.best = 0, -math.inf
        self.recipes = [recipe.digest()]
        self.initial = ""

    def warm(self, initial: Initial, recipe: MarksRecipe) -> None:
        self.average = warmed(self.net, initial, f"those of {recipe.model}")
        self.initial = initial.sha256

    def state(self) -> dict[str, Any]:
        return {
            "model": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "step": self.step,
            "best": self.best,
            "recipes": self.recipes,
            "initial": self.initial,
        }

    def restore(self, state: dict[str, Any], recipe: MarksRecipe, allow_changed: bool, where: Path) -> None:
        recipes = recipes_of(state, REQUIRED, recipe.digest(), where, allow_changed=allow_changed)
        restore({"model": self.net, "optimizer": self.optimizer}, state, where, recipe.model)
        self.average = {name: tensor.to(self.device) for name, tensor in state["average"].items()}
        self.step, self.best, self.recipes = state["step"], state["best"], recipes
        self.initial = state.get("initial", "")
        log.info("going on from step %d of %s", self.step, where)


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
    run = _Run(recipe, torch.device(device), compiled)
    state = load_checkpoint(out_dir)
    if state is not None:
        run.restore(state, recipe, allow_changed_recipe, out_dir)
    elif initial is not None:
        run.warm(initial, recipe)
    checks = checks_of(recipe, held, fonts)
    writer = _Writer(recipe, run, checks, out_dir, saved or (lambda path: None))
    end = min(recipe.steps, stop_after or recipe.steps)
    for batch in _batches(recipe, bank, fonts, run.step, end, renderers):
        values = _step(recipe, run, [tensor.to(run.device) for tensor in batch])
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


def _step(recipe: MarksRecipe, run: _Run, batch: list[Tensor]) -> dict[str, float]:
    images, mask, counted = batch
    rate = learning_rate(recipe, run.step)
    run.optimizer.set_lr(rate)
    run.net.train()
    with torch.autocast(images.device.type, torch.bfloat16, enabled=run.bf16):
        logits = run.forward(images.contiguous(memory_format=torch.channels_last))
    parts = losses(logits.float(), mask, counted)
    loss = torch.stack(list(parts.values())).sum()
    run.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    norm = float(torch.nn.utils.clip_grad_norm_(run.net.parameters(), recipe.clip))
    if not (math.isfinite(float(loss.detach())) and math.isfinite(norm)):
        raise TrainingDiverged(
            f"loss or gradient is not finite at step {run.step}; the last checkpoint is kept. Lower the "
            "learning rate, or go on from the checkpoint with another seed"
        )
    run.optimizer.step()
    update_average(run.average, run.net, recipe.ema, run.step)
    run.step += 1
    values = {name: float(part.detach()) for name, part in parts.items()}
    return {"loss": float(loss.detach()), **values, "grad_norm": norm, "lr": rate}


class _Writer:
    """What is left on disk while the run goes on."""

    def __init__(
        self,
        recipe: MarksRecipe,
        run: _Run,
        checks: list[Sample],
        out_dir: Path,
        saved: Callable[[Path], None],
    ) -> None:
        self.recipe, self.run, self.checks, self.out_dir, self.saved = recipe, run, checks, out_dir, saved
        self.judged = build(MARKS[recipe.model]).to(run.device)
        self.scalars = Scalars(out_dir / "train.csv", COLUMNS, run.step)
        self.scores = Scalars(out_dir / "validation.csv", SCORES, run.step)
        self.saved_at = self.logged_at = time.monotonic()

    def after_step(self, values: dict[str, float], *, last: bool) -> None:
        step, now = self.run.step, round(time.time(), 1)
        if step % self.recipe.log_every == 0:
            seconds = time.monotonic() - self.logged_at
            speed = round(self.recipe.log_every * self.recipe.batch / seconds, 2)
            self.scalars.add({"step": step, **values, "images_per_s": speed, "unix_time": now})
            self.logged_at = time.monotonic()
        if step % self.recipe.validate_every == 0 or last:
            self.scores.add({"step": step, **self._validate(), "unix_time": now})
        if time.monotonic() - self.saved_at > self.recipe.checkpoint_seconds or last:
            self.saved(save_checkpoint(self.out_dir, self.run.state()))
            for table in (self.scalars, self.scores):
                self.saved(table.path)
            self.saved_at = time.monotonic()

    def _validate(self) -> dict[str, float]:
        """Judge the averaged weights; keep them as best.pt when they are the best so far."""
        run = self.run
        self.judged.load_state_dict(run.average)
        scores, shown = judge(self.judged, self.checks)
        rows = [
            (image, np.repeat(mask[..., None] * np.uint8(255), 3, 2), chance)
            for (image, mask, _), chance in zip(self.checks, shown, strict=True)
        ]
        path = self.out_dir / "samples" / f"{run.step:07d}.jpg"
        save_sheet(path, rows[:18])
        self.saved(path)
        if scores["score"] > run.best:
            run.best = scores["score"]
            facts = {"step": run.step, "scores": scores, "recipes": run.recipes, "initial": run.initial}
            best = {"average": run.average, **facts}
            write_whole(self.out_dir / "best.pt", best)
            self.saved(self.out_dir / "best.pt")
        text = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
        log.info("step %d: %s", run.step, text)
        return scores
