"""Labels carried into an output, in every form: what was removed goes, what was touched is flagged, the rest stays."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pil
from pycocotools.coco import COCO

from cleanplate.jobs.__main__ import main
from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.factory.label_files import entry
from cleanplate.pipeline.images import rle
from cleanplate.pipeline.labels import carry, forms
from cleanplate.pipeline.labels.label import REMOVED as SHARE
from cleanplate.pipeline.recipe.run_sections import Labels
from rigs.flow_rig import rows_of

WIDTH, HEIGHT = 120, 90
REMOVED = [20, 10, 60, 50]
INSIDE, TOUCHED, FAR = (
    [22, 12, 40, 40],
    [40, 50 - 8, 60, 74],
    [80, 60, 110, 85],
)  # xyxy; a quarter of TOUCHED goes
EXACT = ["--set", "masks.grow=0", "--set", "masks.grow_px=0", "--set", "masks.segmenter=box"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """in/a.png and in/sub/b.png, of which the same box is removed; in/broken.png."""
    for n, name in enumerate(("a.png", "sub/b.png")):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Pil.fromarray(np.random.default_rng(n).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)).save(
            tmp_path / "in" / name
        )
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    boxes = {"a.png": [REMOVED], "sub/b.png": [REMOVED]}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    return tmp_path


def run(place: Path, labels: Path, *more: str) -> Path:
    words = [
        "--remove",
        "given",
        "--set",
        f"given.file={place / 'boxes.json'}",
        "--inpainter",
        "fill",
        *EXACT,
    ]
    words += ["--here", "--recall", "0", "--labels", str(labels), *more]
    assert main(["run", str(place / "in"), str(place / "out"), *words]) == 1  # One picture is broken.
    return place / "out" / "labels"


def touched(place: Path) -> float:
    """The share of TOUCHED that the mask of a.png covers: a quarter, and what masks are widened by."""
    row = next(row for row in rows_of(str(place / "out")) if row["source_uri"].endswith("a.png"))
    x0, y0, x1, y1 = TOUCHED
    share = float(rle.from_rle(row["mask_rle"], HEIGHT, WIDTH)[y0:y1, x0:x1].mean())
    assert 0.25 <= share < 0.5
    return round(share, 4)


def xywh(box: list[int]) -> list[int]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def coco() -> dict[str, Any]:
    names = ["a.png", "sub/b.png", "broken.png", "nowhere.png"]
    boxes = [(11, 1, INSIDE), (12, 1, TOUCHED), (13, 1, FAR), (21, 2, FAR), (31, 3, FAR), (41, 4, FAR)]
    return {
        "info": {"year": 2026},
        "licenses": [{"id": 1, "name": "own"}],
        "images": [
            {"id": n, "file_name": name, "width": WIDTH, "height": HEIGHT, "license": 1}
            for n, name in enumerate(names, 1)
        ],
        "categories": [{"id": 5, "name": "cat", "supercategory": "animal"}],
        "annotations": [
            {
                "id": i,
                "image_id": image,
                "category_id": 5,
                "bbox": xywh(box),
                "area": 1,
                "iscrowd": 0,
                "own": "ü",
            }
            for i, image, box in boxes
        ],
    }


def write_coco(place: Path) -> Path:
    (place / "instances.json").write_text(json.dumps(coco()))
    return place / "instances.json"


def test_coco_comes_out_as_coco(place: Path) -> None:
    out = run(place, write_coco(place))
    with contextlib.redirect_stdout(io.StringIO()):
        found = COCO(str(out / "instances.json"))
    assert sorted(found.getAnnIds()) == [12, 13, 21]
    assert sorted(found.getImgIds()) == [1, 2]
    assert found.dataset["licenses"] == coco()["licenses"]
    by_id = {one["id"]: one for one in coco()["annotations"]}
    assert found.anns[13] == by_id[13]
    assert found.anns[12] == {**by_id[12], SHARE: touched(place)}
    changes = list(csv.DictReader((out / "changes.csv").open()))
    assert [(c["label"], c["class"], c["what"], c["removed_share"], c["why"]) for c in changes] == [
        ("11", "cat", "dropped", "1.0000", "removed"),
        ("12", "cat", "flagged", f"{touched(place):.4f}", "touched"),
        ("31", "cat", "dropped", "", "its image is not in the output: failed, read/not_an_image"),
        ("41", "cat", "dropped", "", "no image of the source has this name"),
    ]
    record = json.loads((out / "summary.json").read_text())
    assert record == {"labels": 6, "kept": 3, "flagged": 1, "dropped": 2, "unmatched": 1, "twice": 0}


def test_labels_are_made_again_by_the_same_command_and_are_no_other_run(place: Path) -> None:
    labels = write_coco(place)
    out = run(place, labels)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    (out / "instances.json").unlink()
    run(place, labels)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    kept = json.loads(before["instances.json"])["annotations"]
    run(place, labels, "--set", "labels.drop_above=0.2", "--set", "labels.flag_above=0")
    assert len(json.loads((out / "instances.json").read_bytes())["annotations"]) == len(kept) - 1


def test_yolo_lines_stay_as_they_are_or_go(place: Path) -> None:
    def line(box: list[int]) -> str:
        x0, y0, x1, y1 = box
        values = (x0 + x1) / 2 / WIDTH, (y0 + y1) / 2 / HEIGHT, (x1 - x0) / WIDTH, (y1 - y0) / HEIGHT
        return "3 " + " ".join(f"{value:.6f}" for value in values)

    polygon = "3 " + " ".join(
        f"{v / s:.6f}" for v, s in zip([*INSIDE, 22, 40], [WIDTH, HEIGHT] * 3, strict=True)
    )
    (place / "labels" / "sub").mkdir(parents=True)
    (place / "labels" / "a.txt").write_text(
        "\n".join([line(INSIDE), polygon, line(TOUCHED), line(FAR)]) + "\n\n"
    )
    (place / "labels" / "sub" / "b.txt").write_text("")
    (place / "labels" / "broken.txt").write_text(line(FAR))
    (place / "labels" / "nowhere.txt").write_text(line(FAR))
    (place / "labels" / "data.yaml").write_text("names: [x]")
    out = run(place, place / "labels")
    assert (out / "a.txt").read_text().splitlines() == [line(TOUCHED), line(FAR)]
    assert (out / "sub" / "b.txt").read_text() == ""
    assert (out / "data.yaml").read_text() == "names: [x]"
    assert sorted(p.name for p in out.rglob("*.txt")) == ["a.txt", "b.txt"]
    assert {c["why"] for c in csv.DictReader((out / "changes.csv").open())} == {
        "removed",
        "touched",
        "its image is not in the output: failed, read/not_an_image",
        "no image of the source has this name",
    }


ROWS = [
    {
        "image": "a.png",
        "x0": INSIDE[0],
        "y0": INSIDE[1],
        "x1": INSIDE[2],
        "y1": INSIDE[3],
        "label": "in",
        "own": "1",
    },
    {
        "image": "a.png",
        "x0": TOUCHED[0],
        "y0": TOUCHED[1],
        "x1": TOUCHED[2],
        "y1": TOUCHED[3],
        "label": "on",
        "own": "2",
    },
    {
        "image": "sub/b.png",
        "x0": FAR[0],
        "y0": FAR[1],
        "x1": FAR[2],
        "y1": FAR[3],
        "label": "off",
        "own": "3",
    },
    {
        "image": "broken.png",
        "x0": FAR[0],
        "y0": FAR[1],
        "x1": FAR[2],
        "y1": FAR[3],
        "label": "off",
        "own": "4",
    },
]


def as_csv(place: Path) -> Path:
    with (place / "l.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    return place / "l.csv"


def as_json(place: Path) -> Path:
    (place / "l.json").write_text(json.dumps(ROWS))
    return place / "l.json"


def as_lines(place: Path) -> Path:
    (place / "l.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return place / "l.jsonl"


def as_parquet(place: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(ROWS), place / "l.parquet")
    return place / "l.parquet"


@pytest.mark.parametrize("write", [as_csv, as_json, as_lines, as_parquet])
def test_tables_of_one_row_a_label(place: Path, write: Callable[[Path], Path]) -> None:
    labels = write(place)
    out = (run(place, labels) / labels.name).read_bytes()
    if labels.suffix == ".csv":
        rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(out.decode())))
    elif labels.suffix == ".parquet":
        rows = pq.read_table(io.BytesIO(out)).to_pylist()
    else:
        rows = (
            json.loads(out) if labels.suffix == ".json" else [json.loads(line) for line in out.splitlines()]
        )
    assert [row["own"] for row in rows] == ["2", "3"]
    assert float(rows[0][SHARE]) == touched(place)
    assert not rows[1].get(SHARE)
    same = [{k: str(v) for k, v in row.items() if k != SHARE} for row in rows]
    assert same == [{k: str(v) for k, v in row.items()} for row in ROWS[1:3]]


def test_tables_of_one_row_an_image(place: Path) -> None:
    regions = [{"box": box, "label": "x", "id": n} for n, box in enumerate((INSIDE, TOUCHED, FAR))]
    rows = [
        {"file_name": "a.png", "caption": "ü", "objects": regions},
        {"file_name": "broken.png", "objects": regions},
    ]
    pq.write_table(pa.Table.from_pylist(rows), place / "l.parquet")
    found = pq.read_table(run(place, place / "l.parquet") / "l.parquet").to_pylist()
    assert found == [{"file_name": "a.png", "caption": "ü", "objects": regions[1:]}]
    (place / "m.json").write_text(json.dumps({"a.png": [INSIDE, FAR], "sub/b.png": [], "nowhere.png": [FAR]}))
    assert json.loads((run(place, place / "m.json") / "m.json").read_text()) == {
        "a.png": [FAR],
        "sub/b.png": [],
    }


def test_captions_and_classes_stay_with_their_image(place: Path) -> None:
    captions = {
        **coco(),
        "annotations": [{"id": 1, "image_id": 1, "caption": "a"}, {"id": 1, "image_id": 3, "caption": "b"}],
    }
    (place / "captions.json").write_text(json.dumps(captions))
    out = run(place, place / "captions.json")
    assert [a["caption"] for a in json.loads((out / "captions.json").read_text())["annotations"]] == ["a"]
    assert json.loads((out / "summary.json").read_text())["twice"] == 1
    (place / "classes.csv").write_text("file_name,label\na.png,cat\nbroken.png,dog\n")
    assert (run(place, place / "classes.csv") / "classes.csv").read_text() == "file_name,label\na.png,cat\n"


def test_names_follow_the_pictures(place: Path) -> None:
    """A GIF becomes a PNG in a tree of files: its labels say so."""
    Pil.fromarray(np.random.default_rng(5).integers(0, 255, (HEIGHT, WIDTH), np.uint8)).save(
        place / "in" / "c.gif"
    )
    (place / "boxes.json").write_text(json.dumps({"a.png": [REMOVED], "c.gif": [REMOVED]}))
    body = {
        "images": [{"id": 1, "file_name": "c.gif"}],
        "annotations": [{"id": 1, "image_id": 1, "bbox": xywh(FAR)}],
    }
    (place / "l.json").write_text(json.dumps(body))
    out = run(place, place / "l.json", "--output-layout", "files")
    (image,) = json.loads((out / "l.json").read_text())["images"]
    assert (place / "out" / "images" / image["file_name"]).is_file()
    assert image["file_name"] != "c.gif"


@pytest.mark.parametrize(
    ("shape", "share"),
    [
        ({"box": [0, 0, 10, 10]}, 1.0),
        ({"box": [-100, -100, 10, 10]}, 1.0),  # What lies outside does not count.
        ({"box": [0, 0, 0.1, 0.1], "shares": True}, 1.0),
        ({"box": [5, 0, 15, 10]}, 0.5),
        ({"box": [200, 0, 300, 10]}, None),
        ({"box": [float("nan"), 0, 1, 1]}, None),
        ({"polygons": [[0, 0, 10, 0, 10, 10, 0, 10], [20, 0, 30, 0, 30, 10, 20, 10]]}, 0.45),
        ({"polygons": [[]]}, None),
        ({"rle": "zz"}, None),
    ],
)
def test_the_share_of_a_shape(shape: dict[str, Any], share: float | None) -> None:
    mask = np.zeros((100, 100), np.bool_)
    mask[:10, :10] = True
    found = carry.removed_share(entry("a", **shape), mask)
    assert found == (None if share is None else pytest.approx(share, abs=0.06))


@pytest.mark.parametrize(
    "content", [b"", b"[1, 2", b"{}", b"a,b\n1,2\n", bytes(range(128, 178)), zlib.compress(b"x" * 99)]
)
def test_what_is_no_labels_is_refused_before_work(place: Path, content: bytes) -> None:
    (place / "l.json").write_bytes(content)
    words = ["--remove", "face", "--inpainter", "fill", "--labels", str(place / "l.json"), "--here"]
    if content in (b"", b"{}"):
        assert (
            forms.read(Labels(file=str(place / "l.json"))).labels == []
        )  # Nothing in it, which is no error.
        return
    assert main(["run", str(place / "in"), str(place / "out"), *words]) == 2
    assert not (place / "out").exists()
    with pytest.raises(ConfigError, match=r"labels\.file"):
        forms.read(Labels(file=str(place / "none.csv")))
