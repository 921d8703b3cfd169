"""The recipe: the whole configuration of a run, validated before any work; its digest is its identity.

Frozen pydantic models; unknown keys are refused. YAML in, and a JSON schema for editors out
(`cleanplate plan --schema`). Loading a recipe executes nothing: YAML is read by the safe loader.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.errors import ConfigError

Kind = Literal["text", "face", "plate"]
KINDS: tuple[Kind, ...] = ("text", "face", "plate")
Share = Annotated[float, Field(ge=0, le=1)]
SegmenterName = Literal["auto", "box", "ellipse", "stroke", "grabcut", "sam"]
CLASSIC_INPAINTERS = ("telea", "ns", "blur", "pixelate", "fill")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Detect(_Part):
    """What one kind of thing must be to count."""

    min_score: Share | None = Field(
        None, description="lowest score that counts; null = the detector's own default"
    )
    min_area: Annotated[float, Field(ge=0)] = Field(0.0, description="smallest area, square pixels")
    max_coverage: Share = Field(
        1.0, description="a region above this share of the picture is a false find, and dropped"
    )
    where: tuple[Share, Share, Share, Share] | None = Field(
        None,
        description="x0, y0, x1, y1 as shares of the picture: only regions whose centre lies inside count",
    )


class Masks(_Part):
    """How a region becomes the pixels that change."""

    segmenter: SegmenterName = Field(
        "auto",
        description="auto = the strokes of text, an ellipse round a face, the box of the rest; sam needs weights",
    )
    checkpoint: str | None = Field(
        None, description="weights of the sam segmenter: sam-vit-b (default), -l, -h, or a file"
    )
    grow: Share = Field(0.02, description="widen each mask by this share of its box's shorter side")
    grow_px: Annotated[int, Field(ge=0, le=256)] = Field(3, description="... and by at least so many pixels")
    max_coverage: Share = Field(
        0.6, description="a mask above this share of the picture makes the row `skipped`"
    )


class Inpaint(_Part):
    """What fills the masks."""

    name: str = Field(
        "lama-lite",
        description="lama-lite (shipped), telea, ns, blur, pixelate, fill, a LaMa of the weights table, or a file",
    )
    per_kind: dict[Kind, str] = Field(
        default_factory=dict, description="another filler for one kind: {face: blur}"
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="of LaMa's convolutions; bf16 is slower, not faster, where the processor lacks it"
    )
    whole_image: bool = Field(
        False, description="LaMa sees the whole picture instead of crops round the masks"
    )
    refine: bool = Field(
        False,
        description="LaMa fills what is larger than about 724 px scale by scale (15 times the work or more)",
    )
    refine_pixels: Annotated[int, Field(ge=1024)] = Field(
        1_800_000,
        description="... at most so many pixels at a time, at a reduced size beyond: bounds the memory",
    )


class Verify(_Part):
    """The proof that the thing is gone."""

    passes: Annotated[int, Field(ge=0, le=8)] = Field(2, description="repairs with a larger mask, at most")
    scope: Literal["edited", "all", "none"] = Field(
        "edited", description="which rows the second detector looks at"
    )
    min_score: Share = Field(
        0.5, description="a find below this is no residual: the guard against false alarms"
    )
    min_side: Annotated[float, Field(ge=0)] = Field(
        10.0,
        description="... and so is one with a shorter side below this, in pixels: an inpainter's own specks",
    )
    grow: Share = Field(
        0.15, description="each repair widens the mask by this share of a region's shorter side"
    )


class Source(_Part):
    """What the source is made of."""

    format: Literal["auto", "objects", "parquet", "arrow", "webdataset"] = Field(
        "auto",
        description="objects = every object is an image; the others are containers that hold many (docs/formats.md)",
    )
    image_column: str | None = Field(
        None, description="of Parquet and Arrow sources; null = the first that looks like images"
    )


class Output(_Part):
    """How rows are written."""

    format: Literal["keep", "png", "jpeg", "webp"] = Field(
        "keep", description="keep = the source's, so that nothing outside the edit changes"
    )
    quality: Annotated[int, Field(ge=1, le=100)] = Field(
        95, description="of a conversion to JPEG or WebP; a kept JPEG keeps its own tables"
    )
    metadata: Literal["scrub", "keep", "strip"] = Field(
        "scrub",
        description="scrub drops what tells of persons and places: GPS, owner, serials, thumbnails, XMP",
    )
    keep_skipped: bool = Field(False, description="write the untouched source into `skipped` rows")
    layout: Literal["parquet", "files", "webdataset"] = Field(
        "parquet",
        description="where pictures lie: in the parts, as a tree of files like the source, or in tar shards",
    )
    orientation: Literal["keep", "bake"] = Field(
        "keep", description="bake = turn a JPEG upright without loss, where its sides allow it"
    )
    mark: Literal["none", "iptc", "c2pa"] = Field(
        "none",
        description="edited images say that they are: IPTC digital source type; c2pa = a signed manifest too",
    )
    c2pa_cert: str | None = Field(
        None, description="PEM file: the signer's certificate and its chain; needs the extra c2pa"
    )
    c2pa_key: str | None = Field(
        None, description="PEM file: its private key; read where images are written, never stored"
    )

    @model_validator(mode="after")
    def _signed_by_someone(self) -> Output:
        given = (self.c2pa_cert is not None, self.c2pa_key is not None)
        if given != (self.mark == "c2pa",) * 2:
            raise ValueError("mark: c2pa goes with c2pa_cert and c2pa_key, and they with it")
        return self


class Limits(_Part):
    """What is refused before it is decoded."""

    max_pixels: Annotated[int, Field(gt=0)] = Field(256_000_000, description="per image, from its header")
    max_bytes: Annotated[int, Field(gt=0)] = Field(512 * 2**20, description="per object, from the listing")


class Units(_Part):
    """How the plan cuts the source. null rows = chosen from the size of the source (8 to 512)."""

    rows: Annotated[int, Field(ge=1, le=10_000)] | None = Field(None, description="images in a unit, at most")
    bytes: Annotated[int, Field(ge=1)] = Field(64 * 2**20, description="source bytes in a unit, at most")


class Engine(_Part):
    """Where and how wide it runs. Not part of the recipe's digest: a resume may use another cluster."""

    gpus: Annotated[float, Field(ge=0)] = Field(
        0.0, description="GPUs per worker of the model stages (0.5 = share)"
    )
    cpus: Annotated[float, Field(gt=0)] = Field(1.0, description="CPUs per worker of the model stages")
    workers: Annotated[int, Field(ge=1)] | None = Field(
        None, description="most workers; null = as many as fit"
    )
    batch: Annotated[int, Field(ge=1, le=1024)] = Field(16, description="images a worker handles at a time")
    wave: Annotated[int, Field(ge=1)] = Field(5000, description="units per engine run: keeps the driver flat")


class Recipe(_Part):
    """See docs/recipe.md. Everything has a default: `cleanplate run SRC DST` needs no recipe."""

    version: Literal[1] = Field(1, description="of the recipe's own form")
    remove: tuple[Kind, ...] = Field(("text", "face"), description="what must go")
    include: tuple[str, ...] = Field(
        ("**",), description="globs on keys below the source; ** crosses folders"
    )
    exclude: tuple[str, ...] = Field((), description="globs on keys that are left out")
    source: Source = Source()
    detect: dict[Kind, Detect] = Field(default_factory=dict, description="limits for one kind, see below")
    masks: Masks = Masks()
    inpaint: Inpaint = Inpaint()
    verify: Verify = Verify()
    output: Output = Output()
    limits: Limits = Limits()
    units: Units = Units()
    engine: Engine = Engine()

    @field_validator("remove", mode="before")
    @classmethod
    def _singular(cls, remove: Any) -> Any:
        """ "faces" means "face"; one word may stand without a list."""
        words = [remove] if isinstance(remove, str) else remove
        if not isinstance(words, list | tuple):
            return remove
        return tuple({"faces": "face", "plates": "plate", "texts": "text"}.get(str(w), w) for w in words)

    @field_validator("remove")
    @classmethod
    def _something_once(cls, remove: tuple[Kind, ...]) -> tuple[Kind, ...]:
        if not remove:
            raise ValueError(f"nothing to remove: name some of {', '.join(KINDS)}")
        return tuple(dict.fromkeys(remove))

    @model_validator(mode="after")
    def _sam_has_weights(self) -> Recipe:
        if self.masks.checkpoint and self.masks.segmenter != "sam":
            raise ValueError(f"masks.checkpoint goes with the segmenter sam, not {self.masks.segmenter!r}")
        return self

    def detect_for(self, kind: Kind) -> Detect:
        return self.detect.get(kind, Detect())

    def digest(self, weights: dict[str, str]) -> str:
        """sha256, hex, of all that decides the output: the recipe without `engine`, and the weights' hashes.

        weights: name -> sha256 of every model file that the run loads.
        """
        body = {
            "recipe": self.model_dump(mode="json", exclude={"engine"}),
            "weights": dict(sorted(weights.items())),
        }
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def load(path: str | Path | None, overrides: dict[str, Any] | None = None) -> Recipe:
    """A recipe from a YAML file (or the defaults), with `overrides` laid over it ("inpaint.name": "ns").

    Raises ConfigError that names the key, what is wrong with it and, for a missing file, the path.
    """
    try:
        body = yaml.safe_load(Path(path).read_text(encoding="utf-8")) if path else {}
    except OSError as error:
        raise ConfigError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"the recipe {path} is not YAML: {error}") from error
    if body is not None and not isinstance(body, dict):
        raise ConfigError(f"the recipe {path} must be a mapping of keys, not a {type(body).__name__}")
    body = body or {}
    for dotted, value in (overrides or {}).items():
        _put(body, dotted, value)
    try:
        return Recipe.model_validate(body)
    except ValidationError as error:
        raise ConfigError("wrong recipe: " + "; ".join(_said(e) for e in error.errors())) from error


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def _put(body: dict[str, Any], dotted: str, value: Any) -> None:
    *path, last = dotted.split(".")
    for name in path:
        inner = body.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"wrong recipe: {name} must be a mapping of keys")
        body = inner
    body[last] = value


def _said(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "recipe"
    hint = f" (got {error['input']!r})" if not isinstance(error["input"], dict) else ""
    return f"{where}: {error['msg']}{hint}"
