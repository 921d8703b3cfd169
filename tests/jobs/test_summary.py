"""The last lines of a run: the time taken, what is not clean, the next command, and what the exit code means."""

from __future__ import annotations

from cleanplate.jobs.cli.summary import next_steps
from cleanplate.pipeline.engine.carry_out import Outcome
from cleanplate.pipeline.ledger.ledger import Tally


def outcome(done: int, seconds: float, **statuses: int) -> Outcome:
    tally = Tally()
    tally.add(sum(statuses.values()), statuses, {})
    return Outcome(tally, done, seconds)


def test_a_clean_run_names_its_time_and_the_report() -> None:
    assert next_steps(outcome(204, 1560, cleaned=100, unchanged=104), "out put", 0) == [
        "204 rows in 26:00; nothing failed, nothing left",
        "look at it:    cleanplate report 'out put' -o report.html",
    ]


def test_failed_rows_are_counted_and_the_exit_code_explained() -> None:
    lines = next_steps(outcome(20, 61, cleaned=10, failed=7, skipped=2, residual=1), "out", 1)
    assert lines[0] == "20 rows in 1:01; 7 failed, 1 residual, 2 skipped"
    assert lines[2] == "try again:     the same command with --retry-failed"
    assert lines[3].startswith("exit code 1:   complete, with rows that failed")


def test_a_start_with_nothing_to_do_says_so() -> None:
    assert next_steps(outcome(0, 1, unchanged=4), "out", 0)[0].startswith("nothing new to do; ")


def test_skipped_rows_alone_are_no_failure() -> None:
    lines = next_steps(outcome(4, 1, unchanged=3, skipped=1), "out", 0)
    assert lines[0].endswith("1 skipped")
    assert not any("exit code" in line for line in lines)
