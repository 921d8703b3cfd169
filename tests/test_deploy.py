"""What can be checked of deploy/ without a cloud: schemas, sources, and that our own parser takes the commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from cleanplate.jobs.cli.app import parser

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


def _fields(required: tuple[str, ...] = (), **kinds: Any) -> dict[str, Any]:
    """A JSON schema of an object that has these fields and no others."""
    made = {name: kind if isinstance(kind, dict) else {"type": kind} for name, kind in kinds.items()}
    return {"type": "object", "properties": made, "required": list(required), "additionalProperties": False}


_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_COUNT = {"type": "integer", "minimum": 0}
_QUANTITIES = {
    "type": "object",
    "additionalProperties": {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"},
}
_CONTAINER = _fields(
    ("name", "image", "resources"),
    name="string",
    image="string",
    resources=_fields(("limits", "requests"), limits=_QUANTITIES, requests=_QUANTITIES),
)
_POD = _fields(
    ("spec",),
    metadata="object",
    spec=_fields(
        ("containers",),
        serviceAccountName="string",
        nodeSelector=_TEXTS,
        tolerations="array",
        containers={"type": "array", "minItems": 1, "items": _CONTAINER},
    ),
)
_WORKERS = _fields(
    ("groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"),
    **{"groupName": "string", "replicas": _COUNT, "minReplicas": _COUNT, "maxReplicas": _COUNT},
    **{"numOfHosts": _COUNT, "rayStartParams": _TEXTS, "template": _POD},
)
_CLUSTER = _fields(
    ("headGroupSpec",),
    **{"rayVersion": "string", "enableInTreeAutoscaling": "boolean", "autoscalerOptions": "object"},
    headGroupSpec=_fields(("rayStartParams", "template"), rayStartParams=_TEXTS, template=_POD),
    workerGroupSpecs={"type": "array", "items": _WORKERS},
)
RAY_JOB = _fields(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=_fields(("name",), name="string", namespace="string", labels=_TEXTS),
    spec=_fields(
        ("entrypoint", "rayClusterSpec"),
        entrypoint="string",
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        **{"backoffLimit": _COUNT, "ttlSecondsAfterFinished": _COUNT},
        activeDeadlineSeconds={"type": "integer", "minimum": 1},
        **{"shutdownAfterJobFinishes": "boolean", "suspend": "boolean", "runtimeEnvYAML": "string"},
        **{"submitterConfig": "object", "submitterPodTemplate": _POD, "rayClusterSpec": _CLUSTER},
    ),
)
"""What of KubeRay's ray.io/v1 (ray-operator/apis/ray/v1/*_types.go) and of Kubernetes' pods the file may use: a
misspelt field would be refused by the API server, or pruned without a word."""


def test_the_ray_job_fits_kuberays_types() -> None:
    import jsonschema

    job = read("kuberay-job.yaml")
    jsonschema.validate(job, RAY_JOB)
    misspelt = {**job, "spec": {**job["spec"], "backOffLimit": 5}}
    with pytest.raises(jsonschema.ValidationError, match="backOffLimit"):
        jsonschema.validate(misspelt, RAY_JOB)
    cluster = job["spec"]["rayClusterSpec"]
    names = [
        container_of(group)["name"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    ]
    assert names == ["ray-head", "ray-worker", "ray-worker"]
    for group in cluster["workerGroupSpecs"]:
        resources = container_of(group)["resources"]
        # Ray counts a node's CPUs and GPUs by the limits; Kubernetes takes only equal numbers of GPUs.
        assert resources["limits"] == resources["requests"], group["groupName"]


def container_of(group: dict[str, Any]) -> dict[str, Any]:
    (container,) = group["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def test_a_head_without_work_holds_no_cpus() -> None:
    head = read("kuberay-job.yaml")["spec"]["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"


def test_the_image_has_what_kuberays_probes_call() -> None:
    assert re.search(r"apt-get install .*\bwget\b", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"))


def test_the_image_copies_what_exists_and_fetches_what_is_known() -> None:
    from cleanplate.models.weights.registry import known

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
    from cleanplate.pipeline.engine.metrics import METRICS

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
