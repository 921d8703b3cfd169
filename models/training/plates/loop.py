"""The training of `plates`: a recipe, its losses, a loop that a checkpoint continues."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Subset

from cleanplate.models.detectors.objects.plate_network import MULTIPLE, PlateNet, Seen, build, look
from cleanplate.models.devices import bf16_is_native
from cleanplate.models.training.checkpoint import (
    load_checkpoint,
    recipes_of,
    restore,
    save_checkpoint,
    write_whole,
)
from cleanplate.models.training.lama.loop import TrainingDiverged
from cleanplate.models.training.lama.state import Initial, first_average, update_average, warmed
from cleanplate.models.training.lama.validation import save_sheet
from cleanplate.models.training.muon import KernelsAndRest
from cleanplate.models.training.plates.data import PlateSamples
from cleanplate.models.training.plates.scene import Quad
from cleanplate.models.training.scalars import Scalars
from cleanplate.models.types import Image

log = logging.getLogger(__name__)

MODEL = "plates"
COLUMNS = ("step", "loss", "middle", "corners", "grad_norm", "lr", "images_per_s", "unix_time")
SCORES = ("step", "score", "found", "false", "iou", "unix_time")
REQUIRED = {"model", "optimizer", "average", "step", "best", "recipes"}
"""What every checkpoint has."""
SHEET = 6
"""Samples along a side of the sheet that is looked at."""
SURE = 0.5
"""Chance from which validation counts a find."""


@dataclass(frozen=True)
class PlatesRecipe:
    """height, width: pixels of a sample, multiples of 32. batch: samples of a step. checked: samples of the validation.

    lr is held after the warm-up and falls on a half cosine over the last `decay` of the steps, so that the
    number of steps may be changed while it is held.  ema: decay of the averaged weights.  muon_ratio: kernels are
    stepped by Muon at this many times the learning rate, the rest by Adam.  hard: of the cells without a plate only the
    worst count, so many for each cell with one.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    model: str
    steps: int
    height: int
    width: int
    batch: int
    lr: float
    seed: int = 0
    warmup: int = 100
    decay: float = 0.35
    muon_ratio: float = 10.0
    ema: float = 0.998
    clip: float = 2.0
    hard: int = 4
    photo_short_side: int = 512
    source_power: float = 0.5
    validation_share: float = 0.05
    checked: int = 160
    validate_every: int = 500
    log_every: int = 20
    checkpoint_seconds: float = 120.0

    def digest(self) -> str:
        """sha256, hex, of all fields."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()


def check_recipe(recipe: PlatesRecipe) -> None:
    """Raises ValueError for a recipe that cannot be trained."""
    if recipe.model != MODEL:
        raise ValueError(f"model {recipe.model!r} is not {MODEL!r}")
    if recipe.height % MULTIPLE or recipe.width % MULTIPLE or not 0 < recipe.height <= recipe.width:
        raise ValueError(f"height and width must be multiples of {MULTIPLE}, height at most width")
    if min(recipe.steps, recipe.batch) < 1 or recipe.checked < SHEET or not 0 < recipe.decay <= 1:
        raise ValueError(f"steps and batch must be at least 1, checked {SHEET}, decay in (0, 1]")


def learning_rate(recipe: PlatesRecipe, step: int) -> float:
    """Warm-up, level, half cosine to nothing."""
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    start = recipe.steps * (1 - recipe.decay)
    share = min(1.0, max(0.0, (step - start) / max(1.0, recipe.steps - start)))
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * share))


def losses(out: Tensor, middle: Tensor, counted: Tensor, offsets: Tensor, hard: int) -> dict[str, Tensor]:
    """Cross-entropy of cells with a plate and of the worst others (Shrivastava et al. 2016, arXiv:1604.03540), and how
    far the corners are off, for the height of their plate; each plate counts alike as its cells do."""
    entropy = functional.binary_cross_entropy_with_logits(out[:, :1], middle, reduction="none")
    yes, no = middle > 0, (middle == 0) & (counted > 0)
    count = int(yes.sum())
    worst = entropy[no].topk(min(int(no.sum()), max(64 * out.shape[0], hard * count))).values
    # An even weight for both, and for the easy rest a little.
    easy = (entropy * no).sum() / no.sum().clamp(min=1)
    parts = {"middle": worst.mean() + entropy[yes].sum() / max(1, count) + easy}
    off = functional.smooth_l1_loss(out[:, 1:], offsets, reduction="none", beta=0.05).mean(1, keepdim=True)
    parts["corners"] = 2 * (off / _heights(offsets) * middle).sum() / max(1, count)
    return parts


def _heights(offsets: Tensor) -> Tensor:
    """B x 1 x h x w: length of a plate's left and right edge, in units of offsets, at least a fifth of one."""
    quad = offsets.reshape(offsets.shape[0], 4, 2, *offsets.shape[2:])
    left, right = (quad[:, 3] - quad[:, 0]).norm(dim=1), (quad[:, 2] - quad[:, 1]).norm(dim=1)
    height: Tensor = ((left + right) / 2).clamp(min=0.2)
    return height[:, None]


def judge(net: PlateNet, samples: Sequence[tuple[Image, list[Quad]]]) -> tuple[dict[str, float], list[Image]]:
    """{found: share of plates of which a find covers 70 %; false: finds a sample that lie less than half on a plate;
    iou: mean of what is found; score = found - false}, and each sample with its finds drawn."""
    net.eval()
    found, false, overlaps, drawn = 0, 0, [], []
    for image, quads in samples:
        seen = look(net, [image], SURE)[0]
        boxes = [_filled(quad, image.shape) for _, quad in seen]
        truth = [_filled(quad, image.shape) for quad in quads]
        for plate in truth:
            best = max((int((plate & box).sum()) for box in boxes), default=0)
            found += best >= 0.7 * max(1, int(plate.sum()))
            overlaps += [max((_iou(plate, box) for box in boxes), default=0.0)]
        every = np.any(truth, axis=0) if truth else np.zeros(image.shape[:2], np.bool_)
        false += sum(int((box & every).sum()) < 0.5 * max(1, int(box.sum())) for box in boxes)
        drawn.append(_shown(image, seen))
    plates = max(1, len(overlaps))
    scores = {
        "found": found / plates,
        "false": false / len(samples),
        "iou": float(np.mean(overlaps or [0.0])),
    }
    return {"score": scores["found"] - scores["false"], **scores}, drawn


def _filled(quad: Quad, shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    canvas = np.zeros(shape[:2], np.uint8)
    cv2.fillConvexPoly(canvas, np.round(quad * 16).astype(np.int32), 1, cv2.LINE_8, 4)
    return np.asarray(canvas > 0)


def _iou(one: Any, other: Any) -> float:
    return float((one & other).sum() / max(1, int((one | other).sum())))


def _shown(image: Image, seen: Seen) -> Image:
    out = image.copy()
    for _, quad in seen:
        cv2.polylines(out, [np.round(quad * 16).astype(np.int32)], True, (255, 0, 0), 1, cv2.LINE_AA, 4)
    return out


class _Run:
    """What a checkpoint holds, alive."""

    def __init__(self, recipe: PlatesRecipe, device: torch.device) -> None:
        torch.manual_seed(recipe.seed)
        self.device = device
        self.net = build().to(device)
        self.bf16 = bf16_is_native(device)
        self.optimizer = KernelsAndRest(self.net, recipe.lr, (0.9, 0.99), recipe.muon_ratio, self.bf16)
        self.average = first_average(self.net)
        self.step, self.best, self.initial = 0, -math.inf, ""
        self.recipes = [recipe.digest()]

    def warm(self, initial: Initial) -> None:
        self.average = warmed(self.net, initial, f"those of {MODEL}")
        self.initial = initial.sha256

    def state(self) -> dict[str, Any]:
        names = ("average", "step", "best", "recipes", "initial")
        parts = {"model": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}
        return {**parts, **{name: getattr(self, name) for name in names}}

    def restore(self, state: dict[str, Any], recipe: PlatesRecipe, allow_changed: bool, where: Path) -> None:
        recipes = recipes_of(state, REQUIRED, recipe.digest(), where, allow_changed=allow_changed)
        restore({"model": self.net, "optimizer": self.optimizer}, state, where, MODEL)
        self.average = {name: tensor.to(self.device) for name, tensor in state["average"].items()}
        self.step, self.best, self.recipes = state["step"], state["best"], recipes
        self.initial = state["initial"]
        log.info("going on from step %d of %s", self.step, where)


def train(
    recipe: PlatesRecipe,
    samples: PlateSamples,
    held: PlateSamples,
    out_dir: Path,
    *,
    device: str | torch.device = "cpu",
    renderers: int = 0,
    saved: Callable[[Path], None] | None = None,
    allow_changed_recipe: bool = False,
    stop_after: int | None = None,
    initial: Initial | None = None,
) -> dict[str, Tensor]:
    """Train to the recipe's end, or to step stop_after; gives the averaged weights.

    samples, held: to train on, and for the validation. renderers: processes that make samples; 0 makes them here.
    initial: where a new training starts. saved: told of every file that is written. out_dir gets last.pt, best.pt
    (averaged weights of the best validation score), train.csv, validation.csv, samples/*.jpg; the same call goes on
    from last.pt. Raises ValueError for a recipe that cannot be trained and for weights of another network,
    CheckpointError for a checkpoint of another recipe, TrainingDiverged.
    """
    check_recipe(recipe)
    run = _Run(recipe, torch.device(device))
    state = load_checkpoint(out_dir)
    if state is not None:
        run.restore(state, recipe, allow_changed_recipe, out_dir)
    elif initial is not None:
        run.warm(initial)
    writer = _Writer(recipe, run, [held.sample(n) for n in range(recipe.checked)], out_dir, saved)
    end = min(recipe.steps, stop_after or recipe.steps)
    wanted = Subset(samples, range(run.step * recipe.batch, end * recipe.batch))
    ahead: dict[str, Any] = {"prefetch_factor": 4, "multiprocessing_context": "fork"} if renderers else {}
    for batch in DataLoader(wanted, recipe.batch, num_workers=renderers, **ahead):
        values = _step(recipe, run, [tensor.to(run.device) for tensor in batch])
        writer.after_step(values, last=run.step == end)
    return run.average


def _step(recipe: PlatesRecipe, run: _Run, batch: list[Tensor]) -> dict[str, float]:
    images, middle, counted, offsets = batch
    rate = learning_rate(recipe, run.step)
    run.optimizer.set_lr(rate)
    run.net.train()
    with torch.autocast(images.device.type, torch.bfloat16, enabled=run.bf16):
        out = run.net(images)
    parts = losses(out.float(), middle, counted, offsets, recipe.hard)
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
        recipe: PlatesRecipe,
        run: _Run,
        checks: list[tuple[Image, list[Quad]]],
        out_dir: Path,
        saved: Callable[[Path], None] | None,
    ) -> None:
        self.recipe, self.run, self.checks, self.out_dir = recipe, run, checks, out_dir
        self.saved = saved or (lambda path: None)
        self.judged = build().to(run.device)
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
        scores, drawn = judge(self.judged, self.checks)
        path = self.out_dir / "samples" / f"{run.step:07d}.jpg"
        save_sheet(
            path, [drawn[n : n + SHEET] for n in range(0, SHEET * SHEET, SHEET) if n + SHEET <= len(drawn)]
        )
        self.saved(path)
        if scores["score"] > run.best:
            run.best = scores["score"]
            facts = {"step": run.step, "scores": scores, "recipes": run.recipes, "initial": run.initial}
            write_whole(self.out_dir / "best.pt", {"average": run.average, **facts})
            self.saved(self.out_dir / "best.pt")
        log.info("step %d: %s", run.step, ", ".join(f"{name} {score:.3f}" for name, score in scores.items()))
        return scores
