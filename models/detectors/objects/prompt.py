"""What words name: OWLv2 (Minderer et al. 2023, arXiv:2306.09683) or Grounding DINO (Liu et al. 2023,
arXiv:2303.05499), through `transformers`, the extra `prompt`.

Their own image processors want torchvision, so pictures are prepared here: OWLv2 sees a square (grey below and to the
right) with CLIP's statistics, Grounding DINO the whole with its short side at 800 and ImageNet's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cleanplate.models.detectors.views import tiles
from cleanplate.models.devices import progressed, subnormals_flushed
from cleanplate.models.types import Image, Region, iou
from cleanplate.models.weights.hub import IMAGENET, prepared

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
SHORT, LONG = 800, 1333
Rows = npt.NDArray[np.float64]
"""N x 6: x0, y0, x1, y1 in image pixels, score, number of the words."""


def things(words: Sequence[str]) -> list[str]:
    """The words as the networks read them. Raises ValueError where there are none, or an empty one."""
    if not words or not all(word.strip() for word in words):
        raise ValueError("give words for what must go")
    return [word.strip().lower() for word in words]


class PromptDetector:
    """Detector of what words name, kind 'object'; `Region.detector` ends in the words that fit best.

    folder: a model as transformers saves it, with its tokenizer. words: each a thing ("computer screen"). min_score:
    lowest that counts, and Region.score; None = .25 for OWLv2, .35 for Grounding DINO (their authors' habit).
    Raises ImportError without transformers, ValueError for settings and other models, nothing for an image's
    content.
    """

    def __init__(
        self,
        folder: Path | str,
        words: Sequence[str],
        min_score: float | None = None,
        device: str = "cpu",
        name: str = "prompt",
    ) -> None:
        self.name, self.words = name, things(words)
        try:
            import transformers
        except ImportError as error:
            raise ImportError("words need transformers: pip install '.[prompt]'") from error
        config = transformers.AutoConfig.from_pretrained(folder)
        classes = {"owlv2": "Owlv2ForObjectDetection", "grounding-dino": "GroundingDinoForObjectDetection"}
        if config.model_type not in classes:
            raise ValueError(
                f"{folder} holds {config.model_type!r}; prompts need one of {', '.join(classes)}"
            )
        self.is_owl = config.model_type == "owlv2"
        self.min_score = min_score if min_score is not None else (0.25 if self.is_owl else 0.35)
        model_class: Any = getattr(transformers, classes[config.model_type])
        model = model_class.from_pretrained(folder, use_safetensors=True)
        self._device = torch.device(device)
        self._model = model.to(self._device).eval()
        self._tokens = _tokenized(transformers.AutoTokenizer.from_pretrained(folder), self.words, self.is_owl)
        self._side = int(config.vision_config.image_size) if self.is_owl else SHORT

    @subnormals_flushed()
    @torch.inference_mode()
    def __call__(self, images: list[Image]) -> list[list[Region]]:
        """One list of regions for each HWC uint8 RGB image, surest first; boxes xyxy pixels."""
        return [self._regions(image) for image in images]

    def _regions(self, image: Image) -> list[Region]:
        height, width = image.shape[:2]
        rows = self._owl(image) if self.is_owl else self._dino(image)
        progressed()
        rows[:, 0:4] = np.clip(rows[:, 0:4], 0, [width, height, width, height])
        rows = rows[(rows[:, 4] >= self.min_score) & (rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])]
        kept = tiles.suppress(len(rows), rows[:, 4].tolist(), lambda a, b: iou(rows[a], rows[b]), 0.6)
        return [
            Region("object", f"{self.name}:{self.words[int(word)]}", min(1.0, score), (x0, y0, x1, y1))
            for x0, y0, x1, y1, score, word in rows[kept].tolist()
        ]

    def _owl(self, image: Image) -> Rows:
        side = max(image.shape[:2])
        square = np.full((side, side, 3), 128, np.uint8)
        square[: image.shape[0], : image.shape[1]] = image
        pixels = prepared(square, (self._side, self._side), CLIP).to(self._device)
        ids, attention, _ = self._tokens
        out = self._model(
            input_ids=ids.to(self._device), pixel_values=pixels, attention_mask=attention.to(self._device)
        )
        scores = out.logits[0].sigmoid()
        return _rows(out.pred_boxes[0], scores, (side, side))

    def _dino(self, image: Image) -> Rows:
        height, width = image.shape[:2]
        factor = min(self._side / min(height, width), LONG / max(height, width))
        size = (max(32, round(height * factor)), max(32, round(width * factor)))
        ids, attention, spans = self._tokens
        out = self._model(
            pixel_values=prepared(image, size, IMAGENET).to(self._device),
            input_ids=ids.to(self._device),
            attention_mask=attention.to(self._device),
        )
        tokens = out.logits[0].sigmoid()
        scores = torch.stack([tokens[:, start:stop].amax(1) for start, stop in spans], 1)
        return _rows(out.pred_boxes[0], scores, (height, width))


def _rows(boxes: torch.Tensor, scores: torch.Tensor, size: tuple[int, int]) -> Rows:
    """Boxes Q x 4 (centre and size, shares of `size`) and scores Q x words -> Rows, the best word of each."""
    best, word = scores.double().cpu().max(1)
    middle, half = boxes[:, :2].double().cpu(), boxes[:, 2:].double().cpu() / 2
    corners = torch.cat([middle - half, middle + half], 1).numpy() * np.tile([size[1], size[0]], 2)
    return np.column_stack([corners, best.numpy(), word.numpy()])


def _tokenized(
    tokenizer: Any, words: list[str], apart: bool
) -> tuple[torch.Tensor, torch.Tensor, list[tuple[int, int]]]:
    """(ids, attention mask, where each thing's tokens are). apart: a row each (OWLv2), else one sentence in which a
    full stop ends each thing (Grounding DINO)."""
    if apart:
        tokens = tokenizer(
            [f"a photo of {word}" for word in words], padding="max_length", max_length=16, truncation=True
        )
        return torch.tensor(tokens["input_ids"]), torch.tensor(tokens["attention_mask"]), []
    ids, spans = [], []
    start, *_, stop = tokenizer("a")["input_ids"]
    ids.append(start)
    dot = tokenizer(".", add_special_tokens=False)["input_ids"]
    for word in words:
        own = tokenizer(word, add_special_tokens=False)["input_ids"]
        spans.append((len(ids), len(ids) + len(own)))
        ids += [*own, *dot]
    ids.append(stop)
    if len(ids) > 256:
        raise ValueError(f"{len(words)} things are {len(ids)} tokens; Grounding DINO takes 256")
    return torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long), spans
