"""Everything that a recipe's words load: fetched, hashed and opened before a run, so that no cluster finds out."""

from __future__ import annotations

from typing import Literal

from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.factory import attachments, kinds, segmenters
from cleanplate.pipeline.factory.detectors import opened
from cleanplate.pipeline.factory.inpainters import lamas as lamas_of
from cleanplate.pipeline.factory.segmenters import sam_name
from cleanplate.pipeline.factory.things import hub_models
from cleanplate.pipeline.images import c2pa_manifest
from cleanplate.pipeline.recipe import provenance
from cleanplate.pipeline.recipe.recipe import Recipe


def weights_of(recipe: Recipe) -> tuple[str, ...]:
    """The names (or files) of all weights that the recipe's stages load."""
    names = [name for entry in kinds.entries(recipe) for name in entry.weights(recipe)]
    if recipe.masks.segmenter == "sam":
        names.append(sam_name(recipe))
    names += lamas_of(recipe)
    return tuple(dict.fromkeys(names))


def check(recipe: Recipe) -> dict[str, str]:
    """Fetch, hash and open every file that the recipe needs, and hash the files attached to it: name -> sha256.

    Opening costs seconds here and saves a cluster from finding out. Raises
    cleanplate.models.weights.registry.WeightsError for a
    missing or wrong file, ConfigError for one that holds another model than the recipe's word asks for.
    """
    from cleanplate.models.weights import registry

    for name in weights_of(recipe):
        registry.resolve(name)
    files = attachments.digests(recipe) | _hub_digests(recipe)
    for entry in kinds.entries(recipe):
        entry.own(recipe)
    if recipe.masks.segmenter in ("sam2", "sam3"):
        opened(lambda: segmenters.segmenter(recipe), "masks.checkpoint")
    lamas = lamas_of(recipe)
    sams = [sam_name(recipe)] if recipe.masks.segmenter == "sam" else []
    sams += [recipe.everything.checkpoint] if "everything" in recipe.remove else []
    for name in lamas:
        _check_kind(name, "lama")
    for name in sams:
        _check_kind(name, "sam")
    if recipe.inpaint.refine and any(_corrects_a_pyramid(name) for name in lamas):
        raise ConfigError("inpaint.refine: lama-lite cannot be refined; choose big-lama or another full LaMa")
    if recipe.output.c2pa_cert and recipe.output.c2pa_key:
        c2pa_manifest.signer(recipe.output.c2pa_cert, recipe.output.c2pa_key, provenance.code_version())
    return files | {registry.find(name).name: registry.describe(name)[1] for name in weights_of(recipe)}


def _check_kind(name: str, kind: Literal["lama", "sam"]) -> None:
    """Raise ConfigError unless the weights are of this kind. A published file whose digest is right is what the table
    says: opening it would only cost the seconds that torch's import takes."""
    from cleanplate.models.weights import registry
    from cleanplate.models.weights.published import WEIGHTS

    entry = registry.find(name)
    if entry.kind == kind and WEIGHTS.get(entry.name) == entry:
        return
    from cleanplate.models.lama import generator
    from cleanplate.models.segmenters import sam_network
    from cleanplate.models.weights.checkpoints import load_tensors

    params_of, what = (
        (generator.params_of, "a LaMa") if kind == "lama" else (sam_network.params_of, "a Segment Anything")
    )
    try:
        params_of(load_tensors(registry.resolve(name)))
    except ValueError as error:
        raise ConfigError(f"{name!r} does not hold the weights of {what}: {error}") from error


def _corrects_a_pyramid(name: str) -> bool:
    from cleanplate.models.weights import registry
    from cleanplate.models.weights.checkpoints import load_notes

    return load_notes(registry.resolve(name)).get("prefill") == "pyramid"


def _hub_digests(recipe: Recipe) -> dict[str, str]:
    """key/name -> sha256 of the models that are folders."""
    from cleanplate.models.weights.hub import digest_of, folder_of

    named = dict(hub_models(recipe))
    if recipe.masks.segmenter in ("sam2", "sam3"):
        named["masks.checkpoint"] = recipe.masks.checkpoint or ""
    return {f"{key}/{name.rpartition('/')[2]}": digest_of(folder_of(name)) for key, name in named.items()}
