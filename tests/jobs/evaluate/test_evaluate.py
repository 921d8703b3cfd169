"""The evaluate and ablate commands, on three real photographs."""

import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cleanplate.jobs.cli.app import main
from cleanplate.jobs.evaluate.instances import load_instances
from cleanplate.models.lama.generator import build_generator
from cleanplate.models.lama.params import LAMA
from cleanplate.models.training.checkpoint import export_weights
from cleanplate.pipeline.errors import ConfigError

PHOTOS = Path(__file__).parents[2] / "data" / "photos"


@pytest.fixture(autouse=True)
def _threads_as_before(tmp_path, monkeypatch):
    monkeypatch.setenv("CLEANPLATE_WEIGHTS", str(tmp_path / "no-weights"))
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in PHOTOS.glob("*.jpg"):
        (folder / photo.name).write_bytes(photo.read_bytes())
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def test_inpainters_side_by_side(tmp_path, photos, capsys):
    torch.manual_seed(0)
    tiny = tmp_path / "mine.safetensors"
    export_weights(build_generator(LAMA["tiny"]).state_dict(), tiny, {})
    out = tmp_path / "scores"
    words = ["evaluate", str(photos), str(out), "--inpainters", f"telea,{tiny}", "--sizes", "64,128"]
    assert (
        main([*words, "--masks", "narrow,wide,segm", "--curve", "--train-size", "64", "--threads", "1"]) == 0
    )
    shown = capsys.readouterr()
    assert "left out: broken.jpg" in shown.err
    rows = pq.read_table(out / "pairs.parquet").to_pylist()
    table = [row for row in rows if row["study"] == "table"]
    assert {row["inpainter"] for row in rows} == {"telea", "mine"}
    assert {row["masks"] for row in table} <= {"narrow", "wide", "segm"}
    counted = sum(row["masks"] != "segm" for row in table)
    assert counted == 3 * 2 * 2 * 2  # photographs, sizes, kinds, inpainters
    assert [row["size"] for row in rows if row["study"] == "curve"][::2] == [64, 128, 256] * 3
    assert all(0 < row["coverage"] <= 0.5 for row in table)
    assert all(row["psnr"] > 5 and row["flip"] > 0 and row["lpips"] is None for row in rows)
    summary = pq.read_table(out / "summary.parquet").to_pylist()
    mean = next(r for r in summary if (r["masks"], r["size"], r["inpainter"]) == ("wide", 64, "telea"))
    same = [r["psnr"] for r in table if (r["masks"], r["size"], r["inpainter"]) == ("wide", 64, "telea")]
    assert mean["psnr"] == pytest.approx(np.mean(same))
    assert mean["pairs"] == 3
    text = (out / "table.md").read_text()
    assert "needs weights: vgg16, lpips-vgg | needs weights: fid-inception" in text
    assert text.strip() == shown.out.strip()
    assert cv2.imread(str(out / "grid-64.jpg")).shape[1] == 4 * 64  # hole, telea, mine, truth
    assert (out / "curve-psnr.png").exists()
    assert (out / "curve-flip.png").exists()
    assert not (out / "curve-lpips.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--masks", "oval"], "choose from narrow, medium, wide, segm"),
        (["--sizes", "big"], "whole numbers"),
        (["--sizes", "100"], "multiple of 8"),
        (["--inpainters", "magic"], "no weights or file named 'magic'"),
        (["--masks-each", "0"], "at least 1"),
        (["--instances", "nowhere.json"], "not a COCO instances file"),
    ],
)
def test_wrong_words_are_said_before_work(tmp_path, photos, capsys, words, message):
    assert main(["evaluate", "inpaint", str(photos), str(tmp_path / "o"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_an_empty_folder_is_said(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["evaluate", str(tmp_path / "empty"), str(tmp_path / "o")]) == 2
    assert "no photographs" in capsys.readouterr().err


def test_the_picture_of_masks(tmp_path, capsys):
    assert main(["evaluate", "masks", str(PHOTOS), str(tmp_path / "m.jpg"), "--draws", "20"]) == 0
    picture = cv2.imread(str(tmp_path / "m.jpg"))
    assert picture.shape == (9 * (128 + 22), 8 * 128, 3)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]][-1] == "| segmentation"
    assert len(lines) == 2 + 9


def test_instances_of_a_coco_file(tmp_path):
    fields = {
        "images": [{"id": 7, "file_name": "val/a.jpg", "height": 20, "width": 30}],
        "annotations": [
            {"image_id": 7, "segmentation": [[2, 2, 12, 2, 12, 10, 2, 10]]},
            {"image_id": 7, "segmentation": {"size": [20, 30], "counts": [40, 20, 540]}},
            {"image_id": 7, "iscrowd": 1, "segmentation": {"size": [20, 30], "counts": [600]}},
        ],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(fields))
    objects = load_instances(str(path))
    polygon, column = objects("a.jpg")()
    assert polygon.shape == (20, 30)
    assert polygon[2:10, 2:12].all()
    assert polygon.sum() == 80
    assert column[:, 2].all()
    assert column.sum() == 20
    assert objects("b.jpg") is None
    path.write_text("{}")
    with pytest.raises(ConfigError, match="COCO"):
        load_instances(str(path))


def test_ablation_trains_every_variant_and_goes_on(tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(8):
        picture = np.random.default_rng(number).integers(0, 255, (8, 10, 3), np.uint8)
        cv2.imwrite(str(photos / f"{number}.png"), cv2.resize(picture, (96, 80)))
    words = ["ablate", str(photos), str(tmp_path / "out"), "--steps", "2", "--ngf", "4", "--blocks", "1"]
    words += ["--size", "64", "--threads", "1", "--tables", "4", "--set", "validation_share=0.25"]
    assert main([*words, "--limit", "2"]) == 0
    first = capsys.readouterr().out
    assert "### Table 4" in first
    for name in ("fourier", "regular", "fourier-narrow", "regular-narrow"):
        assert f"| {name} |" in first
        assert (tmp_path / "out" / name / "last.pt").exists()
    assert main([*words, "--limit", "2"]) == 0  # nothing is trained again
    assert capsys.readouterr().out == first
    log = (tmp_path / "out" / "fourier" / "train.csv").read_text()
    assert main([*words[:-2], "--set", "seed=5", *words[-2:]]) == 2  # another training in the same folder
    assert "another recipe" in capsys.readouterr().err
    assert (tmp_path / "out" / "fourier" / "train.csv").read_text() == log


def test_table_3_needs_its_encoder(tmp_path, capsys):
    assert main(["ablate", str(PHOTOS), str(tmp_path / "o"), "--tables", "2,3"]) == 2
    assert "needs --encoder" in capsys.readouterr().err
    assert main(["ablate", str(PHOTOS), str(tmp_path / "o"), "--tables", "5"]) == 2
