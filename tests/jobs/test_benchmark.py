"""`cleanplate benchmark --quick`: every part that needs no cluster runs and says what it promises."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.__main__ import main
from models import bench, bench_limits
from models.fast import bf16_is_native
from models.lama import LAMA

QUICK = "inpaint,exact,limit,margins,pipeline,overhead"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    out = tmp_path_factory.mktemp("bench")
    assert main(["benchmark", "--quick", "--rounds", "1", "--only", QUICK, "--out", str(out)]) == 0
    ET.fromstring((out / "benchmark.svg").read_text(encoding="utf-8"))
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
    assert results["cost"]["whole run, one core"]["usd_per_million"] > 0
    assert {row["hole"] for row in results["margins"]} == {40}


def test_wrong_flags_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--only", "inpaint,speed", "--out", str(tmp_path)]) == 2
    assert "speed" in capsys.readouterr().err
    assert main(["benchmark", "--workers", "1,two", "--out", str(tmp_path)]) == 2
    assert "1,two" in capsys.readouterr().err


def test_the_rivals_crops_hold_their_parts_with_the_margin() -> None:
    mask = np.zeros((700, 900), np.bool_)
    mask[300:340, 400:450] = mask[0:10, 880:900] = True
    boxes = sorted(bench.component_boxes(mask))
    assert boxes == [(272, 172, 578, 468), (624, 0, 900, 266)]


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_blobs_cover_what_was_asked(share: float) -> None:
    mask = bench.blobs(np.random.default_rng(0), 200, 300, share)
    assert share <= mask.mean() < share * 1.4


def test_work_is_counted_as_by_hand() -> None:
    """big-lama at 512 x 512: 219.9 GMAC without the FFTs."""
    with torch.device("cpu"):
        model = bench.random_generator(LAMA["big-lama"])
    assert bench_limits.gmac(model, 512) == pytest.approx(219.9, abs=0.5)


@pytest.mark.slow
def test_more_workers_do_more() -> None:
    from jobs.benchmark_flow import scaling

    one, two = scaling([1, 2], units_a_worker=3, rows=4)
    assert two["images_per_s"] > 1.5 * one["images_per_s"]
