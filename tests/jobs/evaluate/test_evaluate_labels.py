"""`cleanplate evaluate detect --labels`: drawn plates whose boxes are known, with the real detectors."""

from __future__ import annotations

import json
import random

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import ImageDraw, ImageFont

from cleanplate.jobs.cli.app import main
from rigs.scenes import backdrop

BOX = (120, 90, 260, 130)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos" / "cars"
    folder.mkdir(parents=True)
    for n in range(2):
        picture = backdrop((480, 360), random.Random(n))
        draw = ImageDraw.Draw(picture)
        draw.rectangle(BOX, fill="white", outline="black", width=2)
        draw.text((126, 94), "KR 74051", fill="black", font=ImageFont.load_default(28))
        picture.save(folder / f"{n}.png")
    return folder.parent


def evaluate(photos, labels, out, *more):
    return main(
        ["evaluate", "detect", str(photos), str(out), "--remove", "plate", "--labels", str(labels), *more]
    )


def test_plates_are_counted_by_size_and_turn(tmp_path, photos, capsys):
    labels = tmp_path / "labels.csv"
    x0, y0, x1, y1 = BOX
    labels.write_text(
        "image,label,x0,y0,x1,y1\n"
        f"cars/0.png,License Plate,{x0},{y0},{x1},{y1}\n"
        f"cars/1.png,plates,{x0},{y0},{x1},{y1}\n"
        "cars/1.png,face,5,5,40,40\n",
        encoding="utf-8",
    )
    out = tmp_path / "out"
    assert evaluate(photos, labels, out, "--scales", "1,0.1", "--turns", "0,180") == 0
    printed = capsys.readouterr().out
    assert "| plate | 32-64 px | 2 |" in printed
    assert "| plate | 0-16 px  | 2 |" in printed
    rows = [row for row in pq.read_table(out / "boxes.parquet").to_pylist() if row["label"]]
    assert len(rows) == 2 * 3
    by_view = {(row["scale"], row["turn"]): row for row in rows}
    assert by_view[1.0, 0.0]["found"]
    assert by_view[1.0, 0.0]["covered"] > 0.7
    assert not by_view[0.1, 0.0]["found"]  # Letters of 3 pixels cannot be read.
    assert cv2.imread(str(out / "worst.jpg")) is not None


def test_a_list_of_boxes_named_by_its_kind(tmp_path, photos):
    labels = tmp_path / "labels.json"
    x0, y0, x1, y1 = BOX
    labels.write_text(json.dumps([{"path": "0.png", "plates_xywh": [[x0, y0, x1 - x0, y1 - y0]]}]), "utf-8")
    out = tmp_path / "out"
    assert evaluate(photos, labels, out, "--scales", "1", "--turns", "0") == 0
    (row,) = [row for row in pq.read_table(out / "boxes.parquet").to_pylist() if row["label"]]
    assert row["photo"] == "cars/0.png"
    assert row["found"]


@pytest.mark.parametrize(
    ("content", "extra", "message"),
    [
        ("image,x0,y0,x1,y1\nnowhere.png,1,2,3,4\n", [], "names no image"),
        ("image,label,x0,y0,x1,y1\n0.png,cat,1,2,30,40\n", [], "marks plate"),
        ("a,b\n1,2\n", [], "names no image"),
        ("image,x0,y0,x1,y1\n0.png,1,2,30,40\n", ["--turns", "left"], "--turns"),
    ],
)
def test_labels_that_cannot_be_used_are_said(tmp_path, photos, capsys, content, extra, message):
    labels = tmp_path / "labels.csv"
    labels.write_text(content, encoding="utf-8")
    assert evaluate(photos, labels, tmp_path / "out", "--scales", "1", *(extra or ["--turns", "0"])) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_turned_view_shows_what_its_labels_say():
    from cleanplate.models.evaluation.labelled import Label, View, seen

    image = np.zeros((100, 160, 3), np.uint8)
    image[20:40, 100:150] = 255
    for turn in (0, 90, 180, 270, 30, -45, 200):
        shown, (label,) = seen(image, [Label("plate", (100, 20, 150, 40))], View(0.5, turn))
        bright = shown[..., 0] > 127
        inside = np.zeros_like(bright)
        x0, y0, x1, y1 = (round(v) for v in label.box)
        inside[max(0, y0) : y1, max(0, x0) : x1] = True
        ys, xs = np.nonzero(bright & (shown.max(2) > 200))
        assert abs(xs.mean() + 0.5 - (label.box[0] + label.box[2]) / 2) < 1
        assert abs(ys.mean() + 0.5 - (label.box[1] + label.box[3]) / 2) < 1
        grown = cv2.dilate(inside.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        assert grown[ys, xs].all()
    face = Label("face", (60, 30, 100, 90))
    _, (turned,) = seen(image, [face], View(1, 90))
    assert np.allclose(np.subtract(turned.box[2:], turned.box[:2]), (60, 40))


def test_each_label_is_matched_once_by_the_surest_find():
    from cleanplate.models.evaluation.labelled import Label, compare
    from cleanplate.models.types import Region

    labels = [Label("face", (0, 0, 10, 10)), Label("face", (20, 0, 30, 10))]
    edited = np.zeros((40, 40), np.bool_)
    edited[0:10, 0:8] = True
    finds = [
        Region("face", "a", 0.5, (0, 0, 10, 10)),
        Region("face", "a", 0.9, (0, 0, 10, 9)),
        Region("plate", "a", 0.9, (20, 0, 30, 10)),
    ]
    rows = compare(labels, finds, edited)
    assert [(row.label, row.found) for row in rows] == [
        (True, True),
        (True, False),
        (False, False),
        (False, False),
    ]
    assert rows[0].score == 0.9
    assert rows[0].iou == pytest.approx(0.9)
    assert rows[0].covered == pytest.approx(0.8)
