"""An image that kills its worker's process costs its own row and four processes, not the run."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from pathlib import Path

from cleanplate.pipeline.engine import ray_data
from cleanplate.pipeline.engine import run as runs
from cleanplate.pipeline.engine.job import stages_of
from cleanplate.pipeline.ui.progress import Progress
from faults.stages import poisoned
from rigs.flow_rig import check_complete, comparable, faces, folder, put_photos, rows_of


def test_an_image_that_kills_its_process_fails_alone(tmp_path: Path, ray_local: None) -> None:
    source = folder(tmp_path / "in")
    files = put_photos(source, 16)
    files["poison.jpg"] = next(iter(files.values()))
    (tmp_path / "in" / "poison.jpg").write_bytes(files["poison.jpg"])
    for name, stages in (("clean", stages_of), ("poison", poisoned)):
        run = runs.start(source, str(tmp_path / name), faces(**{"engine.batch": 4}))
        runs.execute(run, runs.plan_new(run), "ray", lambda receipt: None, stages)
        check_complete(source, str(tmp_path / name), files)
    gauges = ray_data.run_gauges(run.run_id)
    gauges.show(Progress(0, 0, shown="none").state())
    clean, hurt = (comparable(rows_of(str(tmp_path / name))) for name in ("clean", "poison"))
    different = [row for row, other in zip(hurt, clean, strict=True) if row != other]
    assert [(row["source_uri"][-10:], row["status"]) for row in different] == [("poison.jpg", "failed")]
    assert different[0]["error"]["kind"] == "crashed"
    result = metrics_when('cleanplate_errors_total{cause="worker/crashed"}')
    assert result['cleanplate_errors_total{cause="worker/crashed"}'] == 1
    assert result['cleanplate_rows_total{status="failed"}'] >= 1
    assert result['cleanplate_bytes_total{way="read"}'] > 0
    assert result['cleanplate_stage_rows_total{stage="write"}'] > 0
    assert result["cleanplate_unit_seconds_count{}"] > 0
    the_dashboard_draws_what_is_exported()


GPU_ONLY = {"ray_node_gpus_utilization"}
"""Told by nodes with a GPU alone."""


def the_dashboard_draws_what_is_exported() -> None:
    """Every selector of deploy/grafana.json, against a real run's metrics: the name, and the labels it matches by."""
    board = json.loads((Path(__file__).parents[2] / "deploy" / "grafana.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    labels: dict[str, set[str]] = {}
    deadline = time.monotonic() + 60
    while "ray_cleanplate_run_rows{" not in exported() and time.monotonic() < deadline:
        time.sleep(1)  # The driver's own gauges are passed on every few seconds.
    for name, one in re.findall(r"^(\w+)(?:{(.*)})? \S+$", exported(), re.MULTILINE):
        labels.setdefault(name, set()).update(re.findall(r'(\w+)="', one))
    checked = 0
    for query in queries:
        grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", query))))
        for name, matchers in re.findall(r"(ray_\w+){([^}]*)}", query):
            if name not in GPU_ONLY:
                wanted = {*re.findall(r"(\w+)\s*[=!]~?", matchers), *grouped} - {
                    "instance"
                }  # Prometheus' own
                assert wanted <= labels.get(name, set()), (
                    f"{query}: exported is {name}{sorted(labels.get(name, ()))}"
                )
                checked += 1
    assert checked >= len(queries)


def exported() -> str:
    """What Ray's agent gives Prometheus."""
    import ray

    (node,) = ray.nodes()
    with urllib.request.urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=60) as reply:
        return str(reply.read().decode())


def metrics_when(wanted: str) -> dict[str, float]:
    """Our metrics as Ray's agent exports them, summed over workers, once `wanted` is there."""
    deadline = time.monotonic() + 120
    while True:
        text = exported()
        found: dict[str, float] = {}
        for name, labels, value in re.findall(r"^ray_(cleanplate_\w+){(.*)} (\S+)$", text, re.MULTILINE):
            ours = re.findall(r'\b((?:status|cause|way|stage|outcome)="[^"]*")', labels)
            key = f"{name}{{{','.join(ours)}}}"
            found[key] = found.get(key, 0) + float(value)
        if wanted in found:
            return found
        assert time.monotonic() < deadline, sorted(found)
        time.sleep(0.5)
