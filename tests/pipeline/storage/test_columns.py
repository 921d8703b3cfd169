"""Columns of a source that go through a run: equal to the last bit, in every layout, also after a resume."""

from __future__ import annotations

import datetime
import json
import tarfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cleanplate.jobs.__main__ import main
from cleanplate.pipeline.engine import run
from cleanplate.pipeline.ledger import ledger
from cleanplate.pipeline.ledger.proof import prove
from cleanplate.pipeline.storage.connect import LocalStore
from rigs.run_here import clean, picture

ROWS = 7


def table() -> pa.Table:
    """One column of each kind that data sets have; the fourth picture is broken."""
    pictures = [b"no picture" if n == 3 else picture(n) for n in range(ROWS)]
    when = datetime.datetime(2026, 12, 1, 11, 0, 0, 123456)
    return pa.table(
        {
            "image": pa.array([{"bytes": p, "path": f"{n}.png"} for n, p in enumerate(pictures)]),
            "caption": pa.array(["ünï\0code", "", None, "日本", "a\nb", "😀", "x" * 5000]),
            "label": pa.array([1, None, -(2**62), 3, 4, 5, 6], pa.int64()),
            "score": pa.array([0.1, float("nan"), None, -0.0, 1e-45, 3.0, float("inf")], pa.float32()),
            "boxes": pa.array(
                [[[1.5, 2.0]], [], None, [[1.0]], [[]], [[2.0]], [[3.0]]], pa.list_(pa.list_(pa.float64()))
            ),
            "meta": pa.array([{"a": n, "b": [str(n)]} for n in range(ROWS)]),
            "when": pa.array([when] * ROWS, pa.timestamp("us")),
            "kind": pa.array(["cat", "dog", "cat", None, "dog", "cat", "cat"]).dictionary_encode(),
            "long": pa.array([str(n) for n in range(ROWS)], pa.large_string()),
        }
    )


def put(place: Path, form: str, whole: pa.Table) -> None:
    (place / "in").mkdir(exist_ok=True)
    if form == "parquet":
        pq.write_table(whole, place / "in" / "a.parquet", row_group_size=3)
    elif form == "arrow":
        with pa.ipc.new_stream(str(place / "in" / "a.arrow"), whole.schema) as writer:
            for batch in whole.to_batches(max_chunksize=3):
                writer.write_batch(batch)


def carried(output: LocalStore) -> pa.Table:
    """The carried columns in the source's order."""
    found = pa.concat_tables(ledger.rows(output))
    key = [uri.partition("#")[2] for uri in found["source_uri"].to_pylist()]
    at = [int(k.partition("at=")[2].partition("&")[0] or 0) * 1000 + int(k.partition("row=")[2]) for k in key]
    return found.take(np.argsort(at)).select(
        ["caption", "label", "score", "boxes", "meta", "when", "kind", "long"]
    )


def same(found: pa.Table, right: pa.Table) -> bool:
    """To the last bit: NaN and -0.0 as well."""
    right = right.select(found.schema.names)
    right = right.set_column(found.schema.names.index("kind"), "kind", right["kind"].cast(pa.string()))
    bits = (
        pa.array(np.asarray(found["score"].fill_null(9)).view(np.uint32)),
        pa.array(np.asarray(right["score"].fill_null(9)).view(np.uint32)),
    )
    rest = [n for n in found.schema.names if n != "score"]
    types = all(a.type == b.type for a, b in zip(found.schema, right.schema, strict=True))
    return (
        types
        and bits[0].equals(bits[1])
        and found.select(rest).combine_chunks().equals(right.select(rest).combine_chunks())
    )


@pytest.mark.parametrize("layout", ["parquet", "files", "webdataset"])
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_columns_go_through(tmp_path: Path, form: str, layout: str) -> None:
    put(tmp_path, form, table())
    output = clean(tmp_path, "--output-layout", layout)
    assert same(carried(output), table())
    assert ledger.tally(output).statuses["failed"] == 1
    assert prove(output, source=LocalStore(tmp_path / "in")).wrong == []
    assert main(["compact", output.url]) == 0
    assert same(carried(output), table())
    if layout == "webdataset":
        beside = next(filter(None, map(a_json, sorted((tmp_path / "out" / "shards").iterdir()))))
        assert beside["caption"] in table()["caption"].to_pylist()


def a_json(shard: Path) -> Any:
    """What stands beside a picture of a shard; None where it has none."""
    with tarfile.open(shard) as tar:
        names = [name for name in tar.getnames() if name.endswith(".json")]
        return json.load(tar.extractfile(names[0])) if names else None  # type: ignore[arg-type]


def test_a_resumed_run_carries_the_same(tmp_path: Path) -> None:
    put(tmp_path, "parquet", table())
    output = clean(tmp_path)
    for part in list((tmp_path / "out" / "parts").iterdir())[::2]:
        part.unlink()
    assert same(carried(clean(tmp_path)), table())
    record = ledger.read_record(output)
    pq.write_table(
        table().drop_columns("caption").slice(0, 2), tmp_path / "in" / "0.parquet"
    )  # Now the first table.
    assert ledger.read_record(clean(tmp_path))["columns"] == record["columns"]
    assert pa.concat_tables(ledger.rows(output))["caption"].null_count == 1 + 2


def test_hugging_face_reads_them(tmp_path: Path) -> None:
    put(tmp_path, "parquet", table().drop_columns(["kind", "long"]))
    clean(tmp_path)
    found = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(map(str, found["caption"])) == sorted(map(str, table()["caption"].to_pylist()))


def test_columns_are_chosen(tmp_path: Path) -> None:
    put(tmp_path, "parquet", table())
    output = clean(tmp_path, "--columns", "label,caption")
    assert pa.concat_tables(ledger.rows(output)).schema.names[-2:] == ["label", "caption"]
    (tmp_path / "2").mkdir()
    put(tmp_path / "2", "parquet", table())
    names = pa.concat_tables(ledger.rows(clean(tmp_path / "2", "--columns", "none"))).schema.names
    assert names[-1] == "error"


@pytest.mark.parametrize(
    ("more", "flags", "message"),
    [
        ({"status": ["x"], "ok": ["x"]}, [], "columns: status would stand beside columns of the same name"),
        ({"ok": ["x"]}, ["--columns", "ok,nope"], "no column nope in"),
        ({}, ["--columns", "image"], "no column image in"),
    ],
)
def test_a_clash_is_an_error_before_work(
    tmp_path: Path, more: dict[str, Any], flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "parquet", pa.table({"image": [picture(0)], **more}))
    clean(tmp_path, *flags, code=2)
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_other_pictures_are_held_back_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody cleans them."""
    two = pa.table({"image": [picture(0)], "depth": [picture(1)], "views": [[picture(2)]], "caption": ["x"]})
    put(tmp_path, "parquet", two)
    assert (
        main(["plan", str(tmp_path / "in"), str(tmp_path / "out"), "--remove", "face", "--inpainter", "fill"])
        == 0
    )
    text = " ".join(capsys.readouterr().out.split())
    assert "columns that go into the rows: caption" in text
    assert "may hold pictures, left out: depth, views" in text
    assert pa.concat_tables(ledger.rows(clean(tmp_path, code=0))).schema.names[-1] == "caption"


def test_a_column_of_another_type_in_a_later_file(tmp_path: Path) -> None:
    """What fits without loss is taken, a table without the column gives nulls, what does not fit fails its row."""
    (tmp_path / "in").mkdir()
    kinds = {"a": pa.int64(), "b": pa.int32(), "d": pa.float64(), "e": pa.string()}
    values: dict[str, Any] = {"a": 1, "b": 2, "d": 0.5, "e": "x"}
    for name, kind in kinds.items():
        rows = {"image": [picture(ord(name))], "n": pa.array([values[name]], kind)}
        pq.write_table(pa.table(rows), tmp_path / "in" / f"{name}.parquet")
    pq.write_table(pa.table({"image": [picture(0)]}), tmp_path / "in" / "c.parquet")
    found = {
        row["source_uri"].partition(".parquet")[0][-1]: row
        for t in ledger.rows(clean(tmp_path))
        for row in t.to_pylist()
    }
    assert {name: row["n"] for name, row in found.items()} == {
        "a": 1,
        "b": 2,
        "c": None,
        "d": None,
        "e": None,
    }
    assert {name for name, row in found.items() if row["error"]} == {"d", "e"}
    assert "column 'n' is string here, int64 in the run" in found["e"]["error"]["message"]


def test_what_we_wrote_is_carried_on_without_our_own_columns(tmp_path: Path) -> None:
    put(tmp_path, "parquet", table().slice(0, 2))
    first = clean(tmp_path, code=0)
    started = run.start(
        f"{first.url}/parts", str(tmp_path / "again"), run.open_finished(first.url) and _none()
    )
    run.execute(started, run.plan_new(started), "here", lambda receipt: None)
    again = pa.concat_tables(ledger.rows(started.output))
    assert sorted(map(str, again["caption"].to_pylist())) == ["", "ünï\0code"]


def _none() -> Any:
    from cleanplate.pipeline.recipe.recipe import load

    return load(None, {"remove": ["face"], "inpaint.name": "fill", "verify.scope": "none"})
