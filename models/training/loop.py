"""The training loop: the same for one process and for several.

Everything random at a step (photographs, crops, masks) follows from (seed, step, place in the batch), so a
run that is stopped and taken up again sees what an uninterrupted one sees, and so do several workers.
"""

from __future__ import annotations

import csv
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.discriminator import NLayerDiscriminator
from models.lama import LAMA, LamaGenerator, Predict, build_generator
from models.prefill import prefilled
from models.regions import Image, Mask
from models.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint, write_whole
from models.training.data import PhotoBank, draw_crop
from models.training.masks import MASKS, bounded_mask, scaled
from models.training.muon import AdamOnly, KernelsAndRest, Optimizer
from models.training.objective import Encoder, discriminator_losses, fill_losses, paper_losses
from models.training.peers import Peers, current_peers
from models.training.precision import available_precision, in_precision
from models.training.recipe import Phase, TrainRecipe, check_recipe, learning_rate, phase_at
from models.training.validation import Validation, save_samples, validate

log = logging.getLogger(__name__)

TRAIN_COLUMNS = (
    *("step", "phase", "lr", "loss", "hole_l1", "hole_l2", "known_l1", "gradient", "pyramid"),
    *("l1", "adversarial", "feature_matching", "perceptual", "perceptual_substitute"),
    *("d_adversarial", "d_r1", "grad_norm", "images_per_s", "unix_time"),
)
SCORE_COLUMNS = ("step", "hole_psnr", "psnr", "ssim", "unix_time")


@dataclass(frozen=True)
class Initial:
    """Weights that a new training starts from, and the sha256 of their file, kept in every checkpoint."""

    sha256: str
    tensors: Mapping[str, Tensor]


class TrainingDiverged(Exception):
    """A loss or a gradient is not finite. The last checkpoint is from before and is kept."""


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


@torch.no_grad()
def update_average(average: dict[str, Tensor], model: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average of weights and batch-norm statistics; quicker while the run is young."""
    decay = min(decay, (1 + step) / (10 + step))
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            average[name].lerp_(tensor, 1 - decay)
        else:
            average[name].copy_(tensor)


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

    model: LamaGenerator
    optimizer: Optimizer
    discriminator: nn.Module | None
    discriminator_optimizer: Optimizer | None
    average: dict[str, Tensor]
    step: int = 0
    best: float = -math.inf
    initial: str = ""
    recipes: list[str] = field(default_factory=list)
    substitutes: list[str] = field(default_factory=list)

    def parts(self) -> dict[str, Any]:
        """What has a state to save and load, by its name in the checkpoint."""
        found = {
            "model": self.model,
            "optimizer": self.optimizer,
            "discriminator": self.discriminator,
            "discriminator_optimizer": self.discriminator_optimizer,
        }
        return {name: part for name, part in found.items() if part is not None}


def generator_of(recipe: TrainRecipe, device: torch.device) -> LamaGenerator:
    """The recipe's generator with seeded random weights.

    Residual branches start small, so that what a block is given is not drowned by the noise of all branches
    (as zero-init residual, Goyal et al. 2017; not zero, for the ReLU behind would never wake). One that
    corrects a prefill starts near no correction: its last layer is scaled down.
    """
    torch.manual_seed(recipe.seed)
    model = build_generator(LAMA[recipe.model])
    for name, parameter in model.named_parameters():
        if ".conv2.bn_" in name and name.endswith("weight"):
            nn.init.constant_(parameter, recipe.branch_gain)
    if recipe.prefill:
        last = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)][-1]
        with torch.no_grad():
            last.weight.mul_(0.1)
            if last.bias is not None:
                last.bias.zero_()
    return model.to(device=device).to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def predictor(recipe: TrainRecipe, model: nn.Module) -> Predict:
    """The model as it is trained and used: with the recipe's prefill, if it has one."""
    return prefilled(model) if recipe.prefill else model


def _new_run(recipe: TrainRecipe, device: torch.device) -> _Run:
    model = generator_of(recipe, device)
    lr = recipe.phases[0].lr_from
    optimizer: Optimizer = AdamOnly(model, lr, recipe.betas)
    if recipe.muon_ratio:
        optimizer = KernelsAndRest(model, lr, recipe.betas, recipe.muon_ratio)
    discriminator = discriminator_optimizer = None
    if any(phase.adversarial for phase in recipe.phases):
        discriminator = NLayerDiscriminator(recipe.ndf).to(device)
        discriminator_optimizer = AdamOnly(discriminator, recipe.discriminator_lr, recipe.betas)
    average = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return _Run(model, optimizer, discriminator, discriminator_optimizer, average, recipes=[recipe.digest()])


def _warm(run: _Run, initial: Initial) -> None:
    """Put initial weights into a new run. Raises ValueError when they are another model's."""
    try:
        run.model.load_state_dict(initial.tensors)
    except RuntimeError as error:
        raise ValueError(f"the initial weights are not the recipe's model's: {error}") from error
    run.average = {name: tensor.detach().clone() for name, tensor in run.model.state_dict().items()}
    run.initial = initial.sha256


def _start(
    recipe: TrainRecipe, out_dir: Path, device: torch.device, allow_changed: bool, initial: Initial | None
) -> _Run:
    """A new run, or the one of out_dir's checkpoint. Raises CheckpointError when it is another training."""
    run = _new_run(recipe, device)
    state = load_checkpoint(out_dir)
    if state is None:
        if initial is not None:
            _warm(run, initial)
        return run
    if state["recipes"][-1] != recipe.digest():
        if not allow_changed:
            raise CheckpointError(
                f"{out_dir} holds a training with another recipe; take another folder, or say that the "
                "recipe may change on the way"
            )
        state["recipes"].append(recipe.digest())
    for name, part in run.parts().items():
        if name not in state:
            log.warning("the checkpoint has no %s: it starts new", name)
            continue
        try:
            part.load_state_dict(state[name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"the checkpoint in {out_dir} does not fit {recipe.model} ({name}): {error}"
            ) from error
    run.average = {name: tensor.to(device) for name, tensor in state["average"].items()}
    run.step, run.best, run.recipes = state["step"], state["best"], state["recipes"]
    run.substitutes, run.initial = state["substitutes"], state.get("initial", "")
    log.info("going on from step %d of %s", run.step, out_dir)
    return run


def _save(run: _Run, out_dir: Path) -> None:
    facts = {"step": run.step, "best": run.best, "recipes": run.recipes, "initial": run.initial}
    facts |= {"substitutes": run.substitutes}
    states = {name: part.state_dict() for name, part in run.parts().items()}
    save_checkpoint(out_dir, {**states, **facts, "average": run.average})


def _descend(
    optimizer: Optimizer,
    module: nn.Module,
    parts: dict[str, Tensor],
    peers: Peers,
    clip: float,
    step: int,
) -> tuple[float, float]:
    """One step down the sum of the parts: (loss, gradient norm). Raises TrainingDiverged before the step."""
    total = torch.stack(list(parts.values())).sum()
    optimizer.zero_grad()
    total.backward()  # type: ignore[no-untyped-call]
    loss = total.detach().clone()
    peers.mean([*(p.grad for p in module.parameters() if p.grad is not None), loss])
    norm = float(nn.utils.clip_grad_norm_(module.parameters(), clip))
    if not (math.isfinite(float(loss)) and math.isfinite(norm)):
        shown = ", ".join(f"{name} {float(part.detach()):.4g}" for name, part in parts.items())
        raise TrainingDiverged(
            f"loss or gradient is not finite at step {step} (gradient {norm:.4g}; {shown}); the last "
            "checkpoint is kept. Lower the learning rate, or go on from the checkpoint with another seed"
        )
    optimizer.step()
    peers.mean([b for b in module.buffers() if b.is_floating_point()])
    return float(loss), norm


def _step(
    recipe: TrainRecipe, run: _Run, bank: PhotoBank, peers: Peers, encoder: Encoder | None
) -> dict[str, float]:
    """One step of the generator, and of the discriminator on the same prediction; the scalars to log."""
    _, phase, _ = phase_at(recipe, run.step)
    device = next(run.model.parameters()).device
    images, masks = (tensor.to(device) for tensor in draw_batch(recipe, bank, run.step, peers))
    seen = torch.cat([images * (1 - masks), masks], dim=1).contiguous(memory_format=torch.channels_last)
    precision = available_precision(recipe.precision, device)
    predicted = in_precision(predictor(recipe, run.model), precision)(seen)
    parts = fill_losses(predicted, images, masks, phase.fill)
    adversary = run.discriminator if phase.adversarial else None
    judge = None if adversary is None else in_precision(adversary, precision)
    shown = torch.lerp(images, predicted, masks) if phase.composite else predicted
    if phase.paper is not None:
        parts |= paper_losses(shown, images, masks, phase.paper, judge, encoder)
    run.optimizer.set_lr(learning_rate(recipe, run.step))
    loss, norm = _descend(run.optimizer, run.model, parts, peers, recipe.clip, run.step)
    update_average(run.average, run.model, recipe.ema, run.step)
    if adversary is not None and judge is not None and phase.paper is not None:
        assert run.discriminator_optimizer is not None
        d_parts = discriminator_losses(judge, shown, images, masks, phase.paper.r1)
        _descend(run.discriminator_optimizer, adversary, d_parts, peers, recipe.clip, run.step)
        parts |= d_parts
    run.step += 1
    return {"loss": loss, "grad_norm": norm, **{k: float(v.detach()) for k, v in parts.items()}}


def _judge(
    recipe: TrainRecipe, run: _Run, validation: Validation, out_dir: Path, judged: nn.Module
) -> dict[str, float]:
    """Validate the averaged weights; keep them as best.pt when they are the best so far."""
    judged.load_state_dict(run.average)
    scores, fills = validate(judged, predictor(recipe, judged), validation)
    save_samples(out_dir / "samples" / f"{run.step:07d}.jpg", validation, fills)
    if scores["hole_psnr"] > run.best:
        run.best = scores["hole_psnr"]
        facts = {"step": run.step, "scores": scores, "recipes": run.recipes, "initial": run.initial}
        write_whole(out_dir / "best.pt", {"average": run.average, **facts})
    log.info("step %d: %s", run.step, ", ".join(f"{name} {score:.3f}" for name, score in scores.items()))
    return scores


def _say_substitutes(recipe: TrainRecipe, run: _Run, encoder: Encoder | None) -> None:
    wanted = any(phase.paper is not None and phase.paper.perceptual > 0 for phase in recipe.phases)
    if wanted and encoder is None:
        log.warning("no encoder weights: the perceptual loss is replaced by L1 and gradients in the hole")
        if "perceptual" not in run.substitutes:
            run.substitutes.append("perceptual")


def train(
    recipe: TrainRecipe,
    bank: PhotoBank,
    validation: Validation,
    out_dir: Path,
    *,
    encoder: Encoder | None = None,
    initial: Initial | None = None,
    peers: Peers | None = None,
    device: str | torch.device = "cpu",
    allow_changed_recipe: bool = False,
    stop_after: int | None = None,
) -> dict[str, Tensor]:
    """Train to the recipe's end, or to step stop_after; gives the averaged weights.

    out_dir gets last.pt (every checkpoint_seconds and at the end), best.pt (the averaged weights with the
    best validation hole PSNR), train.csv, validation.csv and samples/*.jpg, all written by rank 0. The same
    call goes on from last.pt. encoder: for the paper's perceptual loss, on `device`, in eval mode; without it
    a substitute is trained, which the log and the checkpoint say. initial: where a new training starts from;
    one that goes on does not read it.

    Raises ValueError for a recipe that cannot be trained, CheckpointError for a checkpoint of another
    training, TrainingDiverged when a loss is not finite.
    """
    peers = peers or current_peers()
    device = torch.device(device)
    check_recipe(recipe, peers.world)
    run = _start(recipe, out_dir, device, allow_changed_recipe, initial)
    _say_substitutes(recipe, run, encoder)
    run.model.train()
    writer = _Writer(recipe, run, validation, out_dir) if peers.rank == 0 else None
    end = min(recipe.steps, stop_after or recipe.steps)
    while run.step < end:
        number, phase, _ = phase_at(recipe, run.step)
        rate = learning_rate(recipe, run.step)
        scalars = _step(recipe, run, bank, peers, encoder)
        if writer is not None:
            writer.after_step(number, phase, {"lr": rate, **scalars}, last=run.step == end)
    return run.average


class _Writer:
    """What rank 0 leaves on disk while the run goes on."""

    def __init__(self, recipe: TrainRecipe, run: _Run, validation: Validation, out_dir: Path) -> None:
        self.recipe, self.run, self.validation, self.out_dir = recipe, run, validation, out_dir
        self.scalars = Scalars(out_dir / "train.csv", TRAIN_COLUMNS, run.step)
        self.scores = Scalars(out_dir / "validation.csv", SCORE_COLUMNS, run.step)
        self.judged = generator_of(recipe, next(run.model.parameters()).device)
        self.images_seen = 0
        self.saved_at = self.logged_at = time.monotonic()

    def after_step(self, number: int, phase: Phase, scalars: dict[str, float], *, last: bool) -> None:
        step, now = self.run.step, round(time.time(), 1)
        self.images_seen += phase.batch
        if step % self.recipe.log_every == 0:
            speed = round(self.images_seen / (time.monotonic() - self.logged_at), 2)
            row = {"step": step, "phase": number, "images_per_s": speed, "unix_time": now}
            self.scalars.add({**row, **scalars})
            self.images_seen, self.logged_at = 0, time.monotonic()
        if step % self.recipe.validate_every == 0 or last:
            scores = _judge(self.recipe, self.run, self.validation, self.out_dir, self.judged)
            self.scores.add({"step": step, **scores, "unix_time": now})
            self.images_seen, self.logged_at = 0, time.monotonic()
        if time.monotonic() - self.saved_at > self.recipe.checkpoint_seconds or last:
            _save(self.run, self.out_dir)
            self.saved_at = time.monotonic()
