"""The parts of a recipe, each a frozen pydantic model: what may be written under its key, and what that means.

`recipe.py` puts them together; what one kind alone needs stands in `kind_sections.py`. A key's description is its line
in docs/recipe.md. What is read, written and run, and not what is removed, stands in `run_sections.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cleanplate.pipeline.recipe.areas import Areas

Kind = Literal[
    "text",
    "watermark",
    "static-watermark",
    "face",
    "plate",
    "code",
    "logo",
    "person",
    "vehicle",
    "object",
    "everything",
    "given",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order in which their detectors look."""
PLURALS = {
    "texts": "text",
    "watermarks": "watermark",
    "static-watermarks": "static-watermark",
    "faces": "face",
    "plates": "plate",
    "codes": "code",
    "qr": "code",
    "barcode": "code",
    "barcodes": "code",
    "logos": "logo",
    "persons": "person",
    "people": "person",
    "vehicles": "vehicle",
    "objects": "object",
    "prompt": "object",
}
Share = Annotated[float, Field(ge=0, le=1)]
SegmenterName = Literal["auto", "box", "ellipse", "stroke", "grabcut", "sam", "sam2", "sam3"]
HIDING = ("pixelate", "blur", "stylise", "fill")
"""Inpainters that hide what is there. They remove nothing, and rows say so."""
CLASSIC_INPAINTERS = ("telea", "ns", "patchmatch", *HIDING)
"""Those without weights."""


def hidden_by(fillers: Iterable[str | None]) -> list[str]:
    """Of what filled (`by` of regions, `inpainter` of rows), the words that hide and remove nothing; each once."""
    words = [word for filler in fillers for word in (filler or "").split("+")]
    return [word for word in dict.fromkeys(words) if word in HIDING]


AUTO = "auto"
FORMS = ("+texture", "+strokes", "+auto")
"""Behind the name of an inpainter: its fill is given the fine detail of its surroundings, as things need it, as thin
strokes do, or by the hole."""


def form_of(inpainter: str) -> tuple[str, str]:
    """(the name of the filler behind a name, one of FORMS or ""): `lama-lite+texture`; `auto` is lama-lite's."""
    if inpainter == AUTO:
        return "lama-lite", "+auto"
    form = next((form for form in FORMS if inpainter.endswith(form)), "")
    return inpainter.removesuffix(form), form


class Part(BaseModel):
    """A mapping of the recipe. Unknown keys are refused; nothing changes once it is read."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)


class Detect(Part):
    """What one kind of thing must be to count."""

    min_score: Share | None = Field(
        None, description="lowest score that counts; null = the detector's own default"
    )
    min_area: Annotated[float, Field(ge=0)] = Field(0.0, description="smallest area, square pixels")
    max_coverage: Share = Field(
        1.0, description="a region above this share of the picture is a false find, and dropped"
    )
    where: Areas | None = Field(
        None,
        description="only regions whose centre lies in one of these areas count: boxes [x0, y0, x1, y1] as shares of "
        "the picture, or the words corners, border, top, bottom, left, right (`border 0.1`; .2 without a number)",
    )
    keep: Areas = Field(
        (),
        alias="except",
        description="areas to keep: a region that lies by more than half in them is dropped",
    )


class Masks(Part):
    """How a region becomes the pixels that change."""

    segmenter: SegmenterName = Field(
        "auto",
        description="auto = the strokes of text, an ellipse round a face, the box of the rest; "
        "sam, sam2 and sam3 need weights",
    )
    checkpoint: str | None = Field(
        None,
        description="weights of sam: sam-vit-b (default), -l, -h, or a file; of sam2 and sam3: a folder as "
        "transformers saves it, or a hub id (name@revision)",
    )
    prompts: Literal["boxes", "points", "both"] = Field(
        "boxes",
        description="the prompt of Segment Anything for a region: its box, a point inside it, or both",
    )
    grow: Share = Field(0.02, description="widen each mask by this share of its box's shorter side")
    grow_px: Annotated[int, Field(ge=0, le=256)] = Field(3, description="... and by at least so many pixels")
    fill_holes: bool = Field(False, description="take what a region's mask encloses, too")
    shadow: Share = Field(
        0.0,
        description="room for a shadow: each mask swept down by this share of its height, "
        "half as much to the sides",
    )
    merge_px: Annotated[int, Field(ge=0, le=256)] = Field(
        0, description="join parts at most so many pixels apart, so that no thin rest stays between two fills"
    )
    align: Literal[0, 8, 16] = Field(
        0,
        description="of JPEG sources, widen to whole blocks of so many pixels "
        "(16 = all that subsampled colour touches)",
    )
    max_coverage: Share = Field(
        0.6,
        description="a mask above this share of the picture makes the row `skipped`; what only hides does not count",
    )


def _faces_hidden() -> dict[Kind, str]:
    return {"face": HIDING[0]}


class Inpaint(Part):
    """What fills the masks."""

    name: str = Field(
        AUTO,
        description="auto = by the hole: lama-lite+strokes where it is thin, as letters are, else lama-lite+texture; "
        "rows name what filled. Or lama-lite (shipped), telea, ns, patchmatch, a LaMa of the weights table, or a file; "
        "NAME+texture, NAME+strokes and NAME+auto = with fine detail from the surroundings; pixelate, blur, stylise "
        "and fill only hide",
    )
    per_kind: dict[Kind, str] = Field(
        default_factory=_faces_hidden,
        description="another filler for one kind. Faces are hidden (face: pixelate) unless one is named here, "
        "{face: lama-lite}, or `name` hides",
    )
    fallbacks: tuple[str, ...] = Field(
        (),
        description="what fills again what verification still finds: the 1st repair takes the 1st, and so on; "
        "the last one stays; none = each repair with the filler that failed, and a larger mask",
    )
    precision: Literal["fp32", "bf16", "auto"] = Field(
        "fp32",
        description="of LaMa's convolutions; fp32 gives the same everywhere, bf16 may differ by a grey level; "
        "auto = bf16 where the worker's processor has it; rows filled in bf16 say so: inpainter `NAME+bf16`",
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

    @model_validator(mode="before")
    @classmethod
    def _faces_are_hidden(cls, values: Any) -> Any:
        """A network's guess in place of a face is no face, and may look like somebody: a mosaic says what was done."""
        if not isinstance(values, Mapping) or not isinstance(values.get("per_kind") or {}, Mapping):
            return values
        name = values.get("name")
        default = name if name in HIDING else HIDING[0]
        return {**values, "per_kind": {"face": default, **(values.get("per_kind") or {})}}

    def hiders(self, kinds: Iterable[str]) -> list[str]:
        """What hides some of these kinds, each word once."""
        named = {str(kind): name for kind, name in self.per_kind.items()}
        return hidden_by(named.get(kind, self.name) for kind in kinds)

    def hides(self, kind: str) -> bool:
        """Whether what fills a kind hides it, and does not remove it."""
        return bool(self.hiders([kind]))


class Verify(Part):
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
