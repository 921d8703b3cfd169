"""cleanplate benchmark: how fast the inpainter and the whole run are, against their rivals and their limits."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

PARTS = ("inpaint", "exact", "limit", "memory", "margins", "pipeline", "overhead", "scaling")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "benchmark",
        help="measure the inpainter and the flow against their rivals and limits",
        description=__doc__,
        epilog="Example: cleanplate benchmark --only inpaint,limit --out bench",
    )
    parser.add_argument("--quick", action="store_true", help="tiny models and images: shows that it works")
    parser.add_argument("--only", metavar="PARTS", help=f"by comma, of: {', '.join(PARTS)}")
    parser.add_argument("--cases", metavar="WORD", help="only cases of `inpaint` whose name has this in it")
    parser.add_argument(
        "--ways", default="", metavar="REGEX", help="only ways of `inpaint` whose name has this in it"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("benchmark-out"), help="folder for the JSON and the plot"
    )
    parser.add_argument("--rounds", type=int, default=3, help="turns of each measurement (default: 3)")
    parser.add_argument("--threads", type=int, help="of the inpainter's part (default: the cores)")
    parser.add_argument(
        "--device", default="cpu", choices=("cpu", "cuda"), help="of `inpaint` and `pipeline`"
    )
    parser.add_argument(
        "--photos", type=Path, help="JPEGs for `pipeline` and `margins` (default: the demo's)"
    )
    parser.add_argument("--images", type=int, default=60, help="photographs of `pipeline` (default: 60)")
    parser.add_argument("--tiny", type=int, default=10_000, help="images of `overhead` (default: 10000)")
    parser.add_argument("--workers", default="1,2,4,8,16", help="of `scaling` (default: 1,2,4,8,16)")
    parser.add_argument("--inpainter", default="lama-lite", help="of `pipeline` (default: lama-lite)")
    parser.add_argument("--price-core-hour", type=float, default=0.04, metavar="USD", help="default: 0.04")
    parser.add_argument("--price-gpu-hour", type=float, default=2.0, metavar="USD", help="default: 2")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0. Writes benchmark.json and benchmark.svg into --out. Raises ConfigError for wrong flags."""
    from jobs.benchmark_show import plot, show

    chosen = _chosen(args)
    console = Console()
    results: dict[str, Any] = {"machine": _machine(), "quick": args.quick}
    for name in chosen:
        console.print(f"[bold]{name}[/] ...", highlight=False)
        results[name] = _PARTS[name](args)
        show(name, results, console)
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "benchmark.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    results["machine"]["load_after"] = os.getloadavg()[0]
    results["cost"] = cost(results, args)
    show("cost", results, console)
    (args.out / "benchmark.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (args.out / "benchmark.svg").write_text(plot(results), encoding="utf-8")
    console.print(f"written: {args.out / 'benchmark.json'}, {args.out / 'benchmark.svg'}", highlight=False)
    return 0


def _chosen(args: argparse.Namespace) -> list[str]:
    from pipeline.errors import ConfigError

    chosen = [word.strip() for word in (args.only or ",".join(PARTS)).split(",") if word.strip()]
    if wrong := [word for word in chosen if word not in PARTS]:
        raise ConfigError(f"--only {wrong[0]}: choose from {', '.join(PARTS)}")
    for flag in ("rounds", "images", "tiny"):
        if getattr(args, flag) < 1:
            raise ConfigError(f"--{flag} must be 1 or more")
    if args.threads is not None and args.threads < 1:
        raise ConfigError("--threads must be 1 or more")
    try:
        counts = [int(word) for word in args.workers.split(",")]
    except ValueError as error:
        raise ConfigError(f"--workers {args.workers}: numbers by comma, such as 1,2,4") from error
    if min(counts) < 1:
        raise ConfigError(f"--workers {args.workers}: each must be 1 or more")
    return chosen


def _machine() -> dict[str, Any]:
    import torch

    from models.fast import bf16_is_native
    from models.split import splitting_pays

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


def _threads(args: argparse.Namespace) -> int:
    from models.devices import limit_threads

    threads: int = args.threads or (1 if args.quick else os.cpu_count() or 1)
    limit_threads(threads)
    return threads


def _model(args: argparse.Namespace) -> str:
    return "tiny" if args.quick else "big-lama"


def _inpaint(args: argparse.Namespace) -> dict[str, Any]:
    from models import bench
    from models.lama import LAMA

    threads = _threads(args)
    model = bench.random_generator(LAMA[_model(args)])
    ways = {n: way for n, way in bench.ways(model, args.device).items() if re.search(args.ways, n)}
    cases = [c for c in bench.cases(quick=args.quick) if not args.cases or args.cases in c.name]
    small = bench.cases(quick=True)[0]
    bench.timed(small, ways, 1)  # Every way once, so that no first call is in a figure.
    return {
        "model": _model(args),
        "threads": threads,
        "rounds": args.rounds,
        "cases": [bench.timed(case, ways, args.rounds) for case in cases],
    }


def _exact(args: argparse.Namespace) -> dict[str, Any]:
    from jobs.benchmark_flow import photographs
    from models import bench, bench_limits
    from models.lama import LAMA
    from pipeline import images

    _threads(args)
    side = 64 if args.quick else 512
    model = bench.random_generator(LAMA[_model(args)])
    found = {f"{_model(args)}, random weights": bench_limits.exactness(model, side)}
    lite, prefill = bench_limits.shipped("lama-lite")
    photo = images.decode(next(iter(photographs(1, args.photos).values()))).pixels
    return found | {
        "lama-lite, trained": bench_limits.exactness(
            lite, min(side, *photo.shape[:2]) // 8 * 8, prefill=prefill, image=photo
        )
    }


def _limit(args: argparse.Namespace) -> dict[str, Any]:
    from models import bench_limits

    _threads(args)
    return bench_limits.limit(_model(args), 64 if args.quick else 512, args.rounds)


def _memory(args: argparse.Namespace) -> dict[str, Any]:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    from models import bench, bench_limits

    at = next(n for n, case in enumerate(bench.cases(quick=True)) if "one hole" in case.name)
    found = {}
    for name in (bench.WHOLE, "ours fp32", "ours bf16"):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
            found[name] = fresh.submit(bench_limits.memory_of, name, _model(args), at, args.quick).result()
    return {"case": "2048x1536, one hole 300x200", "processes": found}


def _margins(args: argparse.Namespace) -> list[dict[str, Any]]:
    import numpy as np

    from jobs.benchmark_flow import photographs
    from models import bench_limits, bench_margins
    from pipeline import images

    _threads(args)
    blobs = photographs(1 if args.quick else args.images, args.photos).values()
    photos = (np.asarray(images.decode(data).pixels) for data in blobs)
    holes = bench_margins.HOLES[:1] if args.quick else bench_margins.HOLES
    return bench_margins.table(photos, bench_margins.fillers(bench_limits.lite_inpainter), holes)


def _pipeline(args: argparse.Namespace) -> dict[str, Any]:
    from jobs import benchmark_flow as flow

    overrides: dict[str, Any] = {"inpaint.name": args.inpainter, "engine.gpus": float(args.device == "cuda")}
    if args.quick:
        overrides |= {"remove": ["face"], "inpaint.name": "telea"}
    count = 3 if args.quick else args.images
    return flow.pipeline(count, args.photos, args.rounds, overrides, ray=not args.quick)


def _overhead(args: argparse.Namespace) -> dict[str, Any]:
    from jobs import benchmark_flow as flow

    return flow.overhead(min(args.tiny, 50) if args.quick else args.tiny)


def _scaling(args: argparse.Namespace) -> list[dict[str, float]]:
    from jobs import benchmark_flow as flow

    return flow.scaling([1] if args.quick else [int(word) for word in args.workers.split(",")])


_PARTS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "inpaint": _inpaint,
    "exact": _exact,
    "limit": _limit,
    "memory": _memory,
    "margins": _margins,
    "pipeline": _pipeline,
    "overhead": _overhead,
    "scaling": _scaling,
}


def cost(results: dict[str, Any], args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """What was measured, as images/s, for each core, and as dollars for a million images at the given prices."""
    gpus = float(args.device == "cuda")  # Every part that has a rate runs on one device at most.
    rates: dict[str, tuple[float, float]] = {}
    if "pipeline" in results:
        rates["whole run, one core"] = results["pipeline"]["images_per_s_one_core"], 1
        if ray := results["pipeline"].get("ray"):
            rates["whole run, Ray"] = ray["images_per_s"], ray["workers"]
    for case in results.get("inpaint", {}).get("cases", []):
        for name, way in case["ways"].items():
            if "one hole" in case["case"]:
                rates[f"one hole: {name}"] = 1 / way["wall_s"], results["inpaint"]["threads"]
    return {
        name: {
            "images_per_s": rate,
            "images_per_s_per_core": rate / cores,
            "usd_per_million": 1e6
            / rate
            / 3600
            * (cores * args.price_core_hour + gpus * args.price_gpu_hour),
        }
        for name, (rate, cores) in rates.items()
    }
