"""A marker planted wherever a file can hold bytes that no picture is made of: scrub leaves none of them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest

from cleanplate.pipeline.images import encode
from cleanplate.pipeline.images.formats import bmp
from rigs import bad_images
from rigs.bad_images import exif_block, jpeg, picture, png_chunk, save, segment
from rigs.tiffs import DEFLATE, LZW, PACKBITS, lzw, packbits, tiff

MARK = b"PLANTED-MARKER-4711"
SCENE = bad_images.scene()


def in_jpeg() -> Iterator[tuple[str, bytes]]:
    for name, data in (
        ("", jpeg()),
        ("progressive ", jpeg(progressive=True)),
        ("rotated ", bad_images.telling_jpeg()),
    ):
        at = data.index(b"\xff\xdb")

        def put(what: bytes, at: int = at, data: bytes = data) -> bytes:
            return data[:at] + what + data[at:]

        yield f"{name}between segments", put(MARK)
        yield f"{name}behind fill bytes", put(b"\xff\xff\xff\0" + MARK)
        yield f"{name}tail", data + MARK
        yield f"{name}comment", put(segment(0xFE, MARK))
        yield f"{name}APP5", put(segment(0xE5, MARK))
        yield f"{name}APP11 of another kind", put(segment(0xEB, MARK))
        yield f"{name}DNL", put(segment(0xDC, MARK))
        yield f"{name}XMP extension", put(segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + MARK))
    cmyk = bad_images.cmyk_jpeg()
    at = cmyk.index(b"Adobe")
    size = struct.unpack_from(">H", cmyk, at - 2)[0]
    longer = struct.pack(">H", size + len(MARK)) + cmyk[at : at + size - 2] + MARK
    yield "behind Adobe's transform", cmyk[: at - 2] + longer + cmyk[at + size - 2 :]
    plain = jpeg()
    block = exif_block(1) + MARK
    yield "behind EXIF", plain[:20] + segment(0xE1, b"Exif\0\0" + block) + plain[20:]
    thumb = b"JFIF\0\1\2\1\0\x48\0\x48\2\2" + MARK
    yield "JFIF thumbnail", plain[:2] + segment(0xE0, thumb) + plain[20:]


def in_png() -> Iterator[tuple[str, bytes]]:
    for name, data in (
        ("", save(picture(), "PNG")),
        ("16 bits ", bad_images.png16()),
        ("palette ", bad_images.palette_alpha_png()),
    ):
        at = data.index(b"IDAT") - 4
        size = struct.unpack_from(">I", data, at)[0]
        packed = data[at + 8 : at + 8 + size]
        rest = data[at + 12 + size :]

        def put(chunk: bytes, data: bytes = data) -> bytes:
            return data[:33] + chunk + data[33:]

        yield f"{name}tail", data + MARK
        yield f"{name}text", put(png_chunk(b"tEXt", b"Comment\0" + MARK))
        yield f"{name}unknown chunk", put(png_chunk(b"prVt", MARK))
        yield f"{name}wrong checksum", put(png_chunk(b"gAMA", MARK)[:-1] + b"\0")
        yield f"{name}behind the deflate stream", data[:at] + png_chunk(b"IDAT", packed + MARK) + rest
        yield (
            f"{name}in a chunk of pixel data of its own",
            data[:at] + png_chunk(b"IDAT", packed) + png_chunk(b"IDAT", MARK) + rest,
        )
        if name == "":
            rows = zlib.decompress(packed) + MARK
            yield "behind the last row", data[:at] + png_chunk(b"IDAT", zlib.compress(rows, 0)) + rest
        yield f"{name}behind EXIF", put(png_chunk(b"eXIf", exif_block(1) + MARK))


def in_webp() -> Iterator[tuple[str, bytes]]:
    for name, lossless in (("lossless", True), ("lossy", False)):
        data = bad_images.telling_webp(lossless=lossless, orientation=1)
        body = data[8:]

        def riff(body: bytes) -> bytes:
            return b"RIFF" + struct.pack("<I", len(body)) + body

        odd = MARK + b"\0" * (len(MARK) % 2)
        yield f"{name}: tail", data + MARK
        yield f"{name}: unknown chunk", riff(body + b"ABCD" + struct.pack("<I", len(odd)) + odd)
        yield f"{name}: second XMP", riff(body + b"XMP " + struct.pack("<I", len(odd)) + odd)


def in_gif() -> Iterator[tuple[str, bytes]]:
    data = save(picture("P"), "GIF")
    first = 13 + (3 << ((data[10] & 7) + 1))
    block = bytes([len(MARK)]) + MARK + b"\0"

    def put(what: bytes) -> bytes:
        return data[:first] + what + data[first:]

    yield "tail", data + MARK
    yield "comment", put(b"!\xfe" + block)
    yield "application", put(b"!\xff\x0bNETSCAPE2.0" + block)
    yield "unknown extension", put(b"!\xaa" + block)
    yield "control", put(b"!\xf9\4\0\0\0\0" + block)


def in_bmp() -> Iterator[tuple[str, bytes]]:
    odd = save(picture(width=97), "BMP")
    for name, data in (
        ("", odd),
        ("palette ", save(picture("P"), "BMP")),
        ("alpha ", bad_images.alpha_bmp()),
    ):
        start = struct.unpack_from("<I", data, 10)[0]
        moved = bytearray(data[:start] + MARK + b"\0" + data[start:])
        struct.pack_into("<I", moved, 10, start + len(MARK) + 1)
        struct.pack_into("<I", moved, 2, len(moved))
        yield f"{name}gap before the pixels", bytes(moved)
        yield f"{name}tail", data + MARK
        sized = bytearray(data + MARK)
        struct.pack_into("<I", sized, 2, len(sized))
        yield f"{name}tail inside the size", bytes(sized)
    data = bytearray(bad_images.alpha_bmp())
    struct.pack_into("<I", data, 14 + 56, 0x4C494E4B)  # LINK: the path of a profile
    struct.pack_into("<II", data, 14 + 112, len(data) - 14, len(MARK))
    yield "path of a profile", bytes(data) + MARK
    data = bytearray(bad_images.alpha_bmp())
    data[14 + 60 : 14 + 60 + len(MARK)] = MARK
    yield "end points of a colour space that has none", bytes(data)
    yield "behind run-length coded pixels", run_length_bmp() + MARK


def run_length_bmp() -> bytes:
    """An 8-bit BMP of runs, with a mark at its end."""
    rows = b"".join(bytes([96, y]) + b"\0\0" for y in range(64)) + b"\0\1"
    colours = b"".join(bytes([i, i, i, 0]) for i in range(256))
    head = struct.pack("<IiiHHIIiiII", 40, 96, 64, 1, 8, 1, 0, 0, 0, 256, 0)
    start = 14 + 40 + len(colours)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + head + colours + rows


def in_tiff() -> Iterator[tuple[str, bytes]]:
    rows = np.ascontiguousarray(SCENE)
    for order in "<>":
        plain = tiff(rows, 2, order=order, block=(16, 0))
        yield f"{order} tail", plain + MARK
        yield f"{order} gap in front of everything", shifted(plain, order)
        for tag, name in (
            (315, "artist"),
            (65_000, "private tag"),
            (700, "XMP"),
            (254, "text in a number's tag"),
        ):
            result = tiff(rows, 2, order=order, block=(16, 0), more={tag: (2, MARK + b"\0")})
            yield f"{order} {name}", result
            yield f"{order} old {name}, rewritten by an editor", rewritten(result, order, tag)
        for compression, packed in (
            (1, rows.tobytes()),
            (DEFLATE, zlib.compress(rows.tobytes())),
            (PACKBITS, packbits(rows.tobytes())),
        ):
            outcome = tiff(rows, 2, order=order, compression=compression)
            assert outcome.endswith(packed)
            size = struct.pack(order + "HHII", 279, 4, 1, len(packed))
            longer = struct.pack(order + "HHII", 279, 4, 1, len(packed) + len(MARK))
            assert size in outcome
            yield (
                f"{order} inside the strip, behind its rows, compression {compression}",
                outcome.replace(size, longer) + MARK,
            )
        yield (
            f"{order} between tiles",
            tiff(rows, 2, order=order, block=(16, 16), tiled=True, compression=LZW) + MARK,
        )
    assert lzw(b"abc")
    block = bad_images.telling_tiff()
    yield "told in every place", block.replace(bad_images.OWNER, MARK[: len(bad_images.OWNER)]) + MARK


def shifted(data: bytes, order: str) -> bytes:
    """The directory moved to the end; its old place holds the marker."""
    count = struct.unpack_from(order + "H", data, 8)[0]
    table = data[8 : 14 + 12 * count]
    at = len(data) + len(data) % 2
    old = (MARK * 40)[: len(table)]
    return (
        data[:4]
        + struct.pack(order + "I", at)
        + old
        + data[14 + 12 * count :].ljust(at - 14 - 12 * count, b"\0")
        + table
    )


def rewritten(data: bytes, order: str, tag: int) -> bytes:
    """What an editor does that sets a tag: the new value at the end, the old one where it was."""
    out = bytearray(data + b"\0" * (len(data) % 2))
    for i in range(struct.unpack_from(order + "H", data, 8)[0]):
        at = 10 + 12 * i
        if struct.unpack_from(order + "H", data, at)[0] == tag:
            struct.pack_into(order + "HHII", out, at, 315, 2, 8, len(out))
    return bytes(out) + b"nobody\0\0"


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


def in_iso() -> Iterator[tuple[str, bytes]]:
    for name in (
        "avif",
        "heic",
        "avif 10 bit",
        "heic alpha",
        "avif rotated, telling",
        "heic rotated, telling",
    ):
        data = bad_images.GOOD[name][1]()
        yield f"{name}: tail", data + MARK
        yield f"{name}: free space", data + box(b"free", MARK)
        yield f"{name}: data that no item covers", data + box(b"mdat", MARK)
        yield f"{name}: unknown box", data + box(b"abcd", MARK)
        yield f"{name}: uuid box", data + box(b"uuid", bytes(16) + MARK)


CASES = {
    f"{form}: {name}": data
    for form, made in {
        "jpeg": in_jpeg(),
        "png": in_png(),
        "webp": in_webp(),
        "gif": in_gif(),
        "bmp": in_bmp(),
        "tiff": in_tiff(),
        "iso": in_iso(),
    }.items()
    for name, data in made
}


@pytest.mark.parametrize("policy", ["scrub", "strip"])
@pytest.mark.parametrize("name", CASES)
def test_scrub_leaves_nothing_that_was_planted(name: str, policy: str) -> None:
    data = CASES[name]
    assert MARK[:10] in data or "rows" in name or "old" in name
    decoded = encode.decode(data)
    out = encode.encode(data, decoded, None, None, metadata=policy)
    assert MARK[:10] not in out.data
    assert out.metadata_dropped
    assert (encode.decode(out.data).stored == decoded.stored).all()
    again = encode.encode(out.data, encode.decode(out.data), None, None, metadata=policy)
    assert (again.data, again.metadata_dropped) == (out.data, [])
    mask = np.zeros((decoded.height, decoded.width), bool)
    mask[8:16, 8:24] = True
    changed = encode.encode(data, decoded, 255 - decoded.pixels, mask, metadata=policy)
    assert MARK[:10] not in changed.data
    assert changed.pixels_equal


def test_the_padding_of_a_bmps_rows_is_empty_afterwards() -> None:
    data = bytearray(save(picture(width=95), "BMP"))
    start, stride = struct.unpack_from("<I", data, 10)[0], 288
    for y in range(64):
        data[start + y * stride + 285 : start + (y + 1) * stride] = b"XYZ"
    out = encode.encode(bytes(data), encode.decode(bytes(data)), None, None)
    assert b"XYZ" not in out.data
    assert out.metadata_dropped == [bmp.GAP]
    assert (encode.decode(out.data).pixels == bad_images.scene(95)).all()
