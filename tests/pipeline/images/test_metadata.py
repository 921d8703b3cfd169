"""Metadata by policy: read again with Pillow, and by searching the bytes for what must not be there."""

from __future__ import annotations

import io
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from cleanplate.pipeline.images import encode
from cleanplate.pipeline.images.formats import exif, isobmff
from cleanplate.pipeline.images.formats import policy as metadata
from cleanplate.pipeline.images.formats import xmp as marking
from cleanplate.pipeline.images.formats.gif import gif_blocks
from cleanplate.pipeline.images.formats.jpeg_coding.parts import jpeg_segments
from cleanplate.pipeline.images.formats.png_parts import png_chunks
from cleanplate.pipeline.images.formats.table import clean
from cleanplate.pipeline.images.formats.webp import webp_chunks
from rigs import bad_images

TELLING: dict[str, Callable[[], bytes]] = {
    "jpeg": bad_images.telling_jpeg,
    "png": bad_images.telling_png,
    "webp": bad_images.telling_webp,
    "tiff": bad_images.telling_tiff,
    "avif": bad_images.telling_avif,
    "heic": bad_images.telling_heic,
}


def cleaned(data: bytes, policy: str, edited: bool) -> encode.Encoded:
    decoded = encode.decode(data)
    if not edited:
        return encode.encode(data, decoded, None, None, metadata=policy)
    mask = np.zeros((decoded.height, decoded.width), bool)
    mask[5:20, 5:20] = True
    return encode.encode(data, decoded, 255 - decoded.pixels, mask, metadata=policy)


def read(data: bytes) -> tuple[dict[int, object], dict[int, object], dict[int, object], dict[str, object]]:
    """First directory, Exif directory, GPS directory, and Pillow's info."""
    with Image.open(io.BytesIO(data)) as picture:
        found = picture.getexif()
        return dict(found), dict(found.get_ifd(0x8769)), dict(found.get_ifd(0x8825)), dict(picture.info)


@pytest.mark.parametrize("name", TELLING)
def test_the_inputs_do_tell(name: str) -> None:
    """Otherwise the tests below would pass on nothing."""
    data = TELLING[name]()
    assert bad_images.SERIAL in data
    assert bad_images.OWNER in data
    assert bad_images.MAKER in data
    first, inner, gps, _ = read(data)
    assert first[0x013B] == bad_images.OWNER.decode()
    assert inner[0xA431] == bad_images.SERIAL.decode()
    assert gps


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("policy", ["scrub", "strip"])
@pytest.mark.parametrize("name", TELLING)
def test_nothing_personal_is_left(name: str, policy: str, edited: bool) -> None:
    data = TELLING[name]()
    out = cleaned(data, policy, edited)
    for secret in bad_images.SECRETS:
        assert secret not in out.data
    first, inner, gps, info = read(out.data)
    assert not gps
    assert not {0x013B, 0x8298, 0x010E, 0x9C9D} & set(first)
    assert not {0xA430, 0xA431, 0xA435, 0x927C, 0x9286} & set(inner)
    assert "comment" not in info
    assert {"Artist", "GPSInfo", "BodySerialNumber", "MakerNote"} <= set(
        out.metadata_dropped
    ) or policy == "strip"
    assert out.metadata_dropped


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("name", TELLING)
def test_scrub_keeps_what_describes_the_picture(name: str, edited: bool) -> None:
    data = TELLING[name]()
    out = cleaned(data, "scrub", edited)
    first, inner, _, info = read(out.data)
    before = read(data)
    assert info.get("icc_profile") == before[3]["icc_profile"]
    assert info.get("dpi") == before[3].get("dpi")
    for tag in (0x010F, 0x0110, 0x011A, 0x0128):
        assert first.get(tag) == before[0].get(tag)
    turned = edited and name in ("avif", "heic")  # written as PNG, upright
    assert first.get(0x0112, 1) == (1 if turned else before[0].get(0x0112, 1))
    assert inner[0x829A] == 1 / 250
    assert inner[0x9003] == "2024:05:06 07:08:09"


@pytest.mark.parametrize("name", TELLING)
def test_strip_keeps_only_what_the_eye_needs(name: str) -> None:
    data = TELLING[name]()
    out = cleaned(data, "strip", False)
    first, inner, gps, info = read(out.data)
    assert info.get("icc_profile") == read(data)[3]["icc_profile"]
    assert not inner
    assert not gps
    assert 0x010F not in first
    assert encode.decode(out.data).orientation == encode.decode(data).orientation


@pytest.mark.parametrize("name", TELLING)
def test_keep_keeps_but_an_edit_takes_the_previews(name: str) -> None:
    data = TELLING[name]()
    assert cleaned(data, "keep", False).data == data
    out = cleaned(data, "keep", True)
    first, inner, gps, _ = read(out.data)
    assert first[0x013B] == bad_images.OWNER.decode()
    assert inner[0xA431] == bad_images.SERIAL.decode()
    assert gps
    assert b"\xff\xd8\xff\xe0thumb" not in out.data
    assert bad_images.TAIL not in out.data
    with Image.open(io.BytesIO(out.data)) as picture:
        assert not dict(picture.getexif().get_ifd(1))


def primary(data: bytes) -> list[bytes]:
    """What codes the picture itself, in AVIF and HEIC."""
    found = isobmff.pictures(data)
    return [isobmff.content(data, found.items[found.primary])]


@pytest.mark.parametrize("policy", ["scrub", "strip"])
@pytest.mark.parametrize("name", TELLING)
def test_compressed_pixel_data_passes_byte_for_byte(name: str, policy: str) -> None:
    data = TELLING[name]()
    out = cleaned(data, policy, False).data
    parts: dict[str, Callable[[bytes], list[bytes]]] = {
        "jpeg": lambda d: [s.to_bytes() for s in jpeg_segments(d)[0] if not 0xE0 <= s.marker <= 0xFE],
        "png": lambda d: [body for kind, body in png_chunks(d) if kind == b"IDAT"],
        "webp": lambda d: [body for kind, body in webp_chunks(d) if kind == b"VP8L"],
        "tiff": lambda d: [d[-bad_images.scene().nbytes :]],
        "avif": primary,
        "heic": primary,
    }
    assert parts[name](out) == parts[name](data)
    assert parts[name](data)


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_is_rebuilt_the_same_in_both_byte_orders(order: str) -> None:
    block = bad_images.exif_block(8, order)
    once, dropped = exif.rebuild(block, policy="scrub")
    assert once is not None
    assert exif.orientation(once) == 8
    assert exif.rebuild(once, policy="scrub") == (once, [])
    assert dropped == ["Thumbnail", "Artist", "MakerNote", "CameraOwnerName", "BodySerialNumber", "GPSInfo"]
    assert exif.rebuild(block, policy="scrub", upright=True)[0] != once


def test_bytes_that_no_directory_points_to_do_not_survive() -> None:
    block = bad_images.exif_block(1, thumbnail=False) + b"an old thumbnail"
    kept, _ = exif.rebuild(block, policy="scrub")
    assert kept is not None
    assert b"an old thumbnail" not in kept


def test_damaged_exif_goes_but_the_orientation_stays() -> None:
    block = bytearray(bad_images.exif_block(6))
    count = int.from_bytes(block[8:10], "big")
    for i in range(count):
        at = 10 + 12 * i
        if block[at : at + 2] == b"\x87\x69":
            block[at + 8 : at + 12] = b"\x00\xff\xff\xff"  # the Exif directory lies far outside
    kept, dropped = exif.rebuild(bytes(block), policy="scrub")
    assert dropped == ["Exif (unreadable)"]
    assert exif.orientation(kept) == 6
    assert exif.rebuild(b"garbage", policy="scrub") == (None, ["Exif (unreadable)"])


def test_jfif_thumbnails_go() -> None:
    data = bad_images.jpeg()
    thumb = b"JFIF\0\1\2\1\0\x48\0\x48\2\2" + b"secret-pixel"
    jfxx = bad_images.segment(0xE0, b"JFXX\0\x10" + b"\xff\xd8\xff\xe0thumb")
    result = data[:2] + bad_images.segment(0xE0, thumb) + jfxx + data[4 + int.from_bytes(data[4:6], "big") :]
    out, dropped = clean(result, "jpeg", policy="keep", edited=True)
    assert dropped == ["JFIF thumbnail", "JFXX thumbnail"]
    assert b"secret-pixel" not in out
    assert encode.decode(out).dpi == (72.0, 72.0)


def test_xmp_with_previews_goes_even_when_kept() -> None:
    data = bad_images.jpeg()
    xmp = bad_images.segment(0xE1, marking.XMP + b"<xmpGImg:image>AAAA</xmpGImg:image>")
    plain = bad_images.segment(0xE1, marking.XMP + b"<dc:title>x</dc:title>")
    result = data[:2] + xmp + plain + data[2:]
    out, dropped = clean(result, "jpeg", policy="keep", edited=True)
    assert dropped == ["XMP"]
    assert b"dc:title" in out


def test_gif_keeps_its_picture_and_loses_its_comment() -> None:
    data = bad_images.telling_gif() + bad_images.TAIL
    out, dropped = clean(data, "gif", policy="scrub", edited=False)
    assert dropped == ["GIF comment", "bytes after the end of the image"]
    assert bad_images.COMMENT not in out
    assert [kind for kind, _, _ in gif_blocks(out)[1]][-2:] == ["image", "end"]


def test_webp_flags_say_what_is_inside() -> None:
    out = cleaned(bad_images.telling_webp(orientation=1), "strip", False).data
    chunks = dict(webp_chunks(out))
    assert b"EXIF" not in chunks
    assert b"XMP " not in chunks
    assert chunks[b"VP8X"][0] & 0x0C == 0
    assert chunks[b"VP8X"][0] & 0x20, "the profile is still announced"


def test_a_tiff_sub_picture_is_wiped() -> None:
    """A reduced picture below tag 330 (SubIFDs) shows the scene as well as a thumbnail does."""
    secret = b"reduced picture of a face"
    plain = bad_images.save(bad_images.picture(), "TIFF")
    first = int.from_bytes(plain[4:8], "little")
    count = int.from_bytes(plain[first : first + 2], "little")
    entries = [plain[first + 2 + 12 * i : first + 14 + 12 * i] for i in range(count)]
    at = len(plain) + len(plain) % 2
    below = at + 6 + 12 * (count + 1)
    strip = below + 6 + 24

    def cell(tag: int, value: int) -> bytes:
        return tag.to_bytes(2, "little") + b"\4\0\1\0\0\0" + value.to_bytes(4, "little")

    table = sorted([*entries, cell(330, below)], key=lambda e: int.from_bytes(e[:2], "little"))
    data = plain[:4] + at.to_bytes(4, "little") + plain[8:].ljust(at - 8, b"\0")
    data += (count + 1).to_bytes(2, "little") + b"".join(table) + bytes(4)
    data += b"\2\0" + cell(273, strip) + cell(279, len(secret)) + bytes(4) + secret
    assert (encode.decode(data).pixels == bad_images.scene()).all()
    out = cleaned(data, "scrub", False)
    assert out.metadata_dropped == ["SubIFDs", "bytes that no tag covers"], "the old directory is one of them"
    assert secret not in out.data
    assert (encode.decode(out.data).pixels == bad_images.scene()).all()


@pytest.mark.parametrize("policy", ["scrub", "strip"])
@pytest.mark.parametrize("name", [*TELLING, "png", "webp alpha", "jpeg without jfif", "gif"])
def test_an_edited_picture_says_so_and_keeps_saying_so(name: str, policy: str) -> None:
    data = TELLING[name]() if name in TELLING else bad_images.GOOD[name][1]()
    decoded = encode.decode(data)
    mask = np.zeros((decoded.height, decoded.width), bool)
    mask[5:20, 5:20] = True
    edited = 255 - decoded.pixels
    plain = encode.encode(data, decoded, edited, mask, metadata=policy)
    out = encode.encode(data, decoded, edited, mask, metadata=policy, mark_edited=True)
    assert b"compositeWithTrainedAlgorithmicMedia" not in plain.data
    with Image.open(io.BytesIO(out.data)) as picture:
        packet = picture.info["xmp"]
    about = ElementTree.fromstring(packet)[0][0]
    term = about.attrib["{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"]
    assert term.endswith("digitalsourcetype/compositeWithTrainedAlgorithmicMedia")
    assert (encode.decode(out.data).stored == encode.decode(plain.data).stored).all()
    assert (out.pixels_equal, out.jpeg_blocks_equal) == (plain.pixels_equal, plain.jpeg_blocks_equal)
    again = encode.encode(out.data, encode.decode(out.data), None, None, metadata=policy)
    assert again.data == out.data
    untouched = encode.encode(data, decoded, None, None, metadata=policy, mark_edited=True)
    assert b"TrainedAlgorithmicMedia" not in untouched.data


def test_a_foreign_xmp_that_is_kept_is_not_doubled() -> None:
    for name in TELLING:
        data = TELLING[name]()
        decoded = encode.decode(data)
        mask = np.ones((decoded.height, decoded.width), bool)
        out = encode.encode(data, decoded, 255 - decoded.pixels, mask, metadata="keep", mark_edited=True)
        if name in ("avif", "heic"):
            assert "only EXIF" in str(out.note)
            continue
        assert bad_images.XMP_NAME in out.data
        assert b"TrainedAlgorithmicMedia" not in out.data


def test_unknown_policy_and_format_are_refused() -> None:
    with pytest.raises(ValueError, match="metadata is one of scrub, keep, strip"):
        metadata.policy_of("all")
    with pytest.raises(ValueError, match="no metadata rules"):
        clean(b"", "jp2", policy="scrub", edited=False)
