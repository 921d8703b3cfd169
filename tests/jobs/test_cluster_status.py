"""The tables of `status --address`, made of what Ray 2.60's dashboard answered (cut to what is read)."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from cleanplate.jobs.cluster import status

ANSWERS: dict[str, Any] = {
    "/api/jobs/": [
        {"type": "DRIVER", "job_id": "01000000", "submission_id": None, "status": "RUNNING"},
        {"type": "SUBMISSION", "job_id": None, "submission_id": "raysubmit_x", "status": "PENDING"},
        {"type": "DRIVER", "job_id": "02000000", "submission_id": None, "status": "SUCCEEDED"},
    ],
    "/api/data/datasets/01000000": {
        "datasets": [
            {
                "state": "RUNNING",
                "operators": [
                    {"name": "Input", "progress": 900, "total": 900, "queued_blocks": 0},
                    {
                        "name": "MapBatches(_in_a_task:read)",
                        "progress": 800,
                        "total": 900,
                        "queued_blocks": 12,
                    },
                    {
                        "name": "MapBatches(_Group:detect+verify)",
                        "progress": 701,
                        "total": 900,
                        "queued_blocks": 34,
                    },
                ],
            },
            {
                "state": "FINISHED",
                "operators": [{"name": "MapBatches(_Group:detect)", "progress": 5, "total": 5}],
            },
        ]
    },
    "/api/v0/actors?limit=10000": {
        "data": {
            "result": {
                "result": [
                    {"class_name": "MapWorker(MapBatches(_Group:detect+verify))", "state": "ALIVE"},
                    {"class_name": "MapWorker(MapBatches(_Group:detect+verify))", "state": "ALIVE"},
                    {"class_name": "MapWorker(MapBatches(_Group:detect+verify))", "state": "RESTARTING"},
                    {"class_name": "_StatsActor", "state": "ALIVE"},
                ]
            }
        }
    },
    "/nodes?view=summary": {
        "data": {
            "summary": [
                {
                    "ip": "10.0.0.7",
                    "cpu": 83.4,
                    "mem": [100, 50, 61.5, 50],
                    "raylet": {"state": "ALIVE"},
                    "gpus": [{"utilizationGpu": 97, "memoryUsed": 11000, "memoryTotal": 24000}],
                },
                {"ip": "10.0.0.8", "cpu": 0, "mem": [1, 1, 1, 1], "raylet": {"state": "DEAD"}},
            ]
        }
    },
    "/api/cluster_status": {
        "data": {"clusterStatus": {"loadMetricsReport": {"usage": {"CPU": [5.0, 8.0], "GPU": [1.0, 1.0]}}}}
    },
}


class Answering:
    """A client whose cluster gives ANSWERS."""

    def _do_request(self, method: str, path: str) -> Any:
        assert method == "GET"
        return type("Reply", (), {"status_code": 200, "json": lambda self: ANSWERS[path]})()


def test_nodes_actors_and_queues_are_shown() -> None:
    console = Console(width=120, record=True, quiet=False, file=None)
    with console.capture() as shown:
        for table in status.tables(Answering()):
            console.print(table)
    text = shown.get()
    lines = [line.replace("│", " ").split() for line in text.splitlines()]
    assert ["10.0.0.7", "83", "%", "62", "%", "97", "%", "11,000", "/", "24,000", "MB"] in lines
    assert "10.0.0.8" not in text, "a dead node"
    assert "1 nodes; taken by workers: 5 of 8 CPUs, 1 of 1 GPUs" in text
    assert ["detect+verify", "2", "0", "1", "0"] in lines
    assert ["detect+verify", "701", "900", "34"] in lines
    assert ["read", "800", "900", "12"] in lines
    assert "_StatsActor" not in text
