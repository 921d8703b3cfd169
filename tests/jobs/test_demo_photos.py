"""The demo: its photographs are free, its marks are where it says, and its tally is right."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pil

from cleanplate.jobs.commands import demo
from cleanplate.jobs.commands.demo import Cleaned
from cleanplate.models.types import Mask

PHOTOS = Path(demo.__file__).parent.parent / "demo_photos"
FREE = {"CC0-1.0", "CC-BY-4.0", "Public domain (NASA)"}


@pytest.fixture(scope="module")
def demo_input(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Mask]]:
    folder = tmp_path_factory.mktemp("demo") / "input"
    return folder, demo.make_input(folder)


def test_every_photograph_is_credited_free_and_small() -> None:
    with (PHOTOS / "CREDITS.csv").open(newline="", encoding="utf-8") as f:
        credits = {r["file"]: r for r in csv.DictReader(f)}
    files = {p.name: p for p in PHOTOS.iterdir() if p.name != "CREDITS.csv"}
    assert credits.keys() == files.keys() == {source for source, _, _ in demo.PHOTOS}
    assert all(r["licence"] in FREE and r["author"] and r["title"] for r in credits.values())
    assert sum(p.stat().st_size for p in files.values()) < 2_000_000
    for path in files.values():
        with Pil.open(path) as image:
            assert max(image.size) <= 1024
            assert not image.getexif()


def test_the_input_is_what_the_table_says(demo_input: tuple[Path, dict[str, Mask]]) -> None:
    folder, truth = demo_input
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert names == truth.keys() == {name for _, name, _ in demo.PHOTOS}
    assert {n.rpartition(".")[2] for n in names} == {"jpg", "JPG", "jpeg", "png", "webp"}
    assert sum(not m.any() for m in truth.values()) == 3
    for name, mask in truth.items():
        with Pil.open(folder / name) as image:
            assert mask.shape == (image.height, image.width)
            assert mask.dtype == bool
        with Pil.open(folder.parent / "truth" / f"{name}.png") as saved:
            np.testing.assert_array_equal(np.asarray(saved), mask)


def test_clean_photographs_are_the_committed_bytes(demo_input: tuple[Path, dict[str, Mask]]) -> None:
    folder, _ = demo_input
    untouched = [(s, n) for s, n, mark in demo.PHOTOS if mark is None]
    assert len(untouched) == 4  # three clean ones and the astronaut, whose face is the mark
    for source, name in untouched:
        assert (folder / name).read_bytes() == (PHOTOS / source).read_bytes()


def test_a_mark_changes_its_mask_and_nothing_else(demo_input: tuple[Path, dict[str, Mask]]) -> None:
    folder, truth = demo_input
    lossless = [(s, n) for s, n, _ in demo.PHOTOS if n.endswith(".png")]
    assert len(lossless) == 2
    for source, name in lossless:
        before = np.asarray(Pil.open(PHOTOS / source).convert("RGB")).astype(int)
        change = np.abs(np.asarray(Pil.open(folder / name)).astype(int) - before).max(axis=2)
        assert (change[truth[name]] > 0).mean() > 0.95  # white drawn on white changes nothing
        assert change[~truth[name]].max() <= demo.VISIBLE


def test_every_mark_is_a_sensible_share_of_its_picture(demo_input: tuple[Path, dict[str, Mask]]) -> None:
    shares = {name: float(m.mean()) for name, m in demo_input[1].items() if m.any()}
    assert len(shares) == 12
    assert all(0.001 < s < 0.2 for s in shares.values()), shares


def test_a_second_demo_leaves_the_files_alone_and_another_seed_does_not(
    demo_input: tuple[Path, dict[str, Mask]], tmp_path: Path
) -> None:
    folder, first = demo_input
    times = {p: p.stat().st_mtime_ns for p in folder.parent.rglob("*.*")}
    again = demo.make_input(folder)
    assert {p: p.stat().st_mtime_ns for p in folder.parent.rglob("*.*")} == times
    assert all((first[n] == again[n]).all() for n in first)
    other = demo.make_input(tmp_path / "in", seed=1)
    assert any((first[n] != other[n]).any() for n in first)


def half_cleaned(source: Path, out: Path) -> Iterable[Cleaned]:
    """A stand-in for the engine that reads the truth: it masks the left half of every mark."""
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        name = path.relative_to(source).as_posix()
        image = np.asarray(Pil.open(path).convert("RGB"))
        mask = np.asarray(Pil.open(source.parent / "truth" / f"{name}.png")).copy()
        edge = np.flatnonzero(mask.any(axis=0))
        if len(edge):
            mask[:, (edge[0] + edge[-1]) // 2 :] = False
        after = cv2.inpaint(image, mask.astype(np.uint8), 3, cv2.INPAINT_TELEA)
        yield Cleaned(name, "cleaned" if mask.any() else "unchanged", mask, after)


def test_the_demo_draws_its_sheet_and_tells_the_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo.demo(tmp_path, half_cleaned) == 0
    printed = capsys.readouterr().out
    truth = {n: np.asarray(Pil.open(tmp_path / "truth" / f"{n}.png")) for _, n, _ in demo.PHOTOS}
    hit = sum(int((c.mask & truth[c.name]).sum()) for c in half_cleaned(tmp_path / "input", tmp_path))
    share = 100 * hit / sum(int(m.sum()) for m in truth.values())
    assert 30 < share < 70
    assert f"{share:.1f} % of the known marks' pixels" in printed
    assert str(tmp_path / "sheet.jpg") in printed
    page = Pil.open(io.BytesIO((tmp_path / "sheet.jpg").read_bytes()))
    assert page.height > 15 * 200


def test_an_image_that_does_not_come_back_fails_the_demo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def forgetful(source: Path, out: Path) -> Iterable[Cleaned]:
        return [c for c in half_cleaned(source, out) if c.name != "fig.jpg"]

    assert demo.demo(tmp_path, forgetful) == 1
    assert "fig.jpg" in capsys.readouterr().err
