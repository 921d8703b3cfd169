"""What a cluster is doing: its nodes and GPUs, its actors, and the queue before each group of stages.

Asked of the dashboard's own HTTP API (Ray 2.60), through the job server's client, so that a cluster's token
is sent as Ray sends it.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from rich.table import Table
from rich.text import Text

_OURS = re.compile(r"(?:_Group|_in_a_task):([\w+]+)")
"""As `cleanplate.pipeline.engine.ray_data` names its operators; the stages."""


def tables(client: Any) -> list[Table]:
    """client: of `cleanplate.jobs.cluster.client.connect`. Raises RunStopped when the cluster no longer answers."""
    jobs = [job for job in _get(client, "/api/jobs/") if job.get("status") == "RUNNING" and job.get("job_id")]
    datasets = [d for job in jobs for d in _get(client, f"/api/data/datasets/{job['job_id']}")["datasets"]]
    actors = _get(client, "/api/v0/actors?limit=10000")["data"]["result"]["result"]
    nodes = _get(client, "/nodes?view=summary")["data"]["summary"]
    usage = _get(client, "/api/cluster_status")["data"]["clusterStatus"]
    return [nodes_table(nodes, usage), actors_table(actors), queues_table(datasets)]


def _get(client: Any, path: str) -> Any:
    from cleanplate.pipeline.errors import RunStopped

    try:
        reply = client._do_request("GET", path)
    except (ConnectionError, OSError) as error:
        raise RunStopped(f"the cluster does not answer any more: {type(error).__name__}") from error
    if reply.status_code != 200:
        raise RunStopped(f"the cluster refuses {path}: {reply.status_code}")
    return reply.json()


def nodes_table(nodes: list[dict[str, Any]], usage: dict[str, Any]) -> Table:
    """A line for each node that lives, and one for what of the cluster is in use."""
    table = _table("node", "CPU in use", "memory", "GPU in use", "GPU memory", title="nodes")
    living = [node for node in nodes if (node.get("raylet") or {}).get("state", "ALIVE") == "ALIVE"]
    for node in living:
        gpus = node.get("gpus") or []
        busy = [gpu.get("utilizationGpu") or 0 for gpu in gpus]
        memory = [f"{gpu.get('memoryUsed', 0):,} / {gpu.get('memoryTotal', 0):,} MB" for gpu in gpus]
        table.add_row(
            Text(str(node.get("ip") or node.get("hostname") or "?")),
            f"{node.get('cpu', 0):.0f} %",
            f"{node['mem'][2]:.0f} %" if node.get("mem") else "-",
            ", ".join(f"{percent:.0f} %" for percent in busy) or "-",
            ", ".join(memory) or "-",
        )
    taken = (usage.get("loadMetricsReport") or {}).get("usage") or {}
    parts = [f"{taken[name][0]:g} of {taken[name][1]:g} {name}s" for name in ("CPU", "GPU") if name in taken]
    table.caption = f"{len(living)} nodes; taken by workers: {', '.join(parts) or 'unknown'}"
    return table


def actors_table(actors: list[dict[str, Any]]) -> Table:
    """Ours by group of stages, and how many of each live, start again or are dead."""
    table = _table("actors", "alive", "pending", "restarting", "dead", title="actors")
    counts: dict[str, Counter[str]] = {}
    for actor in actors:
        if ours := _OURS.search(str(actor.get("class_name"))):
            counts.setdefault(ours[1], Counter())[str(actor.get("state"))] += 1
    for name, states in sorted(counts.items()):
        pending = states["PENDING_CREATION"] + states["DEPENDENCIES_UNREADY"]
        row = (states["ALIVE"], pending, states["RESTARTING"], states["DEAD"])
        table.add_row(Text(name), *map(str, row))
    return table


def queues_table(datasets: list[dict[str, Any]]) -> Table:
    """The groups of stages of what is running: units done, of how many, and how many wait before each."""
    table = _table("stages", "units done", "of", "waiting", title="queues")
    for dataset in datasets:
        for operator in dataset["operators"] if dataset.get("state") == "RUNNING" else ():
            if ours := _OURS.search(str(operator.get("name"))):
                row = (operator.get("progress"), operator.get("total"), operator.get("queued_blocks"))
                table.add_row(Text(ours[1]), *(f"{value or 0:,}" for value in row))
    return table


def _table(first: str, *others: str, title: str) -> Table:
    table = Table(first, *others, title=title, title_justify="left", caption_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    return table
