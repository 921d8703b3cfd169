"""What the tests of finders share: a badge laid over photographs, tiny random models of `transformers`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image as Pil
from PIL import ImageDraw

from cleanplate.models.types import Image, Mask


def badge(size: int = 240) -> Pil.Image:
    """A white ring with a star in it, clear round about."""
    image = Pil.new("RGBA", (size, size))
    draw = ImageDraw.Draw(image)
    draw.ellipse((4, 4, size - 5, size - 5), outline=(255, 255, 255, 255), width=size // 14)
    spokes = [(np.pi * k / 5, size * (0.36 if k % 2 == 0 else 0.15)) for k in range(10)]
    draw.polygon(
        [(size / 2 + r * np.sin(a), size / 2 - r * np.cos(a)) for a, r in spokes], fill=(255, 60, 40, 255)
    )
    return image


def laid(photo: Image, x: int, y: int, side: int, turn: float, alpha: float) -> tuple[Image, Mask]:
    """The photograph with the badge at x, y (top left), turned clockwise, saved as JPEG; and its pixels."""
    mark = badge().resize((side, side), Pil.Resampling.LANCZOS).rotate(-turn, Pil.Resampling.BICUBIC)
    pixels = np.asarray(mark).astype(np.float64)
    cover = pixels[..., 3:] / 255 * alpha
    out = photo.copy()
    part = out[y : y + side, x : x + side]
    part[:] = np.round(part * (1 - cover) + pixels[..., :3] * cover).astype(np.uint8)
    truth = np.zeros(photo.shape[:2], np.bool_)
    truth[y : y + side, x : x + side] = pixels[..., 3] > 12
    _, data = cv2.imencode(".jpg", out[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]), truth


def tokenizer(folder: Path) -> None:
    """Every letter a token, between a start and an end."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", ".", *"abcdefghijklmnopqrstuvwxyz"]
    result = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    result.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split("", "isolated")])
    result.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=result, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    )
    fast.save_pretrained(folder)


def tiny_owl(folder: Path) -> Path:
    """An OWLv2 with random tensors and a tokenizer of letters, as transformers saves them."""
    import transformers

    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.Owlv2Config(
        text_config={**small, "vocab_size": 64, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0},
        vision_config={**small, "image_size": 96, "patch_size": 16},
        projection_dim=32,
    )
    torch.manual_seed(3)
    model = transformers.Owlv2ForObjectDetection(config)
    for layer in (model.class_head.logit_scale, model.class_head.logit_shift):
        torch.nn.init.zeros_(layer.weight)  # Else every random score is 0 or 1.
        torch.nn.init.zeros_(layer.bias)
    model.save_pretrained(folder)
    tokenizer(folder)
    return folder


def tiny_dino(folder: Path) -> Path:
    """A Grounding DINO, as tiny_owl."""
    import transformers

    backbone = transformers.SwinConfig(
        image_size=64,
        embed_dim=12,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 2, 2],
        out_indices=[2, 3, 4],
        window_size=4,
    )
    text = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=64
    )
    config = transformers.GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_queries=20,
        num_feature_levels=4,
    )
    torch.manual_seed(3)
    transformers.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    tokenizer(folder)
    return folder


def tiny_sam3(folder: Path) -> Path:
    """A SAM 3, as tiny_owl."""
    import transformers

    small = {"hidden_size": 32, "num_attention_heads": 2}
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    vit = {**small, "intermediate_size": 48, "num_hidden_layers": 2, "global_attn_indexes": [1]}
    parts = {**small, "num_layers": 1, "intermediate_size": 48}
    config = transformers.Sam3Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam3_vit_model",
                **vit,
                "image_size": 112,
                "patch_size": 14,
                "window_size": 4,
                "pretrain_image_size": 56,
            },
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        },
        text_config={
            **small,
            **ends,
            "model_type": "clip_text_model",
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "projection_dim": 16,
            "vocab_size": 64,
            "max_position_embeddings": 32,
        },
        geometry_encoder_config=parts,
        detr_encoder_config=parts,
        detr_decoder_config={**parts, "num_queries": 8},
        mask_decoder_config=small,
    )
    torch.manual_seed(3)
    transformers.Sam3Model(config).eval().save_pretrained(folder)
    tokenizer(folder)
    return folder
