"""cleanplate run SRC DST: clean every image of a source into committed Parquet parts; resumes by itself."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cleanplate.pipeline.engine.carry_out import Options
    from cleanplate.pipeline.engine.run import Run
    from cleanplate.pipeline.ledger.review import Marks
    from cleanplate.pipeline.ui.progress import Progress


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from cleanplate.jobs.cli.flags import add_recipe_flags

    parser = subparsers.add_parser(
        "run",
        help="clean a source into an output; the same command resumes",
        description=__doc__,
        epilog="Examples: cleanplate run photos/ cleaned/ "
        "cleanplate run photos/ cleaned/ --preset anonymise --limit 20 "
        "cleanplate run s3://bucket/raw s3://bucket/clean --recipe recipe.yaml --address auto "
        "cleanplate run photos/ cleaned/ --review marks.json "
        "cleanplate run photos/ cleaned/ --json   # JSON lines for machines: docs/pages.md",
    )
    parser.add_argument(
        "source",
        metavar="SRC",
        help="a folder, s3://, gs://, az:// or hf://datasets/..., or a list of addresses (--from-list)",
    )
    parser.add_argument("output", metavar="DST", help="a folder, s3://, gs:// or az://, outside SRC")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images of the listing")
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, list and count; write nothing"
    )
    parser.add_argument(
        "--recall",
        type=int,
        metavar="N",
        help="check N random rows again to estimate what was missed; default: 1 %% of them, 50 to 200",
    )
    parser.add_argument(
        "--failed-exit-code",
        type=int,
        default=1,
        metavar="N",
        help="exit code of a complete run with failed or residual rows (default 1; 0 for job schedulers)",
    )
    parser.add_argument(
        "--labels",
        dest="carry_labels",
        metavar="FILE",
        help="labels of yours (COCO, YOLO, CSV, JSON, Parquet) to carry into DST/labels (docs/formats.md)",
    )
    parser.add_argument(
        "--allow-empty",
        action="store_true",
        help="a source without images is no error (default: exit code 2)",
    )
    parser.add_argument("--retry-failed", action="store_true", help="plan the failed rows once more")
    parser.add_argument(
        "--review", metavar="FILE", help="marks that the report exported: redo with larger masks, or restore"
    )
    parser.add_argument(
        "--new-run", action="store_true", help="give another recipe a folder of its own in DST"
    )
    parser.add_argument("--json", action="store_true", help="JSON lines on stdout instead of words")
    parser.add_argument(
        "--every", type=float, default=10.0, metavar="SECONDS", help="between plain or JSON lines (10)"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--address", help='a Ray cluster: "auto" or host:port; default: Ray on this machine')
    where.add_argument(
        "--here", action="store_true", help="no Ray: one image after the other in this process"
    )
    add_recipe_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 complete, 1 complete with failed or residual rows. Raises what `cleanplate.jobs.cli.app` turns into 2 and 3."""
    from cleanplate.jobs.cli.flags import recipe_of
    from cleanplate.pipeline.engine import ray_cluster
    from cleanplate.pipeline.engine import run as runs
    from cleanplate.pipeline.engine.carry_out import Options
    from cleanplate.pipeline.errors import ConfigError

    marks, own = review_of(args) if args.review else (None, None)
    recipe = recipe_of(args, own)
    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit {args.limit}: must be 1 or more")
    check_exit_code(args.failed_exit_code)
    if args.recall is not None and args.recall < 0:
        raise ConfigError(f"--recall {args.recall}: must be 0 (no estimate) or more")
    if not args.every > 0:
        raise ConfigError(f"--every {args.every:g}: must be more than 0 seconds")
    if args.dry_run:
        from cleanplate.jobs.commands.plan import describe

        return describe(args.source, args.output, recipe, args.limit, allow_empty=args.allow_empty)
    ray_cluster.reachable(args.address)
    if not (recipe.engine.gpus or args.address or args.json) and Path("/dev/nvidia0").exists():
        Console(stderr=True).print(_UNUSED_GPU, highlight=False, soft_wrap=True)
    started = runs.start(args.source, args.output, recipe, new_run=args.new_run, allow_empty=args.allow_empty)
    options = Options(
        engine="here" if args.here else "ray",
        address=args.address,
        limit=args.limit,
        retry_failed=args.retry_failed,
        marks=marks,
        recall=args.recall,
    )
    return carry_out(
        started,
        options,
        machine=args.json,
        every=args.every,
        failed_exit_code=args.failed_exit_code,
    )


_UNUSED_GPU = (
    "There is a GPU here, and this recipe does not use it. --preset big does: masks by SAM ViT-H, fills by Big LaMa. "
    "It fetches 3 GB once: cleanplate weights fetch --for big"
)


def check_exit_code(code: int) -> None:
    """Raise ConfigError for an exit code that a shell cannot give or that means something else."""
    from cleanplate.pipeline.errors import ConfigError

    if not 0 <= code <= 255 or code in (2, 3):
        raise ConfigError(f"--failed-exit-code {code}: must be 0 to 255, and neither 2 nor 3")


def review_of(args: argparse.Namespace) -> tuple[Marks, dict[str, Any]]:
    """The marks of --review, checked against the run that they judge, and that run's recipe; says what they ask for."""
    from cleanplate.pipeline.engine import run as runs
    from cleanplate.pipeline.errors import ConfigError
    from cleanplate.pipeline.ledger import review

    if args.new_run:
        raise ConfigError("--review continues the run that was reviewed: leave out --new-run")
    marks = review.read(args.review)
    output, record = runs.open_finished(args.output)
    counts = review.asked(output, marks).counts
    text = ", ".join(f"{count:,} {word}" for word, count in counts.items())
    Console(stderr=True).print(f"review {args.review}: {text or 'no marks'}", highlight=False)
    return marks, record["recipe"]


def carry_out(
    run: Run,
    options: Options | None = None,
    *,
    machine: bool = False,
    every: float = 10.0,
    failed_exit_code: int = 1,
) -> int:
    """Carry the run out, showing it, and print the closing table, or, for a machine, JSON lines. Returns the exit
    code."""
    from cleanplate.jobs.cli.summary import close
    from cleanplate.pipeline.engine import carry_out as whole
    from cleanplate.pipeline.ui.progress import Progress

    report = _machine if machine else _person

    def show(rows: int, before: int) -> Progress:
        return Progress(rows, before, shown="json" if machine else None, every=every, title=run.output.url)

    outcome = whole.carry_out(run, options or whole.Options(), show, report)
    code = 0 if outcome.clean else failed_exit_code
    if machine:
        tally = outcome.tally
        report("end", rows=tally.rows, statuses=tally.statuses, causes=tally.causes, exit_code=code)
    else:
        close(outcome, run.output.url, code, run.recipe.inpaint.hiders(run.recipe.remove))
    return code


def beside(left_out: Mapping[str, int]) -> str:
    """What a source holds besides images, in words."""
    most = sorted(left_out.items(), key=lambda item: -item[1])[:6]
    text = ", ".join(f"{count:,} {suffix}" for suffix, count in most)
    count = sum(left_out.values())
    return f"{count:,} other file{'s' * (count != 1)} left out: {text}"


def _given(counts: Mapping[str, Any]) -> str:
    """What of the given regions came to nothing, in words."""
    parts = []
    if counts["unmatched"]:
        examples = ", ".join(counts["examples"])
        parts.append(
            f"{counts['unmatched']:,} of {counts['named']:,} named images are not in the source ({examples}, ...)"
        )
    if counts["without_area"]:
        parts.append(f"{counts['without_area']:,} boxes without area are ignored")
    return f"given.file: {'; '.join(parts)}"


def _labels(counts: Mapping[str, Any]) -> str:
    """What became of the carried labels, in words."""
    text = f"labels: {counts['kept']:,} of {counts['labels']:,} kept ({counts['flagged']:,} flagged), "
    text += f"{counts['dropped']:,} dropped"
    if counts["unmatched"]:
        text += f", {counts['unmatched']:,} name no image of the source"
    if counts["twice"]:
        text += f"; {counts['twice']:,} ids are there more than once, all kept as they are"
    return f"{text}; labels/changes.csv lists them"


def _machine(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


def _person(event: str, **fields: Any) -> None:
    """The same events in words, on stderr."""
    words = {
        "start": lambda: (
            f"{fields['source']} > {fields['output']}   run {fields['run_id']}\n"
            f"remove {', '.join(fields['remove'])}   masks {fields['segmenter']}   {_filler(fields['inpainter'])}"
            f"{_hiders(fields['hidden_by'])}"
        ),
        "planned": lambda: (
            f"{fields['images']:,} images in {fields['units']:,} unit{'s' * (fields['units'] != 1)}; "
            f"{fields['committed_before']:,} committed before"
        ),
        "beside": lambda: beside(fields["left_out"]),
        "held_back": lambda: (
            f"columns that may hold pictures, left out of the output: {', '.join(fields['columns'])} "
            "(--image-column cleans several, all = every Image; --columns takes them as they are)"
        ),
        "given": lambda: _given(fields),
        "starting": lambda: f"{fields['what']} ...",
        "labels": lambda: _labels(fields),
        "engine": lambda: f"on {fields['where']}",
        "advice": lambda: f"{fields['message']}",
        "recall": lambda: (
            "\n".join(map(_recalled, fields["recall"])) or "recall: nothing found in the sample"
        ),
    }
    Console(stderr=True).print(words[event](), highlight=False, soft_wrap=True, markup=False)


def _recalled(one: Mapping[str, Any]) -> str:
    """The lower end first: it is what the sample supports."""
    from cleanplate.pipeline.engine.recall import ENOUGH

    sample = f"{one['removed']:,} removed, {one['missed']:,} possibly missed in {one['images']:,} images checked again"
    if one["images"] < ENOUGH:
        return f"recall of {one['kind']}: too few to tell ({sample}; --recall {ENOUGH} or more)"
    return (
        f"recall of {one['kind']}: at least {one['low']:.0%} "
        f"(95 %: {one['low']:.0%} to {one['high']:.0%}, estimate {one['recall']:.0%}; {sample})"
    )


def _filler(name: str) -> str:
    """What fills the masks, shown on screen: a classic filler smears, and nobody should be surprised by it."""
    from cleanplate.pipeline.recipe.sections import HIDING

    classic = " (OpenCV, no neural network; --inpainter lama-lite for LaMa)"
    hides = " (hides what is there and removes nothing)"
    return f"inpainter {name}{classic if name in ('telea', 'ns') else hides if name in HIDING else ''}"


def _hiders(words: list[str]) -> str:
    return f"   {' and '.join(words)} hides, see inpaint.per_kind" if words else ""
