"""VGG-16's maps for a perceptual loss (Johnson et al. 2016), each made as strong as any other."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from cleanplate.models.metrics.lpips import STAGES

LEVELS = 4
"""Stages that are compared; the fifth sees 1/16 of the size and costs a twentieth."""


class VggMaps(nn.Module):
    """Bx3xHxW, normalised as ImageNet encoders expect -> the maps behind the first LEVELS stages of convolutions.

    Each place of a map is a vector of unit length times the root of its channels: so the mean squared distance of two
    maps lies in [0, 4] at every level, as in LPIPS without its linear layers.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.taps: list[int] = []
        cin = 3
        for stage in STAGES[:LEVELS]:
            if layers:
                layers.append(nn.MaxPool2d(2))
            for cout in stage:
                layers += [nn.Conv2d(cin, cout, 3, padding=1), nn.ReLU()]
                cin = cout
            self.taps.append(len(layers) - 1)
        self.features = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps, x = [], images
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.taps:
                maps.append(F.normalize(x.float(), dim=1, eps=1e-6) * x.shape[1] ** 0.5)
        return maps


def vgg_maps(tensors: Mapping[str, Tensor]) -> VggMaps:
    """The maps by torchvision's tensors (`vgg16`, or its convolutions alone). Raises ValueError for other tensors."""
    network = VggMaps()
    wanted = network.state_dict()
    try:
        network.load_state_dict({name: tensor for name, tensor in tensors.items() if name in wanted})
    except RuntimeError as error:
        raise ValueError(f"not the weights of VGG-16: {error}") from error
    return network
