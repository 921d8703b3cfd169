"""cleanplate benchmark: how fast the inpainter and the whole run are, against their rivals and their limits."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from rich.console import Console

WEIGHTS = {
    "inpaint": 45,
    "crops": 3,
    "exact": 6,
    "limit": 4,
    "memory": 5,
    "main": 10,
    "overhead": 5,
    "scaling": 12,
    "pipeline": 10,
    "margins": 10,
}
"""Each part's share of the time, in the order in which they run."""
PARTS = tuple(WEIGHTS)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "benchmark",
        help="measure the inpainter and the flow against their rivals and limits",
        description=__doc__,
        epilog="Example: cleanplate benchmark --only inpaint,limit --out bench",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="tiny models and images (`main`: one photograph): that it works, and no figure to compare",
    )
    parser.add_argument("--only", metavar="PARTS", help=f"by comma, of: {', '.join(PARTS)}")
    parser.add_argument("--cases", metavar="WORD", help="only cases of `inpaint` whose name has this in it")
    parser.add_argument(
        "--ways", default="", metavar="REGEX", help="only ways of `inpaint` whose name has this in it"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("benchmark-out"), help="folder for the JSON and the plot"
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=25,
        metavar="MINUTES",
        help="time for all parts: slow ways get fewer turns, the least needed are left out (default: 25)",
    )
    parser.add_argument("--rounds", type=int, default=3, help="most turns of a measurement (default: 3)")
    parser.add_argument("--threads", type=int, help="threads of the inpainter's part (default: one a core)")
    parser.add_argument(
        "--device",
        default="cpu",
        choices=("cpu", "cuda"),
        help="where `inpaint` and `pipeline` run (default: cpu)",
    )
    parser.add_argument(
        "--photos",
        help="photographs for `main`, `pipeline` and `margins`: folder or URL (default: the demo's)",
    )
    parser.add_argument("--images", type=int, default=60, help="photographs of `pipeline` (default: 60)")
    parser.add_argument("--tiny", type=int, default=10_000, help="images of `overhead` (default: 10000)")
    parser.add_argument(
        "--workers",
        default="1,2,4,8,16",
        help="how many `scaling` tries (default: 1,2,4,8,16)",
    )
    parser.add_argument(
        "--inpainter", default="lama-lite", help="what `pipeline` fills with (default: lama-lite)"
    )
    parser.add_argument("--price-core-hour", type=float, default=0.04, metavar="USD", help="default: 0.04")
    parser.add_argument("--price-gpu-hour", type=float, default=2.0, metavar="USD", help="default: 2")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0, or 1 when a part failed. Keeps benchmark.json in --out up to date, and draws benchmark.png at the end.

    Raises ConfigError for wrong flags."""
    from cleanplate.jobs.benchmark.parts import RUN, Turn, cost
    from cleanplate.jobs.benchmark.plot import plot
    from cleanplate.jobs.benchmark.tables import show, shown

    left = _chosen(args)
    # In a file the tables keep their width.
    console = Console(width=None if sys.stdout.isatty() else 150)
    end = time.monotonic() + 60 * args.budget
    results: dict[str, Any] = {"machine": _machine(), "quick": args.quick}
    args.out.mkdir(parents=True, exist_ok=True)

    def keep(part: str, found: Any) -> None:
        results[part] = found
        text = json.dumps(results, indent=1) + "\n"
        (args.out / "benchmark.json").write_text(text, encoding="utf-8")

    failed = False
    for name in list(left):
        share = WEIGHTS[name] / sum(WEIGHTS[part] for part in left)
        seconds, begun = share * max(end - time.monotonic(), 0), time.monotonic()
        left.remove(name)
        console.print(f"[bold]{name}[/] (up to {seconds:.0f} s) ...", highlight=False)
        turn = Turn(args, seconds, lambda found, name=name: keep(name, found), console)  # type: ignore[misc]
        try:
            keep(name, RUN[name](turn))
        except Exception:  # noqa: BLE001 - printed, kept, and in the exit code; the other parts go on
            failed = True
            keep(name, {"error": traceback.format_exc()})
            console.print(f"{name} failed:\n{results[name]['error']}", highlight=False, markup=False)
        if name not in shown:
            show(name, results, console)
        results["machine"].setdefault("seconds", {})[name] = round(time.monotonic() - begun, 1)
    results["machine"]["load_after"] = os.getloadavg()[0]
    keep("cost", cost(results, args))
    if results["cost"]:
        show("cost", results, console)
    plot(results).save(args.out / "benchmark.png")
    console.print(f"written: {args.out / 'benchmark.json'}, {args.out / 'benchmark.png'}", highlight=False)
    return int(failed)


def _chosen(args: argparse.Namespace) -> list[str]:
    from cleanplate.pipeline.errors import ConfigError

    chosen = [word.strip() for word in (args.only or ",".join(PARTS)).split(",") if word.strip()]
    if wrong := [word for word in chosen if word not in PARTS]:
        raise ConfigError(f"--only {wrong[0]}: choose from {', '.join(PARTS)}")
    for flag in ("rounds", "images", "tiny"):
        if getattr(args, flag) < 1:
            raise ConfigError(f"--{flag} must be 1 or more")
    if args.threads is not None and args.threads < 1:
        raise ConfigError("--threads must be 1 or more")
    if args.budget <= 0:
        raise ConfigError("--budget must be above 0")
    try:
        counts = [int(word) for word in args.workers.split(",")]
    except ValueError as error:
        raise ConfigError(f"--workers {args.workers}: numbers by comma, such as 1,2,4") from error
    if min(counts) < 1:
        raise ConfigError(f"--workers {args.workers}: each must be 1 or more")
    return chosen


def _machine() -> dict[str, Any]:
    import torch

    from cleanplate.models.devices import bf16_is_native
    from cleanplate.models.lama.fast.int8 import splitting_pays

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpus": torch.cuda.device_count(),
        "bf16_native": bf16_is_native("cpu"),
        "split_fp32": splitting_pays(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
