"""Fit the rule by which `watermark` tells overlay from scene, and write it into the weights of the segmenter.

    python -m cleanplate.jobs.train.fit_watermark PHOTOS marks.safetensors --fonts FONTS

Marks are rendered on the photographs that `cleanplate train marks` holds out; those photographs as they are and with
scene-like lettering say what must stay, and so do --clean more of the others. With INDEX.csv its split=train.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cleanplate.models.detectors.overlay.overlay_map import OverlayMap
    from cleanplate.models.detectors.text import TextDetector
    from cleanplate.models.training.data import Photo
    from cleanplate.models.training.marks.fonts import Fonts
    from cleanplate.models.training.marks.overlay_rule import Study
    from cleanplate.models.training.marks.trials import Case

LARGEST = 4096
"""As `cleanplate evaluate detect`: photographs with a longer short side are shrunk to it."""


def main(argv: list[str] | None = None) -> int:
    from cleanplate.jobs.photos import LEAVE_OUT

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("photos", help="folder or s3://... of photographs; with INDEX.csv, its split=train")
    add("weights", type=Path, help="safetensors of `marks`; rewritten with the rule in its metadata")
    add("--fonts", type=Path, help="folder of font files (default: the few that every machine has)")
    add("--marks", type=int, default=216, help="pictures with a mark (default 216)")
    add(
        "--clean",
        type=int,
        default=200,
        help="photographs of the training looked at as they are, spread over their sources (default 200)",
    )
    add(
        "--leave-out",
        type=Path,
        help=LEAVE_OUT,
    )
    add("--seed", type=int, default=9001)
    args = parser.parse_args(argv)
    from cleanplate.models.detectors.overlay.rule import write_rule
    from cleanplate.models.training.marks.fonts import load_fonts
    from cleanplate.models.training.marks.overlay_rule import fit

    fonts = load_fonts(args.fonts)
    studies = list(_studied(args, fonts))
    rule, table = fit(studies)
    write_rule(args.weights, rule)
    for name, value in table.items():
        print(f"{name:16} {value:.4f}")
    print(f"{args.weights}: rule of {len(studies)} pictures, on folds that it was not fitted to")
    return 0


def _studied(args: argparse.Namespace, fonts: Fonts) -> Iterator[Study]:
    from cleanplate.jobs.photos import parted
    from cleanplate.models.detectors.overlay.overlay_map import OverlayMap
    from cleanplate.models.detectors.overlay.rule import Rule, has_rule, write_rule
    from cleanplate.models.detectors.text import TextDetector
    from cleanplate.models.training.marks.figures import KINDS
    from cleanplate.models.training.marks.trials import Case
    from cleanplate.models.weights.registry import resolve

    if not has_rule(args.weights):  # the detector does not open without one; this one is never asked
        write_rule(args.weights, Rule({"bias": 0.0}, {"bias": 0.0}, 0.5, 0.5))
    overlay, text = OverlayMap(args.weights), TextDetector(resolve("text-det"), resolve("text-rec"))
    kept, held = parted(args.photos, 0.05, args.leave_out)
    turn = cycle([(kind, level) for kind in KINDS for level in ("semi", "opaque", "semi", "faint")])
    count = len(held)
    todo = [(held, Case("watermark", *one, n % count, n)) for n, one in enumerate(islice(turn, args.marks))]
    todo += [
        (held, Case("watermark", "", level, n, args.marks + k * count + n))
        for k, level in enumerate(("clean", "lettered"))
        for n in range(count)
    ]
    todo += [(kept, Case("watermark", "", "trained", n, n)) for n in spread(kept, args.clean)]
    for done, (photos, case) in enumerate(todo):
        yield _one(photos[case.photo], case, fonts, args.seed, overlay, text)
        if done % 25 == 24:
            print(f"{done + 1} / {len(todo)} pictures", file=sys.stderr, flush=True)


def spread(photos: Sequence[Photo], most: int) -> list[int]:
    """Numbers of at most so many photographs, one of each source after the other: a rule that has seen flowers only
    takes what it does not know for overlay."""
    turns: dict[str, int] = {}
    ranked = []
    for number, photo in enumerate(photos):
        turns[photo.source] = turns.get(photo.source, -1) + 1
        ranked.append((turns[photo.source], number))
    return sorted(number for _, number in sorted(ranked)[:most])


def _one(photo: Photo, case: Case, fonts: Fonts, seed: int, overlay: OverlayMap, text: TextDetector) -> Study:
    from cleanplate.models.training.data import decoded, name_of
    from cleanplate.models.training.marks.overlay_rule import study
    from cleanplate.models.training.marks.trials import trial

    drawn = trial(case, decoded(photo, LARGEST), fonts, seed)
    looks = overlay([drawn.image])
    (lines,) = text.lines([drawn.image], looks)
    return study(drawn, name_of(photo), looks[0], lines)


if __name__ == "__main__":
    sys.exit(main())
