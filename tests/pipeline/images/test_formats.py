"""Formats by content, and headers that lie."""

from __future__ import annotations

import io
import pickle
from contextlib import suppress
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cleanplate.pipeline.images.formats import table
from cleanplate.pipeline.images.formats.base import ImageError
from cleanplate.pipeline.images.formats.jpeg_coding import parts
from rigs import bad_images


@pytest.mark.parametrize("name", bad_images.GOOD)
def test_header_agrees_with_pillow(name: str) -> None:
    _, make = bad_images.GOOD[name]
    data = make()
    found = table.header(data)
    with Image.open(io.BytesIO(data)) as picture:
        assert found.format.upper() == (picture.format or "").replace("MPO", "JPEG")
        stored = picture.size
        if found.format in ("tiff", "avif") and picture.getexif().get(274, 1) >= 5:
            stored = stored[::-1]
        assert (found.width, found.height) == stored
    assert found.frames == 1


@pytest.mark.parametrize(("name", "frames"), [("GIF", 2), ("PNG", 2), ("WEBP", 2)])
def test_frames_are_counted(name: str, frames: int) -> None:
    assert table.header(bad_images.animated(name)).frames == frames


def test_an_error_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(ImageError("corrupt", "no good")))  # noqa: S301
    assert (error.kind, str(error)) == ("corrupt", "no good")


@pytest.mark.parametrize("name", bad_images.GOOD)
def test_every_cut_is_an_error_or_a_header(name: str) -> None:
    _, make = bad_images.GOOD[name]
    data = make()
    kinds = set()
    for end in [*range(60), len(data) // 3, len(data) - 1]:
        try:
            found = table.header(data[:end])
        except ImageError as error:
            kinds.add(error.kind)
        else:
            assert found == table.header(data)
    assert kinds <= {"empty", "not_an_image", "truncated"}


def test_segments_join_to_the_file() -> None:
    data = bad_images.jpeg(progressive=True, restart_marker_blocks=5)
    segments, tail = parts.jpeg_segments(data + b"tail")
    assert b"\xff\xd8" + b"".join(s.to_bytes() for s in segments) + b"\xff\xd9" == data
    assert tail == b"tail"


def test_fill_bytes_between_segments_are_skipped() -> None:
    data = bad_images.jpeg()
    segments, _ = parts.jpeg_segments(data[:2] + b"\xff\xff\xff" + data[2:])
    assert segments == parts.jpeg_segments(data)[0]


@lru_cache
def encoded(name: str) -> bytes:
    return bad_images.GOOD[name][1]()


@given(st.sampled_from(["heic rotated, telling", "avif rotated, telling"]), st.data())
@settings(max_examples=150, deadline=None)
def test_spoilt_boxes_are_an_error_of_the_image(name: str, data: st.DataObject) -> None:
    spoilt = bytearray(encoded(name))
    for _ in range(data.draw(st.integers(1, 6))):
        spoilt[data.draw(st.integers(8, 1300))] = data.draw(st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xFF]))
    for call in (
        table.header,
        lambda d: table.clean(d, name[:4].replace("heic", "heif"), policy="scrub", edited=False),
    ):
        with suppress(ImageError):
            call(bytes(spoilt))


def test_items_without_end_are_refused_at_once() -> None:
    data = bad_images.GOOD["avif"][1]()
    at = data.index(b"iloc") + 4
    for patch in (b"\2\0\0\0\x44\0\xff\xff\xff\xff", b"\0\0\0\0\0\0\xff\xff"):
        with pytest.raises(ImageError, match="header"):
            table.header(data[:at] + patch + data[at + len(patch) :])


def test_a_chain_of_tiff_pages_that_bites_its_tail_ends() -> None:
    data = bytearray(bad_images.multipage_tiff())
    first = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[first : first + 2], "little")
    data[first + 2 + 12 * count : first + 6 + 12 * count] = data[4:8]
    assert table.header(bytes(data)).frames == 1
