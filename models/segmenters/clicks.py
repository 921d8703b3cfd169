"""The object under a point: Segment Anything, asked by clicks on one image."""

from __future__ import annotations

import numpy as np
import torch

from cleanplate.models.devices import subnormals_flushed
from cleanplate.models.segmenters.sam import SamSegmenter
from cleanplate.models.types import Image, Mask


class Clicks:
    """One image, encoded once, and a mask for each point that is asked for."""

    @subnormals_flushed()
    @torch.inference_mode()
    def __init__(self, segmenter: SamSegmenter, image: Image) -> None:
        """image: HWC uint8 RGB. Encoding takes seconds on a CPU; a point takes a fraction of one."""
        self._segmenter, self._shape = segmenter, (image.shape[0], image.shape[1])
        ((self._encoded, self._size),) = segmenter.encoded([image])

    @subnormals_flushed()
    @torch.inference_mode()
    def __call__(self, x: float, y: float) -> Mask:
        """HW bool: of the three masks that the decoder gives for a point, the one that it thinks best. x, y: pixels.
        Raises ValueError for a point outside the image."""
        height, width = self._shape
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"the point {x:g}, {y:g} is outside the picture of {width} x {height}")
        point = self._segmenter.placed(np.array([[x, y]], np.float64), self._shape)
        logits, quality = self._segmenter.prompted(self._encoded, point, None, multimask=True)
        return self._segmenter.full(logits[:, int(quality[0].argmax())], self._size, self._shape)[0]
