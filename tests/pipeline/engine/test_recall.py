"""The estimate of what was missed: a sample looked at again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image as Pil

from cleanplate.jobs.cli.app import main
from cleanplate.pipeline.engine import recall
from cleanplate.pipeline.engine.job import spread_here
from cleanplate.pipeline.storage.connect import open_store
from rigs.bad_images import BAD
from rigs.flow_rig import FACES, clean, faces, folder
from rigs.scenes import DEMO_PHOTOS


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four photographs without a person, two of one face, and a broken file."""
    place = tmp_path_factory.mktemp("recall")
    folder(place / "in")
    for name in ("aitzgorri", "picos", "tulips", "sunset"):
        shutil.copy(DEMO_PHOTOS / f"{name}.jpg", place / "in")
    face = Pil.open(DEMO_PHOTOS / "astronaut.jpg").resize((256, 256))
    face.save(place / "in" / "one.png")
    face.crop((0, 0, 240, 240)).save(place / "in" / "two.png")
    (place / "in" / "broken.jpg").write_bytes(BAD["zero bytes"][1]())
    return str(place / "in")


def test_what_was_removed_and_what_was_missed(source: str, tmp_path: Path) -> None:
    clean(source, str(tmp_path / "all"), faces())
    good = recall.estimate(open_store(str(tmp_path / "all")), faces(), spread_here, 100)
    assert [(one["kind"], one["removed"], one["missed"]) for one in good] == [("face", 2, 0)]
    assert good[0]["images"] == 6, "the failed row has no picture to look at"
    blind = faces(**{"detect.face.where": [0, 0, 0.01, 0.01]})
    clean(source, str(tmp_path / "none"), blind)
    output = open_store(str(tmp_path / "none"))
    bad = recall.estimate(output, faces(), spread_here, 100)
    assert [(one["removed"], one["missed"], one["recall"]) for one in bad] == [(0, 2, 0.0)]
    assert recall.estimate(output, blind, spread_here, 100) == [], "the recipe's limits hold here too"


def test_the_sample_is_the_same_each_time_and_as_large_as_asked(source: str, tmp_path: Path) -> None:
    clean(source, str(tmp_path / "out"), faces())
    output = open_store(str(tmp_path / "out"))
    three = recall._sample(output, 3)
    assert len(three) == 3
    assert recall._sample(output, 3) == three
    assert set(three) < set(recall._sample(output, 5))
    assert recall.sample_size(49, None) == 0, "fewer could tell nothing"
    assert (
        recall.sample_size(50, None) == recall.sample_size(204, None) == recall.sample_size(5_000, None) == 50
    )
    assert recall.sample_size(12_000, None) == 120
    assert recall.sample_size(1_000_000, None) == 200
    assert recall.sample_size(5, 100) == 5


def test_the_lower_end_is_told_first() -> None:
    from cleanplate.jobs.commands.run import _recalled

    low, high = recall.wilson(1, 1)
    one = {"kind": "face", "recall": 1.0, "low": low, "high": high, "removed": 1, "missed": 0, "images": 50}
    assert _recalled(one).startswith(
        "recall of face: at least 21% (95 %: 21% to 100%, estimate 100%; 1 removed"
    )
    assert "too few to tell" in _recalled({**one, "images": 49})


def test_wilson_holds_at_the_ends() -> None:
    assert recall.wilson(10, 10) == (pytest.approx(0.7225, abs=1e-3), 1.0)
    assert recall.wilson(0, 10)[0] == 0.0
    low, high = recall.wilson(95, 100)
    assert (low, high) == (pytest.approx(0.888, abs=2e-3), pytest.approx(0.978, abs=2e-3))


def test_a_run_tells_and_keeps_it(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    flags = [f"--set={key}={json.dumps(value)}" for key, value in FACES.items() if key != "remove"]
    words = ["run", source, out, "--remove", "faces", "--here", "--recall", "6", *flags]
    assert main(words) == 1
    assert (
        "recall of face: too few to tell (2 removed, 0 possibly missed in 6 images" in capsys.readouterr().err
    )
    store = open_store(out)
    events = [json.loads(store.get(item.key)) for item in store.list("events") if "complete" in item.key]
    assert events[0]["recall"][0]["removed"] == 2
    assert main([*words[: -len(flags)], "--recall", "-1"]) == 2
