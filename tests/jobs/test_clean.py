"""`cleanplate clean`: one picture into a file, a few into a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image as Pil

from cleanplate.jobs.__main__ import main

PHOTOS = Path(__file__).parent.parent.parent / "jobs" / "demo_photos"
QUICK = [*("--remove", "faces", "--faces", "telea", "--passes", "0"), "--set", "verify.scope=none"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "album" / "deep").mkdir(parents=True)
    for name, place in (("astronaut.jpg", "face.jpg"), ("coffee.jpg", "album/deep/coffee.jpg")):
        image = Pil.open(PHOTOS / name)
        image.thumbnail((256, 256))
        image.save(tmp_path / place)
    (tmp_path / "album" / "broken.jpg").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_picture_into_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", "face.jpg", "new/clean.jpg", *QUICK]) == 0
    assert Pil.open("new/clean.jpg").size == Pil.open("face.jpg").size
    assert Path("new/clean.jpg").read_bytes() != Path("face.jpg").read_bytes()
    assert "face.jpg -> new/clean.jpg: cleaned (1 face)" in capsys.readouterr().err


def test_the_suffix_of_the_output_is_its_format(folder: Path) -> None:
    assert main(["clean", "face.jpg", "clean.png", *QUICK]) == 0
    assert Pil.open("clean.png").format == "PNG"


def test_a_few_into_a_folder_and_a_broken_one_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["clean", "face.jpg", "album", "out", *QUICK]) == 1
    assert sorted(str(p.relative_to("out")) for p in Path("out").rglob("*.*")) == [
        "deep/coffee.jpg",
        "face.jpg",
    ]
    assert Path("out/deep/coffee.jpg").read_bytes() == Path("album/deep/coffee.jpg").read_bytes()
    printed = capsys.readouterr().err
    assert "broken.jpg: failed, nothing written (not_an_image: " in printed
    assert "coffee.jpg: unchanged (nothing found)" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["face.jpg", "face.jpg"], "would replace its own source"),
        (["face.jpg", "out.gif"], "write .jpg, .jpeg, .png, .webp"),
        (["no.jpg", "out.jpg"], "there is no such file or folder"),
        (["face.jpg", "album/../face.jpg", "out"], "would both be written to"),
        (["empty", "out"], "no pictures in empty"),
    ],
)
def test_wrong_use_writes_nothing(
    folder: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    before = sorted(folder.rglob("*"))
    assert main(["clean", *words, *QUICK]) == 2
    assert message in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before


def test_a_picture_is_inspected(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "face.jpg", "-o", "look.jpg", *QUICK]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("face  score 0.")
    assert "cleaned   inpainter telea" in printed
    assert Pil.open("look.jpg").width > 256
    assert main(["inspect", "album/broken.jpg"]) == 1
    assert capsys.readouterr().out == "failed: not_an_image: no known image format starts like this\n"
    assert main(["inspect", "face.jpg", "-o", "look.gif"]) == 2
