"""What the trainings of our own finders share: a run that a checkpoint holds, its steps, and what is left on disk."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from cleanplate.models.devices import bf16_is_native
from cleanplate.models.training.checkpoint import recipes_of, restore, save_checkpoint, write_whole
from cleanplate.models.training.lama.loop import TrainingDiverged
from cleanplate.models.training.lama.state import Initial, first_average, update_average, warmed
from cleanplate.models.training.muon import KernelsAndRest
from cleanplate.models.training.scalars import Scalars

N = TypeVar("N", bound=nn.Module)


class Recipe(Protocol):
    """What a recipe must say."""

    @property
    def seed(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def warmup(self) -> int: ...
    @property
    def decay(self) -> float: ...
    @property
    def batch(self) -> int: ...
    @property
    def lr(self) -> float: ...
    @property
    def muon_ratio(self) -> float: ...
    @property
    def ema(self) -> float: ...
    @property
    def clip(self) -> float: ...
    @property
    def log_every(self) -> int: ...
    @property
    def validate_every(self) -> int: ...
    @property
    def checkpoint_seconds(self) -> float: ...
    def digest(self) -> str: ...


def learning_rate(recipe: Recipe, step: int) -> float:
    """Warm-up, level, half cosine to nothing."""
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    start = recipe.steps * (1 - recipe.decay)
    share = min(1.0, max(0.0, (step - start) / max(1.0, recipe.steps - start)))
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * share))


class Run(Generic[N]):
    """What a checkpoint holds, alive."""

    def __init__(
        self, recipe: Recipe, build: Callable[[], N], model: str, device: torch.device, log: logging.Logger
    ) -> None:
        """model: its name in messages."""
        torch.manual_seed(recipe.seed)
        self.recipe, self.model, self.device, self.log = recipe, model, device, log
        self.net = build().to(device)
        # Where it is not in hardware a step in bf16 takes several times as long as one in fp32.
        self.bf16 = bf16_is_native(device)
        self.optimizer = KernelsAndRest(self.net, recipe.lr, (0.9, 0.99), recipe.muon_ratio, self.bf16)
        self.average = first_average(self.net)
        self.step, self.best, self.initial = 0, -math.inf, ""
        self.recipes = [recipe.digest()]

    def warm(self, initial: Initial) -> None:
        self.average = warmed(self.net, initial, f"those of {self.model}")
        self.initial = initial.sha256

    def state(self) -> dict[str, Any]:
        names = ("average", "step", "best", "recipes", "initial")
        parts = {"model": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}
        return {**parts, **{name: getattr(self, name) for name in names}}

    def restore(self, state: dict[str, Any], required: Any, allow_changed: bool, where: Path) -> None:
        """required: as `checkpoint.recipes_of` takes it."""
        recipes = recipes_of(state, required, self.recipe.digest(), where, allow_changed=allow_changed)
        restore({"model": self.net, "optimizer": self.optimizer}, state, where, self.model)
        self.average = {name: tensor.to(self.device) for name, tensor in state["average"].items()}
        self.step, self.best, self.recipes = state["step"], state["best"], recipes
        self.initial = state.get("initial", "")
        self.log.info("going on from step %d of %s", self.step, where)

    def stepped(self, parts: dict[str, Tensor], rate: float) -> dict[str, float]:
        """One step of the optimizer, whose rate is set, on the sum of the parts of a loss; gives what is logged.
        Raises TrainingDiverged."""
        loss = torch.stack(list(parts.values())).sum()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip))
        if not (math.isfinite(float(loss.detach())) and math.isfinite(norm)):
            raise TrainingDiverged(
                f"loss or gradient is not finite at step {self.step}; the last checkpoint is kept. Lower the "
                "learning rate, or go on from the checkpoint with another seed"
            )
        self.optimizer.step()
        update_average(self.average, self.net, self.recipe.ema, self.step)
        self.step += 1
        values = {name: float(part.detach()) for name, part in parts.items()}
        return {"loss": float(loss.detach()), **values, "grad_norm": norm, "lr": rate}


class Writer(Generic[N]):
    """What is left on disk while a run goes on."""

    def __init__(
        self,
        run: Run[N],
        judge: Callable[[Path], dict[str, float]],
        judged: N,
        columns: tuple[Sequence[str], Sequence[str]],
        out_dir: Path,
        saved: Callable[[Path], None],
    ) -> None:
        """judge: draws `judged`, which then has the averaged weights, as a picture at the path, and gives its scores,
        "score" among them. columns: of train.csv and of validation.csv."""
        self.run, self.judge, self.judged, self.out_dir, self.saved = run, judge, judged, out_dir, saved
        self.scalars = Scalars(out_dir / "train.csv", columns[0], run.step)
        self.scores = Scalars(out_dir / "validation.csv", columns[1], run.step)
        self.saved_at = self.logged_at = time.monotonic()

    def after_step(self, values: dict[str, float], *, last: bool) -> None:
        recipe, step, now = self.run.recipe, self.run.step, round(time.time(), 1)
        if step % recipe.log_every == 0:
            seconds = time.monotonic() - self.logged_at
            speed = round(recipe.log_every * recipe.batch / seconds, 2)
            self.scalars.add({"step": step, **values, "images_per_s": speed, "unix_time": now})
            self.logged_at = time.monotonic()
        if step % recipe.validate_every == 0 or last:
            self.scores.add({"step": step, **self._validate(), "unix_time": now})
        if time.monotonic() - self.saved_at > recipe.checkpoint_seconds or last:
            self.saved(save_checkpoint(self.out_dir, self.run.state()))
            for table in (self.scalars, self.scores):
                self.saved(table.path)
            self.saved_at = time.monotonic()

    def _validate(self) -> dict[str, float]:
        """Judge the averaged weights; keep them as best.pt when they are the best so far."""
        run = self.run
        self.judged.load_state_dict(run.average)
        path = self.out_dir / "samples" / f"{run.step:07d}.jpg"
        scores = self.judge(path)
        self.saved(path)
        if scores["score"] > run.best:
            run.best = scores["score"]
            facts = {"step": run.step, "scores": scores, "recipes": run.recipes, "initial": run.initial}
            write_whole(self.out_dir / "best.pt", {"average": run.average, **facts})
            self.saved(self.out_dir / "best.pt")
        run.log.info(
            "step %d: %s", run.step, ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
        )
        return scores
