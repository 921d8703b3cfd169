"""The patch discriminator LaMa is trained against (Suvorov et al. 2021, section 2.3; Isola et al. 2017).

Used in training only. The names of the tensors are those of the authors' checkpoints.
"""

from __future__ import annotations

from torch import Tensor, nn


class NLayerDiscriminator(nn.Module):
    """Judges overlapping patches of an image; ndf channels after the first layer, doubling up to 512.

    n_layers: 4x4 convolutions before the last, all with stride 2 but the last of them.
    """

    def __init__(self, ndf: int = 64, n_layers: int = 4) -> None:
        super().__init__()
        if ndf < 1 or n_layers < 1:
            raise ValueError(
                f"a discriminator needs at least one channel and layer, not {ndf} and {n_layers}"
            )
        self.n_stages = n_layers + 2
        width = ndf
        self._add(0, nn.Sequential(nn.Conv2d(3, width, 4, stride=2, padding=2), nn.LeakyReLU(0.2)))
        for i in range(1, n_layers + 1):
            before, width = width, min(2 * width, 512)
            conv = nn.Conv2d(before, width, 4, stride=2 if i < n_layers else 1, padding=2)
            self._add(i, nn.Sequential(conv, nn.BatchNorm2d(width), nn.LeakyReLU(0.2)))
        self._add(n_layers + 1, nn.Sequential(nn.Conv2d(width, 1, 4, stride=1, padding=2)))

    def _add(self, i: int, stage: nn.Module) -> None:
        self.add_module(f"model{i}", stage)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Bx3xHxW RGB in [0, 1] -> logits Bx1xhxw, above 0 = real; and what each layer but the last gives."""
        features: list[Tensor] = []
        for i in range(self.n_stages):
            x = self.get_submodule(f"model{i}")(x)
            features.append(x)
        return features[-1], features[:-1]
