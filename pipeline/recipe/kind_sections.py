"""The parts of a recipe that one kind of thing needs: watermarks of a collection, text, logos, given regions, words."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from cleanplate.models.detectors.lettering.meaning import checked
from cleanplate.pipeline.recipe.sections import Part, Share


class Consensus(Part):
    """How `static-watermark` finds what many images have in common at one place (docs/watermarks.md)."""

    group: Literal["auto", "size", "folder", "all"] = Field(
        "auto",
        description="what is laid over each other: images of one size; of one folder, or all, brought to one size; "
        "auto = of one size where these are enough, else of one folder, else all",
    )
    scan: Annotated[int, Field(ge=8)] = Field(
        4000, description="images that are read to find groups; a random sample of the source"
    )
    sample: Annotated[int, Field(ge=8, le=512)] = Field(64, description="images of a group that are compared")
    min_images: Annotated[int, Field(ge=8)] = Field(
        30, description="a smaller group has no mark; below 30, faint marks are missed"
    )
    max_opacity: Share = Field(
        0.7, description="pixels less opaque than this are computed back; the others are inpainted"
    )
    found: str | None = Field(
        None, exclude=True, description="set by a run when it starts: where its marks are kept"
    )

    @model_validator(mode="after")
    def _can_be_met(self) -> Consensus:
        if self.min_images > min(self.sample, self.scan):
            raise ValueError("min_images is above sample or scan: no group could ever have marks")
        return self


class Text(Part):
    """Which text `text` removes, by what it says. Rows name the reason, never what was read."""

    only: tuple[str, ...] = Field(
        (),
        description="only words that are one of these: email, phone, iban, card, plate, date, url, or a /regular "
        "expression/; none = all text",
    )
    keep: tuple[str, ...] = Field((), description="words to keep, named in the same way")

    @field_validator("only", "keep", mode="before")
    @classmethod
    def _known(cls, words: object) -> object:
        chosen = (words,) if isinstance(words, str) else words
        return checked(tuple(str(word) for word in chosen)) if isinstance(chosen, list | tuple) else chosen


class Logos(Part):
    """The marks that `logo` looks for."""

    references: tuple[str, ...] = Field(
        (),
        description="pictures of the mark, files or s3://..., cut to it; with alpha, what is clear is not the mark",
    )
    rotation: Annotated[float, Field(ge=0, le=45)] = Field(
        15.0, description="largest turn looked for, degrees"
    )
    smallest: Annotated[float, Field(gt=0, le=1)] = Field(
        0.04, description="smallest long side looked for, as a share of the picture's (never below 32 pixels)"
    )
    largest: Annotated[float, Field(gt=0, le=1)] = Field(0.5, description="... and the largest")


class Given(Part):
    """What `given` removes: boxes, polygons or masks that you have already."""

    file: str | None = Field(
        None,
        description="a Parquet, JSON, JSON lines or COCO file, or a folder of mask images or YOLO labels; "
        "a folder must be in sight of every worker",
    )
    form: Literal["auto", "rows", "coco", "yolo", "masks"] = Field(
        "auto", description="auto = by the content; docs/detectors.md lists the forms"
    )
    shares: bool = Field(
        False, description="coordinates of rows are shares of the sides, not pixels (YOLO's always)"
    )
    root: str | None = Field(
        None, description="what the names in the file are relative to; null = the source"
    )


class Persons(Part):
    """What finds `person`."""

    model: str = Field(
        "nanodet",
        description="nanodet (shipped), blazepose or both (need the extra `persons`), or an ONNX detector of your own "
        "(docs/detectors.md)",
    )
    classes: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (0,), description="numbers of the ONNX file's classes that are persons; [] = all"
    )


class Prompt(Part):
    """What `object` looks for: anything that words can name."""

    words: tuple[str, ...] = Field((), description="what must go, in words: [lanyard, computer screen]")
    model: str | None = Field(
        None,
        description="null = NanoDet (shipped), for COCO's 80 words only; or a folder with OWLv2, Grounding DINO or "
        "SAM 3 as transformers saves it, a hub id (name@revision), or an ONNX detector of your own, whose class "
        "numbers are then the words",
    )


class Everything(Part):
    """Which of Segment Anything's automatic masks `everything` takes; detect.everything limits them too."""

    points: Annotated[int, Field(ge=2, le=64)] = Field(16, description="points a side of the grid of prompts")
    min_iou: Share = Field(0.88, description="lowest predicted IoU")
    min_stability: Share = Field(0.95, description="lowest stability: IoU of the mask cut higher and lower")
    checkpoint: str = Field("sam-vit-b", description="weights: a name of the weights table or a file")
