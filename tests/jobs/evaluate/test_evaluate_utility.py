"""`evaluate utility`: what cleaning leaves of a labelled set, over photographs with known labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pil

from cleanplate.jobs.cli.app import main

PHOTO = Path("jobs/demo_photos/astronaut.jpg").absolute()
PERSON = [90, 5, 260, 507]
"""xywh in the photograph, as a person would draw it; she fills most of it."""
HIDE = ["--remove", "face", "--set", "verify.passes=0"]


@pytest.fixture
def labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two photographs with a person, one plain picture, and their COCO file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    photo = Pil.open(PHOTO).convert("RGB")
    photo.save("photos/one.jpg", quality=92)
    photo.transpose(Pil.Transpose.FLIP_LEFT_RIGHT).save("photos/two.jpg", quality=92)
    Pil.new("RGB", (200, 160), (120, 130, 110)).save("photos/plain.png")
    mirrored = [512 - PERSON[0] - PERSON[2], *PERSON[1:]]
    sizes = [("one.jpg", 512, 512), ("two.jpg", 512, 512), ("plain.png", 200, 160), ("gone.jpg", 99, 99)]
    boxes = [(1, 1, PERSON), (2, 1, mirrored), (1, 2, [0, 0, 20, 20]), (2, 1, [600, 600, 9, 9])]
    boxes.append((4, 1, [0, 0, 20, 20]))
    body = {
        "images": [
            {"id": n, "file_name": name, "width": w, "height": h} for n, (name, w, h) in enumerate(sizes, 1)
        ],
        "annotations": [
            {"id": n, "image_id": image, "category_id": kind, "bbox": box}
            for n, (image, kind, box) in enumerate(boxes, 1)
        ],
        "categories": [{"id": 1, "name": "Person"}, {"id": 2, "name": "bagpipe"}],
    }
    Path("labels.json").write_text(json.dumps(body))
    return tmp_path


def ways() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("out/utility.json").read_text())
    return found


def test_hidden_faces_leave_persons_and_their_labels(
    labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "utility", "photos", "out", "--labels", "labels.json", *HIDE]) == 0
    body = ways()
    before, carried, as_they_were, dropped = body["ways"].values()
    assert (before["pictures"], before["labels"]) == (3, 2)
    assert before["ap50"] == 1.0
    assert 0.3 < before["ap"] <= 1
    assert carried["labels"] == as_they_were["labels"] == 2
    assert carried["ap"] == as_they_were["ap"] > 0
    assert carried["ap50"] == 1.0, "a mosaic over the face does not hide the person from the detector"
    assert (dropped["pictures"], dropped["labels"], dropped["ap"]) == (1, 0, None)
    assert body["kinds"] == {"person": [0]}
    assert body["words_left_out"] == {"label 'bagpipe'": 1}
    assert body["left_out"].pop("label of a picture that is not there") == 1
    assert sum(body["left_out"].values()) == 1
    printed = capsys.readouterr().out
    assert "left out: 1 x label 'bagpipe'" in printed
    assert "lies outside the picture" in printed
    assert Path("out/table.md").read_text() in printed
    assert "AP by kind" in printed
    assert (before["difference"], dropped["difference"]) == (0, None)
    assert carried["difference"] == pytest.approx(carried["ap"] - before["ap"])


def test_removed_persons_take_their_labels_along(labelled: Path) -> None:
    words = ["--remove", "person", "--inpainter", "telea", "--set", "verify.passes=0", "--limit", "2"]
    words += ["--set", "inpaint.fallbacks=[]", "--set", "masks.max_coverage=0.9"]
    assert main(["evaluate", "utility", "photos", "out", "--labels", "labels.json", *words]) == 0
    before, carried, as_they_were, dropped = ways()["ways"].values()
    assert before["pictures"] == 2
    assert before["labels"] == as_they_were["labels"] == 1
    assert (carried["labels"], carried["ap"]) == (0, None)
    assert as_they_were["ap"] < before["ap"]
    assert dropped["pictures"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--labels", "gone.json"], "--labels gone.json"),
        (["--labels", "other.json"], "names no picture of photos"),
        (["--labels", "words.csv"], "none of its words is one of COCO's 80: label 'bagpipe'"),
        (["--labels", "labels.json", "--limit", "0"], "--limit"),
        (["--labels", "labels.json", "--remove", "faec"], "did you mean 'face'"),
    ],
)
def test_wrong_use(
    labelled: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("other.json").write_text('[{"image": "else.jpg", "box": [0, 0, 9, 9], "label": "person"}]')
    Path("words.csv").write_text("image,label,x0,y0,x1,y1\none.jpg,bagpipe,0,0,9,9\n")
    assert main(["evaluate", "utility", "photos", "out", *words]) == 2
    assert message in capsys.readouterr().err
    assert not Path("out").exists()
