"""The presets: each is a valid recipe, does its work in a real run, and says what weights a node needs."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil
from PIL import ImageDraw, ImageFont

from cleanplate.jobs.cli.app import main, parser
from cleanplate.jobs.cli.flags import presets, recipe_of
from cleanplate.jobs.commands.weights import _needed
from cleanplate.pipeline.ledger import ledger
from cleanplate.pipeline.storage.connect import open_store
from rigs.finders_rig import badge
from rigs.model_files import lama_checkpoint, sam_checkpoint

PHOTOS = Path(__file__).parents[2] / "jobs" / "demo_photos"
NAMES = ("anonymise", "big", "documents", "logos", "objects", "watermarks")


def test_the_presets_are_those_that_are_documented() -> None:
    assert tuple(sorted(presets())) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_a_recipe_with_reasons_on_a_page(name: str) -> None:
    args = parser().parse_args(["plan", "a", "b", "--preset", name])
    recipe = recipe_of(args)
    text = presets()[name].read_text(encoding="utf-8")
    assert f"--preset {name}" in text, "the first lines say how it is used"
    assert len(text.splitlines()) <= 40
    assert recipe != recipe_of(parser().parse_args(["plan", "a", "b"]))


@pytest.mark.parametrize("name", NAMES)
def test_flags_are_laid_over_a_preset(name: str) -> None:
    args = parser().parse_args(["plan", "a", "b", "--preset", name, "--quality", "71"])
    assert recipe_of(args).output.quality == 71


def test_a_preset_and_a_recipe_file_are_one_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plan", "a", "b", "--preset", "big", "--recipe", "r.yaml"])
    assert "not allowed with" in capsys.readouterr().err


def test_the_weights_of_a_node() -> None:
    assert {"big-lama", "sam-vit-h", "text-det", "centerface"} <= set(_needed("big"))
    assert "centerface" in _needed("anonymise")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "in"
    folder.mkdir()
    image = Pil.open(PHOTOS / "astronaut.jpg")
    image.thumbnail((320, 320))
    image.save(folder / "face.png")
    return folder


def rows_of(source: Path, *words: str) -> list[dict[str, object]]:
    out = source.parent / "out"
    shutil.rmtree(out, ignore_errors=True)
    assert main(["run", str(source), str(out), "--here", "--recall", "0", *words]) in (0, 1)
    columns = ["status", "hidden", "inpainter", "regions", "residual", "error", "weights", "segmenter"]
    return [row for table in ledger.rows(open_store(str(out)), columns) for row in table.to_pylist()]


def test_anonymise_leaves_one_colour_where_the_face_was(source: Path) -> None:
    (row,) = rows_of(source, "--preset", "anonymise")
    assert row["status"] == "hidden", row
    assert row["inpainter"] == "fill"


def test_documents_covers_an_address_and_leaves_a_caption(source: Path) -> None:
    from cleanplate.jobs.commands.demo import caption

    photo = Pil.open(PHOTOS / "motorcycle.jpg").convert("RGBA").resize((480, 360))
    page = Pil.alpha_composite(photo, caption(photo.size, random.Random(0)))
    page.convert("RGB").save(source / "face.png")
    (row,) = rows_of(source, "--preset", "documents")
    assert row["status"] == "unchanged", "a caption is no personal text"
    ImageDraw.Draw(page).rectangle((40, 40, 440, 110), "white")
    ImageDraw.Draw(page).text((60, 55), "jane.doe@example.org", "black", ImageFont.load_default(32))
    page.convert("RGB").save(source / "face.png")
    (row,) = rows_of(source, "--preset", "documents")
    assert row["status"] in ("hidden", "residual"), row
    (region,) = row["regions"]  # type: ignore[misc]
    assert region["kind"] == "text"
    assert region["box"][1] < 110, "the address, not the caption"
    assert row["inpainter"] == "fill"


def test_logos_needs_its_picture_and_removes_the_mark(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(source), "out", "--preset", "logos"]) == 2
    assert "logo.png" in capsys.readouterr().err
    mark = badge(96)
    mark.save("logo.png")
    photo = Pil.open(PHOTOS / "picos.jpg").convert("RGBA").resize((480, 320))
    photo.alpha_composite(mark, (340, 180))
    photo.convert("RGB").save(source / "face.png")
    (row,) = rows_of(source, "--preset", "logos")
    assert row["status"] in ("cleaned", "residual"), row
    assert {region["kind"] for region in row["regions"]} == {"logo"}  # type: ignore[attr-defined]


def test_objects_takes_the_whole_person(source: Path) -> None:
    (row,) = rows_of(source, "--preset", "objects")
    # The astronaut fills more than half of her picture: the preset does not make that up.
    assert row["status"] == "skipped", row
    assert "max_coverage" in json.dumps(row["error"])


def test_watermarks_sees_single_pictures_without_a_collection(source: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Pil.fromarray(noise).save(source / "noise.png")
    assert {row["status"] for row in rows_of(source, "--preset", "watermarks")} <= {"unchanged", "cleaned"}


def test_big_runs_with_segment_anything_and_a_lama_checkpoint(source: Path, tmp_path: Path) -> None:
    """Tiny random networks stand in for files of 3 GB."""
    lama, sam = lama_checkpoint(tmp_path / "lama.ckpt"), sam_checkpoint(tmp_path / "sam.pth")
    words = ["--preset", "big", "--inpainter", str(lama), "--checkpoint", str(sam), "--gpus", "0"]
    words += ["--faces", str(lama)]
    (row,) = rows_of(source, *words, "--remove", "faces", "--set", "verify.scope=none")
    assert row["status"] == "cleaned", row
    names = {weights["name"] for weights in row["weights"]}  # type: ignore[attr-defined]
    assert {"sam.pth", "lama.ckpt"} <= names
