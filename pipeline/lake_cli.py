"""The commands of `newsrec lake`, and `newsrec erase`.

Belongs here: arguments and what is printed. Does not belong here: the work (`resources.disk`, `resources.erasure`);
imports stay inside the commands.
"""

import json
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml.errors import UsageError
from resources.places import existing_lake

if TYPE_CHECKING:
    from resources.disk.collect import Plan

lake_app = typer.Typer(no_args_is_help=True, help="What the lake takes on disk, and what of it can go.")
LakeOption = Annotated[Path | None, typer.Option("--lake", help="root of the lake; default NEWSREC_LAKE")]
JsonOption = Annotated[bool, typer.Option("--json", help="machine-readable result on standard output")]


@lake_app.command()
def usage(lake: LakeOption = None, as_json: JsonOption = False) -> None:
    """Bytes by dataset, stage and state; caches, leftovers and drops beside them."""
    from resources.disk import usage as count

    found = count.usage(existing_lake(lake))
    print(json.dumps(found, indent=1) if as_json else count.render(found))


@lake_app.command()
def gc(
    days: Annotated[float, typer.Option("--keep-days", help="what was replaced less than so long ago stays")] = 14.0,
    versions: Annotated[int, typer.Option("--keep-versions", help="so many replaced versions a partition stay")] = 1,
    caches: Annotated[bool, typer.Option("--caches", help="also what can be made again: cut days, pages")] = False,
    apply: Annotated[bool, typer.Option("--apply", help="remove; without it, only say what would go")] = False,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove versions that no current version, kept or signed report reaches. Says what would go unless --apply."""
    from pipeline.deliveries import asked_by
    from resources.disk.collect import Policy, collect, plan, remove_caches, sweep_bucket
    from resources.lake import Lake

    root, policy, now = existing_lake(lake), Policy(days, versions), datetime.now(UTC)
    store, freed, swept = Lake(root), 0, 0
    if apply:
        with ExitStack() as runs:
            for dataset in store.datasets():
                runs.enter_context(store.alone(dataset, lambda: _say("a run is at work: waiting until it has ended")))
            made = collect(store, policy, now, asked_by())
            swept = sweep_bucket(store)
            freed = remove_caches(store, store.datasets()) if caches else 0
    else:
        made = plan(root, policy, now)
    answer = {**_told(made, apply, freed), "bucket_leftovers": swept}
    print(json.dumps(answer, indent=1) if as_json else _render(answer))


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _told(made: "Plan", applied: bool, freed: int) -> dict[str, Any]:
    return {
        "applied": applied,
        "versions": [{"ref": str(v.ref), "version": v.name, "bytes": v.bytes} for v in made.victims],
        **{"bytes": made.bytes, "reached": made.reached, "retained": made.retained, "caches": freed},
        **{"left": made.left, "refusal": made.refusal},
    }


def _render(answer: dict[str, Any]) -> str:
    from resources.disk.usage import shown

    verb = "removed" if answer["applied"] else "would go"
    lines = [f"{verb}  {v['ref']}  {v['version']}  {shown(v['bytes'])}" for v in answer["versions"]]
    lines += [f"damaged, left alone  {line}" for line in answer["left"]]
    lines += [f"refused: {answer['refusal']}"] if answer["refusal"] else []
    lines += [f"caches removed: {shown(answer['caches'])}"] if answer["caches"] else []
    swept = answer["bucket_leftovers"]
    lines += [f"leftovers of killed uploads removed from the bucket: {swept} objects"] if swept else []
    lines.append(
        f"{len(answer['versions'])} versions, {shown(answer['bytes'])} {verb}; {answer['reached']} are reached, "
        f"{answer['retained']} kept by the policy"
    )
    return "\n".join(lines if answer["applied"] else [*lines, "nothing was removed: add --apply"])


@lake_app.command()
def sync(
    verify: Annotated[
        bool, typer.Option("--verify", help="compare every byte, and repair one side from the other")
    ] = False,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Bring the lake's folder and its bucket (NEWSREC_BUCKET) to the same state."""
    from resources.bucket.care import repair
    from resources.lake import Lake

    store = Lake(existing_lake(lake))
    if store.mirror is None:
        raise UsageError(f"{store.root} has no bucket: set NEWSREC_BUCKET=s3://BUCKET/PREFIX")
    repaired: list[str] = []
    lost: list[str] = []
    if verify:
        with store.publishing():
            repaired, lost = repair(store.mirror)
    held = len(store.mirror.memory.units())
    if as_json:
        print(json.dumps({"bucket": store.mirror.store.address, "units": held, "repaired": repaired, "lost": lost}))
    else:
        print("\n".join([*repaired, *lost, f"{store.root} and {store.mirror.store.address} agree on {held} units"]))
    return 1 if lost else 0


@lake_app.command()
def keep(
    version: Annotated[str, typer.Argument(metavar="REF#VERSION", help="such as DATASET/STAGE/[MODEL/]DAY#VERSION")],
    why: Annotated[str, typer.Option("--why", help="the reason, for the record")] = "",
    release: Annotated[bool, typer.Option("--release", help="take the mark away again")] = False,
    lake: LakeOption = None,
) -> None:
    """Mark a version, for example of a report: it stays with all that it was made from."""
    from pipeline.deliveries import asked_by
    from resources.disk.reach import KEPT
    from resources.disk.reach import keep as mark
    from resources.lake import Lake
    from resources.ref import Ref

    name, _, folder = version.partition("#")
    root, ref = existing_lake(lake), Ref.parse(name)
    if release:
        path = root / str(ref) / f"{folder}{KEPT}"
        if "/" in folder or not path.is_file():
            raise UsageError(f"{version} is not marked: `newsrec lake gc` says what is kept")
        with Lake(root).changing(str(ref)):
            path.unlink()
        print(f"released: {version}")
    else:
        print(f"kept: {mark(root, ref, folder, why, asked_by(), datetime.now(UTC).isoformat(timespec='seconds'))}")


def erase(
    dataset: Annotated[str, typer.Option("--dataset", envvar="NEWSREC_DATASET")] = "simulated",
    user: Annotated[int | None, typer.Option("--user", help="reader id", min=0, max=2**63 - 1)] = None,
    why: Annotated[str, typer.Option("--why", help="the reason, for the record; no personal data")] = "",
    request: Annotated[str, typer.Option("--request", help="name of the request; default: day and letters")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="finish requests that were interrupted; no --user")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be erased; change nothing")] = False,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase a reader: rewrite what holds their rows, leave tombstones, keep them out from now on."""
    from pipeline.deliveries import asked_by
    from resources.erasure import erase as erasing
    from resources.lake import Lake
    from resources.own_logs import learn

    if (user is None) != resume or (resume and dry_run):
        raise UsageError("give --user ID (with --dry-run to look first), or --resume alone")
    root, now = existing_lake(lake), datetime.now(UTC)
    store, name = Lake(root), learn(dataset, None, root).name
    if user is None:
        answers = erasing.resume(store, name, asked_by(), now, _say)
    elif dry_run:
        answers = [erasing.look(store, name, user)]
    else:
        answers = [erasing.erase(store, name, user, why, asked_by(), now, _say, request)]
    if as_json:
        print(json.dumps(answers if resume else answers[0], indent=1))
    else:
        print("\n".join(_erased(a) for a in answers) or "no request is unfinished")


def _erased(answer: dict[str, Any]) -> str:
    """For the terminal. The reader's id is not repeated."""
    lines = [f"{stage}: {n} rows" for stage, n in answer["rows"].items() if n]
    lines += [f"kept drops and corrections: {answer['kept_file_rows']} rows"] if answer["kept_file_rows"] else []
    lines += [f"model had seen the reader: {m['ref']}#{m['version']}" for m in answer["models"]]
    for stage, found in answer["unverifiable"].items():
        lines.append(f"rests on erased versions, cannot be replayed: {stage}: {', '.join(found[-3:])} ({len(found)})")
    lines += [f"note  {line}" for line in answer["left"]]
    verb = "would be" if answer["dry_run"] else "were"
    counts = f"{len(answer['rewritten'])} partitions {verb} rewritten, {len(answer['erased'])} versions {verb} erased"
    if answer["dry_run"]:
        return "\n".join([*lines, f"{counts}; nothing was changed"])
    return "\n".join([*lines, f"{counts}: request {answer['request']} of {answer['at'][:10]}"])
