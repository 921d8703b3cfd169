"""The training of `plates`: a recipe, its losses, a loop that a checkpoint continues."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Subset

from cleanplate.models.detectors.objects.plate_network import MULTIPLE, PlateNet, Seen, build, look
from cleanplate.models.training.checkpoint import (
    load_checkpoint,
)
from cleanplate.models.training.lama.state import Initial
from cleanplate.models.training.lama.validation import save_sheet
from cleanplate.models.training.plates.data import PlateSamples
from cleanplate.models.training.plates.scene import Quad
from cleanplate.models.training.run import Run, Writer, learning_rate
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
    run = Run(recipe, build, MODEL, torch.device(device), log)
    state = load_checkpoint(out_dir)
    if state is not None:
        run.restore(state, REQUIRED, allow_changed_recipe, out_dir)
    elif initial is not None:
        run.warm(initial)
    checks = [held.sample(n) for n in range(recipe.checked)]
    judged = build().to(run.device)
    writer = Writer(
        run, partial(_drawn, judged, checks), judged, (COLUMNS, SCORES), out_dir, saved or (lambda path: None)
    )
    end = min(recipe.steps, stop_after or recipe.steps)
    wanted = Subset(samples, range(run.step * recipe.batch, end * recipe.batch))
    ahead: dict[str, Any] = {"prefetch_factor": 4, "multiprocessing_context": "fork"} if renderers else {}
    for batch in DataLoader(wanted, recipe.batch, num_workers=renderers, **ahead):
        values = _step(recipe, run, [tensor.to(run.device) for tensor in batch])
        writer.after_step(values, last=run.step == end)
    return run.average


def _drawn(judged: PlateNet, checks: Sequence[tuple[Image, list[Quad]]], path: Path) -> dict[str, float]:
    scores, drawn = judge(judged, checks)
    save_sheet(
        path, [drawn[n : n + SHEET] for n in range(0, SHEET * SHEET, SHEET) if n + SHEET <= len(drawn)]
    )
    return scores


def _step(recipe: PlatesRecipe, run: Run[PlateNet], batch: list[Tensor]) -> dict[str, float]:
    images, middle, counted, offsets = batch
    rate = learning_rate(recipe, run.step)
    run.optimizer.set_lr(rate)
    run.net.train()
    with torch.autocast(images.device.type, torch.bfloat16, enabled=run.bf16):
        out = run.net(images)
    return run.stepped(losses(out.float(), middle, counted, offsets, recipe.hard), rate)
