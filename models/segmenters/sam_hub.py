"""SAM 2 (Ravi et al. 2024, arXiv:2408.00714) and SAM 3's tracker as segmenters, through `transformers`, the
extra `prompt`.

Their image processors want torchvision, so the picture is prepared here: stretched to the network's square, ImageNet's
statistics.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from cleanplate.models.devices import progressed, subnormals_flushed
from cleanplate.models.segmenters.sam import PROMPTS_AT_ONCE, Prompts, fitted, inner_point
from cleanplate.models.types import Image, Mask, Region
from cleanplate.models.weights.hub import IMAGENET, prepared

CLASSES = {
    "sam2": "Sam2Model",
    "sam2_video": "Sam2Model",
    "sam3_tracker": "Sam3TrackerModel",
    "sam3_video": "Sam3TrackerModel",
}


class HubSamSegmenter:
    """Segmenter by prompts, as SamSegmenter: the same prompts, the same rule that cuts a mask to its box.

    folder: a SAM 2 or SAM 3 model as transformers saves it. Raises ImportError without transformers, ValueError for
    another model.
    """

    def __init__(
        self, folder: Path | str, device: str = "cpu", prompts: Prompts = "boxes", name: str = "sam2"
    ) -> None:
        try:
            import transformers
        except ImportError as error:
            raise ImportError("SAM 2 and 3 need transformers: pip install '.[prompt]'") from error
        config = transformers.AutoConfig.from_pretrained(folder)
        if config.model_type not in CLASSES:
            raise ValueError(f"{folder} holds {config.model_type!r}, not one of {', '.join(CLASSES)}")
        self.name, self.prompts = name, prompts
        self._device = torch.device(device)
        model_class: Any = getattr(transformers, CLASSES[config.model_type])
        self._model = model_class.from_pretrained(folder, use_safetensors=True).to(self._device).eval()
        self._side = int(
            self._model.prompt_encoder.image_size
            if hasattr(self._model.prompt_encoder, "image_size")
            else self._model.config.prompt_encoder_config.image_size
        )

    @subnormals_flushed()
    @torch.inference_mode()
    def __call__(self, images: list[Image], regions: list[list[Region]]) -> list[list[Mask]]:
        """Images without regions are not encoded; all prompts of an image share its encoding."""
        return [self._masks(image, some) if some else [] for image, some in zip(images, regions, strict=True)]

    def _masks(self, image: Image, regions: list[Region]) -> list[Mask]:
        height, width = image.shape[:2]
        pixels = prepared(image, (self._side, self._side), IMAGENET).to(self._device)
        encoded = self._model.get_image_embeddings(pixels)
        progressed()
        scale = np.array([self._side / width, self._side / height], np.float32)
        masks = []
        for start in range(0, len(regions), PROMPTS_AT_ONCE):
            some = regions[start : start + PROMPTS_AT_ONCE]
            for region, logits, quality in zip(some, *self._prompted(encoded, some, scale), strict=True):
                best = logits[int(quality.argmax())][None, None].float()
                large = functional.interpolate(best, (height, width), mode="bilinear", align_corners=False)
                masks.append(fitted(np.asarray((large[0, 0] > 0).cpu().numpy()), region))
        return masks

    def _prompted(self, encoded: Any, regions: list[Region], scale: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits N x 3 x h x w and predicted IoU N x 3 of the regions."""
        prompts: dict[str, torch.Tensor] = {}
        if self.prompts != "points":
            boxes = np.array([region.box for region in regions], np.float32) * np.tile(scale, 2)
            prompts["input_boxes"] = torch.from_numpy(boxes)[None].to(self._device)
        if self.prompts != "boxes":
            points = np.array([inner_point(region) for region in regions], np.float32) * scale
            prompts["input_points"] = torch.from_numpy(points)[None, :, None].to(self._device)
            prompts["input_labels"] = torch.ones(1, len(regions), 1, dtype=torch.int32, device=self._device)
        out = self._model(image_embeddings=encoded, multimask_output=True, **prompts)
        return out.pred_masks[0], out.iou_scores[0]
