"""A worker's signs of progress: a slow batch lives, a call that never returns ends its process and says so first."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cleanplate.models import devices
from cleanplate.pipeline.engine.poison import Verdict
from cleanplate.pipeline.engine.pulse import Pulse

ROOT = Path(__file__).parent.parent.parent.parent

HANGS = """
import re, sys, time
from cleanplate.pipeline.engine.pulse import Pulse
from cleanplate.pipeline.engine import pulse
from cleanplate.pipeline.engine.poison import Attempts
pulse._MARGIN_S = 1.0
attempts = Attempts(sys.argv[1])
attempts.begin("u/detect")
with Pulse(attempts, "u/detect", 0.4):
    if sys.argv[2] == "sleeps":
        time.sleep(60)
    else:
        re.match("(a|a)*$", "a" * 60 + "b")  # Holds the interpreter's lock, for years.
"""


class Reports:
    """A Tracker that keeps its rows."""

    def __init__(self) -> None:
        self.rows: list[dict[str, int]] = []

    def begin(self, work: str) -> Verdict:
        return Verdict()

    def announce(self, work: str, images: Sequence[str]) -> None:
        """Not asked here."""

    def progress(self, work: str, rows: dict[str, int]) -> None:
        self.rows.append(rows)

    def give_up(self, work: str, silent_s: float) -> None:
        raise AssertionError("ended while it made progress")

    def end(self, work: str, rows: dict[str, int]) -> None:
        """Not asked here."""


def test_a_slow_batch_that_makes_progress_is_not_ended() -> None:
    reports = Reports()
    with Pulse(reports, "u/detect", patience=1.0) as pulse:
        for _ in range(8):  # Four times its patience, each pass a quarter.
            time.sleep(0.5)
            devices.progressed()
        pulse.did("detect", 4)
        time.sleep(0.8)
    assert {"detect": 4} in reports.rows
    assert pulse.rows == {}
    devices.progressed()  # Nobody listens any more.


def ended(journal: Path, how: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HANGS, str(journal), how],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


def test_a_call_that_never_returns_ends_its_process_which_says_so_first(tmp_path: Path) -> None:
    done = ended(tmp_path / "journal", "sleeps")
    assert done.returncode == 1
    assert "time.sleep(60)" in done.stderr or "line 11" in done.stderr, done.stderr
    assert '["give_up", "u/detect", 0.' in (tmp_path / "journal").read_text()


def test_a_call_that_holds_the_interpreter_is_ended_too(tmp_path: Path) -> None:
    done = ended(tmp_path / "journal", "spins")
    assert done.returncode == 1
    assert "Timeout" in done.stderr
