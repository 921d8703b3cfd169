"""The package `segment_anything`, which holds code and no weights, imported without torchvision where there is none."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

from PIL import Image as PilImage


@cache
def package() -> ModuleType:
    """`segment_anything`, imported with torchvision when that works, else with a stand-in for four names."""
    with _torchvision_or_stand_in():
        return importlib.import_module("segment_anything")


@contextmanager
def _torchvision_or_stand_in() -> Iterator[None]:
    """The package imports torchvision for a resize and two helpers of its automatic mode.

    There may be none, and one built for another torch raises RuntimeError on import ('operator
    torchvision::nms does not exist'). The stand-in is in sys.modules only inside this context.
    """
    try:
        importlib.import_module("torchvision")
        yield
        return
    except (ImportError, RuntimeError, AttributeError, OSError):
        # A failed import leaves the submodules that did load.
        _forget_torchvision()
    stand_in = {name: ModuleType(name) for name in _STAND_IN}
    for name, module in stand_in.items():
        module.__dict__.update(_STAND_IN[name])
    sys.modules.update(stand_in)
    try:
        yield
    finally:
        _forget_torchvision()


def _forget_torchvision() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]


def resize(image: PilImage.Image, size: tuple[int, int]) -> PilImage.Image:
    """torchvision's resize of a PIL image: size is (height, width), bilinear."""
    return image.resize((size[1], size[0]), PilImage.Resampling.BILINEAR)


def _unavailable(*_: object) -> None:
    raise RuntimeError("this needs torchvision, of a build that fits the installed torch")


_STAND_IN: dict[str, dict[str, Any]] = {
    "torchvision": {},
    "torchvision.ops": {},
    # Only the automatic mask generator calls these; a box prompt does not.
    "torchvision.ops.boxes": {"batched_nms": _unavailable, "box_area": _unavailable},
    "torchvision.transforms": {},
    "torchvision.transforms.functional": {"resize": resize, "to_pil_image": PilImage.fromarray},
}
