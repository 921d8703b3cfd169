"""The training loop: the same for one process and for several.

Everything random at a step (photographs, crops, masks) follows from (seed, step, place in the batch), so a
run that is stopped and taken up again sees what an uninterrupted one sees, and so do several workers.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cleanplate.models.devices import bf16_is_native
from cleanplate.models.training.checkpoint import write_whole
from cleanplate.models.training.data import PhotoBank
from cleanplate.models.training.lama.batches import Batch, Batches
from cleanplate.models.training.lama.objective import Encoder, discriminator_losses, fill_losses, paper_losses
from cleanplate.models.training.lama.peers import Peers, current_peers
from cleanplate.models.training.lama.precision import Native, available_precision, in_precision
from cleanplate.models.training.lama.recipe import Phase, TrainRecipe, check_recipe, learning_rate, phase_at
from cleanplate.models.training.lama.state import (
    Initial,
    Run,
    generator_of,
    predictor,
    save,
    start,
    update_average,
)
from cleanplate.models.training.lama.validation import Validation, save_samples, validate
from cleanplate.models.training.muon import Optimizer
from cleanplate.models.training.scalars import Scalars
from cleanplate.models.types import CleanplateError

log = logging.getLogger(__name__)

TRAIN_COLUMNS = (
    *("step", "phase", "lr", "loss", "hole_l1", "hole_l2", "known_l1", "gradient", "pyramid", "flip"),
    *("weave", "l1", "adversarial", "feature_matching", "perceptual", "perceptual_substitute"),
    *("d_adversarial", "d_r1", "grad_norm", "images_per_s", "unix_time"),
)
SCORE_COLUMNS = ("step", "hole_psnr", "psnr", "ssim", "flip", "texture", "perceptual", "unix_time")


PROGRESS_S = 30.0
"""Seconds between two lines of progress in the log."""

Saved = Callable[[Path], None]
"""Called with every file that rank 0 has just written, to bring it elsewhere."""


@dataclass(frozen=True)
class Extras:
    """What a run may have beside its recipe; none of it changes the weights but encoder and initial.

    encoder: for the paper's perceptual loss, on the run's device, in eval mode.  initial: where a new
    training starts from.  loaders: threads that draw batches ahead.  tensorboard: also write event files.
    """

    encoder: Encoder | None = None
    initial: Initial | None = None
    loaders: int = 0
    tensorboard: bool = False
    saved: Saved | None = None


class TrainingDiverged(CleanplateError):
    """A loss or a gradient is not finite. The last checkpoint is from before and is kept."""


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
    recipe: TrainRecipe, run: Run, batch: Batch, peers: Peers, encoder: Encoder | None
) -> dict[str, float]:
    """One step of the generator, and of the discriminator on the same prediction; the scalars to log."""
    _, phase, _ = phase_at(recipe, run.step)
    device = next(run.model.parameters()).device
    images, masks = (tensor.to(device) for tensor in batch)
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
    recipe: TrainRecipe,
    run: Run,
    validation: Validation,
    out_dir: Path,
    judged: nn.Module,
    encoder: Encoder | None,
) -> dict[str, float]:
    """Validate the averaged weights; keep them as best.pt when they are the best so far."""
    judged.load_state_dict(run.average)
    scores, fills = validate(judged, predictor(recipe, judged), validation, encoder)
    save_samples(out_dir / "samples" / f"{run.step:07d}.jpg", validation, fills)
    score = scores[recipe.best_by] * (1 if recipe.best_by == "hole_psnr" else -1)
    if score > run.best:
        run.best, run.best_step = score, run.step
        facts = {"step": run.step, "scores": scores, "recipes": run.recipes, "initial": run.initial}
        write_whole(out_dir / "best.pt", {"average": run.average, **facts})
    log.info("step %d: %s", run.step, ", ".join(f"{name} {score:.3f}" for name, score in scores.items()))
    return scores


def _in_precision_of(recipe: TrainRecipe, model: nn.Module, encoder: Encoder | None) -> Encoder | None:
    """The encoder multiplying as the generator does."""
    device = next(model.parameters()).device
    return None if encoder is None else in_precision(encoder, available_precision(recipe.precision, device))


def say_substitutes(
    recipe: TrainRecipe, run: Run, encoder: Encoder | None, native: Native = bf16_is_native
) -> None:
    """What the recipe asks for and is not to be had here: in the log, and in every checkpoint from here on."""
    device = next(run.model.parameters()).device
    if available_precision(recipe.precision, device, native) != recipe.precision:
        log.warning("this %s does not multiply %s: training in fp32", device.type, recipe.precision)
        if recipe.precision not in run.substitutes:
            run.substitutes.append(recipe.precision)
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
    extras: Extras | None = None,
    peers: Peers | None = None,
    device: str | torch.device = "cpu",
    allow_changed_recipe: bool = False,
    stop_after: int | None = None,
) -> dict[str, Tensor]:
    """Train to the recipe's end, or to step stop_after; gives the averaged weights.

    out_dir gets last.pt (every checkpoint_seconds and at the end), best.pt (the averaged weights with the
    best validation score), train.csv, validation.csv and samples/*.jpg, all written by rank 0. The same call
    goes on from last.pt, and does not read extras.initial then. Without extras.encoder a substitute of the
    paper's perceptual loss is trained, which the log and the checkpoint say; likewise fp32 where the device
    has no bf16.

    Raises ValueError for a recipe that cannot be trained, CheckpointError for a checkpoint of another
    training, TrainingDiverged when a loss is not finite.
    """
    extras, peers = extras or Extras(), peers or current_peers()
    device = torch.device(device)
    check_recipe(recipe, peers.world)
    if recipe.best_by == "perceptual" and extras.encoder is None:
        raise ValueError("best_by: perceptual needs an encoder: --encoder, or another best_by")
    run = start(recipe, out_dir, device, allow_changed_recipe, extras.initial)
    say_substitutes(recipe, run, extras.encoder)
    encoder = _in_precision_of(recipe, run.model, extras.encoder)
    run.model.train()
    writer = _Writer(recipe, run, validation, out_dir, extras) if peers.rank == 0 else None
    end = min(recipe.steps, stop_after or recipe.steps)
    with Batches(recipe, bank, peers, extras.loaders) as batches:
        while run.step < end:
            number, phase, _ = phase_at(recipe, run.step)
            rate = learning_rate(recipe, run.step)
            scalars = _step(recipe, run, batches.at(run.step), peers, encoder)
            if writer is not None:
                writer.after_step(number, phase, {"lr": rate, **scalars}, last=run.step == end)
    if writer is not None:
        writer.scalars.close()
        writer.scores.close()
    return run.average


class _Writer:
    """What rank 0 leaves on disk while the run goes on."""

    def __init__(
        self, recipe: TrainRecipe, run: Run, validation: Validation, out_dir: Path, extras: Extras
    ) -> None:
        self.recipe, self.run, self.validation, self.out_dir = recipe, run, validation, out_dir
        board = out_dir / "tensorboard" if extras.tensorboard else None
        self.scalars = Scalars(out_dir / "train.csv", TRAIN_COLUMNS, run.step, board)
        self.scores = Scalars(out_dir / "validation.csv", SCORE_COLUMNS, run.step, board)
        self.judged = generator_of(recipe, next(run.model.parameters()).device)
        self.encoder = _in_precision_of(recipe, self.judged, extras.encoder)
        self.saved = extras.saved or (lambda path: None)
        self.images_seen = 0
        self.saved_at = self.logged_at = time.monotonic()
        self.shown_at, self.shown_step = -math.inf, run.step

    def after_step(self, number: int, phase: Phase, scalars: dict[str, float], *, last: bool) -> None:
        step, now = self.run.step, round(time.time(), 1)
        self.images_seen += phase.batch
        if step % self.recipe.log_every == 0:
            speed = round(self.images_seen / (time.monotonic() - self.logged_at), 2)
            row = {"step": step, "phase": number, "images_per_s": speed, "unix_time": now}
            self.scalars.add({**row, **scalars})
            self._say(number, scalars, speed)
            self.images_seen, self.logged_at = 0, time.monotonic()
        if step % self.recipe.validate_every == 0 or last:
            scores = _judge(self.recipe, self.run, self.validation, self.out_dir, self.judged, self.encoder)
            self.scores.add({"step": step, **scores, "unix_time": now})
            self.saved(self.out_dir / "samples" / f"{step:07d}.jpg")
            if self.run.best_step == step:
                self.saved(self.out_dir / "best.pt")
            self.images_seen, self.logged_at = 0, time.monotonic()
        if time.monotonic() - self.saved_at > self.recipe.checkpoint_seconds or last:
            self.saved(save(self.run, self.out_dir))
            for table in (self.scalars, self.scores):
                self.saved(table.path)
            self.saved_at = time.monotonic()

    def _say(self, number: int, scalars: dict[str, float], speed: float) -> None:
        """A line of progress, now and then."""
        now, step = time.monotonic(), self.run.step
        if now - self.shown_at < PROGRESS_S:
            return
        left = ""
        if math.isfinite(self.shown_at):
            seconds = (now - self.shown_at) / (step - self.shown_step) * (self.recipe.steps - step)
            left = f", {seconds / 60:.0f} min left"
        parts = ", ".join(f"{name} {scalars[name]:.3g}" for name in ("loss", "grad_norm", "lr"))
        log.info(
            "step %d of %d, phase %d: %s, %g images/s%s",
            *(step, self.recipe.steps, number, parts, speed, left),
        )
        self.shown_at, self.shown_step = now, step
