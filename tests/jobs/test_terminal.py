"""A run in a real terminal (a pty): one live panel; Ctrl-C ends it cleanly, and the same command goes on."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections import Counter
from pathlib import Path

import pytest

from cleanplate.jobs.cli.app import main
from rigs.flow_rig import folder, put_photos, rows_of

ROOT = Path(__file__).parent.parent.parent
FLAGS = ["--remove", "faces", "--inpainter", "telea", "--set", "units.rows=2"]


class Terminal:
    """A command with a pty of 100 x 30 as its controlling terminal; what it writes is kept."""

    def __init__(self, words: list[str]) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cleanplate", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=ROOT,
            env={**os.environ, "TERM": "xterm-256color"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.seen = ""

    def read_until(self, wanted: str, timeout_s: float = 240.0) -> str:
        """What came until `wanted` did, or the end of the command."""
        deadline = time.monotonic() + timeout_s
        while wanted not in self.seen:
            assert time.monotonic() < deadline, self.seen[-3000:]
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.master, 65536).decode(errors="replace")
                except OSError:  # Linux's way to say that the other end closed.
                    break
        return self.seen

    def press_ctrl_c(self) -> None:
        """As the key does it: the terminal sends SIGINT to the whole foreground group."""
        os.write(self.master, b"\x03")

    def end(self) -> int:
        self.read_until("\0no such text")
        os.close(self.master)
        return self.process.wait(timeout=60)


def stop_and_go_on(tmp_path: Path, where: list[str], photos: int) -> None:
    source, output = folder(tmp_path / "in"), str(tmp_path / "out")
    files = put_photos(source, photos)
    terminal = Terminal(["run", source, output, *FLAGS, *where])
    terminal.read_until(f"4 / {photos}")
    terminal.press_ctrl_c()
    assert terminal.end() == 3, terminal.seen[-2000:]
    seen = terminal.seen
    assert "Traceback" not in seen
    assert "╭" in seen
    assert "ms/image" in seen
    assert "\x1b[?25l" in seen, "the cursor is hidden while the panel is drawn"
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l"), "... and given back"
    result = seen[seen.rindex("cleanplate: stopped") :]
    assert "What is committed stays" in result
    assert "run the same command again to continue: cleanplate run" in result
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "parts").iterdir()}
    assert 2 <= len(before) < photos / 2, "some units are committed, not all"

    again = Terminal(["run", source, output, *FLAGS, *where])
    assert again.end() == 0, again.seen[-2000:]
    assert f"{2 * len(before)} committed before" in again.seen
    assert f"{photos} / {photos} done" in again.seen
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "parts").iterdir()}
    assert {name: after[name] for name in before} == before
    assert set(Counter(row["image_id"] for row in rows_of(output)).values()) == {1}
    assert len(rows_of(output)) == len(files)


def test_ctrl_c_ends_cleanly_and_the_same_command_goes_on(tmp_path: Path) -> None:
    stop_and_go_on(tmp_path, ["--here"], 72)


@pytest.mark.slow
def test_ctrl_c_on_ray_ends_cleanly_and_the_same_command_goes_on(tmp_path: Path) -> None:
    stop_and_go_on(tmp_path, [], 80)


def test_a_machine_reads_json_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = folder(tmp_path / "in"), str(tmp_path / "out")
    put_photos(source, 2)
    words = ["run", source, output, *FLAGS, "--here", "--json"]
    rows = []
    for _ in range(2):
        assert main(words) == 0
        out, err = capsys.readouterr()
        assert err == "", "nothing but errors goes to stderr"
        rows.append([json.loads(line) for line in out.splitlines()])
    assert [line["event"] for line in rows[0]] == [
        "start",
        "planned",
        "engine",
        "progress",
        "progress",
        "end",
    ]
    assert [line["event"] for line in rows[1]] == ["start", "planned", "end"], "nothing was left to do"
    assert rows[1][1]["committed_before"] == rows[1][2]["rows"] == 2
    assert main(["status", output, "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["event"], status["images_left"], status["rows"]) == ("status", 0, 2)
    assert main([*words, "--remove", "text"]) == 2
    error = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (error["event"], error["exit_code"]) == ("error", 2)
    assert "another recipe" in error["message"]
