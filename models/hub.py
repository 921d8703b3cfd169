"""Models that are a folder, as `transformers` saves them: config, tokenizer, safetensors.

From a folder of this machine, or from the Hugging Face hub, fetched once into its cache. Pickled weights are not read.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from models.fetch import WeightsError, expanded

WANTED = ("*.json", "*.txt", "*.model", "*.safetensors")


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
        raise WeightsError(f"{model}: a name of the hub needs pip install 'cleanplate[prompt]'") from error
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
    told = hashlib.sha256()
    for path in sorted({p for pattern in WANTED for p in folder.glob(pattern)}):
        with path.open("rb") as opened:
            told.update(f"{path.name} {hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
    return told.hexdigest()
