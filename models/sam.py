"""Segment Anything (Kirillov et al. 2023, arXiv:2304.02643) as a segmenter: boxes in, masks out.

The network is the authors' package `segment_anything`, which holds code and no weights.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image as PilImage

from models.masks import box_mask
from models.regions import Image, Mask, Region

Precision = Literal["fp32", "bf16"]
BOXES_AT_ONCE = 64
IMAGES_AT_ONCE = 4


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


@cache
def package() -> ModuleType:
    """`segment_anything`, imported with torchvision when that works, else with a stand-in for four names."""
    with _torchvision_or_stand_in():
        return importlib.import_module("segment_anything")


@contextmanager
def _torchvision_or_stand_in() -> Iterator[None]:
    """The package imports torchvision for a resize and two helpers of its automatic mode.

    There may be none, and one built for another torch raises RuntimeError on import ('operator
    torchvision::nms does not exist'). The stand-in is in sys.modules only inside this context.
    """
    try:
        importlib.import_module("torchvision")
        yield
        return
    except (ImportError, RuntimeError, AttributeError, OSError):
        # A failed import leaves the submodules that did load.
        _forget_torchvision()
    stand_in = {name: ModuleType(name) for name in _STAND_IN}
    for name, module in stand_in.items():
        module.__dict__.update(_STAND_IN[name])
    sys.modules.update(stand_in)
    try:
        yield
    finally:
        _forget_torchvision()


def _forget_torchvision() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]


def _resize(image: PilImage.Image, size: tuple[int, int]) -> PilImage.Image:
    """torchvision's resize of a PIL image: size is (height, width), bilinear."""
    return image.resize((size[1], size[0]), PilImage.Resampling.BILINEAR)


def _unavailable(*_: object) -> None:
    raise RuntimeError("this needs torchvision, of a build that fits the installed torch")


_STAND_IN: dict[str, dict[str, Any]] = {
    "torchvision": {},
    "torchvision.ops": {},
    # Only the automatic mask generator calls these; a box prompt does not.
    "torchvision.ops.boxes": {"batched_nms": _unavailable, "box_area": _unavailable},
    "torchvision.transforms": {},
    "torchvision.transforms.functional": {"resize": _resize, "to_pil_image": PilImage.fromarray},
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


class SamSegmenter:
    """Segmenter by box prompts. Holds no image between calls (unlike SamPredictor), so order means nothing.

    model: from `build_sam` or `load_sam`. device: "cpu" or "cuda". precision "bf16" runs the image encoder
    under autocast; the decoder stays in fp32. multimask: the best of three masks by predicted IoU, else the
    single mask. A mask is cut to its box grown by 10 %, and is the box itself when it fills < 5 % of it.
    """

    def __init__(
        self,
        model: Any,
        device: str = "cpu",
        precision: Precision = "fp32",
        multimask: bool = True,
        name: str = "sam",
    ) -> None:
        if precision not in ("fp32", "bf16"):
            raise ValueError(f"precision must be fp32 or bf16, got {precision!r}")
        self.name = name
        self.device = torch.device(device)
        self.precision = precision
        self.multimask = multimask
        self._model = model.to(self.device)
        transforms = importlib.import_module("segment_anything.utils.transforms")
        self._transform = transforms.ResizeLongestSide(model.image_encoder.img_size)

    @torch.inference_mode()
    def __call__(self, images: list[Image], regions: list[list[Region]]) -> list[list[Mask]]:
        """Images without regions are not encoded; all boxes of an image share its encoding."""
        if len(images) != len(regions):
            raise ValueError(f"{len(images)} images but regions of {len(regions)}")
        masks: list[list[Mask]] = [[] for _ in images]
        busy = [i for i, some in enumerate(regions) if some]
        # On a CPU a batch of two takes twice as long, and its memory.
        step = IMAGES_AT_ONCE if self.device.type == "cuda" else 1
        for start in range(0, len(busy), step):
            chunk = busy[start : start + step]
            inputs = [self._input(images[i]) for i in chunk]
            encoded = self._encode(inputs)
            for n, i in enumerate(chunk):
                size = (inputs[n].shape[1], inputs[n].shape[2])
                masks[i] = self._decode(encoded[n : n + 1], size, images[i], regions[i])
        return masks

    def _input(self, image: Image) -> torch.Tensor:
        """3 x h x w, 0..255, the long side at the network's; the short side at least one pixel."""
        side = self._model.image_encoder.img_size
        height, width = self._transform.get_preprocess_shape(image.shape[0], image.shape[1], side)
        resized = _resize(PilImage.fromarray(np.ascontiguousarray(image)), (max(1, height), max(1, width)))
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1)

    def _encode(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        batch = torch.stack([self._model.preprocess(one.to(self.device)) for one in inputs])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            encoded: torch.Tensor = self._model.image_encoder(batch)
        return encoded.float()

    def _decode(
        self, encoded: torch.Tensor, size: tuple[int, int], image: Image, regions: list[Region]
    ) -> list[Mask]:
        shape = (image.shape[0], image.shape[1])
        boxes = self._transform.apply_boxes(np.array([region.box for region in regions], np.float64), shape)
        masks: list[Mask] = []
        for start in range(0, len(regions), BOXES_AT_ONCE):
            some = torch.as_tensor(boxes[start : start + BOXES_AT_ONCE], dtype=torch.float32)
            sparse, dense = self._model.prompt_encoder(points=None, boxes=some.to(self.device), masks=None)
            logits, quality = self._model.mask_decoder(
                image_embeddings=encoded,
                image_pe=self._model.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=self.multimask,
            )
            best = quality.argmax(1)
            # One mask at a time: at full size, 64 boxes x 3 masks of a 24-Mpx photograph are 18 GB.
            for one, which in zip(logits, best, strict=True):
                full = self._model.postprocess_masks(one[None, which : which + 1], size, shape)
                masks.append((full[0, 0] > self._model.mask_threshold).cpu().numpy())
        return [fitted(mask, region) for mask, region in zip(masks, regions, strict=True)]


def fitted(mask: Mask, region: Region) -> Mask:
    """HW bool cut to the region's box grown by 10 %; the box when less than 5 % of it is left."""
    inside = mask & box_mask(mask.shape, region.box, 0.1)
    x0, y0, x1, y1 = region.box
    if np.count_nonzero(inside) < 0.05 * (x1 - x0) * (y1 - y0):
        return box_mask(mask.shape, region.box, 0.0)
    return inside


def params_of(tensors: Mapping[str, torch.Tensor]) -> SamParams:
    """The params whose encoder has the width of these tensors. ValueError when none of SAM fits."""
    place = tensors.get("image_encoder.pos_embed")
    for params in SAM.values():
        if place is not None and place.shape[-1] == params.width:
            return params
    raise ValueError(f"these tensors are of no Segment Anything of {', '.join(SAM)}")
