"""What the steps of the operation's own jobs have in common.

Belongs here: turning the project's errors into Dagster's, and the settings that come from the environment. Does not
belong here: any job.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from ml.errors import DataError, NewsrecError, UsageError
from resources.bindings import ToolBox, Tools
from resources.running import at_work
from resources.transient import is_transient

RETRIES, WAIT_SECONDS = 2, 60
OPERATED_BY_DEFAULT = "simulated"


@contextmanager
def operating(context: dg.OpExecutionContext, toolbox: ToolBox) -> Iterator[Tools]:
    """The tools for the step of an operation's job, which says that its run is being worked on; failures are plain."""
    with plain_failures():
        tools = toolbox.tools()
        with at_work(tools.lake.root, context.run_id):
            yield tools


@contextmanager
def plain_failures() -> Iterator[None]:
    """One line for an error that carries one; a retry after a transient error; any other error as it is."""
    try:
        yield
    except Exception as error:
        if is_transient(error):
            raise dg.RetryRequested(max_retries=RETRIES, seconds_to_wait=WAIT_SECONDS) from error
        if isinstance(error, NewsrecError):
            kind = {"bad_input": isinstance(error, (DataError, UsageError))}
            raise dg.Failure(description=str(error), metadata=kind, allow_retries=False) from error
        raise


def operated() -> str:
    """The dataset that this deployment runs every night: NEWSREC_DATASET, else `simulated`."""
    return os.environ.get("NEWSREC_DATASET") or OPERATED_BY_DEFAULT


def switched_on(name: str) -> bool:
    """Whether the schedule and the landing sensor of dataset `name` start without a click in the UI: those of the
    operated dataset, with NEWSREC_AUTOPILOT=1. Raises UsageError for another value."""
    said = os.environ.get("NEWSREC_AUTOPILOT") or "0"
    if said not in ("0", "1"):
        raise UsageError(f"NEWSREC_AUTOPILOT={said!r}: write 1 (on) or 0 (off)")
    return said == "1" and name == operated()
