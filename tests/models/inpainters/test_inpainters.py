"""What every inpainter promises, and how LaMa's runs its crops."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cleanplate.models.inpainters.copying import Textured
from cleanplate.models.inpainters.crops import CropSettings
from cleanplate.models.inpainters.inpainters import LamaInpainter, is_out_of_memory, simple_inpainters
from cleanplate.models.lama.generator import build_generator, inpaint_batch
from cleanplate.models.lama.params import LAMA
from cleanplate.models.types import Inpainter

SMALL = CropSettings(min_side=64, bucket=32, max_side=128)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    torch.manual_seed(0)
    return build_generator(LAMA["tiny"])


def everyone(tiny: nn.Module) -> dict[str, Inpainter]:
    return {
        **simple_inpainters(),
        "lama": LamaInpainter(tiny, crops=SMALL),
        "lama+texture": Textured(LamaInpainter(tiny, crops=SMALL)),
        "lama-batched": LamaInpainter(tiny, crops=SMALL, batch=3),
        "lama-whole": LamaInpainter(tiny, crops=CropSettings(whole_image=True)),
        "lama-bf16": LamaInpainter(tiny, crops=SMALL, precision="bf16"),
    }


SIMPLE = ["telea", "ns", "patchmatch", "blur", "pixelate", "stylise", "fill"]
NAMES = [*SIMPLE, "lama", "lama+texture", "lama-batched", "lama-whole", "lama-bf16"]


def scenes() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Images of unlike sizes; holes: some boxes, none, everything, one wide enough to be reduced, one
    pixel."""
    rng = np.random.default_rng(1)
    sizes = [(150, 201), (40, 40), (33, 70), (200, 300), (1, 1), (9, 260)]
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    masks = [np.zeros(size, np.bool_) for size in sizes]
    masks[0][5:30, 10:40] = masks[0][120:140, 180:201] = True
    masks[2][:] = True
    masks[3][20:190, 20:280] = True
    masks[4][:] = True
    masks[5][4, 100] = True
    return images, masks


@pytest.mark.parametrize("name", NAMES)
def test_promises(tiny: nn.Module, name: str) -> None:
    inpainter = everyone(tiny)[name]
    images, masks = scenes()
    before = [image.copy() for image in images]
    results = inpainter(images, masks)
    assert len(results) == len(images)
    for image, mask, result, old in zip(images, masks, results, before, strict=True):
        assert result.shape == image.shape
        assert result.dtype == np.uint8
        assert np.array_equal(result[~mask], image[~mask])
        assert np.array_equal(image, old)
        if not mask.any():
            assert result.tobytes() == image.tobytes()
        elif mask.sum() > 100:
            assert (result[mask] != image[mask]).mean() > 0.5
    assert inpainter([], []) == []


@pytest.mark.parametrize("name", NAMES)
def test_wrong_input_is_refused(tiny: nn.Module, name: str) -> None:
    inpainter = everyone(tiny)[name]
    image, mask = np.zeros((20, 20, 3), np.uint8), np.ones((20, 20), np.bool_)
    with pytest.raises(ValueError, match="1 images but 0 masks"):
        inpainter([image], [])
    with pytest.raises(ValueError, match="HWC uint8"):
        inpainter([image[..., 0]], [mask])
    with pytest.raises(ValueError, match="HW bool"):
        inpainter([image], [mask[:10]])


def test_names_are_those_in_the_table() -> None:
    assert {k: v.name for k, v in simple_inpainters().items()} == {k: k for k in SIMPLE}


def test_the_hole_content_does_not_reach_the_result(tiny: nn.Module) -> None:
    """Nothing that fills may depend on what is under the mask; what hides must."""
    images, masks = scenes()
    changed = [np.where(m[..., None], 255 - i, i) for i, m in zip(images, masks, strict=True)]
    for name, inpainter in everyone(tiny).items():
        if name in ("lama-bf16", "lama-whole"):
            continue  # slow, and nothing that the others do not show
        pairs = zip(inpainter(images, masks), inpainter(changed, masks), strict=True)
        same = all(np.array_equal(a, b) for a, b in pairs)
        assert same == (name not in ("blur", "pixelate", "stylise")), name


def test_crops_give_what_the_reference_gives_on_the_crop(tiny: nn.Module) -> None:
    images, masks = scenes()
    (result,) = LamaInpainter(tiny, crops=SMALL)([images[0]], [masks[0]])
    part = inpaint_batch(tiny, images[0][None, :64, :64], masks[0][None, :64, :64])[0]
    assert np.array_equal(result[:64, :64], part)


def test_a_small_hole_costs_a_small_crop(tiny: nn.Module) -> None:
    seen: list[tuple[int, ...]] = []
    model = Recording(tiny, seen)
    image, mask = np.zeros((1000, 1200, 3), np.uint8), np.zeros((1000, 1200), np.bool_)
    mask[500:510, 500:510] = True
    LamaInpainter(model, crops=SMALL)([image], [mask])
    assert seen == [(1, 4, 64, 64)]


def test_crops_of_different_images_share_a_batch(tiny: nn.Module) -> None:
    seen: list[tuple[int, ...]] = []
    images = [np.full((100 + 10 * i, 120, 3), 40 * i, np.uint8) for i in range(5)]
    masks = [np.zeros(i.shape[:2], np.bool_) for i in images]
    for mask in masks:
        mask[30:40, 30:40] = True
    together = LamaInpainter(Recording(tiny, seen), crops=SMALL, batch=4)(images, masks)
    assert [s[0] for s in seen] == [4, 1]
    alone = LamaInpainter(tiny, crops=SMALL)(images, masks)
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(together, alone, strict=True)) <= 1


def test_full_resolution_wins_over_reduced() -> None:
    """A small hole in the box of an L-shaped one that is seen reduced."""
    image, mask = np.zeros((600, 600, 3), np.uint8), np.zeros((600, 600), np.bool_)
    mask[0:600, 0:100] = mask[500:600, 0:600] = True
    mask[100:110, 400:410] = True
    (result,) = LamaInpainter(SizeMarker(), crops=CropSettings(min_side=64, bucket=32, max_side=128))(
        [image], [mask]
    )
    assert (result[mask] > 0).all()
    assert len(np.unique(result[0:90, 0:90])) == 1
    assert (result[100:110, 400:410] == 64).all()


class SizeMarker(nn.Module):
    """Paints the width it sees, as a level."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.full_like(x[:, :3], (x.shape[-1] + 0.5) / 255)


class Recording(nn.Module):
    """A generator that notes the shapes it sees."""

    def __init__(self, model: nn.Module, seen: list[tuple[int, ...]]) -> None:
        super().__init__()
        self.model, self.seen = model, seen

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(tuple(x.shape))
        out: Tensor = self.model(x)
        return out


class Cramped(nn.Module):
    """A generator whose memory holds `room` images at once; it gives grey."""

    def __init__(self, room: int, error: RuntimeError) -> None:
        super().__init__()
        self.room, self.error, self.sizes = room, error, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.room:
            raise self.error
        self.sizes.append(len(x))
        return torch.full_like(x[:, :3], 0.5)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
    ],
)
def test_batches_are_halved_when_memory_runs_out(error: RuntimeError) -> None:
    images, masks = [np.zeros((64, 64, 3), np.uint8)] * 7, [np.ones((64, 64), np.bool_)] * 7
    model = Cramped(2, error)
    results = LamaInpainter(model, batch=7)(images, masks)
    assert all((r == 127).all() for r in results)
    assert sum(model.sizes) == 7
    assert max(model.sizes) == 2
    with pytest.raises(type(error), match="memory"):
        LamaInpainter(Cramped(0, error), batch=7)(images, masks)


def test_other_errors_are_not_retried() -> None:
    model = Cramped(1, RuntimeError("boom"))
    with pytest.raises(RuntimeError, match="boom"):
        LamaInpainter(model, batch=2)(
            [np.zeros((64, 64, 3), np.uint8)] * 2, [np.ones((64, 64), np.bool_)] * 2
        )
    assert model.sizes == []


def test_torch_really_says_so_when_a_cpu_runs_out() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("kwargs", [{"precision": "fp16"}, {"batch": 0}])
def test_impossible_settings_are_refused(tiny: nn.Module, kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        LamaInpainter(tiny, **kwargs)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("precision", "fast"), [("fp32", False), ("fp32", True), ("bf16", False), ("bf16", True)]
)
def test_a_gpu_gives_what_a_cpu_gives(tiny: nn.Module, precision: Any, fast: bool) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    images, masks = scenes()
    want = LamaInpainter(copy.deepcopy(tiny), crops=SMALL)(images, masks)
    model = copy.deepcopy(tiny)
    got = LamaInpainter(model, crops=SMALL, device="cuda", precision=precision, fast=fast)(images, masks)
    for a, b, image, mask in zip(want, got, images, masks, strict=True):
        assert np.array_equal(b[~mask], image[~mask])
        assert np.abs(a.astype(int) - b).mean() < (0.1 if precision == "fp32" else 2)
