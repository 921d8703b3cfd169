"""Decode anything, write edits back: what must not change does not, what must change does."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from cleanplate.pipeline.images import decode, encode, merge
from cleanplate.pipeline.images.encode import Decoded, Encoded, ImageError
from rigs import bad_images

PHOTOS = sorted((Path(__file__).parents[2] / "data" / "photos").glob("*.jpg"))


def spot(decoded: Decoded) -> np.ndarray:
    """A mask in the middle, at least one pixel."""
    mask = np.zeros((decoded.height, decoded.width), bool)
    mask[decoded.height // 3 : decoded.height // 2 + 1, decoded.width // 3 : decoded.width // 2 + 1] = True
    return mask


def edit(data: bytes, **options: str) -> tuple[Decoded, np.ndarray, np.ndarray, Encoded]:
    """Colours turned round in the middle; outside the mask the edit is noise, which must not arrive."""
    decoded = encode.decode(data)
    mask = spot(decoded)
    edited = np.random.default_rng(1).integers(0, 256, decoded.pixels.shape).astype(np.uint8)
    edited[mask] = 255 - decoded.pixels[mask]
    return decoded, mask, edited, encode.encode(data, decoded, edited, mask, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", bad_images.BAD)
def test_bad_input_is_an_image_error_of_its_kind(name: str) -> None:
    _, make, kind = bad_images.BAD[name]
    data = make()
    began = time.perf_counter()
    with pytest.raises(ImageError) as caught:
        encode.decode(data)
    assert caught.value.kind == kind
    assert time.perf_counter() - began < 2, "a bad header must not cost a decode"
    assert not re.search(r"b'|\\x", str(caught.value)), "no bytes of the file in a message"


@pytest.mark.parametrize("name", bad_images.GOOD)
def test_pixels_are_those_that_pillow_shows(name: str) -> None:
    _, make = bad_images.GOOD[name]
    data = make()
    decoded = encode.decode(data)
    assert decoded.pixels.dtype == np.uint8
    assert not decoded.pixels.flags.writeable
    if name == "jpeg arithmetic" or decoded.mode == "CMYK" or decoded.bits == 16:
        return  # other tests: Pillow cannot, or has its own CMYK formula, or 8 of 16 bits
    with Image.open(io.BytesIO(data)) as picture:
        shown = ImageOps.exif_transpose(picture)
        assert (decoded.pixels == np.asarray(shown.convert("RGBA"))[..., :3]).all()
        if decoded.alpha is not None:
            assert (decoded.alpha == np.asarray(shown.convert("RGBA"))[..., 3]).all()


def test_arithmetic_coding_shows_what_its_huffman_twin_shows() -> None:
    one, other = encode.decode(bad_images.arithmetic_jpeg()), encode.decode(bad_images.jpeg(subsampling=2))
    assert (one.pixels == other.pixels).all()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_sixteen_bits_are_read_in_full(mode: str) -> None:
    assert (encode.decode(bad_images.png16(mode)).stored == bad_images.deep(mode)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_that_of_pillow_and_can_be_undone(orientation: int) -> None:
    data = bad_images.telling_jpeg(orientation)
    decoded = encode.decode(data)
    with Image.open(io.BytesIO(data)) as picture:
        assert (decoded.pixels == np.asarray(ImageOps.exif_transpose(picture))).all()
        assert (decode.upright_to_stored(decoded.pixels, orientation) == np.asarray(picture)).all()
    tiff = encode.decode(bad_images.telling_tiff(orientation))
    assert (tiff.pixels == decode.upright(bad_images.scene(), orientation)).all()


@pytest.mark.parametrize("name", bad_images.GOOD)
def test_an_edit_changes_the_inside_and_nothing_else(name: str) -> None:
    _, make = bad_images.GOOD[name]
    data = make()
    decoded, mask, edited, out = edit(data)
    assert out.data != data
    assert out.inside_changed
    assert out.pixels_equal is True
    again = encode.decode(out.data)
    assert again.format == out.format
    if decoded.format == "jpeg":
        assert out.jpeg_blocks_equal is True
        return
    # Not what encode says of itself: compare here, with pixels that know nothing of it.
    assert out.jpeg_blocks_equal is None
    assert (again.pixels[~mask] == decoded.pixels[~mask]).all()
    if decoded.mode not in ("L", "LA"):
        assert (again.pixels[mask] == edited[mask]).all()
    if again.alpha is not None and decoded.alpha is not None:
        assert (again.alpha == decoded.alpha).all()
    assert (again.bits, again.icc, again.dpi) == (decoded.bits, decoded.icc, decoded.dpi)
    if out.format == decoded.format != "webp":
        assert again.mode == decoded.mode
    if decoded.bits == 16:
        assert (again.stored[~mask] == decoded.stored[~mask]).all()
        assert (again.stored[mask] % 257 == 0).all() or decoded.alpha is not None


@pytest.mark.parametrize("name", bad_images.GOOD)
def test_nothing_found_leaves_the_image_data_alone(name: str) -> None:
    _, make = bad_images.GOOD[name]
    data = make()
    decoded = encode.decode(data)
    empty = np.zeros((decoded.height, decoded.width), bool)
    for mask in (None, empty):
        out = encode.encode(data, decoded, None, mask)
        assert (out.pixels_equal, out.inside_changed, out.format) == (True, False, decoded.format)
        assert (encode.decode(out.data).stored == decoded.stored).all()
        if not out.metadata_dropped and b"Exif" not in data:
            assert out.data == data
    assert encode.encode(data, decoded, None, None, metadata="keep").data == data


@pytest.mark.parametrize("name", bad_images.GOOD)
def test_cleaning_a_cleaned_file_changes_nothing(name: str) -> None:
    _, make = bad_images.GOOD[name]
    data = make()
    for once in (edit(data)[3], encode.encode(data, encode.decode(data), None, None)):
        twice = encode.encode(once.data, encode.decode(once.data), None, None)
        assert twice.data == once.data
        assert twice.metadata_dropped == []


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
@pytest.mark.parametrize("source", ["jpeg", "png", "webp", "tiff"])
def test_a_rotated_file_is_edited_where_the_mask_says(source: str, orientation: int) -> None:
    make = {
        "jpeg": bad_images.telling_jpeg,
        "png": bad_images.telling_png,
        "webp": bad_images.telling_webp,
        "tiff": bad_images.telling_tiff,
    }[source]
    data = make(orientation=orientation)
    decoded, mask, _, out = edit(data)
    again = encode.decode(out.data)
    assert again.orientation == decoded.orientation
    difference = np.abs(again.pixels.astype(int) - decoded.pixels).sum(axis=2)
    assert difference[mask].mean() > 10 * difference[~mask].mean() + 1
    with Image.open(io.BytesIO(out.data)) as picture:
        shown = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    assert (shown == again.pixels).all()


@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
@pytest.mark.parametrize(
    "source", ["jpeg rotated, telling", "png 16 rgb alpha", "jpeg cmyk", "png grey alpha", "gif"]
)
def test_conversion_is_upright_and_keeps_profile_and_resolution(source: str, name: str) -> None:
    data = bad_images.GOOD[source][1]()
    decoded = encode.decode(data)
    if decoded.format == name:
        pytest.skip("that is keeping the format")
    for out in (
        encode.encode(data, decoded, None, None, format=name),
        encode.encode(data, decoded, 255 - decoded.pixels, spot(decoded), format=name),
    ):
        again = encode.decode(out.data)
        assert (out.format, again.format, again.orientation) == (name, name, 1)
        assert again.pixels.shape == decoded.pixels.shape
        assert again.icc == decoded.icc
        if name == "png":
            assert out.pixels_equal is True
            assert again.dpi == pytest.approx(decoded.dpi, abs=0.01) if decoded.dpi else again.dpi is None
        else:
            assert out.pixels_equal is None, "a lossy file makes no promise"
        for secret in bad_images.SECRETS:
            assert secret not in out.data


def test_quality_is_used_for_conversion() -> None:
    data = bad_images.save(bad_images.picture(), "PNG")
    decoded = encode.decode(data)
    for name in ("jpeg", "webp"):
        low, high = (encode.encode(data, decoded, None, None, format=name, quality=q) for q in (30, 95))
        assert len(low.data) < len(high.data)
    lossless = encode.encode(data, decoded, None, None, format="webp", quality=100)
    assert lossless.pixels_equal is True


@pytest.mark.parametrize("path", PHOTOS, ids=lambda p: p.stem)
def test_photographs_open_in_opencv_as_well(path: Path) -> None:
    data = path.read_bytes()
    _, mask, edited, out = edit(data)
    assert (out.pixels_equal, out.jpeg_blocks_equal) == (True, True)
    shown = cv2.imdecode(np.frombuffer(out.data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
    inner = cv2.erode(mask.astype(np.uint8), np.ones((5, 5))) > 0
    assert np.abs(shown[inner] - edited[inner]).mean() < 3
    far = cv2.dilate(mask.astype(np.uint8), np.ones((67, 67))) == 0
    before = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
    assert (shown[far] == before[far]).all()


@given(st.data())
@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("name", ["png alpha", "png 16 rgb", "tiff", "webp lossless", "png grey alpha"])
def test_any_mask_leaves_lossless_pixels_bit_equal(name: str, data: st.DataObject) -> None:
    source = bad_images.GOOD[name][1]()
    decoded = encode.decode(source)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    mask = rng.random((decoded.height, decoded.width)) < data.draw(st.sampled_from([0.001, 0.05, 0.5, 1.0]))
    edited = rng.integers(0, 256, decoded.pixels.shape).astype(np.uint8)
    out = encode.encode(source, decoded, edited, mask)
    again = encode.decode(out.data)
    assert (again.stored[~mask] == decoded.stored[~mask]).all()
    assert out.pixels_equal is True
    if decoded.mode in ("RGB", "RGBA"):
        assert (again.pixels[mask] == edited[mask]).all()


def test_an_edit_that_cannot_be_seen_is_an_error_not_a_clean_row() -> None:
    data = bad_images.save(bad_images.picture("L"), "JPEG", quality=20)
    decoded = encode.decode(data)
    edited, mask = decoded.pixels.copy(), spot(decoded)
    edited[mask] ^= 1  # less than half a quantisation step
    with pytest.raises(ImageError) as caught:
        encode.encode(data, decoded, edited, mask)
    assert caught.value.kind == "edit_lost"


def test_an_edit_equal_to_the_source_says_so() -> None:
    data = bad_images.GOOD["png"][1]()
    decoded = encode.decode(data)
    out = encode.encode(data, decoded, decoded.pixels, spot(decoded))
    assert not out.inside_changed


def test_measurements_can_say_no() -> None:
    decoded = encode.decode(bad_images.GOOD["png"][1]())
    other = encode.decode(bad_images.save(bad_images.picture(seed=1), "PNG"))
    assert not merge.all_equal(decoded, other, None)
    assert not merge.all_equal(decoded, other, spot(decoded))
    assert merge.all_equal(decoded, other, np.ones((decoded.height, decoded.width), bool))


def test_wrong_arguments_are_refused() -> None:
    data = bad_images.jpeg()
    decoded = encode.decode(data)
    mask = spot(decoded)
    with pytest.raises(ValueError, match="without an edited picture"):
        encode.encode(data, decoded, None, mask)
    with pytest.raises(ValueError, match="format is one of"):
        encode.encode(data, decoded, None, None, format="tga")
    with pytest.raises(ValueError, match="quality"):
        encode.encode(data, decoded, None, None, quality=0)
    with pytest.raises(ValueError, match="metadata is one of"):
        encode.encode(data, decoded, None, None, metadata="some")
    with pytest.raises(ValueError, match="the mask is"):
        encode.encode(data, decoded, decoded.pixels, mask[1:])
    with pytest.raises(ValueError, match="the edit is"):
        encode.encode(data, decoded, decoded.pixels[1:], mask)
    with pytest.raises(ImageError, match="limit is 100"):
        encode.decode(data, max_pixels=100)
