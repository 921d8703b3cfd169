"""LPIPS, the learned perceptual distance (Zhang et al. 2018, arXiv 1801.03924), on VGG-16, version 0.1.

Reads the published weights: torchvision's VGG-16 (`vgg16`) and the authors' linear layers (`lpips-vgg`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cleanplate.models.types import Image

# Channels of VGG-16's convolutions; a new tuple begins with a pool. LPIPS looks behind each.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


class Lpips(nn.Module):
    """Two Bx3xHxW RGB in [0, 1] -> B distances, 0 for equal images. Sides of at least 16 pixels."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.taps: list[int] = []
        cin = 3
        for stage in STAGES:
            if layers:
                layers.append(nn.MaxPool2d(2))
            for cout in stage:
                layers += [nn.Conv2d(cin, cout, 3, padding=1), nn.ReLU()]
                cin = cout
            self.taps.append(len(layers) - 1)
        self.features = nn.Sequential(*layers)
        self.linear = nn.ParameterList(nn.Parameter(torch.zeros(stage[-1])) for stage in STAGES)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.apart(self.maps(a), self.maps(b))

    def apart(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """The distances of two batches by what `maps` gives of each."""
        total = a[0].new_zeros(len(a[0]))
        for x, y, weight in zip(a, b, self.linear, strict=True):
            apart = (F.normalize(x, dim=1, eps=1e-10) - F.normalize(y, dim=1, eps=1e-10)).square()
            total = total + (apart * weight.view(1, -1, 1, 1)).sum(1).mean(dim=(1, 2))
        return total

    def maps(self, images: Tensor) -> list[Tensor]:
        shift, scale = (images.new_tensor(v).view(1, 3, 1, 1) for v in (SHIFT, SCALE))
        x = (images * 2 - 1 - shift) / scale
        maps = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.taps:
                maps.append(x)
        return maps


def load_lpips(vgg: Mapping[str, Tensor], linear: Mapping[str, Tensor]) -> Lpips:
    """The metric from both published files' tensors. Raises ValueError when a tensor is missing or misshapen."""
    state = {name: tensor for name, tensor in vgg.items() if name.startswith("features.")}
    for number in range(len(STAGES)):
        name = f"lin{number}.model.1.weight"
        if name not in linear:
            raise ValueError(f"not LPIPS's linear layers: {name} is missing")
        state[f"linear.{number}"] = linear[name].flatten()
    network = Lpips()
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"not the weights of LPIPS on VGG-16: {error}") from error
    return network.requires_grad_(False).eval()


class Compared:
    """LPIPS of many images against few references: the maps of the last reference are kept, which halves the work."""

    def __init__(self, network: Lpips) -> None:
        self._network = network
        self._reference: Image | None = None
        self._maps: list[Tensor] = []

    def __call__(self, image: Image, reference: Image) -> float:
        """The distance of two HWC uint8 RGB images of one size."""
        with torch.inference_mode():
            if self._reference is None or not np.array_equal(self._reference, reference):
                self._reference, self._maps = reference.copy(), self._seen(reference)
            return float(self._network.apart(self._seen(image), self._maps))

    def _seen(self, image: Image) -> list[Tensor]:
        device = next(self._network.parameters()).device
        x = torch.from_numpy(np.ascontiguousarray(image)[None]).permute(0, 3, 1, 2).to(device).float() / 255
        return self._network.maps(x)


def lpips(network: Lpips, image: Image, reference: Image) -> float:
    """The distance of two HWC uint8 RGB images of one size."""
    return Compared(network)(image, reference)
