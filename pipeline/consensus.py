"""static-watermark: what a whole collection has in common, found once before the run and stored beside it.

    sample of the plan > groups > one estimate a group > consensus/<group>.npz, .png > consensus/index.json

The plan is sorted by hash, so its first rows are a random sample of the source. Images of one group (of one size, or
of one folder, then brought to one size) are laid over each other; models/consensus.py tells what they share. The
index is written last and only if absent: with it the marks are fixed, and every unit, retry and resumed run sees the
same. A group with too few images, or seen only later, has no mark; the row's `detectors` say so.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import cv2
import numpy as np

from models.regions import Image, Mask, Region
from pipeline import images, plan
from pipeline.containers import Fetched, read_images
from pipeline.errors import CleanplateError, ConfigError, ContractError, RowError, StorageError
from pipeline.formats import ImageError
from pipeline.recipe import Recipe
from pipeline.stage import Spread
from pipeline.stages.read import probe
from pipeline.storage import Store, open_store

if TYPE_CHECKING:
    from models.consensus import Mark

KIND = "static-watermark"
FOLDER = "consensus"
_INDEX = f"{FOLDER}/index.json"
_AT_ONCE = 32
_STACK_BYTES = 1 << 30
_LEFT = 0.35
"""A result whose strength is beyond this (either way: taken off too little or too much) still shows the mark."""


@dataclass(frozen=True)
class Sampled:
    """An image of the sample. size: (width, height), pixels, upright."""

    uri: str
    group: str
    size: tuple[int, int]


@dataclass(frozen=True)
class _Look:
    """What a worker must know to look at some images of the sample."""

    uris: tuple[str, ...]
    by: str
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
        return dict(json.loads(output.get(_INDEX)))
    except StorageError as error:
        if error.kind != "missing":
            raise
    uris = tuple(_first_uris(output, rule.scan))
    looks = [
        _Look(uris[n : n + _AT_ONCE], rule.group, recipe.limits.max_pixels)
        for n in range(0, len(uris), _AT_ONCE)
    ]
    groups: dict[str, list[Sampled]] = defaultdict(list)
    for found in itertools.chain.from_iterable(spread(_look, looks)):
        groups[found.group].append(found)
    todo = [
        _Estimate(name, tuple(sorted(group, key=lambda s: s.uri)[: rule.sample]), output)
        for name, group in sorted(groups.items())
        if len(group) >= rule.min_images
    ]
    index: dict[str, dict[str, Any]] = {
        name: {"images": len(group), "marks": 0, "sha256": None} for name, group in groups.items()
    }
    for name, told in spread(_estimate, todo):
        index[name] |= told
    output.put_new(_INDEX, json.dumps(index, indent=1, sort_keys=True).encode())
    return dict(json.loads(output.get(_INDEX)))


def _first_uris(output: Store, most: int) -> Iterator[str]:
    """The uris of the first `most` rows of the plan."""
    left = most
    for unit in plan.read_index(output, 0) if plan.generations(output) else []:
        if left <= 0:
            return
        uris = plan.read_unit(output, unit)["source_uri"].to_pylist()[:left]
        yield from uris
        left -= len(uris)


def group_of(uri: str, size: tuple[int, int], by: str) -> str:
    """The group of an image: "640x480", or the folder (or container) that it lies in."""
    return f"{size[0]}x{size[1]}" if by == "size" else unquote(uri.partition("#")[0].rpartition("/")[0])


def _look(look: _Look) -> list[Sampled]:
    """The images among these, with their groups; what is none gets its row in the run itself."""
    found = []
    for uri, data in zip(look.uris, read_images(look.uris), strict=True):
        try:
            if isinstance(data, CleanplateError):
                raise data
            head = probe(data, look.max_pixels)
        except (StorageError, RowError, ImageError) as error:
            if isinstance(error, StorageError) and error.kind == "unreachable":
                raise
            continue
        size = (head["width"], head["height"])
        found.append(Sampled(uri, group_of(uri, size, look.by), size))
    return found


def _estimate(task: _Estimate) -> tuple[str, dict[str, Any]]:
    """One group: (its name, what the index says of it). Writes its artefact and a picture of the marks."""
    from models.consensus import find_marks

    frame = max(s.size for s in task.sample)
    keep = max(12, _STACK_BYTES // (3 * frame[0] * frame[1]))
    datas = read_images([s.uri for s in task.sample[:keep]])
    stack = [pixels for data in datas if (pixels := _pixels(data, frame)) is not None]
    marks = find_marks(np.stack(stack)) if stack else []
    marks = [mark for mark in marks if mark.support >= max(8, len(stack) // 4)]
    told: dict[str, Any] = {"marks": len(marks), "sha256": None}
    if marks:
        data = _packed(marks, frame, len(stack))
        task.output.put(_key(task.group), data)
        task.output.put(_key(task.group, "png"), _picture(marks, frame))
        told |= {"sha256": hashlib.sha256(data).hexdigest(), "support": [mark.support for mark in marks]}
        told |= {"boxes": [mark.box for mark in marks], "opacity": [float(m.alpha.max()) for m in marks]}
    return task.group, told


def _pixels(data: Fetched, frame: tuple[int, int]) -> Image | None:
    """The picture in the group's frame; None for one that went away or does not decode: its row will tell."""
    try:
        pixels = images.decode(data).pixels if not isinstance(data, CleanplateError) else None
    except ImageError:
        return None
    if pixels is None or pixels.shape[1::-1] == frame:
        return pixels
    return np.asarray(cv2.resize(pixels, frame, interpolation=cv2.INTER_AREA), np.uint8)


def _key(group: str, ending: str = "npz") -> str:
    return f"{FOLDER}/{hashlib.sha256(group.encode()).hexdigest()[:16]}.{ending}"


def _packed(marks: Sequence[Mark], frame: tuple[int, int], count: int) -> bytes:
    sink = io.BytesIO()
    arrays: dict[str, Any] = {"frame": np.array(frame), "images": np.array(count)}
    for n, mark in enumerate(marks):
        arrays |= {f"{n}.{name}": np.asarray(value) for name, value in asdict(mark).items()}
    np.savez_compressed(sink, **arrays)
    return sink.getvalue()


def _unpacked(data: bytes) -> tuple[tuple[int, int], list[Mark]]:
    from models.consensus import Mark

    with np.load(io.BytesIO(data), allow_pickle=False) as held:
        width, height = held["frame"].tolist()
        count = sum(name.endswith(".box") for name in held.files)
        marks = [
            Mark(
                tuple(held[f"{n}.box"].tolist()),
                held[f"{n}.alpha"],
                held[f"{n}.colour"],
                int(held[f"{n}.support"]),
            )
            for n in range(count)
        ]
    return (width, height), marks


def _picture(marks: Sequence[Mark], frame: tuple[int, int]) -> bytes:
    """The marks alone, as PNG with alpha: for people."""
    canvas = np.zeros((frame[1], frame[0], 4), np.uint8)
    for mark in marks:
        x0, y0, x1, y1 = mark.box
        drawn = np.dstack([mark.colour[..., ::-1], mark.alpha[..., None] * 255]).round().astype(np.uint8)
        canvas[y0:y1, x0:x1] = np.where(mark.mask[..., None], drawn, canvas[y0:y1, x0:x1])
    _, png = cv2.imencode(".png", canvas)
    return bytes(png.tobytes())


# --- rows ---


class Consensus:
    """The marks of a run, looked up for each row. Opened once a worker; a group's marks are fetched when its first
    row comes."""

    def __init__(self, recipe: Recipe) -> None:
        from models import consensus

        self.model = consensus
        self.rule, self.store = recipe.consensus, open_store(recipe.consensus.found or "")
        self.index = dict(json.loads(self.store.get(_INDEX)))
        self._group = lru_cache(maxsize=64)(self._fetched)

    def _fetched(self, group: str) -> tuple[tuple[int, int], list[Mark]]:
        data = self.store.get(_key(group))
        if hashlib.sha256(data).hexdigest() != self.index[group]["sha256"]:
            raise ContractError(f"{self.store.url}/{_key(group)} is not what {_INDEX} says")
        return _unpacked(data)

    def marks(self, row: dict[str, Any]) -> list[Mark]:
        """The marks of the row's group, as they lie in its image."""
        size = (row["width"], row["height"])
        known = self.index.get(group_of(row["source_uri"], size, self.rule.group))
        if not known or not known["marks"]:
            return []
        frame, marks = self._group(group_of(row["source_uri"], size, self.rule.group))
        return [self.model.scaled(mark, frame, size) for mark in marks]

    def find(self, row: dict[str, Any], picture: Image) -> tuple[str, list[Region]]:
        """(what looked, the marks that this image carries)."""
        group = group_of(row["source_uri"], (row["width"], row["height"]), self.rule.group)
        known = self.index.get(group)
        if known is None or known["images"] < self.rule.min_images:
            return "consensus: too few images alike", []
        found = []
        for mark in self.marks(row):
            score = self.model.strength(picture, mark)
            if score >= self.model.PRESENT:
                found.append(_region(mark, picture, min(1.0, score)))
        return f"consensus of {known['images']} images", found

    def left(self, row: dict[str, Any], result: Image) -> list[Region]:
        """The marks that still show in a result, among those that were found in the source."""
        boxes = [tuple(round(v) for v in r["box"]) for r in row["regions"] or [] if r["kind"] == KIND]
        found = []
        for mark in self.marks(row):
            if mark.box in boxes and abs(score := self.model.strength(result, mark)) > _LEFT:
                found.append(_region(mark, result, min(1.0, abs(score))))
        return found

    def lifted(self, row: dict[str, Any], picture: Image) -> tuple[Image, Mask | None]:
        """The picture with the row's marks taken off where their opacity allows it, and HW bool: where that was
        done and nothing is left to fill; None for a row without such marks. A region that a repair gave to a filler
        is left to it."""
        mine = [r for r in row["regions"] if r["kind"] == KIND and not r.get("filler")]
        if not mine:
            return picture, None
        boxes = [tuple(round(v) for v in r["box"]) for r in mine]
        done = np.zeros(picture.shape[:2], np.bool_)
        for mark in self.marks(row):
            if mark.box not in boxes:
                continue
            picture, rest = self.model.take_off(picture, mark, self.rule.max_opacity)
            x0, y0, x1, y1 = mark.box
            done[y0:y1, x0:x1] |= ~rest[y0:y1, x0:x1]
        return picture, done


def _region(mark: Mark, picture: Image, score: float) -> Region:
    x0, y0, x1, y1 = mark.box
    mask = np.zeros(picture.shape[:2], np.bool_)
    mask[y0:y1, x0:x1] = mark.mask
    return Region(KIND, "consensus", score, (float(x0), float(y0), float(x1), float(y1)), mask)


def opened(recipe: Recipe) -> Consensus | None:
    """What looks up a row's marks, when the recipe removes static-watermark. Raises ConfigError outside a run."""
    if KIND not in recipe.remove:
        return None
    if recipe.consensus.found is None:
        raise ConfigError(
            f"{KIND} is what a whole collection has in common: only `cleanplate run` can remove it; one image alone "
            "cannot be looked at with this recipe"
        )
    return Consensus(recipe)


def placed(recipe: Recipe, output: Store) -> Recipe:
    """The recipe that travels to the workers: it names the place of the run's marks."""
    return recipe.model_copy(update={"consensus": recipe.consensus.model_copy(update={"found": output.url})})
