"""TIFF in every form that is read, from arrays made by hand; every other form is refused by name."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from cleanplate.pipeline.images import decode, encode
from cleanplate.pipeline.images.formats.base import ImageError
from rigs import bad_images
from rigs.tiffs import DEFLATE, LZW, NONE, OLD_DEFLATE, PACKBITS, tiff

Array = npt.NDArray[np.unsignedinteger]
RNG = np.random.default_rng(7)
PACKING = [(NONE, 1), (LZW, 1), (LZW, 2), (DEFLATE, 1), (DEFLATE, 2), (OLD_DEFLATE, 1), (PACKBITS, 1)]
BLOCKS = [(None, False), ((5, 0), False), ((16, 16), True)]


def noise(bands: int, bits: int, height: int = 21, width: int = 27) -> Array:
    """HWC; half of it smooth, so that packing has something to pack."""
    kind = np.uint16 if bits == 16 else np.uint8
    out = RNG.integers(0, 1 << bits, (height, width, bands)).astype(kind)
    out[: height // 2] = out[:1, :1]
    return out


def eight(array: Array, bits: int) -> npt.NDArray[np.uint8]:
    """The same colours in 8 bits, rounded; floating point, to be independent of what is tested."""
    return np.rint(array / ((1 << bits) - 1) * 255).astype(np.uint8)


def grey(bits: int) -> tuple[Array, Array, dict[str, object]]:
    """What lies in the file, the RGB to be seen, and how the file says so."""
    array = noise(1, bits)
    return array, np.repeat(eight(array, bits), 3, axis=2), {"photometric": 1}


def negative(bits: int) -> tuple[Array, Array, dict[str, object]]:
    array, shown, _ = grey(bits)
    return array, 255 - shown, {"photometric": 0}


def rgb(bits: int) -> tuple[Array, Array, dict[str, object]]:
    array = noise(3, bits)
    return array, eight(array, bits), {"photometric": 2}


def with_alpha(bits: int) -> tuple[Array, Array, dict[str, object]]:
    array = noise(4, bits)
    return array, eight(array[..., :3], bits), {"photometric": 2, "extra": [2]}


def premultiplied(bits: int) -> tuple[Array, Array, dict[str, object]]:
    straight, alpha = noise(3, bits).astype(np.int64), noise(1, bits).astype(np.int64)
    top = (1 << bits) - 1
    stored = np.rint(straight * (alpha / top)).astype(np.int64)
    shown = np.where(alpha == 0, stored, np.minimum(np.rint(stored * top / np.maximum(alpha, 1)), top))
    array = np.concatenate([stored, alpha], axis=2).astype(np.uint16 if bits == 16 else np.uint8)
    return array, eight(shown, bits), {"photometric": 2, "extra": [1]}


def grey_alpha(bits: int) -> tuple[Array, Array, dict[str, object]]:
    array = noise(2, bits)
    return array, np.repeat(eight(array[..., :1], bits), 3, axis=2), {"photometric": 1, "extra": [2]}


def cmyk(bits: int) -> tuple[Array, Array, dict[str, object]]:
    array = noise(4, bits)
    ink = 255 - eight(array, bits).astype(np.int64)
    return array, np.rint(ink[..., :3] * ink[..., 3:] / 255).astype(np.uint8), {"photometric": 5}


def palette(bits: int) -> tuple[Array, Array, dict[str, object]]:
    array = noise(1, bits)
    colours = RNG.integers(0, 256, (3, 1 << bits)) * 257
    shown = (colours.T[array[..., 0]] // 257).astype(np.uint8)
    return array, shown, {"photometric": 3, "more": {320: (3, colours.reshape(-1).tolist())}}


FORMS = [grey, negative, rgb, with_alpha, premultiplied, grey_alpha, cmyk, palette]


def every(form: object, bits: int) -> Iterator[tuple[str, bytes, Array, Array, int]]:
    """(what it is, file, samples in it, RGB as the file's rows, orientation) of every way to lay a form out."""
    turn = 0
    for planar in (1, 2):
        for block, tiled in BLOCKS:
            for compression, predictor in PACKING:
                array, shown, how = form(bits)  # type: ignore[operator]
                if planar == 2 and array.shape[2] == 1:
                    continue
                turn += 1
                if form is palette and bits == 16 and turn % 4:
                    continue  # its 196,608 colours take a second each time
                order, orientation = "<>"[turn % 2], turn % 8 + 1
                more = how.pop("more", {}) | {274: (3, [orientation])}
                layout = {"planar": planar, "block": block, "tiled": tiled, "order": order}
                data = tiff(array, compression=compression, predictor=predictor, more=more, **layout, **how)
                name = f"{layout}, compression {compression}, predictor {predictor}, turned {orientation}"
                yield name, data, array, shown, orientation


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("form", FORMS)
def test_every_layout_shows_the_array_that_it_was_made_of(form: object, bits: int) -> None:
    count = 0
    for name, data, array, shown, orientation in every(form, bits):
        found = encode.decode(data)
        assert found.bits == (8 if form is palette and bits == 8 else bits), name
        right = decode.upright(shown, orientation)
        assert found.pixels.shape == right.shape, name
        off = np.abs(found.pixels.astype(int) - right.astype(int)).max()
        assert off <= (1 if form in (premultiplied, palette) else 0), name
        if form not in (negative, palette):
            assert (found.stored == decode.upright(array, orientation)).all(), name
        count += 1
    assert count >= (5 if form is palette and bits == 16 else 21)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("form", FORMS)
def test_a_second_reader_finds_the_same_samples_in_these_files(form: object, bits: int) -> None:
    """Otherwise the files made here could be wrong the way our reader is."""
    for name, data, array, _, orientation in every(form, bits):
        if "compression 5" not in name:  # tifffile leaves LZW to another package
            second = tifffile.imread(io.BytesIO(data)).reshape(-1)
            planes = array.transpose(2, 0, 1) if "'planar': 2" in name else array
            assert (second == planes.reshape(-1)).all(), name
        elif form in (rgb, grey, with_alpha, cmyk) and bits == 8 and "'planar': 1" in name:
            with Image.open(io.BytesIO(data)) as picture:
                third = np.asarray(picture)
            assert (third.reshape(-1) == decode.upright(array, orientation).reshape(-1)).all(), name


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("form", FORMS)
def test_an_edit_is_written_where_the_mask_says_and_read_by_others(form: object, bits: int) -> None:
    for name, data, _, _, _ in list(every(form, bits))[::6]:
        before = encode.decode(data)
        mask = np.zeros((before.height, before.width), bool)
        mask[3:9, 4:12] = True
        edited = RNG.integers(0, 256, before.pixels.shape).astype(np.uint8)
        out = encode.encode(data, before, edited, mask)
        assert (out.format, out.pixels_equal, out.inside_changed) == ("tiff", True, True), name
        written = tifffile.imread(io.BytesIO(out.data)).reshape(before.stored.shape)
        assert (written[~mask] == before.stored[~mask]).all(), name
        after = encode.decode(out.data)
        assert (after.stored == written).all(), name
        if form in (rgb, with_alpha, cmyk, palette):
            assert np.abs(after.pixels[mask].astype(int) - edited[mask].astype(int)).max() <= 1, name
        if before.alpha is not None:
            assert (after.alpha == before.alpha).all(), name


def strip(photometric: int, bands: int, bits: int = 8, **how: object) -> bytes:
    return tiff(noise(bands, bits), photometric, **how)  # type: ignore[arg-type]


REFUSED = {
    "four bands, the last without a meaning": (strip(2, 4, extra=[0]), "4 bands: 1 of them neither"),
    "four bands, nothing said of the last": (strip(2, 4), "4 bands: 1 of them neither"),
    "five bands": (strip(2, 5, extra=[0, 0]), "5 bands: 2 of them neither"),
    "six bands of 16 bits": (strip(2, 6, 16, extra=[0, 0, 2]), "6 bands: 3 of them neither"),
    "two bands, the last without a meaning": (strip(1, 2, 16, extra=[0]), "2 bands: 1 of them neither"),
    "cmyk with alpha": (strip(5, 5, extra=[2]), "alpha is handled for grey"),
    "white is zero with alpha": (strip(0, 2, extra=[2]), "alpha is handled for grey"),
    "other inks": (strip(5, 4, more={332: (3, [2])}), "inks other than"),
    "dot range": (strip(5, 4, more={336: (3, [16, 235])}), "dot range"),
    "raw sensor": (strip(32803, 1, 16), "raw sensor"),
    "logluv": (strip(32845, 3, 16), "LogLuv"),
    "signed": (strip(1, 1, 16, more={339: (3, [2])}), "signed samples"),
    "floating point": (strip(1, 1, 16, more={339: (3, [3])}), "floating-point samples"),
    "bands of different depth": (strip(2, 3, more={258: (3, [8, 8, 4])}), "bands differ in depth"),
    "12 bits": (strip(1, 1, 16, more={258: (3, [12])}), "12 bits a sample"),
    "reversed bits": (strip(1, 1, more={266: (3, [2])}), "reversed bit order"),
    "old jpeg": (strip(2, 3, more={259: (3, [6])}), "JPEG of the old kind"),
    "raw ycbcr": (strip(6, 3), "YCbCr without JPEG"),
    "another predictor": (strip(1, 1, compression=DEFLATE, more={317: (3, [3])}), "predictor 3"),
    "volume": (strip(1, 1, more={32997: (4, [2])}), "volumes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_right_is_refused_with_its_reason(name: str) -> None:
    data, words = REFUSED[name]
    with pytest.raises(ImageError, match=words) as caught:
        encode.decode(data)
    assert caught.value.kind == "unsupported"


def test_a_strip_that_is_missing_or_short_is_never_filled_with_something() -> None:
    whole = strip(2, 3, 16, block=(5, 0), planar=2)
    order = "<"
    for tag, values in {
        273: [8, 8, 8],  # three strips where fifteen are needed
        279: [270] * 14 + [20],
    }.items():
        with pytest.raises(ImageError) as caught:
            encode.decode(strip(2, 3, 16, block=(5, 0), planar=2, order=order, more={tag: (4, values)}))
        assert caught.value.kind == "truncated"
    with pytest.raises(ImageError, match="outside the file"):
        encode.decode(whole[:-100])
    for compression in (LZW, DEFLATE, PACKBITS):
        data = strip(2, 3, compression=compression)
        with pytest.raises(ImageError) as caught:
            encode.decode(data[:-40])
        assert caught.value.kind == "truncated"
        short = bytearray(data)
        short[short.index(struct.pack("<HHI", 279, 4, 1)) + 8 :][:0] = b""
        at = short.index(struct.pack("<HHI", 279, 4, 1)) + 8
        (size,) = struct.unpack_from("<I", short, at)
        struct.pack_into("<I", short, at, size - 40)
        with pytest.raises(ImageError):
            encode.decode(bytes(short))


def test_no_sizes_of_strips_are_needed_where_nothing_is_packed() -> None:
    data, shown, _ = rgb(8)
    found = encode.decode(tiff(data, 2, block=(5, 0), more={279: (4, [0] * 5)}))
    assert (found.pixels == shown).all()


@pytest.mark.parametrize("kind", [1, 3, 4])
def test_the_orientation_may_have_any_integer_type(kind: int) -> None:
    array, shown, _ = rgb(16)
    assert (encode.decode(tiff(array, 2, more={274: (kind, [6])})).pixels == decode.upright(shown, 6)).all()


def test_an_orientation_that_stands_in_xmp_alone_is_obeyed_and_not_applied_twice() -> None:
    array, shown, _ = rgb(8)
    data = tiff(array, 2, more={700: (1, b'<x tiff:Orientation="8"/>')})
    before = encode.decode(data)
    assert (before.pixels == decode.upright(shown, 8)).all()
    mask = np.zeros((before.height, before.width), bool)
    mask[2:5, 2:5] = True
    for policy in ("scrub", "keep"):
        out = encode.encode(data, before, 255 - before.pixels, mask, metadata=policy)
        assert (encode.decode(out.data).pixels[~mask] == before.pixels[~mask]).all()
        with Image.open(io.BytesIO(out.data)) as picture:
            assert (np.asarray(picture)[~mask] == before.pixels[~mask]).all()


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("photometric", [0, 1, 3])
def test_pictures_of_few_bits_are_shown_and_the_note_says_what_became_of_them(
    photometric: int, bits: int
) -> None:
    height, width = 11, 13
    values = RNG.integers(0, 1 << bits, (height, width))
    row = np.zeros((height, (width * bits + 7) // 8), np.uint8)
    for x in range(width):
        row[:, x * bits // 8] |= (values[:, x] << (8 - bits - x * bits % 8)).astype(np.uint8)
    colours = RNG.integers(0, 256, (3, 1 << bits))
    more = {256: (4, [width]), 258: (3, [bits])}
    more |= {320: (3, (colours * 257).reshape(-1).tolist())} if photometric == 3 else {}
    top = (1 << bits) - 1
    plain = (values if photometric == 1 else top - values) * 255 // top
    shown = colours.T[values] if photometric == 3 else np.repeat(plain[..., None], 3, axis=2)
    for compression in (NONE, DEFLATE, PACKBITS, LZW):
        data = tiff(row[..., None], photometric, compression=compression, more=more)
        found = encode.decode(data)
        assert (found.pixels == shown).all(), compression
    mask = np.zeros((height, width), bool)
    mask[2:5, 3:7] = True
    out = encode.encode(data, found, 255 - found.pixels, mask)
    held = "palette" if photometric == 3 else "bilevel" if bits == 1 else f"{bits}-bit grey"
    assert str(out.note).startswith(f"{held} pixels written as")


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("compression", ["lzma", "zstd", "tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_every_packing_that_libtiff_writes_is_read(compression: str, mode: str) -> None:
    picture = bad_images.picture(mode)
    data = bad_images.save(picture, "TIFF", compression=compression)
    assert (encode.decode(data).stored == np.asarray(picture).reshape(64, 96, -1)).all()


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax_pages_are_read(compression: str) -> None:
    picture = bad_images.picture("1")
    found = encode.decode(bad_images.save(picture, "TIFF", compression=compression))
    assert (found.stored[..., 0] == np.asarray(picture) * 255).all()
    assert found.source_mode == "bilevel"


@pytest.mark.parametrize("photometric", [1, 2, 6])
@pytest.mark.parametrize("tiled", [False, True])
def test_jpeg_inside_a_tiff_shows_what_the_jpeg_shows(photometric: int, tiled: bool) -> None:
    picture = bad_images.picture("L" if photometric == 1 else "RGB", 64, 32)
    options = {"keep_rgb": True} if photometric == 2 else {"subsampling": 0}
    inner = bad_images.save(picture, "JPEG", quality=90, **options)
    bands = 1 if photometric == 1 else 3
    blank = np.zeros((32, 64, bands), np.uint8)
    place, size = (324, 325) if tiled else (273, 279)
    more = {259: (3, [7]), size: (4, [len(inner)]), 530: (3, [1, 1])}
    head = tiff(blank, photometric, tiled=tiled, block=(32, 64), more=more)
    start = len(head) - blank.nbytes
    data = tiff(blank, photometric, tiled=tiled, block=(32, 64), more=more | {place: (4, [start])})
    found = encode.decode(data[:start] + inner)
    right = encode.decode(inner).stored
    assert np.abs(found.stored.astype(int) - right.astype(int)).max() <= 2
