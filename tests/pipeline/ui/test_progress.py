"""What a run shows: its state as data, and that in a terminal, a notebook, a log and JSON."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cleanplate.pipeline.engine import queues
from cleanplate.pipeline.ledger.receipt import Problem, Receipt
from cleanplate.pipeline.ui.progress import Notebook, Progress
from cleanplate.pipeline.ui.terminal import as_html, clock, line, panel
from rigs.flow_rig import clean, faces, folder, put_photos

ROOT = Path(__file__).parents[3]


def receipt(rows: int = 4, **statuses: int) -> Receipt:
    bad = tuple(
        Problem(f"file:///x/{n}.jpg", "read/corrupt", "cut short") for n in range(statuses.get("failed", 0))
    )
    causes = {"read/corrupt": len(bad)} if bad else {}
    return Receipt("u", rows, statuses, causes, True, 1.0, {"read": 10.0 * rows, "detect": 30.0 * rows}, bad)


def shown(renderable: Any, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture
def progress() -> Progress:
    result = Progress(40, 8, shown="none", title="/data/out")
    result.start -= 10  # ten seconds ago
    result(receipt(4, cleaned=3, unchanged=1))
    result(receipt(4, cleaned=2, failed=2))
    return result


def test_the_state_counts_rows_times_and_what_is_left(progress: Progress) -> None:
    state = progress.state()
    assert (state["done"], state["total"], state["committed_before"]) == (16, 40, 8)
    assert state["statuses"] == {"cleaned": 5, "unchanged": 1, "failed": 2}
    assert state["images_per_s"] == pytest.approx(0.8, rel=0.05)
    assert state["eta_s"] == pytest.approx(30, abs=2)
    assert state["stages"]["detect"] == {"ms_per_image": 30.0, "images_per_s": 33.33, "share": 0.75}
    assert [error["message"] for error in state["errors"]] == ["cut short", "cut short"]
    json.dumps(state)


def test_what_is_done_within_a_unit_is_shown() -> None:
    result = Progress(16, 0, shown="none")
    assert "loading models" in line(result.state()).plain
    result.working({"read": 16})
    assert result.state()["loading"]
    result.working({"read": 16, "detect": 8, "segment": 8})
    assert result.state()["in_work"] == {"detect": 8, "segment": 8}
    assert "not committed yet: detect 8, segment 8" in line(result.state()).plain
    assert "not committed yet" in shown(panel(result.state(), ""), 100)
    result(receipt(4, cleaned=4))
    result.working({"read": 16, "detect": 8, "segment": 8, "inpaint": 8, "verify": 4})
    assert result.state()["in_work"] == {"detect": 4, "segment": 4, "inpaint": 4}
    result.working({"read": 12, "detect": 2})  # The second pass counts from nothing.
    assert result.state()["in_work"] == {"detect": 2}


def test_the_rate_is_that_of_the_last_minutes_not_of_the_whole_run() -> None:
    result = Progress(10_000, 0, shown="none")
    result.start -= 3600
    result._recent.append((time.monotonic() - 3000, 9000))
    result(receipt(120, cleaned=120))
    assert result.rate() == pytest.approx(1.0, rel=0.05)


def test_a_run_that_has_done_nothing_has_no_eta_and_no_end_has_none_either() -> None:
    result = Progress(4, 0, shown="none")
    assert result.state()["eta_s"] is None
    result(receipt(4, cleaned=4))
    assert result.state()["eta_s"] is None
    assert "ETA" not in line(result.state()).plain


def test_the_panel_shows_everything_at_three_widths(progress: Progress) -> None:
    progress.queues = (queues.Queue(("read",), 12, 2, 0), queues.Queue(("detect", "verify"), 3, 1, 2))
    for width in (60, 100, 160):
        text = shown(panel(progress.state(), progress.title, width), width)
        assert max(len(row) for row in text.splitlines()) <= width
        for word in ("16 / 40", "2 failed", "detect", "75%", "read/corrupt", "Ctrl-C", "/data/out"):
            assert word in text, (width, word)
    wide = shown(panel(progress.state(), ""), 120)
    assert re.search(r"read +10\.0 +100\.0 +25% +█+ +12 +2", wide)
    assert re.search(r"detect +30\.0 +33\.3 +75% +█+ +3 +1 +2", wide)
    assert "waiting" not in shown(panel({**progress.state(), "queues": []}, ""))


def test_names_from_a_strangers_bucket_do_not_steer_the_terminal() -> None:
    result = Progress(1, 0, shown="none")
    result.errors.append(Problem("s3://b/%1B%5B2J[red]x.jpg", "read/corrupt", "\x1b]0;owned\x07[bold]"))
    text = shown(panel(result.state(), "\x1b[31mtitle"))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]x.jpg" in text, "markup is not obeyed"


def test_a_log_gets_plain_lines_and_says_nothing_twice(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(8, 0, shown="plain", every=0.05) as outcome:
        outcome(receipt(4, cleaned=4))
        time.sleep(0.2)
        outcome(receipt(4, cleaned=4))
    out, err = capsys.readouterr()
    assert out == ""
    result = err.splitlines()
    assert len(result) >= 2
    assert result[-1].startswith("8 / 8 done")
    assert "\x1b" not in err
    with Progress(8, 0, shown="plain", every=0.05):
        time.sleep(0.3)
    assert capsys.readouterr().err.startswith("0 / 8 done"), "it goes on, says a log, before anything is done"
    with Progress(8, 0, shown="plain", every=60):
        time.sleep(0.05)
    assert capsys.readouterr().err == "", "nothing was done: nothing is said"


def test_a_machine_gets_json_lines_with_the_documented_fields(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(8, 0, shown="json", every=60) as result:
        result(receipt(4, cleaned=3, failed=1))
    out, err = capsys.readouterr()
    first, last = (json.loads(text) for text in out.splitlines())
    assert (first["done"], last["done"], err) == (0, 4, "")
    page = (ROOT / "docs" / "pages.md").read_text(encoding="utf-8")
    table = page.split("### The fields of `progress`", 1)[1].split("\n## ", 1)[0]
    documented = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert documented == list(last), "docs/pages.md names every field, in order"


def test_a_reader_that_goes_away_does_not_end_the_run() -> None:
    class Gone:
        shown = "json"

        def show(self, progress: Progress) -> None:
            raise BrokenPipeError

        def close(self, progress: Progress) -> None:
            """Nobody reads."""

    progress = Progress(8, 0, shown="none", every=0.01)
    progress._screen = Gone()  # type: ignore[assignment]
    progress._ticker.start()
    progress._ticker.join(5)
    assert progress._over.is_set()
    progress(receipt(8, cleaned=8))
    assert progress.state()["done"] == 8


def test_a_notebook_has_one_cell_that_is_updated_in_place() -> None:
    rows: list[dict[str, str]] = []

    class Handle:
        def update(self, bundle: dict[str, str], raw: bool) -> None:
            assert raw
            rows.append(bundle)

    def display(bundle: dict[str, str], raw: bool, display_id: bool) -> Handle:
        assert raw
        assert display_id
        rows.append(bundle)
        return Handle()

    progress = Progress(8, 0, shown="none")
    screen = Notebook(display)
    screen.show(progress)
    progress(receipt(8, cleaned=8))
    screen.close(progress)
    assert len(rows) == 2
    assert "8 / 8" in rows[1]["text/plain"]
    assert "interrupt the cell" in rows[0]["text/plain"]
    assert "interrupt" not in rows[1]["text/plain"], "it has ended"
    assert rows[1]["text/html"].startswith("<pre")
    assert "\x1b" not in rows[1]["text/html"]


def test_html_keeps_what_names_hold() -> None:
    bundle = as_html(line({**Progress(1, 0, shown="none").state(), "statuses": {"failed": 2}}))
    assert "2 failed" in bundle["text/html"]


class Ears:
    """A listener that keeps what it is called with."""

    def __init__(self) -> None:
        self.queues: list[tuple[queues.Queue, ...]] = []
        self.notices: list[str] = []
        self.rows: dict[str, int] = {}

    def queued(self, queues: tuple[queues.Queue, ...]) -> None:
        self.queues.append(queues)

    def working(self, rows: Mapping[str, int]) -> None:
        self.rows = {**self.rows, **rows}  # Each call tells what is not committed yet, which may be nothing.

    def notice(self, text: str) -> None:
        self.notices.append(text)


def test_ray_tells_how_full_its_queues_are(tmp_path: Path, ray_local: None) -> None:
    ears = Ears()
    source = folder(tmp_path / "in")
    put_photos(source, 12)
    with queues.listening(ears):
        receipts = clean(source, str(tmp_path / "out"), faces(**{"units.rows": 2}), "ray")
    assert queues._listeners == []
    names = {tuple(queue.stages for queue in one) for one in ears.queues if one}
    assert names == {(("read",), ("detect", "segment", "inpaint", "verify"), ("write",))}
    assert any(queue.running or queue.waiting for one in ears.queues for queue in one)
    assert any(one[1].workers for one in ears.queues if one)
    assert all(r.timings["detect"] > 0 for r in receipts), "receipts carry the stages' times"
    assert ears.rows["detect"] > 0, "stages say what they have done before a unit is committed"


def test_a_ray_that_counts_otherwise_costs_the_queues_not_the_run() -> None:
    ears, watcher = Ears(), queues.Watcher()
    with queues.listening(ears):
        watcher.on_execution_step(object())
        watcher.on_execution_step(object())
    assert ears.queues == []


@pytest.mark.parametrize(("seconds", "text"), [(7, "0:07"), (213, "3:33"), (3729, "1:02:09")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
