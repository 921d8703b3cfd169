"""`cleanplate COMMAND ...`, the same as `python -m jobs COMMAND ...`.

Exit codes: 0 complete, 1 complete with failed or residual rows, 2 wrong use, 3 stopped before the end.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from pipeline.errors import CleanplateError, ConfigError, RunStopped, StorageError

COMPLETE, COMPLETE_WITH_ERRORS, WRONG_USE, STOPPED = 0, 1, 2, 3


def parser() -> argparse.ArgumentParser:
    from jobs import demo, evaluate, inspect, plan, report, run, serve, status, stop, submit, verify, weights

    top = argparse.ArgumentParser(
        prog="cleanplate",
        description="Clean image datasets: find faces, text or plates, mask, inpaint, verify, and write Parquet.",
        epilog="Example: cleanplate run photos/ cleaned/ --remove text,faces",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in (run, plan, status, verify, report, serve, submit, stop, inspect, weights, evaluate, demo):
        module.add_parser(commands)
    commands.add_parser("train", help="train a LaMa on a folder of photographs; the same command goes on")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    # onnxruntime's Linux wheels report home unless this is set before their first import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["train"]:  # Its own parser: it needs torch, which every other command starts without.
        from jobs import train

        return train.main(words[1:])
    from jobs.evaluate import with_default

    args = parser().parse_args(with_default(words))
    signal.signal(signal.SIGTERM, _interrupt)
    from models.fetch import WeightsError

    try:
        return int(args.run(args))
    except (ConfigError, StorageError, WeightsError) as error:
        print(f"cleanplate: {error}", file=sys.stderr)
        return WRONG_USE
    except RunStopped as error:
        print(f"cleanplate: {error}", file=sys.stderr)
        return STOPPED
    except KeyboardInterrupt:
        print("\ncleanplate: stopped. What is committed stays; the same command goes on.", file=sys.stderr)
        return STOPPED
    except CleanplateError as error:
        print(f"cleanplate: {type(error).__name__}: {error}", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:
        sys.stderr.close()  # The reader of our output (head, less) went away; there is no one to tell.
        return COMPLETE


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
