"""Help, hints and completion of the command line."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image as Pil

from cleanplate.jobs.cli.app import main, parser
from cleanplate.jobs.commands import completion
from cleanplate.jobs.evaluate.command import with_default
from cleanplate.jobs.train import command
from cleanplate.pipeline.storage.connect import open_store

ROOT = Path(__file__).parent.parent.parent


def every_parser() -> Iterator[argparse.ArgumentParser]:
    """The parser of every command and of every verb below one."""
    waiting: list[argparse.ArgumentParser] = [parser()]
    while waiting:
        one = waiting.pop(0)
        yield one
        for action in one._actions:
            if isinstance(action, argparse._SubParsersAction):
                # `train` has a parser of its own, with torch behind it.
                waiting += [command.parser() if name == "train" else p for name, p in action.choices.items()]


@pytest.mark.parametrize("one", list(every_parser()), ids=lambda p: p.prog)
def test_help_shows_examples_that_are_understood(one: argparse.ArgumentParser) -> None:
    shown = one.format_help()
    assert one.description or one.prog.count(" ") > 1, one.prog
    head, _, examples = shown.rpartition("example")
    lines = re.findall(r"^  (?:eval \"\$\()?(cleanplate .*?)(?:\)\".*)?$", examples, re.MULTILINE)
    assert (head and lines) or one.prog.count(" ") > 1, f"{one.prog} --help shows no example"
    for line in lines:
        words = shlex.split(line.partition(" > ")[0], comments=True)
        assert words[0] == "cleanplate"
        if words[1] == "train":
            assert command.parser().parse_args(words[2:])
        else:
            assert parser().parse_args(with_default(words[1:])).run is not None
        assert line.startswith(one.prog)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("rnu a b", "did you mean 'run'?"),
        ("run a b --removee text", "did you mean '--remove'?"),
        ("run a b --remov text", "did you mean '--remove'?"),
        ("run a b --segmenter sma", "did you mean 'sam'?"),
        ("inspect a.jpg --workers 2", "unrecognized arguments: --workers 2"),
        ("serve --output-layout=files", "unrecognized arguments: --output-layout=files"),
        ("run a b --inpanter=ns", "did you mean '--inpainter'?"),
        ("weights fecth x", "did you mean 'fetch'?"),
        ("run a", "the following arguments are required: DST"),
        ("run a b --quality high", "invalid int value: 'high'"),
        ("", "required: COMMAND"),
    ],
)
def test_a_wrong_word_is_one_message_with_a_hint(
    line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(shlex.split(line))
    assert caught.value.code == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.splitlines()) <= 2
    assert "--help" in shown


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert re.fullmatch(r"cleanplate \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


def test_plan_prints_what_differs_from_the_defaults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    words = [
        "plan",
        str(tmp_path / "photos"),
        str(tmp_path / "out"),
        "--remove",
        "faces",
        "--inpainter",
        "ns",
    ]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("remove:\n- face\ninpaint:\n  name: ns\nweights centerface, ")
    assert "1 images" in printed or "1 image" in printed
    assert len(printed.splitlines()) < 10
    assert main([*words, "--full"]) == 0
    assert "max_coverage" in capsys.readouterr().out


def test_another_recipe_is_named_by_its_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    Pil.new("RGB", (32, 32)).save(tmp_path / "photos" / "a.png")
    run = ["run", str(tmp_path / "photos"), str(tmp_path / "out"), "--here", "--remove"]
    assert main([*run, "faces", "--inpainter", "blur"]) == 0
    assert main([*run, "plates", "--inpainter", "pixelate"]) == 2
    printed = capsys.readouterr().err
    assert (
        "holds a run of another recipe (remove: [face] -> [plate], inpaint.name: blur -> pixelate" in printed
    )


def test_a_folder_is_no_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completion_knows_commands_flags_and_words(shell: str) -> None:
    script = completion.script(shell)
    for word in ("doctor", "retry-failed", "grabcut", "lama-lite", "centerface"):
        assert word in script, (shell, word)


def complete(line: str) -> list[str]:
    """What bash offers at the end of a line, with our script sourced."""
    words = line.split(" ")
    ask = (
        f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; "
        f"COMP_LINE={shlex.quote(line)}; COMP_POINT={len(line)}; "
        '_shtab_cleanplate; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    script = completion.script("bash").replace("complete -o", "#complete -o")
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{script}\n{ask}"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_bash_really_completes() -> None:
    assert complete("cleanplate ru") == ["run"]
    assert "--remove" in complete("cleanplate run --re")
    assert set(complete("cleanplate run --segmenter s")) >= {"stroke", "sam"}
    assert "lama-lite" in complete("cleanplate run --inpainter l")
    assert complete("cleanplate weights fetch center") == ["centerface"]


@pytest.mark.parametrize(
    "words",
    [
        ["run", "in", "out", "--inpainter", "https://me:s3cret9@host/w.pt"],
        ["run", "in", "out", "--inpainter", "https://host/w.pt?token=s3cret9"],
        ["run", "https://me:s3cret9@host/in", "out"],
        ["run", "s3://me:s3cret9@bucket/in", "out"],
        ["weights", "fetch", "https://me:s3cret9@host/w.pt"],
        ["weights", "--frm", "https://me:s3cret9@host/w.pt"],
        ["status", "https://host/out?signature=s3cret9"],
        ["report", "ftp://me:s3cret9@host"],
        ["nonsense", "ftp://me:s3cret9@host"],
    ],
    ids=" ".join,
)
def test_no_command_repeats_a_secret(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(words)
    except SystemExit as stop:
        code = int(stop.code or 0)
    text = "".join(capsys.readouterr())
    assert code == 2
    assert text
    assert "s3cret9" not in text


def test_a_source_without_images_is_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("x")
    place = [str(tmp_path / "in"), str(tmp_path / "out"), "--remove", "face", "--inpainter", "fill"]
    for words in (["plan", *place], ["run", *place, "--here"], ["run", *place, "--dry-run"]):
        assert main(words) == 2
        text = " ".join(capsys.readouterr().err.split())
        assert f"no images under {tmp_path / 'in'} (1 other file left out)" in text
        assert "--allow-empty" in text
        assert not (tmp_path / "out").exists()
    assert main(["run", *place, "--here", "--allow-empty"]) == 0
    (tmp_path / "in" / "a.gif").write_bytes(b"no picture")
    assert main(["plan", *place, "--exclude", "*.gif"]) == 2
    assert main(["plan", *place, "--include", "*.gif", "--include", "*.png"]) == 0


def test_a_prefix_without_images_is_wrong_use(s3, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    open_store(s3.url("raw")).put("a.jpg", b"no picture")
    flags = ["--remove", "face", "--inpainter", "fill"]
    assert main(["run", s3.url("rwa"), s3.url("out"), "--here", *flags]) == 2
    assert f"no images under {s3.url('rwa')}" in " ".join(capsys.readouterr().err.split())
    assert main(["plan", s3.url("rwa"), s3.url("out"), *flags]) == 2
    assert main(["plan", s3.url("raw"), s3.url("out"), *flags]) == 0
