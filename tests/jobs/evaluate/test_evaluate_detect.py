"""`cleanplate evaluate detect` on drawn photographs, with the real detectors."""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from cleanplate.jobs.cli.app import main
from cleanplate.jobs.evaluate.detect_tables import by_standout
from rigs.scenes import backdrop


@pytest.fixture
def photos(tmp_path):
    import random

    folder = tmp_path / "photos"
    folder.mkdir()
    for n in range(4):
        picture = np.asarray(backdrop((320, 240), random.Random(n)))
        cv2.imwrite(str(folder / f"{n}.png"), picture[..., ::-1])
    return folder


def test_text_is_measured_as_table_parquet_and_picture(tmp_path, photos, capsys):
    out = tmp_path / "out"
    command = ["evaluate", "detect", str(photos), str(out), "--remove", "text", "--each", "2", "--clean", "2"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "| text   | opaque |" in printed
    assert "| text   | clean  |" in printed
    assert "## By standing out" in printed
    assert (out / "table.md").read_text(encoding="utf-8") in printed
    table = pq.read_table(out / "trials.parquet")
    assert table.num_rows == 3 * 2 + 2
    assert table.schema.metadata[b"seed"] == b"2026"
    assert len(table.schema.metadata[b"text-det"]) == 64
    rows = table.to_pylist()
    marked = [row for row in rows if row["mark"]]
    assert {row["mark"] for row in marked} == {"line", "stack", "large"}
    assert np.mean([row["hit"] for row in marked]) >= 0.5
    assert all(row["standout"] > 0 for row in marked)
    assert all(row["harm"] < 0.05 for row in rows)
    sheet = cv2.imread(str(out / "worst.jpg"))
    assert sheet.shape[1] > 1000


def test_marks_are_sorted_by_how_far_they_stand_out():
    score = {"recall": 1.0, "precision": 1.0, "iou": 1.0, "false": 0, "regions": 1, "harm": 0.0}
    marks = [("faint", 5.0, False), ("semi", 3.9, True), ("semi", 0.5, False), ("semi", 4.0, True)]
    rows = [
        {"kind": "watermark", "mark": "line", "level": level, "standout": far, "hit": hit} | score
        for level, far, hit in marks
    ]
    rows.append({"kind": "watermark", "mark": "", "level": "clean", "standout": float("nan")})
    _, header, lines = by_standout(rows)
    assert header[:5] == ["remove", "level", "stands out", "n", "recall"]
    assert [line[1:5] for line in lines] == [
        ["faint", "4 or more", "1", "0.00"],
        ["semi", "below 1", "1", "0.00"],
        ["semi", "2 to 4", "1", "1.00"],
        ["semi", "4 or more", "1", "1.00"],
    ]


def test_references_are_laid_on_at_three_opacities_and_looked_for(tmp_path, photos, capsys):
    from rigs.finders_rig import badge

    badge().save(tmp_path / "brand.png")
    command = ["evaluate", "detect", str(photos), str(tmp_path / "out"), "--remove", "logo", "--each", "1"]
    command += ["--clean", "1", "--set", f"logos.references=[{tmp_path / 'brand.png'}]"]
    assert main(command) == 0
    assert "| logo   | brand.png | alpha .35 |" in capsys.readouterr().out
    rows = pq.read_table(tmp_path / "out" / "trials.parquet").to_pylist()
    assert [row["level"] for row in rows] == ["alpha .9", "alpha .6", "alpha .35", "clean"]
    assert rows[0]["hit"]
    assert rows[0]["iou"] > 0.7
    assert rows[3]["regions"] == 0


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--remove", "nothing"], "remove"),
        (["--fonts", "nowhere"], "no usable font"),
        (["--each", "0"], "--each"),
    ],
)
def test_what_cannot_be_measured_is_said_before_work(tmp_path, photos, capsys, extra, message):
    assert main(["evaluate", "detect", str(photos), str(tmp_path / "out"), *extra]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_without_photographs_is_said(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["evaluate", "detect", str(tmp_path / "empty"), str(tmp_path / "out")]) == 2
    assert "no photographs" in capsys.readouterr().err
