"""make faults: every fault of the matrix, done to a real run, judged by what is committed.

    python -m faults [--images 120] [--rows 8] [--seed 0] [--engine ray|here] [--only driver-killed ...]

Each fault: start the real command, do the fault, start the same command again where it ended, and compare: every
input in one committed row, its bytes and columns equal to those of a run without faults. Prints a table with the
time lost; exit code 1 when a row is missing, twice or different. Lives beside the tests (it needs their S3 server,
fault proxy and Ray), which run it at a small size (tests/flow/test_faults.py).
"""

from __future__ import annotations

import argparse
import os
import sys
import uuid

from rich.console import Console


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--rows", type=int, default=8, help="of a unit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("here", "ray"), help="default: both")
    parser.add_argument("--only", nargs="+", default=(), metavar="FAULT")
    parser.add_argument("--list", action="store_true", help="the faults' names")
    parser.add_argument(
        "--quick", action="store_true", help="let Ray notice a dead node in 3 s instead of 16"
    )
    args = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", uuid.uuid4().hex * 2)
    from faults import matrix
    from faults.bench import Bench
    from faults.scenarios import Scenario

    if unknown := set(args.only) - {scenario.name for scenario in matrix.SCENARIOS}:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; --list names them")
    if args.list:
        for scenario in matrix.SCENARIOS:
            print(f"{scenario.name:24} {'+'.join(scenario.engines):9} {scenario.about}")
        return 0
    console = Console(width=None if sys.stdout.isatty() else 160)
    engines = (args.engine,) if args.engine else ("here", "ray")
    outcomes: list[matrix.Outcome] = []

    def do(bench: Bench, scenarios: list[Scenario]) -> None:
        bench.measure()
        console.print(f"{bench.engine}: {bench.plain_s:.1f} s without faults", highlight=False)
        for scenario in scenarios:
            outcomes.append(outcome := matrix.carry_out(bench, scenario))
            console.print(f"  {outcome.line}", markup=False, highlight=False)

    sized = (args.images, args.rows, args.seed, args.quick)
    todo = {e: matrix.chosen(e, tuple(args.only)) for e in engines}
    usual = {e: some for e, all_ in todo.items() if (some := [s for s in all_ if s.settings is None])}
    if usual:
        with matrix.benches(tuple(usual), *sized) as benches:
            for bench in benches:
                do(bench, usual[bench.engine])
    for engine, scenarios in todo.items():
        for scenario in scenarios:
            if scenario.settings is not None:
                with matrix.benches((engine,), *sized, scenario.settings()) as (bench,):
                    do(bench, [scenario])
    console.print(matrix.table(outcomes, args.images))
    return 0 if all(outcome.good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
