"""given: the user's own boxes, polygons and masks, in every form, through the real flow."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pil

from cleanplate.jobs.__main__ import main
from cleanplate.pipeline.engine import run as runs
from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.factory import given, label_files
from cleanplate.pipeline.images import rle as masks
from cleanplate.pipeline.recipe.recipe import load
from rigs.flow_rig import clean, folder, rows_of

SIZE = (120, 90)
BOX = [20.0, 10.0, 60.0, 50.0]
SQUARE = np.zeros((90, 120), np.bool_)
SQUARE[10:50, 20:60] = True


def photographs(path: Path, names: tuple[str, ...] = ("a.png", "sub/b.png")) -> str:
    for n, name in enumerate(names):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(n).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
        Pil.fromarray(noise).save(path / name)
    return str(path)


def run(tmp_path: Path, place: Path | str, **more: Any) -> dict[str, dict[str, Any]]:
    """Rows by name of a run that removes what `place` gives."""
    source = photographs(tmp_path / "in") if not (tmp_path / "in").exists() else str(tmp_path / "in")
    exact = {"masks.grow": 0, "masks.grow_px": 0, "masks.segmenter": "stroke", "inpaint.name": "fill"}
    recipe = load(None, {"remove": "given", "given.file": str(place), **exact, **more})
    clean(source, folder(tmp_path / "out"), recipe)
    return {row["source_uri"].split("/in/")[1]: row for row in rows_of(str(tmp_path / "out"))}


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def rle(mask: np.ndarray) -> dict[str, Any]:
    return {"size": list(mask.shape), "counts": masks.to_rle(mask)}


COCO = {
    "images": [
        {"id": 7, "file_name": "sub/b.png", "width": 120, "height": 90},
        {"id": 8, "file_name": "a.png", "width": 120, "height": 90},
    ],
    "annotations": [{"image_id": 7, "category_id": 1, "bbox": [20, 10, 40, 40], "iscrowd": 0}],
    "categories": [{"id": 1, "name": "lanyard"}],
}
FORMS: dict[str, Any] = {
    "boxes.json": [{"image": "sub/b.png", "box": BOX, "label": "lanyard"}, {"image": "a.png"}],
    "mapping.json": {"sub/b.png": [BOX], "a.png": []},
    "lines.jsonl": '{"path": "sub/b.png", "bbox": [20, 10, 40, 40]}\n{"path": "a.png"}\n',
    "rows.csv": "file_name,x0,y0,x1,y1\nsub/b.png,20,10,60,50\na.png,,,,\n",
    "coco.json": COCO,
    "polygon.json": [
        {"image": "sub/b.png", "polygon": [[20, 10], [60, 10], [60, 50], [20, 50]]},
        {"image": "a.png", "regions": []},
    ],
    "rle.json": [{"image": "sub/b.png", "rle": rle(SQUARE)}, {"image": "a.png", "regions": []}],
}


@pytest.mark.parametrize("name", list(FORMS))
def test_every_form_of_a_file_says_the_same(tmp_path: Path, name: str) -> None:
    rows = run(tmp_path, write(tmp_path / name, FORMS[name]))
    assert rows["a.png"]["status"] == "unchanged"
    assert rows["a.png"]["detectors"] == ["given"]
    row = rows["sub/b.png"]
    assert row["status"] == "hidden", row["error"]
    mask = masks.from_rle(row["mask_rle"], 90, 120)
    grown = np.count_nonzero(mask & ~SQUARE) / SQUARE.sum()
    assert (mask & SQUARE).sum() == SQUARE.sum()
    assert grown < (0.5 if "polygon" not in name and "rle" not in name else 0.06)
    assert row["inpainter"] == "fill"


def test_a_parquet_of_lists_and_a_part_of_an_earlier_run(tmp_path: Path) -> None:
    table = pa.table({"source_uri": ["sub/b.png"], "regions": [[{"kind": "face", "box": BOX, "rle": None}]]})
    pq.write_table(table, tmp_path / "rows.parquet")
    rows = run(tmp_path, tmp_path / "rows.parquet", **{"units.rows": 8})
    assert rows["sub/b.png"]["regions"][0]["detector"] == "given:face"
    assert rows["a.png"]["detectors"] == [given.NO_ENTRY]
    assert rows["a.png"]["status"] == "unchanged"
    # The run's own part names its images by uri, and gives masks as run lengths.
    (part,) = (tmp_path / "out" / "parts").glob("*.parquet")
    lookup = given.in_table(label_files.table_of(part.read_bytes(), "auto"))
    uri = rows["sub/b.png"]["source_uri"]
    (one,) = lookup("whatever", uri) or []
    assert given.regions_of(one, 90, 120, Counter())[0].mask is not None


def test_yolo_labels_and_masks_by_path(tmp_path: Path) -> None:
    (tmp_path / "labels" / "sub").mkdir(parents=True)
    write(tmp_path / "labels" / "sub" / "b.txt", f"0 {40 / 120} {30 / 90} {40 / 120} {40 / 90}\n")
    rows = run(tmp_path, tmp_path / "labels")
    assert rows["a.png"]["detectors"] == [given.NO_ENTRY]
    assert rows["sub/b.png"]["regions"][0]["box"] == pytest.approx(BOX, abs=0.01)
    (tmp_path / "masks" / "sub").mkdir(parents=True)
    Pil.fromarray(SQUARE.astype(np.uint8)).save(tmp_path / "masks" / "sub" / "b.png")  # 0 and 1
    other = tmp_path / "m"
    other.mkdir()
    photographs(other / "in")
    row = run(other, tmp_path / "masks")["sub/b.png"]
    assert (masks.from_rle(row["mask_rle"], 90, 120) == SQUARE).all()


BAD = {
    "outside": {"box": [130, 10, 160, 50]},
    "infinite": {"box": [20, 10, 60, float("inf")]},
    "nan": {"box": [20, 10, float("nan"), 50]},
    "polygon outside": {"polygon": [-9, 0, -1, 0, -5, 20]},
    "size": {"rle": rle(np.zeros((80, 120), np.bool_))},
    "runs": {"rle": "zz"},
    "point": {"polygon": [1, 2, 3, 4]},
}


@pytest.mark.parametrize("name", list(BAD))
def test_what_does_not_fit_its_image_fails_that_row_only(tmp_path: Path, name: str) -> None:
    entries = [{"image": "sub/b.png", **BAD[name]}, {"image": "a.png", "box": BOX}]
    rows = run(tmp_path, write(tmp_path / "boxes.json", entries))
    assert rows["a.png"]["status"] == "hidden"
    assert rows["sub/b.png"]["status"] == "failed"
    assert rows["sub/b.png"]["error"]["kind"] == "given"
    assert rows["sub/b.png"]["image"] is None


@pytest.mark.parametrize("shape", ["box", "bbox", "polygon"])
def test_what_reaches_beyond_the_edge_is_cut_and_noted(tmp_path: Path, shape: str) -> None:
    """As COCO (rounding), CrowdHuman (whole bodies) and VisDrone write them."""
    drawn = {
        "box": [-30, 10, 60, 200],
        "bbox": [-30, 10, 90, 190],
        "polygon": [-30, 10, 60, 10, 60, 200, -30, 200],
    }
    row = run(tmp_path, write(tmp_path / "boxes.json", [{"image": "a.png", shape: drawn[shape]}]))["a.png"]
    assert row["detectors"] == ["given: 1 cut to the picture"]
    assert row["regions"][0]["box"] == pytest.approx([0, 10, 60, 90], abs=1)
    mask = masks.from_rle(row["mask_rle"], 90, 120)
    assert mask[10:, :60].all()
    assert not mask[:5].any()


def test_a_box_without_area_is_ignored_and_counted(tmp_path: Path) -> None:
    entries = [{"image": "a.png", "box": b} for b in (BOX, [20, 10, 20, 50], [20, 10, 60, 5])]
    rows = run(tmp_path, write(tmp_path / "boxes.json", entries))
    assert rows["a.png"]["detectors"] == ["given: 2 without area, ignored"]
    assert [r["box"] for r in rows["a.png"]["regions"]] == [BOX]


@pytest.mark.parametrize("drawn", [[[]], [], [[1, 2, 3, 4]], None])
def test_a_segmentation_of_nothing_falls_back_to_the_box(tmp_path: Path, drawn: Any) -> None:
    body = {**COCO, "annotations": [{**COCO["annotations"][0], "segmentation": drawn}]}
    row = run(tmp_path, write(tmp_path / "coco.json", body))["sub/b.png"]
    assert row["regions"][0]["box"] == BOX


@pytest.mark.parametrize("cell", ['"20,10,60,50"', '"[20, 10, 60, 50]"', "20 10 60 50", '"(20; 10; 60; 50)"'])
def test_a_cell_of_a_csv_file_may_hold_a_box(tmp_path: Path, cell: str) -> None:
    place = write(tmp_path / "boxes.csv", f"image,box\na.png,{cell}\nsub/b.png,\n")
    rows = run(tmp_path, place)
    assert rows["a.png"]["regions"][0]["box"] == BOX
    assert rows["sub/b.png"]["status"] == "unchanged"


def test_names_that_no_image_has_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [{"image": n, "box": b} for n, b in (("a.png", BOX), ("x.png", BOX), ("y/z.png", [5, 5, 5, 9]))]
    source, place = photographs(tmp_path / "in"), write(tmp_path / "boxes.json", entries)
    words = [
        "--remove",
        "given",
        "--inpainter",
        "fill",
        "--here",
        "--recall",
        "0",
        "--set",
        f"given.file={place}",
    ]
    assert main(["run", source, str(tmp_path / "out"), *words]) == 0
    text = " ".join(capsys.readouterr().err.split())
    assert "2 of 3 named images are not in the source (x.png, y/z.png, ...); 1 boxes without area" in text
    assert main(["run", source, str(tmp_path / "out"), *words]) == 0
    assert "named images" not in capsys.readouterr().err, "told once, when the source was listed whole"


def test_labels_without_an_image_are_counted_too(tmp_path: Path) -> None:
    photographs(tmp_path / "in")
    for name in ("a.txt", "none.txt", "classes.txt"):
        (tmp_path / "labels").mkdir(exist_ok=True)
        write(tmp_path / "labels" / name, "")
    recipe = load(None, {"remove": "given", "given.file": str(tmp_path / "labels"), "inpaint.name": "fill"})
    started = runs.start(str(tmp_path / "in"), str(tmp_path / "out"), recipe)
    runs.plan_new(started)
    assert started.unmatched == {"named": 2, "unmatched": 1, "examples": ["none.txt"], "without_area": 0}


@pytest.mark.parametrize("name", ["a.parquet/000001", "s.tar/x/1.png", "x/1.png"])
def test_images_in_containers_have_names(tmp_path: Path, name: str) -> None:
    """The key below the source, and of a tar its member alone."""
    photographs(tmp_path / "p", ("0.png", "x/1.png"))
    (tmp_path / "in").mkdir()
    files = [tmp_path / "p" / n for n in ("0.png", "x/1.png")]
    if name.startswith("a."):
        pq.write_table(pa.table({"image": [f.read_bytes() for f in files]}), tmp_path / "in" / "a.parquet")
    else:
        with tarfile.open(tmp_path / "in" / "s.tar", "w") as tar:
            for file in files:
                tar.add(file, str(file.relative_to(tmp_path / "p")))
    recipe = {"remove": "given", "given.file": str(write(tmp_path / "b.json", [{"image": name, "box": BOX}]))}
    clean(str(tmp_path / "in"), str(tmp_path / "out"), load(None, {**recipe, "inpaint.name": "fill"}))
    assert sorted(row["status"] for row in rows_of(str(tmp_path / "out"))) == ["hidden", "unchanged"]


def test_a_mask_of_another_size_fails_its_row(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    Pil.fromarray(np.zeros((45, 60), np.uint8)).save(tmp_path / "masks" / "a.png")
    rows = run(tmp_path, tmp_path / "masks")
    assert "60 x 45" in rows["a.png"]["error"]["message"]
    assert rows["sub/b.png"]["status"] == "unchanged"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2", "cannot be read"),
        ([{"box": BOX}], "names no image"),
        ([{"image": "a.png", "box": [1, 2, 3]}], "4 numbers"),
        ("image,box\na.png,left\n", "columns x0, y0, x1 and y1"),
        ([{"image": "train/c.png", "box": BOX}], r"given\.root"),
    ],
)
def test_files_that_cannot_be_are_refused_before_any_work(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, write(tmp_path / "boxes.json", content))


def test_an_empty_or_missing_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for place in (tmp_path / "masks", tmp_path / "none.json"):
        with pytest.raises(ConfigError, match=r"given\.file"):
            run(tmp_path, place)


def test_other_boxes_are_another_run_and_the_same_elsewhere_is_not(tmp_path: Path) -> None:
    entries = [{"image": "sub/b.png", "box": BOX}]
    rows = run(tmp_path, write(tmp_path / "boxes.json", entries))
    digest = rows["a.png"]["recipe_digest"]
    assert any(w["name"].startswith("given.file/boxes.json") for w in rows["a.png"]["weights"])
    (tmp_path / "moved").mkdir()
    (tmp_path / "boxes.json").rename(tmp_path / "moved" / "boxes.json")
    assert run(tmp_path, tmp_path / "moved" / "boxes.json")["a.png"]["recipe_digest"] == digest
    with pytest.raises(ConfigError, match="another recipe"):
        run(tmp_path, write(tmp_path / "boxes.json", [{"image": "sub/b.png", "box": [0, 0, 9, 9]}]))


def test_a_table_of_many_names_is_searched_right() -> None:
    names = [f"{n:05}.jpg" for n in range(3000)] + ["Ünïcode.jpg", "a", "ab", ""]
    entries = [{"image": name, "box": [0, 0, n + 1, 1]} for n, name in enumerate(names)]
    lookup = given.in_table(label_files.table_of(json.dumps(entries).encode(), "auto"))
    for n in (0, 1, 1500, 2999, 3000, 3001, 3002):
        (one,) = lookup(names[n], "x") or []
        assert one["box"][2] == n + 1
    assert lookup("00000", "x") is None
    assert lookup("zzz", "x") is None


def test_the_packed_table_is_known_again() -> None:
    table = label_files.table_of(json.dumps(FORMS["coco.json"]).encode(), "coco")
    assert label_files.table_of(label_files.packed(table), "auto").equals(table)
    assert pq.read_table(io.BytesIO(label_files.packed(table))).num_rows == 2
