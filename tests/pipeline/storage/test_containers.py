"""Images inside Parquet, Arrow and tar: every one a row with its own id, fetched alone, none dropped in silence."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanplate.pipeline.engine import run as runs
from cleanplate.pipeline.errors import RowError, StorageError
from cleanplate.pipeline.ledger import cut, ledger, plan
from cleanplate.pipeline.ledger.proof import prove
from cleanplate.pipeline.recipe.recipe import load
from cleanplate.pipeline.storage import arrow_file, containers
from cleanplate.pipeline.storage.address import inner_of
from cleanplate.pipeline.storage.connect import LocalStore, Store
from cleanplate.pipeline.storage.containers import read_image, read_images
from cleanplate.pipeline.storage.image_columns import image_column
from cleanplate.pipeline.storage.range_file import RangeFile
from rigs.bad_images import jpeg, picture, save
from rigs.flow_rig import clean, faces, folder, rows_of
from rigs.scenes import DEMO_PHOTOS

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def pictures(n: int) -> list[bytes]:
    """n small files that differ, JPEG and PNG in turn."""
    return [save(picture(seed=k), "PNG") if k % 2 else jpeg(quality=40 + k) for k in range(n)]


def table(files: list[bytes | None]) -> pa.Table:
    """As `datasets` writes it: a struct of bytes and path, and a caption."""
    cells = [None if data is None else {"bytes": data, "path": f"{k}.jpg"} for k, data in enumerate(files)]
    return pa.table({"caption": [f"no. {k}" for k in range(len(files))], "image": pa.array(cells, IMAGE)})


def put_parquet(path: Path, files: list[bytes | None], group: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(files), path, row_group_size=group)


def put_arrow(path: Path, files: list[bytes | None], batch: int = 4, *, stream: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = table(files)
    result = pa.ipc.new_stream if stream else pa.ipc.new_file
    with result(str(path), rows.schema) as writer:
        writer.write_table(rows, max_chunksize=batch)


def put_tar(path: Path, files: list[bytes | None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for k, data in enumerate(files):
            for name, body in ((f"set/{k:04}.jpg", data or b""), (f"set/{k:04}.txt", b"a caption")):
                info = tarfile.TarInfo(name)
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))


PUT: dict[str, tuple[str, Callable[..., None]]] = {
    "parquet": ("data/train-0.parquet", put_parquet),
    "arrow": ("data-00000-of-00001.arrow", put_arrow),
    "arrow file": ("file.arrow", lambda path, files: put_arrow(path, files, stream=False)),
    "webdataset": ("shard-000.tar", put_tar),
}


def listed(store: Store, **source: Any) -> tuple[list[plan.Planned], Counter[str]]:
    listing = containers.Listing()
    recipe = load(None, {f"source.{name}": value for name, value in source.items()})
    return list(plan.listed(store, recipe, None, listing)), listing.left_out


@pytest.mark.parametrize("name", PUT)
def test_every_image_of_a_container_is_listed_and_fetched(tmp_path: Path, name: str) -> None:
    files, (key, put) = pictures(11), PUT[name]
    put(tmp_path / key, files)
    (tmp_path / "README.md").write_text("beside")
    rows, left_out = listed(LocalStore(tmp_path))
    assert len(rows) == len({row.image_id for row in rows}) == 11
    assert left_out == Counter({".md": 1} | ({".txt": 11} if name == "webdataset" else {}))
    uris = [row.uri for row in rows]
    assert all(inner_of(uri) for uri in uris)
    assert read_images(uris) == files
    assert read_images(uris[::-3]) == files[::-3]
    assert [read_image(uri) for uri in uris[3:5]] == files[3:5]
    whole = (tmp_path / key).stat().st_size
    assert 0 < sum(row.object.size for row in rows) <= whole
    again, _ = listed(LocalStore(tmp_path))
    assert again == rows, "ids are stable"
    asked = {"webdataset": "webdataset", "parquet": "parquet"}.get(name, "arrow")
    assert listed(LocalStore(tmp_path), format=asked)[0] == rows
    assert len(listed(LocalStore(tmp_path), format="objects")[0]) == 2


class Counting(LocalStore):
    """A folder that counts the bytes that are read of it."""

    read = 0

    def get_range(self, key: str, start: int, length: int, version: str = "") -> bytes:
        data = super().get_range(key, start, length, version)
        type(self).read += len(data)
        return data

    def get(self, key: str) -> bytes:
        raise AssertionError("a container is not read whole")


@pytest.mark.parametrize("name", PUT)
def test_only_what_is_needed_is_read(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Footers when listing (a tar: the members that are smaller than a block of reading), a piece when fetching."""
    noise = np.random.default_rng(0)
    files = [noise.bytes(200_000) for _ in range(64)]
    key, put = PUT[name]
    put(tmp_path / key, files)
    whole = (tmp_path / key).stat().st_size
    monkeypatch.setattr(containers, "place_of", lambda uri: (Counting(tmp_path), key))
    Counting.read = 0
    rows = list(plan.listed(Counting(tmp_path), load(None)))
    assert Counting.read < (1.1 * whole if name == "webdataset" else whole / 20)
    Counting.read = 0
    assert read_images([row.uri for row in rows[8:10]]) == files[8:10]
    assert Counting.read < whole / 8


def test_a_tar_of_large_members_is_jumped_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cleanplate.pipeline.storage import tar_file

    monkeypatch.setattr(tar_file, "READ_AHEAD", 4096)
    put_tar(tmp_path / "a.tar", [bytes(300_000)] * 20)
    Counting.read = 0
    assert len(list(tar_file.members(RangeFile(Counting(tmp_path), "a.tar")))) == 40
    assert Counting.read < 500_000


BROKEN: dict[str, tuple[str, Callable[[bytes], bytes], int]] = {
    "cut parquet": ("parquet", lambda data: data[:-100], 0),
    "no parquet": ("parquet", lambda data: b"PAR1 this is none", 0),
    "empty parquet": ("parquet", lambda data: b"", 0),
    "cut tar": ("webdataset", lambda data: data[: len(data) // 2], 5),
    "overwritten tar": ("webdataset", lambda data: data.replace(b"set/0005.jpg", b"set/xxxx.jpg"), 5),
    "cut arrow": ("arrow", lambda data: data[: len(data) * 3 // 4], 4),
    "cut arrow schema": ("arrow", lambda data: data[:40], 0),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_container_is_its_good_images_and_a_row_that_says_why(tmp_path: Path, name: str) -> None:
    kind, spoil, good = BROKEN[name]
    key, put = PUT[kind]
    files = pictures(11)
    put(tmp_path / key, files)
    put(tmp_path / f"whole{Path(key).suffix}", files[:3])  # what makes the source one of containers
    (tmp_path / key).write_bytes(spoil((tmp_path / key).read_bytes()))
    rows, _ = listed(LocalStore(tmp_path))
    here = [row.uri for row in rows if key in row.uri]
    assert len(rows) - len(here) == 3
    *fine, last = read_images(here)
    assert len(fine) >= good
    assert fine == files[: len(fine)]
    assert isinstance(last, RowError)
    assert last.kind == "container"


def test_cells_without_a_picture_are_rows_that_fail(tmp_path: Path) -> None:
    rows = table([*pictures(2), None]).to_pylist()
    rows.append({"caption": "far", "image": {"bytes": None, "path": "elsewhere/a.jpg"}})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    clean(str(tmp_path), str(tmp_path.parent / f"{tmp_path.name}-out"), faces())
    items = [(r["status"], (r["error"] or {}).get("message")) for r in rows_of(f"{tmp_path}-out")]
    assert sorted(items, key=str) == [
        ("failed", "the cell holds no bytes, only the path elsewhere/a.jpg"),
        ("failed", "the cell is null"),
        ("unchanged", None),
        ("unchanged", None),
    ]


@pytest.mark.parametrize(
    ("columns", "asked", "found"),
    [
        ({"image": IMAGE, "mask": IMAGE}, None, "image"),
        ({"mask": IMAGE, "photo": IMAGE}, "photo", "photo"),
        ({"label": pa.int64(), "jpg": pa.binary()}, None, "jpg"),
        ({"embedding": pa.binary(), "image": pa.large_binary()}, None, "image"),
        ({"only": pa.binary(), "text": pa.string()}, None, "only"),
        ({"a": pa.binary(), "b": pa.binary()}, None, None),
        ({"text": pa.string()}, None, None),
        ({"image": IMAGE}, "picture", None),
        ({"image": pa.string()}, "image", None),
    ],
)
def test_the_column_of_images(columns: dict[str, pa.DataType], asked: str | None, found: str | None) -> None:
    if found is None:
        with pytest.raises(RowError, match="column"):
            image_column(pa.schema(columns.items()), asked)
    else:
        assert image_column(pa.schema(columns.items()), asked) == found


def test_the_column_that_datasets_calls_an_image_comes_first(tmp_path: Path) -> None:
    import datasets
    from PIL import Image

    features = datasets.Features({"raw": {"bytes": datasets.Value("binary")}, "photo": datasets.Image()})
    rows = {"raw": [{"bytes": b"x"}] * 3, "photo": [Image.new("RGB", (8, 8))] * 3}
    result = datasets.Dataset.from_dict(rows, features=features)
    result.to_parquet(tmp_path / "a.parquet")
    result.save_to_disk(str(tmp_path / "disk"))
    planned, left_out = listed(LocalStore(tmp_path))
    assert [inner.column for row in planned if (inner := inner_of(row.uri))] == ["photo"] * 6
    assert left_out[".json"] == 2
    assert all(
        isinstance(data, bytes) and data[1:4] == b"PNG" for data in read_images([r.uri for r in planned])
    )


def test_a_folder_of_pictures_stays_what_it_was(tmp_path: Path) -> None:
    """A name alone makes no container, and without one every object is a row, but for what is known to be none."""
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (tmp_path / "notes.txt").write_bytes(b"text")
    (tmp_path / "liar.parquet").write_bytes(b"no Parquet, whatever it is called")
    rows, left_out = listed(LocalStore(tmp_path))
    assert (len(rows), left_out) == (2, Counter({".txt": 1}))
    assert not any(inner_of(row.uri) for row in rows)
    rows, left_out = listed(LocalStore(tmp_path), format="objects")
    assert (len(rows), left_out) == (3, Counter())


def test_a_folder_of_a_phone(tmp_path: Path) -> None:
    """Its companions are left out and counted; what may be a picture, whatever it is called, is a row."""
    others = (
        ".DS_Store",
        "DCIM/Thumbs.db",
        "IMG_1.MOV",
        "notes.txt",
        "._IMG_1.JPG",
        "__MACOSX/IMG_1.jpg",
        "a.aae",
    )
    images = (
        "IMG_1.JPG",
        "IMG_2",
        "IMG_3.heic",
        "photo.jpg.bak",
        "x.dng",
        "photos.zip",
        ".hidden",
        "movie.jpg",
        "mov",
    )
    for name in (*others, *images):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(jpeg())
    rows, left_out = listed(LocalStore(tmp_path))
    assert {row.uri.rpartition("/")[2] for row in rows} == set(images)
    assert left_out.total() == len(others)
    assert left_out[".DS_Store"] == left_out[".mov"] == 1


def test_a_table_without_pictures_beside_tars_is_left_out(tmp_path: Path) -> None:
    """As many WebDataset shards have one; where it is all that there is, it is a row that says what columns it has."""
    pq.write_table(pa.table({"key": ["0"], "caption": ["a"]}), tmp_path / "s.parquet")
    (row,), left_out = listed(LocalStore(tmp_path))
    assert left_out == Counter()
    assert "no column looks like images; there are key, caption" in str(read_images([row.uri])[0])
    put_tar(tmp_path / "s.tar", [jpeg()])
    rows, left_out = listed(LocalStore(tmp_path))
    assert [inner_of(row.uri).kind for row in rows] == ["tar"]  # type: ignore[union-attr]
    assert left_out[".parquet"] == 1


@pytest.mark.parametrize("name", ["image", "caption"])
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_two_columns_of_one_name(tmp_path: Path, name: str, kind: str) -> None:
    """Of the pictures' column: a row that says so. Of another: nobody's concern."""
    columns = [pa.array([jpeg()]), pa.array(["x"]), pa.array([b"y"] if name == "image" else ["y"])]
    doubled = pa.Table.from_arrays(columns, names=["image", "caption", name])
    if kind == "parquet":
        pq.write_table(doubled, tmp_path / "a.parquet")
    else:
        with pa.ipc.new_file(str(tmp_path / "a.arrow"), doubled.schema) as writer:
            writer.write_table(doubled)
    (row,), _ = listed(LocalStore(tmp_path))
    (found,) = read_images([row.uri])
    if name == "caption":
        assert found == jpeg()
    else:
        assert "2 columns are called 'image'" in str(found)


def test_a_cell_that_unfolds_to_much_is_not_read(tmp_path: Path) -> None:
    """Ten kilobytes of Parquet, 300 MB unfolded: the limit is asked first; good neighbours stay good."""
    bomb = bytes(300_000_000)
    pq.write_table(pa.table({"image": [bomb]}), tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 50_000
    (row,), _ = listed(LocalStore(tmp_path))
    before = pa.total_allocated_bytes()
    peak = pa.default_memory_pool().max_memory()
    (found,) = read_images([row.uri], most=10_000_000)
    assert "300000" in str(found)
    assert getattr(found, "kind", None) == "too_large"
    assert pa.default_memory_pool().max_memory() == peak
    assert pa.total_allocated_bytes() == before
    pq.write_table(
        pa.table({"image": [jpeg(), bytes(30_000_000), jpeg()]}), tmp_path / "a.parquet", compression="zstd"
    )
    rows, _ = listed(LocalStore(tmp_path))
    one, two, three = read_images([row.uri for row in rows], most=10_000_000)
    assert one == three == jpeg()
    assert str(two) == "30000000 bytes; the limit is 10000000"


def test_empty_cells_say_so(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"", None, jpeg()]}), tmp_path / "a.parquet")
    rows, _ = listed(LocalStore(tmp_path))
    empty, null, good = read_images([row.uri for row in rows])
    assert (empty, str(null), good) == (b"", "the cell is null", jpeg())


def test_pictures_beside_containers_are_rows_too(tmp_path: Path) -> None:
    put_parquet(tmp_path / "a.parquet", pictures(3))  # type: ignore[arg-type]
    (tmp_path / "b.JPG").write_bytes(jpeg())
    (tmp_path / "c.json").write_bytes(b"{}")
    rows, left_out = listed(LocalStore(tmp_path))
    assert (len(rows), left_out) == (4, Counter({".json": 1}))
    rows, left_out = listed(LocalStore(tmp_path), format="parquet")
    assert (len(rows), left_out) == (3, Counter({".json": 1, ".jpg": 1}))


def test_links_and_devices_in_a_tar_are_counted(tmp_path: Path) -> None:
    put_tar(tmp_path / "a.tar", [jpeg()])
    with tarfile.open(tmp_path / "a.tar", "a") as tar:
        for name, kind in (("twin", tarfile.LNKTYPE), ("soft", tarfile.SYMTYPE), ("null", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(f"set/{name}.jpg")
            member.type, member.linkname = kind, "set/0000.jpg"
            tar.addfile(member)
    rows, left_out = listed(LocalStore(tmp_path))
    assert read_images([row.uri for row in rows]) == [jpeg()]
    assert (left_out["link"], left_out["device"]) == (2, 1)


def test_a_container_that_may_not_be_read_is_a_row(tmp_path: Path) -> None:
    put_parquet(tmp_path / "good.parquet", pictures(2))  # type: ignore[arg-type]
    (tmp_path / "gone.parquet").symlink_to(tmp_path / "nowhere")
    rows, _ = listed(LocalStore(tmp_path))
    assert len(rows) == 3
    (lost,) = [row.uri for row in rows if "gone" in row.uri]
    (found,) = read_images([lost])
    assert isinstance(found, StorageError)
    assert found.kind == "missing"


def test_units_hold_neighbours_of_a_container(tmp_path: Path) -> None:
    for n in range(3):
        put_parquet(tmp_path / "in" / f"{n}.parquet", [jpeg()] * 40)
    recipe = load(None, {"units.rows": 10})
    output = LocalStore(tmp_path / "out")
    units = cut.cut(output, 0, plan.listed(LocalStore(tmp_path / "in"), recipe), recipe, "d")
    spans = []
    for unit in units:
        inners = [inner_of(uri) for uri in plan.read_unit(output, unit)["source_uri"].to_pylist()]
        assert len({inner.container for inner in inners if inner}) == 1
        rows = sorted(inner.row for inner in inners if inner)
        assert rows == list(range(rows[0], rows[0] + 10))
        spans.append(rows[0])
    assert sorted(spans) == sorted([0, 10, 20, 30] * 3)


def test_a_container_that_is_planned_is_not_opened_again(tmp_path: Path) -> None:
    source, output = tmp_path / "in", LocalStore(tmp_path / "out")
    put_tar(source / "a.tar", [jpeg()] * 6)
    put_tar(source / "b.tar", [jpeg()] * 6)
    recipe = load(None)

    def planned(limit: int | None = None) -> tuple[int, containers.Listing]:
        result = containers.Listing(known=plan.whole_containers(output))
        rows = ledger.unseen(output, plan.listed(LocalStore(source), recipe, limit, result))
        units = cut.cut(output, len(plan.generations(output)), rows, recipe, "d", result)
        return sum(unit.rows for unit in units), result

    assert planned(limit=8)[0] == 8
    assert len(plan.whole_containers(output)) == 1, "the second was listed in part only"
    assert planned()[0] == 4
    rows, result = planned()
    assert (rows, result.whole, result.left_out) == (0, [], Counter())
    assert len(result.known) == 2
    put_tar(source / "b.tar", [jpeg(quality=50)] * 3)
    assert planned()[0] == 3, "one that was written anew has another version"


@pytest.mark.parametrize("name", PUT)
def test_a_run_over_containers(tmp_path: Path, name: str) -> None:
    files: list[bytes] = [(DEMO_PHOTOS / "astronaut.jpg").read_bytes(), *pictures(6), b"no picture"]
    key, put = PUT[name]
    put(tmp_path / "in" / key, files)
    layout = "files" if name == "parquet" else "webdataset" if name == "webdataset" else "parquet"
    recipe = faces(**{"output.layout": layout})
    clean(str(tmp_path / "in"), str(tmp_path / "out"), recipe)
    rows = rows_of(str(tmp_path / "out"))
    assert Counter(row["status"] for row in rows) == {"cleaned": 1, "unchanged": 6, "failed": 1}
    found = prove(LocalStore(tmp_path / "out"), source=LocalStore(tmp_path / "in"))
    assert (found.wrong, found.checks["nothing lost"].looked) == ([], 8)
    assert clean(str(tmp_path / "in"), str(tmp_path / "out"), recipe) == []
    if layout == "files":
        names = {p.name for p in (tmp_path / "out" / "images" / key).iterdir()}
        assert names == {f"{n:06}.{'png' if n and n % 2 == 0 else 'jpg'}" for n in range(7)}
    put(tmp_path / "in" / f"more-{Path(key).name}", pictures(2))
    assert sum(r.rows for r in clean(str(tmp_path / "in"), str(tmp_path / "out"), recipe)) == 2
    run = runs.start(str(tmp_path / "in"), str(tmp_path / "out"), recipe)
    assert [row.attempt for row in ledger.failed(run.output)] == [2]


def test_the_join_that_the_docs_give(tmp_path: Path) -> None:
    """Labels stay in the source; the page says how to find them again."""
    import duckdb

    put_parquet(tmp_path / "in" / "train.parquet", [*pictures(5)], group=2)
    clean(str(tmp_path / "in"), str(tmp_path / "out"), faces())
    page = (Path(__file__).parents[3] / "docs" / "formats.md").read_text(encoding="utf-8")
    query = page.split("```sql\n")[1].split("```")[0].replace("s.label", "s.caption")
    query = query.replace("'cleaned/", f"'{tmp_path}/out/").replace(
        "'train.parquet'", f"'{tmp_path}/in/train.parquet'"
    )
    found = {row["source_uri"]: row["caption"] for row in duckdb.sql(query).to_arrow_table().to_pylist()}
    assert found == {
        row["source_uri"]: f"no. {inner_of(row['source_uri']).row}" for row in rows_of(f"{tmp_path}/out")
    }  # type: ignore[union-attr]
    assert len(found) == 5


def test_cleaning_what_was_cleaned_changes_nothing(tmp_path: Path) -> None:
    """Parts, trees and shards are sources too; the second run finds nothing and every picture is as it was."""
    source = folder(tmp_path / "in")
    for n, data in enumerate(pictures(4)):
        (tmp_path / "in" / f"{n}.img").write_bytes(data)
    (tmp_path / "in" / "face.jpg").write_bytes((DEMO_PHOTOS / "astronaut.jpg").read_bytes())
    where = {"parquet": "parts", "files": "images", "webdataset": "shards"}
    for layout, place in where.items():
        once, twice = str(tmp_path / layout), str(tmp_path / f"{layout}-2")
        clean(source, once, faces(**{"output.layout": layout}))
        clean(f"{once}/{place}", twice, faces())
        before, after = (Counter(r["output_sha256"] for r in rows_of(url)) for url in (once, twice))
        assert before == after
        assert {row["status"] for row in rows_of(twice)} == {"unchanged"}
        assert all(row["metadata_dropped"] == [] for row in rows_of(twice))


def test_a_store_that_is_away_is_no_broken_container(tmp_path: Path, s3_faults) -> None:  # type: ignore[no-untyped-def]
    from cleanplate.pipeline.storage import s3
    from cleanplate.pipeline.storage.connect import open_store
    from rigs.faultproxy import Fault

    put_parquet(tmp_path / "a.parquet", pictures(3))  # type: ignore[arg-type]
    s3_faults.put("in/a.parquet", (tmp_path / "a.parquet").read_bytes())
    store = open_store(s3_faults.url("in"))
    rows, _ = listed(store)
    assert read_images([row.uri for row in rows]) == pictures(3)
    assert rows[0].uri == f"parquet+{s3_faults.url('in')}/a.parquet#column=image&row=0"
    patience, s3.PATIENCE_S = s3.PATIENCE_S, 0.5
    try:
        s3_faults.faults(Fault("e503", method="GET"))
        (found,) = read_images([rows[0].uri])
        assert isinstance(found, StorageError)
        assert found.kind == "unreachable"
        with pytest.raises(StorageError):
            listed(store)
    finally:
        s3.PATIENCE_S = patience
        s3_faults.faults()


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=30), st.integers(1, 9), st.booleans())
@settings(max_examples=40, deadline=None)
def test_arrow_messages_are_found_as_arrow_finds_them(sizes: list[int], batch: int, stream: bool) -> None:
    files: list[bytes | None] = [bytes([n % 251]) * size for n, size in enumerate(sizes)]
    rows, sink = table(files), io.BytesIO()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=batch)
    found = list(arrow_file.batches(io.BytesIO(sink.getvalue())))  # type: ignore[arg-type]
    got = []
    for each in found:
        cells = arrow_file.read_batch(io.BytesIO(sink.getvalue()), each.at, ["image"]).column(0)  # type: ignore[arg-type]
        assert len(cells) == each.rows
        got += [cell["bytes"] for cell in cells.to_pylist()]
    assert got == files


@given(st.binary(max_size=400))
@settings(max_examples=100, deadline=None)
def test_garbage_is_an_error_of_its_kind(data: bytes) -> None:
    for start in (b"", b"ARROW1\0\0", b"\xff\xff\xff\xff\x20\0\0\0"):
        file = io.BytesIO(start + data)
        for call in (arrow_file.schema, lambda f: list(arrow_file.batches(f))):
            with suppress(RowError):
                call(file)  # type: ignore[arg-type, operator]
