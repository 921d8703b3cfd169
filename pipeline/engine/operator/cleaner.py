"""`Cleaner`: a recipe as one operator over batches, for Ray Data, Daft, `datasets` or a loop of your own.

A batch is columns: a dict of lists or numpy arrays, a pandas DataFrame, a pyarrow Table. The same form comes back, with
five columns more. Every other column passes as it is, and every row comes out: a bad one carries its reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image as Pil

from cleanplate.models.devices import limit_threads
from cleanplate.pipeline import schema
from cleanplate.pipeline.engine.operator import held_images, results
from cleanplate.pipeline.engine.operator.held_images import AnyRecipe, Done, recipe_of
from cleanplate.pipeline.errors import ConfigError

ADDED = ("cleaned", "status", "reason", "regions", "provenance")
_PROVENANCE = pa.struct([schema.COLUMNS[name] for name in results.PROVENANCE])
_TYPES = {
    "status": pa.string(),
    "reason": pa.string(),
    "regions": schema.COLUMNS["regions"].type,
    "provenance": _PROVENANCE,
}
_NONE = np.zeros((0, 0, 3), np.uint8)
"""The picture of a failed row among arrays: tensor columns have no nulls."""


class Cleaner:
    """Cleans a column of images, batch by batch: `ds.map_batches(Cleaner, fn_constructor_kwargs={...}, ...)`.

    column: encoded files (bytes, or structs of bytes and path as `datasets` has them), paths, HWC uint8 RGB arrays
    (tensor columns), or PIL images. The batch comes back in its own form, with these columns, each after `prefix`:
        cleaned     the picture in the form in which it came; of a failed or skipped row null, among arrays 0 x 0 x 3
        status      unchanged, cleaned, hidden, residual, skipped or failed
        reason      why it failed or was skipped, or what is still found; "" else
        regions     what was found and removed: kind, detector, score, box (xyxy pixels, upright), area_px, rle, by
        provenance  hashes, masks, detectors, fillers, weights, recipe: the columns of docs/columns.md
    threads: of the networks and of OpenCV, None: what OMP_NUM_THREADS says (Ray sets it to an actor's CPUs). For a GPU
    give the recipe `engine.gpus: 1`, and the actor `num_gpus`.

    Models are loaded with the object, once a process. Raises ConfigError and WeightsError then, and ConfigError for a
    batch without the column, or with a column of a name that is added.
    """

    def __init__(
        self, recipe: AnyRecipe = None, *, column: str = "image", prefix: str = "", threads: int | None = None
    ) -> None:
        self._arguments = (recipe, column, prefix, threads)
        self.column, self.prefix = column, prefix
        settings = recipe_of(recipe)
        if column in self._names():
            raise ConfigError(f"the column {column!r} has the name of an added one: give a prefix")
        named = os.environ.get("OMP_NUM_THREADS", "")
        if threads is not None or named.isdigit():
            limit_threads(max(1, int(named) if threads is None else threads))
        self._tools = held_images.opened(settings)

    def __reduce__(self) -> tuple[Callable[..., Cleaner], tuple[Any, ...]]:
        return _again, self._arguments  # Networks do not travel: the other process opens its own.

    def __call__(self, batch: Any) -> Any:
        """The batch with the added columns. batch: a mapping of columns, a pandas DataFrame, a pyarrow Table or
        RecordBatch (a Table comes back)."""
        if isinstance(batch, pa.RecordBatch):
            batch = pa.Table.from_batches([batch])
        names = batch.column_names if isinstance(batch, pa.Table) else list(batch)
        self._check(names)
        column = batch[self.column]
        images = _values(column)
        done = held_images.clean_held([held_images.held(image) for image in images], self._tools)
        pictures = [_as_came(one, image) for one, image in zip(done, images, strict=True)]
        values: list[list[Any]] = [
            [one.row["status"] for one in done],
            [results.why_of(one.row) for one in done],
            [one.row["regions"] or [] for one in done],
            [results.provenance_of(one.row) for one in done],
        ]
        first, *others = self._names()
        if isinstance(batch, pa.Table):
            batch = batch.append_column(first, _arrow_like(column, pictures))
            for name, plain, some in zip(others, ADDED[1:], values, strict=True):
                batch = batch.append_column(name, pa.array(some, _TYPES[plain]))
            return batch
        if not isinstance(batch, Mapping):  # pandas
            return batch.assign(
                **{first: _objects(pictures)}, **dict(zip(others, map(_objects, values), strict=True))
            )
        form = _array if isinstance(column, np.ndarray) else list
        return {**batch, first: form(pictures), **dict(zip(others, map(form, values), strict=True))}

    def _names(self) -> list[str]:
        return [self.prefix + name for name in ADDED]

    def _check(self, names: Sequence[str]) -> None:
        """Raises ConfigError for a batch that the columns do not fit."""
        if self.column not in names:
            raise ConfigError(
                f"no column {self.column!r} in the batch, which has {', '.join(map(str, names))}: name it, column=..."
            )
        if taken := [name for name in self._names() if name in names]:
            raise ConfigError(f"the batch has a column {taken[0]!r} already: give a prefix, prefix='clean_'")


def _again(recipe: AnyRecipe, column: str, prefix: str, threads: int | None) -> Cleaner:
    return Cleaner(recipe, column=column, prefix=prefix, threads=threads)


def _values(column: Any) -> list[Any]:
    """The cells of a column, in Python: bytes, dicts, strings, HWC arrays, None."""
    if isinstance(column, pa.ChunkedArray):
        return [value for chunk in column.chunks for value in _values(chunk)]
    if isinstance(column, pa.FixedShapeTensorArray):
        there = column.is_valid().to_pylist()
        cells = column.to_numpy_ndarray()
        return [cell if ok else None for cell, ok in zip(cells, there, strict=True)]
    if isinstance(column, pa.Array):
        return list(column.to_pylist())
    return list(column)


def _as_came(done: Done, image: Any) -> Any:
    """The cleaned picture in the form of what came in; None where there is none."""
    if isinstance(image, Pil.Image):
        return None if done.pixels is None else held_images.like(done.pixels, image)
    if isinstance(image, dict) and done.data is not None:
        return {"bytes": done.data, "path": held_images.named_like(image.get("path"), done.name)}
    if isinstance(image, bytes | bytearray | memoryview | str | dict | os.PathLike):
        return done.data
    # What is none of these is an array, or something that was taken for one and failed.
    return done.pixels if done.pixels is not None else _NONE if _is_array(image) else None


def _is_array(image: Any) -> bool:
    """Also of a cell of a tensor column of pandas, which is no ndarray itself."""
    return isinstance(image, np.ndarray) or (hasattr(image, "__array__") and np.ndim(image) > 0)


def _objects(values: Sequence[Any]) -> Any:
    """1-D object array: numpy itself would stack lists of one length."""
    out = np.empty(len(values), object)
    for n, value in enumerate(values):
        out[n] = value
    return out


def _array(values: Sequence[Any]) -> Any:
    """As Ray's numpy batches have columns: pictures of one size stacked."""
    shapes = {value.shape if isinstance(value, np.ndarray) else None for value in values}
    return np.stack(values) if len(shapes) == 1 and None not in shapes else _objects(values)


def _arrow_like(column: pa.ChunkedArray, pictures: Sequence[Any]) -> pa.Array:
    """The pictures as a column of the type in which they came."""
    kind = column.type
    if isinstance(kind, pa.FixedShapeTensorType):
        flat = [np.zeros(kind.shape, np.uint8) if not one.size else one for one in pictures]
        cells = pa.array(np.stack(flat).reshape(-1) if flat else [], pa.uint8())
        absent = pa.array([not one.size for one in pictures], pa.bool_())
        storage = pa.FixedSizeListArray.from_arrays(cells, int(np.prod(kind.shape)), mask=absent)
        return pa.ExtensionArray.from_storage(kind, storage)
    if isinstance(kind, pa.BaseExtensionType):  # Another engine's tensors: its own class packs them.
        return type(column.chunk(0)).from_numpy(_array(pictures)) if pictures else pa.array([], kind)
    return pa.array(pictures, pa.binary() if pa.types.is_string(kind) else kind)
