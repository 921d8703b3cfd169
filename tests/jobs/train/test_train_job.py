import csv
import hashlib
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from cleanplate.jobs.train.command import main, read_recipe
from cleanplate.models.lama.params import LAMA
from cleanplate.models.training.lama.recipe import check_recipe

DEMO = Path(__file__).parents[3] / "jobs" / "demo_photos"


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
        (["--set", "phases.1.batch=2"], "phases.1.batch: the recipe has no such place"),
        (["--set", "phases.first=2"], "phases.first: the recipe has no such place"),
        (["--set", "phases.0.speed=2"], "speed"),
        (["--encoder", "nowhere.pth"], "no weights or file named 'nowhere.pth'"),
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


@pytest.mark.parametrize(
    "name", ["lama-lite", "lama-lite-more", "lama-lite-flip", "lama-lite-weave", "ablation", "big-lama"]
)
def test_the_recipes_of_the_package_can_be_trained(name):
    recipe = read_recipe(name)
    check_recipe(recipe)
    assert recipe.model in LAMA


def test_fields_of_a_phase_are_set_by_dots(recipe_file):
    recipe = read_recipe(str(recipe_file), ["phases.0.batch=6", "phases.0.fill.hole_l1=0.5", "seed=4"])
    assert (recipe.phases[0].batch, recipe.phases[0].fill.hole_l1, recipe.seed) == (6, 0.5, 4)
    assert recipe.phases[0].steps == 3


@pytest.mark.slow
def test_the_recipe_of_big_lama_trains(tmp_path, photos, caplog):
    """Two steps of all 51 M parameters with the paper's losses and discriminator; smaller crops, small batch."""
    small = ["phases.0.steps=2", "phases.0.batch=2", "phases.0.crop=64", "log_every=1"]
    words = [word for change in small for word in ("--set", change)]
    weights = tmp_path / "big.safetensors"
    command = ["big-lama", str(photos), str(tmp_path / "out"), "--threads", "2", "--export", str(weights)]
    assert main([*command, *words]) == 0
    with (tmp_path / "out" / "train.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["step"] for row in rows] == ["1", "2"]
    for part in ("l1", "adversarial", "feature_matching", "perceptual_substitute", "d_adversarial", "d_r1"):
        assert all(float(row[part]) > 0 for row in rows), part
    assert "the perceptual loss is replaced" in caplog.text
    with safe_open(weights, "pt") as opened:
        assert sum(opened.get_slice(key).get_shape() != [] for key in list(opened.keys())) > 500
    assert weights.stat().st_size > 100_000_000  # 51 M in fp16


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


def put_photos(bucket, photos):
    for path in photos.iterdir():
        bucket.put(f"photos/{path.name}", path.read_bytes())
    return bucket.url("photos")


def losses(bucket, folder):
    rows = csv.DictReader(bucket.get(f"{folder}/train.csv").decode().splitlines())
    return {int(row["step"]): float(row["loss"]) for row in rows}


def test_photographs_and_checkpoints_on_s3(tmp_path, photos, recipe_file, s3, capsys):
    """Stopped after a step and gone on with by a process that has nothing but the bucket."""
    command = [str(recipe_file), put_photos(s3, photos), s3.url("out"), "--threads", "1"]
    assert main([*command, "--stop-after", "1"]) == 0
    assert {"out/last.pt", "out/best.pt", "out/train.csv"} <= set(s3.list("out/"))
    weights = tmp_path / "tiny.safetensors"
    assert main([*command, "--export", str(weights)]) == 0
    assert main([str(recipe_file), str(photos), str(tmp_path / "here"), "--threads", "1"]) == 0
    with (tmp_path / "here" / "train.csv").open(newline="") as stream:
        here = {int(row["step"]): float(row["loss"]) for row in csv.DictReader(stream)}
    assert losses(s3, "out") == here
    assert len([key for key in s3.list("out/samples/") if key.endswith(".jpg")]) == 2
    assert weights.stat().st_size > 10_000


def test_a_damaged_checkpoint_on_s3_is_said(photos, recipe_file, s3, capsys):
    s3.put("out/last.pt", b"half of one")
    assert main([str(recipe_file), str(photos), s3.url("out")]) == 2
    assert "cannot read" in capsys.readouterr().err


def test_a_loss_that_is_no_number_ends_with_its_own_exit_code(tmp_path, photos, recipe_file, capsys):
    command = [str(recipe_file), str(photos), str(tmp_path / "out"), "--threads", "1"]
    assert main([*command, "--stop-after", "1"]) == 0
    phases = "[{steps: 3, crop: 32, batch: 2, lr_from: 1.0e+30, lr_to: 1.0e+30, fill: {hole_l1: 1.0}}]"
    assert main([*command, "--set", f"phases={phases}", "--allow-changed-recipe"]) == 3
    printed = capsys.readouterr().err
    assert "not finite at step" in printed
    assert "last checkpoint is kept" in printed
    assert main([*command, "--allow-changed-recipe"]) == 0


def test_a_gpu_that_is_not_there_is_said(tmp_path, photos, recipe_file, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert main([str(recipe_file), str(photos), str(tmp_path / "out"), "--device", "cuda"]) == 2
    assert "no GPU" in capsys.readouterr().err


def test_small_photographs_are_said_and_enlarged(tmp_path, photos, recipe_file, caplog):
    phases = "[{steps: 1, crop: 96, batch: 2, lr_from: 1.0e-3, lr_to: 1.0e-3, fill: {hole_l1: 1.0}}]"
    words = [str(recipe_file), str(photos), str(tmp_path / "out"), "--set", f"phases={phases}"]
    assert main([*words, "--threads", "1"]) == 0
    assert "6 photographs are smaller than a crop of 96 px" in caplog.text


def test_a_training_starts_from_a_file_of_weights(tmp_path, photos, recipe_file):
    command = [str(recipe_file), str(photos)]
    first = tmp_path / "first.safetensors"
    assert main([*command, str(tmp_path / "a"), "--export", str(first), "--threads", "1"]) == 0
    again = tmp_path / "again.safetensors"
    words = ["--init", str(first), "--export", str(again), "--threads", "1"]
    assert main([*command, str(tmp_path / "b"), *words]) == 0
    with safe_open(again, "pt") as opened:
        assert opened.metadata()["initial_sha256"] == hashlib.sha256(first.read_bytes()).hexdigest()


def test_weights_half_way_between_start_and_end_are_exported(tmp_path, photos, recipe_file, capsys):
    command = [str(recipe_file), str(photos)]
    first, last, between = (tmp_path / f"{name}.safetensors" for name in ("first", "last", "between"))
    assert main([*command, str(tmp_path / "a"), "--export", str(first), "--threads", "1"]) == 0
    words = [*command, str(tmp_path / "b"), "--init", str(first), "--threads", "1"]
    assert main([*words, "--export", str(last)]) == 0
    assert main([*words, "--export", str(between), "--blend", "0.25"]) == 0
    a, b, c = (load_file(path) for path in (first, last, between))
    moved = 0.0
    for name, tensor in c.items():
        if tensor.is_floating_point():
            wanted = 0.75 * a[name].float() + 0.25 * b[name].float()
            torch.testing.assert_close(tensor.float(), wanted, rtol=2e-3, atol=1e-4)
            moved += float((a[name].float() - b[name].float()).abs().sum())
    assert moved > 0
    with safe_open(between, "pt") as opened:
        assert opened.metadata()["blend"] == "0.25"
    other = [*command, str(tmp_path / "b"), "--init", str(last), "--export", str(between), "--blend", "0.5"]
    assert main(other) == 2
    assert "that this training started from" in capsys.readouterr().err
    assert main([*words, "--blend", "0.5"]) == 2
    assert "needs --export and --init" in capsys.readouterr().err


@pytest.fixture
def photographs(tmp_path):
    """Real ones, made small so that they are read fast."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for path in sorted(DEMO.glob("*.jpg")):
        image = cv2.imread(str(path))
        short = min(image.shape[:2])
        size = (image.shape[1] * 160 // short, image.shape[0] * 160 // short)
        cv2.imwrite(str(folder / path.name), cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    return folder


@pytest.mark.slow
def test_a_training_on_photographs_that_is_killed_goes_on_as_if_it_had_not_been(tmp_path, photographs):
    """SIGKILL after some steps, while it computes, and the same command again."""
    phase = "{steps: 24, crop: 64, batch: 4, lr_from: 1.0e-3, lr_to: 1.0e-4, fill: {hole_l1: 1.0, flip: 1.0}}"
    changes = [
        f"phases=[{phase}]",
        "precision=fp32",
        "checkpoint_seconds=0",
        "validate_every=5",
        "log_every=1",
    ]
    words = ["lama-lite", str(photographs)], ["--threads", "1", *(w for c in changes for w in ("--set", c))]
    assert main([*words[0], str(tmp_path / "whole"), *words[1]]) == 0
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "cleanplate.jobs.train.command", *words[0], str(out), *words[1]]
    process = subprocess.Popen(command, cwd=DEMO.parent.parent, stderr=subprocess.DEVNULL)
    try:
        for _ in range(6000):
            if len(logged(out)) >= 6 or process.poll() is not None:
                break
            time.sleep(0.02)
        assert process.poll() is None, "it ended before it could be killed"
    finally:
        process.kill()
        process.wait()
    assert 6 <= len(logged(out)) < 24
    assert main([*words[0], str(out), *words[1]]) == 0
    assert logged(out) == logged(tmp_path / "whole")
    last = [torch.load(folder / "last.pt", weights_only=True) for folder in (out, tmp_path / "whole")]
    for name, tensor in last[0]["average"].items():
        torch.testing.assert_close(tensor, last[1]["average"][name], rtol=0, atol=0)


def logged(folder):
    """(step, loss, flip) of every step that a training logged."""
    table = folder / "train.csv"
    if not table.exists():
        return []
    with table.open(newline="") as stream:
        return [(row["step"], row["loss"], row["flip"]) for row in csv.DictReader(stream) if row["unix_time"]]


@pytest.mark.slow
def test_two_workers_of_ray_train_follow_one(tmp_path, photos, recipe_file, s3_faults, ray_local):
    """The same global batch: batch norm sees half of it in each worker, so the losses agree to some percent.
    Photographs and checkpoints are on S3; the pair is stopped and goes on."""
    phases = "[{steps: 8, crop: 32, batch: 8, lr_from: 1.0e-3, lr_to: 1.0e-3, fill: {hole_l1: 1.0}}]"
    command = [str(recipe_file), put_photos(s3_faults, photos)]
    words = ["--set", f"phases={phases}", "--threads", "1"]
    assert main([*command, s3_faults.url("one"), *words]) == 0
    assert main([*command, s3_faults.url("two"), *words, "--workers", "2", "--stop-after", "4"]) == 0
    assert max(losses(s3_faults, "two")) == 4
    assert main([*command, s3_faults.url("two"), *words, "--workers", "2"]) == 0
    one, two = losses(s3_faults, "one"), losses(s3_faults, "two")
    assert list(one) == list(two) == list(range(1, 9))
    for step in one:
        assert two[step] == pytest.approx(one[step], rel=0.08)


@pytest.mark.slow
def test_what_workers_of_ray_refuse_is_said_as_here(photos, recipe_file, s3_faults, ray_local, capsys):
    s3_faults.put("out/last.pt", b"half of one")
    assert main([str(recipe_file), str(photos), s3_faults.url("out"), "--workers", "2"]) == 2
    assert "cannot read" in capsys.readouterr().err
