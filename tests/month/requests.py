"""What people ask for in the month: a correction of an old day, the erasure of a reader; and what the rule decides
about challengers.

Belongs here: asking by the command line, and holding what follows against what was promised. Does not belong here:
faults (`incidents`).
"""

import json
from datetime import date, timedelta
from typing import Any

from resources.ref import Ref
from tests.month.deployment import DATASET, Missed
from tests.month.lake import Snapshot, by_stage, tells_of
from tests.month.month import Month

CORRECTION, ERASURE, PROMOTION = "Correction of an old day", "Erasure", "Promotion"
Json = dict[str, Any]


def correction(month: Month, old: date, missing: date, following: date, ahead: date | None) -> None:
    """`old` is corrected; the drop of `missing` is late, so that night has the correction alone; then it goes on."""
    ledger, lake = month.ledger, month.deployment.lake
    newest = missing - timedelta(days=1)
    folder, rows = month.publisher.corrected(old, month.deployment.folder / "corrected")
    before = Snapshot.of(lake)
    expected = before.downstream(Ref(DATASET, "raw_parquet", str(old)))
    month.deployment.newsrec("correct", "--day", str(old), "--from", str(folder), "--why", "a robot's clicks")
    ledger.note(CORRECTION, f"after the night of {newest}: {old} without the {rows} rows of its busiest reader")
    plan = _plan(month, old, newest)
    stale = {Ref.parse(p["partition"]) for p in plan["partitions"] if p["state"] != "fresh"}
    planned = {Ref.parse(p["partition"]) for p in plan["partitions"]}
    ledger.note(CORRECTION, f"downstream by the ledgers' inputs: {len(expected)}: {by_stage(expected)}")
    ledger.check(
        CORRECTION, "stale are all of these, and nothing else", stale == expected & planned, f"{len(stale)} of the plan"
    )
    ran = month.night(missing, f"correction of {old}; the drop of {missing} is late")
    month.in_order(ran, [newest], CORRECTION)
    _bring_up_to_date(month, old, newest)
    made = Snapshot.of(lake).published_since(before)
    ledger.check(
        CORRECTION,
        "recomputed is nothing else",
        made <= expected,
        f"{len(made)}: {by_stage(made)} {_others(made - expected)}",
    )
    left = [p["partition"] for p in _plan(month, old, newest)["partitions"] if p["state"] != "fresh"]
    ledger.check(CORRECTION, "nothing of the reports is stale any more", not left, ", ".join(left[:3]))
    aside = expected - planned - made
    ledger.note(CORRECTION, f"left as they were, records of what was decided then: {by_stage(aside)}")
    ran = month.night(following, f"{month.arrive(missing)}, late; {month.arrive(following)}", ahead)
    month.in_order(ran, [missing, following], CORRECTION)


def erasure(month: Month, day: date, user: int, following: date, ahead: date | None) -> None:
    """A reader who came on `day` asks for erasure after that night; the next night and a backfill make it anew."""
    ledger, lake = month.ledger, month.deployment.lake
    held = len(tells_of(lake, user))
    before = Snapshot.of(lake)
    found: Json = month.deployment.asked("erase", "--user", str(user), "--why", "a letter")
    about = found["request"]
    rewritten = {Ref.parse(r) for r in found["rewritten"]}
    ledger.note(ERASURE, f"after the night of {day}, request {about}: {held} files told of the reader")
    ledger.note(ERASURE, f"rewritten: {len(rewritten)}: {by_stage(rewritten)}; {len(found['erased'])} versions erased")
    seen = ", ".join(m["ref"].split("/", 2)[2] for m in found["models"]) or "none"
    ledger.note(ERASURE, f"models that had seen the reader: {seen}")
    ledger.check(ERASURE, "no file of the lake tells of the reader", not tells_of(lake, user))
    _said_erased(month, found)
    ran = month.night(following, month.arrive(following))
    month.in_order(ran, [following], ERASURE)
    _bring_up_to_date(month, day, following)
    made = Snapshot.of(lake).published_since(before) - rewritten
    ledger.note(ERASURE, f"made anew or new that night: {len(made)}: {by_stage(made)}")
    left = [p["partition"] for p in _plan(month, day, following)["partitions"] if p["state"] != "fresh"]
    ledger.check(ERASURE, "nothing of the reports is stale any more", not left, ", ".join(left[:3]))
    ledger.check(ERASURE, "the reader did not come back with the next drop", not tells_of(lake, user))
    if ahead is not None:
        month.deliver(ahead)


def _said_erased(month: Month, found: Json) -> None:
    """The reports that rest on erased versions: whole by `audit verify`, which says what is gone and why."""
    for report in found["unverifiable"].get("evaluation_report", []):
        ref, _, version = report.partition("#")
        day = ref.split("/")[-1].split(".")[0]
        answer: Json = month.deployment.asked("audit", "verify", "--as-of", day, "--version", version, code=None)
        gone = answer["erased"]
        said = {f"erased on {e['at']} by request {e['request']}" for e in gone}
        month.ledger.check(
            ERASURE,
            f"audit verify of the report of {day} breaks nowhere",
            answer["ok"] and bool(gone) and all(e["request"] == found["request"] for e in gone),
            f"{len(gone)} versions {', '.join(said)}",
        )


def decisions(month: Month) -> None:
    """What the rule decided about each night's challenger, and that a refusal changed nothing."""
    told: Json = month.deployment.asked("champion")
    acts = told["acts"]
    refused = [a for a in acts if a["action"] == "refuse"]
    promoted = [a for a in acts if a["action"] == "promote"]
    month.ledger.note(PROMOTION, f"{len(acts)} challengers weighed, {len(promoted)} promoted, {len(refused)} refused")
    for act in promoted:
        month.ledger.note(PROMOTION, f"promoted {_day(act)}: {act['why']}")
    month.ledger.check(
        PROMOTION, "at least one was refused, with its reason", bool(refused) and all(a["why"] for a in refused)
    )
    if refused:
        month.ledger.note(PROMOTION, f"refused {_day(refused[0])}: {refused[0]['why']}")
    reigning = promoted[-1]["manifest"] if promoted else None
    month.ledger.check(
        PROMOTION,
        "the champion is the last that was promoted",
        told["champion"]["manifest"] == reigning,
        _day(promoted[-1]),
    )
    for act in refused[:1]:
        version = _registered(month, act["manifest"])
        month.ledger.check(PROMOTION, "MLflow's registry says so, too", version.get("newsrec.refused") == act["why"])


def _registered(month: Month, manifest: str) -> dict[str, str]:
    """Tags of the registry's version of a checkpoint."""
    from mlflow import MlflowClient

    client = MlflowClient(month.deployment.environment["MLFLOW_TRACKING_URI"])
    versions = client.search_model_versions(f"name = 'newsrec.{DATASET}.snert.rolling'", max_results=500)
    return next((dict(v.tags) for v in versions if v.tags.get("newsrec.manifest") == manifest), {})


def _day(act: Json) -> str:
    return f"the model as of {act['ref'].split('/')[-1].split('.')[0]}"


def _plan(month: Month, first: date, last: date) -> Json:
    """The program's own plan of the reports of a period."""
    found: Json = month.deployment.asked("backfill", "--periods", f"{first}..{last}", "--dry-run")
    return found


def _bring_up_to_date(month: Month, first: date, last: date) -> None:
    """As docs/operations.md says: older reports that a change touches, through the daemon."""
    asked = ("backfill", "--periods", f"{first}..{last}", "--only-stale", "--wait")
    found: Json = month.deployment.asked(*asked, code=None)
    if found["lacking"]:
        raise Missed(f"newsrec {' '.join(asked)}: {json.dumps(found['lacking'])[:400]}")


def _others(refs: set[Ref]) -> str:
    return f"(but also {', '.join(map(str, sorted(refs, key=str)[:3]))})" if refs else ""
