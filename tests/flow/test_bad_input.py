"""Bad input is data: one row each, with a cause; bad use is one message before any work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cleanplate.jobs.cli.app import main
from cleanplate.pipeline.storage.connect import open_store
from rigs.bad_images import BAD, GOOD
from rigs.flow_rig import check_complete, clean, faces, folder, rows_of

ROOT = Path(__file__).parents[2]


def test_every_odd_file_is_one_row_and_bad_ones_say_why(tmp_path: Path) -> None:
    source, output = folder(tmp_path / "in"), str(tmp_path / "out")
    store = open_store(source)
    files, kinds = {}, {}
    for group in (GOOD, BAD):
        for name, one in group.items():
            key = f"{'good' if group is GOOD else 'bad'}/{one[0]}"
            files[key] = one[1]()
            kinds[key] = one[2] if len(one) == 3 else None
            store.put(key, files[key])
            assert name
    clean(source, output, faces())
    rows = {row["source_uri"]: row for row in check_complete(source, output, files)}
    for key, kind in kinds.items():
        row = rows[store.uri(key)]
        if kind is None:
            assert row["status"] in ("unchanged", "cleaned"), (key, row["error"])
        else:
            assert row["status"] == "failed", key
            assert row["error"]["kind"] == kind, (key, row["error"])
            assert row["image"] is None


def test_objects_that_are_gone_or_too_large(tmp_path: Path) -> None:
    source = folder(tmp_path / "in")
    (tmp_path / "in" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "in" / "large.jpg").write_bytes(GOOD["png"][1]())
    clean(source, str(tmp_path / "out"), faces(**{"limits.max_bytes": 100}))
    kinds = {
        row["source_uri"].rpartition("/")[2]: row["error"]["kind"] for row in rows_of(str(tmp_path / "out"))
    }
    assert kinds == {"gone.jpg": "missing", "large.jpg": "too_large"}


def test_a_header_that_declares_too_many_pixels_is_refused_by_the_recipes_limit(tmp_path: Path) -> None:
    source = folder(tmp_path / "in")
    (tmp_path / "in" / "a.png").write_bytes(GOOD["png"][1]())
    clean(source, str(tmp_path / "out"), faces(**{"limits.max_pixels": 1000}))
    (row,) = rows_of(str(tmp_path / "out"))
    assert (row["status"], row["error"]["kind"], row["error"]["stage"]) == ("failed", "too_large", "read")


def exit_code(words: list[str]) -> int:
    """Of the command; its parser leaves by SystemExit for a word that is no choice of a flag."""
    try:
        return main(words)
    except SystemExit as left:
        return int(left.code or 0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--remove", "unicorns"], "unicorns"),
        (["--inpainter", "no-such-weights"], "no-such-weights"),
        (["--segmenter", "magic"], "invalid choice: 'magic'"),
        (["--set", "masks.segmenter=magic"], "masks.segmenter"),
        (["--recipe", "none.yaml"], "none.yaml"),
        (["--set", "units.rows"], "KEY=VALUE"),
        (["--limit", "0"], "--limit 0"),
        (["--quality", "700"], "output.quality"),
        (["--refine"], "cannot be refined"),
    ],
)
def test_wrong_use_is_one_message_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    source = folder(tmp_path / "in")
    (tmp_path / "in" / "a.png").write_bytes(GOOD["png"][1]())
    assert exit_code(["run", source, str(tmp_path / "out"), "--here", *flags]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "out" / "parts").exists(), "nothing was done"


def test_places_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str], s3) -> None:  # type: ignore[no-untyped-def]
    here, out = folder(tmp_path / "in"), str(tmp_path / "out")
    (tmp_path / "in" / "a.png").write_bytes(GOOD["png"][1]())
    no_bucket = s3.url("x").replace(s3.bucket, "no-such-bucket")
    for source, output in (
        (str(tmp_path / "nowhere"), out),
        (no_bucket, out),
        (here, f"{here}/out"),
        ("gs://bucket/x", out),
    ):
        assert main(["run", source, output, "--here", "--remove", "faces"]) == 2, (source, output)
        assert "Traceback" not in capsys.readouterr().err


def test_the_command_tells_failed_rows_by_exit_code_1_and_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = folder(tmp_path / "in"), str(tmp_path / "out")
    (tmp_path / "in" / "a.png").write_bytes(GOOD["png"][1]())
    assert main(["run", source, out, "--here", "--remove", "faces"]) == 0
    (tmp_path / "in" / "b.jpg").write_bytes(b"")
    assert main(["run", source, out, "--here", "--remove", "faces"]) == 1
    assert "read/empty" in capsys.readouterr().out
    assert main(["status", out]) == 1
    assert "2 of 2 planned rows committed" in capsys.readouterr().out
    assert main(["plan", source, out, "--remove", "faces"]) == 0
    assert "2 images" in capsys.readouterr().out
    assert main(["run", source, str(tmp_path / "dry"), "--dry-run", "--remove", "faces"]) == 0
    assert not (tmp_path / "dry").exists()


def test_importing_does_no_work(tmp_path: Path) -> None:
    code = (
        "import sys, threading, pipeline, models, jobs\n"
        "assert threading.active_count() == 1\n"
        "assert not {'torch', 'ray', 'cv2', 'onnxruntime'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
