"""Files and shards beside the ledger: mirrored, exactly once, never outside, never half."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanplate.pipeline import schema
from cleanplate.pipeline.engine import run as runs
from cleanplate.pipeline.errors import ConfigError, RowError
from cleanplate.pipeline.images import encode
from cleanplate.pipeline.images.formats.table import FORMATS
from cleanplate.pipeline.ledger import layouts, ledger
from cleanplate.pipeline.ledger.orphans import sweep
from cleanplate.pipeline.ledger.proof import prove
from cleanplate.pipeline.ledger.receipt import Receipt
from cleanplate.pipeline.recipe.recipe import load
from cleanplate.pipeline.storage import tar_file
from cleanplate.pipeline.storage.address import Inner, inner_of, key_of, order_of
from cleanplate.pipeline.storage.connect import LocalStore, open_store
from cleanplate.pipeline.storage.range_file import RangeFile
from rigs.bad_images import animated, jpeg, picture, save
from rigs.flow_rig import clean, faces, folder, put_photos, rows_of
from rigs.s3server import Bucket
from rigs.scenes import DEMO_PHOTOS


def put_tree(source: Path) -> dict[str, bytes]:
    """Names that a mirrored tree has trouble with, and a file that is no picture."""
    files = {
        "face.jpg": (DEMO_PHOTOS / "astronaut.jpg").read_bytes(),
        "sub/deep/a.JPG": jpeg(),
        "same/a.jpg": jpeg(quality=60),
        "same/a.png": save(picture(), "PNG"),
        "same/liar.png": jpeg(quality=70),
        "same/no suffix": save(picture(), "PNG"),
        "naïve ☃ 文.webp": save(picture(), "WEBP"),
        "moving.gif": animated("GIF"),
        "broken.jpg": b"this is no picture",
    }
    for key, data in files.items():
        (source / key).parent.mkdir(parents=True, exist_ok=True)
        (source / key).write_bytes(data)
    return files


def pictures(output: str) -> dict[str, bytes]:
    """The tree of images/ as a reader finds it."""
    top = Path(output) / "images"
    return {str(p.relative_to(top)): p.read_bytes() for p in sorted(top.rglob("*")) if p.is_file()}


def check_rows(output: str) -> list[dict[str, Any]]:
    """Every row with a picture leads to its bytes, and only such rows have one."""
    store, rows = LocalStore(Path(output)), rows_of(output)
    for row in rows:
        if row["status"] in ("failed", "skipped"):
            assert row["image"] is None
            continue
        assert row["image"]["bytes"] is None
        data = layouts.with_bytes(store, row)["image"]["bytes"]
        assert hashlib.sha256(data).hexdigest() == row["output_sha256"]
        assert encode.decode(data).format == row["output_format"]
    return rows


def test_a_tree_of_files_mirrors_the_source(tmp_path: Path) -> None:
    source, output = folder(tmp_path / "in"), str(tmp_path / "out")
    put_tree(tmp_path / "in")
    clean(source, output, faces(**{"output.layout": "files"}))
    rows = check_rows(output)
    assert pictures(output).keys() == {
        "face.jpg",
        "sub/deep/a.JPG",
        "same/a.jpg",
        "same/a.png",
        "same/liar.png.jpg",
        "same/no suffix.png",
        "naïve ☃ 文.webp",
    }
    assert {row["status"] for row in rows} == {"cleaned", "unchanged", "failed"}
    found = prove(LocalStore(tmp_path / "out"), source=LocalStore(tmp_path / "in"))
    assert found.wrong == []
    assert found.checks["image there"].looked == 7
    assert clean(source, output, faces(**{"output.layout": "files"})) == []
    assert list(sweep(LocalStore(tmp_path / "out"), 0)) == []


def test_two_names_that_become_one_format_stay_two_files(tmp_path: Path) -> None:
    source, output = folder(tmp_path / "in"), str(tmp_path / "out")
    put_tree(tmp_path / "in")
    clean(source, output, faces(**{"output.layout": "files", "output.format": "webp", "output.quality": 100}))
    check_rows(output)
    names = pictures(output).keys()
    assert {"same/a.jpg.webp", "same/a.png.webp", "same/liar.png.webp", "naïve ☃ 文.webp"} <= names
    assert len(names) == 7


def test_a_replaced_source_gets_a_file_of_its_own(tmp_path: Path) -> None:
    source, output = folder(tmp_path / "in"), str(tmp_path / "out")
    recipe = faces(**{"output.layout": "files"})
    (tmp_path / "in" / "a.png").write_bytes(save(picture(), "PNG"))
    clean(source, output, recipe)
    (tmp_path / "in" / "a.png").write_bytes(save(picture(seed=5), "PNG"))
    clean(source, output, recipe)
    assert len(check_rows(output)) == 2
    (first, second) = pictures(output)
    assert first == "a.png"
    assert second.startswith("~/")


def test_what_a_killed_attempt_left_harms_nothing_and_is_swept(tmp_path: Path) -> None:
    source, output = folder(tmp_path / "in"), tmp_path / "out"
    put_tree(tmp_path / "in")
    (output / "images" / "same").mkdir(parents=True)
    (output / "images" / "same" / "a.jpg").write_bytes(b"another attempt's picture of it")
    (output / "images" / "lost.jpg").write_bytes(b"never committed")
    clean(source, str(output), faces(**{"output.layout": "files"}))
    assert len(check_rows(str(output))) == 9
    store = LocalStore(output)
    assert prove(store).wrong == []
    swept = {(orphan.what, orphan.key) for orphan, _ in sweep(store, 0)}
    assert swept == {("picture", "images/same/a.jpg"), ("picture", "images/lost.jpg")}
    assert prove(store).wrong == []


def test_a_lost_or_changed_picture_is_found(tmp_path: Path) -> None:
    source, output = folder(tmp_path / "in"), tmp_path / "out"
    put_tree(tmp_path / "in")
    clean(source, str(output), faces(**{"output.layout": "files"}))
    (output / "images" / "same" / "a.jpg").unlink()
    (output / "images" / "same" / "a.png").write_bytes(save(picture(seed=3), "PNG"))
    assert prove(LocalStore(output)).wrong == ["image there", "output hash", "outside"]


def test_shards_hold_the_pictures_and_their_provenance(tmp_path: Path) -> None:
    source, output = folder(tmp_path / "in"), tmp_path / "out"
    put_tree(tmp_path / "in")
    recipe = faces(**{"output.layout": "webdataset", "units.rows": 4})
    clean(source, str(output), recipe)
    rows = {row["image_id"]: row for row in check_rows(str(output))}
    shards = sorted((output / "shards").iterdir())
    assert [p.stem for p in shards] == sorted(ledger.done(LocalStore(output)))
    seen = {}
    for shard in shards:
        with tarfile.open(shard) as tar:
            names = [n for n in tar.getnames() if not n.startswith(".")]
            for one, shown in zip(names[::2], names[1::2], strict=True):
                key = one.removesuffix(".json")
                assert shown.startswith(f"{key}.")
                seen[key] = json.loads(tar.extractfile(one).read())  # type: ignore[union-attr]
                assert hashlib.sha256(tar.extractfile(shown).read()).hexdigest() == seen[key]["output_sha256"]  # type: ignore[union-attr]
    assert seen.keys() == {key for key, row in rows.items() if row["image"]}
    assert {k: v["source_uri"] for k, v in seen.items()} == {k: rows[k]["source_uri"] for k in seen}
    assert prove(LocalStore(output), source=LocalStore(tmp_path / "in")).wrong == []
    assert list(sweep(LocalStore(output), 0)) == []


def committed(output: LocalStore, name: str) -> pa.Table:
    return ledger.read_part(output, f"{name}.parquet")


def test_a_shard_that_is_there_decides_what_the_part_says(tmp_path: Path) -> None:
    """An attempt dies between shard and part; the next one's pictures differ. Tar and part must agree."""
    source, output = folder(tmp_path / "in"), tmp_path / "out"
    put_photos(source, 4)
    run = runs.start(source, str(output), faces(**{"output.layout": "webdataset"}))
    (unit,) = runs.plan_new(run)
    receipts: list[Receipt] = []
    runs.execute(run, [unit], "here", receipts.append)
    first = committed(LocalStore(output), unit.name)
    shard = (output / layouts.shard_key(unit.name)).read_bytes()
    (output / "parts" / f"{unit.name}.parquet").unlink()
    other = first.set_column(
        first.schema.get_field_index("run_id"), "run_id", pa.array(["another"] * first.num_rows)
    )
    rows = other.to_pylist()
    for row in rows:
        row["image"] = {"bytes": save(picture(seed=9), "PNG"), "path": "x"}
    other = pa.Table.from_pylist(rows, schema=schema.part_schema())
    placed = layouts.place(run.output, unit.name, other, "webdataset", "")
    assert placed.equals(first)
    assert (output / layouts.shard_key(unit.name)).read_bytes() == shard


def test_datasets_read_the_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = folder(tmp_path / "in"), tmp_path / "out"
    put_photos(source, 5)
    clean(source, str(output), faces(**{"output.layout": "webdataset", "output.format": "png"}))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    import datasets

    shown = datasets.load_dataset(
        "webdataset", data_files=f"{output}/shards/*.tar", split="train", cache_dir=str(tmp_path / "hf")
    )
    assert len(shown) == 5
    assert {row["json"]["image_id"] for row in shown} == {row["image_id"] for row in rows_of(str(output))}
    assert all(row["png"].size == (row["json"]["width"], row["json"]["height"]) for row in shown)


# --- names ---

KEYS = st.text(st.characters(exclude_categories=[]), max_size=60) | st.text("./\\~%é☃\0\n a", max_size=40)


@given(KEYS, st.sampled_from(sorted(FORMATS)))
@settings(max_examples=300, deadline=None)
def test_no_key_leaves_the_output(key: str, kind: str) -> None:
    name = layouts.mirrored(key, FORMATS[kind].suffixes)
    parts = name.split("/")
    assert not {"", ".", ".."} & set(parts)
    assert name.isprintable()
    assert "\\" not in name
    assert all(len(part.encode()) <= 255 for part in parts)
    assert name.lower().endswith(tuple(f".{suffix}" for suffix in FORMATS[kind].suffixes))


@pytest.mark.parametrize(
    "key",
    ["../../etc/x.jpg", "/abs/x.jpg", "a/../../../x.jpg", "a\0b.jpg", "x" * 3000 + ".jpg", "a//b.jpg", "."],
)
def test_hostile_keys_are_written_inside(tmp_path: Path, key: str) -> None:
    output, data = LocalStore(tmp_path / "out"), jpeg()
    row = {
        "image_id": "ab" * 32,
        "source_uri": f"s3://bucket/{key}",
        "image": {"bytes": data, "path": None},
        "output_format": "jpeg",
        "output_sha256": hashlib.sha256(data).hexdigest(),
    }
    path = layouts._file(output, row, "s3://bucket/")
    assert path is not None
    written = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert [p.read_bytes() for p in written] == [data]
    assert written[0].resolve().is_relative_to((tmp_path / "out" / "images").resolve())
    assert output.get(path) == data


def test_a_name_that_is_a_folder_elsewhere(tmp_path: Path) -> None:
    """In a bucket both "a.jpg" and "a.jpg/b.jpg" can exist; in a folder they cannot."""
    output, paths = LocalStore(tmp_path), []
    for key in ("a.jpg", "a.jpg/b.jpg", "c.jpg/d.jpg", "c.jpg"):
        data = jpeg(quality=50 + len(paths))
        row = {
            "image_id": hashlib.sha256(key.encode()).hexdigest(),
            "source_uri": f"s3://bucket/{key}",
            "image": {"bytes": data, "path": None},
            "output_format": "jpeg",
            "output_sha256": hashlib.sha256(data).hexdigest(),
        }
        paths.append(layouts._file(output, row, "s3://bucket/"))
        assert output.get(str(paths[-1])) == data
    assert len(set(paths)) == 4


@given(
    st.sampled_from(["parquet", "arrow", "tar"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.text(st.characters(exclude_categories=[]), max_size=20),
    st.integers(0, 2**40),
)
@settings(max_examples=200, deadline=None)
def test_addresses_inside_containers_round_trip(kind: Any, name: str, member: str, number: int) -> None:
    member = member.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
    inner = Inner(kind, f"s3://b/{name}", row=number, column=name, at=number, size=number, member=member)
    assert inner_of(inner.uri) == inner
    assert inner.uri.encode().isascii() or not name.isascii()


def test_plain_uris_are_no_addresses() -> None:
    for uri in ("s3://b/x.parquet#column=image&row=1", "file:///a%23row=1", "s3://parquet+x/y"):
        assert inner_of(uri) is None
        assert order_of(uri, "id") == "id"
    assert key_of("tar+s3://b/in/x.tar#at=512&member=c/d.jpg&size=9", "s3://b/in") == "x.tar/c/d.jpg"
    assert key_of("parquet+file:///in/a%20b.parquet#column=i&row=7", "file:///in/") == "a b.parquet/000007"


# --- tars ---


def test_members_are_those_that_tarfile_lists(tmp_path: Path) -> None:
    for name, kind in (
        ("gnu", tarfile.GNU_FORMAT),
        ("pax", tarfile.PAX_FORMAT),
        ("ustar", tarfile.USTAR_FORMAT),
    ):
        with tarfile.open(tmp_path / name, "w", format=kind) as tar:
            for n in range(20):
                info = tarfile.TarInfo(f"{'d' * (90 if name == 'ustar' else 140)}/{n}.jpg")
                info.size = 1000 * n
                tar.addfile(info, io.BytesIO(bytes([n]) * info.size))
            tar.addfile(tarfile.TarInfo("empty.jpg"))
        with tarfile.open(tmp_path / name) as tar:
            expected = [(i.name, i.offset_data, i.size) for i in tar if i.isreg()]
        listed = list(tar_file.members(RangeFile(LocalStore(tmp_path), name)))
        assert [(m.name, m.at, m.size) for m in listed] == expected
        cut = (tmp_path / name).read_bytes()[: expected[10][1] + 100]
        (tmp_path / "cut").write_bytes(cut)
        reader = tar_file.members(RangeFile(LocalStore(tmp_path), "cut"))
        assert [(m.name, m.at, m.size) for m in itertools.islice(reader, 10)] == expected[:10]
        with pytest.raises(RowError, match="tar"):
            next(reader)


def test_an_unknown_layout_or_a_mark_without_a_signer_is_refused() -> None:
    for wrong in ({"output.layout": "zip"}, {"output.mark": "c2pa"}, {"output.c2pa_cert": "x.pem"}):
        with pytest.raises(ConfigError, match="output"):
            load(None, wrong)


@pytest.mark.parametrize("layout", ["files", "webdataset"])
def test_layouts_in_a_bucket(tmp_path: Path, s3: Bucket, layout: str) -> None:
    source, output = folder(tmp_path / "in"), s3.url("out")
    put_tree(tmp_path / "in")
    recipe = faces(**{"output.layout": layout, "units.rows": 5})
    clean(source, output, recipe)
    store = open_store(output)
    rows = rows_of(output)
    for row in rows:
        if row["image"] is not None:
            data = layouts.with_bytes(store, row)["image"]["bytes"]
            assert hashlib.sha256(data).hexdigest() == row["output_sha256"]
    assert sum(row["image"] is not None for row in rows) == 7
    found = prove(store, source=LocalStore(tmp_path / "in"))
    assert (found.wrong, found.checks["image there"].looked) == ([], 7)
    assert clean(source, output, recipe) == []
    place = "images" if layout == "files" else "shards"
    store.put(f"{place}/left.tar", b"of an attempt that was killed")
    swept = [orphan.key for orphan, removed in sweep(store, 0) if removed and orphan.what == "picture"]
    assert swept == [f"{place}/left.tar"]
    assert len(list(store.list(place))) == (7 if layout == "files" else 2)
