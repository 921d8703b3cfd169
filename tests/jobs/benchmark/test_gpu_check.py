"""`make gpu-check` on the CPU: that it works, and that what differs is reported. No figure here is of a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cleanplate.jobs.benchmark import gpu_check
from cleanplate.models.types import Region

SMALL = ["--device", "cpu", "--images", "1", "--model", "tiny", "--side", "64", "--batch", "2"]


def region(score: float, x: float = 0.0) -> Region:
    return Region("face", "test", score, (x, 0.0, x + 10.0, 10.0), None)


def test_finds_are_alike_when_place_and_score_are() -> None:
    assert gpu_check._alike([region(0.9)], [region(0.88, 0.2)]) == (1, 1)
    assert gpu_check._alike([region(0.9)], [region(0.8)]) == (0, 2)
    assert gpu_check._alike([region(0.9), region(0.7, 50)], [region(0.9)]) == (1, 2)


def test_a_cpu_equals_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.json"
    parts = ["--only", "machine,finds,lama,transfers", "--kinds", "code"]
    assert gpu_check.main([*SMALL, *parts, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["finds"]["rows"][0]["apart"] == 0
    assert found["lama"]["tmac_per_s"]["fp32"] > 0
    for row in found["lama"]["rows"]:
        assert row["max_abs_from_cpu"] < (1e-3 if row["precision"] == "fp32" else 0.2)
    assert found["transfers"]["gb_per_s"]["pageable"] > 0
    assert "images per s" in capsys.readouterr().out


def test_what_differs_or_fails_is_in_the_exit_code() -> None:
    assert gpu_check._wrong({"finds": {"rows": [{"apart": 1}]}})
    assert gpu_check._wrong({"lama": {"error": "no memory"}})
    assert not gpu_check._wrong({"finds": {"rows": [{"apart": 0}]}, "lama": {"left_out": "no time left"}})


@pytest.mark.slow
def test_the_default_job_and_workers_of_their_own(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    assert gpu_check.main([*SMALL, "--only", "stages,shares", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert {row["stage"] for row in found["stages"]["rows"]} >= {"detect", "inpaint", "verify"}
    assert found["shares"]["rows"][0]["images_per_s"] > 0


@pytest.mark.gpu
def test_a_gpu_finds_what_a_cpu_finds(tmp_path: Path) -> None:
    assert (
        gpu_check.main(["--only", "machine,finds", "--images", "6", "--out", str(tmp_path / "found.json")])
        == 0
    )
