"""What a run found and masked, as other tools read it: COCO, YOLO, CSV, Label Studio.

Boxes are those of `regions`, masks their run lengths. Names are keys below the source, so that a COCO file or a YOLO
folder goes back in as `given.file`, or as `--labels` of another run over the same source.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

from cleanplate.pipeline.factory import given
from cleanplate.pipeline.ledger import ledger
from cleanplate.pipeline.storage.connect import Store

_COLUMNS = ["image_id", "source_uri", "width", "height", "status", "regions"]
Row = dict[str, Any]


def rows_of(output: Store, root: str) -> Iterator[tuple[str, Row]]:
    """(name below the root, row) of every image whose size is known, newest attempts only. root: uri with a slash at
    its end."""
    for table in ledger.rows(output, _COLUMNS):
        for row in table.to_pylist():
            if row["width"]:
                yield given.name_of(row["source_uri"], root), row


def coco(rows: Iterator[tuple[str, Row]]) -> Iterator[tuple[str, bytes]]:
    """One file. Annotations have score, detector and, where there is one, the mask as run lengths."""
    images: list[Row] = []
    annotations: list[Row] = []
    kinds = _Numbers(1)
    for number, (name, row) in enumerate(rows, 1):
        image = {"id": number, "file_name": name, "width": row["width"], "height": row["height"]}
        images.append(image | {"cleanplate_status": row["status"]})
        for region in row["regions"] or []:
            x0, y0, x1, y1 = region["box"]
            one: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": kinds[region["kind"]],
            }
            one |= {"bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": 0, "score": region["score"]}
            one |= {"area": region["area_px"] or (x1 - x0) * (y1 - y0), "detector": region["detector"]}
            if region["rle"]:
                one["segmentation"] = {"size": [row["height"], row["width"]], "counts": region["rle"]}
            annotations.append(one)
    categories = [{"id": number, "name": kind} for kind, number in kinds.items()]
    body = {"images": images, "annotations": annotations, "categories": categories}
    yield "regions.json", json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogateescape")


def yolo(rows: Iterator[tuple[str, Row]]) -> Iterator[tuple[str, bytes]]:
    """A file of boxes for each image, also for those without, and classes.txt."""
    kinds = _Numbers(0)
    for name, row in rows:
        lines = []
        for region in row["regions"] or []:
            x0, y0, x1, y1 = region["box"]
            across, down = row["width"], row["height"]
            shares = [(x0 + x1) / 2 / across, (y0 + y1) / 2 / down, (x1 - x0) / across, (y1 - y0) / down]
            lines.append(f"{kinds[region['kind']]} " + " ".join(f"{share:.6f}" for share in shares) + "\n")
        yield str(PurePosixPath(name).with_suffix(".txt")), "".join(lines).encode()
    yield "classes.txt", "".join(f"{kind}\n" for kind in kinds).encode()


def as_csv(rows: Iterator[tuple[str, Row]]) -> Iterator[tuple[str, bytes]]:
    """One file, a line for each region."""
    out = io.StringIO(newline="")
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(["image", "kind", "x0", "y0", "x1", "y1", "score", "detector", "area_px", "status"])
    for name, row in rows:
        for region in row["regions"] or []:
            box = [f"{value:g}" for value in region["box"]]
            rest = [f"{region['score']:.4f}", region["detector"], region["area_px"], row["status"]]
            lines.writerow([name, region["kind"], *box, *rest])
    yield "regions.csv", out.getvalue().encode("utf-8", "surrogateescape")


def label_studio(rows: Iterator[tuple[str, Row]]) -> Iterator[tuple[str, bytes]]:
    """One file of tasks with predictions, for a project with an Image `image` and RectangleLabels `label`."""
    tasks = []
    for name, row in rows:
        regions = row["regions"] or []
        result = [_rectangle(f"{row['image_id'][:8]}-{n}", region, row) for n, region in enumerate(regions)]
        data = {"image": row["source_uri"], "name": name, "status": row["status"]}
        tasks.append({"data": data, "predictions": [{"model_version": "cleanplate", "result": result}]})
    yield "regions.json", json.dumps(tasks, ensure_ascii=False).encode("utf-8", "surrogateescape")


def _rectangle(ident: str, region: Row, row: Row) -> dict[str, Any]:
    """Label Studio's RectangleLabels: percent of the sides."""
    x0, y0, x1, y1 = region["box"]
    across, down = 100 / row["width"], 100 / row["height"]
    value = {"x": x0 * across, "y": y0 * down, "width": (x1 - x0) * across, "height": (y1 - y0) * down}
    return {
        "id": ident,
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": row["width"],
        "original_height": row["height"],
        "image_rotation": 0,
        "score": region["score"],
        "value": {**value, "rotation": 0, "rectanglelabels": [region["kind"]]},
    }


FORMATS: dict[str, Callable[[Iterator[tuple[str, Row]]], Iterator[tuple[str, bytes]]]] = {
    "coco": coco,
    "yolo": yolo,
    "csv": as_csv,
    "label-studio": label_studio,
}


class _Numbers(dict[str, int]):
    """Kind -> number, in the order in which kinds come."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = first

    def __missing__(self, kind: str) -> int:
        self[kind] = self.first + len(self)
        return self[kind]
