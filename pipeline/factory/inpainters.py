"""Which inpainters a recipe means, made of which weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from cleanplate.models.devices import pick
from cleanplate.pipeline.recipe.recipe import CLASSIC_INPAINTERS, Recipe
from cleanplate.pipeline.recipe.sections import form_of

if TYPE_CHECKING:
    from cleanplate.models.types import Inpainter


def inpainters(recipe: Recipe) -> Mapping[str, Inpainter]:
    """kind -> what fills it; "" for every kind not named; "again 0", "again 1", ...: the fallbacks of repairs."""
    rule, gpus = recipe.inpaint, recipe.engine.gpus
    pixels = rule.refine_pixels if rule.refine else 0
    return {
        kind: inpainter(name, rule.precision, rule.whole_image, gpus, pixels)
        for kind, name in fillers(recipe).items()
    }


def fillers(recipe: Recipe) -> dict[str, str]:
    named: dict[str, str] = {"": recipe.inpaint.name}
    again = {f"again {n}": name for n, name in enumerate(recipe.inpaint.fallbacks)}
    return named | dict(recipe.inpaint.per_kind.items()) | again


def lamas(recipe: Recipe) -> list[str]:
    """The names (or files) of the LaMas that fill."""
    names = [form_of(name)[0] for name in fillers(recipe).values()]
    return [name for name in names if name not in CLASSIC_INPAINTERS]


@lru_cache(maxsize=8)
def inpainter(
    name: str,
    precision: Literal["fp32", "bf16", "auto"],
    whole_image: bool,
    gpus: float,
    refine_pixels: int = 0,
) -> Inpainter:
    """One of the classic inpainters, or a LaMa by its name in the weights table or its file; with a form behind it
    (`form_of`) the same, whose fills are given the detail of their surroundings.

    refine_pixels: above 0, LaMa refines what is large, at most so many pixels at a time. Raises WeightsError.
    """
    from cleanplate.models.devices import bf16_is_native
    from cleanplate.models.inpainters import inpainters
    from cleanplate.models.inpainters.by_hole import ByHole
    from cleanplate.models.inpainters.copying import Textured
    from cleanplate.models.inpainters.crops import CropSettings
    from cleanplate.models.lama import generator
    from cleanplate.models.lama.refine import RefineSettings
    from cleanplate.models.weights import registry
    from cleanplate.models.weights.checkpoints import load_notes, load_tensors

    base_name, form = form_of(name)
    if form:
        base = inpainter(base_name, precision, whole_image, gpus, refine_pixels)
        if form == "+auto":
            return ByHole(Textured(base, thin=True), Textured(base), name)
        return Textured(base, thin=form == "+strokes")
    if name in CLASSIC_INPAINTERS:
        return inpainters.simple_inpainters()[name]
    found = registry.find(name)
    path = registry.resolve(found)
    tensors = load_tensors(path)
    model = generator.build_generator(generator.params_of(tensors))
    model.load_state_dict(tensors, strict=True)
    device = pick(gpus)
    if precision == "auto":
        precision = "bf16" if bf16_is_native(device) else "fp32"
    # A crop that is shrunk before it is refined would lose what refinement is for.
    max_side = max(CropSettings.max_side, math.isqrt(refine_pixels) // 64 * 64)
    return inpainters.LamaInpainter(
        model,
        # What a worker's hardware decides must show in the row.
        name=found.name + ("+bf16" if precision == "bf16" else "") + ("+refine" if refine_pixels else ""),
        device=device,
        precision=precision,
        crops=CropSettings(
            whole_image=whole_image,
            max_side=max_side,
            growth=inpainters.growth_of(device, precision),
        ),
        refine=RefineSettings(px_budget=refine_pixels) if refine_pixels else None,
        fast=model.params.kind == "fourier",
        prefill=load_notes(path).get("prefill") == "pyramid",
    )
