"""What can be checked of deploy/ without a cloud: schemas, sources, and that our own parser takes the commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from jobs.__main__ import parser

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"


def read(name: str) -> dict[str, Any]:
    body = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    assert isinstance(body, dict)
    return body


def test_the_launcher_file_fits_rays_own_schema() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = read("ray-cluster.yaml")
    validate_config(prepare_config(config))  # with Ray's own defaults filled in, as `ray up` does
    types = config["available_node_types"]
    assert config["head_node_type"] in types
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["gpu-spot"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"


def test_the_ray_job_retries_only_what_a_retry_helps() -> None:
    job = read("kuberay-job.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["backoffLimit"] >= 1
    groups = {g["groupName"]: g for g in spec["rayClusterSpec"]["workerGroupSpecs"]}
    assert groups.keys() == {"gpu-spot", "cpu"}
    for group in groups.values():
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    command = shlex.split(spec["entrypoint"])[2]
    words = shlex.split(command.split(";")[0])
    assert words[0] == "cleanplate"
    assert parser().parse_args(words[1:]).gpus == 1
    assert "[ $code -eq 3 ] && exit 3" in command


def test_the_image_copies_what_exists_and_fetches_what_is_known() -> None:
    from models.weights import known

    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    for sources in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
    (fetched,) = re.findall(r"^RUN cleanplate weights fetch (.+)$", text, re.MULTILINE)
    assert set(fetched.split()) <= set(known())
    assert re.search(r"^USER (?!root)", text, re.MULTILINE)


def test_ray_is_the_same_everywhere() -> None:
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned
    assert read("kuberay-job.yaml")["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1]


def test_the_dashboard_asks_for_metrics_that_exist_by_the_names_they_have() -> None:
    from pipeline.metrics import METRICS

    board = read("grafana.json")  # JSON is YAML.
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries += [variable["definition"] for variable in board["templating"]["list"]]
    exported = {
        f"ray_{m.name}{suffix}": m
        for m in METRICS.values()
        for suffix in (("_total",) if m.kind == "counter" else ("_bucket", "_sum", "_count"))
    }
    asked = {name for query in queries for name in re.findall(r"ray_cleanplate_\w+", query)}
    assert asked <= exported.keys()
    assert {exported[name].name for name in asked} == METRICS.keys(), "every metric is drawn"
    for query in queries:
        tags = {tag for name in re.findall(r"ray_cleanplate_\w+", query) for tag in exported[name].tags}
        for grouped in re.findall(r"by \((\w+)\) \((?:rate\()?ray_cleanplate", query):
            assert grouped in {*tags, "le"}, query
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    places = [tuple(panel["gridPos"].values()) for panel in board["panels"]]
    assert all(x + w <= 24 for x, _, w, _ in places)
