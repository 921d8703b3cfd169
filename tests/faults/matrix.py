"""The fault matrix: every scenario on a bench, judged, as a table."""

from __future__ import annotations

import dataclasses
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.table import Table

from faults.bench import Bench, Engine, Verdict
from faults.scenarios import SCENARIOS, Scenario
from rigs.faultproxy import FaultProxy
from rigs.rayrig import RayRig
from rigs.s3server import Bucket, S3Server, aws_environment

CPUS = 3
"""Of a node: each is a process that Ray starts before it is needed."""
# Ray takes about 16 s to notice a dead node; the small matrix does not wait so long.
QUICK = {"health_check_period_ms": 500, "health_check_timeout_ms": 500, "health_check_initial_delay_ms": 1000}


@dataclass(frozen=True)
class Outcome:
    """error: why the fault could not be done or the command did not recover, else empty. lost_s: the time from
    the first start to the last end, less that of the run without faults."""

    engine: Engine
    scenario: Scenario
    starts: int
    lost_s: float
    verdict: Verdict | None
    summary: str
    error: str = ""

    @property
    def good(self) -> bool:
        return self.verdict is not None and self.verdict.good

    @property
    def line(self) -> str:
        """While the matrix goes on; all that is known where something is wrong."""
        result = (
            f"ok, {self.lost_s:.1f} s lost; {self.summary}"
            if self.good
            else f"WRONG: {self.error or self.verdict}"
        )
        return f"{self.scenario.name}: {result}"


def chosen(engine: Engine, only: tuple[str, ...] = (), leave: tuple[str, ...] = ()) -> list[Scenario]:
    """What is to be done, those that need nodes of their own last."""
    some = [
        s for s in SCENARIOS if engine in s.engines and (not only or s.name in only) and s.name not in leave
    ]
    return sorted(some, key=lambda scenario: scenario.settings is not None)


def carry_out(bench: Bench, scenario: Scenario) -> Outcome:
    name, before = scenario.name, len(bench.starts)
    output = str(bench.folder / f"{bench.engine}-{name}") if scenario.local else bench.output(name)
    begun = time.monotonic()
    try:
        result = scenario.do(bench, output)
    except AssertionError as error:
        return Outcome(bench.engine, scenario, len(bench.starts) - before, 0, None, "", str(error))
    finally:
        for start in bench.starts[before:]:
            if start.process.is_alive():  # What hangs or goes on must not meet the next fault.
                start.kill()
    lost = time.monotonic() - begun - bench.plain_s
    verdict = bench.compare(output, scenario.expected)
    return Outcome(bench.engine, scenario, len(bench.starts) - before, lost, verdict, result)


def table(outcomes: list[Outcome], images: int) -> Table:
    result = Table(title=f"{images} images", title_justify="left")
    for column in (
        "fault",
        "engine",
        "starts",
        "rows",
        "missing",
        "twice",
        "different",
        "time lost",
        "summary",
    ):
        result.add_column(column, justify="left" if column in ("fault", "engine", "summary") else "right")
    for o in outcomes:
        v = o.verdict
        counts = (v.rows, v.lost, v.extra, len(v.different)) if v else ("-",) * 4
        style = "" if o.good else "red"
        lost = f"{o.lost_s:.1f} s" if v else "-"
        wrong = (v.different[0] if v and v.different else o.error).splitlines() or [""]
        outcome = o.summary if o.good else wrong[0][:80]
        result.add_row(
            o.scenario.about, o.engine, str(o.starts), *map(str, counts), lost, outcome, style=style
        )
    return result


@contextmanager
def benches(
    engines: tuple[Engine, ...],
    images: int,
    rows: int,
    seed: int,
    quick: bool,
    settings: dict[str, str] | None = None,
) -> Iterator[list[Bench]]:
    """Everything that the matrix needs, for the length of a `with`: server, proxy, bucket, cluster.
    quick: lost nodes are noticed early. settings: of Ray's nodes, in their environment."""
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir="/tmp"))
    server = S3Server(folder / "s3")
    server.start()
    proxy = FaultProxy(server.ports[0])
    proxy.start()
    rig = RayRig(proxy)
    bucket = Bucket(server, server.endpoint, f"faults-{uuid.uuid4().hex[:8]}")
    server.client().create_bucket(Bucket=bucket.bucket)
    items = [Bench(e, server, proxy, bucket, folder, rows) for e in engines]
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in aws_environment(server.endpoint).items():
                patch.setenv(name, value)
            items[0].fill(images, seed)
            if "ray" not in engines:
                yield items
                return
            with rig.nodes(CPUS, QUICK if quick else {}, settings) as cluster:
                yield [
                    dataclasses.replace(b, cluster=cluster, add_node=lambda: rig.add_node(cluster, CPUS))
                    for b in items
                ]
    finally:
        rig.remove_folder()
        proxy.stop()
        server.kill()
