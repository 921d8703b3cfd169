"""Segment Anything (Kirillov et al. 2023, arXiv:2304.02643) as a segmenter: boxes or points in, masks out.

The network is the authors' package `segment_anything`, which holds code and no weights.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any, Literal

import cv2
import numpy as np
import torch
from PIL import Image as PilImage

from cleanplate.models.devices import progressed, subnormals_flushed
from cleanplate.models.segmenters.masks import box_mask
from cleanplate.models.segmenters.sam_package import resize
from cleanplate.models.types import Image, Mask, Region

Precision = Literal["fp32", "bf16"]
Prompts = Literal["boxes", "points", "both"]
PROMPTS_AT_ONCE = 64
IMAGES_AT_ONCE = 4
MASK_PIXELS = 1 << 26
"""Of logits at an image's size that are held at once: 64 prompts x 3 masks of a 24-Mpx photograph would be 18 GB."""


class SamSegmenter:
    """Segmenter by prompts. Holds no image between calls (unlike SamPredictor), so order means nothing.

    model: from `build_sam` or `load_sam`. device: "cpu" or "cuda". precision "bf16" runs the image encoder
    under autocast; the decoder stays in fp32. multimask: the best of three masks by predicted IoU, else the
    single mask. prompts: what the decoder gets for a region: its box, a point inside it (of its own mask the
    deepest, else the box's middle), or both. A mask is cut to its box grown by 10 %, and is the box itself when it
    fills < 5 % of it.
    """

    def __init__(
        self,
        model: Any,
        device: str = "cpu",
        precision: Precision = "fp32",
        multimask: bool = True,
        prompts: Prompts = "boxes",
        name: str = "sam",
    ) -> None:
        if precision not in ("fp32", "bf16"):
            raise ValueError(f"precision must be fp32 or bf16, got {precision!r}")
        if prompts not in ("boxes", "points", "both"):
            raise ValueError(f"prompts must be boxes, points or both, got {prompts!r}")
        self.name = name
        self.device = torch.device(device)
        self.precision = precision
        self.multimask = multimask
        self.prompts = prompts
        self._model = model.to(self.device)
        transforms = importlib.import_module("segment_anything.utils.transforms")
        self._transform = transforms.ResizeLongestSide(model.image_encoder.img_size)

    @subnormals_flushed()
    @torch.inference_mode()
    def __call__(self, images: list[Image], regions: list[list[Region]]) -> list[list[Mask]]:
        """Images without regions are not encoded; all prompts of an image share its encoding, and prompts of
        several images are decoded together."""
        if len(images) != len(regions):
            raise ValueError(f"{len(images)} images but regions of {len(regions)}")
        masks: list[list[Mask]] = [[] for _ in images]
        busy = [i for i, some in enumerate(regions) if some]
        for start in range(0, len(busy), IMAGES_AT_ONCE):
            group = busy[start : start + IMAGES_AT_ONCE]
            decoded = self._decode([images[i] for i in group], [regions[i] for i in group])
            for i, some in zip(group, decoded, strict=True):
                masks[i] = some
        return masks

    def encoded(self, images: list[Image]) -> Iterator[tuple[torch.Tensor, tuple[int, int]]]:
        """For each image its embedding, 1 x C x h x w, and the (height, width) it had in the network."""
        # On a CPU a batch of two takes twice as long, and its memory.
        step = IMAGES_AT_ONCE if self.device.type == "cuda" else 1
        for start in range(0, len(images), step):
            inputs = [self._input(image) for image in images[start : start + step]]
            batch = self._encode(inputs)
            progressed()
            for n, one in enumerate(inputs):
                yield batch[n : n + 1], (one.shape[1], one.shape[2])

    def prompted(
        self,
        encoded: torch.Tensor,
        points: torch.Tensor | None,
        boxes: torch.Tensor | None,
        multimask: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits N x M x h x w (a quarter of the network's input) and predicted IoU N x M.

        encoded: N x C x h x w, the image of each prompt, or 1 x C x h x w, that of all. points: N x 2 x, y or None;
        boxes: N x 4 xyxy or None; both as `placed` gives them.
        """
        near = None
        if points is not None:
            near = points[:, None], torch.ones(len(points), 1, device=self.device)
        sparse, dense = self._model.prompt_encoder(points=near, boxes=boxes, masks=None)
        # The package's decoder takes one image for all prompts, and adds to it what differs between them.
        logits, quality = self._model.mask_decoder(
            image_embeddings=torch.zeros_like(encoded[:1]),
            image_pe=self._model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=encoded + dense,
            multimask_output=multimask,
        )
        return logits, quality

    def placed(self, coordinates: Any, shape: tuple[int, int]) -> torch.Tensor:
        """N x 2 x, y or N x 4 xyxy in pixels of an image of `shape` (H, W), in the network's frame and device."""
        apply = self._transform.apply_boxes if coordinates.shape[1] == 4 else self._transform.apply_coords
        return torch.as_tensor(apply(coordinates, shape), dtype=torch.float32).to(self.device)

    def full(self, logits: torch.Tensor, size: tuple[int, int], shape: tuple[int, int]) -> list[Mask]:
        """Logits N x h x w -> N masks, HW bool, of an image of `shape`. size: as `encoded` gave it."""
        step = max(1, MASK_PIXELS // max(shape[0] * shape[1], size[0] * size[1]))
        masks: list[Mask] = []
        for some in torch.split(logits, step):
            sized = self._model.postprocess_masks(some[:, None], size, shape)[:, 0]
            masks += list((sized > self._model.mask_threshold).cpu().numpy())
        return masks

    def _input(self, image: Image) -> torch.Tensor:
        """3 x h x w, 0..255, the long side at the network's; the short side at least one pixel."""
        side = self._model.image_encoder.img_size
        height, width = self._transform.get_preprocess_shape(image.shape[0], image.shape[1], side)
        resized = resize(PilImage.fromarray(np.ascontiguousarray(image)), (max(1, height), max(1, width)))
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1)

    def _encode(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        batch = torch.stack([self._model.preprocess(one.to(self.device)) for one in inputs])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            encoded: torch.Tensor = self._model.image_encoder(batch)
        return encoded.float()

    def _decode(self, images: list[Image], regions: list[list[Region]]) -> list[list[Mask]]:
        """The masks of a few images' regions, none of them without one."""
        shapes = [(image.shape[0], image.shape[1]) for image in images]
        encodings = list(self.encoded(images))
        encoded = torch.cat([one for one, _ in encodings])
        owners = torch.tensor([n for n, some in enumerate(regions) for _ in some], device=self.device)
        near = inside = None
        if self.prompts != "boxes":
            near = self._all_placed([[inner_point(r) for r in some] for some in regions], shapes)
        if self.prompts != "points":
            inside = self._all_placed([[r.box for r in some] for some in regions], shapes)
        best = []
        for start in range(0, len(owners), PROMPTS_AT_ONCE):
            at = slice(start, start + PROMPTS_AT_ONCE)
            given = (None if near is None else near[at]), (None if inside is None else inside[at])
            logits, quality = self.prompted(encoded[owners[at]], *given, self.multimask)
            best.append(logits[torch.arange(len(logits), device=self.device), quality.argmax(1)])
        each = torch.split(torch.cat(best), [len(some) for some in regions])
        return [
            [fitted(mask, region) for mask, region in zip(self.full(own, size, shape), some, strict=True)]
            for own, (_, size), shape, some in zip(each, encodings, shapes, regions, strict=True)
        ]

    def _all_placed(self, prompts: list[Any], shapes: list[tuple[int, int]]) -> torch.Tensor:
        placed = [
            self.placed(np.array(some, np.float64), shape)
            for some, shape in zip(prompts, shapes, strict=True)
        ]
        return torch.cat(placed)


def inner_point(region: Region) -> tuple[float, float]:
    """x, y well inside a region: of its mask the pixel farthest from the edge, else the middle of its box."""
    x0, y0, x1, y1 = region.box
    if region.mask is None or not region.mask.any():
        return (x0 + x1) / 2, (y0 + y1) / 2
    depth = cv2.distanceTransform(np.pad(region.mask, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(x) - 0.5, float(y) - 0.5


def fitted(mask: Mask, region: Region) -> Mask:
    """HW bool cut to the region's box grown by 10 %; the box when less than 5 % of it is left."""
    inside = mask & box_mask(mask.shape, region.box, 0.1)
    x0, y0, x1, y1 = region.box
    if np.count_nonzero(inside) < 0.05 * (x1 - x0) * (y1 - y0):
        return box_mask(mask.shape, region.box, 0.0)
    return inside
