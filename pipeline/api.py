"""The pipeline from a notebook or a script: single images as arrays or PIL images, and whole folders.

The functions take a recipe in any form: a `Recipe`, the path of a YAML file, or its keys as a mapping
(`{"remove": ["face"], "inpaint.name": "telea"}`); None is the default recipe. Single images go through the same
stages as a run, with models loaded once a process; nothing is stored. Errors are raised: ConfigError for a wrong
recipe or place, cleanplate.models.weights.registry.WeightsError for weights that cannot be had, RowError for
an image that cannot be processed, ValueError for an array that is not what a docstring says.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from os import PathLike
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image as Pil

from cleanplate.models.types import Image, Mask, Region
from cleanplate.pipeline import schema
from cleanplate.pipeline.engine import run as runs
from cleanplate.pipeline.engine.carry_out import Options, carry_out
from cleanplate.pipeline.engine.operator import held_images
from cleanplate.pipeline.engine.operator.cleaner import Cleaner
from cleanplate.pipeline.engine.operator.held_images import AnyRecipe, pixels_of, recipe_of
from cleanplate.pipeline.engine.operator.results import Cleaned, cleaned_of
from cleanplate.pipeline.errors import ConfigError, RowError
from cleanplate.pipeline.factory import inpainters, segmenters
from cleanplate.pipeline.images import rle
from cleanplate.pipeline.ledger import ledger
from cleanplate.pipeline.ledger.ledger import Tally
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.stages.rows import region_of
from cleanplate.pipeline.stages.segment import grow

__all__ = [
    "Cleaned",
    "Cleaner",
    "clean",
    "clean_many",
    "examine",
    "find",
    "mask_of",
    "read",
    "run_here",
    "run_on_ray",
]

AnyMask = npt.NDArray[np.bool_] | npt.NDArray[np.uint8] | Pil.Image
Picture = TypeVar("Picture", Image, Pil.Image)


def find(image: Image | Pil.Image, recipe: AnyRecipe = None) -> list[Region]:
    """What the recipe would remove: kind, detector, score in [0, 1] and xyxy pixel box of each region.

    image: HWC uint8 RGB, or a PIL image (turned upright first if its EXIF says so; boxes are of the upright
    picture). A region's `mask` is HW bool where its detector knows pixels, else None; `mask_of` draws the rest.
    """
    tools = held_images.opened(recipe_of(recipe), held_images.FIND)
    (row,) = held_images.through_pixels([pixels_of(image)], tools).select(_FOUND).to_pylist()
    if row["error"]:
        raise RowError(row["error"]["kind"], row["error"]["message"])
    return [region_of(struct, row["height"], row["width"]) for struct in row["found"]]


_FOUND = ["found", "error", "height", "width"]


def mask_of(image: Image | Pil.Image, regions: Iterable[Region], recipe: AnyRecipe = None) -> Mask:
    """HW bool, True = remove: the pixels of these regions as the recipe's segmenter draws and widens them.

    image: HWC uint8 RGB or a PIL image, the one that the regions were found in.
    """
    pixels, chosen, settings = pixels_of(image), list(regions), recipe_of(recipe)
    height, width = pixels.shape[:2]
    if not chosen:
        return np.zeros((height, width), bool)
    drawn = segmenters.segmenter(settings)([pixels], [chosen])[0]
    grown = [grow(mask, region, settings.masks) for mask, region in zip(drawn, chosen, strict=True)]
    return rle.union(grown, height, width)


@overload
def clean(image: Picture, mask: AnyMask | None = None, recipe: AnyRecipe = None) -> Picture: ...
@overload
def clean(image: str | PathLike[str], mask: None = None, recipe: AnyRecipe = None) -> Cleaned: ...
def clean(image: Any, mask: AnyMask | None = None, recipe: AnyRecipe = None) -> Any:
    """The image without what the recipe removes, or without what lies under `mask`.

    image: HWC uint8 RGB, or a PIL image; the same type and size come back. Outside the mask every pixel is the
    source's. A PIL image is turned upright first if its EXIF says so; L and RGBA stay L and RGBA (alpha as it
    was), other modes become RGB. A path or s3:// uri gives a `Cleaned`, with the output file in `data`.
    mask: HW bool or uint8, or a PIL image of mode 1 or L, as large as the (upright) image; what is not 0 is
    filled with the recipe's inpainter, and nothing is looked for. None: find, mask, fill, verify and repair.

    Warns (UserWarning) when the verifying detectors still find something: `examine` tells what.
    Raises RowError when the masks would cover more than `masks.max_coverage` of the picture, or for a file that cannot
    be read.
    """
    settings = recipe_of(recipe)
    if isinstance(image, str | PathLike) and mask is None:
        done = _one(os.fspath(image), settings)
    else:
        pixels = pixels_of(image)
        if mask is not None:
            return _like(_filled(pixels, _mask(mask, pixels), settings), image)
        done = _one(pixels, settings)
    if remaining := done.left():
        warnings.warn(remaining, UserWarning, stacklevel=2)
    return done if isinstance(image, str | PathLike) else _like(done.image, image)


def examine(image: Image | Pil.Image, recipe: AnyRecipe = None) -> Cleaned:
    """One image through detect, segment, inpaint and verify, with all that its row would say.

    image: HWC uint8 RGB, or a PIL image. Raises RowError, also for a picture that the recipe would skip.
    """
    return _one(pixels_of(image), recipe_of(recipe))


def clean_many(
    images: Iterable[str | PathLike[str] | bytes | Image | Pil.Image],
    recipe: AnyRecipe = None,
    *,
    batch: int = 16,
) -> Iterator[Cleaned]:
    """What becomes of each image, in order. An image that cannot be processed is a result with a `reason`.

    images: paths or s3:// uris, encoded files, HWC uint8 RGB arrays or PIL images, mixed as they come. They are taken
    `batch` at a time, and the networks see a batch together.
    Raises ConfigError and WeightsError at the call, before the first image is taken.
    """
    if isinstance(images, str | bytes | PathLike):
        raise ConfigError(
            "clean_many takes several images: a list of paths, or an iterator; for a folder use run_here"
        )
    if batch < 1:
        raise ConfigError(f"batch must be 1 or more, not {batch}")
    tools = held_images.opened(recipe_of(recipe))
    return _in_batches(iter(images), tools, batch)


def run_here(
    source: str | PathLike[str],
    output: str | PathLike[str],
    recipe: AnyRecipe = None,
    *,
    limit: int | None = None,
    retry_failed: bool = False,
    new_run: bool = False,
    progress: bool = True,
) -> Tally:
    """Clean a whole source (folder or s3://...) into an output, one image after the other in this process.

    The same as `cleanplate run SOURCE OUTPUT --here`: the same call again resumes. progress: a live panel in a
    notebook or a terminal, plain lines elsewhere. Returns how many rows have which status, and causes of failed
    ones: a bad image is a row, not an exception. Raises ConfigError or StorageError before any work, RunStopped
    when units are left.
    """
    return _run("here", source, output, recipe, None, limit, retry_failed, new_run, progress)


def run_on_ray(
    source: str | PathLike[str],
    output: str | PathLike[str],
    recipe: AnyRecipe = None,
    *,
    address: str | None = None,
    limit: int | None = None,
    retry_failed: bool = False,
    new_run: bool = False,
    progress: bool = True,
) -> Tally:
    """As `run_here`, on Ray: the one that this process is connected to, else the cluster at `address`
    ("auto", host:port), else one of this machine's own that ends with the call."""
    return _run("ray", source, output, recipe, address, limit, retry_failed, new_run, progress)


def read(output: str | PathLike[str], columns: Sequence[str] | None = None) -> pa.Table:
    """Every committed row of an output, newest attempts only (docs/columns.md); pictures are encoded bytes in
    `image`. Name the columns of a large output: all rows are held in memory. Raises ConfigError where no run is.
    """
    store, _ = runs.open_finished(str(output))
    tables = list(ledger.rows(store, list(columns) if columns is not None else None))
    if tables:
        return pa.concat_tables(tables)
    empty = schema.part_schema().empty_table()
    return empty if columns is None else empty.select(list(columns))


# --- behind them ---


def _run(
    engine: runs.Engine,
    source: str | PathLike[str],
    output: str | PathLike[str],
    recipe: AnyRecipe,
    address: str | None,
    limit: int | None,
    retry_failed: bool,
    new_run: bool,
    progress: bool,
) -> Tally:
    from cleanplate.pipeline.ui.progress import Progress

    def show(rows: int, before: int) -> Progress:
        return Progress(rows, before, shown=None if progress else "none")

    def report(event: str, **fields: Any) -> None:
        if event == "advice":
            warnings.warn(fields["message"], stacklevel=5)

    run = runs.start(str(source), str(output), recipe_of(recipe), new_run=new_run)
    # Without the estimate of recall: whoever calls from Python asks for it where it is wanted.
    options = Options(engine=engine, address=address, limit=limit, retry_failed=retry_failed, recall=0)
    return carry_out(run, options, show, report).tally


def _one(image: held_images.Held, recipe: Recipe) -> Cleaned:
    """Raises RowError where the row has an error."""
    (done,) = held_images.clean_held([image], held_images.opened(recipe))
    if done.row["error"]:
        raise RowError(done.row["error"]["kind"], done.row["error"]["message"])
    return cleaned_of(done)


def _in_batches(images: Iterator[Any], tools: held_images.Opened, batch: int) -> Iterator[Cleaned]:
    while some := [held_images.held(image) for image in islice(images, batch)]:
        yield from map(cleaned_of, held_images.clean_held(some, tools))


def _like(pixels: Image | None, image: Any) -> Any:
    """The pixels in the type and mode of `image`."""
    return held_images.like(pixels, image) if isinstance(image, Pil.Image) and pixels is not None else pixels


def _filled(pixels: Image, mask: Mask, recipe: Recipe) -> Image:
    if not mask.any():
        return pixels.copy()
    return inpainters.inpainters(recipe)[""]([pixels], [mask])[0]


def _mask(mask: AnyMask, pixels: Image) -> Mask:
    """HW bool of the picture's size. Raises ValueError."""
    if isinstance(mask, Pil.Image):
        if mask.mode not in ("1", "L"):
            raise ValueError(f"a PIL mask has mode 1 or L, not {mask.mode}; convert it: mask.convert('L')")
        mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype not in (np.bool_, np.uint8):
        raise ValueError(f"a mask is HW bool or uint8, not {mask.dtype} {mask.shape}")
    if mask.shape != pixels.shape[:2]:
        raise ValueError(f"the mask is {mask.shape}, the image {pixels.shape[:2]} (height, width)")
    return np.asarray(mask != 0, np.bool_)
