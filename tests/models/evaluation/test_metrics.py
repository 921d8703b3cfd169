import math

import numpy as np
import pytest

from cleanplate.models.metrics import pixelwise


def photo(seed=0, size=(40, 48)):
    rng = np.random.default_rng(seed)
    ramp = np.linspace(40, 200, size[1])[None, :, None]
    return np.clip(ramp + rng.normal(0, 12, (*size, 3)), 0, 255).astype(np.uint8)


def test_psnr_of_a_known_error():
    image = np.full((8, 8, 3), 100, np.uint8)
    assert pixelwise.psnr(image + np.uint8(10), image) == pytest.approx(20 * math.log10(255 / 10))
    assert pixelwise.psnr(image, image) == math.inf


def test_psnr_does_not_wrap_around_at_zero():
    dark, light = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    assert pixelwise.psnr(dark, light) == pytest.approx(0)
    assert pixelwise.psnr(light, dark) == pytest.approx(0)


def test_masked_psnr_sees_the_mask_only():
    image = photo()
    mask = np.zeros(image.shape[:2], bool)
    mask[5:15, 5:15] = True
    wrong_outside = np.where(mask[..., None], image, 0).astype(np.uint8)
    assert pixelwise.psnr(wrong_outside, image, mask) == math.inf
    assert pixelwise.psnr(wrong_outside, image, ~mask) < 10


def test_ssim_is_one_for_equal_images_and_falls_with_noise():
    image = photo()
    noise = np.random.default_rng(1).normal(0, 1, image.shape)
    light, heavy = (np.clip(image + s * noise, 0, 255).astype(np.uint8) for s in (5, 40))
    assert pixelwise.ssim(image, image) == pytest.approx(1)
    assert 1 > pixelwise.ssim(light, image) > pixelwise.ssim(heavy, image)


def test_ssim_of_two_flat_images_is_the_luminance_term():
    a, b = (np.full((32, 32, 3), v, np.uint8) for v in (100, 120))
    c1 = (0.01 * 255) ** 2
    assert pixelwise.ssim(a, b) == pytest.approx((2 * 100 * 120 + c1) / (100**2 + 120**2 + c1), abs=1e-6)


def test_ssim_is_that_of_scikit_image():
    skimage = pytest.importorskip("skimage.metrics")
    a, b = photo(0), photo(1)
    _, expected = skimage.structural_similarity(
        a,
        b,
        channel_axis=2,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    # Away from the border, whose treatment differs between programs.
    ours = pixelwise.ssim_map(a, b)[6:-6, 6:-6]
    np.testing.assert_allclose(ours, expected.mean(axis=2)[6:-6, 6:-6], atol=1e-6)


def test_masked_ssim_is_the_mean_of_the_map_in_the_mask():
    a, b = photo(0), photo(1)
    mask = np.zeros(a.shape[:2], bool)
    mask[:10] = True
    assert pixelwise.ssim(a, b, mask) == pytest.approx(pixelwise.ssim_map(a, b)[:10].mean())


def test_l1_is_in_units_of_the_full_range():
    image = np.full((8, 8, 3), 100, np.uint8)
    assert pixelwise.l1(image + np.uint8(51), image) == pytest.approx(0.2)


def test_mask_iou():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert pixelwise.mask_iou(a, b) == 1
    a[:2], b[1:3] = True, True
    assert pixelwise.mask_iou(a, b) == pytest.approx(1 / 3)


@pytest.mark.parametrize("measure", [pixelwise.psnr, pixelwise.ssim, pixelwise.l1])
def test_what_cannot_be_measured_is_refused(measure):
    image = photo()
    with pytest.raises(ValueError, match="one size"):
        measure(image, image[:-1])
    with pytest.raises(ValueError, match="empty mask"):
        measure(image, image, np.zeros(image.shape[:2], bool))
    with pytest.raises(ValueError, match="HW bool"):
        measure(image, image, np.zeros((3, 3), bool))


def test_ssim_of_a_tiny_image_is_refused():
    with pytest.raises(ValueError, match="at least 11"):
        pixelwise.ssim(photo(size=(10, 40)), photo(size=(10, 40)))
