"""`cleanplate COMMAND ...`, the same as `python -m cleanplate COMMAND ...`.

Exit codes: 0 complete, 1 complete with failed or residual rows, 2 wrong use, 3 stopped before the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import FrameType
from typing import Any

from cleanplate.jobs.cli.parser import Parser
from cleanplate.pipeline.errors import CleanplateError, ConfigError, RunStopped, StorageError, redacted

COMPLETE, COMPLETE_WITH_ERRORS, WRONG_USE, STOPPED = 0, 1, 2, 3


COMMANDS = {
    "run": "commands.run",
    "clean": "commands.clean",
    "plan": "commands.plan",
    "status": "commands.status",
    "verify": "commands.verify",
    "report": "commands.report",
    "compact": "commands.compact",
    "export": "commands.export",
    "inspect": "commands.inspect",
    "audit": "commands.audit",
    "serve": "commands.serve",
    "submit": "commands.submit",
    "stop": "commands.stop",
    "weights": "commands.weights",
    "evaluate": "evaluate.command",
    "ablate": "train.ablate",
    "doctor": "commands.doctor",
    "benchmark": "benchmark.command",
    "demo": "commands.demo",
    "completion": "commands.completion",
}
"""Command -> its module below `cleanplate.jobs`, in the order in which --help lists them."""


def parser() -> Parser:
    top = Parser(
        prog="cleanplate",
        description="Clean image datasets: find faces, text or plates, mask, inpaint, verify, and write Parquet.",
        epilog="Examples: cleanplate run photos/ cleaned/   # text and faces, on this machine "
        "cleanplate run s3://bucket/raw s3://bucket/clean --remove faces --address auto "
        "cleanplate inspect photo.jpg   # what would happen to one image "
        "cleanplate doctor   # what is installed, reachable and missing",
    )
    top.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS.values():
        import_module(f"cleanplate.jobs.{module}").add_parser(commands)
    commands.add_parser("train", help="train a LaMa on a folder of photographs; run it again to continue")
    return top


class _Version(argparse.Action):
    """`--version`: found only when it is asked for, because git may have to be asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from cleanplate.pipeline.recipe.provenance import code_version

        print(f"cleanplate {code_version()}")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    # onnxruntime's Linux wheels report home unless this is set before their first import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["train"]:  # Its own parser: it needs torch, which every other command starts without.
        from cleanplate.jobs.train import command

        return command.main(words[1:])
    from cleanplate.jobs.evaluate.command import with_default

    args = parser().parse_args(with_default(words))
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # Not so under nohup, which must go on.
            signal.signal(number, _interrupt)
    from cleanplate.models.weights.fetch import WeightsError

    try:
        return int(args.run(args))
    except (ConfigError, StorageError, WeightsError) as error:
        away = isinstance(error, StorageError) and error.kind == "unreachable"
        # A store that is away may come back: the same command continues.
        return _say(args, str(error), STOPPED if away else WRONG_USE)
    except RunStopped as error:
        return _say(args, str(error), STOPPED)
    except KeyboardInterrupt:
        again = f"run the same command again to continue: cleanplate {shlex.join(words)}"
        return _say(args, f"stopped. What is committed stays; {again}", STOPPED)
    except CleanplateError as error:
        return _say(args, f"{type(error).__name__}: {error}", STOPPED)
    except BrokenPipeError:
        sys.stderr.close()  # The reader of our output (head, less) went away; there is no one to tell.
        return COMPLETE


def _say(args: argparse.Namespace, message: str, code: int) -> int:
    """One message on stderr, and where a program listens (--json) one line on stdout too. Every error of every command
    passes here: without credentials, whatever was typed."""
    message = redacted(message)
    print(f"cleanplate: {message}", file=sys.stderr)
    if getattr(args, "json", False):
        print(json.dumps({"event": "error", "message": message, "exit_code": code}), flush=True)
    return code


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
