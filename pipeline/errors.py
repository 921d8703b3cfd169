"""Every error this package raises, and what becomes of it.

    CleanplateError                (models/types.py; `except CleanplateError` catches all of these)
    ├── ConfigError                wrong use, found before any work starts: exit code 2, message says what to change
    ├── WeightsError               weights that are missing or not what the table says: exit code 2
    ├── CheckpointError            a training's checkpoint that cannot be read: exit code 2
    ├── TrainingDiverged           a training whose loss is no number any more: exit code 2
    ├── StorageError               an object store refused; `kind` says how
    │                                missing, forbidden, replaced -> that row fails
    │                                unreachable        -> retried; then a later pass takes the unit
    ├── RowError                   this image cannot be processed: its row gets status "failed" and the run goes on
    │   ├── ImageError             its bytes cannot be decoded or written
    │   └── NoImageColumn          a table in which no column looks like images
    ├── TooFewNodes                inner to the engine: a wave begins again with fewer workers, or becomes RunStopped
    ├── SpliceError, ExifError,    inner to the image formats: a part of a file that cannot be read or kept; the
    │   BoxError                     format falls back, or raises ImageError
    ├── ContractError              a stage broke its promise (lost a row, changed the schema): our bug, the run stops
    └── RunStopped                 the run ended before every unit was committed: exit code 3, the same command resumes
        └── DamagedError           a file of the output is not as it was written: which one, and what to do

Foreign errors are mapped once, where they enter: object stores in `storage/asking.py` and `s3.py`, decoders in
`images/decode.py`.
"""

from __future__ import annotations

import os
import re

from cleanplate.models.types import CleanplateError

__all__ = [
    "CleanplateError",
    "ConfigError",
    "ContractError",
    "RowError",
    "RunStopped",
    "StorageError",
    "ran_out_of_memory",
    "redacted",
]

_USER = re.compile(r"([a-z][a-z0-9+.-]*://)[^/\s'\"@]+@", re.IGNORECASE)
_SIGNED = re.compile(
    r"([?&;](?:x-amz-[a-z-]+|x-goog-[a-z-]+|awsaccesskeyid|signature|sig|se|token|key|secret|password)=)[^&;\s'\")]+",
    re.IGNORECASE,
)
_HELD = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_CLIENT_SECRET",
    "GOOGLE_BEARER_TOKEN",
    "RAY_AUTH_TOKEN",
)


def redacted(text: str) -> str:
    """The text without credentials: a URL's user and password, signed queries, and the values that this
    process's own environment holds. For everything that is logged, shown or written to a row."""
    text = _SIGNED.sub(r"\1***", _USER.sub(r"\1", text))
    for name in _HELD:
        if len(value := os.environ.get(name, "")) >= 6:
            text = text.replace(value, "***")
    return text


class ConfigError(CleanplateError):
    """Wrong configuration or use, found before any work."""


class StorageError(CleanplateError):
    """An object store refused or failed.

    kind: "missing", "forbidden", "replaced" (the object is no longer the version that was asked for), "unreachable"
    (transient: retried) or "other".
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(redacted(message))
        self.kind = kind

    def __reduce__(self) -> tuple[type[StorageError], tuple[str, str]]:
        return type(self), (self.kind, str(self))


class RowError(CleanplateError):
    """One image cannot be processed. `kind` is the word that the closing table counts."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type[RowError], tuple[str, str]]:
        return type(self), (self.kind, str(self))


class ContractError(CleanplateError):
    """A stage did not keep its promise; the run stops because its rows cannot be trusted."""


class RunStopped(CleanplateError):
    """Some units are not committed; running the same command again takes them up."""


class DamagedError(RunStopped):
    """A file of the output cannot be read as it was written. The message names it and says what to do."""


_NO_MEMORY = ("memory", "bad_alloc")
_ALLOCATING = ("alloc", "enough", "insufficient", "out of")


def ran_out_of_memory(error: BaseException) -> bool:
    """True for what Python, numpy, Arrow, torch, OpenCV and onnxruntime raise when memory, of the host or of a GPU,
    runs out. torch.OutOfMemoryError is known by name (the pipeline does not import torch), and what has no type of
    its own by its words: "DefaultCPUAllocator: can't allocate memory" (torch), "(-4:Insufficient memory) Failed to
    allocate" (OpenCV), "Failed to allocate memory for requested buffer" and "std::bad_alloc" (onnxruntime)."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if getattr(error, "kind", None) == "out_of_memory":
        return True
    if isinstance(error, CleanplateError | OSError):
        return False
    message = str(error).lower()
    return any(w in message for w in _NO_MEMORY) and any(w in message for w in _ALLOCATING)
