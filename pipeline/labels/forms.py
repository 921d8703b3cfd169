"""Labels that a user has, read to be written again in the same form with some of them left out.

    coco   one JSON file; every key stays, annotations and images are filtered
    yolo   a folder; lines stay as they are, or go; files that are no labels (data.yaml, classes.txt) are copied
    rows   CSV, JSON, JSON lines or Parquet, one row a label or one row an image with a list of labels

`label_files` has the names and shapes that are understood: they are those of `given`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from cleanplate.pipeline.errors import ConfigError, RowError, StorageError
from cleanplate.pipeline.factory import attachments, given, label_files
from cleanplate.pipeline.labels.label import REMOVED, Label, Labels, Verdict
from cleanplate.pipeline.labels.tables import Rows, TextTable, from_parquet
from cleanplate.pipeline.recipe.run_sections import Labels as Rule
from cleanplate.pipeline.storage.connect import Store, open_store


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
            return Rows(name, from_parquet(data), rule.shares)
        content = label_files.decoded(data)
        is_coco = isinstance(content, dict) and "annotations" in content and "images" in content
        if rule.form == "coco" and not is_coco:
            raise ValueError('no "images" and "annotations" in it')
        return (
            Coco(name, content)
            if is_coco and rule.form != "rows"
            else Rows(name, TextTable(data, content), rule.shares)
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
