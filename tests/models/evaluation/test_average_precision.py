"""Average precision against pycocotools' own, on drawn cases with crowds, ties and several kinds; and by hand."""

from __future__ import annotations

import contextlib
import io
import math
import random

import numpy as np
import pytest

from cleanplate.models.evaluation.average_precision import Truth, matched, precision
from cleanplate.models.types import Region

Box = tuple[float, float, float, float]


def region(kind: str, score: float, box: Box) -> Region:
    return Region(kind, "x", score, box)


def test_a_case_that_can_be_reckoned_by_hand() -> None:
    """Two labels; the surest detection is right, the second false, the third right: precision 1 up to recall .5, 2/3
    up to 1. 51 of the 101 recalls lie at .5 or below."""
    truth = [Truth("cat", (0, 0, 10, 10)), Truth("cat", (20, 0, 30, 10))]
    found = [
        region("cat", 0.9, (0, 0, 10, 10)),
        region("cat", 0.8, (50, 50, 60, 60)),
        region("cat", 0.7, (20, 0, 30, 10)),
    ]
    result = precision([matched(truth, found, ["cat"])])
    assert result.ap == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    assert result.ap50 == result.ap
    # A box that shares .6 counts at .5, .55 and .6 alone.
    (loose,) = [precision([matched(truth[:1], [region("cat", 0.9, (0, 0, 10, 6))], ["cat"])])]
    assert (loose.ap, loose.ap50) == (pytest.approx(0.3), 1.0)


def test_nothing_to_find_is_no_number_and_nothing_found_is_none() -> None:
    assert math.isnan(precision([matched([], [region("cat", 0.9, (0, 0, 1, 1))], ["cat"])]).ap)
    assert math.isnan(precision([]).ap)
    assert precision([matched([Truth("cat", (0, 0, 9, 9))], [], ["cat"])]).ap == 0


def drawn(dice: random.Random) -> tuple[list[Truth], list[Region]]:
    """Labels and detections near them and elsewhere; scores of one digit, so that many are alike."""
    truth, found = [], []
    for _ in range(dice.randint(0, 6)):
        x, y, w, h = dice.randint(0, 80), dice.randint(0, 80), dice.randint(4, 40), dice.randint(4, 40)
        kind, crowd = dice.choice(["a", "b"]), dice.random() < 0.2
        truth.append(Truth(kind, (x, y, x + w, y + h), crowd))
        for _ in range(dice.randint(0, 3)):
            shift = [dice.randint(-4, 4) for _ in range(4)]
            box = (x + shift[0], y + shift[1], x + w + shift[2] + 4, y + h + shift[3] + 4)
            found.append(region(dice.choice([kind, kind, "b"]), round(dice.random(), 1), box))
    return truth, found


@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_number_of_pycocotools(seed: int) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    dice = random.Random(seed)
    pictures = [drawn(dice) for _ in range(12)]
    ids = {"a": 1, "b": 2}

    def xywh(box: Box) -> list[float]:
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    annotations = [
        {
            "image_id": n,
            "category_id": ids[one.kind],
            "bbox": xywh(one.box),
            "area": 1.0,
            "iscrowd": int(one.crowd),
        }
        for n, (truth, _) in enumerate(pictures)
        for one in truth
    ]
    for n, one in enumerate(annotations, 1):
        one["id"] = n
    results = [
        {"image_id": n, "category_id": ids[r.kind], "bbox": xywh(r.box), "score": r.score}
        for n, (_, found) in enumerate(pictures)
        for r in found
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = COCO()
        theirs.dataset = {
            "images": [{"id": n} for n in range(len(pictures))],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        }
        theirs.createIndex()
        judge = COCOeval(theirs, theirs.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    ours = precision([matched(truth, found, ["a", "b"]) for truth, found in pictures])
    assert np.allclose([ours.ap, ours.ap50], judge.stats[:2], atol=1e-12)
