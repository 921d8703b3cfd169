"""Labels in a table: CSV, JSON, JSON lines or Parquet, one row a label or one row an image with lists of labels."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from cleanplate.pipeline.factory import given, label_files
from cleanplate.pipeline.factory.label_files import Entry
from cleanplate.pipeline.labels.label import REMOVED, Label, Verdict


class _Table(Protocol):
    """rows: of the file. written: the file again, of some rows with some columns changed."""

    rows: list[dict[str, Any]]

    def written(self, rows: list[dict[str, Any]], changed: bool) -> bytes: ...


class TextTable:
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


class _ParquetTable:
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


def from_parquet(data: bytes) -> _ParquetTable:
    return _ParquetTable(pq.read_table(io.BytesIO(data)))


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
