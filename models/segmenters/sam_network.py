"""The networks of Segment Anything: their shapes by name, built by the authors' package, and filled with weights."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from cleanplate.models.segmenters.sam_package import package


@dataclass(frozen=True)
class SamParams:
    """What makes one Segment Anything network. Sides are pixels; widths are channels."""

    image_side: int
    patch: int
    window: int
    width: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    prompt_width: int
    decoder_heads: int
    decoder_mlp: int
    quality_hidden: int


def _official(width: int, depth: int, heads: int, global_blocks: tuple[int, ...]) -> SamParams:
    return SamParams(
        image_side=1024,
        patch=16,
        window=14,
        width=width,
        depth=depth,
        heads=heads,
        global_blocks=global_blocks,
        prompt_width=256,
        decoder_heads=8,
        decoder_mlp=2048,
        quality_hidden=256,
    )


SAM: dict[str, SamParams] = {
    "vit_b": _official(768, 12, 12, (2, 5, 8, 11)),
    "vit_l": _official(1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": _official(1280, 32, 16, (7, 15, 23, 31)),
    # For tests: the same parts, small enough to run with random tensors in milliseconds.
    "tiny": SamParams(
        image_side=128,
        patch=16,
        window=3,
        width=32,
        depth=2,
        heads=2,
        global_blocks=(1,),
        prompt_width=32,
        decoder_heads=4,
        decoder_mlp=64,
        quality_hidden=32,
    ),
}


def build_sam(params: SamParams) -> Any:
    """A `segment_anything.modeling.Sam` in eval mode, random tensors, with the published state-dict keys."""
    package()
    parts = importlib.import_module("segment_anything.modeling")
    grid = params.image_side // params.patch
    model = parts.Sam(
        image_encoder=parts.ImageEncoderViT(
            img_size=params.image_side,
            patch_size=params.patch,
            embed_dim=params.width,
            depth=params.depth,
            num_heads=params.heads,
            mlp_ratio=4,
            out_chans=params.prompt_width,
            qkv_bias=True,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=params.window,
            global_attn_indexes=params.global_blocks,
        ),
        prompt_encoder=parts.PromptEncoder(
            embed_dim=params.prompt_width,
            image_embedding_size=(grid, grid),
            input_image_size=(params.image_side, params.image_side),
            mask_in_chans=16,
        ),
        mask_decoder=parts.MaskDecoder(
            num_multimask_outputs=3,
            transformer=parts.TwoWayTransformer(
                depth=2,
                embedding_dim=params.prompt_width,
                mlp_dim=params.decoder_mlp,
                num_heads=params.decoder_heads,
            ),
            transformer_dim=params.prompt_width,
            iou_head_depth=3,
            iou_head_hidden_dim=params.quality_hidden,
        ),
        # ImageNet statistics in 0..255, RGB.
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )
    return model.eval().requires_grad_(False)


def load_sam(params: SamParams, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The network with these tensors. RuntimeError when a key is missing, extra, or of another shape."""
    model = build_sam(params)
    model.load_state_dict(dict(tensors), strict=True)
    return model


def params_of(tensors: Mapping[str, torch.Tensor]) -> SamParams:
    """The params whose encoder has the width of these tensors. ValueError when none of SAM fits."""
    place = tensors.get("image_encoder.pos_embed")
    for params in SAM.values():
        if place is not None and place.shape[-1] == params.width:
            return params
    raise ValueError(f"these tensors are of no Segment Anything of {', '.join(SAM)}")
