"""Marks that people gave in the report become a further generation of the plan: once, whatever is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from test_resume import FLAGS, ROOT, parts, wait_for_parts

from cleanplate.jobs.cli.app import main
from cleanplate.pipeline import schema
from cleanplate.pipeline.engine import run as runs
from cleanplate.pipeline.engine.job import Job, run_here, stages_of
from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.ledger import ledger, plan, proof, review, statistics
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.stages.stage import Needs, Stage, Work
from cleanplate.pipeline.storage.connect import open_store
from cleanplate.pipeline.ui import report
from rigs.flow_rig import check_complete, clean, faces, folder, put_photos, rows_of
from rigs.scenes import DEMO_PHOTOS

FACE, NO_FACE = "astronaut.jpg", "coffee.jpg"


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """in/ and out/: a face, a picture without one, a broken file."""
    base = tmp_path_factory.mktemp("review")
    source = folder(base / "in")
    for name in (FACE, NO_FACE):
        shutil.copy(DEMO_PHOTOS / name, base / "in" / name)
    (base / "in" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    clean(source, str(base / "out"), faces())
    return base


@pytest.fixture
def run(cleaned: Path, tmp_path: Path) -> Path:
    """A copy of the output, to be reviewed."""
    shutil.copytree(cleaned / "out", tmp_path / "out")
    return tmp_path


def row_of(output: str | Path, name: str) -> dict[str, Any]:
    (row,) = [row for row in rows_of(str(output)) if row["source_uri"].endswith(name)]
    return row


def marked(output: str | Path, **marks: str) -> review.Marks:
    """Marks on the newest attempts; names without their suffix."""
    rows = {name: row_of(output, f"{name}.jpg") for name in marks}
    listed = [
        {"image_id": rows[name]["image_id"], "attempt": rows[name]["attempt"], "mark": mark}
        for name, mark in marks.items()
    ]
    return review.Marks.model_validate({"marks": listed})


def test_redo_and_wrong_and_keep(cleaned: Path, run: Path) -> None:
    source, output = str(cleaned / "in"), str(run / "out")
    first = row_of(output, FACE)
    assert first["status"] == "cleaned"
    marks = marked(output, astronaut="redo", coffee="keep")
    assert sum(r.rows for r in clean(source, output, faces(), marks=marks)) == 1
    again = row_of(output, FACE)
    assert (again["attempt"], again["status"]) == (2, "cleaned")
    assert again["mask_coverage"] > 1.1 * first["mask_coverage"]
    assert again["note"] == "a review asked to redo attempt 1: masks 25% wider"
    assert row_of(output, NO_FACE)["attempt"] == 1

    assert clean(source, output, faces(), marks=marks) == [], "the same marks once more"
    assert len(plan.generations(open_store(output))) == 2

    clean(source, output, faces(), marks=marked(output, astronaut="redo"))
    third = row_of(output, FACE)
    assert third["mask_coverage"] > again["mask_coverage"], "a redo of a redo is wider still"

    clean(source, output, faces(), marks=marked(output, astronaut="wrong"))
    restored = row_of(output, FACE)
    assert (restored["attempt"], restored["status"], restored["passes"]) == (4, "unchanged", 0)
    assert restored["regions"] == restored["detectors"] == []
    assert "false find" in restored["note"]
    assert restored["output_sha256"] == restored["source_sha256"] or restored["metadata_dropped"]
    files = {path.name: path.read_bytes() for path in (cleaned / "in").iterdir()}
    check_complete(source, output, files)
    assert proof.prove(open_store(output), source=open_store(source)).wrong == []


def test_here_and_on_ray_the_same(cleaned: Path, run: Path, ray_local: None) -> None:
    source = str(cleaned / "in")
    shutil.copytree(run / "out", run / "ray")
    marks = marked(run / "out", astronaut="redo", coffee="redo")
    clean(source, str(run / "out"), faces(), marks=marks)
    clean(source, str(run / "ray"), faces(), "ray", marks=marks)
    different = {"run_id", "timings_ms"}
    for name in (FACE, NO_FACE):
        here, there = row_of(run / "out", name), row_of(run / "ray", name)
        assert here["attempt"] == 2
        assert {k: v for k, v in here.items() if k not in different} == {
            k: v for k, v in there.items() if k not in different
        }


@dataclass(frozen=True)
class Blind:
    """A detect stage that finds nothing."""

    name: str = "detect"
    needs: Needs = Needs()
    adds: pa.Schema = schema.columns("found", "detectors", "forbidden")

    def open(self) -> Work:
        return lambda table: schema.with_columns(
            table,
            self.adds,
            {
                "found": [[]] * table.num_rows,
                "detectors": [["blind"]] * table.num_rows,
                "forbidden": [None] * table.num_rows,
            },
        )


def with_a_blind_detector(recipe: Recipe, last: bool) -> tuple[Stage, ...]:
    return tuple(Blind() if stage.name == "detect" else stage for stage in stages_of(recipe, last))


def test_a_redo_looks_at_the_whole_picture(cleaned: Path, tmp_path: Path) -> None:
    """`scope: edited` never looks at a picture in which nothing was found; a redo does, and repairs."""
    run = runs.start(str(cleaned / "in"), str(tmp_path / "out"), faces())

    def go(marks: review.Marks | None = None) -> dict[str, Any]:
        units = tuple(runs.missing(run.output, runs.plan_new(run, marks=marks)))
        list(run_here(Job(units, run.output, run.recipe, run.stamp, True, with_a_blind_detector)))
        return row_of(tmp_path / "out", FACE)

    assert go()["status"] == "unchanged"
    again = go(marked(tmp_path / "out", astronaut="redo"))
    assert (again["attempt"], again["status"]) == (2, "cleaned")


def test_wrong_where_the_source_changed_is_a_failed_row(cleaned: Path, run: Path) -> None:
    """Else a picture that nobody looked at would pass as clean."""
    source = shutil.copytree(cleaned / "in", run / "in")
    output = str(run / "own")
    clean(str(source), output, faces())
    marks = marked(output, astronaut="wrong")
    stat = (source / FACE).stat()
    other = (source / "coffee.jpg").read_bytes()[: stat.st_size]
    (source / FACE).write_bytes(other + b"\0" * (stat.st_size - len(other)))
    os.utime(source / FACE, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    clean(str(source), output, faces(), marks=marks)
    row = row_of(output, FACE)
    assert (row["status"], row["image"], row["error"]["kind"]) == ("failed", None, "changed")
    (source / FACE).write_bytes((cleaned / "in" / FACE).read_bytes())
    os.utime(source / FACE, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    clean(str(source), output, faces(), retry_failed=True)
    row = row_of(output, FACE)
    assert (row["attempt"], row["status"]) == (3, "unchanged"), "what the review asked for holds on"


def test_marks_are_checked_before_any_work(
    cleaned: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output, path = str(cleaned / "in"), str(run / "out"), run / "marks.json"
    command = ["run", source, output, "--here", *FLAGS, "--review", str(path)]
    face = row_of(output, FACE)
    good = {"image_id": face["image_id"], "attempt": 1, "mark": "redo"}
    for body, one in (
        (None, "cannot read"),
        ("{", "no marks"),
        ({"marks": [good | {"mark": "better"}]}, "marks.0.mark"),
        ({"marks": [good, good]}, "twice"),
        ({"marks": [good | {"image_id": "0" * 64}]}, "not of the run"),
        ({"marks": [good | {"attempt": 2}]}, "no committed attempt 2"),
        ({"recipe_digest": "f" * 64, "marks": [good]}, "these marks judge a run of the recipe"),
        (
            {"marks": [good | {"image_id": row_of(output, "broken.jpg")["image_id"], "mark": "wrong"}]},
            "failed",
        ),
    ):
        if body is not None:
            path.write_text(body if isinstance(body, str) else json.dumps(body))
        assert main(command) == 2, one
        assert one in capsys.readouterr().err
    path.write_text(json.dumps({"marks": [good]}))
    assert main([*command, "--new-run"]) == 2
    assert main(["run", source, str(run / "nothing"), "--review", str(path)]) == 2
    assert not (run / "nothing").exists()
    assert len(plan.generations(open_store(output))) == 1
    assert main(["run", source, output, "--here", "--review", str(path)]) == 1, (
        "the run's own recipe is taken"
    )
    assert row_of(output, FACE)["attempt"] == 2


def test_two_reviewers_who_disagree(cleaned: Path, run: Path) -> None:
    """The first mark is obeyed; the other one judged an attempt that is no longer the newest, and says so."""
    output = str(run / "out")
    redo, wrong = marked(output, astronaut="redo"), marked(output, astronaut="wrong")
    clean(str(cleaned / "in"), output, faces(), marks=redo)
    assert review.asked(open_store(output), wrong).counts == {"outdated": 1}
    assert review.asked(open_store(output), redo).counts == {"done": 1}
    assert clean(str(cleaned / "in"), output, faces(), marks=wrong) == []


def test_the_report_tells_a_reviewed_run_as_it_is(cleaned: Path, run: Path) -> None:
    """Complete, by the newest attempts; and an estimate of recall where an event holds one."""
    store = open_store(str(run / "out"))
    clean(str(cleaned / "in"), str(run / "out"), faces(), marks=marked(run / "out", astronaut="wrong"))

    def summary() -> dict[str, Any]:
        record = ledger.read_record(store)
        return report.summary(store, record, statistics.gather(store, "", 10, 0))

    result = summary()
    assert result["planned"] == result["committed"] == 4
    assert (result["rows"], result["statuses"]) == (3, {"unchanged": 2, "failed": 1})
    assert result["recall"] == []
    good = {"kind": "face", "recall": 0.9, "low": 0.85, "high": 0.94, "images": 400, "method": "by hand"}
    event = {"event": "recall", "run_id": "x", "time": "2026-11-24T08:00:00+00:00"}
    for n, estimates in enumerate(([good], [good | {"low": 0.95}, {"kind": "text"}, "?"], {"recall": 1})):
        store.put(f"events/x-{n}.json", json.dumps(event | {"recall": estimates}).encode())
    assert summary()["recall"] == [good]


def test_kill_9_in_the_middle_of_a_review(tmp_path: Path) -> None:
    source, output = folder(tmp_path / "in"), str(tmp_path / "out")
    files = put_photos(source, 24)
    clean(source, output, faces(**{"units.rows": 4}))
    rows = rows_of(output)
    marks = [{"image_id": row["image_id"], "attempt": 1, "mark": "redo"} for row in rows]
    path = tmp_path / "marks.json"
    path.write_text(json.dumps({"recipe_digest": rows[0]["recipe_digest"], "marks": marks}))
    command = [
        sys.executable,
        "-m",
        "cleanplate",
        "run",
        source,
        output,
        "--here",
        *FLAGS,
        "--review",
        str(path),
    ]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_for_parts(output, 7, first)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    before = parts(output)
    assert 7 <= len(before) < 12, "killed in the middle"
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
    after = parts(output)
    assert len(after) == 12
    assert {name: after[name] for name in before} == before
    assert {row["attempt"] for row in check_complete(source, output, files)} == {2}
    assert ledger.tally(open_store(output)).rows == 24


def test_marks_of_no_run(tmp_path: Path) -> None:
    (tmp_path / "marks.json").write_text('{"marks": []}')
    assert review.read(tmp_path / "marks.json").marks == ()
    with pytest.raises(ConfigError, match="cannot read"):
        review.read(tmp_path / "none.json")
