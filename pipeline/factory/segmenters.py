"""Which segmenter a recipe means, made of which weights."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from cleanplate.models.devices import pick
from cleanplate.pipeline.recipe.recipe import Recipe

if TYPE_CHECKING:
    from cleanplate.models.segmenters.clicks import Clicks
    from cleanplate.models.segmenters.sam import SamSegmenter
    from cleanplate.models.types import Image, Segmenter

SAM_DEFAULT = "sam-vit-b"


def segmenter(recipe: Recipe) -> Segmenter:
    masks, engine = recipe.masks, recipe.engine
    if masks.segmenter == "sam":
        return sam(sam_name(recipe), engine.gpus, masks.prompts)
    if masks.segmenter in ("sam2", "sam3"):
        return _hub_sam(masks.checkpoint or "", engine.gpus, masks.prompts)
    from cleanplate.models.segmenters.classic import SEGMENTERS

    return SEGMENTERS[masks.segmenter]


def by_clicks(recipe: Recipe, image: Image) -> Clicks:
    """What finds the object under a point of `image` (HWC uint8 RGB): the recipe's Segment Anything, else `sam-vit-b`.
    Raises WeightsError."""
    from cleanplate.models.segmenters.clicks import Clicks

    return Clicks(sam(sam_clicked(recipe), recipe.engine.gpus, recipe.masks.prompts), image)


def sam_clicked(recipe: Recipe) -> str:
    """The weights that `by_clicks` uses."""
    return sam_name(recipe) if recipe.masks.segmenter == "sam" else SAM_DEFAULT


def sam_name(recipe: Recipe) -> str:
    return recipe.masks.checkpoint or SAM_DEFAULT


@lru_cache(maxsize=2)
def sam(name: str, gpus: float, prompts: Literal["boxes", "points", "both"]) -> SamSegmenter:
    """Segment Anything, by its name in the weights table or its file."""
    from cleanplate.models.segmenters import sam as sams
    from cleanplate.models.segmenters import sam_network
    from cleanplate.models.weights import registry as weights
    from cleanplate.models.weights.checkpoints import load_tensors

    found = weights.find(name)
    tensors = load_tensors(weights.resolve(found))
    params = (
        sam_network.SAM[found.model] if found.model in sam_network.SAM else sam_network.params_of(tensors)
    )
    return sams.SamSegmenter(
        sam_network.load_sam(params, tensors), pick(gpus), prompts=prompts, name=found.name
    )


@lru_cache(maxsize=2)
def _hub_sam(model: str, gpus: float, prompts: Literal["boxes", "points", "both"]) -> Segmenter:
    from cleanplate.models.segmenters.sam_hub import HubSamSegmenter
    from cleanplate.models.weights.hub import folder_of

    return HubSamSegmenter(folder_of(model), pick(gpus), prompts, name=model.rpartition("/")[2])
