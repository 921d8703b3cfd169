import numpy as np
import torch

from cleanplate.models.lama.generator import inpaint_batch, to_input
from cleanplate.models.lama.prefill import prefilled, pyramid_fill


def example(size=(48, 40)):
    rng = np.random.default_rng(0)
    image = np.linspace(20, 220, size[1]).astype(np.uint8)[None, :, None].repeat(size[0], 0).repeat(3, 2)
    image = np.clip(image + rng.integers(-5, 6, image.shape), 0, 255).astype(np.uint8)
    mask = np.zeros(size, bool)
    mask[10:30, 10:30] = True
    return image, mask


def test_known_pixels_stay_and_holes_take_the_colours_around_them():
    image, mask = example()
    fill = pyramid_fill(to_input(image[None], mask[None]))[0].permute(1, 2, 0).numpy() * 255
    np.testing.assert_allclose(fill[~mask], image[~mask], atol=1e-3)
    # A ramp is continued: far better than the hole's mean colour everywhere.
    error = np.abs(fill[mask] - image[mask].astype(float)).mean()
    assert error < 0.5 * np.abs(image[mask].astype(float) - image[mask].mean()).mean()


def test_a_flat_image_is_filled_flat_at_any_size():
    for size in ((16, 16), (23, 40), (64, 17)):
        image = np.full((*size, 3), 90, np.uint8)
        mask = np.zeros(size, bool)
        mask[3:12, 2:14] = True
        fill = pyramid_fill(to_input(image[None], mask[None]))
        torch.testing.assert_close(fill, torch.full_like(fill, 90 / 255), atol=1e-5, rtol=0)


def test_an_image_that_is_all_hole_gives_zeros():
    x = torch.cat([torch.zeros(1, 3, 16, 16), torch.ones(1, 1, 16, 16)], dim=1)
    assert torch.equal(pyramid_fill(x), torch.zeros(1, 3, 16, 16))


def test_half_means_no_correction_and_the_correction_is_signed():
    image, mask = example()
    x = to_input(image[None], mask[None])
    hole = torch.from_numpy(mask)
    seen = []

    def constant(value):
        def predict(given):
            seen.append(given)
            return torch.full_like(given[:, :3], value)

        return prefilled(predict)(x)

    fill = pyramid_fill(x)
    torch.testing.assert_close(constant(0.5)[..., hole], fill[..., hole])
    torch.testing.assert_close(constant(0.45), constant(0.5) - 0.1)
    torch.testing.assert_close(seen[0], torch.cat([fill, x[:, 3:]], dim=1))


def test_off_the_hole_the_start_is_coarse_so_that_there_is_detail_to_learn():
    image, mask = example()
    x = to_input(image[None], mask[None])
    start = prefilled(lambda given: torch.full_like(given[:, :3], 0.5))(x)
    rough = (x[..., 1:, :] - x[..., :-1, :])[:, :3, 32:].abs().mean()
    smooth = (start[..., 1:, :] - start[..., :-1, :])[:, :, 32:].abs().mean()
    assert smooth < 0.5 * rough
    assert (start - x[:, :3])[:, :, 34:].abs().mean() < 0.05


def test_it_is_a_predict_function_for_inference():
    image, mask = example()
    out = inpaint_batch(prefilled(lambda given: torch.full_like(given[:, :3], 1.0)), image[None], mask[None])[
        0
    ]
    np.testing.assert_array_equal(out[~mask], image[~mask])
    assert (out[mask] == 255).all()
