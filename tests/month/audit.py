"""The audit at the end: every number of every report, counted here and held against `audit verify` and `replay`.

Belongs here: counting and comparing the program's answers. Does not belong here: any check of its own.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from resources.lineage.metric import ADDRESSED, REPORT, REPORT_FILE, numbers
from resources.ref import Ref
from tests.month.deployment import Deployment
from tests.month.lake import Snapshot
from tests.month.ledger import Ledger

AUDIT = "Audit"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Report:
    """One version of a report that lies in the lake, and how many numbers it has."""

    ref: Ref
    version: str
    current: bool
    numbers: int


def reports(snapshot: Snapshot) -> Iterator[Report]:
    """Every version of every report, read from the lake."""
    for ref, partition in sorted(snapshot.partitions.items(), key=lambda item: str(item[0])):
        for name, kept in partition.versions.items() if ref.stage == REPORT else ():
            report = json.loads((kept.path / REPORT_FILE).read_text())
            yield Report(ref, name, kept.digest == partition.current, len(numbers(report, ADDRESSED)))


def audit(deployment: Deployment, ledger: Ledger) -> None:
    """Verify and replay everything; enters the totals."""
    found = list(reports(Snapshot.of(deployment.lake)))
    current, old = ([r for r in found if r.current is want] for want in (True, False))
    verified = _verified(deployment, ledger)
    replayed: Json = deployment.asked("audit", "replay", "--all", code=None)
    same = {r["report"]: r["identical"] for r in replayed["reports"]}
    total = sum(r.numbers for r in current)
    agree = sum(verified.get((str(r.ref), r.version), {}).get("agree", 0) for r in current)
    identical = sum(same.get(str(r.ref), 0) for r in current)
    told = [f"{r['report']}: {r['error'] or r['differ'][:1]}" for r in replayed["reports"] if r["error"] or r["differ"]]
    bytes_too = sum(s["same"] is True for r in replayed["reports"] for s in r["stages"])
    stages = sum(len(r["stages"]) for r in replayed["reports"])
    ledger.check(AUDIT, "every number of every current report replays", identical == total, "; ".join(told[:3]))
    ledger.check(AUDIT, "so does every byte of their evaluations", bytes_too == stages, f"{stages} partitions")
    ledger.check(AUDIT, "and every one of these numbers verifies", agree == total)
    _superseded(deployment, ledger, old, verified)
    reconciled: Json = deployment.asked("audit", "reconcile", code=None)
    counts = reconciled["counts"]
    ledger.check(
        AUDIT,
        "audit reconcile: report, evaluation, MLflow and Dagster say the same",
        reconciled["ok"],
        f"{counts['figures']} figures, {counts['in_mlflow']} in MLflow, {counts['in_dagster']} in Dagster",
    )
    failed = total - min(agree, identical)
    ledger.note(
        AUDIT,
        f"**{len(current)} reports, {total:,} numbers: {agree:,} verified, {identical:,} replayed, {failed:,} failed**",
    )


def _verified(deployment: Deployment, ledger: Ledger) -> dict[tuple[str, str], Json]:
    """What `audit verify --all` says of the numbers of each version of a report."""
    answer: Json = deployment.asked("audit", "verify", "--all", "--data-root", str(deployment.log), code=None)
    broken = [f"{f['ref']}: {f['message']}" for f in answer["findings"] if f["broken"]]
    counts = ", ".join(f"{n} {state}" for state, n in answer["counts"].items() if n)
    ledger.check(
        AUDIT,
        "audit verify --all, with source files, MLflow and Dagster",
        answer["ok"],
        "; ".join(broken[:3]) or f"{answer['nodes']} versions ({counts}), {answer['files']} files hashed",
    )
    return {(r["ref"], r["version"]): r for r in answer["reports"]}


def _superseded(
    deployment: Deployment, ledger: Ledger, old: list[Report], verified: dict[tuple[str, str], Json]
) -> None:
    """Versions that newer ones replaced: they verify, and replay unless what they stand on was erased."""
    total, agree, gone, again, refused = sum(r.numbers for r in old), 0, 0, 0, 0
    for report in old:
        said = verified.get((str(report.ref), report.version), {})
        agree, gone = agree + said.get("agree", 0), gone + said.get("erased", 0)
        day = report.ref.partition.split(".")[0]
        answer: Json = deployment.asked("audit", "replay", "--as-of", day, "--version", report.version, code=None)
        (one,) = answer["reports"]
        again += one["identical"]
        refused += report.numbers if "was erased" in one["error"] else 0
    ledger.check(
        AUDIT,
        f"{len(old)} superseded reports, {total:,} numbers: verified or of erased evaluations",
        agree + gone == total,
        f"{agree:,} and {gone:,}",
    )
    ledger.check(
        AUDIT,
        "replayed, or refused since they stand on erased rows",
        again + refused == total,
        f"{again:,} and {refused:,}",
    )
