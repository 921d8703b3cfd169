"""`cleanplate verify` as a person types it."""

from __future__ import annotations

import argparse
import os
import shutil
import time
from pathlib import Path

import pytest

from cleanplate.jobs.commands.verify import add_parser
from cleanplate.pipeline.errors import ConfigError
from rigs.flow_rig import clean, faces, put_photos


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("verify")
    put_photos(str(place / "in"), 3)
    clean(str(place / "in"), str(place / "out"), faces(**{"units.rows": 2}))
    return place


def cleanplate(*words: object) -> int:
    parser = argparse.ArgumentParser(prog="cleanplate")
    add_parser(parser.add_subparsers())
    args = parser.parse_args([str(word) for word in words])
    return int(args.run(args))


def test_a_sound_output(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cleanplate("verify", place / "out", place / "in") == 0
    shown = capsys.readouterr().out
    assert "3 rows; nothing is wrong" in shown
    line = next(line for line in shown.splitlines() if "nothing lost" in line)
    assert line.replace("│", " ").split()[2:4] == ["3", "0"]


def test_something_wrong_is_named_with_an_example(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "out", tmp_path / "out")
    part = sorted((tmp_path / "out" / "parts").iterdir())[0]
    part.unlink()
    assert cleanplate("verify", tmp_path / "out") == 1
    shown = capsys.readouterr().out
    assert "wrong: planned" in shown
    assert part.stem in shown


def test_without_its_source_an_output_is_checked_alone(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "in", tmp_path / "in")
    clean(str(tmp_path / "in"), str(tmp_path / "out"), faces())
    shutil.rmtree(tmp_path / "in")
    assert cleanplate("verify", tmp_path / "out") == 0
    assert "cannot be listed: not compared" in capsys.readouterr().out
    assert cleanplate("verify", tmp_path / "out", "--output-only") == 0
    assert "not compared" not in capsys.readouterr().out


def test_sweep(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(place / "out", tmp_path / "out")
    old, young = (tmp_path / "out" / "parts" / f".a.parquet.{n:012x}.tmp" for n in (1, 2))
    for orphan in (old, young):
        orphan.write_bytes(b"half")
    os.utime(old, (time.time() - 3600,) * 2)
    assert cleanplate("verify", tmp_path / "out", "--sweep", "--output-only") == 0
    shown = capsys.readouterr().out
    assert "1 orphans removed" in shown
    assert "kept, only" in shown
    assert [old.exists(), young.exists()] == [False, True]
    assert cleanplate("verify", tmp_path / "out", "--sweep", "--min-age", "0", "--output-only") == 0
    assert not young.exists()


def test_wrong_use(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        cleanplate("verify", tmp_path)
    with pytest.raises(ConfigError, match="was made of"):
        cleanplate("verify", place / "out", tmp_path)
    with pytest.raises(ConfigError, match="does not go with SRC"):
        cleanplate("verify", place / "out", place / "in", "--output-only")
    with pytest.raises(ConfigError, match="min-age"):
        cleanplate("verify", place / "out", "--min-age", "-1")
    with pytest.raises(SystemExit) as caught:
        cleanplate("verify", "--help")
    assert caught.value.code == 0
