"""Read the tensors of a weights file, and nothing else of it: no code in the file is ever run.

Forms read, told apart by their content, not by their name:

- safetensors;
- `torch.save` files: a bare state dict, one under "gen_state_dict", "state_dict" or "model", and the official
  LaMa checkpoint (Lightning 1.2), whose configuration objects become inert;
- TorchScript archives, whose data.pkl is read by an unpickler that can make tensors and bags of attributes
  only (`torch.load` refuses these archives, and `torch.jit.load` would compile the code in them).

A pickle that names anything else is refused before that thing is even imported.
"""

from __future__ import annotations

import pickle
import re
import struct
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from cleanplate.models.weights.fetch import WeightsError

CONTAINERS = ("gen_state_dict", "state_dict", "model")
"""Keys under which training programs put the state dict, in order of preference."""
PREFIXES = ("model.generator.", "generator.")
"""Prefixes of the generator in a larger module; where one is found, all keys without it are left out."""

# What the readers raise for bytes that are not what they should be; all of it becomes one WeightsError.
_DAMAGE = (
    zipfile.BadZipFile,
    SafetensorError,
    pickle.UnpicklingError,
    struct.error,
    zlib.error,
    EOFError,
    LookupError,
    ValueError,
    RuntimeError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
)

_safe_globals_lock = threading.Lock()


class _Inert:
    """Stands in for a class of the program that wrote a checkpoint. It takes anything and does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __new__(cls, *args: object, **kwargs: object) -> _Inert:
        return object.__new__(cls)


def _plain_dict(*args: object) -> dict[object, object]:
    """For collections.defaultdict: torch's weights_only unpickler fills in items of plain dicts only."""
    return {}


# What the official Big LaMa checkpoint (sha256 fccb7adf...) names beside tensors.
_LIGHTNING_GLOBALS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_plain_dict, "collections.defaultdict"),
    (dict, "builtins.dict"),
    (int, "builtins.int"),
    (list, "builtins.list"),
    *(
        (_Inert, name)
        for name in (
            "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
            "omegaconf.base.ContainerMetadata",
            "omegaconf.base.Metadata",
            "omegaconf.dictconfig.DictConfig",
            "omegaconf.listconfig.ListConfig",
            "omegaconf.nodes.AnyNode",
            "typing.Any",
        )
    ),
]


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a weights file: CPU tensors without gradient, of the file's dtypes, unprefixed keys.

    Of a LaMa checkpoint only the generator is returned, with keys like "model.1.ffc.convl2l.weight"; every
    other file gives its keys as they are. Raises WeightsError for a damaged file, for one that names a global
    other than tensors and the known inert classes (the message says which), and for one without tensors.
    """
    try:
        raw = _read(path)
    except _DAMAGE as error:
        raise WeightsError(f"{path} is damaged, or no weights file: {_first_line(error)}") from error
    tensors = {key: value.detach() for key, value in raw.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise WeightsError(f"{path} holds no tensors; its top keys are {sorted(map(str, raw))[:8]}")
    return _generator_only(tensors)


def load_notes(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself beside its tensors ("prefill", "licence", ...); {} for other forms."""
    with path.open("rb") as opened:
        head = opened.read(9)
    if head[:4] == b"PK\x03\x04" or head[8:9] != b"{":
        return {}
    try:
        with safe_open(path, framework="pt") as opened_tensors:
            return dict(opened_tensors.metadata() or {})
    except SafetensorError as error:
        raise WeightsError(f"{path} is damaged, or no weights file: {_first_line(error)}") from error


def _read(path: Path) -> Mapping[str, Any]:
    with path.open("rb") as opened:
        head = opened.read(9)
    if head[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                return _read_torchscript(archive, path)
        return _read_saved(path)
    if head[8:9] == b"{" and 8 + int.from_bytes(head[:8], "little") <= path.stat().st_size:
        tensors: dict[str, torch.Tensor] = load_file(path)
        return tensors
    return _read_saved(path)


def _generator_only(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for prefix in PREFIXES:
        inside = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if inside:
            return inside
    return tensors


def _read_saved(path: Path) -> Mapping[str, Any]:
    """A torch.save file, zip or older, by torch's own safe unpickler (which refuses the oldest, a tar)."""
    try:
        # The context changes a table of the process, so two threads must not be inside at once.
        with _safe_globals_lock, torch.serialization.safe_globals(_LIGHTNING_GLOBALS):
            saved = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named is None:
            # Only this part of torch's message: the rest advises to load the file unsafely.
            reason = re.search(r"WeightsUnpickler error: (.+)", str(error))
            detail = reason.group(1) if reason else "not a pickle of tensors"
            raise WeightsError(f"{path} cannot be read as tensors only: {detail}") from error
        # torch leaves the module out for builtins.
        name = named.group(1) if "." in named.group(1) else f"builtins.{named.group(1)}"
        raise WeightsError(_refusal(path, name)) from error
    if not isinstance(saved, Mapping):
        raise WeightsError(f"{path} holds a {type(saved).__name__}, not a state dict")
    for key in CONTAINERS:
        if isinstance(saved.get(key), Mapping):
            inner: Mapping[str, Any] = saved[key]
            return inner
    return saved


def _refusal(path: Path, name: str) -> str:
    return (
        f"{path} is refused: it names {name}, and a file that only holds tensors does not. "
        "Loading it in another way could run code in it; ask its author for a safetensors file"
    )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class _Held(NamedTuple):
    """A tensor inside the unpickler. Not the Tensor itself: its __setstate__ could be called by a pickle."""

    tensor: torch.Tensor


def _read_torchscript(archive: zipfile.ZipFile, path: Path) -> dict[str, torch.Tensor]:
    """The parameters and buffers of a TorchScript archive, keyed as its state_dict() keys them."""
    names = archive.namelist()
    root = next(name for name in names if name.endswith("/constants.pkl")).split("/")[0]
    if f"{root}/byteorder" in names and archive.read(f"{root}/byteorder") != b"little":
        raise WeightsError(f"{path} was written on a big-endian machine, which is not supported")
    bag = type("Bag", (), {"__doc__": "One module of the archive: its attributes and nothing else."})
    with archive.open(f"{root}/data.pkl") as opened:
        return dict(_walk(_unpickle(opened, bag, archive, f"{root}/data/", path), bag, ""))


def _unpickle(opened: IO[bytes], bag: type, archive: zipfile.ZipFile, data: str, path: Path) -> object:
    """The object in data.pkl. What the pickle can call is made here anew, so that nothing it does lasts."""
    storages: dict[str, torch.Tensor] = {}

    def rebuild(
        held: _Held, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
    ) -> _Held:
        return _Held(torch.as_strided(held.tensor, size, stride, offset))

    def as_list(values: list[object], *_: object) -> list[object]:
        return values

    class TensorUnpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module == "__torch__" or module.startswith("__torch__."):
                return bag
            if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
                return rebuild
            if module == "torch" and name in _STORAGES:
                return _STORAGES[name]
            if module == "torch.jit._pickle" and name.startswith("build_"):
                return as_list
            if (module, name) == ("collections", "OrderedDict"):
                return OrderedDict
            # A pickle of protocol 2, which archives are, writes builtins by their Python 2 name.
            module = "builtins" if module == "__builtin__" else module
            raise WeightsError(_refusal(path, f"{module}.{name}"))

        def persistent_load(self, pid: Any) -> _Held:
            kind, dtype, key, _device, _count = pid
            if kind != "storage" or not isinstance(dtype, torch.dtype):
                raise pickle.UnpicklingError("a persistent id that is no storage")
            if key not in storages:
                content = bytearray(archive.read(f"{data}{key}"))
                empty = torch.empty(0, dtype=dtype)
                storages[key] = torch.frombuffer(content, dtype=dtype) if content else empty
            return _Held(storages[key])

    return TensorUnpickler(opened).load()


def _walk(module: object, bag: type, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in vars(module).items():
        if isinstance(value, _Held):
            yield prefix + name, value.tensor
        elif isinstance(value, bag):
            yield from _walk(value, bag, f"{prefix}{name}.")
