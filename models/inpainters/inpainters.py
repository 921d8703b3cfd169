"""Inpainters (cleanplate.models.types.Inpainter): LaMa on crops, OpenCV's two. Those that copy from the surroundings
are in `copying`, those that only hide in `hiding`.

All of them keep every pixel outside the mask bit for bit, return an image with an empty mask as it is (a
copy), and raise ValueError where an image is not HWC uint8 RGB, or a mask not HW bool of its image's size.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
import torch
from torch import nn

from cleanplate.models.devices import subnormals_flushed
from cleanplate.models.inpainters.contract import Forbidden, check_pairs, each
from cleanplate.models.inpainters.copying import PatchMatch
from cleanplate.models.inpainters.crops import Crop, CropSettings, cut, paste, plan_crops
from cleanplate.models.inpainters.hiding import Blur, Fill, Pixelate, Stylise
from cleanplate.models.lama.fast.cuda_graphs import graphed
from cleanplate.models.lama.fast.generator import fast_generator
from cleanplate.models.lama.generator import LamaGenerator, Precision, Predict, start_batch
from cleanplate.models.lama.prefill import prefilled
from cleanplate.models.lama.refine import RefineSettings, n_scales, refine_image
from cleanplate.models.types import Image, Inpainter, Mask

Job = tuple[int, Crop]
"""(number of the image in the call, a crop of it)"""

Filled = Callable[[], Image]
"""Waits for a batch: BHWC uint8 RGB."""


class LamaInpainter:
    """Fills masks with a LaMa generator, crop by crop.

    model: a loaded generator; it is moved to `device` and put into eval mode here.
    precision: 'bf16' runs the convolutions in bf16, which may change a grey level; it pays only where
        cleanplate.models.devices.bf16_is_native says so (8 times slower was seen on a CPU without).
    fast: uses cleanplate.models.lama.fast.generator (Fourier generators only): the same to rounding, in less time.
    prefill: the generator was trained to correct a pyramid fill (cleanplate.models.lama.prefill), as lama-lite was.
    refine: crops large enough for a second scale are refined, one by one, in the weights' own precision
        (cleanplate.models.lama.refine; settings.px_budget bounds the memory); None: never. Smaller crops go
        the usual way.
    batch: how many crops of one size go through at once; None is 16 on a GPU and 1 on a CPU, where more
        gains nothing. When memory runs out, the batch is halved; at 1 the error is raised.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str = "lama",
        device: str | torch.device = "cpu",
        precision: Precision = "fp32",
        crops: CropSettings | None = None,
        batch: int | None = None,
        fast: bool = False,
        prefill: bool = False,
        refine: RefineSettings | None = None,
    ) -> None:
        if precision not in ("fp32", "bf16"):
            raise ValueError(f"precision must be 'fp32' or 'bf16', not {precision!r}")
        if batch is not None and batch < 1:
            raise ValueError(f"batch must be at least 1, not {batch}")
        self.name = name
        self._device = torch.device(device)
        self.crops = crops or CropSettings(growth=growth_of(self._device.type, precision))
        self._precision: Precision = precision
        self._batch = batch or (1 if self._device.type == "cpu" else 16)
        self._min_side = max(16, int(getattr(getattr(model, "params", None), "min_side", 16)))
        self._predict: Predict = model.to(self._device).eval()
        if fast:
            if not isinstance(model, LamaGenerator):
                raise ValueError(f"fast=True needs a LamaGenerator, not {type(model).__name__}")
            # What a box needs depends on its numbers: a graph of kernels cannot wait for them.
            self._predict = fast_generator(model, precision, holes_only=self._device.type == "cpu")
        if prefill:
            self._predict = prefilled(self._predict)
        if fast and self._device.type == "cuda":
            self._predict = graphed(self._predict)
        self._refined: tuple[LamaGenerator, RefineSettings] | None = None
        if refine is not None:
            if not isinstance(model, LamaGenerator):
                raise ValueError(f"refine needs a LamaGenerator, not {type(model).__name__}")
            if prefill:
                raise ValueError(
                    "refinement optimises a generator that paints; this one corrects a pyramid fill"
                )
            self._refined = model, refine

    def __call__(
        self, images: list[Image], masks: list[Mask], forbidden: Forbidden | None = None
    ) -> list[Image]:
        """HWC uint8 RGB and HW bool (True = remove) -> HWC uint8 RGB, same sizes. Nothing is copied, so nothing is
        forbidden."""
        check_pairs(images, masks)
        results = [image.copy() for image in images]
        by_size: defaultdict[tuple[bool, tuple[int, int]], list[Job]] = defaultdict(list)
        for i, mask in enumerate(masks):
            for crop in plan_crops(mask, self.crops):
                by_size[not crop.reduced, crop.size].append((i, crop))
        # Reduced crops first: where two fill the same pixel, the one at full resolution has the last word.
        batches = [
            jobs[start : start + self._batch]
            for _, jobs in sorted(by_size.items())
            for start in range(0, len(jobs), self._batch)
        ]
        waiting: list[tuple[list[Job], Filled]] = []
        for jobs in batches:
            pieces = [cut(images[i], masks[i], crop) for i, crop in jobs]
            filled = self._start(np.stack([p[0] for p in pieces]), np.stack([p[1] for p in pieces]))
            waiting.append((jobs, filled))
            # A GPU works on this batch while the one before is put in its place and the next one is cut.
            if len(waiting) > 1:
                _paste_all(results, masks, *waiting.pop(0))
        for jobs, filled in waiting:
            _paste_all(results, masks, jobs, filled)
        return results

    @subnormals_flushed()
    def _start(self, images: Image, masks: Mask) -> Filled:
        """BHWC uint8 and BHW bool -> what gives BHWC uint8; in halves when memory runs out."""
        if self._refined is not None:
            generator, settings = self._refined
            if n_scales((images.shape[1], images.shape[2]), settings) > 1:
                pairs = zip(images, masks, strict=True)
                refined = np.stack([refine_image(generator, image, mask, settings) for image, mask in pairs])
                return lambda: refined
        try:
            return start_batch(
                self._predict,
                images,
                masks,
                device=self._device,
                precision=self._precision,
                min_side=self._min_side,
            )
        except RuntimeError as error:
            if len(images) == 1 or not is_out_of_memory(error):
                raise
        # Outside the except block: the error holds the frames that hold the tensors.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(images) // 2
        halves = [self._start(images[:half], masks[:half])(), self._start(images[half:], masks[half:])()]
        return lambda: np.concatenate(halves)


def growth_of(device: str, precision: Precision) -> float:
    """`CropSettings.growth`, measured on a core with AMX: bf16's convolutions are so fast that memory shows. None is
    known of GPUs."""
    return 0.0 if device == "cuda" else 0.15 if precision == "bf16" else 0.05


def _paste_all(results: list[Image], masks: list[Mask], jobs: list[Job], filled: Filled) -> None:
    for (i, crop), piece in zip(jobs, filled(), strict=True):
        paste(results[i], masks[i], crop, piece)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory: it says so by a type on GPUs and by a message on CPUs."""
    text = str(error)
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "not enough memory" in text
        or "can't allocate memory" in text
    )


@dataclass
class OpenCvInpainter:
    """cv2.inpaint: 'telea' (Telea 2004) or 'ns' (Bertalmio et al. 2001). radius: pixels looked at round each
    pixel.

    Continues what surrounds a hole; good for scratches and thin text, smears in wide holes. With no known
    pixel at all it gives black.
    """

    method: Literal["telea", "ns"]
    radius: float = 3.0
    name: str = field(init=False)

    def __post_init__(self) -> None:
        if self.method not in ("telea", "ns"):
            raise ValueError(f"method must be 'telea' or 'ns', not {self.method!r}")
        self.name = self.method

    def __call__(
        self, images: list[Image], masks: list[Mask], forbidden: Forbidden | None = None
    ) -> list[Image]:
        flag = cv2.INPAINT_TELEA if self.method == "telea" else cv2.INPAINT_NS

        def fill(image: Image, mask: Mask) -> Image:
            if mask.all():
                return np.zeros_like(image)
            return np.asarray(cv2.inpaint(image, mask.astype(np.uint8), self.radius, flag), np.uint8)

        return each(images, masks, fill)


def simple_inpainters() -> dict[str, Inpainter]:
    """The inpainters that need no weights, by name, with their default settings."""
    filling: list[Inpainter] = [OpenCvInpainter("telea"), OpenCvInpainter("ns"), PatchMatch()]
    all_: list[Inpainter] = [*filling, Blur(), Pixelate(), Stylise(), Fill()]
    return {inpainter.name: inpainter for inpainter in all_}
