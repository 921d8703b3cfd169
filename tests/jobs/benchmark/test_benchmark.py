"""`cleanplate benchmark --quick`: every part that needs no cluster runs and says what it promises."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cleanplate.jobs.cli.app import main
from cleanplate.models.devices import bf16_is_native
from cleanplate.models.evaluation import speed, speed_limits
from cleanplate.models.lama.params import LAMA

QUICK = "inpaint,crops,exact,limit,memory,margins,pipeline,overhead"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    out = tmp_path_factory.mktemp("bench")
    assert main(["benchmark", "--quick", "--rounds", "1", "--only", QUICK, "--out", str(out)]) == 0
    with Image.open(out / "benchmark.png") as picture:
        assert picture.size[1] > 40 * 22, "a bar for each way of each case"
    return dict(json.loads((out / "benchmark.json").read_text(encoding="utf-8")))


def test_the_fast_forms_give_what_the_rivals_give(results: dict) -> None:
    ways = {"ours fp32, whole image", "ours fp32, the same crops"}
    for case in results["inpaint"]["cases"]:
        for name in ways:
            assert case["ways"][name]["max_levels"] <= 1, (case["case"], name)
            assert case["ways"][name]["wall_s"] > 0
    for errors in results["exact"].values():
        assert errors["ours fp32 from eager fp32"]["max_abs"] < 1e-4
        if bf16_is_native("cpu"):
            assert errors["ours bf16 from eager fp32"]["psnr_db"] > 45


def test_the_flow_is_measured(results: dict) -> None:
    assert sum(results["pipeline"]["statuses"].values()) == results["pipeline"]["images"] == 3
    assert results["overhead"]["images"] == 50
    assert results["limit"]["ways"]["ours fp32"]["gmac_per_s"] > 0
    assert results["cost"]["cleanplate run, one core"]["usd_per_million"] > 0
    assert {row["hole"] for row in results["margins"]["rows"]} == {40}
    assert len(results["overhead"]["quarters"]) == 4
    assert set(results["crops"]["fp32"]["seconds"]) == {"64", "96", "128"}
    assert "traceback" not in json.dumps(results).lower()


def test_memory_is_of_a_process_of_its_own(results: dict) -> None:
    for one in results["memory"]["processes"].values():
        assert 50 < one["loaded_mb"] <= one["peak_mb"]


def test_what_there_is_no_time_for_is_left_out_and_the_rest_kept() -> None:
    case = speed.cases(quick=True)[0]
    ran: list[str] = []

    def way(name: str) -> speed.Way:
        return lambda image, mask: (ran.append(name), image)[1]

    ways = {name: way(name) for name in (speed.WHOLE, speed.EAGER, speed.OURS)}
    now = time.perf_counter()
    long = speed.Pace(end=now + 3600, share=now + 600, rates={speed.EAGER: 1000 / case.mask.size})
    found = speed.timed(case, ways, 2, long)
    assert ran == [speed.WHOLE, speed.OURS] * 2, "the slow one that no bar needs is left out"
    assert {name: row["turns"] for name, row in found["ways"].items()} == {speed.WHOLE: 2, speed.OURS: 2}
    ran.clear()
    speed.timed(case, ways, 3, speed.Pace(end=now + 3600, share=now))
    assert ran == [speed.WHOLE, speed.OURS], "once, though the case's share is over"
    ran.clear()
    assert speed.timed(case, ways, 3, speed.Pace(end=now, share=now))["ways"] == {}


def test_a_part_that_fails_is_said_and_the_others_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"no picture")
    flags = ["--photos", str(tmp_path / "photos"), "--only", "pipeline,overhead", "--out", str(tmp_path)]
    assert main(["benchmark", "--quick", "--rounds", "1", *flags]) == 1
    kept = json.loads((tmp_path / "benchmark.json").read_text(encoding="utf-8"))
    assert "ImageError" in kept["pipeline"]["error"]
    assert kept["overhead"]["images"] == 50
    assert "pipeline failed" in capsys.readouterr().out


def test_wrong_flags_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--only", "inpaint,speed", "--out", str(tmp_path)]) == 2
    assert "speed" in capsys.readouterr().err
    assert main(["benchmark", "--workers", "1,two", "--out", str(tmp_path)]) == 2
    assert "1,two" in capsys.readouterr().err


def test_the_rivals_crops_hold_their_parts_with_the_margin() -> None:
    mask = np.zeros((700, 900), np.bool_)
    mask[300:340, 400:450] = mask[0:10, 880:900] = True
    boxes = sorted(speed.component_boxes(mask))
    assert boxes == [(272, 172, 578, 468), (624, 0, 900, 266)]


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_blobs_cover_what_was_asked(share: float) -> None:
    mask = speed.blobs(np.random.default_rng(0), 200, 300, share)
    assert share <= mask.mean() < share * 1.4


def test_work_is_counted_as_by_hand() -> None:
    """big-lama at 512 x 512: 219.9 GMAC without the FFTs."""
    with torch.device("cpu"):
        model = speed.random_generator(LAMA["big-lama"])
    assert speed_limits.gmac(model, 512) == pytest.approx(219.9, abs=0.5)


@pytest.mark.slow
def test_ten_thousand_small_images_cost_the_last_what_they_cost_the_first() -> None:
    """A fault of this kind quadrupled the cost of an image: what was decoded was summed up for each new one."""
    from cleanplate.jobs.benchmark.flow import overhead

    first, *_, last = overhead(10_000)["quarters"]
    assert last["ms_per_image"] < 2 * first["ms_per_image"]
    assert last["mb"] < first["mb"] + 64


@pytest.mark.slow
def test_more_workers_do_more() -> None:
    from cleanplate.jobs.benchmark.flow import scaling

    one, two = scaling([1, 2], units_a_worker=3, rows=4)
    assert two["images_per_s"] > 1.5 * one["images_per_s"]
