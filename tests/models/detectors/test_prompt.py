"""Words as prompts, and SAM 2 as a segmenter: tiny random networks of the real package, saved and read again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cleanplate.models.detectors.objects.prompt import PromptDetector, prepared
from cleanplate.models.types import Image, Region
from cleanplate.models.weights.hub import digest_of, folder_of
from cleanplate.models.weights.registry import WeightsError
from rigs.finders_rig import tiny_dino, tiny_owl

transformers: Any = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def owl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_owl(tmp_path_factory.mktemp("owl"))


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dino(tmp_path_factory.mktemp("dino"))


def test_owl_finds_boxes_in_the_picture(owl: Path, photo: Callable[[str], Image]) -> None:
    image = photo("coffee.jpg")
    detector = PromptDetector(owl, ["Lanyard", "computer screen"], min_score=0.0)
    (found,) = detector([image])
    assert found
    assert {region.detector for region in found} <= {"prompt:lanyard", "prompt:computer screen"}
    for region in found:
        x0, y0, x1, y1 = region.box
        assert 0 <= x0 < x1 <= image.shape[1]
        assert 0 <= y0 < y1 <= image.shape[0]
    assert PromptDetector(owl, ["lanyard"], min_score=1.0)([image]) == [[]]


def test_owl_s_scores_are_the_models_own(owl: Path, photo: Callable[[str], Image]) -> None:
    """The boxes of a square picture at the network's size, computed once more by hand."""
    image = np.ascontiguousarray(photo("astronaut.jpg")[:96, :96])
    detector = PromptDetector(owl, ["cup"], min_score=0.0)
    model = transformers.Owlv2ForObjectDetection.from_pretrained(owl).eval()
    result = transformers.AutoTokenizer.from_pretrained(owl)(
        ["a photo of cup"], padding="max_length", max_length=16
    )
    with torch.inference_mode():
        out = model(
            input_ids=torch.tensor(result["input_ids"]),
            attention_mask=torch.tensor(result["attention_mask"]),
            pixel_values=(
                torch.from_numpy(image).permute(2, 0, 1)[None] / 255
                - torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
            )
            / torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None],
        )
    scores = out.logits[0, :, 0].sigmoid().numpy()
    (found,) = detector([image])
    assert found
    for region in found:
        assert np.abs(scores - region.score).min() < 1e-4


def test_dino_reads_words_as_one_sentence(dino: Path, photo: Callable[[str], Image]) -> None:
    detector = PromptDetector(dino, ["cup", "spoon"], min_score=0.0)
    (found,) = detector([np.ascontiguousarray(photo("coffee.jpg")[:64, :96])])
    assert found
    assert {region.kind for region in found} == {"object"}


def test_pictures_are_prepared_as_the_statistics_say() -> None:
    white = np.full((10, 20, 3), 255, np.uint8)
    out = prepared(white, (5, 7), ((0.5, 0.5, 0.5), (0.25, 0.5, 1.0)))
    assert out.shape == (1, 3, 5, 7)
    assert out[0, :, 0, 0].tolist() == [2.0, 1.0, 0.5]


def test_other_models_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="words"):
        PromptDetector(tmp_path, [])
    with pytest.raises(WeightsError, match="safetensors"):
        folder_of(str(tmp_path))
    with pytest.raises(WeightsError, match="no name of the hub"):
        folder_of(str(tmp_path / "none"))


def test_the_digest_follows_the_contents(owl: Path, tmp_path: Path) -> None:
    before = digest_of(owl)
    for path in owl.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert digest_of(tmp_path) == before
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text() + " ")
    assert digest_of(tmp_path) != before


@pytest.mark.parametrize("prompts", ["boxes", "points", "both"])
def test_sam2_from_a_folder(tmp_path: Path, photo: Callable[[str], Image], prompts: Any) -> None:
    from cleanplate.models.segmenters.sam_hub import HubSamSegmenter

    torch.manual_seed(5)
    hiera = transformers.Sam2HieraDetConfig(
        hidden_size=12,
        num_attention_heads=1,
        blocks_per_stage=[1, 2, 1, 1],
        embed_dim_per_stage=[12, 24, 48, 96],
        num_attention_heads_per_stage=[1, 1, 2, 4],
        window_size_per_stage=[4, 2, 4, 2],
        global_attention_blocks=[2],
        image_size=[128, 128],
    )
    vision = transformers.Sam2VisionConfig(
        backbone_config=hiera,
        backbone_channel_list=[96, 48, 24, 12],
        fpn_hidden_size=32,
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
    )
    config = transformers.Sam2Config(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": 128},
        mask_decoder_config={
            "hidden_size": 32,
            "mlp_dim": 64,
            "num_attention_heads": 4,
            "iou_head_hidden_dim": 32,
        },
    )
    transformers.Sam2Model(config).save_pretrained(tmp_path)
    segmenter = HubSamSegmenter(tmp_path, prompts=prompts)
    image = photo("coffee.jpg")
    regions = [Region("object", "d", 1, (100, 80, 300, 300)), Region("object", "d", 1, (20, 20, 80, 70))]
    masks = segmenter([image, image], [regions, []])
    assert [len(some) for some in masks] == [2, 0]
    for mask, region in zip(masks[0], regions, strict=True):
        assert mask.shape == image.shape[:2]
        ys, xs = np.nonzero(mask)
        assert xs.min() >= region.box[0] - 21
        assert ys.max() <= region.box[3] + 21
    (alone,) = segmenter([image], [regions[1:]])
    assert (alone[0] == masks[0][1]).mean() > 0.999
