"""An image that kills its worker's process costs its own row, not the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
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


@pytest.mark.slow
def test_the_pool_gives_a_poisoned_unit_up_and_finishes_the_others(tmp_path: Path, ray_local: None) -> None:
    source, output = folder(tmp_path / "in"), str(tmp_path / "out")
    files = put_photos(source, 7)
    (tmp_path / "in" / "poison.jpg").write_bytes(next(iter(files.values())))
    run = runs.start(source, output, faces(**{"units.rows": 2}))
    units = runs.plan_new(run)
    job = graph.Job(tuple(units), run.output, run.recipe, run.stamp, stages=poisoned)
    assert sum(receipt.rows for receipt in graph.run_on_ray(job)) == 6
    (left,) = runs.missing(run.output, units)
    assert sum(receipt.rows for receipt in graph.isolate(replace(job, units=(left,)))) == 2
