"""What a training holds: the networks, their optimisers, the averaged weights; from and to its checkpoint."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cleanplate.models.lama.discriminator import NLayerDiscriminator
from cleanplate.models.lama.generator import LamaGenerator, Predict, build_generator
from cleanplate.models.lama.prefill import prefilled
from cleanplate.models.training.checkpoint import load_checkpoint, recipes_of, restore, save_checkpoint
from cleanplate.models.training.lama.recipe import TrainRecipe
from cleanplate.models.training.muon import AdamOnly, KernelsAndRest, Optimizer

log = logging.getLogger(__name__)

REQUIRED = {"model", "optimizer", "average", "step", "best", "recipes", "substitutes"}
"""What every checkpoint has; one without an adversarial phase has no discriminator."""


@dataclass(frozen=True)
class Initial:
    """Weights that a new training starts from, and the sha256 of their file, kept in every checkpoint."""

    sha256: str
    tensors: Mapping[str, Tensor]


@dataclass
class Run:
    """What a checkpoint holds, alive."""

    model: LamaGenerator
    optimizer: Optimizer
    discriminator: nn.Module | None
    discriminator_optimizer: Optimizer | None
    average: dict[str, Tensor]
    step: int = 0
    best: float = -math.inf
    best_step: int = -1
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
    model = build_generator(recipe.params)
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


def _new_run(recipe: TrainRecipe, device: torch.device) -> Run:
    model = generator_of(recipe, device)
    lr = recipe.phases[0].lr_from
    optimizer: Optimizer = AdamOnly(model, lr, recipe.betas)
    if recipe.muon_ratio:
        optimizer = KernelsAndRest(model, lr, recipe.betas, recipe.muon_ratio)
    discriminator = discriminator_optimizer = None
    if any(phase.adversarial for phase in recipe.phases):
        discriminator = NLayerDiscriminator(recipe.ndf).to(device)
        discriminator_optimizer = AdamOnly(discriminator, recipe.discriminator_lr, recipe.betas)
    average = first_average(model)
    return Run(model, optimizer, discriminator, discriminator_optimizer, average, recipes=[recipe.digest()])


def warmed(model: nn.Module, initial: Initial, whose: str) -> dict[str, Tensor]:
    """Put initial weights into a new run's model; gives its average. Raises ValueError when they are not `whose`."""
    try:
        model.load_state_dict(initial.tensors)
    except RuntimeError as error:
        raise ValueError(f"the initial weights are not {whose}: {error}") from error
    return first_average(model)


def first_average(model: nn.Module) -> dict[str, Tensor]:
    """The averaged weights of a run that has not begun: a copy of the model's."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def start(
    recipe: TrainRecipe, out_dir: Path, device: torch.device, allow_changed: bool, initial: Initial | None
) -> Run:
    """A new run, or the one of out_dir's checkpoint. Raises CheckpointError when it is another training."""
    run = _new_run(recipe, device)
    state = load_checkpoint(out_dir)
    if state is None:
        if initial is not None:
            run.average = warmed(run.model, initial, "the recipe's model's")
            run.initial = initial.sha256
        return run
    recipes = recipes_of(state, REQUIRED, recipe.digest(), out_dir, allow_changed=allow_changed)
    parts = run.parts()
    for name in sorted(set(parts) - set(state)):  # a discriminator, where an earlier recipe had none
        log.warning("the checkpoint has no %s: it starts new", name)
        del parts[name]
    restore(parts, state, out_dir, recipe.model)
    run.average = {name: tensor.to(device) for name, tensor in state["average"].items()}
    run.step, run.best, run.recipes = state["step"], state["best"], recipes
    run.substitutes, run.initial = state["substitutes"], state.get("initial", "")
    log.info("going on from step %d of %s", run.step, out_dir)
    return run


def save(run: Run, out_dir: Path) -> Path:
    """Write the run's checkpoint; gives its path."""
    facts = {"step": run.step, "best": run.best, "recipes": run.recipes, "initial": run.initial}
    facts |= {"substitutes": run.substitutes}
    states = {name: part.state_dict() for name, part in run.parts().items()}
    return save_checkpoint(out_dir, {**states, **facts, "average": run.average})


@torch.no_grad()
def update_average(average: dict[str, Tensor], model: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average of weights and batch-norm statistics; quicker while the run is young."""
    decay = min(decay, (1 + step) / (10 + step))
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            average[name].lerp_(tensor, 1 - decay)
        else:
            average[name].copy_(tensor)
