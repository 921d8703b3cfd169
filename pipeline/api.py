"""The pipeline from a notebook or a script: single images as arrays or PIL images, and whole folders.

The functions take a recipe in any form: a `Recipe`, the path of a YAML file, or its keys as a mapping
(`{"remove": ["face"], "inpaint.name": "telea"}`); None is the default recipe. Single images go through the same
stages as a run, with models loaded once a process; nothing is stored. Errors are raised: ConfigError for a wrong
recipe or place, cleanplate.models.weights.registry.WeightsError for weights that cannot be had, RowError for
an image that cannot be processed, ValueError for an array that is not what a docstring says.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image as Pil
from PIL import ImageOps

from cleanplate.models.types import Image, Mask, Region
from cleanplate.pipeline import schema
from cleanplate.pipeline.engine import run as runs
from cleanplate.pipeline.engine.carry_out import Options, carry_out
from cleanplate.pipeline.engine.job import stages_of
from cleanplate.pipeline.errors import RowError
from cleanplate.pipeline.factory import check, inpainters, segmenters
from cleanplate.pipeline.images import rle
from cleanplate.pipeline.ledger import ledger
from cleanplate.pipeline.ledger.ledger import Tally
from cleanplate.pipeline.recipe.recipe import Recipe, load
from cleanplate.pipeline.stages.rows import paste_patches, region_of
from cleanplate.pipeline.stages.segment import grow
from cleanplate.pipeline.stages.stage import Worker

AnyRecipe = Recipe | Mapping[str, Any] | str | PathLike[str] | None
AnyMask = npt.NDArray[np.bool_] | npt.NDArray[np.uint8] | Pil.Image
Picture = TypeVar("Picture", Image, Pil.Image)


@dataclass(frozen=True)
class Cleaned:
    """What the pipeline made of one image.

    image: HWC uint8 RGB, upright, as large as the source; outside `mask` it is the source bit for bit.
    mask: HW bool, True = a pixel that was allowed to change.
    regions: what was found and removed, each with its own HW bool mask, boxes in xyxy pixels.
    residual: what a second look still found in the result; empty = verified.
    status: unchanged, cleaned or residual, as in the column of that name.
    passes: fills: 1 and the repairs; 0 where nothing was found.
    """

    image: Image
    mask: Mask
    regions: Sequence[Region]
    residual: Sequence[Region]
    status: str
    passes: int

    def left(self) -> str:
        """What is left, in words; "" when nothing is."""
        kinds = ", ".join(sorted({region.kind for region in self.residual}))
        return f"after {self.passes} passes still found: {kinds}" if kinds else ""


def find(image: Image | Pil.Image, recipe: AnyRecipe = None) -> list[Region]:
    """What the recipe would remove: kind, detector, score in [0, 1] and xyxy pixel box of each region.

    image: HWC uint8 RGB, or a PIL image (turned upright first if its EXIF says so; boxes are of the upright
    picture). A region's `mask` is HW bool where its detector knows pixels, else None; `mask_of` draws the rest.
    """
    row = _through(_pixels(image), recipe, ("detect",))
    return [region_of(struct, row["height"], row["width"]) for struct in row["found"]]


def mask_of(image: Image | Pil.Image, regions: Iterable[Region], recipe: AnyRecipe = None) -> Mask:
    """HW bool, True = remove: the pixels of these regions as the recipe's segmenter draws and widens them.

    image: HWC uint8 RGB or a PIL image, the one that the regions were found in.
    """
    pixels, chosen, settings = _pixels(image), list(regions), _recipe(recipe)
    height, width = pixels.shape[:2]
    if not chosen:
        return np.zeros((height, width), bool)
    drawn = segmenters.segmenter(settings)([pixels], [chosen])[0]
    grown = [grow(mask, region, settings.masks) for mask, region in zip(drawn, chosen, strict=True)]
    return rle.union(grown, height, width)


def clean(image: Picture, mask: AnyMask | None = None, recipe: AnyRecipe = None) -> Picture:
    """The image without what the recipe removes, or without what lies under `mask`.

    image: HWC uint8 RGB, or a PIL image; the same type and size come back. Outside the mask every pixel is the
    source's. A PIL image is turned upright first if its EXIF says so; L and RGBA stay L and RGBA (alpha as it
    was), other modes become RGB.
    mask: HW bool or uint8, or a PIL image of mode 1 or L, as large as the (upright) image; what is not 0 is
    filled with the recipe's inpainter, and nothing is looked for. None: find, mask, fill, verify and repair.

    Warns (UserWarning) when the verifying detectors still find something: `examine` tells what.
    Raises RowError when the masks would cover more than `masks.max_coverage` of the picture.
    """
    pixels, settings = _pixels(image), _recipe(recipe)
    if mask is not None:
        return _like(_filled(pixels, _mask(mask, pixels), settings), image)
    done = examine(pixels, settings)
    if remaining := done.left():
        warnings.warn(remaining, UserWarning, stacklevel=2)
    return _like(done.image, image)


def examine(image: Image | Pil.Image, recipe: AnyRecipe = None) -> Cleaned:
    """One image through detect, segment, inpaint and verify, with all that its row would say.

    image: HWC uint8 RGB, or a PIL image. Raises RowError, also for a picture that the recipe would skip.
    """
    pixels = _pixels(image)
    row = _through(pixels, recipe, ("detect", "segment", "inpaint", "verify"))
    height, width = pixels.shape[:2]
    whole = (
        rle.from_rle(row["mask_rle"], height, width) if row["mask_rle"] else np.zeros((height, width), bool)
    )
    left = [{**struct, "rle": None} for struct in row["residual"]]
    return Cleaned(
        paste_patches(pixels, row["patches"]),
        whole,
        [region_of(struct, height, width) for struct in row["regions"]],
        [region_of(struct, height, width) for struct in left],
        row["status"],
        row["passes"],
    )


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

    run = runs.start(str(source), str(output), _recipe(recipe), new_run=new_run)
    # Without the estimate of recall: whoever calls from Python asks for it where it is wanted.
    options = Options(engine=engine, address=address, limit=limit, retry_failed=retry_failed, recall=0)
    return carry_out(run, options, show, report).tally


def _recipe(recipe: AnyRecipe) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, Mapping):
        return load(None, dict(recipe))
    return load(recipe if recipe is None else str(recipe))


@lru_cache(maxsize=8)
def _worker(recipe: str, names: tuple[str, ...]) -> Worker:
    """The named stages of a recipe (as JSON), opened once a process."""
    settings = Recipe.model_validate_json(recipe)
    check.check(settings)
    return Worker([stage for stage in stages_of(settings, last=True) if stage.name in names])


def _through(pixels: Image, recipe: AnyRecipe, names: tuple[str, ...]) -> dict[str, Any]:
    """The row of one picture after the named stages. Raises RowError with the row's own error."""
    ok, png = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not ok:
        raise ValueError(f"an image of {pixels.shape[1]} x {pixels.shape[0]} pixels cannot be held as PNG")
    data = png.tobytes()
    digest = hashlib.sha256(data).hexdigest()
    start = {
        "image_id": digest,
        "source_uri": "memory:image",
        "source_version": digest,
        "source_bytes": len(data),
        "attempt": 1,
        "source": data,
        "source_sha256": digest,
        "source_format": "png",
        "width": pixels.shape[1],
        "height": pixels.shape[0],
    }
    columns = schema.merged(
        schema.START, schema.columns(*(name for name in start if name not in schema.START.names))
    )
    worker = _worker(_recipe(recipe).model_dump_json(), names)
    row: dict[str, Any] = worker(pa.Table.from_pylist([start], schema=columns)).to_pylist()[0]
    if row["error"]:
        raise RowError(row["error"]["kind"], row["error"]["message"])
    return row


def _filled(pixels: Image, mask: Mask, recipe: Recipe) -> Image:
    if not mask.any():
        return pixels.copy()
    return inpainters.inpainters(recipe)[""]([pixels], [mask])[0]


def _pixels(image: object) -> Image:
    """HWC uint8 RGB of either form. Raises ValueError for another array."""
    if isinstance(image, Pil.Image):
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"), np.uint8)
    if not isinstance(image, np.ndarray):
        how = "; open it: PIL.Image.open(path)" if isinstance(image, str | PathLike) else ""
        raise ValueError(f"an image is HWC uint8 RGB or a PIL image, not {type(image).__name__}{how}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"an image is HWC uint8 RGB, not {image.dtype} {image.shape}")
    return np.ascontiguousarray(image)


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


def _like(pixels: Image, image: Picture) -> Picture:
    """The pixels in the type and mode of `image`."""
    if not isinstance(image, Pil.Image):
        return pixels
    result = Pil.fromarray(pixels)
    if image.mode == "L":
        return result.convert("L")
    if image.mode == "RGBA":
        result.putalpha(ImageOps.exif_transpose(image).getchannel("A"))
    return result
