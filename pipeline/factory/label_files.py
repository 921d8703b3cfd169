"""Boxes, polygons and masks that a user has in a file, in the usual forms, as one table sorted by image.

Read once, where the run starts; workers get the table. Coordinates are kept as the file has them: they are checked
against the image when its row comes.

    rows   Parquet, JSON, JSON lines or CSV: one row a region, or one row an image with a list of regions
    coco   {"images": [...], "annotations": [...]}: bbox xywh, polygons, compressed or plain run lengths
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pycocotools import mask as coco

from cleanplate.pipeline.errors import ConfigError

Entry = dict[str, Any]
TABLE = pa.schema(
    [
        pa.field("name", pa.binary(), metadata={"doc": "the image: key below the root, uri or path"}),
        pa.field("label", pa.string()),
        pa.field("box", pa.list_(pa.float64()), metadata={"doc": "x0, y0, x1, y1"}),
        pa.field("polygons", pa.list_(pa.list_(pa.float64())), metadata={"doc": "x, y, x, y, ... each"}),
        pa.field("rle", pa.string(), metadata={"doc": "COCO compressed run lengths"}),
        pa.field("size", pa.list_(pa.int64()), metadata={"doc": "height, width that the file states"}),
        pa.field("shares", pa.bool_(), metadata={"doc": "coordinates are shares of the sides, not pixels"}),
    ]
)
_MARK = {b"cleanplate": b"given/1"}
NAMES = ("image", "file_name", "path", "file", "key", "source_uri", "image_path")
LISTS = ("regions", "boxes", "objects", "annotations")
LABELS = ("label", "kind", "category", "class", "name")


def packed(table: pa.Table) -> bytes:
    """The table as Parquet, known again by `table_of`."""
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(_MARK), sink, compression="zstd")
    return sink.getvalue()


def table_of(data: bytes, form: str, shares: bool = False) -> pa.Table:
    """A file's content as TABLE, sorted by name. form: auto, rows or coco. Raises ConfigError."""
    try:
        if data[:4] == b"PAR1":
            found = pq.read_table(io.BytesIO(data))
            if _MARK.items() <= (found.schema.metadata or {}).items():
                return found
            entries: Iterable[Entry] = _rows((r for b in found.to_batches() for r in b.to_pylist()), shares)
        else:
            content = decoded(data)
            is_coco = isinstance(content, dict) and "annotations" in content and "images" in content
            if form == "coco" and not is_coco:
                raise ValueError('no "images" and "annotations" in it')
            entries = _coco(content) if is_coco and form != "rows" else _rows(content, shares)
        table = pa.Table.from_pylist(list(entries), schema=TABLE)
    except (ValueError, KeyError, TypeError, IndexError, pa.ArrowException) as error:
        message = f"no key {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ConfigError(f"given.file cannot be read: {message[:300]}") from error
    return table.sort_by("name")


def decoded(data: bytes) -> Any:
    text = data.decode("utf-8-sig")
    start = text.lstrip()[:1]
    if start not in ("[", "{"):
        return list(csv.DictReader(io.StringIO(text)))
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]


def entry(name: str, label: Any = "", **shape: Any) -> Entry:
    blank = {"box": None, "polygons": None, "rle": None, "size": None, "shares": False}
    return {"name": os.fsencode(name), "label": str(label or ""), **blank, **shape}


def _rows(rows: Any, shares: bool) -> Iterator[Entry]:
    """Rows of any of the usual column names. A row without a region says: nothing in this image."""
    if isinstance(rows, dict):  # {"a.jpg": [[x0, y0, x1, y1], ...]}
        rows = [{"image": name, "regions": regions} for name, regions in rows.items()]
    for row in rows:
        name = image_of(row)
        regions = next((row[c] for c in LISTS if isinstance(row.get(c), list)), None)
        if regions is None:  # {"faces_xywh": [[x, y, width, height], ...]}
            regions = [
                {"bbox": box, "label": column.removesuffix("_xywh")}
                for column, boxes in row.items()
                if column.endswith("_xywh") and isinstance(boxes, list)
                for box in boxes
            ] or [row]
        shapes = [drawn for region in regions if (drawn := shape_of(region))]
        if not shapes:
            yield entry(name)
        for region, shape in zip(regions, shapes, strict=False):
            yield entry(name, label_of(region), shares=shares, **shape)


def image_of(row: dict[str, Any]) -> str:
    """The image that a row names. Raises ValueError."""
    name = next((row[c] for c in NAMES if isinstance(row.get(c), str)), None)
    if name is None:
        raise ValueError(
            f"a row names no image: give it a column {' or '.join(NAMES[:4])}; it has {list(row)}"
        )
    return str(name)


def label_of(region: Any) -> str:
    """The class of a region, "" where it has none."""
    found = next((region[c] for c in LABELS if region.get(c)), "") if isinstance(region, dict) else ""
    return str(found)


def shape_of(region: Any) -> Entry | None:
    """The pixels that a region names: a run-length code, polygons, or a box; None when it names none."""
    if isinstance(region, list):
        return {"box": _numbers(region, 4)}
    drawn = [
        region[column] for column in ("rle", "segmentation", "polygon", "polygons") if region.get(column)
    ]
    for value in drawn:
        if shape := _segmentation(value):
            return shape
    if region.get("box") not in (None, ""):
        return {"box": _numbers(region["box"], 4)}
    if region.get("bbox") not in (None, ""):
        return {"box": _corners(region["bbox"])}
    if all(region.get(c) not in (None, "") for c in ("x0", "y0", "x1", "y1")):
        return {"box": _numbers([region[c] for c in ("x0", "y0", "x1", "y1")], 4)}
    return (
        {"polygons": [[]]} if drawn else None
    )  # Drawn, but not to be read: its row fails, and is not "nothing here".


def _segmentation(value: Any) -> Entry | None:
    """A COCO segmentation: polygons, or run lengths as a string, or with their size, packed or plain. None for polygons
    of fewer than three points each, which many tools write: the box counts then."""
    if isinstance(value, str):
        return {"rle": value}
    if isinstance(value, dict):
        size, counts = [int(v) for v in value["size"]], value["counts"]
        if isinstance(counts, list):
            counts = coco.frPyObjects({"size": size, "counts": counts}, *size)["counts"]
        return {"rle": counts.decode() if isinstance(counts, bytes) else str(counts), "size": size}
    polygons = value if isinstance(value[0], list) and not _is_point(value) else [value]
    flat = [[float(v) for p in polygon for v in (p if isinstance(p, list) else [p])] for polygon in polygons]
    drawn = [polygon for polygon in flat if len(polygon) >= 6]
    return {"polygons": drawn} if drawn else None


def _is_point(value: list[Any]) -> bool:
    """True for [[x, y], [x, y], ...], which is one polygon."""
    return all(isinstance(v, list) and len(v) == 2 and not isinstance(v[0], list) for v in value)


def _coco(content: dict[str, Any]) -> Iterator[Entry]:
    images = {image["id"]: image for image in content["images"]}
    labels = {c["id"]: c.get("name", "") for c in content.get("categories", ())}
    empty = dict(images)
    for one in content["annotations"]:
        image = images[one["image_id"]]
        empty.pop(one["image_id"], None)
        shape = coco_shape(one, image)
        if shape is None:
            raise KeyError("bbox")
        yield entry(image["file_name"], labels.get(one.get("category_id"), ""), **shape)
    for image in empty.values():
        yield entry(image["file_name"])


def coco_shape(one: dict[str, Any], image: dict[str, Any]) -> Entry | None:
    """Where an annotation of COCO lies in its image; None for one without a place, as captions are."""
    shape = _segmentation(one["segmentation"]) if one.get("segmentation") else None
    if shape is None and one.get("bbox"):
        shape = {"box": _corners(one["bbox"])}
    if shape is not None and "height" in image and "width" in image:
        shape.setdefault("size", [int(image["height"]), int(image["width"])])
    return shape


def _corners(bbox: list[Any]) -> list[float]:
    x, y, width, height = _numbers(bbox, 4)
    return [x, y, x + width, y + height]


def _numbers(values: Any, count: int) -> list[float]:
    """Also from a cell of a CSV file: "20,20,50,40", "[20 20 50 40]"."""
    words = re.split(r"[\s,;]+", values.strip(" \t[](){}")) if isinstance(values, str) else values
    try:
        numbers = [float(word) for word in words]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != count:
        raise ValueError(
            f"a box is {count} numbers (x0, y0, x1, y1; bbox: x, y, width, height), in one cell or in columns x0, y0, "
            f"x1 and y1, not {str(values)[:60]!r}"
        )
    return numbers
