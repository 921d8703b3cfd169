"""An image that kills its worker's process costs its own row and four processes, not the run."""

from __future__ import annotations

from pathlib import Path

from faults.stages import poisoned
from flow_rig import check_complete, comparable, faces, folder, put_photos, rows_of

from pipeline import graph
from pipeline import run as runs


def test_an_image_that_kills_its_process_fails_alone(tmp_path: Path, ray_local: None) -> None:
    source = folder(tmp_path / "in")
    files = put_photos(source, 16)
    files["poison.jpg"] = next(iter(files.values()))
    (tmp_path / "in" / "poison.jpg").write_bytes(files["poison.jpg"])
    for name, stages in (("clean", graph.stages_of), ("poison", poisoned)):
        run = runs.start(source, str(tmp_path / name), faces(**{"engine.batch": 4}))
        runs.execute(run, runs.plan_new(run), "ray", lambda receipt: None, stages)
        check_complete(source, str(tmp_path / name), files)
    clean, hurt = (comparable(rows_of(str(tmp_path / name))) for name in ("clean", "poison"))
    different = [row for row, other in zip(hurt, clean, strict=True) if row != other]
    assert [(row["source_uri"][-10:], row["status"]) for row in different] == [("poison.jpg", "failed")]
    assert different[0]["error"]["kind"] == "crashed"
