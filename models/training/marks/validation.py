"""The validation of `marks`: samples that are the same on every call, and the scores of a network on them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from cleanplate.models.detectors.unet import MarksNet, probability
from cleanplate.models.training.data import shrink
from cleanplate.models.training.marks.data import Sample
from cleanplate.models.training.marks.figures import KINDS
from cleanplate.models.training.marks.fonts import Fonts
from cleanplate.models.training.marks.render import plan_mark, render
from cleanplate.models.types import Image


def validation_samples(images: Sequence[Image], fonts: Fonts, size: int) -> list[Sample]:
    """The same on every call: for each photograph one kind of mark after another, every fifth left clean."""
    samples: list[Sample] = []
    kinds = list(KINDS)
    for number, photo in enumerate(images):
        rng = np.random.default_rng([7, number])
        small = shrink(photo, size)
        y, x = (side - size for side in small.shape[:2])
        crop = np.ascontiguousarray(small[max(0, y) // 2 :, max(0, x) // 2 :][:size, :size])
        if crop.shape[:2] != (size, size):
            crop = np.asarray(cv2.resize(crop, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)
        if number % 5 == 4:
            nothing = np.zeros((size, size), np.bool_)
            samples.append((crop, nothing, ~nothing))
            continue
        marked = render(rng, crop, fonts, plan_mark(rng, kinds[number % len(kinds)]))
        samples.append((marked.image, marked.mask, marked.seen))
    return samples


def judge(net: MarksNet, samples: list[Sample]) -> tuple[dict[str, float], list[Image]]:
    """Scores at probability .5: mean IoU, recall and precision of marked samples, share of clean ones that is
    called marked; `score` = mean IoU less ten times that share. With one picture for each sample: probability."""
    rows, false, shown = [], [], []
    net.eval()
    for image, mask, counted in samples:
        chance = probability(net, [image])[0]
        shown.append(np.repeat((chance * 255).astype(np.uint8)[..., None], 3, 2))
        found = (chance > 0.5) & counted
        if not (mask & counted).any():
            false.append(float(found.mean()))
            continue
        both, true = int((found & mask).sum()), int((mask & counted).sum())
        rows.append(
            (
                both / max(1, int((found | (mask & counted)).sum())),
                both / true,
                both / max(1, int(found.sum())),
            )
        )
    iou, recall, precision = np.mean(rows or [(0.0, 0.0, 0.0)], axis=0).tolist()
    share = float(np.mean(false or [0.0]))
    scores = {"score": iou - 10 * share, "iou": iou, "recall": recall, "precision": precision}
    return {**scores, "clean_false_share": share}, shown
