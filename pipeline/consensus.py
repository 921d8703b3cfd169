"""static-watermark: what a whole collection has in common, found once before the run and stored beside it.

    sample of the plan > groups > one estimate a group > consensus/<group>.npz, .png > consensus/index.json

The plan is sorted by hash, so its first rows are a random sample of the source. Images of one group (of one size, else
of one folder, else all; the latter are brought to one size) are laid over each other; models/consensus.py tells what
they share. The index is written last and only if absent: with it the marks are fixed, and every unit, retry and resumed
run sees the same. An image whose groups all have too few images has no mark; the row's `detectors` say so.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import cv2
import numpy as np

from models.regions import Image, Mask, Region
from pipeline import exif, images, jpeg, plan
from pipeline.containers import read_images
from pipeline.errors import CleanplateError, ConfigError, ContractError, RowError, StorageError
from pipeline.formats import SOF, ImageError, jpeg_segments, sniff
from pipeline.pixels import exif_block, upright, upright_to_stored
from pipeline.recipe import Recipe
from pipeline.rules import Consensus as Rule
from pipeline.stage import Spread
from pipeline.stages.read import probe
from pipeline.storage import Store, open_store

if TYPE_CHECKING:
    from models.overlay import Mark
    from models.overlay_jpeg import Plane

KIND = "static-watermark"
FOLDER = "consensus"
_INDEX = f"{FOLDER}/index.json"
_AT_ONCE = 32
_WAYS: dict[str, tuple[str, ...]] = {
    "auto": ("size", "folder", "all"),
    "size": ("size",),
    "folder": ("folder",),
    "all": ("all",),
}
"""By `consensus.group`: how images are grouped; the next way takes those whose group is too small."""
_STACK_BYTES = 1 << 30
_LEFT = 0.35
"""A result whose strength is beyond this (either way: taken off too little or too much) still shows the mark."""


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
        return dict(json.loads(output.get(_INDEX)))
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
    for name, told in spread(_estimate, todo):
        index[name] |= told
    output.put_new(_INDEX, json.dumps(index, indent=1, sort_keys=True).encode())
    return dict(json.loads(output.get(_INDEX)))


def _groups(found: Sequence[Sampled], rule: Rule) -> dict[str, list[Sampled]]:
    """The groups that some image needs: those of its own size, and, while that is too small, those of the next way of
    _WAYS. A folder counts with all its images, also those that have a group of their size: they may share a mark."""
    groups: dict[str, list[Sampled]] = {}
    left = list(found)
    for by in _WAYS[rule.group]:
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
    index = json.loads(output.get(_INDEX))
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


def group_of(uri: str, size: tuple[int, int], by: str) -> str:
    """The group of an image: "640x480", the folder that it (or its container) lies in, or "all"."""
    if by == "all":
        return "all"
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
        found.append(Sampled(uri, size))
    return found


def _estimate(task: _Estimate) -> tuple[str, dict[str, Any]]:
    """One group: (its name, what the index says of it). Writes its artefact and a picture of the marks."""
    from models.consensus import common_marks

    frame = max(s.size for s in task.sample)
    keep = max(12, _STACK_BYTES // (3 * frame[0] * frame[1]))
    datas = [
        d for d in read_images([s.uri for s in task.sample[:keep]]) if not isinstance(d, CleanplateError)
    ]
    pictures = [pixels for data in datas if (pixels := _pixels(data)) is not None]
    marks = common_marks(pictures, sum(map(_coarse, datas)) * 2 > len(datas)) if pictures else []
    told: dict[str, Any] = {"marks": len(marks), "sha256": None}
    if marks:
        data = _packed(marks, len(pictures))
        digest = hashlib.sha256(data).hexdigest()
        # Named by content: two drivers, whose processors round differently, do not write over each other.
        task.output.put(_key(task.group, digest), data)
        task.output.put(_key(task.group, digest, "png"), _picture(marks))
        told |= {"sha256": digest, "support": [mark.support for mark in marks]}
        told |= {"boxes": [mark.box for mark in marks], "opacity": [float(m.alpha.max()) for m in marks]}
        told |= {"frames": [mark.frame for mark in marks], "anchors": [mark.anchor for mark in marks]}
    return task.group, told


def _pixels(data: bytes) -> Image | None:
    """None for what does not decode: its row will tell."""
    try:
        return images.decode(data).pixels
    except ImageError:
        return None


def _coarse(data: bytes) -> bool:
    """A JPEG that stores its colours at a reduced size?"""
    try:
        segments = jpeg_segments(data)[0] if sniff(data) == "jpeg" else []
    except ImageError:
        return False
    return any(s.marker in SOF and s.payload[5:6] == b"\3" and s.payload[7] != 0x11 for s in segments)


def _key(group: str, digest: str, ending: str = "npz") -> str:
    return f"{FOLDER}/{hashlib.sha256(group.encode()).hexdigest()[:16]}-{digest[:12]}.{ending}"


def _packed(marks: Sequence[Mark], count: int) -> bytes:
    sink = io.BytesIO()
    arrays: dict[str, Any] = {"images": np.array(count)}
    for n, mark in enumerate(marks):
        fields = asdict(mark) | {"anchor": mark.anchor or ()}
        arrays |= {f"{n}.{name}": np.asarray(value) for name, value in fields.items()}
    np.savez_compressed(sink, **arrays)
    return sink.getvalue()


def _unpacked(data: bytes) -> list[Mark]:
    from models.overlay import Mark

    with np.load(io.BytesIO(data), allow_pickle=False) as held:
        count = sum(name.endswith(".box") for name in held.files)
        return [
            Mark(
                tuple(held[f"{n}.box"].tolist()),
                held[f"{n}.alpha"],
                held[f"{n}.colour"],
                tuple(held[f"{n}.frame"].tolist()),
                int(held[f"{n}.support"]),
                tuple(held[f"{n}.anchor"].tolist()) or None,
            )
            for n in range(count)
        ]


def _picture(marks: Sequence[Mark]) -> bytes:
    """The marks alone, as PNG with alpha, as they lie in the largest frame: for people."""
    from models.overlay import placed

    frame = max(mark.frame for mark in marks)
    canvas = np.zeros((frame[1], frame[0], 4), np.uint8)
    for mark in filter(None, (placed(mark, frame) for mark in marks)):
        x0, y0, x1, y1 = mark.box
        drawn = np.dstack([mark.colour[..., ::-1], mark.alpha[..., None] * 255]).round().astype(np.uint8)
        canvas[y0:y1, x0:x1] = np.where(mark.mask[..., None], drawn, canvas[y0:y1, x0:x1])
    _, png = cv2.imencode(".png", canvas)
    return bytes(png.tobytes())


# --- rows ---


class Consensus:
    """The marks of a run, looked up for each row. The stages of a worker share one (`opened`); a group's marks are
    fetched when its first row comes, and brought to each size once."""

    def __init__(self, rule: Rule, index: bytes) -> None:
        from models import overlay

        self.model, self.rule = overlay, rule
        self.store, self.index = open_store(rule.found or ""), dict(json.loads(index))
        self._fetched = lru_cache(maxsize=16)(self._fetch)
        self._placed = lru_cache(maxsize=32)(self._place)

    def _fetch(self, group: str) -> list[Mark]:
        digest = self.index[group]["sha256"]
        data = self.store.get(_key(group, digest))
        if hashlib.sha256(data).hexdigest() != digest:
            raise ContractError(f"{self.store.url}/{_key(group, digest)} is not what {_INDEX} says")
        return _unpacked(data)

    def _place(self, group: str, size: tuple[int, int]) -> list[Mark]:
        return [
            there for mark in self._fetched(group) if (there := self.model.placed(mark, size)) is not None
        ]

    def _group(self, row: dict[str, Any]) -> str | None:
        """The first of the row's groups that is large enough; None where none is."""
        size = (row["width"], row["height"])
        names = (group_of(row["source_uri"], size, by) for by in _WAYS[self.rule.group])
        return next((n for n in names if self._images(n) >= self.rule.min_images), None)

    def _images(self, group: str) -> int:
        return int(self.index.get(group, {"images": 0})["images"])

    def marks(self, row: dict[str, Any]) -> list[Mark]:
        """The marks of the row's group, as they lie in its image."""
        group = self._group(row)
        if group is None or not self.index[group]["marks"]:
            return []
        return self._placed(group, (row["width"], row["height"]))

    def find(self, row: dict[str, Any], picture: Image) -> tuple[str, list[Region]]:
        """(what looked, the marks that this image carries)."""
        group = self._group(row)
        if group is None:
            return "consensus: too few images alike", []
        known = self.index[group]
        scored = [(mark, self.model.strength(picture, mark)) for mark in self.marks(row)]
        found = [_region(m, picture, min(1.0, s)) for m, s in scored if s >= self.model.PRESENT]
        which = f" ({known['sha256'][:12]})" if known["sha256"] else ""
        return f"consensus of {known['images']} images{which}", found

    def left(self, row: dict[str, Any], result: Image) -> list[Region]:
        """The marks that still show in a result, among those that were found in the source. Writes into the row's
        regions how strongly each does."""
        found = []
        for mark, region in self._of(row):
            score = self.model.strength(result, mark)
            region["left"] = score if np.isfinite(score) else None
            if abs(score) > _LEFT:
                found.append(_region(mark, result, min(1.0, abs(score))))
        return found

    def lifted(self, row: dict[str, Any], picture: Image) -> tuple[Image, Mask | None]:
        """The picture with the row's marks taken off where their opacity allows it, and HW bool: where that was
        done and nothing is left to fill; None for a row without such marks. A region that a repair gave to a filler
        is left to it."""
        mine = [mark for mark, region in self._of(row) if not region.get("filler")]
        if not mine:
            return picture, None
        done = np.zeros(picture.shape[:2], np.bool_)
        planes = planes_of(row["source"])
        turn = exif.orientation(exif_block(row["source"], "jpeg")) if planes else 1
        for mark in mine:
            picture, rest = self._taken_off(picture, mark, planes, turn)
            x0, y0, x1, y1 = mark.box
            done[y0:y1, x0:x1] |= ~rest[y0:y1, x0:x1]
        return picture, done

    def _taken_off(
        self, picture: Image, mark: Mark, planes: list[Plane], orientation: int
    ) -> tuple[Image, Mask]:
        if not planes:
            return self.model.take_off(picture, mark, self.rule.max_opacity)
        from models.overlay_jpeg import take_off_jpeg

        stored = np.ascontiguousarray(upright_to_stored(picture, orientation))
        turned = _turned(mark, picture.shape[:2], orientation)
        made, rest = take_off_jpeg(stored, planes, turned, self.rule.max_opacity)
        return np.ascontiguousarray(upright(made, orientation)), upright(rest, orientation)

    def _of(self, row: dict[str, Any]) -> Iterator[tuple[Mark, dict[str, Any]]]:
        """The marks that were found in the row, each with its region."""
        boxes = {tuple(round(v) for v in r["box"]): r for r in row["regions"] or [] if r["kind"] == KIND}
        return ((mark, boxes[mark.box]) for mark in self.marks(row) if mark.box in boxes)


def planes_of(source: bytes) -> list[Plane]:
    """The planes of a JPEG in brightness and colour differences; none for any other file."""
    from models.overlay_jpeg import Plane

    if sniff(source) != "jpeg":
        return []
    try:
        found = jpeg.read(source)
        if found.space not in ("L", "YCC"):
            return []
        sides = [jpeg.footprint(found.components, c) for c in found.components]
    except jpeg.SpliceError:
        return []
    return [
        Plane(c.blocks.reshape(*c.blocks.shape[:2], 8, 8), table, (high // 8, wide // 8))
        for c, table, (high, wide) in zip(found.components, found.tables, sides, strict=True)
    ]


def _turned(mark: Mark, shape: tuple[int, int], orientation: int) -> Mark:
    """The mark in the file's own frame. shape: (height, width) of the upright picture."""
    if orientation == 1:
        return mark
    x0, y0, x1, y1 = mark.box
    here = np.zeros(shape, np.bool_)
    here[y0:y1, x0:x1] = True
    there = upright_to_stored(here, orientation)
    rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    alpha, colour = (upright_to_stored(field, orientation) for field in (mark.alpha, mark.colour))
    return replace(mark, box=box, alpha=alpha, colour=colour, frame=(there.shape[1], there.shape[0]))


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
    return _shared(recipe.consensus, open_store(recipe.consensus.found).get(_INDEX))


@lru_cache(maxsize=2)
def _shared(rule: Rule, index: bytes) -> Consensus:
    return Consensus(rule, index)


def placed(recipe: Recipe, output: Store) -> Recipe:
    """The recipe that travels to the workers: it names the place of the run's marks."""
    return recipe.model_copy(update={"consensus": recipe.consensus.model_copy(update={"found": output.url})})
