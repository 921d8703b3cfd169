"""cleanplate submit -- run SRC DST ...: the same command as a job on a Ray cluster, its code sent along.

What is sent is the three packages' source and the recipe, nothing else: no weights (they are fetched, or baked into
the nodes' image), no photographs, no repository, and no credentials. The nodes take credentials from a role or from
their own environment.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cleanplate.jobs.cluster.client import (
    FAILED_ROWS,
    STOPPED,
    add_address,
    connect,
    first_line,
    follow,
    head_python,
    submit,
)
from cleanplate.jobs.cluster.package import RECIPE, Job, environment, make_package

if TYPE_CHECKING:
    from cleanplate.pipeline.recipe.recipe import Recipe


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "submit",
        help="run on a Ray cluster as a job; the same submission resumes",
        description=f"{__doc__} Exit code: the job's.",
        epilog="Example: cleanplate submit --address http://head:8265 -- run s3://bucket/raw s3://bucket/clean",
    )
    add_address(parser)
    parser.add_argument("--no-wait", action="store_true", help="print the job's id and leave")
    parser.add_argument("--submission-id", metavar="ID", help="an id of your own, never used before")
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an environment variable of the job, such as AWS_REGION=eu-west-1; never a secret",
    )
    parser.add_argument(
        "--installed",
        action="store_true",
        help="use the cleanplate that is installed on the nodes; send the recipe only",
    )
    parser.add_argument(
        "--python",
        metavar="PATH",
        help="the interpreter on the head (default: the one that Ray runs under there)",
    )
    parser.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="-- run SRC DST ...", help="the command, as on one machine"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The job's exit code: 0 to 3 as `run` gives them; 3 also for a job that was stopped or killed; 0 after
    --no-wait. Raises ConfigError for a command that cannot work there and a cluster that does not answer, RunStopped
    for a cluster that cannot take the job now."""
    job, variables = prepare(args.words), environment(args.env)
    client = connect(args.address)
    job = replace(job, entrypoint=(args.python or head_python(client), *job.entrypoint))
    with tempfile.TemporaryDirectory(prefix="cleanplate-submit-") as folder:
        size = make_package(Path(folder), job, code=not args.installed)
        name = submit(client, job, args.submission_id, {"working_dir": folder, "env_vars": variables})
    print(name, flush=True)
    print(f"sent {size / 1024:,.0f} KiB; {_how(name, args.address)}", file=sys.stderr, flush=True)
    if args.no_wait:
        return 0
    try:
        return follow(client, name)
    except KeyboardInterrupt:
        print(f"\nThe job {name} is still running. {_how(name, args.address)}", file=sys.stderr)
        return STOPPED
    except (RuntimeError, OSError) as error:
        print(f"lost the cluster ({first_line(error)}). {_how(name, args.address)}", file=sys.stderr)
        return STOPPED


def _how(name: str, address: str) -> str:
    at = f"--address {address}"
    return f"follow: ray job logs --follow {name} {at}   stop: cleanplate stop {name} {at}"


def prepare(words: Sequence[str]) -> Job:
    """Check `run SRC DST ...` here, where the user sees it, and turn it into the command of the cluster.

    The job ends with FAILED_ROWS instead of 1: Ray itself ends a driver with 1 when the node below it dies.

    Raises ConfigError for what no node could do: another command, a path relative to this folder, --here.
    """
    from cleanplate.jobs.cli.app import parser
    from cleanplate.jobs.cli.flags import recipe_of
    from cleanplate.jobs.commands.run import check_exit_code
    from cleanplate.pipeline.errors import ConfigError

    words = list(words[1:] if words and words[0] == "--" else words)
    if not words or words[0] != "run":
        raise ConfigError("write the command after --: cleanplate submit -- run SRC DST ...")
    args = parser().parse_args(words)
    if args.here or args.address:
        raise ConfigError(
            f"leave out {'--here' if args.here else '--address'}: the job runs on the cluster it is sent to"
        )
    check_exit_code(args.failed_exit_code)
    for place, what in ((args.source, "SRC"), (args.output, "DST")):
        _same_everywhere(place, what)
    shipped = _check_files(recipe_of(args))
    sent = _with_sent_recipe(words)
    if args.failed_exit_code == 1:
        sent += ["--failed-exit-code", str(FAILED_ROWS)]
    entrypoint = ("-m", "cleanplate", *sent, "--address", "auto")
    return Job(entrypoint, Path(args.recipe) if args.recipe else None, shipped)


def _with_sent_recipe(words: Sequence[str]) -> list[str]:
    """The words with --recipe pointing at the file as it is called in the package."""
    sent, value_next = [], False
    for word in words:
        given = not value_next and word.startswith("--recipe=")
        sent.append(f"--recipe={RECIPE}" if given else RECIPE if value_next else word)
        value_next = not value_next and word == "--recipe"
    return sent


def _same_everywhere(place: str, what: str) -> None:
    from cleanplate.pipeline.errors import ConfigError
    from cleanplate.pipeline.storage.connect import open_store

    open_store(
        place
    )  # Refuses what holds credentials: a job's command is shown to whoever can see the dashboard.
    if "://" not in place and not place.startswith("/"):
        raise ConfigError(
            f"{what} {place!r}: on a cluster, write s3://... or an absolute path that every node sees"
        )


def _check_files(recipe: Recipe) -> tuple[Path, ...]:
    """The weights of our own packages that the recipe needs. Files elsewhere must lie on the nodes by themselves."""
    from cleanplate.models.weights import registry
    from cleanplate.models.weights.fetch import package_file
    from cleanplate.pipeline.errors import ConfigError
    from cleanplate.pipeline.factory import attachments, check

    for key, place in attachments.named(recipe):
        _same_everywhere(place, key)
    shipped = []
    for name in check.weights_of(recipe):
        if name not in registry.known() and not name.startswith("/"):
            raise ConfigError(
                f"weights {name!r}: on a cluster, name known weights or an absolute path on every node"
            )
        if name in registry.known() and (source := registry.find(name).sources[0]).startswith("package:"):
            shipped.append(package_file(source))
    return tuple(shipped)
