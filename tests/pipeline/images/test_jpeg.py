"""JPEG block splice: coefficients are compared by another reader than the one that wrote them."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import tempfile
from pathlib import Path

import cv2
import jpeglib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cleanplate.pipeline.images import encode
from cleanplate.pipeline.images.formats.jpeg_coding import blocks as jpeg_blocks
from cleanplate.pipeline.images.formats.jpeg_coding import huffman as jpeg_huffman
from cleanplate.pipeline.images.formats.jpeg_coding import rotate as jpeg_rotate
from cleanplate.pipeline.images.formats.jpeg_coding.anew import reencode
from cleanplate.pipeline.images.formats.jpeg_coding.huffman import Component
from cleanplate.pipeline.images.formats.jpeg_coding.parts import SOF, jpeg_segments
from rigs import bad_images

PHOTOS = sorted((Path(__file__).parents[2] / "data" / "photos").glob("*.jpg"))
JPEGS = [name for name in bad_images.GOOD if name.startswith("jpeg")]


def blocks(data: bytes) -> list[np.ndarray]:
    """Coefficients by jpeglib alone, rows x columns x 8 x 8 for each component."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a.jpg")
        Path(path).write_bytes(data)
        jpeglib.version.set("turbo210")
        found = jpeglib.read_dct(path)
        return [a for a in (found.Y, found.Cb, found.Cr, found.K) if a is not None]


def head(data: bytes) -> list[tuple[int, bytes]]:
    """Segments that must not change: quantisation tables, frame header, restart interval."""
    return [(s.marker, s.payload) for s in jpeg_segments(data)[0] if s.marker in SOF | {0xDB, 0xDD}]


def spliced(source: bytes, mask: np.ndarray, seed: int = 0) -> tuple[encode.Decoded, encode.Encoded]:
    """The source with noise inside the mask."""
    decoded = encode.decode(source)
    edited = np.random.default_rng(seed).integers(0, 256, decoded.pixels.shape).astype(np.uint8)
    return decoded, encode.encode(source, decoded, edited, mask)


def assert_blocks_outside_equal(source: bytes, out: bytes, mask: np.ndarray) -> None:
    """mask: HW in the stored frame."""
    old, new = blocks(source), blocks(out)
    assert len(old) == len(new)
    frame = next(s.payload for s in jpeg_segments(source)[0] if s.marker in SOF)
    factors = [(frame[7 + 3 * i] & 15, frame[7 + 3 * i] >> 4) for i in range(len(old))]
    high = 8 * max(v for v, _ in factors) if len(old) > 1 else 8
    wide = 8 * max(h for _, h in factors) if len(old) > 1 else 8
    ys, xs = np.nonzero(mask)
    mcus = {(y // high, x // wide) for y, x in zip(ys.tolist(), xs.tolist(), strict=True)}
    for (v, h), one, other in zip(factors, old, new, strict=True):
        v, h = (v, h) if len(old) > 1 else (1, 1)
        assert one.shape == other.shape
        changed = np.argwhere((one != other).any(axis=(2, 3)))
        assert {(int(y) // v, int(x) // h) for y, x in changed} <= mcus


@pytest.mark.parametrize("name", JPEGS)
def test_coefficients_written_are_coefficients_read(name: str) -> None:
    source = bad_images.GOOD[name][1]()
    written = jpeg_blocks.write(source, jpeg_blocks.read(source))
    for one, other in zip(blocks(source), blocks(written), strict=True):
        assert (one == other).all()
    if name != "jpeg arithmetic":
        assert head(written) == head(source)


@pytest.mark.parametrize("name", JPEGS)
@given(st.data())
@settings(max_examples=12, deadline=None)
def test_any_mask_leaves_other_blocks_and_far_pixels_alone(name: str, data: st.DataObject) -> None:
    source = _SOURCES[name]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    decoded = encode.decode(source)
    mask = np.zeros((decoded.height, decoded.width), bool)
    for _ in range(data.draw(st.integers(1, 4))):
        y, x = rng.integers(decoded.height), rng.integers(decoded.width)
        mask[y : y + rng.integers(1, 25), x : x + rng.integers(1, 25)] = True
    before, out = spliced(source, mask, seed=1)
    assert out.jpeg_blocks_equal is True
    assert out.pixels_equal is True
    assert out.inside_changed
    turned = encode.upright_to_stored(mask, before.orientation)
    assert_blocks_outside_equal(source, out.data, turned)
    far = ~_dilate(mask, 2 * 32)  # two of the largest MCUs
    assert (encode.decode(out.data).pixels[far] == before.pixels[far]).all()


_SOURCES = {name: bad_images.GOOD[name][1]() for name in JPEGS}


def _dilate(mask: np.ndarray, by: int) -> np.ndarray:
    out = mask.copy()
    for y, x in np.argwhere(mask):
        out[max(0, y - by) : y + by, max(0, x - by) : x + by] = True
    return out


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_blocks": 7}, {"subsampling": 1}]
)
def test_the_file_keeps_its_kind(options: dict[str, int]) -> None:
    source = bad_images.jpeg(**options)
    mask = np.zeros((64, 96), bool)
    mask[20:30, 30:50] = True
    _, out = spliced(source, mask)
    assert head(out.data) == head(source)
    assert out.note is None
    restarts = [
        sum(s.scan.count(bytes([0xFF, 0xD0 + k])) for k in range(8)) for s in jpeg_segments(out.data)[0]
    ]
    assert (sum(restarts) > 0) == ("restart_marker_blocks" in options)


@pytest.mark.parametrize("path", PHOTOS, ids=lambda p: p.stem)
@pytest.mark.parametrize("progressive", [False, True])
def test_photographs_come_close_to_what_an_encoder_makes(path: Path, progressive: bool) -> None:
    """Same quality inside as Pillow with the same tables, and no larger a file than a tenth more."""
    with Image.open(path) as photo:
        source = bad_images.save(photo, "JPEG", quality=85, progressive=progressive)
    decoded = encode.decode(source)
    edited = decoded.pixels[:, ::-1].copy()
    mask = np.zeros(decoded.pixels.shape[:2], bool)
    mask[64:192, 64:224] = True
    ours = encode.encode(source, decoded, edited, mask)
    merged = decoded.pixels.copy()
    merged[mask] = edited[mask]
    theirs = reencode(source, merged)
    wanted = edited[mask].astype(int)
    error = np.abs(encode.decode(ours.data).pixels[mask] - wanted).mean()
    reference = np.abs(encode.decode(theirs).pixels[mask] - wanted).mean()
    assert error < reference * 1.05 + 0.1
    assert len(ours.data) < len(theirs) * 1.1


def test_cmyk_without_adobe_and_files_without_a_jfif_are_understood() -> None:
    for name in ("jpeg cmyk", "jpeg rgb", "jpeg without jfif"):
        source = _SOURCES[name]
        decoded = encode.decode(source)
        mask = np.zeros((64, 96), bool)
        mask[16:48, 16:64] = True
        edited = np.full_like(decoded.pixels, 200)
        edited[..., 2] = 40
        out = encode.decode(encode.encode(source, decoded, edited, mask).data)
        assert np.abs(out.pixels[20:44, 20:60].astype(int) - edited[20:44, 20:60]).max() <= 6


def test_a_file_that_cannot_be_spliced_is_encoded_anew_and_says_so() -> None:
    """A table that is sent again between scans cannot be kept in one place."""
    source = _SOURCES["jpeg progressive"]
    segments, _ = jpeg_segments(source)
    tables = [s for s in segments if s.marker == 0xDB]
    last = max(i for i, s in enumerate(segments) if s.marker == 0xDA)
    parts = [s.to_bytes() for s in segments]
    parts.insert(last, tables[0].to_bytes())
    source = b"\xff\xd8" + b"".join(parts) + b"\xff\xd9"
    mask = np.zeros((64, 96), bool)
    mask[20:30, 30:50] = True
    _, out = spliced(source, mask)
    assert "encoded anew" in (out.note or "")
    assert out.jpeg_blocks_equal is not True


def test_the_measurement_sees_one_changed_coefficient() -> None:
    source = _SOURCES["jpeg 4:2:0"]
    old = jpeg_blocks.read(source)
    changed = [c.blocks.copy() for c in old.components]
    changed[1][1, 2, 5] += 1
    rows = [Component(c.number, c.h, c.v, b) for c, b in zip(old.components, changed, strict=True)]
    other = jpeg_blocks.write(source, jpeg_blocks.replace(old, components=rows))  # type: ignore[attr-defined]
    grids = [np.zeros(c.blocks.shape[:2], bool) for c in old.components]
    assert jpeg_blocks.blocks_equal(old, source, grids) is True
    assert jpeg_blocks.blocks_equal(old, other, grids) is False
    grids[1][1, 2] = True
    assert jpeg_blocks.blocks_equal(old, other, grids) is True


@given(st.integers(0, 2**32), st.sampled_from([1, 2, 40, 256]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_huffman_tables_are_complete_and_short(seed: int, used: int, steep: bool) -> None:
    rng = np.random.default_rng(seed)
    numbers = np.zeros(256, np.int64)
    numbers[rng.permutation(256)[:used]] = 1 + (rng.random(used) ** 8 * 10**6).astype(np.int64)
    if steep:  # Fibonacci counts make the deepest trees
        a, b = 1, 1
        for i in range(60):
            numbers[i], a, b = a, b, a + b
    bits, values = jpeg_huffman.optimal_table(numbers)
    assert sorted(values) == np.flatnonzero(numbers).tolist()
    assert sum(bits) == len(values)
    room = sum(n * 2 ** (16 - length) for length, n in enumerate(bits, 1))
    assert room < 2**16, "the code of all ones must stay free (T.81 C.2)"


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_coefficients_survive_any_scan(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    progressive, restart = data.draw(st.booleans()), data.draw(st.sampled_from([0, 1, 3, 50]))
    name = data.draw(
        st.sampled_from(["jpeg 4:2:0", "jpeg 4:4:4", "jpeg 4:1:1", "jpeg grey", "jpeg odd size"])
    )
    source = _SOURCES[name]
    if progressive:
        source = source.replace(b"\xff\xc0", b"\xff\xc2", 1)
    old = jpeg_blocks.read(_SOURCES[name])
    density = data.draw(st.sampled_from([0.0, 0.002, 0.1, 1.0]))
    rows = []
    for c in old.components:
        values = rng.integers(-1023, 1024, c.blocks.shape) * (rng.random(c.blocks.shape) < density)
        rows.append(Component(c.number, c.h, c.v, values.astype(np.int16)))
    segments, _ = jpeg_segments(source)
    start = b"".join(s.to_bytes() for s in segments if s.marker not in (0xC4, 0xDA, 0xDD))
    dri = bad_images.segment(0xDD, restart.to_bytes(2, "big")) if restart else b""
    body = jpeg_huffman.scans(rows, progressive=progressive, restart=restart)
    for one, other in zip(rows, blocks(b"\xff\xd8" + start + dri + body + b"\xff\xd9"), strict=True):
        assert (one.blocks == other.reshape(one.blocks.shape)).all()


def test_a_long_run_of_empty_blocks_is_cut_at_its_limit() -> None:
    """EOB runs end at 32,767 blocks (T.81 G.1.2.2); this picture has 40,000 empty ones."""
    old = jpeg_blocks.read(_SOURCES["jpeg grey"])
    values = np.zeros((200, 200, 64), np.int16)
    values[0, 0, 3], values[-1, -1, 3] = 7, -7
    source = bad_images.save(Image.new("L", (1600, 1600)), "JPEG", progressive=True)
    component = Component(old.components[0].number, 1, 1, values)
    result = dataclasses.replace(jpeg_blocks.read(source), components=[component])
    written = jpeg_blocks.write(source, result)
    assert (blocks(written)[0].reshape(values.shape) == values).all()


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("options", [{"subsampling": 1}, {"subsampling": 2, "progressive": True}])
def test_orientation_is_baked_in_without_loss(orientation: int, options: dict[str, int]) -> None:
    """96 x 64 is whole MCUs both ways. 4:2:2 has sampling factors and tables that must turn as well."""
    source = bad_images.telling_jpeg(orientation, **options)
    decoded = encode.decode(source)
    out = encode.encode(source, decoded, None, None, orientation="bake")
    again = encode.decode(out.data)
    assert (again.orientation, out.note) == (1, "turned upright without loss")
    assert again.pixels.shape == decoded.pixels.shape
    # Decoders round and smooth chroma a little differently in the turned frame.
    assert np.abs(again.pixels.astype(int) - decoded.pixels).mean() < 1
    assert np.abs(again.pixels.astype(int) - decoded.pixels).max() < 40
    for one, other in zip(blocks(source), blocks(out.data), strict=True):
        assert np.array_equal(np.sort(np.abs(one), axis=None), np.sort(np.abs(other), axis=None))
    mask = np.zeros(decoded.pixels.shape[:2], bool)
    mask[10:20, 30:40] = True
    edited = encode.encode(source, decoded, 255 - decoded.pixels, mask, orientation="bake")
    assert (edited.jpeg_blocks_equal, edited.pixels_equal) == (True, True)
    assert_blocks_outside_equal(out.data, edited.data, mask)
    once_more = encode.encode(out.data, again, None, None, orientation="bake")
    assert once_more.data == out.data


def test_four_turns_give_the_first_file_again() -> None:
    source = _SOURCES["jpeg 4:2:2"]
    turned = source
    for _ in range(4):
        turned = jpeg_rotate.turn(turned, 6) or b""
    assert [b.tolist() for b in blocks(turned)] == [b.tolist() for b in blocks(source)]
    assert head(turned) == head(source)


def test_sides_that_are_no_whole_mcus_keep_their_tag() -> None:
    photo = bad_images.save(bad_images.picture(width=61, height=43), "JPEG")
    exif = bad_images.segment(0xE1, b"Exif\0\0" + bad_images.exif_block(6))
    source = photo[:2] + exif + photo[2:]
    out = encode.encode(source, encode.decode(source), None, None, orientation="bake")
    assert encode.decode(out.data).orientation == 6
    assert "tag kept" in (out.note or "")


def test_threads_do_not_mix_files() -> None:
    names = ["jpeg 4:2:0", "jpeg grey", "jpeg rotated, telling", "jpeg progressive"] * 6
    expected = {name: [c.blocks for c in jpeg_blocks.read(_SOURCES[name]).components] for name in set(names)}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda name: jpeg_blocks.read(_SOURCES[name]), names))
    for name, coefficients in zip(names, found, strict=True):
        for one, component in zip(expected[name], coefficients.components, strict=True):
            assert (one == component.blocks).all()


def test_nothing_is_left_behind() -> None:
    def litter() -> set[str]:
        folders = {tempfile.gettempdir(), "/dev/shm"}
        return {f"{d}/{n}" for d in folders if os.path.isdir(d) for n in os.listdir(d) if "cleanplate-" in n}

    before = litter()
    mask = np.zeros((64, 96), bool)
    mask[20:30, 30:50] = True
    for _ in range(3):
        spliced(_SOURCES["jpeg 4:2:0"], mask)
    assert litter() <= before


@pytest.mark.parametrize("name", [n for n in JPEGS if not any(w in n for w in ("CMYK", "YCCK", "1x1"))])
@pytest.mark.parametrize("orientation", [1, 6])
def test_what_may_have_changed_is_named_to_the_pixel(name: str, orientation: int) -> None:
    """No pixel outside `edited` differs in Pillow or OpenCV, and of it no pixel lies two beside a touched block."""
    source = _SOURCES[name]
    if orientation != 1:
        tag = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + bytes(
            [0, orientation, 0, 0, 0, 0, 0, 0]
        )
        source = source[:2] + b"\xff\xe1" + (len(tag) + 2).to_bytes(2, "big") + tag + source[2:]
    decoded = encode.decode(source)
    mask = np.zeros((decoded.height, decoded.width), bool)
    mask[19:30, 21:34] = True
    _, out = spliced(source, mask)
    assert out.pixels_equal
    assert out.edited is not None
    assert not (mask & ~out.edited).any()
    assert (encode.decode(out.data).pixels != decoded.pixels).any(2)[~out.edited].sum() == 0
    before, after = (cv2.imdecode(np.frombuffer(d, np.uint8), cv2.IMREAD_COLOR) for d in (source, out.data))
    assert (before != after).any(2)[~out.edited].sum() == 0
    frame = next(s.payload for s in jpeg_segments(source)[0] if s.marker in SOF)
    sampled = [frame[7 + 3 * i] for i in range(frame[5])]
    high, wide = (
        (8 * max(s & 15 for s in sampled), 8 * max(s >> 4 for s in sampled)) if len(sampled) > 1 else (8, 8)
    )
    more = int(len(set(sampled)) > 1)
    ys, xs = np.nonzero(encode.upright_to_stored(out.edited, decoded.orientation))
    stored = np.argwhere(encode.upright_to_stored(mask, decoded.orientation))
    for axis, step, found in ((0, high, ys), (1, wide, xs)):
        low, far = stored[:, axis].min() // step * step, stored[:, axis].max() // step * step + step - 1
        assert found.min() >= low - more
        assert found.max() <= far + more


def test_a_picture_encoded_anew_says_that_all_of_it_may_differ() -> None:
    source = bad_images.jpeg(subsampling=2)
    decoded = encode.decode(source)
    mask = np.zeros((decoded.height, decoded.width), bool)
    mask[3:9, 3:9] = True
    edited = np.zeros_like(decoded.pixels)
    for found in (
        encode.encode(source, decoded, None, None, format="webp", quality=80),
        encode.encode(source, decoded, edited, mask, format="webp", quality=80),
    ):
        assert found.pixels_equal is None
        assert found.edited is not None
        assert found.edited.all()
