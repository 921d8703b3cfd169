"""The training loop: the same for one process and for several.

Everything random at a step (photographs, crops, masks) follows from (seed, step, place in the batch), so a run
that is stopped and taken up again sees what an uninterrupted one sees, and so do several workers together.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import metrics
from models.lama import LAMA, build_generator, inpaint_batch
from models.regions import Image, Mask
from models.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from models.training.data import PhotoBank, draw_crop, evaluation_crop
from models.training.masks import MASKS, bounded_mask, scaled
from models.training.peers import Peers, current_peers

log = logging.getLogger(__name__)


class TrainingDiverged(Exception):
    """A loss or a gradient is not finite. The last checkpoint is from before and is kept."""


@dataclass(frozen=True)
class LossWeights:
    """Weights of the parts of the generator's loss; a part with weight 0 is not computed.

    hole_l1, hole_l2, known_l1: on the prediction, mean per hole (or known) pixel of each image.
    gradient: L1 between the gradients of the composite and the photograph, per hole pixel.
    pyramid: L1 of the composite at 1/2, 1/4, 1/8 and 1/16 of the size, per hole pixel.
    """

    hole_l1: float = 1.0
    hole_l2: float = 0.0
    known_l1: float = 0.1
    gradient: float = 0.0
    pyramid: float = 0.0


@dataclass(frozen=True)
class Phase:
    """A stretch of training. crop: pixels, a multiple of 8; batch: images of one step, over all workers.

    zoom: the crop's side in the photograph as multiples of crop.  lr_from, lr_to: a half cosine between both.
    """

    steps: int
    crop: int
    batch: int
    lr_from: float
    lr_to: float
    zoom: tuple[float, float] = (1.0, 2.0)
    loss: LossWeights = field(default_factory=LossWeights)


@dataclass(frozen=True)
class TrainRecipe:
    """All that decides the weights, beside the photographs.

    model: a key of LAMA.  masks: kind of MASKS -> chance; their sizes are for 256 px and scale with the crop.
    max_hole: share of the crop a hole may cover.  ema: decay of the averaged weights.
    clip: limit of the gradient's norm.  warmup: steps of linear warm-up at the very start.
    """

    model: str
    phases: tuple[Phase, ...]
    masks: tuple[tuple[str, float], ...]
    seed: int = 0
    max_hole: float = 0.55
    ema: float = 0.999
    clip: float = 1.0
    warmup: int = 100
    photo_short_side: int = 400
    source_power: float = 0.5
    validation_share: float = 0.05
    log_every: int = 10
    checkpoint_seconds: float = 150.0
    validate_every: int = 250

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def digest(self) -> str:
        """sha256 of every field."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def check_recipe(recipe: TrainRecipe, peers: Peers) -> None:
    """Raises ValueError, saying what to change, when the recipe cannot be trained."""
    if recipe.model not in LAMA:
        raise ValueError(f"model {recipe.model!r} is not one of {sorted(LAMA)}")
    unknown = [name for name, _ in recipe.masks if name not in MASKS]
    if unknown or not recipe.masks:
        raise ValueError(f"masks {unknown} are not among {sorted(MASKS)}; name at least one")
    if not recipe.phases:
        raise ValueError("the recipe has no phases")
    for number, phase in enumerate(recipe.phases):
        if phase.crop % 8 or phase.crop < 32:
            raise ValueError(f"phase {number}: crop {phase.crop} is not a multiple of 8 of at least 32")
        if phase.steps < 1 or phase.batch < 1:
            raise ValueError(f"phase {number}: steps and batch must be at least 1")
        if phase.batch % peers.world:
            raise ValueError(f"phase {number}: batch {phase.batch} cannot be dealt to {peers.world} workers")


def phase_at(recipe: TrainRecipe, step: int) -> tuple[int, Phase, int]:
    """(number, phase, step within it) of a step counted from 0."""
    start = 0
    for number, phase in enumerate(recipe.phases):
        if step < start + phase.steps:
            return number, phase, step - start
        start += phase.steps
    raise ValueError(f"step {step} is beyond the recipe's {recipe.steps}")


def learning_rate(recipe: TrainRecipe, step: int) -> float:
    """Linear warm-up at the start of the run, a half cosine from lr_from to lr_to in each phase."""
    _, phase, within = phase_at(recipe, step)
    done = within / max(1, phase.steps - 1)
    rate = phase.lr_to + (phase.lr_from - phase.lr_to) * (1 + math.cos(math.pi * done)) / 2
    return rate * min(1.0, (step + 1) / max(1, recipe.warmup))


def draw_batch(recipe: TrainRecipe, bank: PhotoBank, step: int, peers: Peers) -> tuple[Tensor, Tensor]:
    """This worker's share of a step: Bx3xHxW float32 RGB in [0, 1] and Bx1xHxW float32 masks, 1 = hole."""
    _, phase, _ = phase_at(recipe, step)
    chances = np.array([chance for _, chance in recipe.masks])
    crops: list[Image] = []
    masks: list[Mask] = []
    for place in range(peers.rank, phase.batch, peers.world):
        rng = np.random.default_rng([recipe.seed, step, place])
        crops.append(draw_crop(rng, bank, phase.crop, phase.zoom))
        name = recipe.masks[int(rng.choice(len(chances), p=chances / chances.sum()))][0]
        kind = scaled(MASKS[name], phase.crop / 256)
        masks.append(bounded_mask(rng, phase.crop, phase.crop, kind, recipe.max_hole))
    images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    return images, torch.from_numpy(np.stack(masks)).unsqueeze(1).float()


def _per_hole(error: Tensor, mask: Tensor) -> Tensor:
    """Mean over the hole's pixels of each image, then over images. error: BxCxHxW, mask: Bx1xHxW."""
    area = mask.sum(dim=(1, 2, 3)) * error.shape[1]
    return ((error * mask).sum(dim=(1, 2, 3)) / area.clamp_min(1.0)).mean()


def reconstruction_losses(
    predicted: Tensor, images: Tensor, masks: Tensor, weights: LossWeights
) -> dict[str, Tensor]:
    """The weighted parts of the loss. predicted, images: Bx3xHxW in [0, 1]; masks: Bx1xHxW, 1 = hole."""
    parts: dict[str, Tensor] = {}
    difference = predicted - images
    composite_error = difference * masks
    if weights.hole_l1:
        parts["hole_l1"] = weights.hole_l1 * _per_hole(difference.abs(), masks)
    if weights.hole_l2:
        parts["hole_l2"] = weights.hole_l2 * _per_hole(difference.square(), masks)
    if weights.known_l1:
        parts["known_l1"] = weights.known_l1 * _per_hole(difference.abs(), 1 - masks)
    if weights.gradient:
        # The gradient of (composite - photograph), which is zero off the hole, so a seam costs as well.
        area = (masks.sum(dim=(1, 2, 3)) * 3).clamp_min(1.0)
        dx = composite_error.diff(dim=3).abs().sum(dim=(1, 2, 3))
        dy = composite_error.diff(dim=2).abs().sum(dim=(1, 2, 3))
        parts["gradient"] = weights.gradient * ((dx + dy) / area).mean()
    if weights.pyramid:
        levels = []
        error, hole = composite_error, masks
        for _ in range(4):
            error, hole = F.avg_pool2d(error, 2), F.avg_pool2d(hole, 2)
            area = (hole.sum(dim=(1, 2, 3)) * 3).clamp_min(1.0)
            levels.append((error.abs().sum(dim=(1, 2, 3)) / area).mean())
        parts["pyramid"] = weights.pyramid * torch.stack(levels).mean()
    return parts


@torch.no_grad()
def update_average(average: dict[str, Tensor], model: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average of weights and batch-norm statistics; quicker while the run is young."""
    decay = min(decay, (1 + step) / (10 + step))
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            average[name].lerp_(tensor, 1 - decay)
        else:
            average[name].copy_(tensor)


@dataclass(frozen=True)
class Validation:
    """Fixed pairs: size x size x 3 uint8 RGB photographs and HW bool masks."""

    images: tuple[Image, ...]
    masks: tuple[Mask, ...]


def make_validation(images: Sequence[Image], size: int = 256, seed: int = 7) -> Validation:
    """Medium and thick masks in turn, the same on every call; sizes other than 256 scale the masks."""
    crops, masks = [], []
    for number, image in enumerate(images):
        rng = np.random.default_rng([seed, number])
        kind = scaled(MASKS["medium-256" if number % 2 else "thick-256"], size / 256)
        crops.append(evaluation_crop(image, size))
        masks.append(bounded_mask(rng, size, size, kind))
    return Validation(tuple(crops), tuple(masks))


def validate(model: nn.Module, validation: Validation) -> tuple[dict[str, float], list[Image]]:
    """({hole_psnr, psnr, ssim}: means over the images, the fills). The model is put into eval mode."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    fills: list[Image] = []
    for image, mask in zip(validation.images, validation.masks, strict=True):
        fills.append(inpaint_batch(model, image[None], mask[None], device=device)[0])
    model.train(was_training)
    rows = [
        (metrics.psnr(f, i, m), metrics.psnr(f, i), metrics.ssim(f, i))
        for f, i, m in zip(fills, validation.images, validation.masks, strict=True)
    ]
    hole_psnr, whole_psnr, similarity = np.mean(np.minimum(rows, 100.0), axis=0)
    return {"hole_psnr": float(hole_psnr), "psnr": float(whole_psnr), "ssim": float(similarity)}, fills


def save_samples(path: Path, validation: Validation, fills: Sequence[Image], count: int = 8) -> None:
    """A JPEG, one row per photograph: with the hole grey, filled, true."""
    rows = []
    for image, mask, fill in list(zip(validation.images, validation.masks, fills, strict=True))[:count]:
        holed = np.where(mask[..., None], np.uint8(127), image)
        rows.append(np.concatenate([holed, fill, image], axis=1))
    half = (len(rows) + 1) // 2
    rows += [np.zeros_like(rows[0])] * (2 * half - len(rows))
    sheet = np.concatenate([np.concatenate(rows[:half]), np.concatenate(rows[half:])], axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92]):
        raise OSError(f"cannot write {path}")


class Scalars:
    """A CSV that grows by a row; on resumption the rows after the checkpoint's step are dropped."""

    def __init__(self, path: Path, columns: Sequence[str], keep_until: int) -> None:
        self.path, self.columns = path, list(columns)
        kept: list[dict[str, str]] = []
        if path.exists():
            with path.open(newline="") as stream:
                kept = [row for row in csv.DictReader(stream) if int(row["step"]) <= keep_until]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, self.columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)

    def add(self, row: dict[str, Any]) -> None:
        with self.path.open("a", newline="") as stream:
            csv.DictWriter(stream, self.columns, restval="").writerow(row)


@dataclass
class _Run:
    """What a checkpoint holds, alive."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor]
    step: int = 0
    best: float = -math.inf
    recipes: list[str] = field(default_factory=list)


def _start(recipe: TrainRecipe, out_dir: Path, device: torch.device, allow_changed: bool) -> _Run:
    """A new run, or the one of out_dir's checkpoint. Raises CheckpointError when it is another training."""
    torch.manual_seed(recipe.seed)
    model = build_generator(LAMA[recipe.model]).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.phases[0].lr_from, betas=(0.9, 0.99))
    run = _Run(model, optimizer, {k: v.detach().clone() for k, v in model.state_dict().items()})
    state = load_checkpoint(out_dir)
    if state is None:
        run.recipes = [recipe.digest()]
        return run
    if state["recipes"][-1] != recipe.digest():
        if not allow_changed:
            raise CheckpointError(
                f"{out_dir} holds a training with another recipe; take another folder, or say that the "
                "recipe may change on the way"
            )
        state["recipes"].append(recipe.digest())
    try:
        model.load_state_dict(state["model"], strict=True)
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"the checkpoint in {out_dir} does not fit {recipe.model}: {error}") from error
    run.average = {k: v.to(device) for k, v in state["average"].items()}
    run.step, run.best, run.recipes = state["step"], state["best"], state["recipes"]
    log.info("going on from step %d of %s", run.step, out_dir)
    return run


def _save(run: _Run, out_dir: Path) -> None:
    save_checkpoint(
        out_dir,
        {
            "model": run.model.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "average": run.average,
            "step": run.step,
            "best": run.best,
            "recipes": run.recipes,
        },
    )


def _step(
    recipe: TrainRecipe, run: _Run, bank: PhotoBank, peers: Peers, device: torch.device
) -> dict[str, float]:
    """One optimiser step; the scalars to log. Raises TrainingDiverged before the weights are touched."""
    _, phase, _ = phase_at(recipe, run.step)
    images, masks = (t.to(device) for t in draw_batch(recipe, bank, run.step, peers))
    network_input = torch.cat([images * (1 - masks), masks], dim=1).contiguous(
        memory_format=torch.channels_last
    )
    predicted = run.model(network_input)
    parts = reconstruction_losses(predicted, images, masks, phase.loss)
    total = torch.stack(list(parts.values())).sum()
    run.optimizer.zero_grad(set_to_none=True)
    total.backward()
    gradients = [p.grad for p in run.model.parameters() if p.grad is not None]
    loss = total.detach().clone()
    peers.mean([*gradients, loss])
    norm = float(nn.utils.clip_grad_norm_(run.model.parameters(), recipe.clip))
    scalars = {"loss": float(loss), "grad_norm": norm, **{k: float(v.detach()) for k, v in parts.items()}}
    if not all(math.isfinite(v) for v in scalars.values()):
        raise TrainingDiverged(
            f"loss or gradient is not finite at step {run.step}: {scalars}; the last checkpoint is kept. "
            "Lower the learning rate, or go on from the checkpoint with another seed"
        )
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(recipe, run.step)
    run.optimizer.step()
    peers.mean([b for b in run.model.buffers() if b.is_floating_point()])
    update_average(run.average, run.model, recipe.ema, run.step)
    run.step += 1
    return scalars


def _judge(
    recipe: TrainRecipe, run: _Run, validation: Validation, out_dir: Path, judged: nn.Module
) -> dict[str, float]:
    """Validate the averaged weights; keep them as best.pt when they are the best so far."""
    judged.load_state_dict(run.average)
    scores, fills = validate(judged, validation)
    save_samples(out_dir / "samples" / f"{run.step:07d}.jpg", validation, fills)
    if scores["hole_psnr"] > run.best:
        run.best = scores["hole_psnr"]
        partial = out_dir / "best.partial"
        torch.save(
            {"average": run.average, "step": run.step, "scores": scores, "recipes": run.recipes}, partial
        )
        partial.replace(out_dir / "best.pt")
    log.info("step %d: %s", run.step, ", ".join(f"{k} {v:.3f}" for k, v in scores.items()))
    return scores


TRAIN_COLUMNS = ("step", "phase", "lr", "loss", "hole_l1", "hole_l2", "known_l1", "gradient", "pyramid")
TRAIN_COLUMNS = (*TRAIN_COLUMNS, "grad_norm", "images_per_s", "unix_time")
SCORE_COLUMNS = ("step", "hole_psnr", "psnr", "ssim", "unix_time")


def train(
    recipe: TrainRecipe,
    bank: PhotoBank,
    validation: Validation,
    out_dir: Path,
    *,
    peers: Peers | None = None,
    device: str | torch.device = "cpu",
    allow_changed_recipe: bool = False,
    stop_after: int | None = None,
) -> dict[str, Tensor]:
    """Train to the recipe's end, or to step stop_after; gives the averaged weights.

    out_dir gets last.pt (every checkpoint_seconds and at the end), best.pt (the averaged weights with the best
    validation hole PSNR), train.csv, validation.csv and samples/*.jpg, all written by rank 0. The same call goes
    on from last.pt. Raises ValueError for a recipe that cannot be trained, CheckpointError for a checkpoint of
    another training, TrainingDiverged when a loss is not finite.
    """
    peers = peers or current_peers()
    device = torch.device(device)
    check_recipe(recipe, peers)
    run = _start(recipe, out_dir, device, allow_changed_recipe)
    judged = build_generator(LAMA[recipe.model]).to(device, memory_format=torch.channels_last)
    writes = peers.rank == 0
    if writes:
        train_log = Scalars(out_dir / "train.csv", TRAIN_COLUMNS, run.step)
        score_log = Scalars(out_dir / "validation.csv", SCORE_COLUMNS, run.step)
    run.model.train()
    saved = logged = time.monotonic()
    images_seen = 0
    end = min(recipe.steps, stop_after or recipe.steps)
    while run.step < end:
        number, phase, _ = phase_at(recipe, run.step)
        rate = learning_rate(recipe, run.step)
        scalars = _step(recipe, run, bank, peers, device)
        images_seen += phase.batch
        if not writes:
            continue
        if run.step % recipe.log_every == 0:
            speed = images_seen / (time.monotonic() - logged)
            row = {"step": run.step, "phase": number, "lr": rate, "images_per_s": round(speed, 2)}
            train_log.add({**row, **scalars, "unix_time": round(time.time(), 1)})
            images_seen, logged = 0, time.monotonic()
        if run.step % recipe.validate_every == 0 or run.step == end:
            scores = _judge(recipe, run, validation, out_dir, judged)
            score_log.add({"step": run.step, **scores, "unix_time": round(time.time(), 1)})
            images_seen, logged = 0, time.monotonic()
        if time.monotonic() - saved > recipe.checkpoint_seconds or run.step == end:
            _save(run, out_dir)
            saved = time.monotonic()
    return run.average
