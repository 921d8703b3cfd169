"""What words name, with its pixels: SAM 3 (Carion et al. 2025, arXiv:2511.16719) through `transformers`, the extra
`prompt`. One network finds every thing that a word names and cuts it out.

Its own image processor wants torchvision, so the picture is prepared here: stretched to the network's square.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cleanplate.models.detectors.objects.prompt import things
from cleanplate.models.detectors.views import tiles
from cleanplate.models.devices import progressed, subnormals_flushed
from cleanplate.models.types import Image, Region, iou
from cleanplate.models.weights.hub import prepared

MODELS = ("sam3", "sam3_video")
"""`model_type` of the folders that hold one."""
STATISTICS = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
TOKENS = 32
"""Of a word's text, padded."""
MIN_SCORE = 0.5
"""The authors' habit."""


def is_sam3(folder: Path | str) -> bool:
    """Whether a folder as transformers saves it holds a SAM 3 that finds."""
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    return config.get("model_type") in MODELS


class Sam3Detector:
    """Detector of what words name, kind 'object', with `Region.mask`; `Region.detector` ends in the word.

    folder: a SAM 3 model as transformers saves it, with its tokenizer. words: each a thing ("computer screen").
    min_score: lowest that counts, and Region.score: the chance of a thing times the chance that the picture has any.
    Raises ImportError without a transformers that has SAM 3, ValueError for settings and other models, nothing for an
    image's content.
    """

    def __init__(
        self,
        folder: Path | str,
        words: Sequence[str],
        min_score: float | None = None,
        device: str = "cpu",
        name: str = "sam3",
    ) -> None:
        self.name, self.words = name, things(words)
        try:
            from transformers import AutoTokenizer, Sam3Model
        except ImportError as error:
            raise ImportError("SAM 3 needs transformers 5 or later: pip install '.[prompt]'") from error
        if not is_sam3(folder):
            raise ValueError(f"{folder} holds no SAM 3")
        self.min_score = MIN_SCORE if min_score is None else min_score
        self._device = torch.device(device)
        model: Any = Sam3Model.from_pretrained(folder, use_safetensors=True)
        self._model = model.to(self._device).eval()
        self._side = int(self._model.config.image_size)
        tokens = AutoTokenizer.from_pretrained(folder)(
            self.words, padding="max_length", max_length=TOKENS, truncation=True
        )
        self._seen = torch.tensor(tokens["attention_mask"], device=self._device)
        with torch.inference_mode():
            ids = torch.tensor(tokens["input_ids"], device=self._device)
            self._texts = [
                self._model.get_text_features(
                    input_ids=one[None], attention_mask=seen[None], return_dict=True
                )
                for one, seen in zip(ids, self._seen, strict=True)
            ]

    @subnormals_flushed()
    @torch.inference_mode()
    def __call__(self, images: list[Image]) -> list[list[Region]]:
        """One list of regions for each HWC uint8 RGB image, surest first; boxes xyxy pixels, whole masks."""
        return [self._regions(image) for image in images]

    def _regions(self, image: Image) -> list[Region]:
        """The picture is encoded once for all words. Of two things in one place the surer counts."""
        pixels = prepared(image, (self._side, self._side), STATISTICS).to(self._device)
        encoded = self._model.get_vision_features(pixel_values=pixels)
        progressed()
        found: list[tuple[float, str, Tensor, Tensor]] = []
        for word, text, seen in zip(self.words, self._texts, self._seen, strict=True):
            out = self._model(vision_embeds=encoded, text_embeds=text, attention_mask=seen[None])
            progressed()
            scores = out.pred_logits[0].float().sigmoid() * out.presence_logits[0].float().sigmoid()
            kept = torch.nonzero(scores >= self.min_score)[:, 0].tolist()
            found += [
                (float(scores[n]), word, out.pred_boxes[0, n].float(), out.pred_masks[0, n].float())
                for n in kept
            ]
        height, width = image.shape[:2]
        boxes = [(box.cpu().double().numpy() * [width, height, width, height]) for _, _, box, _ in found]
        once = tiles.suppress(
            len(found), [one[0] for one in found], lambda a, b: iou(boxes[a].tolist(), boxes[b].tolist()), 0.6
        )
        regions = [self._region(image, *found[n][:2], boxes[n], found[n][3]) for n in once]
        return [region for region in regions if region is not None]

    def _region(self, image: Image, score: float, word: str, box: Any, logits: Tensor) -> Region | None:
        """One find; its box reaches as far as its mask. None where it has no pixels in the picture."""
        height, width = image.shape[:2]
        large = functional.interpolate(
            logits[None, None], (height, width), mode="bilinear", align_corners=False
        )
        mask = np.asarray((large[0, 0] > 0).cpu().numpy())
        x0, y0, x1, y1 = np.clip(box, 0, [width, height, width, height]).tolist()
        if mask.any():
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            x0, y0 = min(x0, float(columns[0])), min(y0, float(rows[0]))
            x1, y1 = max(x1, columns[-1] + 1.0), max(y1, rows[-1] + 1.0)
        if x1 <= x0 or y1 <= y0:
            return None
        return Region(
            "object", f"{self.name}:{word}", min(1.0, score), (x0, y0, x1, y1), mask if mask.any() else None
        )
