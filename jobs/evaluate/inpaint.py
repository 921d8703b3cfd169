"""Fill holes of known content in photographs and compare with what was there, as the LaMa paper does."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track

if TYPE_CHECKING:
    from cleanplate.models.evaluation.pairs import Pair
    from cleanplate.models.evaluation.sheets import Picks
    from cleanplate.models.evaluation.tables import Row, Scores
    from cleanplate.models.types import Image, Inpainter, Mask

SAMPLES = 3
"""Rows of the picture grid for each kind of mask."""
CURVE = (1, 2, 4)
"""Multiples of the training crop, as figures 5 and 6 of the paper."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from cleanplate.jobs import photos

    parser = subparsers.add_parser(
        "inpaint",
        help="fill known holes in photographs and compare with the truth",
        description=f"{__doc__} Writes table.md, pairs.parquet, summary.parquet and pictures to OUT. LPIPS and "
        "FID need weights: cleanplate weights fetch vgg16 lpips-vgg fid-inception.",
        epilog="Example: cleanplate evaluate inpaint photos/ scores/ --inpainters lama-lite,telea,mine.safetensors",
    )
    add = parser.add_argument
    photos.add_arguments(parser, out="folder for tables and pictures")
    add(
        "--inpainters",
        default="auto,lama-lite,patchmatch,telea,ns",
        metavar="LIST",
        help="names as in a recipe, or LaMa checkpoint files (default %(default)s)",
    )
    add(
        "--masks",
        default="thin,blob,narrow,medium,wide,segm",
        metavar="LIST",
        help="some of thin (strokes of letters), blob, narrow, medium, wide, segm (default all)",
    )
    add("--sizes", default="256,512", metavar="LIST", help="sides in pixels (default %(default)s)")
    add("--masks-each", type=int, default=1, metavar="N", help="holes of each kind in a photograph")
    add(
        "--instances",
        metavar="FILE",
        help="COCO instances JSON: objects for segm (default: pieces of colour)",
    )
    add("--curve", action="store_true", help="also wide holes at 1, 2 and 4 times --train-size")
    add(
        "--train-size", type=int, default=256, metavar="PX", help="the crop of training (default %(default)s)"
    )
    add("--limit", type=int, metavar="N", help="only the first N photographs")
    add(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="LaMa's precision (default %(default)s)"
    )
    add("--threads", type=int, metavar="N", help="CPU threads (default: one a core; 1 on a busy machine)")
    add("--gpu", action="store_true", help="run LaMa and the networks of LPIPS and FID on a GPU")
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class Wanted:
    """The flags, checked."""

    inpainters: dict[str, Inpainter]
    kinds: tuple[str, ...]
    sizes: tuple[int, ...]
    objects: Callable[[str], Callable[[], list[Mask]] | None]


def run(args: argparse.Namespace) -> int:
    """0 measured; raises ConfigError, WeightsError or StorageError before any work."""
    from cleanplate.models.devices import limit_threads
    from cleanplate.models.evaluation.judges import fid_embedding, pair_metrics
    from cleanplate.models.evaluation.sheets import Picks
    from cleanplate.models.evaluation.tables import Scores

    limit_threads(args.threads or os.cpu_count() or 1)
    wanted = check(args)
    device = "cuda" if args.gpu else "cpu"
    scores = Scores(pair_metrics(device), fid_embedding(device))
    samples: dict[int, list[list[Image]]] = {size: [] for size in wanted.sizes}
    picks = Picks(args.seed)
    lost = 0
    photos = _photos(args)
    for number, (name, image) in enumerate(photos):
        for study, pair in _pairs(args, wanted, number, name, image):
            if pair is None:
                lost += 1
                continue
            fills = {title: _timed(inpainter, pair) for title, inpainter in wanted.inpainters.items()}
            scores.add(study, pair, fills)
            if study != "table":
                continue
            if number < SAMPLES:
                samples[pair.size].append(_sample(pair, fills))
            picks.add(pair, _sample(pair, fills), _badness(scores, len(fills)))
    if not scores.rows:
        from cleanplate.pipeline.errors import ConfigError

        raise ConfigError(f"none of the photographs in {args.photos} could be measured")
    text = _write(args.out, scores, wanted, samples, args.train_size)
    _sheets(args.out, picks, wanted)
    if lost:
        text += f"\n\n{lost} photographs had no object that could be moved; they have no segm hole."
    (args.out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


def check(args: argparse.Namespace) -> Wanted:
    """Raises ConfigError, saying what to change; WeightsError for an inpainter's weights."""
    from cleanplate.jobs.evaluate.instances import load_instances
    from cleanplate.models.evaluation.pairs import KINDS
    from cleanplate.pipeline.errors import ConfigError
    from cleanplate.pipeline.factory.inpainters import inpainter

    kinds, names = tuple(args.masks.split(",")), args.inpainters.split(",")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ConfigError(f"--masks {','.join(unknown)}: choose from {', '.join(KINDS)}")
    try:
        sizes = tuple(int(size) for size in args.sizes.split(","))
    except ValueError:
        raise ConfigError(f"--sizes {args.sizes}: write whole numbers of pixels, like 256,512") from None
    if bad := [size for size in (*sizes, args.train_size) if size < 64 or size % 8]:
        raise ConfigError(f"size {bad[0]}: must be a multiple of 8, and at least 64")
    if args.masks_each < 1 or (args.limit is not None and args.limit < 1):
        raise ConfigError("--masks-each and --limit must be at least 1")
    if args.curve:
        from importlib.util import find_spec

        if find_spec("matplotlib") is None:
            raise ConfigError("--curve draws with matplotlib: pip install '.[eval]'")
    found = {name: inpainter(name, args.precision, True, float(args.gpu)) for name in dict.fromkeys(names)}
    titled = {Path(name).stem if name not in found or "/" in name else name: f for name, f in found.items()}
    if len(titled) < len(found):
        raise ConfigError(f"--inpainters {args.inpainters}: two files of one name; rename one")
    return Wanted(titled, kinds, sizes, load_instances(args.instances))


def _photos(args: argparse.Namespace) -> Iterator[tuple[str, Image]]:
    """Every photograph that can be read, upright and whole, with a bar of progress."""
    from cleanplate.jobs.photos import open_photos
    from cleanplate.models.training.data import decoded

    photos = open_photos(args.photos, args.split)[: args.limit]
    console = Console(stderr=True)
    for photo in track(photos, "measuring", console=console, disable=not console.is_terminal):
        try:
            yield photo.file, decoded(photo, sys.maxsize)
        except (ValueError, OSError) as error:
            print(f"left out: {photo.file}: {error}", file=sys.stderr)


def _pairs(
    args: argparse.Namespace, wanted: Wanted, number: int, name: str, image: Image
) -> Iterator[tuple[str, Pair | None]]:
    from cleanplate.models.evaluation.pairs import KINDS, enlarged, make_pair

    make = partial(make_pair, name, image, objects=wanted.objects(name))
    for size in wanted.sizes:
        for kind in wanted.kinds:
            for repeat in range(args.masks_each):
                yield "table", make(kind, size, (args.seed, number, repeat, KINDS.index(kind)))
    if args.curve:
        base = make("wide", args.train_size, (args.seed, number, 0, KINDS.index("wide")))
        for factor in CURVE:
            yield "curve", None if base is None else enlarged(base, image, factor)


def _timed(inpainter: Inpainter, pair: Pair) -> tuple[Image, float]:
    start = time.perf_counter()
    (fill,) = inpainter([pair.image], [pair.mask])
    return fill, time.perf_counter() - start


def _sample(pair: Pair, fills: dict[str, tuple[Image, float]]) -> list[Image]:
    from cleanplate.models.training.lama.validation import holed

    return [holed(pair.image, pair.mask), *(fill for fill, _ in fills.values()), pair.image]


def _badness(scores: Scores, fills: int) -> float:
    """Of the first inpainter's fill of the last pair: LPIPS, or without its weights what SSIM in the hole lacks."""
    row = scores.rows[-fills]
    return float(str(row["lpips"])) if row["lpips"] is not None else 1 - float(str(row["hole_ssim"]))


def _sheets(out: Path, picks: Picks, wanted: Wanted) -> None:
    from cleanplate.models.evaluation.pictures import grid, save_picture

    titles = ["hole", *wanted.inpainters, "truth"]
    for name, kept in (("worst", picks.worst), ("random", picks.random)):
        if kept:
            save_picture(out / f"sheet-{name}.jpg", grid(titles, [row for *_, row in kept], 224))


def _write(
    out: Path, scores: Scores, wanted: Wanted, samples: dict[int, list[list[Image]]], train_size: int
) -> str:
    """The tables and pictures of OUT; gives the text of table.md."""
    from cleanplate.models.evaluation.pictures import grid, save_picture
    from cleanplate.models.evaluation.tables import FID_MEANS_LITTLE_BELOW, markdown

    out.mkdir(parents=True, exist_ok=True)
    columns = scores.columns()
    texts, kept = [], []
    for title, study, by, group in (
        ("By kind of hole", "table", ("size", "masks", "inpainter"), ("size", "masks")),
        ("By share of the area", "table", ("size", "bucket", "inpainter"), ("size", "bucket")),
        ("Over resolution, wide holes", "curve", ("size", "inpainter"), ("size",)),
    ):
        rows = scores.summary(study, *by)
        if by[1] == "bucket":
            rows.sort(key=lambda row: (row["size"], len(str(row["bucket"])), str(row["bucket"])))
        kept += [{"study": study, "by": by[1], **row} for row in rows]
        if rows:
            texts.append(f"## {title}\n\n{markdown(rows, by, columns, group)}")
        if study == "curve" and rows:
            _curves(out, rows, columns, train_size)
    if columns[-1].of is not None and len(scores.rows) < FID_MEANS_LITTLE_BELOW * len(wanted.inpainters):
        texts.append(
            f"FID of fewer than {FID_MEANS_LITTLE_BELOW} images is biased: compare equal numbers only."
        )
    _parquet(out / "pairs.parquet", scores.rows)
    _parquet(out / "summary.parquet", kept)
    for size, pictures in samples.items():
        if pictures:
            titles = ["hole", *wanted.inpainters, "truth"]
            save_picture(out / f"grid-{size}.jpg", grid(titles, pictures, min(size, 256)))
    return "\n\n".join(texts)


def _curves(out: Path, rows: list[Row], columns: Any, train_size: int) -> None:
    from cleanplate.models.evaluation.pictures import curve

    for column in columns:
        if column.of is None or column.name.startswith("l1"):
            continue
        series: dict[str, dict[int, float]] = {}
        for row in rows:
            value = row[column.name]
            if isinstance(value, float):
                series.setdefault(str(row["inpainter"]), {})[int(str(row["size"]))] = value
        title = f"Wide holes, {rows[0]['pairs']} photographs"
        curve(out / f"curve-{column.name}.png", series, title, column.title, train_size)


def _parquet(path: Path, rows: list[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(dict.fromkeys(name for row in rows for name in row))
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), path)
