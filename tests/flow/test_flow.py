"""The whole flow: real photographs, real detectors, a real S3 server, a real Ray."""

from __future__ import annotations

import io
import json
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco

from cleanplate.pipeline import schema
from cleanplate.pipeline.engine import run as runs
from cleanplate.pipeline.errors import ConfigError, RunStopped, StorageError
from cleanplate.pipeline.ledger import ledger
from cleanplate.pipeline.ledger.receipt import Receipt
from cleanplate.pipeline.storage.connect import LocalStore, open_store
from rigs.bad_images import animated
from rigs.flow_rig import check_complete, clean, comparable, faces, folder, put_photos, rows_of


def test_faces_are_found_masked_filled_and_gone(tmp_path: Path) -> None:
    source = folder(tmp_path / "in")
    photo = (Path("jobs/demo_photos") / "astronaut.jpg").read_bytes()
    (tmp_path / "in" / "astronaut.jpg").write_bytes(photo)
    clean(source, str(tmp_path / "out"), faces())
    (row,) = check_complete(source, str(tmp_path / "out"), {"astronaut.jpg": photo})
    assert row["status"] == "cleaned"
    assert row["inpainter"] == "telea"
    assert row["passes"] >= 1
    assert row["residual"] == []
    assert [w["name"] for w in row["weights"]] == ["blazeface", "centerface", "nanodet"], (
        "what verified stands there too"
    )
    (region, *_) = row["regions"]
    assert region["kind"] == "face"
    mask = coco.decode({"size": [row["height"], row["width"]], "counts": region["rle"]})
    assert mask.sum() == region["area_px"] > 0
    x0, y0, x1, y1 = region["box"]
    assert 0 <= x0 < 226 < x1 <= 512, "the astronaut's face is at 226, 132"
    assert 0 <= y0 < 132 < y1 <= 512


def test_both_engines_commit_the_same_rows(tmp_path: Path, ray_local: None) -> None:
    source = folder(tmp_path / "in")
    files = put_photos(source, 24)
    files["broken.jpg"] = b"this is no picture"
    (tmp_path / "in" / "broken.jpg").write_bytes(files["broken.jpg"])
    apart = {"inpaint": {"cpus": 0.5, "workers": 1}, "verify": {"workers": 1}}
    kinds: dict[str, tuple[runs.Engine, dict[str, object]]] = {
        "here": ("here", {}),
        "ray": ("ray", {}),
        "pools": ("ray", {"engine.stages": apart}),
    }
    for name, (engine, settings) in kinds.items():
        receipts = clean(source, str(tmp_path / name), faces(**settings), engine)
        assert sum(receipt.rows for receipt in receipts) == 25
        assert all(receipt.new for receipt in receipts)
        check_complete(source, str(tmp_path / name), files)
    here, ray, pools = (comparable(rows_of(str(tmp_path / name))) for name in kinds)
    assert here == ray
    assert here == pools, "stages in pools of their own make the same rows"


def test_a_second_start_does_nothing_and_new_images_are_added(tmp_path: Path) -> None:
    source, output = folder(tmp_path / "in"), str(tmp_path / "out")
    files = put_photos(source, 10)
    clean(source, output, faces())
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "parts").iterdir()}
    assert clean(source, output, faces()) == []
    files |= {f"later/{key}": data for key, data in put_photos(f"{source}/later", 3, seed=9).items()}
    (receipt,) = clean(source, output, faces())
    assert receipt.rows == 3
    check_complete(source, output, files)
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "parts").iterdir()}
    assert {name: after[name] for name in before} == before, "finished parts are not written again"


def test_limit_then_the_rest(tmp_path: Path) -> None:
    source, output = folder(tmp_path / "in"), str(tmp_path / "out")
    files = put_photos(source, 9)
    assert sum(r.rows for r in clean(source, output, faces(), limit=4)) == 4
    assert sum(r.rows for r in clean(source, output, faces())) == 5
    check_complete(source, output, files)


def test_another_recipe_or_source_on_the_same_output_is_refused(tmp_path: Path) -> None:
    source, output = folder(tmp_path / "in"), str(tmp_path / "out")
    put_photos(source, 2)
    clean(source, output, faces())
    with pytest.raises(ConfigError, match="--new-run"):
        runs.start(source, output, faces(**{"inpaint.name": "ns"}))
    with pytest.raises(ConfigError, match="another source"):
        runs.start(folder(tmp_path / "other"), output, faces())
    apart = runs.start(source, output, faces(**{"inpaint.name": "ns"}), new_run=True)
    assert apart.output.url.startswith(f"{output}/run-")
    runs.start(source, output, faces(**{"engine.workers": 1}))  # another cluster is no other recipe


def test_failed_rows_are_tried_again_when_asked(tmp_path: Path) -> None:
    source, output = folder(tmp_path / "in"), str(tmp_path / "out")
    files = put_photos(source, 6)
    victim = tmp_path / "in" / "lost.png"
    target = tmp_path / "elsewhere.png"
    victim.symlink_to(target)
    clean(source, output, faces())
    (lost,) = [row for row in rows_of(output) if row["source_uri"].endswith("lost.png")]
    assert (lost["status"], lost["error"]["kind"], lost["attempt"]) == ("failed", "missing", 1)
    assert clean(source, output, faces()) == [], "a failed row is committed: not tried again unasked"
    files["lost.png"] = next(iter(put_photos(str(tmp_path / "x"), 1).values()))
    target.write_bytes(files["lost.png"])
    run = runs.start(source, output, faces())
    units = runs.planned(run.output)
    runs._extend(run, ledger.failed(run.output))  # without listing again: the file has a new version now
    again = [u for u in runs.planned(run.output) if u not in units]
    receipts: list[Receipt] = []
    runs.execute(run, runs.planned(run.output), "here", receipts.append)
    assert sum(u.rows for u in again) == sum(r.rows for r in receipts) == 1
    rows = rows_of(output)
    assert len(rows) == 7
    (found,) = [row for row in rows if row["source_uri"].endswith("lost.png")]
    assert found["attempt"] == 2
    assert found["status"] in ("unchanged", "cleaned")


def test_a_source_that_stays_away_leaves_the_unit_uncommitted(tmp_path: Path, s3_faults) -> None:  # type: ignore[no-untyped-def]
    from cleanplate.pipeline.engine.job import Job, run_here
    from cleanplate.pipeline.ledger import plan
    from cleanplate.pipeline.stages.read import Read
    from cleanplate.pipeline.storage import s3 as s3_store

    source = s3_faults.url("in")
    put_photos(source, 2)
    run = runs.start(source, str(tmp_path / "out"), faces())
    units = runs.plan_new(run)
    from rigs.faultproxy import Fault

    patience = s3_store.PATIENCE_S
    s3_store.PATIENCE_S = 1.0
    try:
        s3_faults.faults(Fault("e503", method="GET"))
        job = Job(tuple(units), run.output, run.recipe, run.stamp)
        assert list(run_here(job)) == []
        assert ledger.done(run.output) == set()
        table = Read(run.recipe.limits, last=True).open()(plan.read_unit(run.output, units[0]))
        assert {e["kind"] for e in table["error"].to_pylist()} == {"unreachable"}
        s3_faults.faults()
    finally:
        s3_store.PATIENCE_S = patience
    assert sum(r.rows for r in run_here(job)) == 2


def test_three_hundred_photographs_through_s3_and_ray(s3, ray_local: None) -> None:  # type: ignore[no-untyped-def]
    source, output = s3.url("raw"), s3.url("clean")
    files = put_photos(source, 300)
    receipts = clean(source, output, faces(**{"units.rows": None}), "ray")
    assert sum(r.rows for r in receipts) == 300
    rows = check_complete(source, output, files)
    assert {row["source_format"] for row in rows} >= {"jpeg", "png", "webp", "bmp", "tiff"}
    assert not any(row["status"] == "failed" for row in rows)
    assert any(row["status"] == "cleaned" for row in rows)
    assert any(row["status"] == "unchanged" for row in rows)
    assert [item.key for item in open_store(output).list("parts")], "parts lie in the bucket"


def test_parts_open_in_everything_people_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = folder(tmp_path / "in"), tmp_path / "out"
    put_photos(source, 10)
    (tmp_path / "in" / "moving.gif").write_bytes(animated("GIF"))
    clean(source, str(output), faces())
    assert pq.read_table(output / "parts").schema.equals(schema.part_schema())
    assert len(pd.read_parquet(output / "parts")) == 11
    counted = duckdb.sql(
        f"select status, count(*) from '{output}/parts/*.parquet' group by status order by 1"
    )
    assert dict(counted.fetchall()).get("failed") == 1
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    shown = datasets.load_dataset("parquet", data_files=f"{output}/parts/*.parquet", split="train")
    pictures = [row["image"] for row in shown if row["image"] is not None]
    assert len(pictures) == 10
    assert all(np.asarray(picture).ndim >= 2 for picture in pictures)


def test_the_run_says_what_it_is(tmp_path: Path) -> None:
    source, output = folder(tmp_path / "in"), tmp_path / "out"
    put_photos(source, 2)
    clean(source, str(output), faces())
    record = json.loads((output / "run.json").read_text())
    assert record["weights"].keys() == {"blazeface", "centerface", "nanodet"}
    assert record["recipe"]["remove"] == ["face"]
    assert {row["recipe_digest"] for row in rows_of(str(output))} == {record["recipe_digest"]}
    assert {row["code_version"] for row in rows_of(str(output))} == {record["code_version"]}
    assert "remove:" in (output / "recipe.yaml").read_text()


def test_an_output_that_cannot_be_written_is_said_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"in the way")
    put_photos(folder(tmp_path / "in"), 1)
    with pytest.raises((StorageError, ConfigError)):
        runs.start(str(tmp_path / "in"), str(tmp_path / "file" / "out"), faces())


def test_missing_units_are_a_stopped_run_not_a_complete_one(tmp_path: Path) -> None:
    source, output = folder(tmp_path / "in"), str(tmp_path / "out")
    put_photos(source, 8)
    run = runs.start(source, output, faces())
    units = runs.plan_new(run)
    (tmp_path / "out" / units[0].file).unlink()
    with pytest.raises((RunStopped, StorageError)):
        runs.execute(run, units, "here", lambda receipt: None)


def test_a_part_is_never_overwritten(tmp_path: Path) -> None:
    source, output = folder(tmp_path / "in"), str(tmp_path / "out")
    put_photos(source, 3)
    clean(source, output, faces())
    store = LocalStore(tmp_path / "out")
    (name,) = ledger.part_keys(store)
    table = ledger.read_part(store, name)
    before = store.get(f"parts/{name}")
    assert ledger.commit(store, name.removesuffix(".parquet"), table.slice(0, 1)) is False
    assert store.get(f"parts/{name}") == before
    assert io.BytesIO(before).read(4) == b"PAR1"
