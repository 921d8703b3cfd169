"""How well a fixed detector (NanoDet-g, which is shipped) still finds what is labelled once the pictures are cleaned:
before, after with labels carried, after with labels as they were, and with the pictures dropped that would be edited.

The detector is not trained again: what is measured is what cleaning does to pictures and labels."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cleanplate.jobs.evaluate.utility_tables import Measured
    from cleanplate.models.detectors.objects.nanodet import NanoDetDetector
    from cleanplate.models.evaluation.average_precision import Truth
    from cleanplate.models.types import Mask
    from cleanplate.pipeline.engine.operator.held_images import Done, Opened
    from cleanplate.pipeline.labels.label import Labels
    from cleanplate.pipeline.ledger.plan import Planned
    from cleanplate.pipeline.recipe.recipe import Recipe

WAYS = ("before", "cleaned, labels carried", "cleaned, labels as they were", "edited pictures dropped")
LOWEST = 0.05
"""Score from which a detection counts, as the detector's own evaluation has it."""
BATCH = 8


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from cleanplate.jobs.cli.flags import add_recipe_flags

    parser = subparsers.add_parser(
        "utility",
        help="measure what cleaning leaves of a labelled set's worth",
        description=" ".join(__doc__.split()),
        epilog="Example: cleanplate evaluate utility val2017/ out/ --labels instances_val2017.json --remove face",
    )
    add = parser.add_argument
    add(
        "photos",
        metavar="PHOTOS",
        help="a folder or s3://BUCKET/PREFIX that the labels' names are relative to",
    )
    add("out", type=Path, metavar="OUT", help="folder for table.md and utility.json")
    add(
        "--labels",
        required=True,
        metavar="FILE",
        help="boxes (COCO, YOLO, CSV, JSON, Parquet), in COCO's words",
    )
    add("--limit", type=int, metavar="N", help="only the first N labelled pictures")
    add("--seed", type=int, default=2026, help="of the draws (default %(default)s)")
    add_recipe_flags(parser, ["picture"])
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when it was measured. Raises ConfigError for labels that cannot be used."""
    from cleanplate.jobs.cli.flags import recipe_of
    from cleanplate.jobs.evaluate.detect_tables import progress, show
    from cleanplate.jobs.evaluate.utility_tables import HEADER, LEGEND, by_kind, line
    from cleanplate.pipeline.engine.operator.held_images import opened
    from cleanplate.pipeline.errors import ConfigError
    from cleanplate.pipeline.labels import forms
    from cleanplate.pipeline.storage.connect import open_store

    recipe = recipe_of(args)
    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {args.limit}")
    recipe = recipe.model_copy(update={"labels": recipe.labels.model_copy(update={"file": args.labels})})
    try:
        labels = forms.read(recipe.labels)
    except ConfigError as error:
        raise ConfigError(str(error).replace("labels.file", f"--labels {args.labels}", 1)) from error
    kinds, unknown = kinds_of(labels)
    every = list(pictures_of(labels, open_store(args.photos), recipe))
    named = every[: args.limit]
    if not named:
        raise ConfigError(
            f"--labels {args.labels} names no picture of {args.photos}; its names are relative to it"
        )
    if not kinds:
        raise ConfigError(
            f"--labels: none of its words is one of COCO's 80: {', '.join(sorted(unknown)[:5])}"
        )
    tools, detector = opened(recipe), detector_of(kinds)
    ways, left_out = measure(named, labels, kinds, tools, detector, progress(len(named)))
    if absent := absent_from(labels, [key for key, _ in every]):
        left_out["label of a picture that is not there"] = absent
    if not ways[WAYS[0]].pictures:
        raise ConfigError(f"none of the {len(named)} labelled pictures can be measured: {dict(left_out)}")
    lines = [line(name, way, ways[WAYS[0]], args.seed) for name, way in ways.items()]
    tables = [
        ("Utility", HEADER, [one["cells"] for one in lines]),
        ("AP by kind", ["kind", *WAYS], by_kind(lines)),
    ]
    table = show(tables, LEGEND)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "table.md").write_text(table, encoding="utf-8")
    body = {
        "photos": args.photos,
        "labels": args.labels,
        "detector": detector.name,
        "recipe_digest": tools.stamp.recipe_digest,
        "code_version": tools.stamp.code_version,
        "kinds": {kind: sorted(classes) for kind, classes in kinds.items()},
        "words_left_out": dict(unknown),
        "left_out": dict(left_out),
        "ways": {name: one["figures"] for name, one in zip(ways, lines, strict=True)},
    }
    (args.out / "utility.json").write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    print(table)
    for why, count in (left_out + unknown).items():
        print(f"left out: {count:,} x {why}")
    print(f"{len(ways[WAYS[0]].pictures)} pictures, {args.out}/table.md, {args.out}/utility.json")
    return 0


def kinds_of(labels: Labels) -> tuple[dict[str, tuple[int, ...]], Counter[str]]:
    """(word of the labels -> the detector's classes, words that it does not know -> labels)."""
    from cleanplate.models.detectors.objects import coco

    words = Counter(label.what.strip().lower() for label in labels.labels)
    known: dict[str, tuple[int, ...]] = {}
    for word in words:
        number = coco.number_of(word)
        if word in ("vehicle", "vehicles"):
            known[word] = coco.VEHICLES
        elif number is not None:
            known[word] = (number,)
    return known, Counter({f"label {word!r}": count for word, count in words.items() if word not in known})


def pictures_of(labels: Labels, store: Any, recipe: Recipe) -> Iterator[tuple[str, Planned]]:
    """(key in labels.names, picture) of every labelled picture that the place has."""
    from cleanplate.pipeline.factory.given import name_of
    from cleanplate.pipeline.ledger import plan

    root = store.uri("").rstrip("/") + "/"
    for one in plan.listed(store, recipe):
        keys = labels.keys(name_of(one.uri, root), one.uri)
        key = next((key for key in keys if key in labels.names), None)
        if key is not None:
            yield key, one


def absent_from(labels: Labels, keys: Sequence[str]) -> int:
    """Labels whose picture is not among these keys of `labels.names`."""
    there = {n for key in keys for n in labels.names[key]}
    return sum(n not in there for n in range(len(labels.labels)))


def detector_of(kinds: dict[str, tuple[int, ...]]) -> NanoDetDetector:
    """NanoDet-g as it is evaluated itself: the whole picture, 416 pixels a side, low scores too."""
    from cleanplate.models.detectors.objects.nanodet import NanoDetDetector, Wanted
    from cleanplate.models.weights.registry import resolve

    wanted = {number: Wanted(kind, LOWEST) for kind, classes in kinds.items() for number in classes}
    return NanoDetDetector(resolve("nanodet"), wanted, most=0)


def measure(
    named: Sequence[tuple[str, Planned]],
    labels: Labels,
    kinds: dict[str, tuple[int, ...]],
    tools: Opened,
    detector: NanoDetDetector,
    tell: Callable[[int], None],
) -> tuple[dict[str, Measured], Counter[str]]:
    """(each of WAYS, why pictures and labels are left out -> how many)."""
    from cleanplate.jobs.evaluate.utility_tables import Measured
    from cleanplate.pipeline.engine.operator.held_images import Named, clean_held
    from cleanplate.pipeline.errors import CleanplateError
    from cleanplate.pipeline.storage.containers import read_images

    ways, left_out = {name: Measured() for name in WAYS}, Counter[str]()
    for start in range(0, len(named), BATCH):
        some = named[start : start + BATCH]
        files = read_images([one.uri for _, one in some], versions=[one.object.version for _, one in some])
        held = [(key, data) for (key, _), data in zip(some, files, strict=True) if isinstance(data, bytes)]
        left_out.update(str(data) for data in files if isinstance(data, CleanplateError))
        cleaned = clean_held([Named(data, key) for key, data in held], tools)
        for (key, data), done in zip(held, cleaned, strict=True):
            if done.data is None:
                error = done.row["error"] or {"stage": "", "kind": ""}
                left_out[f"picture {done.row['status']}: {error['stage']}/{error['kind']}"] += 1
                continue
            _add(ways, data, done, truths(labels, key, kinds, done, left_out), kinds, tools, detector)
        tell(min(start + BATCH, len(named)))
    return ways, left_out


def truths(
    labels: Labels, key: str, kinds: dict[str, tuple[int, ...]], done: Done, left_out: Counter[str]
) -> list[tuple[Truth, Any]]:
    """(label, its entry) of each label of a picture that is of a known kind and lies in it."""
    from cleanplate.models.evaluation.average_precision import Truth
    from cleanplate.pipeline.errors import RowError
    from cleanplate.pipeline.factory import given
    from cleanplate.pipeline.labels.forms import Coco

    height, width = done.row["height"], done.row["width"]
    found = []
    for n in labels.names[key]:
        label = labels.labels[n]
        kind = label.what.strip().lower()
        if kind not in kinds or label.entry is None:
            continue
        raw = labels.content["annotations"][n] if isinstance(labels, Coco) else {}
        try:
            regions = given.regions_of(label.entry, height, width, Counter())
        except RowError as error:
            left_out[f"label: {error}"] += 1
            continue
        if not regions:
            left_out["label without area"] += 1
            continue
        if raw.get("bbox"):  # As COCO's own evaluation has it; the outline may differ by a pixel.
            x, y, across, down = raw["bbox"]
            box = (x, y, x + across, y + down)
        else:
            corners = [region.box for region in regions]
            lows, highs = zip(*((c[:2], c[2:]) for c in corners), strict=True)
            box = (*map(min, zip(*lows, strict=True)), *map(max, zip(*highs, strict=True)))
        found.append((Truth(kind, box, bool(raw.get("iscrowd"))), label.entry))
    return found


def _add(
    ways: dict[str, Measured],
    data: bytes,
    done: Done,
    truth: list[tuple[Truth, Any]],
    kinds: dict[str, tuple[int, ...]],
    tools: Opened,
    detector: NanoDetDetector,
) -> None:
    """One picture, to each of the ways."""
    from cleanplate.models.evaluation.average_precision import matched
    from cleanplate.pipeline.images import decode, rle
    from cleanplate.pipeline.labels.carry import removed_share

    before = decode.decode(data).pixels
    row = done.row
    mask: Mask | None = (
        rle.from_rle(row["mask_rle"], row["height"], row["width"]) if row["mask_rle"] else None
    )
    every = [one for one, _ in truth]
    (found,) = detector([before])
    at_first = matched(every, found, list(kinds))
    edited = mask is not None and done.data is not None
    again, carried = found, every
    if mask is not None and done.data is not None:
        (again,) = detector([decode.decode(done.data).pixels])
        shares = [removed_share(entry, mask) or 0.0 for _, entry in truth]
        most = tools.recipe.labels.drop_above
        carried = [one for one, share in zip(every, shares, strict=True) if share <= most]
    results = (
        (at_first, every),
        (matched(carried, again, list(kinds)), carried),
        (matched(every, again, list(kinds)), every),
        (None if edited else at_first, [] if edited else every),
    )
    for way, (matches, labels) in zip(ways.values(), results, strict=True):
        way.pictures.append(matches)
        way.labels += sum(not one.crowd for one in labels)
