"""Several columns of pictures in one table: each cell is an input of its own, or it is said that it is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cleanplate.jobs.__main__ import main
from cleanplate.pipeline.errors import RowError
from cleanplate.pipeline.ledger import ledger, plan
from cleanplate.pipeline.ledger.proof import prove
from cleanplate.pipeline.recipe.recipe import load
from cleanplate.pipeline.storage.address import identity_of, inner_of, key_of
from cleanplate.pipeline.storage.connect import LocalStore
from cleanplate.pipeline.storage.containers import read_images
from cleanplate.pipeline.storage.image_columns import image_columns, packed, unpacked
from rigs.run_here import clean, picture


def table(*, start: int = 0, rows: int = 5, depth: bool = True) -> pa.Table:
    def cells(offset: int) -> list[dict[str, Any] | None]:
        return [{"bytes": picture(offset + start + n), "path": f"{n}.png"} for n in range(rows)]

    columns: dict[str, Any] = {"image": cells(0), "caption": [f"ünï {start + n}" for n in range(rows)]}
    if depth:
        columns["depth"] = [None if start + n == 3 else cell for n, cell in enumerate(cells(100))]
    columns["raw"] = [b"bytes"] * rows
    return pa.table(columns)


def put(place: Path, form: str, whole: pa.Table, name: str = "a") -> None:
    (place / "in").mkdir(exist_ok=True)
    if form == "parquet":
        pq.write_table(whole, place / "in" / f"{name}.parquet", row_group_size=2)
        return
    with pa.ipc.new_stream(str(place / "in" / f"{name}.arrow"), whole.schema) as writer:
        for batch in whole.to_batches(max_chunksize=2):
            writer.write_batch(batch)


def rows_of(output: LocalStore) -> list[dict[str, Any]]:
    return [row for found in ledger.rows(output) for row in found.to_pylist()]


@pytest.mark.parametrize("form", ["parquet", "arrow"])
@pytest.mark.parametrize("asked", ["image,depth", "all"])
def test_each_picture_of_a_row_is_a_row(tmp_path: Path, form: str, asked: str) -> None:
    put(tmp_path, form, table())
    flags = ("--image-column", asked, "--output-layout", "files")
    output = clean(tmp_path, *flags)
    rows = rows_of(output)
    assert len(rows) == len({row["image_id"] for row in rows}) == 10
    for row in rows:
        inner = inner_of(row["source_uri"])
        assert inner is not None
        number = inner.row + (
            0 if form == "parquet" else 2 * sorted({i.at for i in map(_inner, rows)}).index(inner.at)
        )
        assert row["caption"] == f"ünï {number}", "what stands beside goes with each of them"
        assert not {"raw", "depth"} & set(row)
        if (inner.column, number) == ("depth", 3):
            assert row["error"]["kind"] == "empty"
            continue
        found = (tmp_path / "out" / row["image"]["path"]).read_bytes()
        assert found.startswith(b"\x89PNG")
        assert row["image"]["path"].endswith(f"-{inner.column}.png")
    assert prove(output, source=LocalStore(tmp_path / "in")).wrong == []
    before = {row["image_id"]: row["image"] for row in rows}
    for part in sorted((tmp_path / "out" / "parts").iterdir())[::2]:
        part.unlink()
    assert {row["image_id"]: row["image"] for row in rows_of(clean(tmp_path, *flags))} == before


def _inner(row: dict[str, Any]) -> Any:
    return inner_of(row["source_uri"])


def test_a_picture_is_the_same_whatever_is_cleaned_beside_it(tmp_path: Path) -> None:
    put(tmp_path, "parquet", table())
    store = LocalStore(tmp_path / "in")

    def listed(asked: Any) -> dict[str, str]:
        rows = plan.listed(store, load(None, {"remove": ["face"], "source.image_column": asked}))
        return {row.image_id: row.uri for row in rows}

    one, other, both = listed("image"), listed("depth"), listed(["image", "depth"])
    assert set(both) == set(one) | set(other)
    for name, uri in (one | other).items():
        assert identity_of(both[name]) == uri == identity_of(uri)
        first, second = read_images([uri, both[name]])
        assert str(first) == str(second)
    names = {key_of(uri, store.uri("")) for uri in both.values()}
    assert len(names) == 10
    assert "a.parquet/000004-depth" in names
    assert "a.parquet/000004" in {key_of(uri, store.uri("")) for uri in one.values()}


def test_what_is_not_cleaned_is_said_by_plan_and_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "parquet", table())
    words = ["plan", str(tmp_path / "in"), str(tmp_path / "out"), "--remove", "face", "--inpainter", "fill"]
    assert main(words) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "pictures in: image " in text
    assert "may hold pictures, left out: depth, raw" in text
    assert main([*words, "--image-column", "depth,image"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "10 images" in text
    assert "pictures in: depth, image " in text
    assert "may hold pictures, left out: raw" in text
    clean(tmp_path, code=0)
    assert "may hold pictures, left out of the output: depth, raw" in " ".join(
        capsys.readouterr().err.split()
    )
    (tmp_path / "2").mkdir()
    put(tmp_path / "2", "parquet", table(rows=2))
    clean(tmp_path / "2", "--json", code=0)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert {"event": "held_back", "columns": ["depth", "raw"]} in events


def test_a_later_table_without_one_of_the_columns_gives_the_others_and_says_so(tmp_path: Path) -> None:
    put(tmp_path, "parquet", table(rows=2))
    put(tmp_path, "parquet", table(start=10, rows=2, depth=False), "b")
    output = clean(tmp_path, "--image-column", "image,depth")
    rows = rows_of(output)
    assert len(rows) == 4 + 2 + 1
    (failed,) = [row for row in rows if row["error"]]
    assert "b.parquet" in failed["source_uri"]
    assert failed["error"]["message"].startswith("no column 'depth' of bytes; there are image, caption, raw")


def test_columns_that_are_not_there_at_all(tmp_path: Path) -> None:
    put(tmp_path, "parquet", table(rows=2))
    (row,) = rows_of(clean(tmp_path, "--image-column", "mask,seg", "--columns", "none"))
    assert "no column 'seg' of bytes" in row["error"]["message"]


def test_which_columns_are_all() -> None:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema({"a": image, "n": pa.int64(), "b": image, "raw": pa.binary()})
    assert image_columns(schema, "all")[0] == ["a", "b"]
    assert image_columns(schema, None)[0] == ["a"]
    assert image_columns(pa.schema({"jpg": pa.binary(), "n": pa.int64()}), "all")[0] == ["jpg"]
    assert image_columns(pa.schema({"all": image, "b": image}), "all")[0] == ["all"], "a column of that name"
    found, wrong = image_columns(schema, ("b", "n"))
    assert found == ["b"]
    assert isinstance(wrong, RowError)
    assert [unpacked(packed(asked)) for asked in (None, "a", ("a", "b"), "all")] == [
        None,
        "a",
        ("a", "b"),
        "all",
    ]
