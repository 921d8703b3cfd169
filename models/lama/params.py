"""The shapes of LaMa's generators: those of the paper, by name, and ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["fourier", "regular", "dilated"]
MODULO = 8
DILATIONS = (1, 2, 4, 8)


@dataclass(frozen=True)
class LamaParams:
    """The shape of a generator.

    kind: 'fourier' has FFC blocks; 'regular' plain 3x3 blocks; 'dilated' blocks whose channels are dealt out
        to dilations 1, 2, 4, 8 (the paper's ablations, table 2).
    ngf: channels after the first layer; they double at each of n_downsampling steps, up to max_features.
    ratio_global: share of global channels in the FFC blocks; 0 for the other kinds.
    """

    kind: Kind
    ngf: int
    n_downsampling: int
    n_blocks: int
    ratio_global: float
    max_features: int

    def width(self, level: int) -> int:
        """Channels after `level` downsamplings."""
        return min(self.max_features, self.ngf << level)

    @property
    def min_side(self) -> int:
        """The smallest side in pixels that reflection padding in the bottleneck allows, a multiple of 8."""
        cells = max(DILATIONS) - 1 if self.kind == "dilated" else 2
        return padded_side(cells << self.n_downsampling, min_side=0)


LAMA: dict[str, LamaParams] = {
    "big-lama": LamaParams("fourier", 64, 3, 18, 0.75, 1024),
    "lama-fourier": LamaParams("fourier", 64, 3, 9, 0.75, 1024),
    "lama-regular": LamaParams("regular", 64, 3, 9, 0.0, 1024),
    "lama-dilated": LamaParams("dilated", 64, 3, 9, 0.0, 1024),
    # Ours, not the paper's: the same family at 1/28 of big-lama's work, small enough to train on a CPU.
    "lama-lite": LamaParams("fourier", 16, 3, 7, 0.75, 1024),
    "tiny": LamaParams("fourier", 8, 3, 2, 0.75, 1024),
}


def padded_side(side: int, *, modulo: int = MODULO, min_side: int = 16) -> int:
    """The side in pixels that a side is padded to: the next multiple of modulo, at least min_side."""
    return max(-(-side // modulo) * modulo, min_side)
