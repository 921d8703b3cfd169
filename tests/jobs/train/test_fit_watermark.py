"""The rule of `watermark`, fitted by its command to a few drawn pictures."""

from __future__ import annotations

import random
import shutil

import cv2
import numpy as np
from safetensors.numpy import load_file

from cleanplate.jobs.train.fit_watermark import main, spread
from cleanplate.models.detectors.overlay.rule import read_rule
from cleanplate.models.training.data import Photo
from cleanplate.models.weights.registry import resolve
from rigs.scenes import backdrop


def test_a_rule_is_fitted_and_written_into_the_weights(tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    for n in range(4):
        picture = np.asarray(backdrop((256, 192), random.Random(n)))
        cv2.imwrite(str(photos / f"{n}.png"), picture[..., ::-1])
    weights = tmp_path / "marks.safetensors"
    shutil.copy(resolve("marks"), weights)
    before = read_rule(weights)
    assert main([str(photos), str(weights), "--marks", "6", "--clean", "2"]) == 0
    printed = capsys.readouterr().out
    assert "clean edited" in printed
    assert "rule of 10 pictures" in printed
    after = read_rule(weights)
    assert after != before
    assert set(after.lines) <= set(before.lines), "the evidence has the names that the shipped rule asks for"
    assert set(after.blobs) <= set(before.blobs)
    assert 0 < after.more < after.first < 1
    old, new = load_file(resolve("marks")), load_file(weights)
    assert all(np.array_equal(old[name], new[name]) for name in old)


def test_clean_photographs_are_taken_from_every_source_alike():
    sources = ["flowers"] * 8 + ["streets"] * 2 + ["flowers"] * 4 + ["rooms"]
    photos = [Photo(f"{n}.jpg", source, bytes) for n, source in enumerate(sources)]
    chosen = spread(photos, 6)
    assert [sources[n] for n in chosen].count("flowers") == 3
    assert {sources[n] for n in chosen} == {"flowers", "streets", "rooms"}
    assert spread(photos, 99) == list(range(len(photos)))
