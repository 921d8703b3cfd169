"""NanoDet-g: the conversion gives what the graph gives, and the detector frames, tiles and counts as it says."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pil
from safetensors.numpy import load_file, save_file

from cleanplate.jobs.train.convert_nanodet import content
from cleanplate.models.detectors.objects.coco import ANIMALS, NAMES, PERSON, VEHICLES, number_of
from cleanplate.models.detectors.objects.nanodet import NanoDetDetector, Wanted, load, once
from cleanplate.models.types import Image, iou
from cleanplate.models.weights.registry import resolve

PHOTOS = Path(__file__).parents[3] / "jobs" / "demo_photos"
GRAPH = Path(__file__).parents[2] / "data" / "nanodet_graph.npz"
"""What the package's own graph gives for `noise()`: every 32nd, 8th and 2nd cell of the three grids, walked through
operation by operation in fp32."""


def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (1, 3, 416, 416)).astype(np.float32)


def photograph(name: str) -> Image:
    return np.asarray(Pil.open(PHOTOS / name).convert("RGB"))


def detector(words: dict[str, str], **more: object) -> NanoDetDetector:
    wanted = {NAMES.index(word): Wanted(kind) for word, kind in words.items()}
    return NanoDetDetector(resolve("nanodet"), wanted, **more)  # type: ignore[arg-type]


def test_the_conversion_gives_what_the_graph_gives() -> None:
    with torch.inference_mode():
        outputs = load(resolve("nanodet"))(torch.from_numpy(noise()))
    expected = np.load(GRAPH)
    for out, stride, step in zip(outputs, (8, 16, 32), (32, 8, 2), strict=True):
        cells = out[0].flatten(1).T[::step]
        assert np.allclose(cells[:, :80].sigmoid(), expected[f"chance{stride}"], atol=1e-5)
        assert np.allclose(cells[:, 80:], expected[f"bins{stride}"], atol=2e-4)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    tensors = load_file(resolve("nanodet"))
    del tensors["stem.bias"]
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"(?s)NanoDet-g: .*stem\.bias"):
        load(tmp_path / "w.safetensors")


@pytest.mark.parametrize("members", [{}, {"package/models/nanodet.bin": b"other"}])
def test_another_package_is_not_converted(tmp_path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(tmp_path / "p.tgz", "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    with pytest.raises(ValueError, match="missing, or not the file"):
        content(tmp_path / "p.tgz", "package/models/nanodet.bin", "0" * 64)


def test_one_pass_finds_several_kinds_in_the_picture_s_frame() -> None:
    astronaut, coffee = photograph("astronaut.jpg"), photograph("coffee.jpg")
    both = detector({"person": "person", "cup": "object"})
    people, cups = both([astronaut, coffee])
    assert (people[0].kind, people[0].detector) == ("person", "nanodet:person")
    assert people[0].score > 0.6
    height, width = astronaut.shape[:2]
    x0, y0, x1, y1 = people[0].box
    assert (x1 - x0) * (y1 - y0) > 0.4 * height * width, "she fills most of the picture"
    assert [(r.kind, r.detector) for r in cups][:1] == [("object", "nanodet:cup")]
    assert both([coffee])[0] == cups, "what stands beside it in a call changes nothing"
    only = detector({"person": "person"})([coffee])[0]
    assert all(region.kind == "person" for region in only)


def test_mirrored_and_larger_it_finds_the_same_at_the_same_place() -> None:
    astronaut = photograph("astronaut.jpg")
    (plain,) = detector({"person": "person"})([astronaut])
    (again,) = detector({"person": "person"}, side=512, offset=0.5, mirror=True)([astronaut])
    assert iou(plain[0].box, again[0].box) > 0.8


def test_a_small_person_in_a_large_picture_is_seen_in_a_tile() -> None:
    large = np.full((1200, 1600, 3), 120, np.uint8)
    small = np.asarray(Pil.fromarray(photograph("astronaut.jpg")).resize((90, 90)))
    large[800:890, 1300:1390] = small
    (found,) = detector({"person": "person"})([large])
    assert any(1295 <= r.box[0] < r.box[2] <= 1395 and r.box[1] >= 795 for r in found), found
    (whole,) = detector({"person": "person"}, most=1)([large])
    assert len(whole) < len(found)


def test_pieces_count_only_where_no_whole_holds_them() -> None:
    whole = [10, 10, 60, 200, 0.5, PERSON, 0]
    half = [12, 10, 58, 105, 0.9, PERSON, 1]
    elsewhere = [300, 10, 340, 105, 0.45, PERSON, 1]
    child = [15, 120, 40, 198, 0.6, PERSON, 0]
    rows = np.array([whole, half, elsewhere, child], np.float64)
    assert sorted(once(rows)) == [0, 2, 3], "the piece goes, a smaller whole thing stays"
    twice = np.array([whole, [11, 11, 60, 199, 0.7, PERSON, 0]], np.float64)
    assert once(twice) == [1]


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("Cell phones", "cell phone"),
        ("knives", "knife"),
        ("buses", "bus"),
        ("people", "person"),
        ("TV", "tv"),
    ],
)
def test_words_in_any_form(word: str, name: str) -> None:
    assert number_of(word) == NAMES.index(name)


def test_the_table_of_words() -> None:
    assert len(NAMES) == len(set(NAMES)) == 80
    assert number_of("lanyard") is None
    assert [NAMES[n] for n in VEHICLES] == ["car", "motorcycle", "bus", "truck"]
    assert {NAMES[n] for n in ANIMALS} >= {"bird", "cat", "dog", "horse", "sheep", "cow", "bear", "giraffe"}
    assert "kite" not in {NAMES[n] for n in ANIMALS}


def test_what_scores_too_low_is_doubted_and_nothing_else_changes() -> None:
    """Asked for more than she scores, the astronaut is no find, and no fill may copy her."""
    astronaut = photograph("astronaut.jpg")
    plain = detector({"person": "person"})
    (found,) = plain([astronaut])
    assert found == [r for r in plain.with_doubts([astronaut])[0] if not r.doubtful]
    asked = NanoDetDetector(resolve("nanodet"), {PERSON: Wanted("person", 0.95)})
    assert asked([astronaut]) == [[]]
    doubts = asked.with_doubts([astronaut])[0]
    assert all(r.doubtful for r in doubts)
    assert found[0].box in [r.box for r in doubts]
