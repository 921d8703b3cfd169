"""Regions out, and in again: what COCO's own tools, other readers and our own `given` make of an export."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil
from pycocotools.coco import COCO

from cleanplate.jobs.__main__ import main
from cleanplate.pipeline.images import rle
from rigs.flow_rig import rows_of

WIDTH, HEIGHT = 120, 90
BOXES = {"a.png": [[20, 10, 60, 50], [70, 60, 110, 80]], "sub/ü.png": [[5, 5, 30, 30]], "c.png": []}
FLAGS = ["--remove", "given", "--inpainter", "fill", "--here", "--recall", "0"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("export")
    for n, name in enumerate(BOXES):
        (place / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Pil.fromarray(np.random.default_rng(n).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)).save(
            place / "in" / name
        )
    (place / "in" / "broken.png").write_bytes(b"no picture")
    (place / "boxes.json").write_text(json.dumps(BOXES))
    assert clean(place, "out", place / "boxes.json") == 1
    return place


def clean(place: Path, out: str, regions: Path, *more: str) -> int:
    return main(["run", str(place / "in"), str(place / out), *FLAGS, "--set", f"given.file={regions}", *more])


def exported(place: Path, form: str, out: Path) -> Path:
    assert main(["export", str(place / "out"), "--format", form, "-o", str(out)]) == 0
    return out


def test_coco_is_read_by_its_own_tools(place: Path, tmp_path: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        found = COCO(str(exported(place, "coco", tmp_path) / "regions.json"))
    names = {image["file_name"]: image["id"] for image in found.dataset["images"]}
    assert set(names) == set(BOXES)
    for row in rows_of(str(place / "out")):
        if row["status"] != "failed":
            name = next(
                n
                for n in names
                if row["source_uri"].endswith(n) or (n == "sub/ü.png" and "sub/" in row["source_uri"])
            )
            masks = [found.annToMask(one) for one in found.loadAnns(found.getAnnIds([names[name]]))]
            assert [m.sum() for m in masks] == [region["area_px"] for region in row["regions"]]
            if masks:
                assert (np.any(masks, axis=0) <= rle.from_rle(row["mask_rle"], HEIGHT, WIDTH)).all()
    assert found.loadCats(found.getCatIds())[0]["name"] == "given"


@pytest.mark.parametrize("form", ["coco", "yolo", "csv"])
def test_an_export_goes_in_again(place: Path, tmp_path: Path, form: str) -> None:
    """The same pixels are removed (the masks of COCO; the boxes of the others, within their digits)."""
    out = exported(place, form, tmp_path / form)
    file = {"coco": out / "regions.json", "csv": out / "regions.csv", "yolo": out}[form]
    again = f"again-{form}"
    exact = ["--set", "masks.grow=0", "--set", "masks.grow_px=0"] if form == "coco" else []
    assert clean(place, again, file, *exact) == 1
    first, second = ({r["source_uri"]: r for r in rows_of(str(place / o))} for o in ("out", again))
    for uri, row in first.items():
        assert row["status"] == second[uri]["status"]
        if row["mask_rle"]:
            one, two = (rle.from_rle(r["mask_rle"], HEIGHT, WIDTH) for r in (row, second[uri]))
            assert (one != two).mean() < 0.02
            boxes = [sorted(region["box"] for region in r["regions"]) for r in (row, second[uri])]
            assert form == "coco" or np.allclose(*boxes, atol=0.01)


def test_label_studio_has_percent_boxes(place: Path, tmp_path: Path) -> None:
    tasks = json.loads((exported(place, "label-studio", tmp_path) / "regions.json").read_text())
    task = next(task for task in tasks if task["data"]["name"] == "a.png")
    (first, _) = task["predictions"][0]["result"]
    box = [first["value"][k] for k in ("x", "y", "width", "height")]
    assert box == pytest.approx([20 / 1.2, 10 / 0.9, 40 / 1.2, 40 / 0.9])
    assert (first["original_width"], first["value"]["rectanglelabels"]) == (WIDTH, ["given"])


def test_csv_and_yolo_have_every_region(place: Path, tmp_path: Path) -> None:
    lines = list(csv.DictReader((exported(place, "csv", tmp_path / "c") / "regions.csv").open()))
    assert sorted((line["image"], float(line["x0"])) for line in lines) == [
        ("a.png", 20),
        ("a.png", 70),
        ("sub/ü.png", 5),
    ]
    labels = exported(place, "yolo", tmp_path / "y")
    counts = {str(p.relative_to(labels)): len(p.read_text().splitlines()) for p in labels.rglob("*.txt")}
    assert counts == {"a.txt": 2, "sub/ü.txt": 1, "c.txt": 0, "classes.txt": 1}


def test_a_place_without_a_run_is_wrong_use(tmp_path: Path) -> None:
    assert main(["export", str(tmp_path)]) == 2
