"""SAM 3 by words: a tiny random network of the real package, saved and read again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cleanplate.models.detectors.objects.sam3_words import Sam3Detector, is_sam3
from cleanplate.models.types import Image
from rigs.finders_rig import tiny_owl, tiny_sam3

transformers: Any = pytest.importorskip("transformers")
if not hasattr(transformers, "Sam3Model"):
    pytest.skip("this transformers has no SAM 3", allow_module_level=True)


@pytest.fixture(scope="module")
def sam3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sam3(tmp_path_factory.mktemp("sam3"))


def test_finds_have_masks_of_the_whole_picture(sam3: Path, photo: Callable[[str], Image]) -> None:
    image = np.ascontiguousarray(photo("coffee.jpg")[:200, :300])
    (found, again) = Sam3Detector(sam3, ["Cup", "spoon"], min_score=0.0)([image, image])
    assert found
    assert [region.score for region in found] == [region.score for region in again]
    for region in found:
        assert region.kind == "object"
        assert region.detector in {"sam3:cup", "sam3:spoon"}
        x0, y0, x1, y1 = region.box
        assert 0 <= x0 < x1 <= 300
        assert 0 <= y0 < y1 <= 200
        if region.mask is not None:
            assert region.mask.shape == (200, 300)
            rows, columns = np.nonzero(region.mask)
            assert x0 <= columns.min() <= columns.max() < x1
            assert y0 <= rows.min() <= rows.max() < y1
    assert Sam3Detector(sam3, ["cup"], min_score=1.0)([image]) == [[]]


def test_scores_boxes_and_masks_are_the_model_s_own(sam3: Path, photo: Callable[[str], Image]) -> None:
    """A square picture at the network's size, computed once more by one call of the model."""
    image = np.ascontiguousarray(photo("astronaut.jpg")[:112, :112])
    told = transformers.AutoTokenizer.from_pretrained(sam3)(["cup"], padding="max_length", max_length=32)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        out = transformers.Sam3Model.from_pretrained(sam3).eval()(
            pixel_values=(pixels - 0.5) / 0.5,
            input_ids=torch.tensor(told["input_ids"]),
            attention_mask=torch.tensor(told["attention_mask"]),
        )
    scores = (out.pred_logits[0].sigmoid() * out.presence_logits[0].sigmoid()).numpy()
    masks = (
        torch.nn.functional.interpolate(out.pred_masks, (112, 112), mode="bilinear", align_corners=False)[0]
        > 0
    )
    (found,) = Sam3Detector(sam3, ["cup"], min_score=0.0)([image])
    assert found
    best = int(scores.argmax())
    assert found[0].score == pytest.approx(float(scores[best]), abs=1e-5)
    if found[0].mask is not None:
        assert (found[0].mask == masks[best].numpy()).mean() > 0.999


def test_other_folders_and_no_words_are_refused(sam3: Path, tmp_path: Path) -> None:
    assert is_sam3(sam3)
    owl = tiny_owl(tmp_path)
    assert not is_sam3(owl)
    with pytest.raises(ValueError, match="holds no SAM 3"):
        Sam3Detector(owl, ["cup"])
    with pytest.raises(ValueError, match="words"):
        Sam3Detector(sam3, [" "])
