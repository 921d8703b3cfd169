"""Segment Anything: our batched, stateless calls against the package's own predictor, with a tiny network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cleanplate.models.segmenters.clicks import Clicks
from cleanplate.models.segmenters.masks import box_mask
from cleanplate.models.segmenters.sam import SamSegmenter, fitted
from cleanplate.models.segmenters.sam_network import SAM, build_sam, load_sam
from cleanplate.models.segmenters.sam_package import package
from cleanplate.models.types import Image, Region


@pytest.fixture(scope="module")
def model() -> Any:
    torch.set_num_threads(1)
    torch.manual_seed(7)
    built = build_sam(SAM["tiny"])
    # The position tables start at zero; random ones make the masks depend on place.
    for name, tensor in built.named_parameters():
        if "pos" in name:
            torch.nn.init.normal_(tensor, 0, 0.5)
    return built


def boxes(image: Image, count: int) -> list[Region]:
    height, width = image.shape[:2]
    rng = np.random.default_rng(count)
    x = np.sort(rng.random((count, 2)) * width, axis=1)
    y = np.sort(rng.random((count, 2)) * height, axis=1)
    return [
        Region("object", "d", 1, (x0, y0, x1 + 1, y1 + 1)) for (x0, x1), (y0, y1) in zip(x, y, strict=True)
    ]


@pytest.mark.parametrize("multimask", [True, False])
def test_masks_equal_the_predictors(model: Any, photo: Callable[[str], Image], multimask: bool) -> None:
    images = [photo("astronaut.jpg"), photo("coffee.jpg"), np.ascontiguousarray(photo("coffee.jpg")[:, :150])]
    regions = [boxes(image, count) for image, count in zip(images, (3, 5, 70), strict=True)]
    ours = SamSegmenter(model, multimask=multimask)(images, regions)
    predictor = package().SamPredictor(model)
    telling = 0
    for image, some, masks in zip(images, regions, ours, strict=True):
        predictor.set_image(image)
        assert len(masks) == len(some)
        for region, mask in zip(some, masks, strict=True):
            all_masks, quality, _ = predictor.predict(box=np.array(region.box), multimask_output=multimask)
            theirs = all_masks[quality.argmax()]
            telling += 0.05 < theirs.mean() < 0.95
            # Batches of prompts add in another order: a logit at the threshold may fall on the other side.
            assert (fitted(theirs, region) == mask).mean() > 0.9999
    assert telling > 10, "the network's masks are trivial; the comparison says nothing"


def test_the_object_under_a_click_is_the_predictors(model: Any, photo: Callable[[str], Image]) -> None:
    image = np.ascontiguousarray(photo("coffee.jpg")[:, :301])
    clicks, predictor = Clicks(SamSegmenter(model), image), package().SamPredictor(model)
    predictor.set_image(image)
    for point in ((10.0, 20.0), (150.5, 200.0), (300.0, image.shape[0] - 1.0)):
        masks, quality, _ = predictor.predict(point_coords=np.array([point]), point_labels=np.ones(1))
        assert (masks[quality.argmax()] == clicks(*point)).mean() > 0.9999
    with pytest.raises(ValueError, match="outside the picture"):
        clicks(301, 0)


def test_calls_leave_no_state(model: Any, photo: Callable[[str], Image]) -> None:
    segmenter = SamSegmenter(model)
    image, other = photo("astronaut.jpg"), photo("coffee.jpg")
    some = boxes(image, 2)
    first = segmenter([image], [some])
    again = segmenter([other, image, other], [[], some, boxes(other, 1)])
    assert again[0] == []
    assert all((a == b).all() for a, b in zip(first[0], again[1], strict=True))


def test_images_are_encoded_once_and_prompts_of_several_decoded_together(
    model: Any, photo: Callable[[str], Image]
) -> None:
    one, other = photo("astronaut.jpg"), photo("coffee.jpg")
    images = [one, other, np.ascontiguousarray(one[:, 100:]), np.ascontiguousarray(other[50:])]
    regions = [boxes(images[0], 3), [], boxes(images[2], 2), boxes(images[3], 4)]
    alone = [SamSegmenter(model)([i], [some])[0] for i, some in zip(images, regions, strict=True)]
    seen: dict[str, list[int]] = {"image_encoder": [], "mask_decoder": []}
    hooks = [
        model.image_encoder.register_forward_hook(
            lambda _, given, out: seen["image_encoder"].append(len(out))
        ),
        model.mask_decoder.register_forward_hook(
            lambda _, given, out: seen["mask_decoder"].append(len(out[0]))
        ),
    ]
    try:
        together = SamSegmenter(model)(images, regions)
    finally:
        for hook in hooks:
            hook.remove()
    assert sum(seen["image_encoder"]) == 3, "no image twice, none without regions"
    assert seen["mask_decoder"] == [9], "all prompts in one call"
    for mine, theirs in zip(together, alone, strict=True):
        assert len(mine) == len(theirs)
        assert all((a == b).mean() > 0.9999 for a, b in zip(mine, theirs, strict=True))


def test_masks_at_full_size_come_in_pieces(
    model: Any, photo: Callable[[str], Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = photo("coffee.jpg")
    some = boxes(image, 7)
    whole = SamSegmenter(model)([image], [some])[0]
    monkeypatch.setattr("cleanplate.models.segmenters.sam.MASK_PIXELS", image.shape[0] * image.shape[1] * 2)
    pieces = SamSegmenter(model)([image], [some])[0]
    assert all((a == b).all() for a, b in zip(whole, pieces, strict=True))


def test_masks_stay_near_the_box_and_poor_ones_become_the_box() -> None:
    region = Region("object", "d", 1, (20, 20, 60, 60))
    everywhere = np.ones((100, 100), np.bool_)
    assert (fitted(everywhere, region) == box_mask((100, 100), (16, 16, 64, 64))).all()
    assert (fitted(~everywhere, region) == box_mask((100, 100), region.box)).all()
    speck = np.zeros((100, 100), np.bool_)
    speck[30:36, 30:36] = True
    assert (fitted(speck, region) == box_mask((100, 100), region.box)).all()
    speck[30:50, 30:50] = True
    assert (fitted(speck, region) == speck).all()


@pytest.mark.parametrize("shape", [(1, 1), (3, 5000), (5000, 3), (64, 64)])
def test_odd_images(model: Any, shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    whole = Region("object", "d", 1, (0.0, 0.0, float(shape[1]), float(shape[0])))
    ((mask,),) = SamSegmenter(model)([image], [[whole]])
    assert mask.shape == shape
    assert mask.dtype == np.bool_


def test_bf16_gives_nearly_the_same_masks(model: Any, photo: Callable[[str], Image]) -> None:
    image = photo("coffee.jpg")
    some = boxes(image, 6)
    exact = SamSegmenter(model)([image], [some])[0]
    rough = SamSegmenter(model, precision="bf16")([image], [some])[0]
    assert np.mean([(a == b).mean() for a, b in zip(exact, rough, strict=True)]) > 0.9


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_the_published_keys_and_shapes(name: str) -> None:
    with torch.device("meta"):
        ours = build_sam(SAM[name]).state_dict()
        theirs = package().sam_model_registry[name]().state_dict()
    assert {key: value.shape for key, value in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_loading_is_strict(model: Any) -> None:
    tensors = dict(model.state_dict())
    loaded = load_sam(SAM["tiny"], tensors)
    assert all((loaded.state_dict()[key] == value).all() for key, value in tensors.items())
    key = next(iter(tensors))
    with pytest.raises(RuntimeError, match="Missing key"):
        load_sam(SAM["tiny"], {k: v for k, v in tensors.items() if k != key})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        load_sam(SAM["tiny"], tensors | {"extra": torch.zeros(1)})


def test_a_misfit_torchvision_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "import torchvision.part\nraise RuntimeError('operator torchvision::nms does not exist')"
    )
    (tmp_path / "torchvision" / "part.py").write_text("")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from cleanplate.models.segmenters.sam import SamSegmenter\n"
        "from cleanplate.models.segmenters.sam_network import SAM, build_sam\n"
        "SamSegmenter(build_sam(SAM['tiny']))\n"
        "left = [n for n in sys.modules if n.split('.')[0] == 'torchvision']\n"
        "assert not left, left\n"
        "import segment_anything; assert segment_anything.SamPredictor\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=120)


def test_settings_are_checked(model: Any) -> None:
    with pytest.raises(ValueError, match="fp16"):
        SamSegmenter(model, precision="fp16")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 images"):
        SamSegmenter(model)([np.zeros((4, 4, 3), np.uint8)], [])
