"""Every check of the proof: one defect planted, and exactly that check speaks."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pil

from cleanplate.pipeline import schema
from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.images import encode, rle
from cleanplate.pipeline.ledger import ledger, part_file
from cleanplate.pipeline.ledger.checks import CHECKS
from cleanplate.pipeline.ledger.orphans import sweep
from cleanplate.pipeline.ledger.proof import prove, readable
from cleanplate.pipeline.storage.connect import LocalStore
from rigs.flow_rig import clean, faces, put_photos
from rigs.scenes import DEMO_PHOTOS

Row = dict[str, Any]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over eight photographs (one face as JPEG, one as PNG) and one broken file; `in` and `out`."""
    place = tmp_path_factory.mktemp("finished")
    put_photos(str(place / "in"), 6)
    face = Pil.open(DEMO_PHOTOS / "astronaut.jpg").resize((256, 256))
    face.save(place / "in" / "face.jpg", quality=90)
    face.save(place / "in" / "face.png")
    (place / "in" / "broken.jpg").write_bytes(b"this is no picture")
    clean(str(place / "in"), str(place / "out"), faces(**{"units.rows": 3}))
    return place


@pytest.fixture
def place(finished: Path, tmp_path: Path) -> LocalStore:
    shutil.copytree(finished / "out", tmp_path / "out")
    return LocalStore(tmp_path / "out")


def wrong(output: LocalStore, source: Path | None = None) -> list[str]:
    return prove(output, source=LocalStore(source) if source else None).wrong


def test_a_sound_output_has_nothing_wrong_and_every_check_looked(finished: Path) -> None:
    found = prove(LocalStore(finished / "out"), source=LocalStore(finished / "in"))
    assert found.wrong == []
    assert found.rows == 9
    assert [name for name, check in found.checks.items() if not check.looked] == []
    assert found.checks["nothing lost"].looked == 9
    assert found.checks["outside"].looked == 8
    assert found.checks["edit seen"].looked >= 2


def part_of(output: LocalStore, ending: str) -> str:
    for name in ledger.part_keys(output):
        uris = ledger.read_part(output, name, ["source_uri"])["source_uri"].to_pylist()
        if any(uri.endswith(ending) for uri in uris):
            return name
    raise LookupError(ending)


def rewrite(output: LocalStore, name: str, edit: Callable[[list[Row]], list[Row] | None]) -> None:
    rows = ledger.read_part(output, name).to_pylist()
    edited = edit(rows)
    rows = rows if edited is None else edited
    table = pa.Table.from_pylist(rows, schema=schema.part_schema())
    output.put(f"parts/{name}", part_file.part_bytes(table))


def plant(output: LocalStore, ending: str, change: Callable[[Row], object]) -> None:
    """Change the row whose source ends so, in its part."""

    def edit(rows: list[Row]) -> None:
        change(next(row for row in rows if row["source_uri"].endswith(ending)))

    rewrite(output, part_of(output, ending), edit)


def set_image(row: Row, data: bytes) -> None:
    row["image"]["bytes"], row["output_sha256"] = data, hashlib.sha256(data).hexdigest()


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Pil.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def pixel_outside(row: Row) -> None:
    """One pixel, one step, outside the mask of the PNG."""
    pixels = encode.decode(row["image"]["bytes"]).pixels.copy()
    mask = rle.from_rle(row["mask_rle"], row["height"], row["width"])
    y, x = np.argwhere(~mask)[0]
    pixels[y, x, 0] ^= 1
    set_image(row, png(pixels))


def block_outside(row: Row) -> None:
    """The JPEG encoded anew, as a tool would that knows no better."""
    buffer = io.BytesIO()
    Pil.open(io.BytesIO(row["image"]["bytes"])).save(buffer, "JPEG", quality=90)
    set_image(row, buffer.getvalue())


def original_back(row: Row) -> None:
    """The edit is lost: the source's pixels in other bytes."""
    source = Path(row["source_uri"].removeprefix("file://")).read_bytes()
    set_image(row, png(encode.decode(source).pixels))


def source_itself(row: Row) -> None:
    set_image(row, Path(row["source_uri"].removeprefix("file://")).read_bytes())


def flip(row: Row) -> None:
    data = bytearray(row["image"]["bytes"])
    data[-1] ^= 1  # The last byte of IEND's checksum, which decoders pass over.
    row["image"]["bytes"] = bytes(data)


def cut_short(row: Row) -> None:
    set_image(row, row["image"]["bytes"][:60])


def smaller_mask(row: Row) -> None:
    mask = rle.from_rle(row["mask_rle"], row["height"], row["width"])
    mask[:, : int(np.flatnonzero(mask.any(axis=0))[0]) + 1] = False
    row["mask_rle"], row["mask_coverage"] = rle.to_rle(mask), rle.coverage(mask)


ROWS: dict[str, tuple[str, Callable[[Row], object], list[str]]] = {
    "a flipped byte": ("face.png", flip, ["output hash", "image"]),
    "a picture cut short": ("face.png", cut_short, ["image"]),
    "another size": (
        "face.png",
        lambda r: set_image(r, png(np.zeros((9, 9, 3), np.uint8))),
        ["image", "outside"],
    ),
    "another format": ("face.png", lambda r: r.update(output_format="webp"), ["image"]),
    "a pixel outside the mask": ("face.png", pixel_outside, ["outside"]),
    "a JPEG encoded anew": ("face.jpg", block_outside, ["outside"]),
    "the original in other bytes": ("face.png", original_back, ["edit seen"]),
    "the original itself": ("face.png", source_itself, ["edited", "edit seen"]),
    "an unknown status": ("face.png", lambda r: r.update(status="done"), ["status"]),
    "a failed row without an error": ("broken.jpg", lambda r: r.update(error=None), ["status"]),
    "cleaned with residue": (
        "face.png",
        lambda r: r.update(residual=[{"kind": "face", "detector": "d", "score": 1.0, "box": [0, 0, 9, 9]}]),
        ["status"],
    ),
    "runs too short": ("face.png", lambda r: r.update(mask_rle=r["mask_rle"][:-2]), ["masks"]),
    "a wrong coverage": ("face.png", lambda r: r.update(mask_coverage=0.5), ["masks"]),
    "a wrong area": ("face.png", lambda r: r["regions"][0].update(area_px=1), ["masks"]),
    "a region outside the mask": ("face.png", smaller_mask, ["masks", "edited area"]),
    "an edited area without the blocks": (
        "face.jpg",
        lambda r: r.update(edited_rle=r["mask_rle"]),
        ["outside"],
    ),
    "an edited area without the mask": (
        "face.png",
        lambda r: r.update(edited_rle=None),
        ["edited area", "outside"],
    ),
    "all of a picture called edited": (
        "face.jpg",
        lambda r: r.update(edited_rle=rle.to_rle(np.ones((r["height"], r["width"]), bool))),
        ["edited area"],
    ),
    "another recipe": ("face.png", lambda r: r.update(recipe_digest="0" * 64), ["recipe"]),
    "another source hash": ("face.png", lambda r: r.update(source_sha256="0" * 64), ["source hash"]),
    "another version": ("face.png", lambda r: r.update(source_version="1-1"), ["rows", "identity"]),
    "another name": (
        "00000.jpg",
        lambda r: r.update(source_uri=r["source_uri"] + "x"),
        ["rows", "identity", "source there"],
    ),
}


@pytest.mark.parametrize("defect", ROWS)
def test_a_defect_in_a_row(place: LocalStore, defect: str) -> None:
    ending, change, checks = ROWS[defect]
    plant(place, ending, change)
    found = prove(place)
    assert found.wrong == checks
    for name in checks:
        assert found.checks[name].wrong == 1
        assert found.checks[name].examples, "an example says where"


def test_a_row_dropped_and_a_row_doubled(place: LocalStore, finished: Path) -> None:
    name = part_of(place, "face.png")
    rewrite(place, name, lambda rows: [r for r in rows if not r["source_uri"].endswith("face.png")])
    assert wrong(place) == ["rows"]
    found = prove(place, source=LocalStore(finished / "in"))
    assert found.wrong == ["rows", "nothing lost"]
    assert "face.png" in found.checks["nothing lost"].examples[0]
    rewrite(place, name, lambda rows: [*rows, rows[0]])
    assert wrong(place) == ["rows", "unique"]


def test_a_part_deleted_doubled_truncated_and_of_another_shape(place: LocalStore, finished: Path) -> None:
    first, second, _ = ledger.part_keys(place)
    whole = place.get(f"parts/{first}")
    place.put("parts/00-00000009-0123456789ab.parquet", whole)
    found = prove(place)
    assert found.wrong == ["planned", "unique"]
    assert "a part that no plan names" in found.checks["planned"].examples[0]
    place.delete("parts/00-00000009-0123456789ab.parquet")
    place.delete(f"parts/{second}")
    found = prove(place, source=LocalStore(finished / "in"))
    assert found.wrong == ["planned", "nothing lost"]
    assert "not committed" in found.checks["planned"].examples[0]
    place.put(f"parts/{first}", whole[: len(whole) // 2])
    assert wrong(place) == ["planned", "readable"]
    buffer = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(whole)).drop_columns(["note"]), buffer)
    place.put(f"parts/{first}", buffer.getvalue())
    assert wrong(place) == ["planned", "sealed", "schema"]


def test_any_flipped_byte_is_found(place: LocalStore) -> None:
    """Bytes of the file itself, at places spread over it: in the footer, in compressed pages, in pictures."""
    name = part_of(place, "face.png")
    whole = place.get(f"parts/{name}")
    silent = []
    for at in np.linspace(0, len(whole) - 1, 40).astype(int).tolist():
        data = bytearray(whole)
        data[at] ^= 0x10
        place.put(f"parts/{name}", bytes(data))
        if not wrong(place):
            silent.append(at)
    assert silent == []


def test_a_source_that_changed_or_went(finished: Path, tmp_path: Path) -> None:
    output, source = str(tmp_path / "out"), tmp_path / "in"
    put_photos(str(source), 3)
    clean(str(source), output, faces())
    store = LocalStore(Path(output))
    (source / "new.jpg").write_bytes(b"new")
    assert wrong(store) == [], "what was added since is no fault of the output"
    assert wrong(store, source) == ["nothing lost"]
    (source / "new.jpg").unlink()
    victim = source / "00000.jpg"
    victim.write_bytes(victim.read_bytes() + b"\0")
    assert wrong(store, source) == ["source hash", "nothing lost"]
    victim.unlink()
    assert wrong(store, source) == ["source there"]
    shutil.rmtree(source)
    assert not readable(LocalStore(source))
    assert prove(store, compare=False).wrong == []
    with pytest.raises(ConfigError, match="was made of"):
        prove(store, source=LocalStore(finished / "in"))


def test_every_status_that_the_writer_makes_passes(tmp_path: Path) -> None:
    """Skipped rows with and without their source, a conversion, and a rotated JPEG."""
    source = tmp_path / "in"
    source.mkdir()
    face = Pil.open(DEMO_PHOTOS / "astronaut.jpg").resize((250, 250))
    turned = Pil.Exif()
    turned[274] = 6
    face.rotate(90).save(source / "turned.jpg", exif=turned, subsampling=2)
    face.convert("L").save(source / "grey.jpg", quality=60)
    face.save(source / "lossy.webp", quality=70)
    face.convert("P", palette=Pil.Palette.ADAPTIVE).save(source / "palette.gif")
    for name, flags in {
        "keep": {},
        "skip": {"masks.max_coverage": 0.001},
        "skip-kept": {"masks.max_coverage": 0.001, "output.keep_skipped": True},
        "jpeg": {"output.format": "jpeg", "output.quality": 60},
        "webp": {"output.format": "webp", "output.quality": 60},
    }.items():
        clean(str(source), str(tmp_path / name), faces(**flags))
        found = prove(LocalStore(tmp_path / name), source=LocalStore(source))
        assert found.wrong == [], name
        assert found.rows == 4
    assert found.checks["edit seen"].looked == 4


def test_sweep_takes_orphans_and_nothing_else(place: LocalStore) -> None:
    before = {item.key for item in place.list()}
    place.put("parts/.00-00000000-0123456789ab.parquet.0123456789ab.tmp", b"half")
    place.put("plan/0000-0123456789ab-00000.parquet", b"no index names it")
    place.put("plan/notes.txt", b"not ours")
    kept = list(sweep(place))
    assert sorted(orphan.what for orphan, _ in kept) == ["plan", "temporary"]
    assert [removed for _, removed in kept] == [False, False], "younger than a living writer's"
    for orphan, _ in kept:
        hour_ago = time.time() - 3600
        os.utime(place.root / orphan.key, (hour_ago, hour_ago))
    assert [removed for _, removed in sweep(place)] == [True, True]
    assert {item.key for item in place.list()} == before | {"plan/notes.txt"}
    assert list(sweep(place)) == []
    assert wrong(place) == []


def test_sweep_of_a_bucket(finished: Path, s3) -> None:  # type: ignore[no-untyped-def]
    from cleanplate.pipeline.storage.connect import open_store

    local, output = LocalStore(finished / "out"), open_store(s3.url("clean"))
    for item in local.list():
        output.put(item.key, local.get(item.key))
    before = {item.key for item in output.list()}
    output.put("plan/0000-0123456789ab-00000.parquet", b"no index names it")
    client = s3.server.client()
    client.create_multipart_upload(Bucket=s3.bucket, Key="clean/parts/half.parquet")
    client.create_multipart_upload(Bucket=s3.bucket, Key="elsewhere/half.parquet")
    assert [removed for _, removed in sweep(output)] == [False, False]
    assert sorted((o.what, removed) for o, removed in sweep(output, min_age=0)) == [
        ("plan", True),
        ("upload", True),
    ]
    assert {item.key for item in output.list()} == before
    left = client.list_multipart_uploads(Bucket=s3.bucket).get("Uploads", [])
    assert [upload["Key"] for upload in left] == ["elsewhere/half.parquet"], "other people's uploads stay"
    assert prove(output, compare=False).wrong == []


def test_the_record_names_what_the_checks_promise(finished: Path) -> None:
    record = json.loads((finished / "out" / "run.json").read_text())
    assert record["source"] == str(finished / "in")
    assert all(words for words in CHECKS.values())
