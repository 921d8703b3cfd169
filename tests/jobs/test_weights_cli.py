"""`cleanplate weights` as a person types it."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import pytest

from cleanplate.jobs.commands.weights import add_parser
from cleanplate.models.weights.registry import WEIGHTS, WeightsError
from cleanplate.pipeline.errors import ConfigError

CONTENT = b"a few weights" * 100
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLEANPLATE_WEIGHTS", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.pt").write_bytes(CONTENT)
    return tmp_path / "mine.pt"


def cleanplate(*words: object) -> int:
    parser = argparse.ArgumentParser(prog="cleanplate")
    add_parser(parser.add_subparsers())
    args = parser.parse_args([str(word) for word in words])
    return int(args.run(args))


def test_list_shows_every_name_whole(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cleanplate("weights", "list") == 0
    shown = capsys.readouterr().out
    for name, weights in WEIGHTS.items():
        line = next(line for line in shown.splitlines() if f" {name} " in line)
        assert weights.kind in line
        assert weights.licence in line
        assert ("?" if weights.bytes is None else f"{weights.bytes:,}") in line
        carried = weights.sources[0].startswith("package:")
        assert (" shipped " if carried else " no ") in line
    assert f"cache folder: {cache}" in shown
    assert not cache.exists()


def test_add_then_list_fetch_verify(cache: Path, mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--kind", "lama", "--model", "big-lama", "--licence", "CC0-1.0", "--sha256", DIGEST)
    assert cleanplate("weights", "add", "mine", mine, *words) == 0
    assert DIGEST in capsys.readouterr().out
    mine.unlink()

    assert cleanplate("weights", "list") == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if " mine " in line)
    assert "CC0-1.0" in line
    assert " yes " in line

    assert cleanplate("weights", "fetch", "mine", "mine") == 0
    assert capsys.readouterr().out.count(DIGEST) == 1, "asked for twice, brought once"

    assert cleanplate("weights", "verify") == 0
    assert "mine: ok" in capsys.readouterr().out


def test_verify_finds_and_removes_a_bad_file(
    cache: Path, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cleanplate("weights", "verify") == 0
    assert "nothing is cached" in capsys.readouterr().out
    cleanplate("weights", "add", "mine", mine, "--kind", "onnx")
    (cached,) = cache.glob("*-mine.pt")
    cached.write_bytes(CONTENT[:-1])
    capsys.readouterr()
    assert cleanplate("weights", "verify") == 2
    shown = capsys.readouterr().out
    assert "mine: BAD" in shown
    assert DIGEST in shown
    assert not cached.exists()
    assert cleanplate("weights", "verify", "mine") == 2
    assert cleanplate("weights", "fetch", "mine") == 0
    assert cleanplate("weights", "verify", "mine") == 0


def test_errors_go_to_the_caller(cache: Path, mine: Path) -> None:
    with pytest.raises(WeightsError, match="no weights or file named 'no-such'"):
        cleanplate("weights", "fetch", "no-such")
    with pytest.raises(ConfigError, match="--for default"):
        cleanplate("weights", "fetch")
    with pytest.raises(WeightsError, match="--kind"):
        cleanplate("weights", "add", "mine", mine)


@pytest.mark.parametrize("words", [("weights",), ("weights", "sing")])
def test_bad_words_are_usage_errors(words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        cleanplate(*words)
    assert caught.value.code == 2


@pytest.mark.parametrize("verb", [[], ["list"], ["fetch"], ["verify"], ["add"]])
def test_help(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cleanplate("weights", *verb, "--help")
    assert caught.value.code == 0
    assert "usage: cleanplate weights" in capsys.readouterr().out
