"""given: the user's own boxes, polygons and masks, in every form, through the real flow."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pil

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
    assert row["status"] == "cleaned", row["error"]
    mask = masks.from_rle(row["mask_rle"], 90, 120)
    grown = np.count_nonzero(mask & ~SQUARE) / SQUARE.sum()
    assert (mask & SQUARE).sum() == SQUARE.sum()
    assert grown < (0.5 if "polygon" not in name and "rle" not in name else 0.06)
    assert row["inpainter"] == "fill"


def test_a_parquet_of_lists_and_a_part_of_an_earlier_run(tmp_path: Path) -> None:
    table = pa.table({"source_uri": ["sub/b.png"], "regions": [[{"kind": "face", "box": BOX, "rle": None}]]})
    pq.write_table(table, tmp_path / "rows.parquet")
    rows = run(tmp_path, tmp_path / "rows.parquet")
    assert rows["sub/b.png"]["regions"][0]["detector"] == "given:face"
    assert rows["a.png"]["detectors"] == [given.NO_ENTRY]
    assert rows["a.png"]["status"] == "unchanged"
    # The run's own part names its images by uri, and gives masks as run lengths.
    (part,) = (tmp_path / "out" / "parts").glob("*.parquet")
    lookup = given.in_table(label_files.table_of(part.read_bytes(), "auto"))
    uri = rows["sub/b.png"]["source_uri"]
    (one,) = lookup("whatever", uri) or []
    assert given.regions_of(one, 90, 120)[0].mask is not None


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
    "outside": {"box": [20, 10, 160, 50]},
    "nan": {"box": [20, 10, float("nan"), 50]},
    "empty": {"box": [20, 10, 20, 50]},
    "size": {"rle": rle(np.zeros((80, 120), np.bool_))},
    "runs": {"rle": "zz"},
    "point": {"polygon": [1, 2, 3, 4]},
}


@pytest.mark.parametrize("name", list(BAD))
def test_what_does_not_fit_its_image_fails_that_row_only(tmp_path: Path, name: str) -> None:
    entries = [{"image": "sub/b.png", **BAD[name]}, {"image": "a.png", "box": BOX}]
    rows = run(tmp_path, write(tmp_path / "boxes.json", entries))
    assert rows["a.png"]["status"] == "cleaned"
    assert rows["sub/b.png"]["status"] == "failed"
    assert rows["sub/b.png"]["error"]["kind"] == "given"
    assert rows["sub/b.png"]["image"] is None


def test_a_mask_of_another_size_fails_its_row(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    Pil.fromarray(np.zeros((45, 60), np.uint8)).save(tmp_path / "masks" / "a.png")
    rows = run(tmp_path, tmp_path / "masks")
    assert "60 x 45" in rows["a.png"]["error"]["message"]
    assert rows["sub/b.png"]["status"] == "unchanged"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1, 2", "cannot be read"),
        ([{"box": BOX}], "names no image"),
        ([{"image": "a.png", "box": [1, 2, 3]}], "4 numbers"),
        ([{"image": "train/c.png", "box": BOX}], r"given\.root"),
    ],
)
def test_files_that_cannot_be_are_refused_before_any_work(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
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
