"""`evaluate detect --labels`: the recipe's detectors on photographs in which somebody marked what is there."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cleanplate.jobs.evaluate.detect_tables import (
    Table,
    boxed,
    captioned,
    progress,
    sheet,
    show,
    write_parquet,
)
from cleanplate.models.evaluation.labelled import (
    COVERED,
    SIZES,
    Found,
    Label,
    compare,
    seen,
    size_class,
    views,
)
from cleanplate.models.types import Image, Mask, Region
from cleanplate.pipeline.engine.recall import wilson
from cleanplate.pipeline.errors import ConfigError, RowError, StorageError
from cleanplate.pipeline.factory import attachments, given, label_files
from cleanplate.pipeline.images import decode
from cleanplate.pipeline.images.formats.base import ImageError
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.recipe.sections import PLURALS
from cleanplate.pipeline.storage.connect import Store, open_store

Row = dict[str, Any]
Look = Callable[[str, Image, str], tuple[list[Region], list[Mask], Mask]]
"""kind, picture, "" -> (regions that count, their own masks, the mask that would be edited)."""
WORST = 24
LEGEND = (
    "recall: share of labelled things that a find matches (intersection over union of at least .5), with its 95 % "
    "interval.\ngone: share of which at least 70 % of the box would be edited. precision: share of finds that match a "
    "label; what nobody\nlabelled counts as false. false: such finds. Sizes are of the box's shorter side as it is "
    "shown; turns are\nclockwise, of the whole photograph."
)


def measure(
    look: Look,
    recipe: Recipe,
    photos: str,
    labels: str,
    out: Path,
    scales: Sequence[float],
    turns: Sequence[float],
    facts: dict[str, str],
) -> None:
    """Write boxes.parquet, table.md and worst.jpg into `out`, and print the table. Raises ConfigError for a file of
    labels that cannot be read, or that marks none of the recipe's kinds in any photograph of the place."""
    store = open_store(photos)
    named = labels_of(labels, recipe, store)
    todo = [(key, view) for key in named for view in views(scales, turns)]
    rows: list[Row] = []
    worst: list[tuple[float, Image]] = []
    tell = progress(len(todo))
    for count, (key, view) in enumerate(todo, 1):
        try:
            whole = decode.decode(store.get(key)).pixels
            picture, here = seen(whole, labels_in(named[key], recipe, *whole.shape[:2]), view)
        except (ImageError, RowError, StorageError) as error:
            print(f"left out: {key}: {error}", file=sys.stderr)
            continue
        found, regions = _looked(look, recipe, picture, here)
        rows += [{"photo": key, "scale": view.scale, "turn": view.turn, **asdict(one)} for one in found]
        wrong = sum(not one.found for one in found)
        if wrong:
            text = f"{key} x{view.scale:g}, {view.turn:g} degrees: {_listed(found)}"
            worst.append((wrong, captioned(_drawn(picture, here, regions), text)))
            worst = sorted(worst, key=lambda one: -one[0])[:WORST]
        tell(count)
    if not any(row["label"] for row in rows):
        raise ConfigError(f"--labels: nothing in {labels} marks {', '.join(recipe.remove)} in {store.url}")
    out.mkdir(parents=True, exist_ok=True)
    write_parquet(out / "boxes.parquet", rows, facts)
    sheet(out / "worst.jpg", [cell for _, cell in worst])
    table = show([by_size(rows), by_turn(rows)], LEGEND)
    (out / "table.md").write_text(table, encoding="utf-8")
    print(table)
    print(f"{len(named)} photographs, {len(todo)} views, {out}/boxes.parquet, {out}/worst.jpg")


def labels_of(place: str, recipe: Recipe, store: Store) -> dict[str, list[label_files.Entry]]:
    """key below the store -> what the file of labels says of it. A name may leave out folders when only one image
    has it. Raises ConfigError when the file cannot be read, or names no image of the store."""
    try:
        table = label_files.table_of(attachments.content(place), "auto", recipe.given.shares)
    except StorageError as error:
        raise ConfigError(f"--labels: {error}") from error
    except ConfigError as error:
        raise ConfigError(str(error).replace("given.file", f"--labels {place}", 1)) from error
    keys = {entry.key for entry in store.list()}
    by_name: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        by_name[key.rpartition("/")[2]].append(key)
    found: dict[str, list[label_files.Entry]] = defaultdict(list)
    for one in table.to_pylist():
        name = one["name"].decode("utf-8", "surrogateescape")
        same = by_name.get(name.rpartition("/")[2], [])
        if name in keys or len(same) == 1:
            found[name if name in keys else same[0]].append(one)
    if not found:
        raise ConfigError(f"--labels {place} names no image of {store.url}; its names are relative to it")
    return dict(found)


def labels_in(entries: Sequence[label_files.Entry], recipe: Recipe, height: int, width: int) -> list[Label]:
    """The labels of one photograph that are of the recipe's kinds. A label without a word, or a file of one word that
    is no kind, is of the kind that is removed when that is one. Raises RowError for a box outside the picture."""
    found = []
    for one in entries:
        word = one["label"].lower().replace("license", "licence").removeprefix("licence").strip(" _-")
        kind = PLURALS.get(word, word)
        if not kind and len(recipe.remove) == 1:
            kind = recipe.remove[0]
        if kind in recipe.remove:
            found += [Label(kind, region.box) for region in given.regions_of(one, height, width, Counter())]
    return found


def _looked(
    look: Look, recipe: Recipe, picture: Image, labels: list[Label]
) -> tuple[list[Found], list[Region]]:
    """What became of each label and find, kind by kind, and the finds."""
    rows: list[Found] = []
    finds: list[Region] = []
    for kind in recipe.remove:
        regions, _, edited = look(kind, picture, "")
        rows += compare([label for label in labels if label.kind == kind], regions, edited)
        finds += regions
    return rows, finds


def _listed(found: Sequence[Found]) -> str:
    labelled = [one for one in found if one.label]
    hits = sum(one.found for one in labelled)
    return f"{hits} of {len(labelled)} found, {len(found) - len(labelled)} more"


def by_size(rows: Sequence[Row]) -> Table:
    """Recall by class of size, of photographs that are not turned."""
    upright = [row for row in rows if row["label"] and not row["turn"]]
    classes = [size_class(low) for low in SIZES]
    groups = {
        (kind, name): [r for r in upright if r["kind"] == kind and size_class(r["side"]) == name]
        for kind in sorted({row["kind"] for row in rows})
        for name in classes
    }
    lines = [[*key, *_recall(some)] for key, some in groups.items() if some]
    return "By size", ["kind", "side", "n", "recall", "95 %", "gone", "mean IoU"], lines


def by_turn(rows: Sequence[Row]) -> Table:
    """Recall, precision and false finds by how the photographs were shown."""
    shown = sorted(
        {(row["kind"], row["scale"], row["turn"]) for row in rows}, key=lambda k: (k[0], k[2], -k[1])
    )
    lines = []
    for kind, scale, turn in shown:
        some = [r for r in rows if (r["kind"], r["scale"], r["turn"]) == (kind, scale, turn)]
        labelled, finds = [r for r in some if r["label"]], [r for r in some if r["found"] or not r["label"]]
        false = len(finds) - sum(r["found"] for r in finds)
        precision = f"{1 - false / len(finds):.2f}" if finds else "-"
        lines.append([kind, f"{scale:g}", f"{turn:g}", *_recall(labelled), precision, str(false)])
    header = ["kind", "scale", "turn", "n", "recall", "95 %", "gone", "mean IoU", "precision", "false"]
    return "By scale and turn", header, lines


def _recall(rows: Sequence[Row]) -> list[str]:
    """n, recall, its interval, share that would be gone, mean IoU of those found."""
    if not rows:
        return ["0", "-", "-", "-", "-"]
    hits = [row for row in rows if row["found"]]
    low, high = wilson(len(hits), len(rows))
    gone = np.mean([row["covered"] >= COVERED for row in rows])
    mean = f"{np.mean([row['iou'] for row in hits]):.2f}" if hits else "-"
    return [str(len(rows)), f"{len(hits) / len(rows):.2f}", f"{low:.2f}-{high:.2f}", f"{gone:.2f}", mean]


def _drawn(picture: Image, labels: Sequence[Label], regions: Sequence[Region]) -> Image:
    """The picture with labels in green and finds in red."""
    shown = boxed(picture, 600, 420)
    factor = min(600 / picture.shape[1], 420 / picture.shape[0])
    for boxes, colour, thick in (
        ([r.box for r in regions], (255, 40, 40), 1),
        ([label.box for label in labels], (0, 255, 0), 2),
    ):
        for box in boxes:
            x0, y0, x1, y1 = (round(v * factor) for v in box)
            cv2.rectangle(shown, (x0, y0), (x1, y1), colour, thick)
    return shown
