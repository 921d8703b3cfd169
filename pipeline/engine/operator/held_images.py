"""Images that somebody holds, through a recipe's stages in this process: for notebooks, scripts and other engines.

The stages are those of a run, opened once a process. Nothing is stored. A bad image is a row with its cause.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from PIL import Image as Pil
from PIL import ImageOps

from cleanplate.models.types import Image
from cleanplate.pipeline import schema
from cleanplate.pipeline.engine.job import stages_of
from cleanplate.pipeline.errors import RowError, StorageError
from cleanplate.pipeline.factory import check
from cleanplate.pipeline.images import rle
from cleanplate.pipeline.recipe import provenance
from cleanplate.pipeline.recipe.recipe import Recipe, load
from cleanplate.pipeline.schema import StoredRow
from cleanplate.pipeline.schema.rows import Patch
from cleanplate.pipeline.stages.rows import paste_patches
from cleanplate.pipeline.stages.stage import Worker, error_of
from cleanplate.pipeline.stages.write import Stamp, finish
from cleanplate.pipeline.storage.connect import LocalStore

AnyRecipe = Recipe | Mapping[str, Any] | str | PathLike[str] | None
HELD = "memory:///"
"""Before the name of an image that lies in memory, in its `source_uri`."""
FIND = ("detect",)
OF_PIXELS = ("detect", "segment", "inpaint", "verify")
_STARTING = schema.merged(schema.START, schema.columns("source"))
_WITH_PIXELS = schema.merged(
    schema.START, schema.columns("source", "pixels", "source_sha256", "source_format", "width", "height")
)


@dataclass(frozen=True)
class Named:
    """An encoded image in memory, and its name: what an output is called, and what `given.file` calls it."""

    data: bytes
    name: str


Held = Image | bytes | Named | str | PathLike[str] | RowError
"""An image: pixels (HWC uint8 RGB), an encoded file, one with a name, a path or s3:// uri, or why it is none."""


@dataclass(frozen=True)
class Done:
    """What became of an image. row: as a part has it, without `image`. pixels: HWC uint8 RGB where pixels came in.
    data: the encoded output where a file came in. name: what that file is called. None where it failed or was
    skipped."""

    row: StoredRow
    pixels: Image | None
    data: bytes | None
    name: str | None


@dataclass(frozen=True)
class Opened:
    """A recipe's stages, and what they stamp on rows. of_pixels: the stages that need no file, of the same models."""

    recipe: Recipe
    worker: Worker
    of_pixels: Worker
    stamp: Stamp
    lock: threading.Lock


def recipe_of(recipe: AnyRecipe) -> Recipe:
    """A recipe in any form. Raises ConfigError."""
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, Mapping):
        return load(None, dict(recipe))
    return load(recipe if recipe is None else str(recipe))


def opened(recipe: Recipe, names: tuple[str, ...] = ()) -> Opened:
    """The named stages of a recipe, all without names, opened once a process. Raises ConfigError and WeightsError."""
    return _opened(recipe.model_dump_json(), names)


@lru_cache(maxsize=8)
def _opened(recipe: str, names: tuple[str, ...]) -> Opened:
    settings = Recipe.model_validate_json(recipe)
    weights = check.check(settings)
    stages = [stage for stage in stages_of(settings, last=True) if not names or stage.name in names]
    stamp = Stamp(
        settings.digest(weights),
        provenance.code_version(),
        provenance.new_run_id(),
        tuple(sorted(weights.items())),
        settings.output.keep_skipped,
    )
    worker = Worker(stages)
    return Opened(settings, worker, worker.only(OF_PIXELS), stamp, threading.Lock())


def clean_held(images: Sequence[Held], tools: Opened) -> list[Done]:
    """Each image cleaned, in order. tools: of all stages. Raises ContractError where the program is broken."""
    pixels = [n for n, image in enumerate(images) if isinstance(image, np.ndarray)]
    files = [n for n, image in enumerate(images) if not isinstance(image, np.ndarray)]
    done: dict[int, Done] = {}
    if pixels:
        arrays = [np.asarray(images[n]) for n in pixels]
        table = through_pixels(arrays, tools)
        patches = table["patches"].to_pylist()
        rows = finish(table, tools.stamp).to_pylist()
        done |= dict(zip(pixels, map(_of_pixels, arrays, rows, patches), strict=True))
    if files:
        starts = [_start_of_file(n, images[n]) for n in files]
        with tools.lock:
            table = tools.worker(pa.Table.from_pylist(starts, schema=_STARTING))
        rows = finish(_in_order(table), tools.stamp).to_pylist()
        done |= dict(zip(files, map(_of_file, rows), strict=True))
    return [done[n] for n in range(len(images))]


def through_pixels(images: Sequence[Image], tools: Opened) -> pa.Table:
    """The rows in flight of HWC uint8 RGB images after the stages that need no file, in order."""
    most = tools.recipe.limits.max_pixels
    starts = [_start_of_pixels(n, image, most) for n, image in enumerate(images)]
    with tools.lock:
        return _in_order(tools.of_pixels(pa.Table.from_pylist(starts, schema=_WITH_PIXELS)))


def _in_order(table: pa.Table) -> pa.Table:
    """The rows as they went in: a stage may give them back in another order."""
    places = [int(name) for name in table["image_id"].to_pylist()]
    return table if places == sorted(places) else table.take(np.argsort(places))


def _start(number: int, uri: str, size: int) -> StoredRow:
    # The id is the place in the batch: the same picture may be there twice.
    return {
        "image_id": str(number),
        "source_uri": uri,
        "source_version": "",
        "source_bytes": size,
        "attempt": 1,
    }


def _start_of_pixels(number: int, image: Image, most: int) -> StoredRow:
    raw = np.ascontiguousarray(image).tobytes()
    height, width = image.shape[:2]
    row = _start(number, f"{HELD}image", len(raw)) | {"pixels": raw, "height": height, "width": width}
    if height * width > most:
        error = RowError("too_large", f"{width} x {height} pixels, the limit is {most}")
        row["error"] = error_of("read", error)
    return row | {"source_sha256": hashlib.sha256(raw).hexdigest(), "source_format": "png"}


def _start_of_file(number: int, image: Held) -> StoredRow:
    if isinstance(image, RowError):
        return _start(number, f"{HELD}image", 0) | {"error": error_of("read", image)}
    if isinstance(image, str | PathLike):
        try:
            uri, size = _place(os.fspath(image))
        except StorageError as error:
            return _start(number, str(image), 0) | {"error": error_of("read", error)}
        return _start(number, uri, size)
    data, name = (image.data, image.name) if isinstance(image, Named) else (bytes(image), "image")
    return _start(number, HELD + quote(name, errors="surrogateescape"), len(data)) | {"source": data}


def _place(path: str) -> tuple[str, int]:
    """uri and, of a local file, its size. Raises StorageError for one that is not there."""
    if "://" in path:
        return path, 0
    file = Path(path)
    store = LocalStore(file.parent)
    return store.uri(file.name), store.stat(file.name).size


def _of_pixels(image: Image, row: StoredRow, patches: Sequence[Patch] | None) -> Done:
    kept = row.pop("image") is not None  # Skipped, where the recipe keeps what is.
    row |= {"source_format": None, "output_format": None, "output_sha256": None}
    if row["error"]:
        return Done(row, image.copy() if kept else None, None, None)
    cleaned = paste_patches(image, patches or [])
    mask = rle.from_rle(row["mask_rle"], *image.shape[:2]) if row["mask_rle"] else None
    equal = cleaned == image if mask is None else cleaned[~mask] == image[~mask]
    row |= {"edited_rle": row["mask_rle"], "metadata_dropped": []}
    row["untouched"] = {"pixels_equal": bool(equal.all()), "jpeg_blocks_equal": None}
    return Done(row, cleaned, None, None)


def _of_file(row: StoredRow) -> Done:
    image = row.pop("image") or {"bytes": None, "path": None}
    return Done(row, None, image["bytes"], image["path"])


# --- what people hold ---


def held(image: object) -> Held:
    """What somebody holds, as `clean_held` takes it; a RowError where it is no image."""
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | PathLike | Named):
        return image
    if isinstance(image, dict) and {"bytes", "path"} & set(image):
        data, path = image.get("bytes"), image.get("path")
        if data is None:
            return RowError("empty", "neither bytes nor a path") if not path else str(path)
        return Named(bytes(data), str(path)) if path else bytes(data)
    if image is None or (isinstance(image, float) and np.isnan(image)):
        return RowError("empty", "there is no image in the row")
    try:
        return pixels_of(image if isinstance(image, Pil.Image) else np.asarray(image))
    except (ValueError, OSError, SyntaxError) as error:  # PIL decodes only now.
        return RowError("not_an_image", " ".join(str(error).split())[:200])


def named_like(given: str | None, name: str | None) -> str | None:
    """The path that somebody gave, with the ending that the output has."""
    if not given or name is None:
        return given
    return str(PurePosixPath(given).with_name(name))


def pixels_of(image: object) -> Image:
    """HWC uint8 RGB, upright, of a PIL image or such an array. Raises ValueError for anything else."""
    if isinstance(image, Pil.Image):
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"), np.uint8)
    if not isinstance(image, np.ndarray):
        how = "; open it: PIL.Image.open(path)" if isinstance(image, str | PathLike) else ""
        raise ValueError(f"an image is HWC uint8 RGB or a PIL image, not {type(image).__name__}{how}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"an image is HWC uint8 RGB, not {image.dtype} {image.shape}")
    return np.ascontiguousarray(image)


def like(pixels: Image, image: Pil.Image) -> Pil.Image:
    """The pixels as a PIL image in the mode of `image`: L and RGBA (alpha as it was), else RGB."""
    result = Pil.fromarray(pixels)
    if image.mode == "L":
        return result.convert("L")
    if image.mode == "RGBA":
        result.putalpha(ImageOps.exif_transpose(image).getchannel("A"))
    return result
