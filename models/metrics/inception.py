"""The Inception-v3 whose features the Frechet inception distance compares (Heusel et al. 2017).

Names of tensors and arithmetic are those of the port of TensorFlow's 2015 network that FID is published with
(weights `fid-inception`): average pools that do not count padding, a maximum pool in the last block.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEATURES = 2048
SIDE = 299
Kernel = int | tuple[int, int]


class _Conv(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, cin: int, cout: int, kernel: Kernel, stride: int = 1, padding: Kernel = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(cout, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


def _same(kernel: Kernel) -> Kernel:
    return kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)


class _Block(nn.Module):
    """Branches of convolutions side by side, and a pooled one. Sub-modules have the published names."""

    def _add(self, name: str, cin: int, *layers: tuple[str, int, Kernel]) -> None:
        """A branch: layers are (suffix, channels, kernel), each padded to keep the size."""
        for suffix, channels, kernel in layers:
            self.add_module(name + suffix, _Conv(cin, channels, kernel, padding=_same(kernel)))
            cin = channels

    def _through(self, x: Tensor, *names: str) -> Tensor:
        for name in names:
            x = self.get_submodule(name)(x)
        return x


def _mean(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class _A(_Block):
    def __init__(self, cin: int, pooled: int) -> None:
        super().__init__()
        self._add("branch1x1", cin, ("", 64, 1))
        self._add("branch5x5", cin, ("_1", 48, 1), ("_2", 64, 5))
        self._add("branch3x3dbl", cin, ("_1", 64, 1), ("_2", 96, 3), ("_3", 96, 3))
        self._add("branch_pool", cin, ("", pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        five = self._through(x, "branch5x5_1", "branch5x5_2")
        double = self._through(x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
        pooled = self._through(_mean(x), "branch_pool")
        return torch.cat([self._through(x, "branch1x1"), five, double, pooled], 1)


class _B(_Block):
    def __init__(self, cin: int) -> None:
        super().__init__()
        self.branch3x3 = _Conv(cin, 384, 3, stride=2)
        self._add("branch3x3dbl", cin, ("_1", 64, 1), ("_2", 96, 3))
        self.branch3x3dbl_3 = _Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self._through(x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, stride=2)], 1)


class _C(_Block):
    def __init__(self, cin: int, c: int) -> None:
        super().__init__()
        flat, tall = (1, 7), (7, 1)
        self._add("branch1x1", cin, ("", 192, 1))
        self._add("branch7x7", cin, ("_1", c, 1), ("_2", c, flat), ("_3", 192, tall))
        self._add(
            "branch7x7dbl",
            cin,
            ("_1", c, 1),
            ("_2", c, tall),
            ("_3", c, flat),
            ("_4", c, tall),
            ("_5", 192, flat),
        )
        self._add("branch_pool", cin, ("", 192, 1))

    def forward(self, x: Tensor) -> Tensor:
        seven = self._through(x, *(f"branch7x7_{n}" for n in (1, 2, 3)))
        double = self._through(x, *(f"branch7x7dbl_{n}" for n in (1, 2, 3, 4, 5)))
        pooled = self._through(_mean(x), "branch_pool")
        return torch.cat([self._through(x, "branch1x1"), seven, double, pooled], 1)


class _D(_Block):
    def __init__(self, cin: int) -> None:
        super().__init__()
        self._add("branch3x3", cin, ("_1", 192, 1))
        self.branch3x3_2 = _Conv(192, 320, 3, stride=2)
        self._add("branch7x7x3", cin, ("_1", 192, 1), ("_2", 192, (1, 7)), ("_3", 192, (7, 1)))
        self.branch7x7x3_4 = _Conv(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        three = self._through(x, "branch3x3_1", "branch3x3_2")
        seven = self._through(x, *(f"branch7x7x3_{n}" for n in (1, 2, 3, 4)))
        return torch.cat([three, seven, F.max_pool2d(x, 3, stride=2)], 1)


class _E(_Block):
    def __init__(self, cin: int, *, maximum: bool) -> None:
        super().__init__()
        self.maximum = maximum
        self._add("branch1x1", cin, ("", 320, 1))
        self._add("branch3x3", cin, ("_1", 384, 1))
        self._add("branch3x3dbl", cin, ("_1", 448, 1), ("_2", 384, 3))
        for name in ("branch3x3_2", "branch3x3dbl_3"):
            self._add(name, 384, ("a", 384, (1, 3)))
            self._add(name, 384, ("b", 384, (3, 1)))
        self._add("branch_pool", cin, ("", 192, 1))

    def _forked(self, x: Tensor, name: str) -> list[Tensor]:
        return [self._through(x, name + side) for side in "ab"]

    def forward(self, x: Tensor) -> Tensor:
        single = self._forked(self._through(x, "branch3x3_1"), "branch3x3_2")
        double = self._forked(self._through(x, "branch3x3dbl_1", "branch3x3dbl_2"), "branch3x3dbl_3")
        pooled = F.max_pool2d(x, 3, stride=1, padding=1) if self.maximum else _mean(x)
        parts = [self._through(x, "branch1x1"), *single, *double, self._through(pooled, "branch_pool")]
        return torch.cat(parts, 1)


class FidInception(nn.Module):
    """Bx3xHxW RGB in [0, 1] -> Bx2048 features. The classifier is there for the weights' sake only."""

    def __init__(self) -> None:
        super().__init__()
        stem = ((3, 32, 3, 2, 0), (32, 32, 3, 1, 0), (32, 64, 3, 1, 1), (64, 80, 1, 1, 0), (80, 192, 3, 1, 0))
        names = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
        for name, (cin, cout, kernel, stride, padding) in zip(names, stem, strict=True):
            self.add_module(name, _Conv(cin, cout, kernel, stride, padding))
        self.stem = names
        mixed: dict[str, nn.Module] = {
            **{"5b": _A(192, 32), "5c": _A(256, 64), "5d": _A(288, 64), "6a": _B(288)},
            **{"6b": _C(768, 128), "6c": _C(768, 160), "6d": _C(768, 160), "6e": _C(768, 192)},
            **{"7a": _D(768), "7b": _E(1280, maximum=False), "7c": _E(2048, maximum=True)},
        }
        self.mixed = tuple(f"Mixed_{name}" for name in mixed)
        for name, block in mixed.items():
            self.add_module(f"Mixed_{name}", block)
        self.fc = nn.Linear(FEATURES, 1008)

    def forward(self, images: Tensor) -> Tensor:
        x = F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False) * 2 - 1
        for number, name in enumerate(self.stem):
            x = self.get_submodule(name)(x)
            if number in (2, 4):
                x = F.max_pool2d(x, 3, stride=2)
        for name in self.mixed:
            x = self.get_submodule(name)(x)
        return x.mean(dim=(2, 3))


def frechet_distance(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Distance of the Gaussians fitted to two sets of features (NxF each): FID, for Inception's.

    |mean a - mean b|^2 + tr(A + B - 2 (AB)^1/2), the trace of the root from the eigenvalues of AB. Raises
    ValueError for fewer than two features on a side. Biased upwards for small N: compare equal N only.
    """
    if len(a) < 2 or len(b) < 2:
        raise ValueError("a Frechet distance needs at least two features on each side")
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(np.atleast_2d(cov_a @ cov_b)).astype(np.complex128)).real.sum()
    spread = np.trace(np.atleast_2d(cov_a)) + np.trace(np.atleast_2d(cov_b)) - 2 * root
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + spread)


def features_of(
    network: nn.Module, images: Sequence[npt.NDArray[np.uint8]], batch: int = 16
) -> npt.NDArray[np.float64]:
    """NxF float64: what the network gives for HWC uint8 RGB images, which may differ in size."""
    device = next(network.parameters()).device
    found = []
    for start in range(0, len(images), batch):
        for image in images[start : start + batch]:
            x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].to(device).float() / 255
            with torch.inference_mode():
                found.append(network(x)[0].double().cpu().numpy())
    return np.stack(found)
