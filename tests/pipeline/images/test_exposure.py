"""What a file tells of people besides its pixels: only what is there, and in every block where it may stand."""

from __future__ import annotations

import io

import pytest
from PIL import Image as Pil

from cleanplate.pipeline.images.exposure import blocks, exposed

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description aux:SerialNumber="042" '
    b'exif:GPSLatitude="48,8N"><dc:creator>Erika</dc:creator></rdf:Description></rdf:RDF></x:xmpmeta>'
)


def saved(form: str, exif: Pil.Exif | None = None, **options: object) -> bytes:
    out = io.BytesIO()
    more = {"exif": exif} if exif is not None else {}
    Pil.new("RGB", (32, 24), (90, 120, 60)).save(out, form, **more, **options)  # type: ignore[arg-type]
    return out.getvalue()


def exif_of(**tags: object) -> Pil.Exif:
    exif = Pil.Exif()
    if "gps" in tags:
        exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 0.0), 3: "E", 4: (11.0, 30.0, 0.0)})
    if "version_only" in tags:
        exif.get_ifd(0x8825)[0] = b"\2\3\0\0"
    if "serial" in tags:
        exif.get_ifd(0x8769)[0xA431] = str(tags["serial"])
    if "owner" in tags:
        exif[0x013B] = str(tags["owner"])
    exif[0x0110] = "A camera"
    return exif


@pytest.mark.parametrize("form", ["jpeg", "png", "webp"])
def test_exif_in_each_format(form: str) -> None:
    data = saved(form, exif_of(gps=1, serial="SN1", owner="Erika"))
    assert exposed(data, form) == {"gps", "serial", "owner"}
    assert "exif" in blocks(data, form)
    assert exposed(saved(form, exif_of()), form) == set()
    assert exposed(saved(form), form) == set()


def test_a_tiff_is_its_own_block() -> None:
    assert exposed(saved("tiff", exif_of(owner="Erika")), "tiff") == {"owner"}
    # Pillow leaves the directories below out of its TIFFs: the block of a JPEG has the same form.
    block = exif_of(gps=1, serial="SN1").tobytes().removeprefix(b"Exif\0\0")
    assert exposed(block, "tiff") == {"gps", "serial"}
    assert blocks(block, "tiff") == {"exif"}
    assert blocks(saved("tiff"), "tiff") == set()


def test_a_directory_or_a_tag_without_content_tells_nothing() -> None:
    assert exposed(saved("jpeg", exif_of(version_only=1)), "jpeg") == set()
    assert exposed(saved("jpeg", exif_of(owner="  ", serial="")), "jpeg") == set()


def test_xmp_and_iptc() -> None:
    data = saved("jpeg", xmp=XMP)
    assert exposed(data, "jpeg") == {"gps", "serial", "owner"}
    assert blocks(data, "jpeg") == {"xmp"}
    record = b"\x1c\x02\x50\x00\x05Erika"
    resource = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + len(record).to_bytes(4, "big") + record
    app13 = b"\xff\xed" + (len(resource) + 2).to_bytes(2, "big") + resource
    plain = saved("jpeg")
    assert exposed(plain[:2] + app13 + plain[2:], "jpeg") == {"owner"}


def test_a_block_that_breaks_off_tells_what_can_be_read() -> None:
    data = saved("jpeg", exif_of(gps=1, owner="Erika"))
    at = data.index(b"Exif\0\0")
    broken = data[: at + 20] + b"\xff" * 40 + data[at + 60 :]
    assert exposed(broken, "jpeg") <= {"gps", "owner", "serial", "thumbnail"}
