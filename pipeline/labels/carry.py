"""Labels carried into an output: those of removed things go, the others stay, and a list says what became of which.

    labels/<the file, or the files of the folder>   in the form in which they were given
    labels/changes.csv                               every label that was dropped or flagged, and why
    labels/summary.json                              how many

Everything is made of the committed rows and of the labels, so it may be made again at any time; a run that was killed
makes it when it is complete. Shares are measured against `mask_rle`, in the upright picture.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cleanplate.models.segmenters.masks import polygon_mask
from cleanplate.models.types import Mask
from cleanplate.pipeline.factory import given
from cleanplate.pipeline.factory.label_files import Entry
from cleanplate.pipeline.images import rle
from cleanplate.pipeline.labels import forms
from cleanplate.pipeline.labels.label import Labels, Verdict
from cleanplate.pipeline.ledger import ledger
from cleanplate.pipeline.ledger.layouts import IMAGES
from cleanplate.pipeline.recipe.run_sections import Labels as Rule
from cleanplate.pipeline.storage.connect import Store, open_store

FOLDER = "labels"
_UNKNOWN = Verdict(False, None, "no image of the source has this name")


@dataclass(frozen=True)
class _Picture:
    """What became of an image that has labels. name: of its picture in the output, None where there is none."""

    name: str | None
    why: str
    size: tuple[int, int]
    mask: str | None


def carry(output: Store, rule: Rule, layout: str, source: str) -> dict[str, Any]:
    """Write the labels of a complete run. source: the url that names are relative to, unless the rule says.

    Returns the counts: labels, kept, flagged, dropped, unmatched (labels of no image), twice (ids that several have).
    Raises ConfigError for labels that cannot be read, StorageError and DamagedError.
    """
    labels = forms.read(rule)
    pictures = _pictures(output, labels, layout, open_store(rule.root or source).uri("").rstrip("/") + "/")
    verdicts = [_UNKNOWN] * len(labels.labels)
    for key, picture in pictures.items():
        mask = rle.from_rle(picture.mask, *picture.size) if picture.mask and picture.name else None
        for n in labels.names[key]:
            verdicts[n] = _judged(labels.labels[n].entry, picture, mask, rule)
    written = {key: picture.name for key, picture in pictures.items() if picture.name is not None}
    for name, data in labels.files(verdicts, written):
        output.put(f"{FOLDER}/{name}", data)
    output.put(f"{FOLDER}/changes.csv", _changes(labels, verdicts))
    summary = _summary(labels, verdicts)
    output.put(f"{FOLDER}/summary.json", (json.dumps(summary, indent=1) + "\n").encode())
    return summary


def _pictures(output: Store, labels: Labels, layout: str, root: str) -> dict[str, _Picture]:
    """Key in `labels.names` -> its picture. Of an image that was planned in two versions the one with a picture counts,
    of two the later."""
    columns = ["source_uri", "width", "height", "status", "mask_rle", "error"]
    columns += ["image"] if layout == "files" else []
    found: dict[str, _Picture] = {}
    for table in ledger.rows(output, columns):
        for row in table.to_pylist():
            name = given.name_of(row["source_uri"], root)
            key = next((k for k in labels.keys(name, row["source_uri"]) if k in labels.names), None)
            if key is None:
                continue
            picture = _picture(row, key, layout)
            if key not in found or picture.name is not None:
                found[key] = picture
    return found


def _picture(row: dict[str, Any], name: str, layout: str) -> _Picture:
    size = (row["height"] or 0, row["width"] or 0)
    if row["error"] is not None:
        why = (
            f"its image is not in the output: {row['status']}, {row['error']['stage']}/{row['error']['kind']}"
        )
        return _Picture(None, why, size, None)
    if layout == "files":
        name = str(row["image"]["path"]).removeprefix(f"{IMAGES}/")
    return _Picture(name, "", size, row["mask_rle"])


def _judged(entry: Entry | None, picture: _Picture, mask: Mask | None, rule: Rule) -> Verdict:
    if picture.name is None:
        return Verdict(False, None, picture.why)
    if entry is None or mask is None:
        return Verdict(True)
    if entry["size"] and tuple(entry["size"]) != picture.size:
        stated = f"{entry['size'][1]} x {entry['size'][0]}"
        return Verdict(
            True,
            None,
            f"made for {stated}, not compared with a picture of {picture.size[1]} x {picture.size[0]}",
        )
    share = removed_share(entry, mask)
    if share is None:
        return Verdict(True, None, "it has no pixel in the picture")
    if share > rule.drop_above:
        return Verdict(False, share, "removed")
    return Verdict(True, share, "touched" if share > rule.flag_above else "")


def removed_share(entry: Entry, mask: Mask) -> float | None:
    """The share of an entry's pixels that are in `mask` (HW bool); None for one without a pixel there."""
    height, width = mask.shape
    scale = np.array([width, height] if entry["shares"] else [1.0, 1.0])
    if entry["rle"] or entry["polygons"]:
        drawn = _drawn(entry, scale, height, width)
        return float(mask[drawn].mean()) if drawn is not None and drawn.any() else None
    if not entry["box"] or not all(math.isfinite(v) for v in entry["box"]):
        return None
    (x0, y0), (x1, y1) = (np.reshape(entry["box"], (2, 2)) * scale).tolist()
    inside = mask[
        max(0, math.floor(y0)) : max(0, math.ceil(y1)), max(0, math.floor(x0)) : max(0, math.ceil(x1))
    ]
    return float(inside.mean()) if inside.size else None


def _drawn(entry: Entry, scale: Any, height: int, width: int) -> Mask | None:
    """HW bool of a polygon or run-length mask; None where it cannot be drawn."""
    if entry["rle"]:
        try:
            return rle.from_rle(entry["rle"], height, width)
        except ValueError:
            return None
    drawn = np.zeros((height, width), np.bool_)
    for polygon in entry["polygons"]:
        points = np.reshape(polygon[: len(polygon) // 2 * 2], (-1, 2)) * scale
        if len(points) >= 3 and np.isfinite(points).all():
            drawn |= polygon_mask((height, width), np.clip(points, -1e6, 1e6))
    return drawn


def _changes(labels: Labels, verdicts: Sequence[Verdict]) -> bytes:
    """A line for each label that was dropped or flagged."""
    out = io.StringIO(newline="")
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(["image", "label", "class", "what", "removed_share", "why"])
    for label, verdict in zip(labels.labels, verdicts, strict=True):
        if verdict.why:
            share = "" if verdict.share is None else f"{verdict.share:.4f}"
            what = "flagged" if verdict.kept else "dropped"
            lines.writerow([label.name, label.ident, label.what, what, share, verdict.why])
    return out.getvalue().encode("utf-8", "surrogateescape")


def _summary(labels: Labels, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    ids = Counter(label.ident for label in labels.labels) if isinstance(labels, forms.Coco) else Counter()
    return {
        "labels": len(verdicts),
        "kept": sum(v.kept for v in verdicts),
        "flagged": sum(v.flagged for v in verdicts),
        "dropped": sum(not v.kept and v is not _UNKNOWN for v in verdicts),
        "unmatched": sum(v is _UNKNOWN for v in verdicts),
        "twice": sum(count - 1 for count in ids.values()),
    }
