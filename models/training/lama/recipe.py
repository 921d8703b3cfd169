"""What a training is made of: phases, losses, masks, learning rate.

A recipe says all that decides the weights, beside the photographs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from cleanplate.models.lama.losses import LossWeights
from cleanplate.models.lama.params import LAMA, LamaParams
from cleanplate.models.training.lama.masks import MASKS
from cleanplate.models.training.lama.precision import TrainPrecision

SEGMENTATION = "segmentation"
"""The kind of mask that is cut from the crop itself (cleanplate.models.training.lama.objects) and so has no
parameters."""
LETTERS = "letters"
"""The kind that draws lines of text (cleanplate.models.training.lama.letters); it does not scale with the crop."""
_LATER = {"precision": "fp32", "shape": None, "best_by": "hole_psnr", "validation_limit": 0}
_STRICT = {"extra": "forbid"}  # for pydantic, which jobs use to read recipes: an unknown key is an error


@dataclass(frozen=True)
class FillWeights:
    """Weights of our reconstruction losses; one with weight 0 is not computed.

    hole_l1, hole_l2, known_l1: on the prediction, mean per hole (or known) pixel of each image.
    gradient: L1 between the gradients of the composite and the photograph, per hole pixel.
    pyramid: L1 of the composite at 1/2, 1/4, 1/8 and 1/16 of the size, per hole pixel.
    flip: the difference that a person sees in the composite (cleanplate.models.metrics.flip), per hole pixel.
    weave: what repeats itself on the generator's grid and not in the photograph (objective.weave).
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    hole_l1: float = 0.0
    hole_l2: float = 0.0
    known_l1: float = 0.0
    gradient: float = 0.0
    pyramid: float = 0.0
    flip: float = 0.0
    weave: float = 0.0


@dataclass(frozen=True)
class Phase:
    """A stretch of training. crop: pixels, a multiple of 8; batch: images of one step, over all workers.

    zoom: the crop's side in the photograph as multiples of crop.  lr_from, lr_to: a half cosine between both.
    fill: our losses.  paper: the paper's, with a discriminator when one of them needs it; None for none.
    composite: the paper's losses see the hole's prediction in the photograph, not the whole prediction.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    steps: int
    crop: int
    batch: int
    lr_from: float
    lr_to: float
    zoom: tuple[float, float] = (1.0, 2.0)
    fill: FillWeights = field(default_factory=FillWeights)
    paper: LossWeights | None = None
    composite: bool = False

    @property
    def adversarial(self) -> bool:
        """Whether a discriminator is trained."""
        return self.paper is not None and (self.paper.adversarial > 0 or self.paper.feature_matching > 0)


@dataclass(frozen=True)
class TrainRecipe:
    """model: a key of LAMA.  shape: a generator that is not in LAMA; model is then only its name.
    masks: kind of MASKS, 'segmentation' or 'letters' -> chance; sizes are for 256 px, scaled but for letters.

    max_hole: share of the crop that a hole may cover.  ema: decay of the averaged weights; 0 for none.
    clip: limit of each gradient's norm.  warmup: steps of linear warm-up at the very start.
    branch_gain: what the last batch norm of every residual branch starts from; 1 is the usual.
    muon_ratio: kernels are stepped by Muon at this many times the learning rate; 0: Adam for all.
    ndf, discriminator_lr: width and constant learning rate of the discriminator, where a phase has one.
    prefill: the generator corrects a pyramid fill (cleanplate.models.lama.prefill) instead of painting from nothing.
    precision: 'bf16' multiplies in bf16 where the hardware can, with the FFT, weights and losses in fp32.
    photo_short_side: photographs are shrunk to this on loading.  source_power: see data.load_bank.
    best_by: the validation score whose best weights are kept; of flip and perceptual the lowest is best.
    validation_limit: at most so many of the photographs that are held out are judged on; 0: all.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    model: str
    phases: tuple[Phase, ...]
    masks: tuple[tuple[str, float], ...]
    seed: int = 0
    max_hole: float = 0.55
    ema: float = 0.999
    clip: float = 1.0
    warmup: int = 100
    betas: tuple[float, float] = (0.9, 0.99)
    prefill: bool = False
    branch_gain: float = 1.0
    muon_ratio: float = 0.0
    ndf: int = 64
    discriminator_lr: float = 1e-4
    photo_short_side: int = 400
    source_power: float = 0.5
    validation_share: float = 0.05
    log_every: int = 10
    checkpoint_seconds: float = 150.0
    validate_every: int = 250
    precision: TrainPrecision = "fp32"
    shape: LamaParams | None = None
    best_by: Literal["hole_psnr", "flip", "perceptual"] = "hole_psnr"
    validation_limit: int = 0

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    @property
    def params(self) -> LamaParams:
        """The generator's shape. Raises KeyError for an unknown model without one."""
        return self.shape or LAMA[self.model]

    def digest(self) -> str:
        """sha256 of every field; fields that came later count only where they are used, so that a recipe
        from before keeps its digest and its checkpoints."""
        fields = dataclasses.asdict(self)
        for name, unused in _LATER.items():
            if fields[name] == unused:
                del fields[name]
        for phase in fields["phases"]:
            if not phase["composite"]:
                del phase["composite"]
            for later in ("flip", "weave"):
                if not phase["fill"][later]:
                    del phase["fill"][later]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def check_recipe(recipe: TrainRecipe, world: int = 1) -> None:
    """Raises ValueError, saying what to change, when the recipe cannot be trained by `world` workers."""
    if recipe.shape is None and recipe.model not in LAMA:
        raise ValueError(f"model {recipe.model!r} is not one of {sorted(LAMA)}")
    kinds = [*sorted(MASKS), SEGMENTATION, LETTERS]
    unknown = [name for name, _ in recipe.masks if name not in kinds]
    if unknown or not recipe.masks:
        raise ValueError(f"masks {unknown} are not among {kinds}; name at least one")
    if not recipe.phases:
        raise ValueError("the recipe has no phases")
    if recipe.validation_limit < 0:
        raise ValueError("validation_limit must be at least 0")
    for number, phase in enumerate(recipe.phases):
        if phase.crop % 8 or phase.crop < 32:
            raise ValueError(f"phase {number}: crop {phase.crop} is not a multiple of 8 of at least 32")
        if phase.steps < 1 or phase.batch < 1:
            raise ValueError(f"phase {number}: steps and batch must be at least 1")
        if phase.batch % world:
            raise ValueError(f"phase {number}: batch {phase.batch} cannot be dealt to {world} workers")
        if phase.paper is None and phase.fill == FillWeights():
            raise ValueError(f"phase {number} has no loss: give `fill` or `paper` weights")


def phase_at(recipe: TrainRecipe, step: int) -> tuple[int, Phase, int]:
    """(number, phase, step within it) of a step counted from 0. Raises ValueError beyond the last."""
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
