"""A format is one file and one row: a made-up one goes through everything that asks for the format."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest

from cleanplate.pipeline.images import encode
from cleanplate.pipeline.images.formats import table
from cleanplate.pipeline.images.formats.base import Cleaned, Edit, Format, Header, ImageError, Rows, Written
from cleanplate.pipeline.images.formats.policy import Policy
from cleanplate.pipeline.stages.read import probe
from cleanplate.pipeline.stages.write import path_of
from cleanplate.pipeline.storage.containers import IMAGE_SUFFIXES
from rigs import bad_images

# The made-up format: a mark, height, width, a note of so many bytes, RGB.
MARK = b"MADEUP"


def encoded(pixels: np.ndarray, note: bytes = b"") -> bytes:
    return MARK + struct.pack("<HHH", *pixels.shape[:2], len(note)) + note + pixels.tobytes()


def header(data: bytes) -> Header:
    height, width, _ = struct.unpack_from("<HHH", data, 6)
    return Header("madeup", width, height, 1)


def decode(data: bytes) -> Rows:
    height, width, note = struct.unpack_from("<HHH", data, 6)
    raw = data[12 + note : 12 + note + 3 * height * width]
    return Rows(np.frombuffer(raw, np.uint8).reshape(height, width, 3), "RGB")


def clean(data: bytes, policy: Policy) -> Cleaned:
    note = struct.unpack_from("<H", data, 10)[0]
    return data[:10] + b"\0\0" + data[12 + note :], ["note"] if note else []


def write(edit: Edit) -> Written:
    return Written(encoded(edit.stored), clean(edit.source, edit.policy)[1])


MADE_UP = Format("madeup", ("mup",), lambda data: data.startswith(MARK), header, decode, clean, write)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Format:
    monkeypatch.setitem(table.FORMATS, "madeup", MADE_UP)
    return MADE_UP


def test_a_made_up_format_needs_one_row_of_the_table(known: Format) -> None:
    scene = bad_images.scene()
    data = encoded(scene, b"by Jane")
    assert probe(data, 10_000) == {"source_format": "madeup", "width": 96, "height": 64}
    decoded = encode.decode(data)
    assert (decoded.pixels == scene).all()
    plain = encode.encode(data, decoded, None, None)
    assert (plain.data, plain.metadata_dropped) == (encoded(scene), ["note"])
    mask = np.zeros((64, 96), bool)
    mask[10:20, 10:20] = True
    out = encode.encode(data, decoded, 255 - scene, mask, mark_edited=True)
    assert (out.format, out.pixels_equal, out.metadata_dropped) == ("madeup", True, ["note"])
    assert "does not say that it was edited" in str(out.note)
    assert (encode.decode(out.data).pixels[mask] == 255 - scene[mask]).all()
    assert encode.encode(data, decoded, None, None, format="png").format == "png"
    assert path_of("file:///in/a.png", "madeup") == "a.mup"
    with pytest.raises(ImageError, match="madeup is damaged"):
        encode.decode(data[:-1])
    with pytest.raises(ImageError, match="madeup header ends early"):
        encode.decode(data[:8])


def test_without_a_way_to_write_an_edit_becomes_png(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(table.FORMATS, "madeup", replace(MADE_UP, write=None, as_png="written as PNG {mode}"))
    data = encoded(bad_images.scene())
    decoded = encode.decode(data)
    out = encode.encode(data, decoded, 255 - decoded.pixels, np.ones((64, 96), bool))
    assert (out.format, out.note) == ("png", "written as PNG RGB")


def test_it_is_unknown_without_its_row() -> None:
    with pytest.raises(ImageError, match="no known image format"):
        encode.decode(encoded(bad_images.scene()))


def test_every_row_is_found_by_its_name_and_its_names_are_listed() -> None:
    for name, one in table.FORMATS.items():
        assert name == one.name
        assert set(one.suffixes) <= IMAGE_SUFFIXES, "a member of a tar with such a name would be left out"
    assert {name for name, one in table.FORMATS.items() if one.target} == set(encode.FORMATS) - {"keep"}
