"""Instance masks of photographs, from a COCO file."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cleanplate.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from cleanplate.models.types import Mask

Objects = Callable[[str], Callable[[], list["Mask"]] | None]
"""A photograph's file name -> what gives its objects' HW bool masks; None where nothing is known of it."""


def load_instances(path: str | None) -> Objects:
    """From COCO's `images` and `annotations` (polygons or RLE; crowds are left out), by file name.

    Without a path nothing is known of any photograph. Raises ConfigError for a file of another form.
    """
    if path is None:
        return lambda name: None
    try:
        record: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        sizes = {image["id"]: (image["height"], image["width"]) for image in record["images"]}
        ids = {Path(image["file_name"]).name: image["id"] for image in record["images"]}
        drawn: defaultdict[object, list[Any]] = defaultdict(list)
        for annotation in record["annotations"]:
            if not annotation.get("iscrowd"):
                drawn[annotation["image_id"]].append(annotation["segmentation"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--instances {path}: not a COCO instances file ({error})") from error

    def objects(name: str) -> Callable[[], list[Mask]] | None:
        number = ids.get(name)
        if number is None:
            return None
        return lambda: [_decode(segmentation, *sizes[number]) for segmentation in drawn[number]]

    return objects


def _decode(segmentation: Any, height: int, width: int) -> Mask:
    from pycocotools import mask as coco

    if isinstance(segmentation, list):  # polygons, one list of x, y a piece
        rle = coco.merge(coco.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        rle = coco.frPyObjects(segmentation, height, width)
    else:
        rle = segmentation
    decoded: Mask = coco.decode(rle).astype(bool)
    return decoded
