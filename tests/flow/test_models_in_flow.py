"""The big models are one flag away: real checkpoint files of small random networks, through the whole flow."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cleanplate.jobs.cli.app import main
from cleanplate.models.devices import bf16_is_native
from cleanplate.pipeline.recipe.recipe import Recipe, load
from rigs.flow_rig import check_complete, clean, faces, folder
from rigs.model_files import lama_checkpoint, sam_checkpoint

PHOTO = Path(__file__).parents[2] / "jobs" / "demo_photos" / "astronaut.jpg"


def run_one(tmp_path: Path, recipe: Recipe) -> dict[str, object]:
    source = folder(tmp_path / "in")
    (tmp_path / "in" / "astronaut.jpg").write_bytes(PHOTO.read_bytes())
    clean(source, str(tmp_path / "out"), recipe)
    (row,) = check_complete(source, str(tmp_path / "out"), {"astronaut.jpg": PHOTO.read_bytes()})
    return row


def test_a_lama_checkpoint_fills_and_is_named_in_the_row(tmp_path: Path) -> None:
    path = lama_checkpoint(tmp_path / "last.ckpt")
    row = run_one(tmp_path, faces(**{"inpaint.name": str(path), "verify.passes": 0}))
    assert row["status"] in ("cleaned", "residual"), row["error"]
    weights = {w["name"]: w["sha256"] for w in row["weights"]}  # type: ignore[attr-defined]
    assert hashlib.sha256(path.read_bytes()).hexdigest() in weights.values()
    assert row["inpainter"] in weights


def test_the_default_is_the_lama_in_the_package(tmp_path: Path) -> None:
    row = run_one(tmp_path, faces(**{"inpaint.name": Recipe().inpaint.name}))  # auto: a head is no stroke
    assert row["status"] == "cleaned", row["error"]
    assert row["inpainter"] == "lama-lite+texture"
    assert "lama-lite" in {w["name"] for w in row["weights"]}  # type: ignore[attr-defined]


def test_a_row_says_the_precision_that_its_worker_chose(tmp_path: Path) -> None:
    row = run_one(tmp_path, faces(**{"inpaint.name": "lama-lite", "inpaint.precision": "auto"}))
    assert row["status"] == "cleaned", row["error"]
    assert row["inpainter"] == ("lama-lite+bf16" if bf16_is_native("cpu") else "lama-lite")


def test_whole_image_and_crops_agree_on_what_is_outside(tmp_path: Path) -> None:
    path = lama_checkpoint(tmp_path / "last.ckpt")
    row = run_one(
        tmp_path, faces(**{"inpaint.name": str(path), "inpaint.whole_image": True, "verify.passes": 0})
    )
    assert row["untouched"] == {"pixels_equal": True, "jpeg_blocks_equal": True}


def test_segment_anything_turns_boxes_into_masks(tmp_path: Path) -> None:
    path = sam_checkpoint(tmp_path / "sam.pth")
    row = run_one(
        tmp_path, faces(**{"masks.segmenter": "sam", "masks.checkpoint": str(path), "verify.scope": "none"})
    )
    assert row["status"] == "cleaned", row["error"]
    assert row["segmenter"] in {w["name"] for w in row["weights"]}  # type: ignore[attr-defined]
    # Of the first look at faces: its network, the second family's, and that of animals, whose faces are none.
    assert {w["name"] for w in row["weights"]} == {"blazeface", "centerface", "nanodet", row["segmenter"]}  # type: ignore[attr-defined]


def test_another_eraser_for_one_kind(tmp_path: Path) -> None:
    row = run_one(tmp_path, faces(**{"inpaint.per_kind": {"face": "pixelate"}, "verify.scope": "none"}))
    assert (row["inpainter"], row["status"], row["hidden"]) == ("pixelate", "hidden", ["pixelate"])


def test_faces_are_hidden_unless_the_recipe_names_another_filler(tmp_path: Path) -> None:
    assert Recipe().inpaint.per_kind["face"] == "pixelate"
    assert load(None, {"inpaint.name": "fill"}).inpaint.hiders(["face", "text"]) == ["fill"]
    assert load(None, {"inpaint.per_kind.text": "ns"}).inpaint.hiders(["face", "text"]) == ["pixelate"]
    row = run_one(tmp_path, load(None, {"remove": "face", "masks.max_coverage": 0.0}))
    assert (row["status"], row["hidden"], row["residual"]) == ("hidden", ["pixelate"], [])
    assert {region["by"] for region in row["regions"]} == {"pixelate"}  # type: ignore[attr-defined]


def test_a_checkpoint_that_is_none_is_refused_before_any_work(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    source = folder(tmp_path / "in")
    (tmp_path / "in" / "astronaut.jpg").write_bytes(PHOTO.read_bytes())
    (tmp_path / "junk.ckpt").write_bytes(b"PK\x03\x04 not a checkpoint")
    out = str(tmp_path / "out")
    assert (
        main(["run", source, out, "--here", "--remove", "faces", "--inpainter", str(tmp_path / "junk.ckpt")])
        == 2
    )
    assert "junk.ckpt" in capsys.readouterr().err
    sam = ["--segmenter", "sam", "--checkpoint", str(tmp_path / "junk.ckpt")]
    assert main(["run", source, out, "--here", "--remove", "faces", *sam]) == 2
    assert not (tmp_path / "out").exists()


def test_inspect_draws_a_picture(tmp_path: Path) -> None:
    out = tmp_path / "look.jpg"
    assert main(["inspect", str(PHOTO), "-o", str(out), "--remove", "faces"]) in (0, 1)
    assert out.read_bytes()[:3] == b"\xff\xd8\xff"
