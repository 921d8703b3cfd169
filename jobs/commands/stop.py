"""cleanplate stop JOB_ID: stop a submitted job. What is committed stays; the same submission goes on."""

from __future__ import annotations

import argparse
import time

PATIENCE_S = 60.0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from cleanplate.jobs.cluster.client import add_address

    parser = subparsers.add_parser(
        "stop",
        help="stop a submitted job",
        description=__doc__,
        epilog="Example: cleanplate stop raysubmit_Xe7cvjyGJCyuCvm2 --address http://head:8265",
    )
    parser.add_argument("job", metavar="JOB_ID", help="as `cleanplate submit` printed it")
    add_address(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when the job has ended. Raises ConfigError for a job that is not there, RunStopped for one that goes on."""
    from cleanplate.jobs.cluster.client import connect
    from cleanplate.pipeline.errors import ConfigError, RunStopped

    client = connect(args.address)
    try:
        client.stop_job(args.job)
    except RuntimeError as error:
        raise ConfigError(f"no job {args.job} at {args.address}") from error
    deadline = time.monotonic() + PATIENCE_S
    while (status := str(client.get_job_status(args.job))) not in ("SUCCEEDED", "FAILED", "STOPPED"):
        if time.monotonic() > deadline:
            raise RunStopped(f"the job {args.job} is still {status}; ask again, or look at {args.address}")
        time.sleep(0.5)
    if status == "STOPPED":
        print(f"{args.job}: stopped. What is committed stays; the same submission resumes")
    else:
        print(f"{args.job}: had ended before, as {status.lower()}")
    return 0
