"""Clean image datasets: find what must go, mask it, fill it, verify that it is gone, and say so in every row.

    from cleanplate import Recipe, clean, find, run_here

    regions = find(image)                       # what is there; image: HWC uint8 RGB, or a PIL image
    cleaned = clean(image)                      # found, masked, filled and verified
    cleaned = clean(image, mask)                # your own mask, filled
    cleaned = clean("photo.jpg")                # a file: a result with image, data, status and regions
    for one in clean_many(paths): ...           # many, in batches, models loaded once
    ds = ds.map_batches(Cleaner, ...)           # as an operator of Ray Data, Daft, datasets
    counts = run_here("photos/", "cleaned/")    # a whole folder or bucket, resumable, with a live panel
    rows = read("cleaned/").to_pandas()         # one row an image

Importing this package does no work: a name is looked up when it is used first.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cleanplate.models.types import Region as Region
    from cleanplate.pipeline.api import Cleaned as Cleaned
    from cleanplate.pipeline.api import Cleaner as Cleaner
    from cleanplate.pipeline.api import clean as clean
    from cleanplate.pipeline.api import clean_many as clean_many
    from cleanplate.pipeline.api import examine as examine
    from cleanplate.pipeline.api import find as find
    from cleanplate.pipeline.api import mask_of as mask_of
    from cleanplate.pipeline.api import read as read
    from cleanplate.pipeline.api import run_here as run_here
    from cleanplate.pipeline.api import run_on_ray as run_on_ray
    from cleanplate.pipeline.recipe.recipe import Recipe as Recipe
    from cleanplate.pipeline.recipe.recipe import load as load_recipe

_WHERE = {
    "Cleaned": "cleanplate.pipeline.engine.operator.results",
    "Cleaner": "cleanplate.pipeline.engine.operator.cleaner",
    "Recipe": "cleanplate.pipeline.recipe.recipe",
    "Region": "cleanplate.models.types",
    "clean": "cleanplate.pipeline.api",
    "clean_many": "cleanplate.pipeline.api",
    "examine": "cleanplate.pipeline.api",
    "find": "cleanplate.pipeline.api",
    "load_recipe": "cleanplate.pipeline.recipe.recipe:load",
    "mask_of": "cleanplate.pipeline.api",
    "read": "cleanplate.pipeline.api",
    "run_here": "cleanplate.pipeline.api",
    "run_on_ray": "cleanplate.pipeline.api",
}
__all__ = [
    "Cleaned",
    "Cleaner",
    "Recipe",
    "Region",
    "clean",
    "clean_many",
    "examine",
    "find",
    "load_recipe",
    "mask_of",
    "read",
    "run_here",
    "run_on_ray",
]


def __getattr__(name: str) -> Any:
    """A public name, imported at its first use (PEP 562)."""
    if name not in _WHERE:
        raise AttributeError(f"module 'cleanplate' has no attribute {name!r}")
    module, _, other = _WHERE[name].partition(":")
    return getattr(import_module(module), other or name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
