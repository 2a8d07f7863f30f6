"""An asset backfill handed to Dagster's daemon, and watched until it ends.

Belongs here: launching through Dagster's GraphQL interface, waiting, what the daemon says of it. Does not belong here:
what is asked for and whether it came to be (`pipeline.backfill_plan`): the lake decides that, not a status.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import dagster as dg

from ml.errors import NewsrecError
from resources.places import REPOSITORY

TAG = "newsrec/backfill"
POLL_SECONDS = 2.0
MUTATION = """
mutation Launch($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
    ... on UnauthorizedError { message }
    ... on InvalidSubsetError { message }
  }
}
"""


class BackfillFailed(NewsrecError):
    """The daemon's side of a backfill went wrong; the message says what to do."""


def active(instance: dg.DagsterInstance, name: str) -> str | None:
    """The id of the backfill called `name` that the daemon still works on, None where there is none."""
    from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus

    statuses = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]
    under_way = BulkActionsFilter(statuses=statuses, tags={TAG: name})
    found = instance.get_backfills(filters=under_way)
    return found[0].backfill_id if found else None


def daemon_is_alive(instance: dg.DagsterInstance) -> bool:
    """Whether a daemon that carries out backfills beats in this DAGSTER_HOME."""
    status = instance.get_daemon_statuses().get("BACKFILL")
    return bool(status and status.healthy)


def launch(by_asset: Mapping[tuple[str, ...], Sequence[str]], name: str, title: str, asked_by: str) -> str:
    """Asks for exactly these partitions of these assets; the backfill's id. Raises BackfillFailed."""
    selected = [
        {
            "assetKey": {"path": list(path)},
            "partitions": {"ranges": [{"start": a, "end": b} for a, b in _ranges(days)]},
        }
        for path, days in by_asset.items()
    ]
    tags = [{"key": TAG, "value": name}, {"key": "newsrec/asked_by", "value": asked_by}]
    answer = _graphql({"params": {"partitionsByAssets": selected, "title": title, "tags": tags}})
    result = answer.get("data", {}).get("launchPartitionBackfill", {}) if answer.get("data") else {}
    if result.get("__typename") != "LaunchBackfillSuccess":
        said = result.get("message") or json.dumps(answer.get("errors") or answer)[:400]
        raise BackfillFailed(f"Dagster refused the backfill: {said.strip().splitlines()[0]}")
    return str(result["backfillId"])


def _graphql(variables: Mapping[str, Any]) -> dict[str, Any]:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        "from dagster_graphql.cli import main; main()",
        "-w",
        str(REPOSITORY / "workspace.yaml"),
    ]
    done = subprocess.run(
        [*command, "-t", MUTATION, "-v", json.dumps(variables)],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env={**os.environ, "DAGSTER_DISABLE_TELEMETRY": "1"},
    )
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("{"):
            return dict(json.loads(line))
    last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
    raise BackfillFailed(f"dagster-graphql ended with code {done.returncode}: {last}")


def _ranges(days: Sequence[str]) -> list[tuple[str, str]]:
    """Sorted days as runs of consecutive days."""
    found: list[tuple[str, str]] = []
    for day in sorted(days):
        if found and date.fromisoformat(found[-1][1]) + timedelta(days=1) == date.fromisoformat(day):
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found


def target(instance: dg.DagsterInstance, backfill_id: str) -> set[tuple[tuple[str, ...], str]] | None:
    """(asset path, partition) that Dagster took the backfill to be; None where it does not say."""
    backfill = instance.get_backfill(backfill_id)
    data = backfill.asset_backfill_data if backfill is not None else None
    if data is None:
        return None
    return {(tuple(p.asset_key.path), str(p.partition_key)) for p in data.target_subset.iterate_asset_partitions()}


def wait(instance: dg.DagsterInstance, backfill_id: str, say: Callable[[str], None]) -> str:
    """Waits until the daemon says that the backfill ended; its last status. Tells of every run that ends, and of a
    daemon that went silent. Raises BackfillFailed for a backfill that is gone."""
    told: set[str] = set()
    alive = True
    while True:
        backfill = instance.get_backfill(backfill_id)
        if backfill is None:
            raise BackfillFailed(f"backfill {backfill_id} is gone from Dagster's storage: run the command again")
        _tell_runs(instance, backfill_id, told, say)
        if backfill.status.name in ("COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"):
            return str(backfill.status.name)
        if alive != daemon_is_alive(instance):
            alive = not alive
            say("the daemon beats again" if alive else "the daemon is silent: the backfill goes on when it is back")
        time.sleep(POLL_SECONDS)


def _tell_runs(instance: dg.DagsterInstance, backfill_id: str, told: set[str], say: Callable[[str], None]) -> None:
    for run in instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill_id})):
        if run.is_finished and run.run_id not in told:
            told.add(run.run_id)
            names = Counter(k.path[1] for k in run.asset_selection or ())
            assets = ", ".join(f"{n} x {name}" if n > 1 else name for name, n in sorted(names.items()))
            say(f"{run.tags.get('dagster/partition', '')}: {run.status.name.lower()}: {assets} (run {run.run_id[:8]})")
