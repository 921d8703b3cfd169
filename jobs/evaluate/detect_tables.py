"""What `evaluate detect` leaves: tables by level and by mark, the trials as Parquet, the worst as a picture."""

from __future__ import annotations

import math
import sys
import time
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cleanplate.models.training.marks.trials import Score, Trial
from cleanplate.models.types import Image, Mask

Row = dict[str, Any]
Table = tuple[str, list[str], list[list[str]]]
"""Title, header, lines."""

HEADER = [
    "remove",
    "level",
    "n",
    "recall",
    "pixel recall",
    "precision",
    "mask IoU",
    "false",
    "edited",
    "harm",
]

LEGEND = (
    "recall: share of marks with 70 % of their visible pixels in the edited mask. pixel recall, precision, mask "
    "IoU:\nthe detector's own masks that touch the mark, before they are widened. false: regions a picture that "
    "touch no\nmark (real lettering, for `text`). edited: share of pictures that would be changed. harm: share "
    "of all pixels that\nwould be edited more than 8 pixels away from a mark. stands out: levels of 255 by which a "
    "mark changes its\npixels, for each level (and one more) of the photograph's own fine texture there."
)


STANDOUT = (1.0, 2.0, 4.0)
"""Limits of the bands of `cleanplate.models.training.marks.trials.standout`."""


def by_level(rows: Sequence[Row]) -> Table:
    """Marks by level, and what is done to pictures with nothing to remove."""
    return "By level", HEADER, _lines(rows, lambda row: (row["kind"], row["level"]))


def by_mark(rows: Sequence[Row]) -> Table:
    """Rendered marks by what they are."""
    marked = [row for row in rows if row["mark"]]
    return (
        "By mark",
        ["remove", "mark", *HEADER[1:]],
        _lines(marked, lambda row: (row["kind"], row["mark"], row["level"])),
    )


def by_standout(rows: Sequence[Row]) -> Table:
    """Marks by level and by how far they stand out from what they lie on."""
    marked = [row for row in rows if row["mark"] and not math.isnan(row["standout"])]
    levels = list(dict.fromkeys((row["kind"], row["level"]) for row in marked))
    ordered = sorted(
        marked, key=lambda row: (levels.index((row["kind"], row["level"])), bisect(STANDOUT, row["standout"]))
    )
    return (
        "By standing out",
        [*HEADER[:2], "stands out", *HEADER[2:]],
        _lines(ordered, lambda row: (row["kind"], row["level"], _band(row["standout"]))),
    )


def _band(standout: float) -> str:
    number = bisect(STANDOUT, standout)
    if number == len(STANDOUT):
        return f"{STANDOUT[-1]:g} or more"
    return f"below {STANDOUT[0]:g}" if not number else f"{STANDOUT[number - 1]:g} to {STANDOUT[number]:g}"


def _lines(rows: Sequence[Row], key: Callable[[Row], tuple[str, ...]]) -> list[list[str]]:
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return [[*group, *_cells(some)] for group, some in groups.items()]


def _cells(rows: Sequence[Row]) -> list[str]:
    """n; share of marks found; means of the pixel measures; share of pictures edited; share of pixels harmed."""
    marked = bool(rows[0]["mark"])
    hits = f"{np.mean([row['hit'] for row in rows]):.2f}" if marked else "-"
    pixels = [
        _mean([row[name] for row in rows]) if marked else "-" for name in ("recall", "precision", "iou")
    ]
    false = np.mean([row["false"] for row in rows])
    touched = np.mean([row["regions"] > 0 for row in rows])
    harm = np.mean([row["harm"] for row in rows])
    return [str(len(rows)), hits, *pixels, f"{false:.2f}", f"{touched:.1%}", f"{harm:.3%}"]


def _mean(values: Sequence[float]) -> str:
    known = [value for value in values if not math.isnan(value)]
    return f"{np.mean(known):.2f}" if known else "-"


def show(tables: Sequence[Table], legend: str) -> str:
    """Markdown, columns aligned, and what the columns mean."""
    out = []
    for title, header, lines in tables:
        widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
        ruled = [header, ["-" * width for width in widths], *lines]
        out += [f"## {title}", "", *(f"| {' | '.join(_padded(line, widths))} |" for line in ruled), ""]
    return "\n".join([*out, legend, ""])


def _padded(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]


def write_parquet(path: Path, rows: Sequence[Row], facts: dict[str, str]) -> None:
    """One row a trial; facts (seed, hashes of the weights) as the file's metadata."""
    table = pa.Table.from_pylist(list(rows))
    pq.write_table(table.replace_schema_metadata(facts), path)


def save_worst(path: Path, found: Sequence[tuple[Trial, Score, Mask]], most: int) -> None:
    """The trials with the most harm or the least recall, two in a row: the picture with its truth outlined in green,
    and with what would be edited in red."""
    ranked = sorted(found, key=lambda one: _badness(one[1]), reverse=True)
    sheet(path, [_cell(trial, edited, asdict(score)) for trial, score, edited in ranked[:most]])


def sheet(path: Path, cells: Sequence[Image]) -> None:
    """Pictures of one size, three in a row, as one JPEG; nothing without any."""
    if cells:
        full = [*cells, *[np.zeros_like(cells[0])] * (-len(cells) % 3)]
        joined = np.concatenate([np.concatenate(full[i : i + 3], 1) for i in range(0, len(full), 3)])
        cv2.imwrite(str(path), joined[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


def _badness(score: Score) -> float:
    missed = 0.0 if math.isnan(score.edited_recall) else 1 - score.edited_recall
    return missed + min(1.0, 20 * score.harm)


def _cell(trial: Trial, edited: Mask, score: Row, width: int = 300, height: int = 225) -> Image:
    picture = trial.image.copy()
    contours, _ = cv2.findContours(trial.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    thick = max(1, picture.shape[1] // 400)
    truth = cv2.drawContours(picture.copy(), contours, -1, (0, 255, 0), thick)
    picture[edited] = (0.4 * picture[edited] + np.array([153, 0, 0])).astype(np.uint8)
    both = np.concatenate([boxed(np.asarray(one, np.uint8), width, height) for one in (truth, picture)], 1)
    case = trial.case
    text = (
        f"{case.kind} {case.mark} {case.level}  recall {score['edited_recall']:.2f}  harm {score['harm']:.2%}"
    )
    return captioned(both, text)


def captioned(picture: Image, caption: str) -> Image:
    """A picture under a line of text."""
    strip = np.zeros((20, picture.shape[1], 3), np.uint8)
    cv2.putText(strip, caption, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([strip, picture])


def progress(total: int) -> Callable[[int], None]:
    """Tells, given how many pictures are done: a line that overwrites itself in a terminal; every 25 elsewhere."""
    start = time.monotonic()

    def tell(done: int) -> None:
        rate = (time.monotonic() - start) / done
        line = f"{done} / {total} pictures, {rate:.1f} s each, {rate * (total - done) / 60:.1f} min to go"
        if sys.stderr.isatty():
            print(f"\r{line} ", end="" if done < total else "\n", file=sys.stderr, flush=True)
        elif done % 25 == 0 or done == total:
            print(line, file=sys.stderr, flush=True)

    return tell


def boxed(picture: Image, width: int, height: int) -> Image:
    """Shrunk into width x height, the rest black."""
    factor = min(width / picture.shape[1], height / picture.shape[0])
    size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
    out = np.zeros((height, width, 3), np.uint8)
    out[: size[1], : size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return out
