"""The parts of a recipe that say what is read, how it is written, and where the work is done; see
pipeline/recipe/sections.py."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cleanplate.pipeline.recipe.sections import Part


class Web(Part):
    """How hosts are asked, where the source is a list of addresses; no part of the digest but for `etags`."""

    per_host: Annotated[float, Field(gt=0)] | None = Field(
        5.0, description="requests a second to one host, from each machine; null = no limit"
    )
    rate: Annotated[float, Field(gt=0)] | None = Field(None, description="... and to all hosts together")
    timeout: Annotated[float, Field(gt=0)] = Field(
        20.0, description="seconds without a byte after which a host is given up"
    )
    agent: str = Field(
        "cleanplate", min_length=1, description="the User-Agent: say who asks, and where to complain"
    )
    ignore_opt_out: bool = Field(
        False,
        description="take pictures whose X-Robots-Tag says noai, noimageai, noindex or noimageindex, too",
    )
    etags: bool = Field(
        False,
        description="the plan asks for each size and ETag (HEAD): a picture that changes is a new row, and is read "
        "only as it was planned",
    )


class Source(Part):
    """What the source is made of."""

    format: Literal["auto", "objects", "parquet", "arrow", "webdataset", "list"] = Field(
        "auto",
        description="objects = every object is an image; list = SRC is a list of addresses; the others are containers "
        "that hold many (docs/formats.md)",
    )
    image_column: str | tuple[str, ...] | None = Field(
        None,
        description="of Parquet and Arrow sources; several, or all: each picture is a row; null = the first that looks "
        "like images. Of a list: the addresses",
    )
    web: Web = Web()
    columns: Literal["all", "none"] | tuple[str, ...] = Field(
        "all",
        description="columns of tables, and members of tar samples, that go into the rows unchanged; all = those "
        "without bytes",
    )
    carried: str | None = Field(None, exclude=True, description="set by a run when it starts: their types")


class Labels(Part):
    """Labels of your own that are carried into the output: those of removed things go, the others stay."""

    file: str | None = Field(
        None,
        description="COCO, YOLO, CSV, JSON or Parquet, in the forms of `given`; written again below `labels/`",
    )
    form: Literal["auto", "rows", "coco", "yolo"] = Field("auto", description="auto = decided by the content")
    shares: bool = Field(False, description="coordinates of rows are shares of the sides (YOLO's always)")
    root: str | None = Field(
        None, description="what the names in the file are relative to; null = the source"
    )
    drop_above: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="a label is dropped when more than this share of it was removed"
    )
    flag_above: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="... and flagged, with the share, above this"
    )


class Output(Part):
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


class Limits(Part):
    """What is refused before it is decoded."""

    max_pixels: Annotated[int, Field(gt=0)] = Field(256_000_000, description="per image, from its header")
    max_bytes: Annotated[int, Field(gt=0)] = Field(512 * 2**20, description="per object, from the listing")
    detect_pixels: Annotated[int, Field(ge=1_000_000)] = Field(
        50_000_000,
        description="a larger image is searched in a copy of so many pixels; its row says so in `detectors`",
    )


class Units(Part):
    """How the plan cuts the source. null rows = chosen from the size of the source (1 to 512)."""

    rows: Annotated[int, Field(ge=1, le=10_000)] | None = Field(None, description="images in a unit, at most")
    bytes: Annotated[int, Field(ge=1)] = Field(64 * 2**20, description="source bytes in a unit, at most")


ModelStage = Literal["detect", "segment", "inpaint", "verify"]


class StageEngine(Part):
    """What one model stage's workers take; null = as `engine` says. Neighbours with equal needs share workers."""

    gpus: Annotated[float, Field(ge=0)] | None = Field(None, description="GPUs per worker")
    cpus: Annotated[float, Field(gt=0)] | None = Field(None, description="CPUs per worker")
    workers: Annotated[int, Field(ge=1)] | None = Field(None, description="most workers of this stage")
    batch: Annotated[int, Field(ge=1, le=1024)] | None = Field(None, description="images at a time")


class Engine(Part):
    """Where and how wide it runs. Not part of the recipe's digest: a resume may use another cluster."""

    gpus: Annotated[float, Field(ge=0)] = Field(
        0.0, description="GPUs per worker of the model stages (0.5 = share)"
    )
    cpus: Annotated[float, Field(gt=0)] = Field(1.0, description="CPUs per worker of the model stages")
    workers: Annotated[int, Field(ge=1)] | None = Field(
        None, description="most workers; null = as many as fit"
    )
    batch: Annotated[int, Field(ge=1, le=1024)] = Field(16, description="images a worker handles at a time")
    patience: Annotated[float, Field(gt=0)] = Field(
        900.0,
        description="seconds without a sign of progress (a network's pass, an image) after which a worker counts as "
        "hung, and is ended; an image alone has four times as long",
    )
    wait_for_nodes: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="seconds without progress on a cluster that has lost nodes, after which the run goes on with fewer "
        "workers; null = 60, or 600 where the workers of every stage are set, so that an autoscaler may bring nodes",
    )
    stages: dict[ModelStage, StageEngine] = Field(
        default_factory=dict,
        description="another size for one stage, in a pool of its own: {inpaint: {gpus: 0.5, workers: 4}}",
    )
    decode: Literal["auto", "apart", "inside"] = Field(
        "auto",
        description="where the model stages' pictures are decoded: apart = by CPU tasks of their own, inside = by each "
        "worker; auto = apart when stages have pools of their own",
    )
    wave: Annotated[int, Field(ge=1)] = Field(5000, description="units per engine run: keeps the driver flat")
