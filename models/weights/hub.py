"""Models that are a folder, as `transformers` saves them: config, tokenizer, safetensors.

From a folder of this machine, or from the Hugging Face hub, fetched once into its cache. Pickled weights are not read.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from cleanplate.models.types import Image
from cleanplate.models.weights.fetch import WeightsError, expanded

if TYPE_CHECKING:
    import torch

WANTED = ("*.json", "*.txt", "*.model", "*.safetensors")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of RGB in [0, 1]."""


def folder_of(model: str) -> Path:
    """The folder of a model: a path, or "owner/name" or "owner/name@revision" of the hub.

    Raises WeightsError when it cannot be had or holds no safetensors.
    """
    path = expanded(model)
    if not path.is_dir():
        if not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w.-]+)?", model):
            raise WeightsError(f"no folder {model}, and that is no name of the hub (owner/name@revision)")
        path = _fetched(model)
    if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
        raise WeightsError(
            f"{model}: needs config.json and a .safetensors file (pickled weights are not read)"
        )
    return path


def _fetched(model: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise WeightsError(f"{model}: a name of the hub needs pip install '.[prompt]'") from error
    name, _, revision = model.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=list(WANTED)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise WeightsError(
            f"{model} could not be fetched from the hub ({' '.join(str(error).split())[:200]}); "
            "on a machine without network give a folder that holds it"
        ) from error


def digest_of(folder: Path) -> str:
    """sha256, hex, over the names and contents of the files that are read."""
    digest = hashlib.sha256()
    for path in sorted({p for pattern in WANTED for p in folder.glob(pattern)}):
        with path.open("rb") as opened:
            digest.update(f"{path.name} {hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def prepared(image: Image, size: tuple[int, int], statistics: tuple[Any, Any]) -> torch.Tensor:
    """HWC uint8 RGB -> 1 x 3 x size fp32, stretched to (height, width), with mean and deviation taken out."""
    import torch

    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(image, size[::-1], interpolation=how).astype(np.float32) / np.float32(255)
    normal = (resized - np.float32(statistics[0])) / np.float32(statistics[1])
    return torch.from_numpy(np.ascontiguousarray(normal.transpose(2, 0, 1)[None], np.float32))
