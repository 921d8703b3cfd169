import csv

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open

from jobs.train import main, read_recipe
from models.lama import LAMA
from models.training.recipe import check_recipe


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = []
    for n in range(8):
        rng = np.random.default_rng(n)
        image = np.linspace(rng.integers(0, 80, 3), rng.integers(150, 255, 3), 72)[None].repeat(64, 0)
        cv2.imwrite(str(folder / f"{n}.png"), image.astype(np.uint8))
        rows.append([f"{n}.png", "drawn", "test" if n == 7 else "train"])
    with (folder / "INDEX.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["path", "source", "split"], *rows])
    return folder


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(
        "model: tiny\nprefill: true\nmuon_ratio: 10.0\nmasks: [[large, 1.0]]\nlog_every: 1\n"
        "phases:\n  - {steps: 3, crop: 32, batch: 2, lr_from: 1.0e-3, lr_to: 1.0e-4, fill: {hole_l1: 1.0}}\n"
    )
    return path


def test_train_stop_go_on_and_export(tmp_path, photos, recipe_file, capsys):
    command = [str(recipe_file), str(photos), str(tmp_path / "out"), "--threads", "1"]
    weights = tmp_path / "tiny.safetensors"
    assert main([*command, "--stop-after", "1"]) == 0
    assert main([*command, "--export", str(weights)]) == 0
    with (tmp_path / "out" / "train.csv").open(newline="") as stream:
        assert [row["step"] for row in csv.DictReader(stream)] == ["1", "2", "3"]
    with safe_open(weights, "pt") as opened:
        facts = opened.metadata()
    assert facts["licence"] == "Apache-2.0"
    assert facts["prefill"] == "pyramid"
    assert facts["photographs"] == "6"  # 8, less one of split=test and one held out
    assert facts["recipe_sha256"] == read_recipe(str(recipe_file)).digest()
    assert str(weights) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--set", "model=huge"], "is not one of"),
        (["--set", "colour=red"], "colour"),
        (["--set", "seed"], "KEY=VALUE"),
        (["--encoder", "nowhere.pth"], "no such file"),
    ],
)
def test_bad_configuration_is_said_before_work(tmp_path, photos, recipe_file, capsys, extra, message):
    assert main([str(recipe_file), str(photos), str(tmp_path / "out"), *extra]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_and_an_unknown_recipe_are_said(tmp_path, recipe_file, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main([str(recipe_file), str(empty), str(tmp_path / "out")]) == 2
    assert "no photographs" in capsys.readouterr().err
    assert main(["nothing", str(empty), str(tmp_path / "out")]) == 2
    assert "lama-lite" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["lama-lite", "big-lama"])
def test_the_recipes_of_the_package_can_be_trained(name):
    recipe = read_recipe(name)
    check_recipe(recipe)
    assert recipe.model in LAMA


def test_big_lama_is_the_papers():
    recipe = read_recipe("big-lama")
    (phase,) = recipe.phases
    assert (recipe.steps, phase.crop, phase.batch, phase.lr_from, phase.lr_to) == (
        1_000_000,
        256,
        120,
        1e-3,
        1e-3,
    )
    assert phase.paper is not None
    assert (phase.paper.adversarial, phase.paper.perceptual, phase.paper.feature_matching) == (10, 30, 100)
