"""Every kind through the whole flow, as a recipe names it; repairs that take the next filler."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as Pil
from PIL import ImageDraw, ImageFont

from cleanplate.models.segmenters.masks import short_side
from cleanplate.models.segmenters.sam_network import SAM, build_sam
from cleanplate.models.types import Image, Mask, Region
from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.factory import check, inpainters, kinds, segmenters
from cleanplate.pipeline.factory.detectors import Verifier
from cleanplate.pipeline.images import rle
from cleanplate.pipeline.recipe.recipe import Recipe, load
from cleanplate.pipeline.stages.residue import beside
from cleanplate.pipeline.stages.rows import region_struct
from cleanplate.pipeline.stages.verify import _look, _Tools, _wider
from rigs.code_scenes import drawn
from rigs.finders_rig import badge, laid, tiny_owl
from rigs.flow_rig import check_complete, clean, folder

PHOTOS = Path(__file__).parents[2] / "jobs" / "demo_photos"


def run_one(tmp_path: Path, image: Image, recipe: dict[str, Any]) -> dict[str, Any]:
    (tmp_path / "in").mkdir()
    Pil.fromarray(image).save(tmp_path / "in" / "a.png")
    data = (tmp_path / "in" / "a.png").read_bytes()
    result = load(None, {"inpaint.name": "telea", **recipe})
    clean(str(tmp_path / "in"), folder(tmp_path / "out"), result)
    (row,) = check_complete(str(tmp_path / "in"), str(tmp_path / "out"), {"a.png": data})
    return row


def photograph(name: str, side: int = 360) -> Image:
    return np.asarray(Pil.open(PHOTOS / name).convert("RGB").resize((side, side * 3 // 4)))


def test_a_logo_is_found_removed_and_named_with_its_reference(tmp_path: Path) -> None:
    badge().save(tmp_path / "brand.png")
    image, truth = laid(photograph("coffee.jpg"), 200, 120, 90, 8, 0.8)
    row = run_one(tmp_path, image, {"remove": "logos", "logos.references": [str(tmp_path / "brand.png")]})
    assert row["status"] == "cleaned", row
    mask = rle.from_rle(row["mask_rle"], *image.shape[:2])
    assert (mask & truth).sum() / truth.sum() > 0.95
    assert row["regions"][0]["detector"] == "edge-angles:brand.png"
    assert any(w["name"].startswith("logos.references/brand.png") for w in row["weights"])
    # The workers read a copy in the output: the recipe that is stored there names it.
    (copy,) = (tmp_path / "out" / "attached").iterdir()
    assert copy.name in (tmp_path / "out" / "recipe.yaml").read_text()


@pytest.mark.parametrize("reference", ["none.png", "junk.png"])
def test_references_that_cannot_be_read_are_wrong_use(tmp_path: Path, reference: str) -> None:
    (tmp_path / "junk.png").write_bytes(b"not a picture")
    with pytest.raises(ConfigError, match=r"logos\.references"):
        check.check(load(None, {"remove": "logo", "logos.references": [str(tmp_path / reference)]}))


def test_everything_within_limits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(build_sam(SAM["tiny"]).state_dict(), tmp_path / "sam.pth")
    row = run_one(
        tmp_path,
        photograph("fig.jpg", 160),
        {
            "remove": "everything",
            "everything": {
                "checkpoint": str(tmp_path / "sam.pth"),
                "points": 4,
                "min_iou": 0,
                "min_stability": 0,
            },
            "detect.everything": {"max_coverage": 0.5, "where": [0, 0, 1, 1]},
            "masks": {"max_coverage": 1.0, "grow": 0, "grow_px": 0},
        },
    )
    assert row["status"] in ("cleaned", "unchanged"), row["error"]
    assert row["detectors"] == ["everything:sam.pth"]
    for region in row["regions"]:
        assert region["area_px"] <= 0.5 * 160 * 120


def test_words_are_looked_for_and_the_model_is_in_the_row(tmp_path: Path) -> None:
    (tmp_path / "owl").mkdir()
    owl = tiny_owl(tmp_path / "owl")
    recipe = {
        "remove": "prompt",
        "prompt": {"words": ["cup"], "model": str(owl)},
        "detect.object": {"min_score": 0.5, "max_coverage": 0.3},
        "verify.scope": "none",
    }
    row = run_one(tmp_path, photograph("coffee.jpg", 160), recipe)
    assert row["status"] in ("cleaned", "unchanged", "skipped"), row["error"]
    assert row["detectors"] == [owl.name]
    assert any(w["name"] == f"prompt.model/{owl.name}" for w in row["weights"])


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"remove": "prompt", "prompt": {"words": ["cup"], "model": "/none/such"}}, "none/such"),
        ({"masks": {"segmenter": "sam2"}}, "checkpoint"),
        ({"remove": "person", "persons.model": "none.onnx"}, "none.onnx"),
        ({"remove": "watermark"}, "watermark")
        if "watermark" not in kinds.ENTRIES
        else ({"remove": []}, "remove"),
    ],
)
def test_models_that_are_not_there_are_wrong_use(recipe: dict[str, Any], message: str) -> None:
    from cleanplate.models.weights.registry import WeightsError

    with pytest.raises((ConfigError, WeightsError), match=message):
        check.check(load(None, recipe))


# --- verification ---


class Stubborn:
    """Finds what it was told, until it has been asked so many times."""

    def __init__(self, box: tuple[float, float, float, float], times: int, score: float = 0.9) -> None:
        self.name, self.box, self.left, self.score = "stubborn", box, times, score
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        self.shapes += [image.shape[:2] for image in images]
        self.left -= 1
        return [[Region("face", self.name, self.score, self.box)] if self.left >= 0 else [] for _ in images]


REMOVED = {"inpaint.name": "telea", "inpaint.per_kind.face": "telea"}
"""Faces are hidden where a recipe does not say otherwise."""


def looked(verifier: Verifier, recipe: Recipe, looks: int) -> dict[str, Any]:
    """A row with one edit after so many looks."""
    picture = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)
    data = BytesIO()
    Pil.fromarray(picture).save(data, "PNG")
    mask: Mask = np.zeros((200, 300), np.bool_)
    mask[80:120, 100:140] = True
    region = region_struct(Region("face", "first", 0.9, (100, 80, 140, 120)), mask)
    row: dict[str, Any] = {
        "source": data.getvalue(), "source_sha256": f"{id(verifier)}", "source_format": "png", "width": 300,
        "height": 200, "status": None, "patches": [], "regions": [region], "mask_rle": rle.to_rle(mask),
        "mask_coverage": 0.03, "inpainter": "telea", "segmenter": "box", "passes": 1, "residual": [], "review": None,
        "forbidden": None,
    }  # fmt: skip
    tools = _Tools([verifier], segmenters.segmenter(recipe), inpainters.inpainters(recipe), recipe)
    for left in range(looks - 1, -1, -1):
        if not row.get("_settled"):
            _look([row], tools, left)
    return row


def test_repairs_take_the_recipe_s_next_filler_and_then_report() -> None:
    recipe = load(
        None,
        {
            "inpaint": {"name": "telea", "per_kind": {"face": "telea"}, "fallbacks": ["ns", "fill"]},
            "masks.max_coverage": 1,
        },
    )
    box = (100.0, 80.0, 140.0, 120.0)
    once = looked(Verifier(Stubborn(box, 1)), recipe, 4)
    assert (once["inpainter"], once["passes"], once["residual"]) == ("ns", 2, [])
    twice = looked(Verifier(Stubborn(box, 2)), recipe, 4)
    assert (twice["inpainter"], twice["passes"]) == ("fill", 3)
    never = looked(Verifier(Stubborn(box, 99)), recipe, 4)
    assert (never["inpainter"], never["passes"]) == ("fill", 4)
    assert never["residual"][0]["detector"] == "stubborn"
    assert rle.from_rle(never["mask_rle"], 200, 300).sum() > rle.from_rle(once["mask_rle"], 200, 300).sum()


def test_without_fallbacks_the_same_filler_repairs() -> None:
    row = looked(Verifier(Stubborn((100, 80, 140, 120), 1)), load(None, REMOVED), 3)
    assert (row["inpainter"], row["passes"]) == ("telea", 2)


def test_a_weak_model_s_low_word_is_no_residue() -> None:
    recipe = load(None, REMOVED)
    unsure = Stubborn((100, 80, 140, 120), 9, score=0.65)
    assert looked(Verifier(unsure, guard=0.7), recipe, 1)["residual"] == []
    assert looked(Verifier(unsure, guard=0.6), recipe, 1)["residual"] != []


def test_a_close_verifier_sees_the_edit_s_surroundings_and_its_finds_come_back_in_place() -> None:
    stubborn = Stubborn((40, 40, 80, 80), 9)
    row = looked(Verifier(stubborn, ("face",), close=True), load(None, REMOVED), 1)
    assert stubborn.shapes == [(120, 120)]
    assert row["residual"][0]["box"] == [100, 80, 140, 120]
    elsewhere = Stubborn((40, 40, 80, 80), 9)
    assert looked(Verifier(elsewhere, ("text",), close=True), load(None, REMOVED), 1)["residual"] == []
    assert elsewhere.shapes == [], "an edit of another kind is not shown to it"


def test_a_face_that_is_still_seen_in_its_mosaic_is_no_residue_and_one_beside_it_is() -> None:
    recipe = load(None, {"inpaint.name": "telea"})
    row = looked(Verifier(Stubborn((102, 82, 138, 118), 9)), recipe, 1)
    assert row["residual"] == []
    beside = looked(Verifier(Stubborn((118, 80, 170, 120), 9)), recipe, 1)
    assert len(beside["residual"]) == 1, "it sticks out by more than half"
    removed = looked(Verifier(Stubborn((102, 82, 138, 118), 9)), load(None, REMOVED), 1)
    assert len(removed["residual"]) == 1


def test_the_repair_of_a_hidden_face_hides_it_too() -> None:
    recipe = load(None, {"inpaint": {"name": "telea", "fallbacks": ["ns"]}, "masks.max_coverage": 0.001})
    # Asked of the result, and then of the source.
    row = looked(Verifier(Stubborn((118, 80, 170, 120), 2)), recipe, 3)
    assert (row["inpainter"], row["passes"]) == ("pixelate", 2), "and no limit of fills stops it"


def test_a_face_that_only_its_mosaic_shows_is_no_residue() -> None:
    recipe = load(None, {"inpaint.name": "telea"})
    row = looked(Verifier(Stubborn((118, 80, 170, 120), 1)), recipe, 1)
    assert (row["residual"], row["passes"]) == ([], 1), "the source shows none there"
    removed = looked(Verifier(Stubborn((118, 80, 170, 120), 1)), load(None, REMOVED), 1)
    assert len(removed["residual"]) == 1, "what fills is asked of the result alone"


def slanted() -> tuple[Mask, dict[str, Any], dict[str, Any]]:
    """A line 12 px high across a picture of 300 x 200 from corner to corner: its mask, its region, a row."""
    drawn = np.zeros((200, 300), np.uint8)
    cv2.line(drawn, (10, 190), (290, 10), 1, 12)
    mask: Mask = drawn > 0
    region = region_struct(Region("text", "first", 0.9, (4, 4, 296, 196)), mask)
    return mask, region, {"height": 200, "width": 300}


def test_a_slanted_line_is_as_high_as_its_letters_and_not_as_its_box() -> None:
    mask, region, row = slanted()
    assert 11 < short_side(mask) < 16
    wider = _wider(mask, region, 0.2)
    assert wider[:, 150].sum() < 1.9 * mask[:, 150].sum(), "4 px more on each side, not a fifth of 192"
    assert beside(region, (140, 90, 160, 110), row)
    assert not beside(region, (10, 10, 60, 60), row), "within the line's box, far from the line"


def test_faces_are_checked_by_a_model_of_another_family() -> None:
    recipe = load(None, {"remove": "face"})
    finders_of = {detector.name.partition("@")[0] for detector in kinds.detectors(recipe)}
    checkers = {one.detector.name.partition("@")[0] for one in kinds.verifiers(recipe)}
    assert checkers - finders_of == {"blazeface"}


SECOND = {
    "text": "ppocr-v4-mobile",
    "face": "blazeface",
    "person": "person-by-centerface",
    "plate": "plate-by-ppocr-v6-small",
}
"""Kinds whose result another network looks at, and how it is called."""


@pytest.mark.parametrize(("kind", "name"), SECOND.items())
def test_another_network_looks_at_the_result(kind: str, name: str) -> None:
    recipe = load(None, {"remove": kind})
    found_by = {detector.name for detector in kinds.detectors(recipe)}
    (second,) = [one for one in kinds.verifiers(recipe) if one.detector.name == name]
    assert name not in found_by
    assert second.guard > 0  # Its low word alone is no residue.


@pytest.mark.parametrize(
    ("model", "verifiers"),
    [
        ("blazepose", {"blazepose@shifted", "nanodet", "person-by-centerface"}),
        ("both", {"blazepose@shifted", "nanodet@mirrored", "person-by-centerface"}),
    ],
)
def test_blazepose_and_nanodet_look_at_each_other_s_persons(model: str, verifiers: set[str]) -> None:
    recipe = load(None, {"remove": "person", "persons.model": model})
    assert {one.detector.name for one in kinds.verifiers(recipe)} == verifiers


def test_kinds_of_one_network_share_one_pass() -> None:
    recipe = load(None, {"remove": ["person", "vehicle", "laptop"]})
    (one,) = kinds.detectors(recipe)
    (again, _) = kinds.verifiers(recipe)
    assert (one.name, again.detector.name) == ("nanodet", "nanodet@mirrored")


@pytest.mark.parametrize("kind", sorted(set(kinds.ENTRIES) - {"everything", "given", "static-watermark"}))
def test_no_kind_is_verified_by_its_finder_alone(kind: str, tmp_path: Path) -> None:
    """Trap 7. (`given` and `static-watermark` check pixels; of `everything` nothing is left to look for.)"""
    Pil.fromarray(np.asarray(badge())).save(tmp_path / "badge.png")
    recipe = load(
        None,
        {
            "remove": kind,
            "logos.references": [str(tmp_path / "badge.png")],
            "prompt": {"words": ["cup"], "model": str(tiny_owl(tmp_path / "owl"))},
        },
    )
    found_by = {detector.name for detector in kinds.detectors(recipe)}
    assert {one.detector.name for one in kinds.verifiers(recipe)} - found_by


def test_an_edit_that_left_the_face_is_reported_by_the_second_model_alone() -> None:
    """Trap 7: the finder's own word is not enough. The face is there; only the other family is asked."""
    face = np.asarray(Pil.open(PHOTOS / "astronaut.jpg").convert("RGB"))
    recipe = load(None, {"remove": "face"})
    (close,) = [one for one in kinds.verifiers(recipe) if one.close]
    (found,) = kinds.detectors(recipe)[0]([face])
    x0, y0, x1, y1 = (int(v) for v in found[0].box)
    crop = np.ascontiguousarray(face[max(0, y0 - 60) : y1 + 60, max(0, x0 - 60) : x1 + 60])
    assert max(region.score for region in close.detector([crop])[0]) > close.guard
    filled = inpainters.inpainters(recipe)[""]
    mask = np.zeros(face.shape[:2], np.bool_)
    mask[y0 - 30 : y1 + 20, x0 - 20 : x1 + 20] = True
    (gone,) = filled([face], [mask])
    crop = np.ascontiguousarray(gone[max(0, y0 - 60) : y1 + 60, max(0, x0 - 60) : x1 + 60])
    assert max((region.score for region in close.detector([crop])[0]), default=0) < close.guard


@pytest.mark.parametrize(("filler", "status"), [("telea", "cleaned"), ("pixelate", "hidden")])
def test_a_code_is_gone_when_nobody_can_decode_it(tmp_path: Path, filler: str, status: str) -> None:
    image = photograph("coffee.jpg", 480).copy()
    code = drawn("QRCode", 42, 4)
    image[40 : 40 + code.shape[0], 60 : 60 + code.shape[1]] = code
    row = run_one(tmp_path, image, {"remove": "qr", "inpaint.name": filler})
    assert row["status"] == status, row["residual"]
    assert [r["detector"] for r in row["regions"]] == ["codes:QRCode"]
    from cleanplate.models.detectors.codes import CodeDetector

    assert CodeDetector(harder=True)([np.asarray(Pil.open(BytesIO(row["image"]["bytes"])))]) == [[]]


def test_hiding_that_can_be_decoded_is_residual() -> None:
    image = photograph("coffee.jpg", 480).copy()
    code = drawn("QRCode", 42, 4)
    image[40 : 40 + code.shape[0], 60 : 60 + code.shape[1]] = code
    verifiers = kinds.verifiers(load(None, {"remove": "code"}))
    assert {one.detector.name for one in verifiers} == {"codes@harder", "codes-by-opencv"}
    soft = cv2.GaussianBlur(image, (0, 0), 1.5)
    assert [[r.score for r in one.detector([image])[0]] for one in verifiers] == [[1.0], [1.0]]
    assert any(one.detector([soft])[0] for one in verifiers), "a soft copy is still a copy"


def test_only_the_words_that_are_meant_go(tmp_path: Path) -> None:
    image = photograph("picos.jpg", 640)
    canvas = Pil.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=26)
    draw.rectangle((40, 60, 600, 200), fill=(250, 250, 250))
    draw.text((60, 70), "Please call Jane Doe", font=font, fill=(10, 10, 10))
    draw.text((60, 140), "Mail: jane.doe@example.org", font=font, fill=(10, 10, 10))
    row = run_one(tmp_path, np.asarray(canvas), {"remove": "text", "text.only": ["email"]})
    assert row["status"] == "cleaned", row["residual"]
    (region,) = row["regions"]
    assert ":email" in region["detector"]
    assert "jane" not in str({k: v for k, v in row.items() if k != "image"}), (
        "a row never repeats what must go"
    )
    start = 60 + draw.textlength("Mail: ", font=font)
    assert abs(region["box"][0] - start) < 12
    mask = rle.from_rle(row["mask_rle"], *image.shape[:2])
    assert not mask[60:120].any(), "the other line stays"
    assert not mask[:, : int(start) - 14].any(), "and so does the rest of the line"
