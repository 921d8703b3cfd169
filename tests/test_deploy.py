"""What can be checked of deploy/ without a cloud: schemas, sources, and that our own parser takes the commands."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from cleanplate.jobs.cli.app import parser
from cleanplate.jobs.commands import weights
from cleanplate.pipeline.engine.metrics import METRICS, RUN_METRICS

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


def ray_job() -> dict[str, Any]:
    documents = list(yaml.safe_load_all((DEPLOY / "kuberay-job.yaml").read_text(encoding="utf-8")))
    (job,) = [one for one in documents if one["kind"] == "RayJob"]
    assert isinstance(job, dict)
    return job


def pods(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The pods' specs by what they are."""
    cluster = job["spec"]["rayClusterSpec"]
    found = {"submitter": job["spec"]["submitterPodTemplate"], "head": cluster["headGroupSpec"]["template"]}
    found |= {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    return {name: template["spec"] for name, template in found.items()}


def through_the_shells(entrypoint: str, folder: Path, code: int) -> int:
    """The exit code of an entrypoint as KubeRay runs it: its submitter's bash gives words to `ray job submit`, which
    joins them as for Windows; the head's shell runs that. `cleanplate` is a program here that ends with `code`."""
    stub = folder / "cleanplate"
    end = f"kill -{code - 128} $$" if code > 128 else f"exit {code}"
    stub.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\n{end}\n')
    stub.chmod(0o755)
    path = {"PATH": f"{folder}:/usr/bin:/bin"}
    split = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {entrypoint}"], env=path, capture_output=True, text=True, check=True
    )
    joined = subprocess.list2cmdline(split.stdout.rstrip("\0").split("\0"))
    return subprocess.run(joined, shell=True, env=path, check=False).returncode


@pytest.mark.parametrize("code", [0, 1, 2, 3, 126, 127, 134, 137, 143, 255])
def test_only_a_success_is_a_success_of_the_ray_job(code: int, tmp_path: Path) -> None:
    assert (through_the_shells(ray_job()["spec"]["entrypoint"], tmp_path, code) == 0) == (code == 0)
    assert (tmp_path / "calls").read_text().startswith("run s3://bucket/raw s3://bucket/clean ")


def test_a_line_with_variables_would_call_everything_a_success(tmp_path: Path) -> None:
    """Why the entrypoint is one plain command: the outer shell replaces what the inner one should read."""
    line = "sh -c 'cleanplate run a b; code=$?; [ $code -eq 3 ] && exit 3; exit 0'"
    assert through_the_shells(line, tmp_path, 3) == 0


def test_the_ray_job_retries_by_a_command_that_resumes() -> None:
    spec = ray_job()["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["backoffLimit"] >= 1
    assert "activeDeadlineSeconds" not in spec, "a run of days is not to be ended in the middle"
    groups = {g["groupName"]: g for g in spec["rayClusterSpec"]["workerGroupSpecs"]}
    assert groups.keys() == {"gpu-spot", "cpu"}
    for group in groups.values():
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    words = shlex.split(spec["entrypoint"])
    assert words[0] == "cleanplate"
    args = parser().parse_args(words[1:])
    assert (args.gpus, args.failed_exit_code, args.address) == (1, 0, "auto")


def test_the_ray_jobs_pods_meet_the_restricted_standard() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/: what the API server would refuse."""
    job = ray_job()
    for name, pod in pods(job).items():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 1000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["restartPolicy"] == "Never", "autoscaler v2 does not use a pod twice"
        (container,) = pod["containers"]
        contexts = [container["securityContext"]]
        contexts.append(job["spec"]["rayClusterSpec"]["autoscalerOptions"]["securityContext"])
        for context in contexts:
            assert context == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_the_cluster_has_a_token_an_account_and_room_to_spill() -> None:
    job = ray_job()
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["autoscalerOptions"]["version"] == "v2"
    documents = yaml.safe_load_all((DEPLOY / "kuberay-job.yaml").read_text(encoding="utf-8"))
    accounts = {one["metadata"]["name"] for one in documents if one["kind"] == "ServiceAccount"}
    for name, pod in pods(job).items():
        if name == "submitter":
            continue
        assert pod["serviceAccountName"] in accounts
        (container,) = pod["containers"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        (volume,) = [v for v in pod["volumes"] if v["name"] == mounts["/tmp/ray"]]
        size = int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi"))
        assert size < int(container["resources"]["requests"]["ephemeral-storage"].removesuffix("Gi"))
        gpu = "nvidia.com/gpu" in container["resources"]["limits"]
        assert container["image"].endswith("-gpu" if gpu else "-cpu")
        keys = {toleration["key"] for toleration in pod.get("tolerations", ())}
        assert ("nvidia.com/gpu" in keys) == gpu
    assert "eks.amazonaws.com/capacityType" in pods(job)["gpu-spot"]["nodeSelector"]


def _fields(required: tuple[str, ...] = (), **kinds: Any) -> dict[str, Any]:
    """A JSON schema of an object that has these fields and no others."""
    fields = {name: kind if isinstance(kind, dict) else {"type": kind} for name, kind in kinds.items()}
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_COUNT = {"type": "integer", "minimum": 0}
_QUANTITIES = {
    "type": "object",
    "additionalProperties": {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"},
}
_NAMED = {"type": "array", "items": {"type": "object", "required": ["name"]}}
_CONTAINER_SECURITY = _fields(
    allowPrivilegeEscalation="boolean", capabilities=_fields(drop={"type": "array"}), runAsNonRoot="boolean"
)
_POD_SECURITY = _fields(
    **{"runAsNonRoot": "boolean", "runAsUser": _COUNT, "runAsGroup": _COUNT, "fsGroup": _COUNT},
    seccompProfile=_fields(("type",), type={"enum": ["RuntimeDefault", "Localhost", "Unconfined"]}),
)
_CONTAINER = _fields(
    ("name", "image", "resources"),
    name="string",
    image="string",
    securityContext=_CONTAINER_SECURITY,
    env=_NAMED,
    ports=_NAMED,
    volumeMounts=_NAMED,
    resources=_fields(("limits", "requests"), limits=_QUANTITIES, requests=_QUANTITIES),
)
_POD = _fields(
    ("spec",),
    metadata="object",
    spec=_fields(
        ("containers",),
        serviceAccountName="string",
        securityContext=_POD_SECURITY,
        restartPolicy={"enum": ["Always", "OnFailure", "Never"]},
        imagePullSecrets=_NAMED,
        volumes=_NAMED,
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
    **{"rayVersion": "string", "enableInTreeAutoscaling": "boolean"},
    authOptions=_fields(("mode",), mode={"enum": ["disabled", "token"]}, secretName="string"),
    autoscalerOptions=_fields(
        **{"idleTimeoutSeconds": _COUNT, "securityContext": _CONTAINER_SECURITY, "env": _NAMED},
        version={"enum": ["v1", "v2"]},
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        resources=_fields(limits=_QUANTITIES, requests=_QUANTITIES),
    ),
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

    job = ray_job()
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
    head = ray_job()["spec"]["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"


def test_the_image_has_what_kuberays_probes_call() -> None:
    assert re.search(r"apt-get install .*\bwget\b", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"))


def test_the_image_holds_every_weight_of_the_default_recipe(tmp_path: Path) -> None:
    """The line as it stands, with its argument's default, through our own parser."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    (words,) = re.findall(r'^ARG WEIGHTS="(.+)"$', text, re.MULTILINE)
    (line,) = re.findall(r"^RUN cleanplate (weights fetch \$\{WEIGHTS\})$", text, re.MULTILINE)
    args = parser().parse_args(shlex.split(line.replace("${WEIGHTS}", words)))
    assert args.recipes == ["default"]
    assert {"text-det", "text-rec", "text-det-v4", "centerface"} <= set(weights._needed("default"))


def test_the_image_copies_what_exists_and_runs_as_a_number() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for sources in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
            assert source == "." or any(fnmatch(source, pattern) for pattern in kept), source
    for pattern in kept:
        assert list(ROOT.glob(pattern)) or pattern == "cleanplate", pattern
    for name in re.findall(r"constraints[\w-]*\.txt", text):
        assert (ROOT / name).exists()
    assert re.search(r"^ARG BASE=\S+\nFROM \$\{BASE\}$", text, re.MULTILINE)
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE) == ["1000"]
    # Layers that survive a change of the code come before it.
    assert (
        text.index("--requirement requirements.txt") < text.index("COPY . .") < text.index("ARG CODE_VERSION")
    )


@pytest.mark.parametrize("name", ["constraints-cpu.txt", "constraints-gpu.txt"])
def test_the_constraints_of_both_builds_name_the_same_torch(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "\n-c constraints.txt\n" in text
    assert set(re.findall(r"^torch==([\d.]+)", text, re.MULTILINE)) == {"2.13.0"}
    assert ("+cpu" in text) == (name == "constraints-cpu.txt")
    assert not re.search(r"^torch==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)


def test_ray_is_the_same_everywhere() -> None:
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned
    assert ray_job()["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1]


EXPORTED = {
    f"ray_{m.name}{suffix}": m
    for m in (METRICS | RUN_METRICS).values()
    for suffix in {"counter": ("_total",), "gauge": ("",)}.get(m.kind, ("_bucket", "_sum", "_count"))
}


def check_queries(queries: list[str]) -> set[str]:
    """Each metric and tag that is asked for exists; returns our metrics' names."""
    asked = {name for query in queries for name in re.findall(r"ray_cleanplate_\w+", query)}
    assert asked <= EXPORTED.keys()
    for query in queries:
        tags = {tag for name in re.findall(r"ray_cleanplate_\w+", query) for tag in EXPORTED[name].tags}
        for grouped in re.findall(r"by \((\w+)\) \((?:\w+\()?ray_cleanplate", query):
            assert grouped in {*tags, "le", "SessionName"}, query
    return {EXPORTED[name].name for name in asked}


def test_the_dashboard_asks_for_metrics_that_exist_by_the_names_they_have() -> None:
    board = read("grafana.json")  # JSON is YAML.
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries += [variable["definition"] for variable in board["templating"]["list"]]
    assert check_queries(queries) == METRICS.keys() | RUN_METRICS.keys(), "every metric is drawn"
    assert [variable["name"] for variable in board["templating"]["list"]] == ["session", "run"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    places = [tuple(panel["gridPos"].values()) for panel in board["panels"]]
    assert all(x + w <= 24 for x, _, w, _ in places)


def test_no_panel_shows_a_raw_sum_of_what_workers_count() -> None:
    """A worker's series ends with it, and a sum of such series falls."""
    for panel in read("grafana.json")["panels"]:
        for target in panel["targets"]:
            raw = re.findall(r"(\w*)\(?(ray_cleanplate_\w+_(?:total|sum|count|bucket))", target["expr"])
            assert all(function in ("rate", "max_over_time") for function, _ in raw), target["expr"]


def test_the_alerts_ask_for_what_exists() -> None:
    rules = [rule for group in read("alerts.yaml")["groups"] for rule in group["rules"]]
    assert [rule["alert"] for rule in rules] == ["CleanplateRunStalled", "CleanplateRowsFail"]
    check_queries([rule["expr"] for rule in rules])
    if promtool := shutil.which("promtool"):
        subprocess.run([promtool, "check", "rules", DEPLOY / "alerts.yaml"], check=True, capture_output=True)
