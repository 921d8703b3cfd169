"""Damaged files: every one ends in a row; what is shown is the same each time; every cause is a sentence."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cleanplate.models.types import Image
from cleanplate.pipeline import schema
from cleanplate.pipeline.images import encode, rle
from cleanplate.pipeline.images.formats.base import KINDS, ImageError
from cleanplate.pipeline.recipe.recipe import Output
from cleanplate.pipeline.stages import rows
from cleanplate.pipeline.stages.read import probe
from cleanplate.pipeline.stages.stage import Worker
from cleanplate.pipeline.stages.write import Write
from rigs import bad_images
from rigs.spoil import damaged, whole_files
from rigs.tiffs import DEFLATE, LZW, NONE, PACKBITS, tiff

MAX_PIXELS = 4_000_000
COLUMNS = (
    "image_id",
    "source_uri",
    "source",
    "source_sha256",
    "source_format",
    "width",
    "height",
    "mask_rle",
    "patches",
    "error",
)


def row_of(name: str, data: bytes) -> dict[str, Any]:
    """A row as it stands before `write`: read, with every second picture edited."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS) | {
        "image_id": name,
        "source_uri": f"file:///{name}",
        "source": data,
    }
    row["source_sha256"] = hashlib.sha256(data).hexdigest()
    try:
        row |= probe(data, MAX_PIXELS)
        pixels = rows.decode(row).pixels
    except ImageError as error:
        return row | {"error": {"stage": "read", "kind": error.kind, "message": str(error)}}
    if int(row["source_sha256"], 16) % 2:
        mask = np.zeros(pixels.shape[:2], bool)
        mask[: mask.shape[0] // 2 + 1, : mask.shape[1] // 2 + 1] = True
        patches = rows.cut_patches(255 - pixels, mask)
        row |= {"mask_rle": rle.to_rle(mask), "patches": patches}
    return row


def written(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    fields = schema.columns(*COLUMNS, "timings_ms")
    table = pa.table(
        {
            name: pa.array([row.get(name) for row in rows], type=fields.field(name).type)
            for name in fields.names
        }
    )
    return Worker([Write(Output())])(table).to_pylist()  # type: ignore[no-any-return]


def poison(shape: tuple[int, ...], seed: int) -> None:
    """Fills memory of that size and lets go of it: whoever leaves rows unwritten shows it next."""
    held = [np.full(shape, 0xA0 + seed % 7, np.uint16) for _ in range(4)]
    del held


def again(data: bytes, seed: int) -> Image:
    encode.decode(OTHERS[seed % len(OTHERS)])
    poison(encode.decode(data).stored.shape, seed)
    return encode.decode(data).pixels


OTHERS = [bad_images.GOOD[name][1]() for name in ("png 16 rgb", "tiff 16 rgb", "jpeg 4:2:0", "avif 10 bit")]


def check(count: int, seed: int) -> Counter[str]:
    """`count` damaged files through read and write. Returns how often each thing happened."""
    cases = list(damaged(count, seed))
    out = written([row_of(name, data) for name, data in cases])
    assert len(out) == count
    seen: Counter[str] = Counter()
    by_name = {row["image_id"]: row for row in out}
    for n, (name, data) in enumerate(cases):
        row = by_name[name]
        if row["error"]:
            kind, message = row["error"]["kind"], row["error"]["message"]
            assert kind in KINDS, (name, row["error"])
            assert not re.search(r"Error|Exception|in the decoder|b'|\\x|\bNone\b|unpack", message), (
                name,
                message,
            )
            seen[kind] += 1
            continue
        seen["written"] += 1
        before, after = encode.decode(data), encode.decode(row["image"]["bytes"])
        assert (before.pixels == again(data, n)).all(), f"{name}: not the same picture each time"
        assert row["untouched"]["pixels_equal"] is True or re.search(
            "encoded anew|outside the mask", row["note"]
        ), name
        assert after.pixels.shape == before.pixels.shape, name
        if not row["mask_rle"]:
            assert (after.pixels == before.pixels).all(), name
    return seen


def test_two_hundred_damaged_files_are_two_hundred_rows() -> None:
    seen = check(200, seed=16)
    assert seen.total() == 200
    assert seen["written"] > 20, seen
    assert seen["corrupt"] + seen["truncated"] > 40, seen


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_many_more_damaged_files(seed: int) -> None:
    assert check(560, seed=seed).total() == 560


def plain_files(value: int) -> dict[str, bytes]:
    """Files of one value in every sample, so that any other byte is another picture's."""
    shape = (48, 64)
    rgb = np.full((*shape, 3), value, np.uint8)
    deep = np.full((*shape, 3), value * 257, np.uint16)
    flat = bad_images.Image.fromarray(rgb)
    files = {f"{name} {value}": bad_images.save(flat, name) for name in ("PNG", "BMP", "TIFF", "GIF")}
    files[f"webp {value}"] = bad_images.save(flat, "WEBP", lossless=True)
    for name, array in (("8", rgb), ("16", deep)):
        for compression in (NONE, LZW, DEFLATE, PACKBITS):
            for planar in (1, 2):
                for tiled in (False, True):
                    data = tiff(array, 2, planar=planar, compression=compression, block=(16, 32), tiled=tiled)
                    files[f"tiff {name} {compression} {planar} {tiled} {value}"] = data
    head = bad_images.struct.pack(">IIBBBBB", 64, 48, 16, 2, 0, 0, 0)
    raw = np.pad(deep.astype(">u2").reshape(48, -1).view(np.uint8), ((0, 0), (1, 0))).tobytes()
    chunks = [(b"IHDR", head), (b"IDAT", bad_images.zlib.compress(raw)), (b"IEND", b"")]
    files[f"png 16 {value}"] = b"\x89PNG\r\n\x1a\n" + b"".join(bad_images.png_chunk(*c) for c in chunks)
    return files


def test_no_byte_of_one_picture_is_found_in_another() -> None:
    """Sound and cut files of one colour each, in random order in one process: all of the colour, or refused."""
    rng = np.random.default_rng(5)
    files = [(value, name, data) for value in (3, 90, 201) for name, data in plain_files(value).items()]
    cut = [
        (value, f"cut {name}", data[: int(len(data) * rng.uniform(0.3, 1))]) for value, name, data in files
    ]
    shown = refused = 0
    for n in rng.permutation(2 * len(files)).tolist():
        value, name, data = (files + cut)[n]
        try:
            found = encode.decode(data)
        except ImageError:
            refused += 1
            assert name.startswith("cut"), name
            continue
        shown += 1
        assert (found.pixels == value).all(), name
        assert (found.stored == (value * 257 if found.bits == 16 else value)).all(), name
    assert shown >= len(files)
    assert refused > len(files) // 2


def test_the_files_that_are_damaged_are_sound_before() -> None:
    for name, data in whole_files().items():
        assert encode.decode(data).width, name
