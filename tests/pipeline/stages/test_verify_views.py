"""What verification sees: other pixels than the finders did, near the edits that it is owed. Rows say who looked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cleanplate.models.detectors.onnx_session import Session
from cleanplate.models.types import Image, Mask, Region
from cleanplate.pipeline.factory import detectors, kinds
from cleanplate.pipeline.factory.detectors import Verifier
from cleanplate.pipeline.images import rle
from cleanplate.pipeline.recipe.recipe import load
from cleanplate.pipeline.stages.residue import look_again
from cleanplate.pipeline.stages.rows import region_struct

SMALL, LARGE = (200, 300), (1500, 2000)


class Shown:
    """A session that notes what it is shown."""

    def __init__(self, session: Session, seen: list[bytes]) -> None:
        self._session, self._seen = session, seen
        self.get_providers, self.get_modelmeta = session.get_providers, session.get_modelmeta

    def run(self, names: list[str] | None, feeds: dict[str, Any]) -> list[Any]:
        self._seen += [one.tobytes() for batch in feeds.values() for one in batch]
        return self._session.run(names, feeds)


def parts_of(found: Iterable[Any]) -> Iterator[Any]:
    """These objects of ours, and what they hold of ours, however deep: detectors are made of detectors."""
    pending, known = list(found), set()
    while pending:
        part = pending.pop()
        if id(part) in known or not type(part).__module__.startswith("cleanplate."):
            continue
        known.add(id(part))
        yield part
        slots = [getattr(part, name, None) for name in getattr(type(part), "__slots__", ())]
        held = [*vars(part).values(), *slots] if hasattr(part, "__dict__") else slots
        pending += [
            inner for value in held for inner in (value if isinstance(value, list | tuple) else [value])
        ]


@pytest.mark.parametrize(("height", "width"), [(240, 320), (200, 500)])
def test_no_network_is_shown_again_what_it_saw(height: int, width: int) -> None:
    """Up to 960 pixels it was, to the pixel, when the views differed by their largest size only."""
    photo = cv2.imread(str(Path(__file__).parents[2] / "data" / "photos" / "astronaut.jpg"))
    assert photo is not None
    picture = np.ascontiguousarray(photo[:height, :width, ::-1], np.uint8)
    recipe = load(None, {"remove": ["text", "face"]})
    first, again = kinds.detectors(recipe), kinds.verifiers(recipe)
    nets = {id(part): part for part in parts_of([*first, *(v.detector for v in again)])}
    seen: list[bytes] = []
    places = [(net, name) for net in nets.values() for name in ("_session", "session") if hasattr(net, name)]
    kept = [(net, name, getattr(net, name)) for net, name in places]
    try:
        for net, name, session in kept:
            setattr(net, name, Shown(session, seen))
        for detector in first:
            detector([picture])
        found = set(seen)
        seen.clear()
        for verifier in again:
            if verifier.guard == 0:
                verifier.detector([picture])
    finally:
        for net, name, session in kept:
            setattr(net, name, session)
    assert len(found) > 6
    assert len(seen) > 6
    assert not found & set(seen)


def test_text_is_seen_at_another_scale_whatever_the_size() -> None:
    first, again = detectors.lines(False, False, 0), detectors.lines(True, False, 0)
    for longest in range(160, 1400, 17):
        scales = [
            max(one.proposer.views.of(longest // 2, longest)[0].size) / longest for one in (first, again)
        ]
        assert max(scales) / min(scales) > 1.05, (longest, scales)
        wanted = [one.proposer.views.enlargement(longest) for one in (first, again)]
        assert max(wanted[0] / wanted[1], wanted[1] / wanted[0]) > 1.1 or longest > 960


class Noting:
    """A detector that finds nothing and notes the sizes that it was shown."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        self.shapes += [image.shape[:2] for image in images]
        return [[] for _ in images]


def row_of(shape: tuple[int, int], *edits: tuple[str, str, int]) -> dict[str, Any]:
    """A row with edits of 20 x 40 pixels: (kind, detector, left end)."""
    whole: Mask = np.zeros(shape, np.bool_)
    regions = []
    for kind, detector, x in edits:
        mask: Mask = np.zeros(shape, np.bool_)
        mask[40:60, x : x + 40] = True
        whole |= mask
        regions.append(region_struct(Region(kind, detector, 0.9, (x, 40, x + 40, 60)), mask))
    return {
        "height": shape[0],
        "width": shape[1],
        "regions": regions,
        "mask_rle": rle.to_rle(whole),
        "review": None,
    }


def looked(row: dict[str, Any], verifiers: list[Verifier], scope: str = "edited") -> list[str]:
    picture = np.zeros((row["height"], row["width"], 3), np.uint8)
    look_again([row], [picture], verifiers, load(None, {"remove": ["text", "face"], "verify.scope": scope}))
    return list(row["verifiers"])


def test_a_kind_is_verified_where_it_was_edited() -> None:
    text, face, any_kind = Noting("lines"), Noting("faces"), Noting("all")
    verifiers = [Verifier(text, ("text",)), Verifier(face, ("face",), least=256), Verifier(any_kind)]
    assert looked(row_of(SMALL, ("face", "f", 30)), verifiers) == ["faces", "all"]
    assert looked(row_of(SMALL, ("text", "t", 30)), verifiers) == ["lines", "all"]
    far = row_of(LARGE, ("text", "t", 100), ("face", "f", 1600))
    for one in (text, face, any_kind):
        one.shapes.clear()
    assert looked(far, verifiers) == ["lines", "faces", "all"]
    assert (text.shapes, face.shapes, len(any_kind.shapes)) == ([(512, 512)], [(256, 256)], 2)
    assert looked(row_of(SMALL, ("text", "t", 30)), verifiers, scope="all") == ["lines", "faces", "all"]


def test_a_dear_view_is_asked_about_what_it_found() -> None:
    turned = Verifier(Noting("turned"), ("text",), view="@slanted")
    assert looked(row_of(SMALL, ("text", "lines", 30)), [turned]) == []
    assert looked(row_of(SMALL, ("text", "lines@slanted", 30)), [turned]) == ["turned"]
    assert looked(row_of(SMALL, ("", "", 30)), [turned]) == ["turned"], "painted by hand: it may be anything"
    assert looked(row_of(SMALL), [turned], scope="all") == ["turned"]


def test_close_ups_are_of_edits_of_its_kinds() -> None:
    close = Noting("close")
    row = row_of(LARGE, ("face", "f", 300), ("text", "t", 900))
    assert looked(row, [Verifier(close, ("face",), close=True)]) == ["close"]
    assert close.shapes == [(110, 120)]
    assert looked(row_of(SMALL, ("text", "t", 30)), [Verifier(close, ("face",), close=True)]) == []


def test_a_detector_of_several_kinds_looks_once() -> None:
    shared, other = Noting("shared"), Noting("other")
    merged = kinds.each_once(
        [Verifier(shared, ("person",)), Verifier(other, ("face",)), Verifier(shared, ("vehicle",))]
    )
    assert [(one.detector.name, one.of) for one in merged] == [
        ("shared", ("person", "vehicle")),
        ("other", ("face",)),
    ]


class Marks:
    """Finds a watermark in every window that holds this box of the picture, whose pixels are all its own."""

    name = "marks-again"

    def __init__(self, box: tuple[int, int, int, int]) -> None:
        self.box, self.shapes = box, []

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        self.shapes += [image.shape[:2] for image in images]
        x0, y0, x1, y1 = self.box
        whole = [image.shape[:2] == (1200, 1600) for image in images]
        return [
            [Region("watermark", self.name, 0.9, (float(x0), float(y0), float(x1), float(y1)))] if one else []
            for one in whole
        ]


def marked_row(boxes: list[tuple[int, int, int, int]]) -> dict[str, Any]:
    masks = []
    for x0, y0, x1, y1 in boxes:
        mask = np.zeros((1200, 1600), np.bool_)
        mask[y0:y1, x0:x1] = True
        masks.append(mask)
    found = [
        Region("watermark", "marks", 0.9, (float(b[0]), float(b[1]), float(b[2]), float(b[3])), mask)
        for b, mask in zip(boxes, masks, strict=True)
    ]
    row: dict[str, Any] = {"height": 1200, "width": 1600, "review": None, "status": None, "hidden": []}
    row["regions"] = [region_struct(r, r.mask) for r in found]
    row["mask_rle"] = rle.to_rle(rle.union(masks, 1200, 1600))
    return row


@pytest.mark.parametrize(
    ("boxes", "copy", "counts"),
    [
        ([(20, 20, 120, 50), (220, 20, 318, 52), (20, 120, 122, 149)], (1320, 1020, 1420, 1050), True),
        ([(20, 20, 120, 50), (220, 20, 318, 52), (20, 120, 122, 149)], (1320, 1020, 1350, 1045), False),
        ([(20, 20, 120, 50), (220, 20, 318, 52)], (1320, 1020, 1420, 1050), False),
        ([(20, 20, 120, 50), (220, 20, 260, 90), (20, 120, 222, 149)], (1320, 1020, 1420, 1050), False),
    ],
    ids=["a missed copy", "another size", "two are no tiling", "three unlike ones"],
)
def test_a_mark_that_repeats_is_looked_for_in_the_whole_picture(
    boxes: list[tuple[int, int, int, int]], copy: tuple[int, int, int, int], counts: bool
) -> None:
    detector = Marks(copy)
    verifier = Verifier(detector, of=("watermark",))
    recipe = load(None, {"remove": ["watermark"]})
    (found,) = look_again([marked_row(boxes)], [np.zeros((1200, 1600, 3), np.uint8)], [verifier], recipe)
    assert bool(found) is counts
    assert ((1200, 1600) in detector.shapes) is (len(boxes) == 3 and boxes[1][3] == 52)
