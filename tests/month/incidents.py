"""What goes wrong in the month: a damaged drop, a killed training, a power cut.

Belongs here: doing it, and holding what follows against what was promised. Does not belong here: what people ask for
(`requests`).
"""

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from resources.ref import Ref
from tests.month.deployment import DATASET, wait_for
from tests.month.month import Month
from tests.month.watch import SENSOR

MALFORMED, KILLED, CUT = "Malformed drop", "Killed training", "Power cut"
LOOKS = 3
"""Sensor ticks after the alert that must not raise another one."""
FREE_SECONDS = 5.0


def alerts(month: Month, kind: str) -> list[dict[str, Any]]:
    """Alerts of one kind, oldest first."""
    path = month.deployment.lake / ".alerts" / "alerts.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [a for a in map(json.loads, lines) if a["kind"] == kind]


def malformed(month: Month, day: date, following: date, ahead: date | None) -> None:
    """The drop of `day` is cut off on its way; the next morning it is delivered again, with that of `following`."""
    ledger = month.ledger
    folder = month.publisher.drop_damaged(day, month.calendar.arrival(day))
    before = _bytes(folder)
    (alert,) = wait_for("an alert", lambda: alerts(month, "malformed_drop"))
    seen = len(month.watch.ticks(SENSOR))
    wait_for(f"{LOOKS} more looks", lambda: len(month.watch.ticks(SENSOR)) >= seen + LOOKS)
    ledger.note(MALFORMED, f"landing/{day}: behaviors.parquet cut to 1,000 bytes; alert: {alert['text']}")
    run_id = month.launched(day)
    month.finish(day, f"{day}, malformed", run_id)
    ledger.check(MALFORMED, "the night did nothing and named the drop", run_id is None, month.why_skipped(day))
    looks = len(month.watch.ticks(SENSOR)) - seen
    told = len(alerts(month, "malformed_drop"))
    ledger.check(MALFORMED, "reported once", told == 1, f"{told} alert in {looks} later looks of the sensor")
    ledger.check(MALFORMED, "left in place, byte for byte", _bytes(folder) == before)
    month.publisher.withdraw(day)
    arrived = f"{month.arrive(day)}, again; {month.arrive(following)}"
    ran = month.night(following, arrived, ahead)
    month.in_order(ran, [day, following], MALFORMED)


def killed(month: Month, day: date, following: date, ahead: date | None) -> None:
    """kill -9 of the process that trains, after its first stored state; the next night goes on from there."""
    ledger, arrived = month.ledger, month.arrive(day)
    run_id = month.launched(day)
    assert run_id is not None
    home = month.deployment.lake / ".cache" / "unfinished"
    states = wait_for("a stored state", lambda: sorted(p.name for p in home.glob("*/0*.json")), every=0.01)
    slot = month.deployment.lake / ".locks" / "slots" / "cpu.0.slot"
    pid = int(slot.read_text())
    os.kill(pid, signal.SIGKILL)
    at = time.monotonic()
    month.deliver(following)
    wait_for("the trainer's slot", lambda: _free(slot), every=0.05)
    freed = time.monotonic() - at
    ran = month.finish(day, arrived, run_id, "training killed (kill -9)")
    failed = time.monotonic() - at
    assert ran is not None
    state = int(states[0].removesuffix(".json"))
    ledger.note(KILLED, f"the trainer of the model as of {day + timedelta(days=1)} died after step {state}")
    ledger.check(KILLED, f"its slot is free within {FREE_SECONDS:.0f} s", freed < FREE_SECONDS, f"{freed:.2f} s")
    ledger.check(KILLED, "its run is a failed one", ran.status == "FAILURE", f"{ran.status} after {failed:.0f} s")
    (alert,) = wait_for("a failure alert", lambda: alerts(month, "failure"))
    ledger.check(KILLED, "one alert", len(alerts(month, "failure")) == 1, alert["text"])
    again = month.night(following, month.arrive(following), ahead)
    month.in_order(again, [day, following], KILLED)
    went_on = [line for line in month.watch.lines_below(again.run_id) if "went on from the state" in line]
    ledger.check(KILLED, "the next try goes on from the stored state", len(went_on) == 1, "; ".join(went_on))
    whole, ours = _undisturbed(month, day + timedelta(days=1))
    ledger.check(KILLED, "its weights are those of an undisturbed training, bit for bit", whole == ours, ours[:12])
    ledger.check(
        KILLED, "no run stays open in Dagster", not month.watch.open_runs(), str(month.watch.open_runs() or "")
    )
    ledger.check(KILLED, "none in MLflow", not _running(month), str(_running(month) or ""))


def power_cut(month: Month, first: date, second: date, ahead: date | None) -> None:
    """Every process is killed in the middle of a night; a drop and a night come before the machine is back."""
    ledger, arrived = month.ledger, month.arrive(first)
    run_id = month.launched(first)
    assert run_id is not None
    wait_for("the night's first run", lambda: month.watch.children(run_id), every=0.2)
    month.deployment.cut_power()
    left = month.watch.open_runs()
    month.deliver(second)
    month.calendar.move(month.calendar.night(second) + timedelta(seconds=1))
    ledger.note(CUT, f"kill -9 of daemon, code server and night at once: {len(left)} runs are left open in Dagster")
    month.deployment.start()
    at = time.monotonic()
    wait_for("the end of what was left open", lambda: not set(left) & set(month.watch.open_runs()))
    ledger.check(CUT, "what was left open is ended", True, f"{time.monotonic() - at:.0f} s after the start")
    month.finish(first, arrived, run_id, "power cut")
    again = month.run_of(second)
    ran = month.finish(second, f"{second}, power cut", again)
    ledger.check(CUT, "the next night runs", ran is not None and ran.status == "SUCCESS")
    if ran is not None:
        month.in_order(ran, [first, second], CUT)
    month.arrive(second)
    ledger.check(CUT, "no run stays open in Dagster", not month.watch.open_runs(), str(month.watch.open_runs() or ""))
    ledger.check(CUT, "none in MLflow", not _running(month), str(_running(month) or ""))
    if ahead is not None:
        month.deliver(ahead)


def _bytes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def _free(slot: Path) -> bool:
    """Whether nobody holds the slot's kernel lock."""
    with slot.open("rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _undisturbed(month: Month, day: date) -> tuple[str, str]:
    """sha256 of the weights of a training alone from the lake's inputs, and of the lake's own checkpoint."""
    out = month.deployment.folder / "undisturbed"
    spec = month.deployment.folder / "spec.json"
    asked = ("spec", "--out", str(out), "--as-of", str(day), "--recipe", "snert_smoke")
    spec.write_text(month.deployment.newsrec(*asked))
    subprocess.run(
        [sys.executable, "-m", "ml.train", str(spec)], env=month.deployment.environment, check=True, stdout=sys.stderr
    )
    (ours,) = (month.deployment.lake / str(Ref(DATASET, "checkpoint", f"{day}.rolling", "snert"))).glob(
        "*/model.safetensors"
    )
    digests = [hashlib.sha256(p.read_bytes()).hexdigest() for p in (out / "model.safetensors", ours)]
    return digests[0], digests[1]


def _running(month: Month) -> list[str]:
    """MLflow runs that are RUNNING."""
    from mlflow import MlflowClient

    client = MlflowClient(month.deployment.environment["MLFLOW_TRACKING_URI"])
    found = client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=5000)
    return [r.info.run_id for r in found if r.info.status == "RUNNING"]
