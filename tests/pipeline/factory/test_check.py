"""What is checked before a run: published weights by their digest alone, without torch; a user's file by opening it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cleanplate.models.weights.registry import resolve
from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.factory.check import check
from cleanplate.pipeline.recipe.recipe import load

PLAN = """
import sys
from cleanplate.jobs.cli.app import main
assert main(["plan", sys.argv[1], sys.argv[2], "--allow-empty"]) == 0
assert "torch" not in sys.modules, "two seconds of a command that computes nothing"
"""


def test_plan_does_without_torch(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PLAN, str(tmp_path / "in"), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_users_file_of_another_kind_is_refused_before_the_run(tmp_path: Path) -> None:
    other = tmp_path / "mine.safetensors"
    other.write_bytes(resolve("marks").read_bytes())
    with pytest.raises(ConfigError, match="does not hold the weights of a LaMa"):
        check(load(None, {"remove": ["face"], "inpaint.name": str(other)}))
