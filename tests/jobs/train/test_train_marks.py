import csv

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open

from cleanplate.jobs.photos import open_photos
from cleanplate.jobs.train.command import main
from cleanplate.models.detectors import unet
from cleanplate.models.training.data import hold_out, name_of
from cleanplate.models.training.marks.loop import MarksRecipe
from cleanplate.models.training.marks.objective import losses
from cleanplate.models.training.run import learning_rate
from cleanplate.models.weights.registry import sha256_of


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for n in range(6):
        rng = np.random.default_rng(n)
        image = np.linspace(rng.integers(0, 80, 3), rng.integers(150, 255, 3), 90)[None].repeat(80, 0)
        cv2.imwrite(str(folder / f"{n}.png"), image.astype(np.uint8))
    return folder


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text("model: marks-tiny\nsteps: 4\ncrop: 32\nbatch: 2\nlr: 1.0e-3\nlog_every: 1\nwarmup: 1\n")
    return path


def test_train_stop_go_on_and_export_as_one_run(tmp_path, photos, recipe_file):
    """A run that is stopped and goes on ends with the weights of one that was not."""
    weights = tmp_path / "tiny.safetensors"
    command = [str(recipe_file), str(photos), str(tmp_path / "out"), "--threads", "1"]
    assert main([*command, "--stop-after", "2"]) == 0
    assert main([*command, "--export", str(weights)]) == 0
    with (tmp_path / "out" / "train.csv").open(newline="") as stream:
        assert [row["step"] for row in csv.DictReader(stream)] == ["1", "2", "3", "4"]
    with safe_open(weights, "pt") as opened:
        facts = opened.metadata()
    assert facts["licence"] == "Apache-2.0"
    assert facts["model"] == "marks-tiny"
    assert facts["photographs"] == "5"
    assert int(facts["fonts"]) > 3
    assert len(facts["fonts_sha256"]) == 64
    assert list((tmp_path / "out" / "samples").glob("*.jpg"))
    assert main([str(recipe_file), str(photos), str(tmp_path / "whole"), "--threads", "1"]) == 0
    ends = [torch.load(tmp_path / name / "last.pt", weights_only=True)["model"] for name in ("out", "whole")]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    net = unet.load(weights, "marks-tiny")
    found = unet.probability(net, [np.zeros((50, 70, 3), np.uint8)])
    assert found.shape == (1, 50, 70)
    assert 0 <= found.min() <= found.max() <= 1


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--set", "crop=33"], "multiple of 32"),
        (["--set", "colour=red"], "colour"),
        (["--workers", "2"], "--workers"),
        (["--fonts", "nowhere"], "no usable font"),
    ],
)
def test_bad_configuration_is_said_before_work(tmp_path, photos, recipe_file, capsys, extra, message):
    assert main([str(recipe_file), str(photos), str(tmp_path / "out"), *extra]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_training_starts_from_weights_and_without_some_photographs(tmp_path, photos, recipe_file):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    command = [str(recipe_file), str(photos), "--threads", "1"]
    assert main([*command, str(tmp_path / "a"), "--export", str(first)]) == 0
    kept, _ = hold_out(open_photos(str(photos), "train"), 0.05)
    out = tmp_path / "left-out.txt"
    out.write_text("".join(f"{name}\n" for name in ("elsewhere/5.png", *map(name_of, kept[:2]))))
    flags = ["--init", str(first), "--leave-out", str(out), "--set", "lr=1.0e-9", "--export", str(second)]
    assert main([*command, str(tmp_path / "b"), *flags]) == 0
    with safe_open(first, "pt") as one, safe_open(second, "pt") as other:
        facts = other.metadata()
        assert torch.allclose(one.get_tensor("head.weight"), other.get_tensor("head.weight"), atol=1e-4)
    assert facts["initial_sha256"] == sha256_of(first)
    assert facts["photographs"] == "3"


def test_more_pictures_are_trained_on_and_none_of_them_is_held_out(tmp_path, photos, recipe_file):
    more, weights = tmp_path / "more", tmp_path / "tiny.safetensors"
    (more / "walls").mkdir(parents=True)
    for n in range(20):
        wall = np.random.default_rng(n).integers(0, 255, (70, 70, 3), np.uint8)
        cv2.imwrite(str(more / "walls" / f"{n}.png"), wall)
    command = [str(recipe_file), str(photos), str(tmp_path / "out"), "--threads", "1", "--more", str(more)]
    assert main([*command, "--export", str(weights)]) == 0
    with safe_open(weights, "pt") as opened:
        assert opened.metadata()["photographs"] == "25"


def test_weights_of_another_network_start_nothing(tmp_path, photos, recipe_file, capsys):
    first = tmp_path / "first.safetensors"
    command = [str(recipe_file), str(photos), "--threads", "1", "--stop-after", "1"]
    assert main([*command, str(tmp_path / "a"), "--export", str(first)]) == 0
    assert main([*command, str(tmp_path / "b"), "--init", str(first), "--set", "model=strokes"]) == 2
    assert "initial weights are not those of strokes" in capsys.readouterr().err


def test_strokes_are_trained_on_straightened_lines(tmp_path, photos):
    path, weights = tmp_path / "lines.yaml", tmp_path / "lines.safetensors"
    path.write_text("model: strokes\nsteps: 1\ncrop: 64\nbatch: 2\nlr: 1.0e-3\nlog_every: 1\nwarmup: 1\n")
    command = [str(path), str(photos), str(tmp_path / "out"), "--threads", "1", "--export", str(weights)]
    assert main(command) == 0
    found = unet.probability(unet.load(weights, "strokes"), [np.zeros((64, 128, 3), np.uint8)])
    assert found.shape == (1, 64, 128)
    sheet = cv2.imread(str(next((tmp_path / "out" / "samples").glob("*.jpg"))))
    assert sheet.shape[1] == 2 * 3 * 64  # two columns of strip, truth and chance


def test_another_recipe_does_not_go_on_unasked(tmp_path, photos, recipe_file, capsys):
    command = [str(recipe_file), str(photos), str(tmp_path / "out"), "--threads", "1", "--stop-after", "1"]
    assert main(command) == 0
    assert main([*command, "--set", "lr=0.5"]) == 2
    assert "another recipe" in capsys.readouterr().err


def test_weights_of_another_network_are_refused(tmp_path, photos, recipe_file):
    weights = tmp_path / "tiny.safetensors"
    command = [str(recipe_file), str(photos), str(tmp_path / "out"), "--threads", "1", "--stop-after", "1"]
    assert main([*command, "--export", str(weights)]) == 0
    with pytest.raises(ValueError, match="does not hold the weights"):
        unet.load(weights, "marks")


def test_the_network_is_compact():
    net = unet.build(unet.MARKS["marks"])
    assert sum(p.numel() for p in net.parameters()) < 3_000_000


def test_the_learning_rate_warms_up_stays_and_falls():
    recipe = MarksRecipe(model="marks", steps=100, crop=32, batch=1, lr=1.0, warmup=10, decay=0.5)
    rates = [learning_rate(recipe, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:50] == [1.0] * 40
    assert rates[75] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0)


def test_pixels_that_cannot_be_seen_teach_nothing():
    logits = torch.zeros(1, 1, 4, 4, requires_grad=True)
    mask, counted = torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    counted[..., 0] = 1
    torch.stack(list(losses(logits, mask, counted).values())).sum().backward()
    assert (logits.grad[..., 0] < 0).all()
    assert (logits.grad[..., 1:] == 0).all()
