"""static-watermark: what a whole collection has in common, found once before the run and stored beside it.

    sample of the plan > groups > one estimate a group > consensus/<group>.npz, .png > consensus/index.json

The plan is sorted by hash, so its first rows are a random sample of the source. Images of one group (of one size, else
of one folder, else all; the latter are brought to one size) are laid over each other;
models/static_watermark/estimate.py tells what
they share. The index is written last and only if absent: with it the marks are fixed, and every unit, retry and resumed
run sees the same. An image whose groups all have too few images has no mark; the row's `detectors` say so.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from cleanplate.models.types import Image
from cleanplate.pipeline.engine.job import Spread
from cleanplate.pipeline.errors import CleanplateError, RowError, StorageError
from cleanplate.pipeline.factory.static_watermark import (
    INDEX,
    KIND,
    WAYS,
    group_of,
    key_of,
    packed,
)
from cleanplate.pipeline.images import encode
from cleanplate.pipeline.images.formats.base import ImageError
from cleanplate.pipeline.images.formats.jpeg_coding.parts import SOF, jpeg_segments
from cleanplate.pipeline.images.formats.table import sniff
from cleanplate.pipeline.ledger import plan
from cleanplate.pipeline.recipe.kind_sections import Consensus as Rule
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.stages.read import probe
from cleanplate.pipeline.storage.connect import Store
from cleanplate.pipeline.storage.containers import read_images

if TYPE_CHECKING:
    from cleanplate.models.static_watermark.overlay import Mark

_AT_ONCE = 32
_STACK_BYTES = 1 << 30


@dataclass(frozen=True)
class Sampled:
    """An image of the sample. size: (width, height), pixels, upright."""

    uri: str
    size: tuple[int, int]


@dataclass(frozen=True)
class _Look:
    """What a worker must know to look at some images of the sample."""

    uris: tuple[str, ...]
    max_pixels: int


@dataclass(frozen=True)
class _Estimate:
    """What a worker must know to estimate one group."""

    group: str
    sample: tuple[Sampled, ...]
    output: Store


def prepare(output: Store, recipe: Recipe, spread: Spread) -> dict[str, Any]:
    """Estimate the marks of the run's source, if that was not done before. Gives the index: group -> what is known
    of it ("images", "marks", "sha256" of the artefact). Of two drivers at once, the first one's index holds."""
    rule = recipe.consensus
    try:
        return dict(json.loads(output.get(INDEX)))
    except StorageError as error:
        if error.kind != "missing":
            raise
    uris = tuple(_first_uris(output, rule.scan))
    looks = [_Look(uris[n : n + _AT_ONCE], recipe.limits.max_pixels) for n in range(0, len(uris), _AT_ONCE)]
    groups = _groups(list(itertools.chain.from_iterable(spread(_look, looks))), rule)
    todo = [
        _Estimate(name, _mixed(group, rule.sample), output)
        for name, group in sorted(groups.items())
        if len(group) >= rule.min_images
    ]
    index: dict[str, dict[str, Any]] = {
        name: {"images": len(group), "marks": 0, "sha256": None} for name, group in groups.items()
    }
    for name, entry in spread(_estimate, todo):
        index[name] |= entry
    output.put_new(INDEX, json.dumps(index, indent=1, sort_keys=True).encode())
    return dict(json.loads(output.get(INDEX)))


def _groups(found: Sequence[Sampled], rule: Rule) -> dict[str, list[Sampled]]:
    """The groups that some image needs: those of its own size, and, while that is too small, those of the next way of
    WAYS. A folder counts with all its images, also those that have a group of their size: they may share a mark."""
    groups: dict[str, list[Sampled]] = {}
    left = list(found)
    for by in WAYS[rule.group]:
        mine: dict[str, list[Sampled]] = defaultdict(list)
        for one in found:
            mine[group_of(one.uri, one.size, by)].append(one)
        needed = {group_of(one.uri, one.size, by) for one in left}
        groups |= {name: group for name, group in mine.items() if name in needed}
        left = [one for one in left if len(mine[group_of(one.uri, one.size, by)]) < rule.min_images]
    return groups


def _mixed(group: Sequence[Sampled], most: int) -> tuple[Sampled, ...]:
    """`most` images of a group, of each size in turn: how a mark is anchored shows only in several."""
    by_size: dict[tuple[int, int], list[Sampled]] = defaultdict(list)
    for one in sorted(group, key=lambda s: s.uri):
        by_size[one.size].append(one)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*(by_size[size] for size in sorted(by_size))))
    return tuple(itertools.islice(filter(None, turns), most))


def advice(output: Store, rule: Rule) -> str | None:
    """What to set where no group of a run was large enough to be compared, in words; None where one was."""
    index = json.loads(output.get(INDEX))
    if not index or any(one["images"] >= rule.min_images for one in index.values()):
        return None
    name, largest = max(index.items(), key=lambda item: item[1]["images"])
    wider = "" if rule.group in ("auto", "all") else "consensus.group=auto (images of any size) or "
    return (
        f"{KIND} looked at no image: its largest group ({name}) has {largest['images']} images, and "
        f"consensus.min_images asks for {rule.min_images}. Set {wider}a smaller consensus.min_images (8 or more; "
        "below 30 faint marks are missed), and start a new run"
    )


def _first_uris(output: Store, most: int) -> Iterator[str]:
    """The uris of the first `most` rows of the plan."""
    left = most
    for unit in plan.read_index(output, 0) if plan.generations(output) else []:
        if left <= 0:
            return
        uris = plan.read_unit(output, unit)["source_uri"].to_pylist()[:left]
        yield from uris
        left -= len(uris)


def _look(look: _Look) -> list[Sampled]:
    """The images among these, with their groups; what is none gets its row in the run itself."""
    found = []
    for uri, data in zip(look.uris, read_images(look.uris), strict=True):
        try:
            if isinstance(data, CleanplateError):
                raise data
            head = probe(data, look.max_pixels)
        except (StorageError, RowError) as error:
            if isinstance(error, StorageError) and error.kind == "unreachable":
                raise
            continue
        size = (head["width"], head["height"])
        found.append(Sampled(uri, size))
    return found


def _estimate(task: _Estimate) -> tuple[str, dict[str, Any]]:
    """One group: (its name, what the index says of it). Writes its artefact and a picture of the marks."""
    from cleanplate.models.static_watermark.estimate import common_marks

    frame = max(s.size for s in task.sample)
    keep = max(12, _STACK_BYTES // (3 * frame[0] * frame[1]))
    datas = [
        d for d in read_images([s.uri for s in task.sample[:keep]]) if not isinstance(d, CleanplateError)
    ]
    pictures = [pixels for data in datas if (pixels := _pixels(data)) is not None]
    marks = common_marks(pictures, sum(map(_coarse, datas)) * 2 > len(datas)) if pictures else []
    entry: dict[str, Any] = {"marks": len(marks), "sha256": None}
    if marks:
        data = packed(marks, len(pictures))
        digest = hashlib.sha256(data).hexdigest()
        # Named by content: two drivers, whose processors round differently, do not write over each other.
        task.output.put(key_of(task.group, digest), data)
        task.output.put(key_of(task.group, digest, "png"), _picture(marks))
        entry |= {"sha256": digest, "support": [mark.support for mark in marks]}
        entry |= {"boxes": [mark.box for mark in marks], "opacity": [float(m.alpha.max()) for m in marks]}
        entry |= {"frames": [mark.frame for mark in marks], "anchors": [mark.anchor for mark in marks]}
    return task.group, entry


def _pixels(data: bytes) -> Image | None:
    """None for what does not decode: its row will tell."""
    try:
        return encode.decode(data).pixels
    except ImageError:
        return None


def _coarse(data: bytes) -> bool:
    """A JPEG that stores its colours at a reduced size?"""
    try:
        segments = jpeg_segments(data)[0] if sniff(data) == "jpeg" else []
    except ImageError:
        return False
    return any(s.marker in SOF and s.payload[5:6] == b"\3" and s.payload[7] != 0x11 for s in segments)


def _picture(marks: Sequence[Mark]) -> bytes:
    """The marks alone, as PNG with alpha, as they lie in the largest frame: for people."""
    from cleanplate.models.static_watermark.overlay import placed

    frame = max(mark.frame for mark in marks)
    canvas = np.zeros((frame[1], frame[0], 4), np.uint8)
    for mark in filter(None, (placed(mark, frame) for mark in marks)):
        x0, y0, x1, y1 = mark.box
        drawn = np.dstack([mark.colour[..., ::-1], mark.alpha[..., None] * 255]).round().astype(np.uint8)
        canvas[y0:y1, x0:x1] = np.where(mark.mask[..., None], drawn, canvas[y0:y1, x0:x1])
    _, png = cv2.imencode(".png", canvas)
    return bytes(png.tobytes())
