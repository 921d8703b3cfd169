"""Labels that a user has, read to be written again in the same form with some of them left out.

    coco   one JSON file; every key stays, annotations and images are filtered
    yolo   a folder; lines stay as they are, or go; files that are no labels (data.yaml, classes.txt) are copied
    rows   CSV, JSON, JSON lines or Parquet, one row a label or one row an image with a list of labels

`label_files` has the names and shapes that are understood: they are those of `given`.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from cleanplate.pipeline.errors import ConfigError, RowError, StorageError
from cleanplate.pipeline.factory import attachments, given, label_files
from cleanplate.pipeline.factory.label_files import Entry
from cleanplate.pipeline.recipe.run_sections import Labels as Rule
from cleanplate.pipeline.storage.connect import Store, open_store

REMOVED = "cleanplate_removed"
"""The column, or the key of a label, that holds the removed share of a flagged one."""


@dataclass(frozen=True)
class Label:
    """name: its image, as the file has it. entry: where it lies, None for one without a place. ident: its id, or its
    place in the file. what: its class."""

    name: str
    entry: Entry | None
    ident: str
    what: str


@dataclass(frozen=True)
class Verdict:
    """What becomes of a label. share: of it that was removed, 0..1, None where that is not known. why: "" where there
    is nothing to say."""

    kept: bool
    share: float | None = 0.0
    why: str = ""

    @property
    def flagged(self) -> bool:
        return self.kept and bool(self.why)


class Labels(Protocol):
    """names: key of an image -> numbers of its labels, in `labels`; also of images without labels."""

    labels: list[Label]
    names: dict[str, list[int]]

    def keys(self, name: str, uri: str) -> Iterable[str]:
        """What an image of this name and uri may be called in `names`."""
        ...

    def files(self, verdicts: Sequence[Verdict], pictures: dict[str, str]) -> Iterator[tuple[str, bytes]]:
        """(name, content) of the files to write. pictures: key in `names` -> name of the picture in the output, of the
        images that have one."""
        ...


def read(rule: Rule) -> Labels:
    """The labels that a recipe names. Raises ConfigError."""
    assert rule.file is not None
    try:
        if attachments.is_folder(rule.file):
            return Yolo(open_store(rule.file))
        data = attachments.content(rule.file)
    except (StorageError, RowError) as error:
        raise ConfigError(f"labels.file: {error}") from error
    name = PurePosixPath(rule.file.replace(os.sep, "/")).name
    try:
        if data[:4] == b"PAR1":
            return Rows(name, _from_parquet(data), rule.shares)
        content = label_files.decoded(data)
        is_coco = isinstance(content, dict) and "annotations" in content and "images" in content
        if rule.form == "coco" and not is_coco:
            raise ValueError('no "images" and "annotations" in it')
        return (
            Coco(name, content)
            if is_coco and rule.form != "rows"
            else Rows(name, _Text(data, content), rule.shares)
        )
    except (ValueError, KeyError, TypeError, IndexError, pa.ArrowException) as error:
        message = f"no key {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ConfigError(f"labels.file cannot be read: {message[:300]}") from error


class Coco:
    """A COCO file. Annotations without a place (captions) go with their image."""

    def __init__(self, name: str, content: dict[str, Any]) -> None:
        self.name, self.content = name, content
        images = {image["id"]: image for image in content["images"]}
        classes = {c["id"]: str(c.get("name", "")) for c in content.get("categories", ())}
        self.labels: list[Label] = []
        self.names: dict[str, list[int]] = {image["file_name"]: [] for image in images.values()}
        for n, one in enumerate(content["annotations"]):
            image = images.get(one["image_id"])
            if image is not None:
                self.names[image["file_name"]].append(n)
            shape = label_files.coco_shape(one, image or {})
            what = classes.get(one.get("category_id"), "")
            where = None if shape is None else label_files.entry("", what, **shape)
            self.labels.append(Label(image["file_name"] if image else "", where, str(one.get("id", n)), what))

    def keys(self, name: str, uri: str) -> Iterable[str]:
        return given.spellings(name, uri)

    def files(self, verdicts: Sequence[Verdict], pictures: dict[str, str]) -> Iterator[tuple[str, bytes]]:
        images = [
            image
            if image["file_name"] == pictures[image["file_name"]]
            else {**image, "file_name": pictures[image["file_name"]]}
            for image in self.content["images"]
            if image["file_name"] in pictures
        ]
        annotations = [
            {**one, REMOVED: round(verdict.share, 4)} if verdict.flagged and verdict.share else one
            for one, verdict in zip(self.content["annotations"], verdicts, strict=True)
            if verdict.kept
        ]
        body = {**self.content, "images": images, "annotations": annotations}
        yield self.name, json.dumps(body, ensure_ascii=False).encode()


class Yolo:
    """A folder of YOLO labels."""

    def __init__(self, store: Store) -> None:
        self.others: dict[str, bytes] = {}
        self.lines: dict[str, list[str]] = {}
        self.labels: list[Label] = []
        self.names: dict[str, list[int]] = {}
        for item in store.list():
            data = store.get(item.key)
            if not item.key.endswith(".txt") or PurePosixPath(item.key).name in (
                "classes.txt",
                "train.txt",
                "val.txt",
            ):
                if item.size < _COPIED and not item.key.lower().endswith(_PICTURES):
                    self.others[item.key] = data
                continue
            entries = given.yolo_lines(data, item.key)
            self.lines[item.key] = [
                line for line in data.decode("utf-8", "replace").splitlines() if line.split()
            ]
            first = len(self.labels)
            self.names[item.key] = list(range(first, first + len(entries)))
            for n, one in enumerate(entries):
                self.labels.append(Label(item.key, one, f"line {n + 1}", one["label"]))
        if not self.names:
            raise ConfigError(f"labels.file: {store.url} holds no YOLO labels (.txt)")

    def keys(self, name: str, uri: str) -> Iterable[str]:
        return given.label_keys(name)

    def files(self, verdicts: Sequence[Verdict], pictures: dict[str, str]) -> Iterator[tuple[str, bytes]]:
        yield from self.others.items()
        for key, numbers in self.names.items():
            if key not in pictures:
                continue
            kept = [line for line, n in zip(self.lines[key], numbers, strict=True) if verdicts[n].kept]
            stem = PurePosixPath(pictures[key]).stem  # A picture with another name takes its labels along.
            place = PurePosixPath(key).with_name(f"{stem}.txt") if stem else PurePosixPath(key)
            yield str(place), "".join(f"{line}\n" for line in kept).encode()


_COPIED, _PICTURES = (
    1 << 20,
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".heic", ".avif"),
)


class _Table(Protocol):
    """rows: of the file. written: the file again, of some rows with some columns changed."""

    rows: list[dict[str, Any]]

    def written(self, rows: list[dict[str, Any]], changed: bool) -> bytes: ...


class _Text:
    """CSV, JSON or JSON lines; also {"a.jpg": [...], ...}."""

    def __init__(self, data: bytes, content: Any) -> None:
        text = data.decode("utf-8-sig").lstrip()
        self.mapping = isinstance(content, dict)
        self.csv = text[:1] not in ("[", "{")
        self.lines = not self.csv and not self.mapping and text[:1] == "{"
        self.columns = (csv.DictReader(io.StringIO(text)).fieldnames or []) if self.csv else []
        rows = [{"image": k, "regions": v} for k, v in content.items()] if self.mapping else content
        self.rows: list[dict[str, Any]] = list(rows)

    def written(self, rows: list[dict[str, Any]], changed: bool) -> bytes:
        if self.csv:
            out = io.StringIO(newline="")
            columns = (
                [*self.columns, REMOVED] if changed and REMOVED not in self.columns else list(self.columns)
            )
            writer = csv.DictWriter(out, columns, lineterminator="\n", restval="")
            writer.writeheader()
            writer.writerows(rows)
            return out.getvalue().encode()
        if self.mapping:
            return json.dumps({row["image"]: row["regions"] for row in rows}, ensure_ascii=False).encode()
        if self.lines:
            return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        return json.dumps(rows, ensure_ascii=False).encode()


class _Parquet:
    """Parquet: the same columns and types, and one more where a label is flagged."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.rows: list[dict[str, Any]] = table.to_pylist()

    def written(self, rows: list[dict[str, Any]], changed: bool) -> bytes:
        schema = self.table.schema
        if changed and REMOVED not in schema.names:
            schema = schema.append(pa.field(REMOVED, pa.float64()))
        out = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), out)
        return out.getvalue()


def _from_parquet(data: bytes) -> _Parquet:
    return _Parquet(pq.read_table(io.BytesIO(data)))


class Rows:
    """A table, one row a label or one row an image with one or several lists of labels."""

    def __init__(self, name: str, table: _Table, shares: bool) -> None:
        self.name, self.table = name, table
        self.labels: list[Label] = []
        self.names: dict[str, list[int]] = {}
        self.places: list[tuple[int, str | None, int]] = []  # row, list's column, place in the list
        for at, row in enumerate(table.rows):
            image = label_files.image_of(row)
            numbers = self.names.setdefault(image, [])
            for column, n, region, shape in _regions(row):
                numbers.append(len(self.labels))
                self.places.append((at, column, n))
                what = label_files.label_of(region if isinstance(region, dict) else row)
                where = None if shape is None else label_files.entry("", what, shares=shares, **shape)
                ident = str(region.get("id", "")) if isinstance(region, dict) else ""
                place = f"row {at + 1}" if column is None else f"row {at + 1}, {column} {n + 1}"
                self.labels.append(Label(image, where, ident or place, what))

    def keys(self, name: str, uri: str) -> Iterable[str]:
        return given.spellings(name, uri)

    def files(self, verdicts: Sequence[Verdict], pictures: dict[str, str]) -> Iterator[tuple[str, bytes]]:
        by_row: dict[int, list[tuple[str | None, int, Verdict]]] = {}
        for (at, column, n), verdict in zip(self.places, verdicts, strict=True):
            by_row.setdefault(at, []).append((column, n, verdict))
        rows, changed = [], False
        for at, row in enumerate(self.table.rows):
            mine = by_row.get(at, [])
            alone = [v for column, _, v in mine if column is None]
            if label_files.image_of(row) not in pictures or any(not v.kept for v in alone):
                continue
            share = next((v.share for v in alone if v.flagged and v.share), None)
            changed = changed or share is not None
            lists = {column for column, _, _ in mine if column is not None}
            new = {c: [x for n, x in enumerate(row[c]) if _kept(mine, c, n)] for c in lists}
            rows.append({**row, **new, **({REMOVED: round(share, 4)} if share is not None else {})})
        yield self.name, self.table.written(rows, changed)


def _kept(mine: list[tuple[str | None, int, Verdict]], column: str, number: int) -> bool:
    return next((v.kept for c, n, v in mine if (c, n) == (column, number)), True)


def _regions(row: dict[str, Any]) -> Iterator[tuple[str | None, int, Any, Entry | None]]:
    """(list's column or None, place in it, the region as it stands, its shape) of a row."""
    column = next((c for c in label_files.LISTS if isinstance(row.get(c), list)), None)
    if column is not None:
        yield from ((column, n, region, label_files.shape_of(region)) for n, region in enumerate(row[column]))
        return
    boxes = [c for c, v in row.items() if c.endswith("_xywh") and isinstance(v, list)]
    for column in boxes:
        for n, box in enumerate(row[column]):
            region = {"bbox": box, "label": column.removesuffix("_xywh")}
            yield column, n, region, label_files.shape_of(region)
    shape = None if boxes else label_files.shape_of(row)
    if not boxes and (shape is not None or label_files.label_of(row)):  # Else: "nothing in this image".
        yield None, 0, row, shape
