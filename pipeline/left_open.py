"""Runs that Dagster believes to be running and that nobody works on any more.

Belongs here: ending them, with their pool slots. Does not belong here: how it is known (`resources.running`).

Left as they are they would take the places of the run queue one by one until nothing is launched, keep their pools'
slots, and make every night skip because "the night before is still at work".
"""

from collections.abc import Callable
from pathlib import Path

import dagster as dg

from resources import running

GONE = "the process that worked on this run is gone: it was killed, or its machine went down; what was published stays"


def close_left_open(instance: dg.DagsterInstance, lake: Path, say: Callable[[str], None] = lambda _: None) -> list[str]:
    """End the runs whose process left them open, as failed ones; their ids. Runs that this Dagster does not know are
    left to the one that does."""
    closed = []
    for run_id in running.left(lake):
        run = instance.get_run_by_id(run_id)
        if run is None:
            continue
        if not run.is_finished:
            instance.report_run_failed(run, GONE)
            say(f"run {run_id[:8]} ({run.job_name}) is ended as failed: its process is gone")
            closed.append(run_id)
        instance.event_log_storage.free_concurrency_slots_for_run(run_id)
        running.forget(lake, run_id)
    return closed
