"""One row as a card of the report: its fields, and its pictures as data URIs.

Nothing that is wrong with one row may keep the page from being made: what cannot be read, decoded or drawn is
left out, and the card says so.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from PIL import Image as Pil

from cleanplate.models.types import Image, Mask
from cleanplate.pipeline.errors import CleanplateError, DamagedError, StorageError
from cleanplate.pipeline.ledger.facts import Pick
from cleanplate.pipeline.ledger.layouts import with_bytes
from cleanplate.pipeline.ledger.ledger import open_part
from cleanplate.pipeline.ledger.statistics import name_of
from cleanplate.pipeline.recipe.sections import hidden_by
from cleanplate.pipeline.storage.connect import Store
from cleanplate.pipeline.ui import row_pictures
from cleanplate.pipeline.ui.contact_sheet import RED, SheetRow

LONG_SIDE = 640
"""Pixels of a picture's long side on the page; a close-up's too, at full resolution."""

MAX_FINDS = 40
_CLOSE_LEAST = 160
_QUALITY = 82
_COLUMNS = [
    *row_pictures.COLUMNS,
    *("mask_coverage", "residual", "inpainter", "segmenter", "passes", "note", "attempt"),
]
_STRIPPED: tuple[dict[str, None], ...] = (
    {},
    {"mask_rle": None},
    {"image": None},
    {"image": None, "mask_rle": None},
    {"regions": None},
)
"""What is left out of a row that cannot be drawn, in turn, until the rest can."""


class Card(NamedTuple):
    """fields: what the page writes (JSON). pictures: name -> data URI, {} when nothing could be drawn."""

    fields: dict[str, Any]
    pictures: dict[str, Any]


def cards(output: Store, picks: list[tuple[Pick, str]], below: str) -> Iterator[Card]:
    """The cards of the picked rows, in order. Four at a time: most of the time goes to reading sources."""
    rows = _rows(output, [pick for pick, _ in picks])
    with ThreadPoolExecutor(4, "report") as pool:
        yield from pool.map(
            lambda item: card(_seen(output, rows.get(item[0].image_id) or _lost(item[0])), item[1], below),
            picks,
        )


def card(row: dict[str, Any], why: str, below: str) -> Card:
    """row: the columns _COLUMNS. why: the risk that the row was chosen for."""
    story = _story(row)
    fields = {
        "id": row["image_id"],
        "name": name_of(row["source_uri"] or "", below),
        "uri": row["source_uri"],
        "status": row["status"],
        "hidden": hidden_by(r["by"] for r in row["regions"] or []),
        "attempt": row["attempt"],
        "why": why,
        "size": [row["width"], row["height"]],
        "coverage": row["mask_coverage"],
        "inpainter": row["inpainter"],
        "passes": row["passes"],
        "note": row["note"],
        "error": row["error"],
        "finds": _findings(row["regions"]),
        "left": _findings(row["residual"]),
    }
    return Card(fields, _pictures(row, story))


def _rows(output: Store, picks: list[Pick]) -> dict[str, dict[str, Any]]:
    """image_id -> row. Reads the row groups that hold a pick, no others; a part that cannot be read again has
    no rows."""
    found: dict[str, dict[str, Any]] = {}
    for part in dict.fromkeys(pick.part for pick in picks):
        wanted = sorted(pick.at for pick in picks if pick.part == part)
        try:
            rows = list(_rows_at(output, part, wanted))
        except (DamagedError, StorageError):
            continue  # Each of its cards says that the row could not be read.
        found |= {row["image_id"]: row for row in rows}
    return found


def _rows_at(output: Store, part: str, wanted: list[int]) -> Iterator[dict[str, Any]]:
    with open_part(output, part) as file:
        start = 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            if inside := [at - start for at in wanted if start <= at < end]:
                yield from file.read_row_group(group, _COLUMNS).take(inside).to_pylist()
            start = end


def _seen(output: Store, row: dict[str, Any]) -> dict[str, Any]:
    """The row with its picture, wherever the layout has it; without one that cannot be read."""
    try:
        return with_bytes(output, row)
    except StorageError as error:
        return {**row, "image": None, "note": f"the picture cannot be read: {error}"}


def _lost(pick: Pick) -> dict[str, Any]:
    error = {
        "stage": "report",
        "kind": "unreadable",
        "message": f"the row could not be read from {pick.part}",
    }
    return dict.fromkeys(_COLUMNS) | {"image_id": pick.image_id, "status": "failed", "error": error}


def _story(row: dict[str, Any]) -> SheetRow:
    """look.story, without what cannot be drawn."""
    for less in _STRIPPED:
        try:
            return row_pictures.story({**row, **less})
        except (CleanplateError, ValueError, TypeError, KeyError, OSError):
            continue
    return SheetRow(None, None, None, "", str(row["status"]))


def _findings(finds: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Finds for the page, surest first."""
    listed = sorted(finds or [], key=lambda find: -(find["score"] or 0))[:MAX_FINDS]
    return [
        {
            "kind": find["kind"],
            "detector": find["detector"],
            "score": find["score"],
            "box": [round(v, 1) for v in find["box"] or []],
        }
        for find in listed
    ]


# --- pictures ---


def _pictures(row: dict[str, Any], story: SheetRow) -> dict[str, Any]:
    before, after = story.before, story.after
    shape = (before if before is not None else after if after is not None else np.empty((0, 0, 3))).shape
    if not shape[0] or not shape[1]:
        return {}
    mask = (
        story.mask if story.mask is not None and story.mask.shape == shape[:2] and story.mask.any() else None
    )
    scale = min(1.0, LONG_SIDE / max(shape[:2]))
    size = max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))
    out: dict[str, Any] = {"size": [shape[1], shape[0]]}
    if before is not None:
        out["before"] = _webp(_resized(before, size))
    if after is not None and not (row["status"] == "unchanged" and before is not None):
        out["after"] = _webp(_resized(after, size))
    if mask is not None:
        out["mask"] = _tint(mask, size)
    both = before is not None and after is not None and before.shape == after.shape
    if scale < 0.75 and mask is not None and both:
        x0, y0, x1, y1 = _close_box(row, mask)
        cut = np.s_[y0:y1, x0:x1]
        out["close"] = {
            "box": [x0, y0, x1, y1],
            "before": _webp(Pil.fromarray(np.ascontiguousarray(before[cut]))),  # type: ignore[index]
            "after": _webp(Pil.fromarray(np.ascontiguousarray(after[cut]))),  # type: ignore[index]
        }
    return out


def _close_box(row: dict[str, Any], mask: Mask) -> tuple[int, int, int, int]:
    """xyxy of a cut at full resolution around what is still there, else the largest find, else the mask.

    At least _CLOSE_LEAST and at most LONG_SIDE on a side, with some surroundings, inside the image.
    """
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = [float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1)]
    boxes = [find["box"] for find in (row["residual"] or row["regions"] or []) if find["box"]]
    if boxes:
        box = max(boxes, key=lambda b: (b[2] - b[0]) * (b[3] - b[1]))
    spans = []
    for low, high, length in ((box[0], box[2], mask.shape[1]), (box[1], box[3], mask.shape[0])):
        side = min(max(1.5 * (high - low), _CLOSE_LEAST), LONG_SIDE, length)
        start = min(max(0.0, (low + high - side) / 2), length - side)
        spans.append((int(start), int(start + side)))
    (x0, x1), (y0, y1) = spans
    return x0, y0, x1, y1


def _resized(image: Image, size: tuple[int, int]) -> Pil.Image:
    return Pil.fromarray(np.ascontiguousarray(image)).resize(size, Pil.Resampling.LANCZOS, reducing_gap=3.0)


def _tint(mask: Mask, size: tuple[int, int]) -> str:
    """The mask in red on nothing, as a PNG; a pixel's red grows twice as fast as its share, so that strokes
    thinner than a pixel of the page stay visible. Sixteen steps of alpha keep the file small."""
    share = Pil.fromarray(mask.astype(np.uint8) * 255).resize(size, Pil.Resampling.BOX)
    tint = Pil.new("RGBA", size, (*RED, 0))
    tint.putalpha(share.point(lambda v: min(255, 2 * v) // 17 * 17))
    return _uri(tint, "png", optimize=True)


def _webp(image: Pil.Image) -> str:
    return _uri(image, "webp", quality=_QUALITY, method=2)


def _uri(image: Pil.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
