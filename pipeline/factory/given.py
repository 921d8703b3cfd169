"""given: the regions that a user has already, looked up for each row by the name of its image.

An image that the file or folder does not name has nothing to remove; its `detectors` say "given: no entry". A box or
polygon that reaches beyond the edge is cut, a box without area is ignored, and `detectors` say how many. What is named
but cannot be (all of it outside the picture, a mask of another size) is an error of that row.

A file's table is held by each worker as Arrow (about 100 bytes a box). Of a folder, each image's own file is read
when its row comes: NAME.txt of YOLO (NAME without its ending; images/ may stand for labels/), or a mask NAME.png or
one named as the image, not black = remove. All of them in the upright picture.
"""

from __future__ import annotations

import heapq
import io
import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote_to_bytes

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image as PilImage

from cleanplate.models.segmenters.masks import polygon_mask
from cleanplate.models.types import Mask, Region
from cleanplate.pipeline.errors import ConfigError, RowError, StorageError
from cleanplate.pipeline.factory.label_files import Entry, entry
from cleanplate.pipeline.images import rle
from cleanplate.pipeline.recipe.kind_sections import Given as GivenRule
from cleanplate.pipeline.schema.rows import Row
from cleanplate.pipeline.storage.address import inner_of, key_of
from cleanplate.pipeline.storage.connect import Store, open_store

Lookup = Callable[[str, str], list[Entry] | None]
"""(name below the root, uri) -> the image's entries; None when it has none at all."""
NO_ENTRY = "given: no entry"
_FAR = 1e6
_SLACK = 1.0
"""Pixels: boxes are rounded in many ways."""


class Given:
    """Looks up rows. root: url of the folder that the names are relative to, "" for one image's own folder."""

    def __init__(self, lookup: Lookup, root: str) -> None:
        self._lookup = lookup
        self._root = open_store(root).uri("").rstrip("/") + "/" if root else ""

    def __call__(self, row: Row) -> tuple[str, list[Region]]:
        """(what looked, the regions) of a row with source_uri, height and width. Raises RowError."""
        uri = row["source_uri"]
        entries = self._lookup(name_of(uri, self._root), uri)
        if entries is None:
            return NO_ENTRY, []
        counts: Counter[str] = Counter()
        found = [r for one in entries for r in regions_of(one, row["height"], row["width"], counts)]
        summary = ", ".join(f"{count} {what}" for what, count in counts.items())
        return f"given: {summary}" if summary else "given", found


def name_of(uri: str, root: str) -> str:
    """The name below the root (its uri, with a slash at the end), as a listing gives it; of an image in a container
    "train.parquet/000012", "shard.tar/cat/001.jpg"."""
    if (inner := inner_of(uri)) is not None:
        return key_of(uri, root if inner.container.startswith(root) else inner.container.rpartition("/")[0])
    name = uri.removeprefix(root) if root and uri.startswith(root) else uri.rpartition("/")[2]
    return os.fsdecode(unquote_to_bytes(name)) if uri.startswith("file://") else name


def spellings(name: str, uri: str) -> tuple[str, ...]:
    """What a file may call an image: its name below the root, its uri, its path, a tar's member by itself."""
    inner = inner_of(uri)
    path = os.fsdecode(unquote_to_bytes(uri.removeprefix("file://")))
    return (name, uri, path, *((inner.member,) if inner and inner.member else ()))


def in_table(table: pa.Table) -> Lookup:
    """Entries of a table as given_files.table_of makes it."""
    names = table["name"].combine_chunks()

    def place(name: bytes) -> int:
        return bisect_left(range(len(names)), name, key=lambda i: names[i].as_py())

    def lookup(name: str, uri: str) -> list[Entry] | None:
        for known in spellings(name, uri):
            key = os.fsencode(known)
            start, stop = place(key), place(key + b"\0")
            if stop > start:
                return list(table.slice(start, stop - start).to_pylist())
        return None

    return lookup


def in_folder(store: Store, form: str) -> Lookup:
    """Entries of a folder of label files (form yolo) or mask images (masks). Raises ConfigError when nothing is in
    it: a folder that a worker does not see must not look like one that names nothing."""
    try:
        first = next(iter(store.list()), None)
    except StorageError as error:
        raise ConfigError(f"given.file: {error}") from error
    if first is None:
        raise ConfigError(f"given.file: {store.url} is empty or not in sight of this machine")

    def lookup(name: str, uri: str) -> list[Entry] | None:
        for key in label_keys(name) if form == "yolo" else _mask_keys(name):
            try:
                data = store.get(key)
            except StorageError as error:
                if error.kind == "missing":
                    continue
                raise
            return yolo_lines(data, key) if form == "yolo" else [_mask_entry(data, key)]
        return None

    return lookup


def form_of(store: Store) -> str:
    """What a folder holds, by its first hundred files: yolo or masks. Raises ConfigError."""
    names = [item.key for item, _ in zip(store.list(), range(100), strict=False)]
    if any(name.endswith(".txt") for name in names):
        return "yolo"
    if any(PurePosixPath(name).suffix.lower() in (".png", ".bmp", ".tif", ".tiff", ".jpg") for name in names):
        return "masks"
    raise ConfigError(f"given.file: {store.url} holds neither YOLO labels (.txt) nor mask images")


def label_keys(name: str) -> Iterator[str]:
    path = PurePosixPath(name).with_suffix(".txt")
    yield str(path)
    if "images" in path.parts:
        at = len(path.parts) - 1 - path.parts[::-1].index("images")
        parts = (*path.parts[:at], "labels", *path.parts[at + 1 :])
        yield str(PurePosixPath(*parts))
        yield str(PurePosixPath(*parts[at + 1 :]))


def _mask_keys(name: str) -> list[str]:
    path = PurePosixPath(name)
    return list(dict.fromkeys([str(path.with_suffix(".png")), name, f"{name}.png"]))


def yolo_lines(data: bytes, key: str) -> list[Entry]:
    """Lines "class cx cy w h" (a box), or "class x y x y x y ..." (a polygon), in shares of the sides."""
    entries = []
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            values = [float(word) for word in words[1:]]
        except ValueError:
            values = []
        if len(values) in (4, 5):  # The fifth is a prediction's confidence.
            x, y, w, h = values[:4]
            entries.append(
                entry(key, words[0], box=[x - w / 2, y - h / 2, x + w / 2, y + h / 2], shares=True)
            )
        elif len(values) >= 6 and len(values) % 2 == 0:
            entries.append(entry(key, words[0], polygons=[values], shares=True))
        else:
            raise RowError("given", f"line {number} of {key} is no YOLO label")
    return entries


def _mask_entry(data: bytes, key: str) -> Entry:
    try:
        with PilImage.open(io.BytesIO(data)) as image:
            lossy = image.format == "JPEG"
            levels = np.asarray(image.convert("L"))
    except (OSError, ValueError, PilImage.DecompressionBombError) as error:
        raise RowError("given", f"the mask {key} does not open: {error}") from error
    return {"mask": levels > (127 if lossy else 0), "label": "mask"}


def regions_of(one: Entry, height: int, width: int, counts: Counter[str]) -> list[Region]:
    """The regions of an entry in an image of this size. counts: what was cut or ignored. Raises RowError for what
    does not fit it."""
    if one.get("size") and tuple(one["size"]) != (height, width):
        raise RowError(
            "given", f"made for {one['size'][1]} x {one['size'][0]}, the picture is {width} x {height}"
        )
    name = f"given:{one['label']}" if one["label"] else "given"
    if one.get("mask") is not None:
        return _parts(_fitting(one["mask"], height, width), name)
    scale = np.array([width, height] if one["shares"] else [1.0, 1.0])
    if one["rle"]:
        try:
            return _parts(rle.from_rle(one["rle"], height, width), name)
        except ValueError as error:
            raise RowError("given", f"a run-length mask does not fit: {error}") from error
    if one["polygons"]:
        mask = np.zeros((height, width), np.bool_)
        for polygon in one["polygons"]:
            if len(polygon) < 6 or len(polygon) % 2:
                raise RowError("given", f"a polygon of {len(polygon)} numbers")
            points = np.reshape(polygon, (-1, 2)) * scale
            _inside(points, height, width, counts)
            mask |= polygon_mask((height, width), np.clip(points, -_FAR, _FAR))  # Which cuts it right.
        return _parts(mask, name)
    if one["box"]:
        (left, top), (right, bottom) = (np.reshape(one["box"], (2, 2)) * scale).tolist()
        if left >= right or top >= bottom:
            counts["without area, ignored"] += 1
            return []
        box = _inside(np.array([[left, top], [right, bottom]]), height, width, counts)
        (x0, y0), (x1, y1) = box.tolist()
        return [Region("given", name, 1.0, (x0, y0, x1, y1))]
    return []


def _fitting(mask: Mask, height: int, width: int) -> Mask:
    if mask.shape != (height, width):
        message = f"a mask of {mask.shape[1]} x {mask.shape[0]}, the picture is {width} x {height}"
        raise RowError("given", message)
    return mask


def _inside(points: Any, height: int, width: int, counts: Counter[str]) -> Any:
    """N x 2 points, cut to the picture. Raises RowError where one is not finite, or all lie outside: coordinates of a
    picture of another size are likelier than a thing that nobody can see."""
    most = np.array([width, height], np.float64)
    low, high = points.min(0), points.max(0)
    if not np.isfinite(points).all() or (high <= 0).any() or (low >= most).any():
        raise RowError(
            "given",
            f"{np.round(low, 1).tolist()} to {np.round(high, 1).tolist()} lies outside the picture of "
            f"{width} x {height}",
        )
    if (low < -_SLACK).any() or (high > most + _SLACK).any():
        counts["cut to the picture"] += 1
    return np.clip(points, 0, most)


class Unmatched:
    """Counts the names of `given.file` that no image of a source has. summary: empty while there is nothing to say."""

    def __init__(self) -> None:
        self.summary: dict[str, Any] = {}
        self._names: set[bytes] = set()
        self._root, self._form, self._named, self._without_area = "", "", 0, 0

    def begin(self, rule: GivenRule, table: pa.Table | None, store: Store | None) -> None:
        """table: of a file; store: of a folder; neither: nothing is given."""
        self._root = open_store(rule.root).uri("").rstrip("/") + "/" if rule.root else ""
        if table is not None:
            self._names = set(table["name"].to_pylist())
            corners = [pc.list_element(table["box"].filter(pc.is_valid(table["box"])), n) for n in range(4)]
            flat = pc.or_(pc.greater_equal(corners[0], corners[2]), pc.greater_equal(corners[1], corners[3]))
            self._without_area = pc.sum(flat).as_py() or 0
        elif store is not None:
            self._form = rule.form if rule.form in ("yolo", "masks") else form_of(store)
            self._names = {os.fsencode(item.key) for item in store.list() if self._is_label(item.key)}
        self._named = len(self._names)

    def _is_label(self, key: str) -> bool:
        return self._form != "yolo" or (key.endswith(".txt") and PurePosixPath(key).name != "classes.txt")

    def see(self, uri: str) -> None:
        """An image of the source."""
        if not self._names:
            return
        name = name_of(uri, self._root)
        keys = {"yolo": label_keys, "masks": _mask_keys}.get(self._form)
        for key in keys(name) if keys else spellings(name, uri):
            self._names.discard(os.fsencode(key))

    def end(self) -> None:
        """After the last image."""
        if self._names or self._without_area:
            examples = [os.fsdecode(name) for name in heapq.nsmallest(3, self._names)]
            self.summary = {"named": self._named, "unmatched": len(self._names), "examples": examples}
            self.summary["without_area"] = self._without_area


def _parts(mask: Mask, name: str) -> list[Region]:
    """A region for each connected part, so that limits of area and place hold for each; one for specks."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count > 64:
        box = rle.box_of(mask)
        return [Region("given", name, 1.0, box, mask)] if box else []
    return [
        Region("given", name, 1.0, (float(x), float(y), float(x + w), float(y + h)), labels == n)
        for n, (x, y, w, h, _) in enumerate(stats.tolist())
        if n
    ]
