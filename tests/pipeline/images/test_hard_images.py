"""Inputs that public tools stumbled over: each is shown as viewers show it, or refused with a cause one understands."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont, ImageOps, PngImagePlugin

from cleanplate.pipeline.images import encode
from cleanplate.pipeline.images.formats import bmp, exif, png_parts
from cleanplate.pipeline.images.formats.base import ImageError
from cleanplate.pipeline.images.formats.jpeg_coding.parts import jpeg_segments
from cleanplate.pipeline.images.formats.png_parts import png_chunks
from rigs import bad_images
from rigs.bad_images import exif_block, jpeg, picture, png_chunk, save, segment
from rigs.tiffs import tiff

SCENE = bad_images.scene()
XMP = b"http://ns.adobe.com/xap/1.0/\0"


def passed(data: bytes, **options: str) -> encode.Encoded:
    """Nothing found."""
    return encode.encode(data, encode.decode(data), None, None, **options)  # type: ignore[arg-type]


def edited(data: bytes, **options: str) -> encode.Encoded:
    """A box turned to its negative."""
    decoded = encode.decode(data)
    mask = np.zeros((decoded.height, decoded.width), bool)
    mask[8:16, 8:24] = True
    return encode.encode(data, decoded, 255 - decoded.pixels, mask, **options)  # type: ignore[arg-type]


def shown(data: bytes) -> np.ndarray:
    """RGB as Pillow shows it, upright."""
    with Image.open(io.BytesIO(data)) as opened:
        return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))


def subifd_raw(order: str, *, reduced: bool, size: tuple[int, int], photometric: int = 2) -> bytes:
    """A thumbnail in the first directory, and below tag 330 another picture of that size."""
    thumb = SCENE[::4, ::4]
    blank = tiff(thumb, 2, order=order, more={254: (4, [int(reduced)]), 330: (4, [8])})
    below = len(blank) + len(blank) % 2
    out = blank.ljust(below, b"\0")
    at = out.index(struct.pack(order + "HHII", 330, 4, 1, 8)) + 8
    cells = {254: 0, 256: size[1], 257: size[0], 262: photometric}
    table = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in cells.items())
    return (
        out[:at]
        + struct.pack(order + "I", below)
        + out[at + 4 :]
        + struct.pack(order + "H", 4)
        + table
        + bytes(4)
    )


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "how",
    [
        {"reduced": True, "size": (64, 96)},  # DNG, NEF, ARW
        {"reduced": False, "size": (64, 96)},  # the first directory does not say that it is a thumbnail
        {"reduced": False, "size": (8, 12), "photometric": 32803},  # sensor data of any size
        {"reduced": True, "size": (8, 12)},
    ],
)
def test_the_thumbnail_of_a_raw_file_is_not_taken_for_the_photograph(
    how: dict[str, object], order: str
) -> None:
    with pytest.raises(ImageError, match="raw file") as caught:
        encode.decode(subifd_raw(order, **how))  # type: ignore[arg-type]
    assert caught.value.kind == "unsupported"


def test_a_reduced_picture_below_a_photograph_is_no_raw_file() -> None:
    assert encode.decode(subifd_raw("<", reduced=False, size=(8, 12))).width == 24


@pytest.mark.parametrize("size", [0, 54, 3000, 10_000_000])
def test_a_bmp_that_lies_about_its_size_is_whole_afterwards(size: int) -> None:
    data = bytearray(save(picture(), "BMP"))
    whole = len(data)
    struct.pack_into("<I", data, 2, size)
    out = passed(bytes(data)).data
    assert struct.unpack_from("<I", out, 2)[0] == len(out) == whole
    assert (shown(out) == SCENE).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_profile_in_a_bmp_stays_with_the_picture(mode: str) -> None:
    stored = np.asarray(picture(mode))
    stored = stored[..., None] if stored.ndim == 2 else stored
    data = bmp.write_bmp(stored, mode, dpi=(300, 300), icc=bad_images.icc())
    with Image.open(io.BytesIO(data)) as opened:
        assert (np.asarray(opened.convert(mode)) == np.asarray(picture(mode))).all()
    assert encode.decode(data).icc == bad_images.icc()
    assert encode.decode(passed(data).data).icc == bad_images.icc()
    assert encode.decode(edited(data).data).icc == bad_images.icc()


def png_with(*chunks: bytes) -> bytes:
    """A PNG with these chunks behind its header."""
    data = save(picture(), "PNG")
    return data[:33] + b"".join(chunks) + data[33:]


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 80_000_000)),
        png_chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(b"x" * 80_000_000)),
        png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(80_000_000))),
        png_chunk(b"iCCP", b"icc\0\0not deflated"),
        png_chunk(b"tEXt", b"workflow\0" + b"x" * 3_000_000),
        png_chunk(b"zTXt", b"broken\0\0not deflated"),
        png_chunk(b"pHYs", b"short"),
        png_chunk(b"eXIf", b"nonsense"),
        png_chunk(b"tIME", b"")[:-4] + b"wrng",
        png_chunk(b"gAMA", struct.pack(">I", 45455))[:-4] + b"wrng",
        png_chunk(b"tRNS", bytes(6))[:-4] + b"wrng",
    ],
    ids=["zTXt", "iTXt", "iCCP", "bad iCCP", "tEXt", "bad zTXt", "pHYs", "eXIf", "tIME", "gAMA", "tRNS"],
)
def test_a_chunk_that_a_reader_may_skip_never_fails_a_png(chunk: bytes) -> None:
    data = png_with(chunk)
    for out in (passed(data).data, edited(data).data):
        again = encode.decode(out)
        assert (again.pixels[20:] == SCENE[20:]).all()
        assert again.mode == "RGB"
        assert all(right for _, _, right in png_parts.checked_chunks(out)), (
            "no chunk with a wrong checksum is left"
        )
        assert b"gAMA" not in out, "one that readers skipped is not made valid"


@pytest.mark.parametrize("depth", [8, 16])
def test_damage_in_what_makes_the_pixels_is_never_shown(depth: int) -> None:
    data = bad_images.png16() if depth == 16 else save(picture(), "PNG")
    spoilt = bytearray(data)
    spoilt[len(data) // 2] ^= 1
    with pytest.raises(ImageError, match="checksum") as caught:
        encode.decode(bytes(spoilt))
    assert caught.value.kind == "corrupt"
    chunks = list(png_chunks(data))
    body = b"".join(b for k, b in chunks if k == b"IDAT")
    for wrong, kind in (
        (zlib.compress(zlib.decompress(body)[:-400]), "truncated"),
        (zlib.compress(b"\7" + zlib.decompress(body)[1:]), "corrupt"),
        (body[: len(body) // 2], "truncated"),
    ):
        parts = [png_chunk(b"IHDR", chunks[0][1]), png_chunk(b"IDAT", wrong), png_chunk(b"IEND", b"")]
        with pytest.raises(ImageError) as caught:
            encode.decode(data[:8] + b"".join(parts))
        assert caught.value.kind in (kind, "corrupt")


@pytest.mark.parametrize("junk", [b"\0", b"\0\0\0", b"junk", b"\xff\xff", b"\x00\xff\x00\xff"])
def test_bytes_between_jpeg_segments_are_skipped_as_libjpeg_skips_them(junk: bytes) -> None:
    data = jpeg()
    at = data.index(b"\xff\xdb")
    spoilt = data[:at] + junk + data[at:]
    assert (encode.decode(spoilt).stored == encode.decode(data).stored).all()
    assert passed(spoilt).data == data
    out = edited(spoilt)
    assert (out.pixels_equal, out.jpeg_blocks_equal) == (True, True)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}])
def test_a_jpeg_without_its_end_marker_is_shown_when_nothing_else_is_missing(
    options: dict[str, object],
) -> None:
    data = jpeg(**options)
    for cut in (1, 2):
        assert (encode.decode(data[:-cut]).stored == encode.decode(data).stored).all()
        assert passed(data[:-cut]).data == data
    for cut in (60, len(data) // 4, len(data) // 2):
        with pytest.raises(ImageError) as caught:
            encode.decode(data[:-cut])
        assert caught.value.kind == "truncated"


def with_exif(order: str, kind: int, count: int, value: bytes) -> bytes:
    """A JPEG whose EXIF says the orientation in this way."""
    inline = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack(order + "I", 26)
    block = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IHHHI", 8, 1, 0x112, kind, count)
    block += inline + bytes(4) + (value if len(value) > 4 else b"")
    data = jpeg()
    return data[:20] + segment(0xE1, b"Exif\0\0" + block) + data[20:]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("kind", "count", "code"),
    [(1, 1, "B"), (3, 1, "H"), (4, 1, "I"), (3, 2, "2H"), (3, 5, "5H"), (1, 3, "3B")],
)
def test_an_orientation_of_any_integer_type_turns_the_picture(
    order: str, kind: int, count: int, code: str
) -> None:
    values = [6, 3, 3, 3, 3][:count]
    data = with_exif(order, kind, count, struct.pack(order + code, *values))
    decoded = encode.decode(data)
    assert (decoded.orientation, decoded.pixels.shape) == (6, (96, 64, 3))
    if count == 1 and kind != 1:
        assert (decoded.pixels == shown(data)).all()
    for out in (passed(data), edited(data)):
        assert encode.decode(out.data).orientation == 6
        assert (shown(out.data) == encode.decode(out.data).pixels).all(), "other viewers turn it the same way"
    upright = passed(data, orientation="bake")
    assert encode.decode(upright.data).orientation == 1
    assert np.abs(shown(upright.data).astype(int) - decoded.pixels).mean() < 2, (
        "decoders round turned blocks otherwise"
    )


def told_in_xmp(form: str) -> dict[str, bytes]:
    packet = f"<x:xmpmeta><rdf:RDF><rdf:Description {form}</rdf:RDF></x:xmpmeta>".encode()
    data = jpeg(subsampling=0)
    plain = PngImagePlugin.PngInfo()
    plain.add_itxt("XML:com.adobe.xmp", packet.decode())
    packed = PngImagePlugin.PngInfo()
    packed.add_itxt("XML:com.adobe.xmp", packet.decode(), zip=True)
    return {
        "jpeg": data[:20] + segment(0xE1, XMP + packet) + data[20:],
        "png": save(picture(), "PNG", pnginfo=plain),
        "packed png": save(picture(), "PNG", pnginfo=packed),
        "webp": save(picture(), "WEBP", lossless=True, xmp=packet),
        "lossy webp": save(picture(), "WEBP", xmp=packet),
        "jpeg with other exif": data[:20]
        + segment(0xE1, b"Exif\0\0" + no_turn())
        + segment(0xE1, XMP + packet)
        + data[20:],
    }


def no_turn() -> bytes:
    """EXIF that does not speak of the orientation."""
    kept, _ = exif.rebuild(exif_block(6, "<"), policy="keep", upright=True)
    assert kept is not None
    return kept


def raw_profile() -> dict[str, bytes]:
    """EXIF as ImageMagick writes it into PNG."""
    block = b"Exif\0\0" + exif.only_orientation(6)
    text = f"\nexif\n{len(block):8d}\n{block.hex()}\n".encode()
    return {
        "zTXt": png_with(png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))),
        "tEXt": png_with(png_chunk(b"tEXt", b"Raw profile type exif\0" + text)),
    }


ELSEWHERE = {
    f"{name}, {how}": data
    for how, form in (
        ("attribute", 'tiff:Orientation="6"/>'),
        ("element", "><tiff:Orientation>6</tiff:Orientation></rdf:Description>"),
    )
    for name, data in told_in_xmp(form).items()
} | raw_profile()


@pytest.mark.parametrize("policy", ["scrub", "strip", "keep"])
@pytest.mark.parametrize("name", ELSEWHERE)
def test_an_orientation_that_stands_elsewhere_is_obeyed_and_survives(name: str, policy: str) -> None:
    data = ELSEWHERE[name]
    decoded = encode.decode(data)
    assert decoded.orientation == 6
    assert (decoded.pixels == shown(data)).all(), "this is what a viewer shows"
    out = passed(data, metadata=policy)
    assert (shown(out.data) == decoded.pixels).all()
    assert out.data == encode.encode(out.data, encode.decode(out.data), None, None, metadata=policy).data
    changed = edited(data, metadata=policy)
    assert changed.pixels_equal
    assert (shown(changed.data) == encode.decode(changed.data).pixels).all()
    assert encode.decode(changed.data).pixels.shape == (96, 64, 3)
    if policy != "keep":
        assert b"xmpmeta" not in out.data + changed.data
    if name.startswith("jpeg"):
        upright = passed(data, metadata=policy, orientation="bake")
        assert np.abs(shown(upright.data).astype(int) - decoded.pixels).mean() < 2


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF"])
def test_text_that_only_alpha_shows_is_named_as_not_searched(name: str) -> None:
    alpha = Image.new("L", (500, 200))
    ImageDraw.Draw(alpha).text((20, 60), "CONFIDENTIAL", 255, ImageFont.load_default(60))
    black = Image.merge("RGBA", [Image.new("L", alpha.size)] * 3 + [alpha])
    data = save(black, name, **({"lossless": True} if name == "WEBP" else {}))
    assert "alpha was not searched" in str(passed(data).note)
    assert "alpha was not searched" in str(edited(data).note)
    opaque = Image.merge("RGBA", [*picture().split(), Image.new("L", picture().size, 255)])
    assert passed(save(opaque, "PNG")).note is None


@pytest.mark.parametrize(
    ("target", "size"),
    [("webp", (20_000, 2)), ("webp", (2, 16_384)), ("jpeg", (70_000, 2)), ("jpeg", (3, 65_501))],
)
def test_what_a_format_cannot_hold_is_an_error_of_its_own(target: str, size: tuple[int, int]) -> None:
    data = save(Image.new("RGB", size), "PNG")
    with pytest.raises(ImageError, match=f"do not fit into {target}: at most") as caught:
        passed(data, format=target)
    assert caught.value.kind == "format_limit"
    assert edited(save(Image.new("RGB", (20_000, 30)), "PNG")).format == "png"


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG", "AVIF"])
def test_one_limit_of_pixels_holds_and_it_is_ours(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = save(picture().quantize(16) if name == "GIF" else picture(), name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's own: an error beyond twice as many
    assert encode.decode(data).width == 96
    assert Image.MAX_IMAGE_PIXELS == 100, "what others set is theirs"
    with pytest.raises(ImageError) as caught:
        encode.decode(data, max_pixels=96 * 64 - 1)
    assert caught.value.kind == "too_large"


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_grey_of_few_bits_is_named_in_the_note(depth: int) -> None:
    fields: dict[int, Callable[[], bytes]] = {1: lambda: save(picture("1"), "PNG")}
    rows = np.random.default_rng(0).integers(0, 256, (64, 96 * depth // 8)).astype(np.uint8)
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 96, 64, depth, 0, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes()))
    data = fields.get(depth, lambda: b"\x89PNG\r\n\x1a\n" + head + body + png_chunk(b"IEND", b""))()
    assert re.match(r"(bilevel|[24]-bit grey) pixels written as L, 8 bits", str(edited(data).note))


@pytest.mark.parametrize("name", bad_images.GOOD)
def test_a_cause_is_a_sentence_and_no_class_of_a_library(name: str) -> None:
    data = bad_images.GOOD[name][1]()
    rng = np.random.default_rng(len(data))
    causes = set()
    for _ in range(4):
        spoilt = bytearray(data)
        for at in rng.integers(0, len(data), 12):
            spoilt[at] = rng.integers(0, 256)
        try:
            encode.decode(bytes(spoilt))
        except ImageError as error:
            causes.add(str(error))
    for cause in causes:
        assert not re.search(r"Error|Exception|in the decoder|b'|\\x|<|None|\bindex\b|unpack", cause), cause
        assert len(cause.split()) > 2


def test_segments_that_no_decoder_reads_go_and_are_named() -> None:
    data = jpeg()
    out = passed(data[:2] + segment(0xDC, b"a marker of mine") + data[2:])
    assert out.metadata_dropped == ["segment 0xdc"]
    assert out.data == data
    assert all(s.marker != 0xDC for s in jpeg_segments(out.data)[0])
