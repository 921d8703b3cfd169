"""Edited images say that they are: in their XMP, and by a signed manifest."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cleanplate.pipeline.engine import run as runs
from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.images import c2pa_manifest, encode
from cleanplate.pipeline.images.formats import png
from cleanplate.pipeline.ledger.proof import prove
from cleanplate.pipeline.storage.connect import LocalStore
from rigs import bad_images
from rigs.bad_images import jpeg, picture, save
from rigs.certs import write_signer
from rigs.flow_rig import clean, faces, folder, rows_of
from rigs.scenes import DEMO_PHOTOS

TERM = b"compositeWithTrainedAlgorithmicMedia"
RDF = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:source="archive-9"/>'
    b"</rdf:RDF></x:xmpmeta>"
)
CAPTURED = RDF.replace(
    b'dc:source="archive-9"',
    b'dc:source="archive-9" xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    b'e:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"',
)
MADE = {
    "jpeg": lambda xmp: save(picture(), "JPEG", xmp=xmp),
    "png": lambda xmp: _png(xmp),
    "webp": lambda xmp: save(picture(), "WEBP", lossless=True, xmp=xmp),
    "tiff": lambda xmp: save(picture(), "TIFF", tiffinfo={700: xmp}),
}
SOURCES = {
    "jpeg": jpeg,
    "progressive jpeg": lambda: jpeg(progressive=True, restart_marker_blocks=5),
    "png": bad_images.GOOD["png 16 rgb alpha"][1],
    "webp": bad_images.GOOD["webp lossless"][1],
    "tiff": bad_images.GOOD["tiff"][1],
}


def _png(xmp: bytes) -> bytes:
    data = save(picture(), "PNG")
    return data[:33] + bad_images.png_chunk(b"iTXt", png.XMP_TEXT + xmp) + data[33:]


def edit(data: bytes, **options: object) -> encode.Encoded:
    decoded = encode.decode(data)
    mask = np.zeros((decoded.height, decoded.width), bool)
    mask[8:20, 8:20] = True
    return encode.encode(data, decoded, 255 - decoded.pixels, mask, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("xmp", [RDF, CAPTURED], ids=["none yet", "captured"])
@pytest.mark.parametrize("name", MADE)
def test_an_xmp_that_is_kept_says_it_too(name: str, xmp: bytes) -> None:
    out = edit(MADE[name](xmp), metadata="keep", mark_edited=True)
    with Image.open(io.BytesIO(out.data)) as shown:
        found = shown.info.get("xmp") or shown.tag_v2[700]
    assert TERM in found
    assert b"archive-9" in found
    assert b"digitalCapture" not in out.data
    assert out.note is None
    assert out.pixels_equal is True


def test_a_format_that_cannot_say_it_is_noted() -> None:
    out = edit(save(picture(), "BMP"), mark_edited=True)
    assert out.note is not None
    assert "does not say that it was edited" in out.note
    packed = edit(MADE["jpeg"](RDF.decode().encode("utf-16")), metadata="keep", mark_edited=True)
    assert "does not say" in str(packed.note)


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_signer(tmp_path_factory.mktemp("signer"))


@pytest.mark.parametrize("name", SOURCES)
def test_a_manifest_is_signed_and_holds(name: str, signer: tuple[str, str]) -> None:
    import c2pa

    source = SOURCES[name]()
    out = edit(source, mark_edited=True, sign=c2pa_manifest.signer(*signer, "1"))
    assert out.pixels_equal is True
    assert out.jpeg_blocks_equal is (True if "jpeg" in name else None)
    kind = f"image/{out.format}"
    record = json.loads(c2pa.Reader(kind, io.BytesIO(out.data)).json())
    assert record["validation_state"] == "Valid"
    (one,) = record["manifests"].values()
    assert one["claim_generator_info"][0]["name"] == "cleanplate"
    (action,) = one["assertions"][0]["data"]["actions"]
    assert action["digitalSourceType"].endswith(TERM.decode())
    assert not {"thumbnail", "ingredients"} & one.keys(), "both would show the source"
    broken = bytearray(out.data)
    broken[len(broken) // 2 if name == "png" else -20] ^= 1
    assert json.loads(c2pa.Reader(kind, io.BytesIO(bytes(broken))).json())["validation_state"] == "Invalid"


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "tiff"])
def test_the_sources_manifest_goes_when_the_picture_is_edited(name: str, signer: tuple[str, str]) -> None:
    signed = edit(SOURCES[name](), sign=c2pa_manifest.signer(*signer, "1")).data
    assert b"c2pa" in signed
    for policy in ("keep", "scrub", "strip"):
        assert b"c2pa" not in edit(signed, metadata=policy).data
    assert b"c2pa" in encode.encode(signed, encode.decode(signed), None, None, metadata="keep").data


def test_a_run_signs_what_it_edits(tmp_path: Path, signer: tuple[str, str]) -> None:
    source, output = folder(tmp_path / "in"), str(tmp_path / "out")
    (tmp_path / "in" / "face.jpg").write_bytes((DEMO_PHOTOS / "astronaut.jpg").read_bytes())
    (tmp_path / "in" / "none.png").write_bytes(save(picture(), "PNG"))
    signing = {"output.mark": "c2pa", "output.c2pa_cert": signer[0], "output.c2pa_key": signer[1]}
    clean(source, output, faces(**signing))
    face, none = sorted(rows_of(output), key=lambda row: row["source_uri"])
    assert (face["status"], none["status"]) == ("cleaned", "unchanged")
    assert b"c2pa" in face["image"]["bytes"]
    assert TERM in face["image"]["bytes"]
    assert b"c2pa" not in none["image"]["bytes"], "an image that was not edited says nothing"
    assert prove(LocalStore(tmp_path / "out")).wrong == []
    secret = Path(signer[1]).read_text().splitlines()[1].encode()
    assert not any(secret in p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file())


def test_a_signer_that_cannot_sign_is_refused_before_any_work(
    tmp_path: Path, signer: tuple[str, str]
) -> None:
    other = write_signer(tmp_path)
    (tmp_path / "none.pem").write_text("no key")
    for cert, key in (
        (signer[0], "missing.pem"),
        (signer[0], str(tmp_path / "none.pem")),
        (signer[0], other[1]),
    ):
        recipe = faces(**{"output.mark": "c2pa", "output.c2pa_cert": cert, "output.c2pa_key": key})
        with pytest.raises(ConfigError, match="pem"):
            runs.start(folder(tmp_path / "in"), str(tmp_path / "out"), recipe)


def test_a_rotated_jpeg_is_stored_upright_when_asked(tmp_path: Path) -> None:
    source, output = folder(tmp_path / "in"), str(tmp_path / "out")
    with Image.open(DEMO_PHOTOS / "astronaut.jpg") as face:
        exif = Image.Exif()
        exif[0x0112] = 6
        face.rotate(90, expand=True).save(tmp_path / "in" / "face.jpg", exif=exif, quality=90)
    clean(source, output, faces(**{"output.orientation": "bake"}))
    (row,) = rows_of(output)
    assert row["status"] == "cleaned"
    after = encode.decode(row["image"]["bytes"])
    assert (after.orientation, after.height, after.width) == (1, row["height"], row["width"])
    assert row["untouched"] == {"pixels_equal": True, "jpeg_blocks_equal": True}
    assert "turned upright" in row["note"]
    assert prove(LocalStore(tmp_path / "out")).wrong == []
