"""JPEG's colours (JFIF: BT.601, full range), as floats: brightness, and two differences of colour centred at 0."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
_FORWARD = np.array(
    [[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]], np.float32
)
_BACK = np.linalg.inv(_FORWARD).astype(np.float32)


def to_ycc(rgb: npt.NDArray[np.generic]) -> Floats:
    """... x 3, RGB 0 to 255 -> Y 0 to 255, Cb and Cr -128 to 128. Linear: blending commutes with it."""
    return np.asarray(np.asarray(rgb, np.float32) @ _FORWARD.T, np.float32)


def to_rgb(ycc: npt.NDArray[np.generic]) -> Floats:
    """The way back; neither rounded nor clipped."""
    return np.asarray(np.asarray(ycc, np.float32) @ _BACK.T, np.float32)
