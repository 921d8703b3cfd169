"""What a recipe's words mean: which segmenter and inpainter, made of which weights (detectors:
`pipeline/factory/detectors.py`).

With it the only place of the pipeline that names models. Everything is imported and loaded when a stage opens, in the
worker that will run it; stages that share a worker share the loaded model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from cleanplate.models.devices import pick
from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.factory import attachments, kinds
from cleanplate.pipeline.factory import detectors as finders
from cleanplate.pipeline.factory.detectors import detectors as detectors
from cleanplate.pipeline.factory.detectors import verifiers as verifiers
from cleanplate.pipeline.images import c2pa_manifest
from cleanplate.pipeline.recipe import provenance
from cleanplate.pipeline.recipe.recipe import CLASSIC_INPAINTERS, Recipe
from cleanplate.pipeline.recipe.sections import TEXTURE

if TYPE_CHECKING:
    from cleanplate.models.types import Inpainter, Segmenter


def weights_of(recipe: Recipe) -> tuple[str, ...]:
    """The names (or files) of all weights that the recipe's stages load."""
    names = finders.weights_of(recipe)
    if recipe.masks.segmenter == "sam":
        names.append(_sam_name(recipe))
    names += _lamas(recipe)
    return tuple(dict.fromkeys(names))


def check(recipe: Recipe) -> dict[str, str]:
    """Fetch, hash and open every file that the recipe needs, and hash the files attached to it: name -> sha256.

    Opening costs seconds here and saves a cluster from finding out. Raises
    cleanplate.models.weights.registry.WeightsError for a
    missing or wrong file, ConfigError for one that holds another model than the recipe's word asks for.
    """
    from cleanplate.models.lama import generator
    from cleanplate.models.segmenters import sam
    from cleanplate.models.weights import registry
    from cleanplate.models.weights.checkpoints import load_notes, load_tensors

    for name in weights_of(recipe):
        registry.resolve(name)
    files = attachments.digests(recipe) | _hub_digests(recipe)
    finders.check(recipe)
    if recipe.masks.segmenter in ("sam2", "sam3"):
        kinds.opened(lambda: segmenter(recipe), "masks.checkpoint")
    lamas = _lamas(recipe)
    sams = [_sam_name(recipe)] if recipe.masks.segmenter == "sam" else []
    sams += [recipe.everything.checkpoint] if "everything" in recipe.remove else []
    for names, params_of, what in (
        (lamas, generator.params_of, "a LaMa"),
        (sams, sam.params_of, "a Segment Anything"),
    ):
        for name in names:
            try:
                params_of(load_tensors(registry.resolve(name)))
            except ValueError as error:
                raise ConfigError(f"{name!r} does not hold the weights of {what}: {error}") from error
    if recipe.inpaint.refine and any(
        load_notes(registry.resolve(name)).get("prefill") == "pyramid" for name in lamas
    ):
        raise ConfigError("inpaint.refine: lama-lite cannot be refined; choose big-lama or another full LaMa")
    if recipe.output.c2pa_cert and recipe.output.c2pa_key:
        c2pa_manifest.signer(recipe.output.c2pa_cert, recipe.output.c2pa_key, provenance.code_version())
    return files | {registry.find(name).name: registry.describe(name)[1] for name in weights_of(recipe)}


def segmenter(recipe: Recipe) -> Segmenter:
    masks, engine = recipe.masks, recipe.engine
    if masks.segmenter == "sam":
        return kinds.sam(_sam_name(recipe), engine.gpus, masks.prompts)
    if masks.segmenter in ("sam2", "sam3"):
        return _hub_sam(masks.checkpoint or "", engine.gpus, masks.prompts)
    from cleanplate.models.segmenters.classic import SEGMENTERS

    return SEGMENTERS[masks.segmenter]


def inpainters(recipe: Recipe) -> Mapping[str, Inpainter]:
    """kind -> what fills it; "" for every kind not named; "again 0", "again 1", ...: the fallbacks of repairs."""
    rule, gpus = recipe.inpaint, recipe.engine.gpus
    pixels = rule.refine_pixels if rule.refine else 0
    return {
        kind: inpainter(name, rule.precision, rule.whole_image, gpus, pixels)
        for kind, name in _fillers(recipe).items()
    }


def _fillers(recipe: Recipe) -> dict[str, str]:
    named: dict[str, str] = {"": recipe.inpaint.name}
    again = {f"again {n}": name for n, name in enumerate(recipe.inpaint.fallbacks)}
    return named | dict(recipe.inpaint.per_kind.items()) | again


def _lamas(recipe: Recipe) -> list[str]:
    """The names (or files) of the LaMas that fill."""
    names = [name.removesuffix(TEXTURE) for name in _fillers(recipe).values()]
    return [name for name in names if name not in CLASSIC_INPAINTERS]


def _hub_digests(recipe: Recipe) -> dict[str, str]:
    """key/name -> sha256 of the models that are folders."""
    from cleanplate.models.weights.hub import digest_of, folder_of

    named = dict(kinds.hub_models(recipe))
    if recipe.masks.segmenter in ("sam2", "sam3"):
        named["masks.checkpoint"] = recipe.masks.checkpoint or ""
    return {f"{key}/{name.rpartition('/')[2]}": digest_of(folder_of(name)) for key, name in named.items()}


def _sam_name(recipe: Recipe) -> str:
    return recipe.masks.checkpoint or "sam-vit-b"


@lru_cache(maxsize=2)
def _hub_sam(model: str, gpus: float, prompts: Literal["boxes", "points", "both"]) -> Segmenter:
    from cleanplate.models.segmenters.sam_hub import HubSamSegmenter
    from cleanplate.models.weights.hub import folder_of

    return HubSamSegmenter(folder_of(model), pick(gpus), prompts, name=model.rpartition("/")[2])


@lru_cache(maxsize=8)
def inpainter(
    name: str,
    precision: Literal["fp32", "bf16", "auto"],
    whole_image: bool,
    gpus: float,
    refine_pixels: int = 0,
) -> Inpainter:
    """One of the classic inpainters, or a LaMa by its name in the weights table or its file; with "+texture" behind
    it the same, whose fills are given the detail of their surroundings.

    refine_pixels: above 0, LaMa refines what is large, at most so many pixels at a time. Raises WeightsError.
    """
    from cleanplate.models.devices import bf16_is_native
    from cleanplate.models.inpainters import inpainters
    from cleanplate.models.inpainters.copying import Textured
    from cleanplate.models.inpainters.crops import CropSettings
    from cleanplate.models.lama import generator
    from cleanplate.models.lama.refine import RefineSettings
    from cleanplate.models.weights import registry
    from cleanplate.models.weights.checkpoints import load_notes, load_tensors

    if name.endswith(TEXTURE):
        base = inpainter(name.removesuffix(TEXTURE), precision, whole_image, gpus, refine_pixels)
        return Textured(base)
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
