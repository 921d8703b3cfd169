"""What the page offers to choose from: the recipe's words, and which of them can be used here and now."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, get_args

from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.factory import check, segmenters
from cleanplate.pipeline.recipe.recipe import CLASSIC_INPAINTERS, KINDS, Recipe, changed, load


def of(recipe: Recipe) -> dict[str, Any]:
    """kinds, segmenters and inpainters: name, and `lacks`: why it cannot be used with this recipe on this machine,
    or null; the same of clicks on objects. Downloads nothing."""
    named = get_args(type(recipe.masks).model_fields["segmenter"].annotation)
    return {
        "kinds": [{"name": kind, "lacks": _lacks(recipe, {"remove": [kind]})} for kind in KINDS],
        "segmenters": [{"name": name, "lacks": _lacks(recipe, {"masks.segmenter": name})} for name in named],
        "inpainters": [
            {"name": name, "lacks": _lacks(recipe, {"inpaint.name": name})} for name in _inpainters(recipe)
        ],
        "clicks": _lacks_clicks(recipe),
    }


def formats() -> list[str]:
    """Names of the picture formats that can be opened here, the usual ones first."""
    heic = ["HEIC"] if find_spec("pillow_heif") else []
    return ["JPEG", "PNG", "WebP", "AVIF", *heic, "TIFF", "BMP", "GIF"]


def _inpainters(recipe: Recipe) -> list[str]:
    from cleanplate.models.weights import registry

    lamas = [name for name, one in registry.known().items() if one.kind == "lama"]
    return list(dict.fromkeys([recipe.inpaint.name, *lamas, *CLASSIC_INPAINTERS]))


def _lacks(recipe: Recipe, change: dict[str, Any]) -> str | None:
    from cleanplate.models.weights import registry

    if change.get("remove") == ["static-watermark"]:
        return f"compares {recipe.consensus.min_images} pictures or more: cleanplate run"
    body = recipe.model_dump(mode="json")
    if change.get("masks.segmenter", recipe.masks.segmenter) != recipe.masks.segmenter:
        body["masks"]["checkpoint"] = None
    try:
        names = set(check.weights_of(load(None, body | change))) - set(check.weights_of(recipe))
        for name in names:
            registry.resolve(name, download=False)
    except ConfigError as error:
        return str(error).removeprefix("wrong recipe: ")
    except registry.WeightsError:
        return f"its weights are not on this machine: cleanplate weights fetch {name}"
    return None


def _lacks_clicks(recipe: Recipe) -> str | None:
    from cleanplate.models.weights import registry

    name = segmenters.sam_clicked(recipe)
    try:
        registry.resolve(name, download=False)
    except registry.WeightsError:
        return f"its weights are not on this machine: cleanplate weights fetch {name}"
    return None


def as_yaml(recipe: Recipe) -> str:
    """The recipe as a YAML file, without what is as it always is."""
    header = "# cleanplate run SRC DST --recipe recipe.yaml   (what is not named has its default: docs/recipe.md)\n"
    return header + changed(recipe)
