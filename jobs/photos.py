"""Photographs to train on and to measure with: from a folder, from S3, or out of Parquet parts."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from cleanplate.models.training.data import IMAGE_SUFFIXES, Photo, choose_photos, hold_out, name_of
from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.storage.connect import open_store

INDEX = "INDEX.csv"
LEAVE_OUT = (
    "names (source/file), one a line: photographs with a credit of their own, which would teach wrongly"
)


def add_arguments(
    parser: argparse.ArgumentParser, *, out: str, metavar: str = "OUT", split: str = "test", seed: int = 2026
) -> None:
    """What every measurement on photographs is asked: which, where its results go, and the seed."""
    add = parser.add_argument
    where = f"a folder or s3://... of images or Parquet parts; with {INDEX}, the rows of --split"
    add("photos", metavar="PHOTOS", help=where)
    add("out", type=Path, metavar=metavar, help=out)
    add("--split", default=split, help=f"which rows of {INDEX} (default %(default)s)")
    add("--seed", type=int, default=seed, help="another seed, other draws (default %(default)s)")


def open_photos(url: str, split: str) -> list[Photo]:
    """The photographs at a local folder or s3://bucket/prefix, listed but not read.

    A place with INDEX.csv (columns path, source, split) gives its rows of that split. One with Parquet files
    gives the rows of these that have an image: a struct column `image` with `bytes`, as in the parts that
    `cleanplate run` writes and in Hugging Face datasets. Any other gives all its image files, each
    folder one source. Raises ConfigError when nothing is found, StorageError.
    """
    store = open_store(url)
    keys = [entry.key for entry in store.list()]
    index = store.get(INDEX).decode("utf-8") if INDEX in keys else None
    parts = sorted(key for key in keys if key.endswith(".parquet"))
    if parts and index is None:
        photos = [photo for key in parts for photo in _rows(store.url, key)]
    else:
        photos = [
            Photo(PurePosixPath(key).name, source, partial(store.get, key))
            for key, source in choose_photos(keys, index, split)
        ]
    if not photos:
        what = f"of split {split!r} in {INDEX}" if index is not None else f"({sorted(IMAGE_SUFFIXES)})"
        raise ConfigError(f"no photographs {what} in {url}")
    return photos


def parted(
    url: str, validation_share: float, leave_out: Path | None = None
) -> tuple[list[Photo], list[Photo]]:
    """(to train on, held out) of split=train, less those that a file names, source/file one a line; the others are
    held out or not whatever it names. Raises as open_photos, ConfigError also when the file cannot be read."""
    kept, held = hold_out(open_photos(url, "train"), validation_share)
    if leave_out is None:
        return kept, held
    try:
        names = set(leave_out.read_text(encoding="utf-8").split("\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--leave-out {leave_out}: {error}") from error
    return [p for p in kept if name_of(p) not in names], [p for p in held if name_of(p) not in names]


def _rows(url: str, key: str) -> list[Photo]:
    names = _part(url, key, "names")
    source = str(PurePosixPath(key).parent)
    return [Photo(name, source, _reader(url, key, row)) for row, name in enumerate(names) if name is not None]


def _reader(url: str, key: str, row: int) -> Callable[[], bytes]:
    return lambda: bytes(_part(url, key, "bytes")[row].as_py())


@lru_cache(maxsize=4)
def _part(url: str, key: str, what: str) -> Any:
    """A part's names (None for rows without an image) or its encoded images; the last few parts are kept."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    store = open_store(url)
    try:
        table = pq.read_table(pa.BufferReader(store.get(key)))
        images = table.column("image").combine_chunks()
        if what == "bytes":
            return images.field("bytes")
    except (pa.ArrowException, KeyError, OSError) as error:
        raise ConfigError(
            f"{store.uri(key)}: no Parquet file with an `image` struct of `bytes`: {error}"
        ) from error
    uris = table.column("source_uri").to_pylist() if "source_uri" in table.column_names else None
    fallback = f"{PurePosixPath(key).stem}-{{}}"
    names: list[str | None] = []
    for row, image in enumerate(images.field("bytes")):
        known = uris[row] if uris else None
        name = PurePosixPath(unquote(known)).name if known else fallback.format(row)
        names.append(name if image.is_valid else None)
    return names
