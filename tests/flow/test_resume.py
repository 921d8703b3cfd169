"""Kill anything, run the same command again: every input ends in exactly one committed row."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from cleanplate.pipeline.engine import run as runs
from cleanplate.pipeline.ledger import ledger
from cleanplate.pipeline.ledger.orphans import sweep
from cleanplate.pipeline.ledger.proof import prove
from cleanplate.pipeline.ledger.receipt import Receipt
from cleanplate.pipeline.storage.connect import open_store
from rigs.flow_rig import check_complete, faces, folder, put_photos

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--remove",
    "faces",
    "--inpainter",
    "telea",
    "--faces",
    "telea",
    "--passes",
    "1",
    "--workers",
    "2",
    "--set",
    "units.rows=4",
]


def start(source: str, output: str) -> subprocess.Popen[bytes]:
    """`cleanplate run` as its users start it, in a process group of its own."""
    command = [sys.executable, "-m", "cleanplate", "run", source, output, *FLAGS]
    return subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def parts(output: str) -> dict[str, bytes]:
    store = open_store(output)
    return {name: store.get(f"parts/{name}") for name in ledger.part_keys(store)}


def wait_for_parts(output: str, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 200
    while len(ledger.part_keys(open_store(output))) < count:
        assert process.poll() is None, f"ended early: {process.stdout.read().decode()}"  # type: ignore[union-attr]
        assert time.monotonic() < deadline, "no parts came"
        time.sleep(0.2)


def processes(title: str) -> list[int]:
    """Process ids of Ray's workers whose title has these words: they are called "ray::MapWorker(...)"."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):  # It ended while we looked.
            if entry.name.isdigit() and title.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def test_kill_9_of_the_driver_and_the_same_command_again(tmp_path: Path) -> None:
    source, output = folder(tmp_path / "in"), str(tmp_path / "out")
    files = put_photos(source, 80)
    first = start(source, output)
    wait_for_parts(output, 2, first)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    again = start(source, output)
    before = parts(output)
    assert 2 <= len(before) < 20, "killed in the middle"
    text = again.communicate(timeout=280)[0].decode()
    assert again.returncode == 0, text
    assert "80 images in 20 units" in text
    after = parts(output)
    assert {name: after[name] for name in before} == before, "finished parts are not done again"
    check_complete(source, output, files)


def test_kill_9_of_actors_while_the_run_goes_on(tmp_path: Path, ray_local: None) -> None:
    source, output = folder(tmp_path / "in"), str(tmp_path / "out")
    files = put_photos(source, 60)
    run = runs.start(source, output, faces(**{"units.rows": 4}))
    units = runs.plan_new(run)
    killed: list[int] = []

    def kill_a_worker(_: Receipt) -> None:
        if len(killed) < 2:
            actors = [pid for pid in processes("_Group") if pid not in killed]
            if actors:
                killed.append(actors[-1])
                os.kill(actors[-1], signal.SIGKILL)

    runs.execute(run, units, "ray", kill_a_worker)
    assert killed, "no actor was there to be killed"
    check_complete(source, output, files)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_schedulers_stop_keep_what_is_committed_and_say_how_to_go_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    source, output = folder(tmp_path / "in"), str(tmp_path / "out")
    files = put_photos(source, 48)
    process = start(source, output)
    wait_for_parts(output, 1, process)
    process.send_signal(number)
    text = process.communicate(timeout=120)[0].decode()
    assert process.returncode == 3, text
    assert not any(word in text for word in ("Traceback", "SIGTERM received")), text
    assert f"run the same command again to continue: cleanplate run {source} {output}" in text
    kept = parts(output)
    assert kept
    assert len(kept) < 12
    events = {
        path.stem.split("-", 2)[2]: json.loads(path.read_text())
        for path in (tmp_path / "out/events").iterdir()
    }
    assert events.keys() == {"started", "pass-1", "stopped"}
    assert events["pass-1"]["units"] == 12
    assert events["stopped"]["why"] == "KeyboardInterrupt"
    run = runs.start(source, output, faces(**{"units.rows": 4}))
    runs.execute(run, runs.plan_new(run), "here", lambda receipt: None)
    check_complete(source, output, files)
    deadline = time.monotonic() + 30
    while left := in_session(process.pid):
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.5)


def in_session(leader: int) -> list[str]:
    """The command lines of living processes in the session of a process that `start` started."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):  # It ended while we looked.
            if entry.name.isdigit():
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader and fields[0] != "Z":
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:100])
    return found


def test_a_ray_that_cannot_start_is_a_sentence_and_exit_code_3(tmp_path: Path) -> None:
    source, output = folder(tmp_path / "in"), str(tmp_path / "out")
    put_photos(source, 1)
    deep = tmp_path / ("d" * 100)  # The path of a socket ends at 107 bytes.
    deep.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "cleanplate", "run", source, output, *FLAGS],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(deep)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "cleanplate: Ray could not start on this machine" in done.stderr
    assert "Set RAY_TMPDIR to a short path" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_home_that_nobody_has_is_wrong_use(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cleanplate", "run", "~nobody-of-this-name/photos", str(tmp_path), *FLAGS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "no home folder for ~nobody-of-this-name" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["files", "webdataset"])
def test_killed_runs_of_every_layout_end_in_one_picture_a_row(tmp_path: Path, layout: str) -> None:
    """Killed where it hurts: as soon as a picture is there, and its part perhaps not."""
    source, output = folder(tmp_path / "in"), tmp_path / "out"
    files = put_photos(source, 40)
    flags = [*FLAGS, "--here", "--output-layout", layout]
    command = [sys.executable, "-m", "cleanplate", "run", source, str(output), *flags]
    top = output / ("images" if layout == "files" else "shards")
    kills = 0
    for _ in range(12):
        before = len(list(top.rglob("*")))
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and (kills >= 4 or len(list(top.rglob("*"))) <= before):
            time.sleep(0.002)
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
    assert kills >= 2
    assert process.returncode == 0
    store = open_store(str(output))
    rows = [row for table in ledger.rows(store) for row in table.to_pylist()]
    assert Counter(row["source_uri"] for row in rows) == Counter(open_store(source).uri(key) for key in files)
    assert len({row["image"]["path"] for row in rows}) == 40
    assert prove(store, source=open_store(source)).wrong == []
    left = [orphan.what for orphan, _ in sweep(store, 0)]
    assert set(left) <= {"temporary"}, "the same pictures come out again, so nothing lies about"
