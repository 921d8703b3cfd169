"""An image that kills its worker's process costs its own row, not the run."""

from __future__ import annotations

from pathlib import Path

from flow_rig import check_complete, faces, folder, put_photos
from poison_stage import poisoned

from pipeline import graph
from pipeline import run as runs


def test_halving_isolates_the_image_that_kills_its_process(tmp_path: Path, ray_local: None) -> None:
    source, output = folder(tmp_path / "in"), str(tmp_path / "out")
    files = put_photos(source, 3)
    (tmp_path / "in" / "poison.jpg").write_bytes(next(iter(files.values())))
    files["poison.jpg"] = (tmp_path / "in" / "poison.jpg").read_bytes()
    run = runs.start(source, output, faces())
    units = runs.plan_new(run)
    job = graph.Job(tuple(units), run.output, run.recipe, run.stamp, last=True, stages=poisoned)
    assert sum(receipt.rows for receipt in graph.isolate(job)) == 4
    rows = check_complete(source, output, files)
    failed = {
        row["source_uri"].rpartition("/")[2]: row["error"]["kind"]
        for row in rows
        if row["status"] == "failed"
    }
    assert failed == {"poison.jpg": "crashed"}
