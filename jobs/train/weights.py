"""Weights that a training is given: those it starts from, and those of a loss."""

from __future__ import annotations

from cleanplate.models.lama.perceptual import DilatedResNet50
from cleanplate.models.training.checkpoint import read_tensors
from cleanplate.models.training.lama.objective import Encoder
from cleanplate.models.training.lama.state import Initial
from cleanplate.models.training.lama.vgg import VggMaps, vgg_maps
from cleanplate.models.weights.registry import resolve, sha256_of


def load_encoder(name: str | None, device: str) -> Encoder | None:
    """The perceptual loss's encoder, frozen; None without a name (of the weights table, or a file): the paper's
    dilated ResNet-50, or VGG-16, whichever the file holds.

    Raises WeightsError, or ValueError for other weights.
    """
    if name is None:
        return None
    path = resolve(name)
    tensors = read_tensors(path)
    encoder: VggMaps | DilatedResNet50
    if any(tensor.startswith("features.") for tensor in tensors):
        encoder = vgg_maps(tensors)
    else:
        encoder = DilatedResNet50()
        try:
            encoder.load_state_dict(tensors)
        except RuntimeError as error:
            raise ValueError(f"{path} does not hold the encoder's weights: {error}") from error
    return encoder.requires_grad_(False).eval().to(device)


def load_initial(name: str | None) -> Initial | None:
    """The weights that a new training starts from, in fp32; None without a name. Raises as load_encoder."""
    if name is None:
        return None
    path = resolve(name)
    tensors = {n: t.float() if t.is_floating_point() else t for n, t in read_tensors(path).items()}
    return Initial(sha256_of(path), tensors)
