"""What copies from the surroundings: not from where it must not, the same twice, and with texture."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from cleanplate.models.inpainters.copying import PatchMatch, Textured
from cleanplate.models.inpainters.exemplars import sources, textured
from cleanplate.models.inpainters.inpainters import OpenCvInpainter
from cleanplate.models.types import Image, Inpainter, Mask

COPYING: list[Inpainter] = [PatchMatch(), Textured(OpenCvInpainter("telea"))]


def cloth(seed: int = 3) -> Image:
    """128 x 160 of grey-green weave: texture of one kind everywhere."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.normal(0, 60, (128, 160)).astype(np.float32), (0, 0), 1.0)
    grey = np.asarray(noise) + 120 + 12 * np.sin(np.arange(160) / 2)
    return np.clip(np.stack([grey - 10, grey + 10, grey - 20], -1), 0, 255).astype(np.uint8)


def hole(shape: tuple[int, ...]) -> Mask:
    mask = np.zeros(shape[:2], np.bool_)
    mask[50:78, 60:100] = True
    return mask


def decoys(image: Image) -> tuple[Image, Mask]:
    """A second face, a second line of letters and a plate beside the hole, in colours of their own: red, blue and
    yellow. The mask of them."""
    out, mask = image.copy(), np.zeros(image.shape[:2], np.bool_)
    cv2.ellipse(out, (80, 28), (14, 18), 0, 0, 360, (250, 20, 20), -1)
    cv2.putText(out, "LETTERS", (30, 100), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (20, 20, 250), 3)
    cv2.rectangle(out, (108, 50), (150, 70), (250, 240, 20), -1)
    mask[8:48, 64:96] = mask[80:106, 24:150] = mask[48:73, 106:153] = True
    return out, mask


def detail(image: Image, mask: Mask) -> float:
    grey = image.astype(np.float32).mean(-1)
    return float((grey - np.asarray(cv2.GaussianBlur(grey, (0, 0), 2)))[mask].std())


@pytest.mark.parametrize("inpainter", COPYING, ids=lambda one: one.name)
def test_a_hole_in_texture_gets_texture(inpainter: Inpainter) -> None:
    image = cloth()
    mask = hole(image.shape)
    (filled,) = inpainter([image], [mask])
    (smooth,) = OpenCvInpainter("telea")([image], [mask])
    assert detail(filled, mask) > 0.7 * detail(image, mask)
    assert detail(smooth, mask) < 0.5 * detail(image, mask)


@pytest.mark.parametrize("inpainter", COPYING, ids=lambda one: one.name)
def test_nothing_is_copied_from_what_is_forbidden(inpainter: Inpainter) -> None:
    """Strong colours that stand nowhere else: with the decoys forbidden the fill has none of them."""
    image, mask = cloth(), hole((128, 160))
    beside, forbidden = decoys(image)
    (filled,) = inpainter([beside], [mask], [forbidden])
    inside = filled[mask].astype(int)
    assert np.ptp(inside, axis=1).max() < 60, "no colour of a decoy"
    assert detail(filled, mask) > 0.6 * detail(image, mask)


def test_letters_that_are_not_forbidden_can_be_copied() -> None:
    """So the test above can fail: letters all round, and nothing else to copy."""
    image, mask = cloth(), hole((128, 160))
    image[:, :, :2] = np.where(np.arange(160)[None, :, None] % 8 < 4, 20, 240)
    (filled,) = PatchMatch()([image], [mask])
    assert np.ptp(filled[mask].astype(int), axis=1).max() > 60


def test_every_source_is_free() -> None:
    image, mask = cloth(), hole((128, 160))
    beside, forbidden = decoys(image)
    copied = sources(beside, mask, forbidden)
    rows, columns = copied.rows[copied.found], copied.columns[copied.found]
    assert copied.found.sum() > 0.9 * mask.sum()
    assert not (mask | forbidden)[rows, columns].any()


def test_where_all_is_forbidden_the_guide_stays() -> None:
    image, mask = cloth(), hole((128, 160))
    assert np.array_equal(textured(image, mask, np.ones_like(mask)), image)


@pytest.mark.parametrize("inpainter", COPYING, ids=lambda one: one.name)
def test_threads_and_repeats_give_the_same_bytes(inpainter: Inpainter) -> None:
    """PatchMatch has one seed a process; threads side by side must not disturb each other."""
    images = [cloth(seed) for seed in range(4)]
    masks = [hole((128, 160))] * 4
    alone = [inpainter([image], [mask])[0] for image, mask in zip(images, masks, strict=True)]
    with ThreadPoolExecutor(4) as pool:
        side_by_side = list(pool.map(lambda n: inpainter([images[n]], [masks[n]])[0], range(4)))
    assert all(np.array_equal(a, b) for a, b in zip(alone, side_by_side, strict=True))


@pytest.mark.parametrize("inpainter", COPYING, ids=lambda one: one.name)
@pytest.mark.parametrize("shape", [(8, 8), (3, 40), (40, 3), (1, 1), (20, 20)])
def test_pictures_too_small_to_copy_from(inpainter: Inpainter, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    mask = np.zeros(shape, np.bool_)
    mask[: (shape[0] + 1) // 2, : (shape[1] + 1) // 2] = True
    (filled,) = inpainter([image], [mask])
    assert np.array_equal(filled[~mask], image[~mask])


@pytest.mark.parametrize("inpainter", COPYING, ids=lambda one: one.name)
def test_grey_stays_grey(inpainter: Inpainter) -> None:
    image = np.repeat(cloth()[..., :1], 3, axis=2)
    (filled,) = inpainter([image], [hole(image.shape)])
    assert np.ptp(filled.astype(int), axis=2).max() == 0


def test_a_large_hole_of_patchmatch_is_filled_at_a_reduced_size_and_has_texture() -> None:
    image = cv2.resize(cloth(), (480, 384), interpolation=cv2.INTER_NEAREST)
    image = np.clip(image + np.random.default_rng(1).normal(0, 15, (384, 480, 1)), 0, 255).astype(np.uint8)
    mask = np.zeros(image.shape[:2], np.bool_)
    mask[100:260, 120:340] = True
    (filled,) = PatchMatch()([image], [mask])
    assert detail(filled, mask) > 0.6 * detail(image, mask)
    assert np.array_equal(filled[~mask], image[~mask])
