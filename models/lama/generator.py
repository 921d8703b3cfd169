"""LaMa generators (Suvorov et al. 2021, arXiv 2109.07161) and the reference inference around them.

A generator takes Bx4xHxW float (RGB in [0, 1] with the hole set to 0, then the mask, 1 = hole) and gives
Bx3xHxW float32 in [0, 1]. H and W are multiples of 8. Sub-modules carry the names of the authors' checkpoints
(`model.N....`), so that published weights load with strict=True.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cleanplate.models.devices import progressed
from cleanplate.models.lama.blocks import MultidilatedBlock, ResnetBlock
from cleanplate.models.lama.ffc import FFC_BN_ACT, ConcatSplit, FFCResnetBlock, ReflectPad2d
from cleanplate.models.lama.params import MODULO, Kind, LamaParams, padded_side

Precision = Literal["fp32", "bf16"]
Predict = Callable[[Tensor], Tensor]
"""Bx4xHxW float -> Bx3xHxW float32 in [0, 1]; a generator is one."""


class _SigmoidFp32(nn.Module):
    """Sigmoid in fp32 or better: bf16 near 1 has steps of a whole grey level."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return torch.sigmoid(x if x.dtype == torch.float64 else x.float())


class LamaGenerator(nn.Module):
    """A generator of one shape; `model` is the sequence of layers, numbered as in the reference."""

    def __init__(self, params: LamaParams) -> None:
        super().__init__()
        self.params = params
        self.model = nn.Sequential(*_encoder(params), *_blocks(params), *_decoder(params))

    def forward(self, x: Tensor) -> Tensor:
        """Bx4xHxW float (masked RGB in [0, 1], mask) -> Bx3xHxW in [0, 1], float32 (float64 for float64
        weights)."""
        return self.crop(self.model(x))

    def crop(self, predicted: Tensor) -> Tensor:
        """Off with the 8 mirrored pixels on each side that the dilated kind works with; nothing for the
        others."""
        return predicted[..., 8:-8, 8:-8] if self.params.kind == "dilated" else predicted


def _encoder(p: LamaParams) -> list[nn.Module]:
    steps = range(p.n_downsampling)
    if p.kind == "fourier":
        last = p.n_downsampling - 1
        return [
            ReflectPad2d(3, 3, 3, 3),
            FFC_BN_ACT(4, p.ngf, 7),
            *(
                FFC_BN_ACT(
                    p.width(i),
                    p.width(i + 1),
                    3,
                    ratio_out=p.ratio_global if i == last else 0.0,
                    stride=2,
                    padding=1,
                )
                for i in steps
            ),
        ]
    pad = ReflectPad2d(*((7, 13, 7, 13) if p.kind == "dilated" else (3, 3, 3, 3)))
    layers: list[nn.Module] = [pad, nn.Conv2d(4, p.ngf, 7), nn.BatchNorm2d(p.ngf), nn.ReLU(inplace=True)]
    for i in steps:
        conv = nn.Conv2d(p.width(i), p.width(i + 1), 3, stride=2, padding=1)
        layers += [conv, nn.BatchNorm2d(p.width(i + 1)), nn.ReLU(inplace=True)]
    return layers


def _blocks(p: LamaParams) -> list[nn.Module]:
    width = p.width(p.n_downsampling)
    if p.kind == "fourier":
        return [*(FFCResnetBlock(width, p.ratio_global) for _ in range(p.n_blocks)), ConcatSplit()]
    block = MultidilatedBlock if p.kind == "dilated" else ResnetBlock
    return [block(width) for _ in range(p.n_blocks)]


def _decoder(p: LamaParams) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for i in range(p.n_downsampling, 0, -1):
        up = nn.ConvTranspose2d(p.width(i), p.width(i - 1), 3, stride=2, padding=1, output_padding=1)
        layers += [up, nn.BatchNorm2d(p.width(i - 1)), nn.ReLU(inplace=True)]
    pad = nn.ReplicationPad2d((0, 6, 0, 6)) if p.kind == "dilated" else ReflectPad2d(3, 3, 3, 3)
    return [*layers, pad, nn.Conv2d(p.ngf, 3, 7), _SigmoidFp32()]


def build_generator(params: LamaParams) -> LamaGenerator:
    """A generator with torch's default random weights, in training mode.

    Raises ValueError for a shape that cannot be built.
    """
    if params.n_downsampling < 1 or params.n_blocks < 1 or params.ngf < 1:
        raise ValueError(f"a generator needs at least one channel, downsampling and block: {params}")
    if (params.kind == "fourier") != (params.ratio_global > 0):
        raise ValueError(f"ratio_global must be above 0 for kind 'fourier' and 0 for the others: {params}")
    return LamaGenerator(params)


def params_of(state_dict: Mapping[str, Tensor]) -> LamaParams:
    """The shape of the generator whose weights these are, read from names and shapes alone.

    Raises ValueError, saying what does not fit, if no generator of this module has exactly these tensors.
    """
    params = _guess_params({name: tuple(t.shape) for name, t in state_dict.items()})
    with torch.device("meta"):
        expected = {name: t.shape for name, t in build_generator(params).state_dict().items()}
    wrong = [
        *(f"missing {k}" for k in expected.keys() - state_dict.keys()),
        *(f"unexpected {k}" for k in state_dict.keys() - expected.keys()),
        *(
            f"{k} is {tuple(state_dict[k].shape)}, not {tuple(expected[k])}"
            for k in expected.keys() & state_dict.keys()
            if state_dict[k].shape != expected[k]
        ),
    ]
    if wrong:
        shown = "; ".join(sorted(wrong)[:5])
        raise ValueError(f"not the weights of a LaMa generator ({params}): {len(wrong)} differences: {shown}")
    return params


def _guess_params(shapes: Mapping[str, tuple[int, ...]]) -> LamaParams:
    """The only generator that could have these shapes; it need not have them."""
    kind, first_conv, blocks = _kind_of(shapes)
    ngf, ratio = shapes[first_conv][0], 0.0
    if kind == "fourier":
        n_downsampling = blocks[0] - 2
        block = f"model.{blocks[0]}.conv1"
        n_local = shapes[f"{block}.ffc.convl2l.weight"][0]
        n_global = (shapes.get(f"{block}.bn_g.weight") or (0,))[0]
        width, ratio = n_local + n_global, n_global / (n_local + n_global)
    else:
        n_downsampling = (blocks[0] - 4) // 3
        width = shapes[f"model.{blocks[0]}.conv_block.{1 if kind == 'dilated' else 2}.bias"][0]
    if n_downsampling < 1:
        raise ValueError("not the weights of a LaMa generator: the residual blocks start too early")
    max_features = 1024 if width == min(1024, ngf << n_downsampling) else width
    return LamaParams(kind, ngf, n_downsampling, len(blocks), ratio, max_features)


def _kind_of(shapes: Mapping[str, tuple[int, ...]]) -> tuple[Kind, str, list[int]]:
    """The kind, the name of the first convolution, and the numbers of the residual blocks."""
    marks: tuple[tuple[Kind, str, str], ...] = (
        ("fourier", "model.1.ffc.convl2l.weight", r"conv1\.ffc\.convl2l\.weight"),
        ("dilated", "model.1.weight", r"conv_block\.0\.convs\.0\.weight"),
        ("regular", "model.1.weight", r"conv_block\.1\.weight"),
    )
    for kind, first_conv, mark in marks:
        found = (re.fullmatch(rf"model\.(\d+)\.{mark}", name) for name in shapes)
        blocks = sorted(int(m[1]) for m in found if m)
        if blocks and len(shapes.get(first_conv, ())) == 4:
            return kind, first_conv, blocks
    raise ValueError("not the weights of a LaMa generator: no first layer and blocks named 'model.N....'")


def pad_symmetric(
    array: npt.NDArray[np.generic], *, modulo: int = MODULO, min_side: int = 16
) -> npt.NDArray[np.generic]:
    """BHW or BHWC of any dtype, padded at the bottom and the right by mirroring, the edge pixel included."""
    height, width = array.shape[1:3]
    bottom = padded_side(height, modulo=modulo, min_side=min_side) - height
    right = padded_side(width, modulo=modulo, min_side=min_side) - width
    return np.pad(array, [(0, 0), (0, bottom), (0, right), *[(0, 0)] * (array.ndim - 3)], mode="symmetric")


def to_input(images: npt.NDArray[np.uint8], masks: npt.NDArray[np.bool_]) -> Tensor:
    """BHWC uint8 RGB and BHW bool (True = hole) -> Bx4xHxW float32: RGB/255 with the hole at 0, then the
    mask."""
    return _to_input(*(torch.from_numpy(np.ascontiguousarray(array)) for array in (images, masks)))


def _to_input(images: Tensor, masks: Tensor) -> Tensor:
    """`to_input` of tensors, on their device."""
    rgb = images.permute(0, 3, 1, 2).float() / 255
    hole = masks.unsqueeze(1).float()
    return torch.cat([rgb * (1 - hole), hole], dim=1)


def inpaint_batch(
    predict: Predict,
    images: npt.NDArray[np.uint8],
    masks: npt.NDArray[np.bool_],
    *,
    device: str | torch.device = "cpu",
    precision: Precision = "fp32",
    min_side: int = 16,
) -> npt.NDArray[np.uint8]:
    """Fills the holes as the reference does (bin/predict.py): BHWC uint8 RGB and BHW bool -> BHWC uint8 RGB.

    The input is padded symmetrically at the bottom and the right to a multiple of 8 and at least min_side;
    the prediction is cut to [0, 255] and truncated, not rounded. Pixels outside the masks are those of the
    input, bit for bit. A generator must be in eval mode and on `device`. 'bf16' runs the convolutions under
    autocast.

    Raises ValueError for arrays of other shapes or dtypes.
    """
    return start_batch(predict, images, masks, device=device, precision=precision, min_side=min_side)()


@torch.inference_mode()
def start_batch(
    predict: Predict,
    images: npt.NDArray[np.uint8],
    masks: npt.NDArray[np.bool_],
    *,
    device: str | torch.device = "cpu",
    precision: Precision = "fp32",
    min_side: int = 16,
) -> Callable[[], npt.NDArray[np.uint8]]:
    """inpaint_batch in two halves: starts the work and gives the function that waits for its result.

    On a GPU the call comes back while copies and kernels are still running, so that the caller can prepare
    its next batch meanwhile; images go there and come back as bytes in page-locked memory. On a CPU all work is
    done here.
    """
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise ValueError(f"images must be BHWC uint8 RGB, not {images.dtype} {images.shape}")
    if masks.shape != images.shape[:3] or masks.dtype != np.bool_:
        raise ValueError(f"masks must be BHW bool of {images.shape[:3]}, not {masks.dtype} {masks.shape}")
    if images.size == 0:
        return images.copy
    height, width = images.shape[1:3]
    on_gpu = torch.device(device).type == "cuda"
    staged = [
        torch.from_numpy(np.ascontiguousarray(pad_symmetric(array, min_side=min_side)))
        for array in (images, masks)
    ]
    if on_gpu:
        staged = [tensor.pin_memory() for tensor in staged]
    x = _to_input(*(tensor.to(device, non_blocking=on_gpu) for tensor in staged))
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        predicted = predict(x)
    progressed()
    levels = (predicted[..., :height, :width].float() * 255).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    done: torch.cuda.Event | None = None
    if on_gpu:
        host = torch.empty(levels.shape, dtype=torch.uint8, pin_memory=True)
        levels = host.copy_(levels, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()

    def finish() -> npt.NDArray[np.uint8]:
        if done is not None:
            done.synchronize()
        staged.clear()  # Until here the copies to the device may have been reading it.
        return np.where(masks[..., None], levels.numpy(), images)

    return finish
