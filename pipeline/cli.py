"""The `newsrec` command.

Belongs here: arguments, exit codes and what is printed. Does not belong here: the work itself; heavy imports stay
inside the commands so that `--help` answers at once.

Exit codes: 0 done, 1 failed, 2 bad usage or bad input, 130 interrupted. With `--json` the result is
one JSON document on standard output; everything else goes to standard error.
"""

import atexit
import errno
import json
import logging
import os
import sys
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ml.errors import DataError, NewsrecError, UsageError
from ml.seeds import MOST_SEED
from pipeline.audit.cli import audit
from pipeline.bench import bench
from pipeline.days import parse_day
from pipeline.lake_cli import erase, lake_app

if TYPE_CHECKING:
    import pyarrow as pa

    from resources.bindings import RunSettings, ToolBox

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(audit, name="audit")
app.add_typer(lake_app, name="lake")
app.command()(bench)
app.command()(erase)


def _path(text: str) -> Path:
    """A path given on the command line; an empty one, as of a variable that is not set, would be the working folder."""
    if not text:
        raise typer.BadParameter("it is empty: name a folder ('.' is the one you are in)")
    return Path(text)


DatasetOption = Annotated[
    str,
    typer.Option(
        "--dataset", help="simulated, ebnerd, globo, mind, or own: what log.toml names", envvar="NEWSREC_DATASET"
    ),
]
RootOption = Annotated[
    Path | None,
    typer.Option("--data-root", metavar="DIR", parser=_path, help="folder of the log; default: as configured"),
]
DayOption = Annotated[str | None, typer.Option("--as-of", metavar="DAY", help="YYYY-MM-DD")]
SplitOption = Annotated[str, typer.Option("--split", help="rolling, thesis or lag_K")]
ProfileOption = Annotated[
    str | None, typer.Option("--profile", help="test cases: quick (10,000), full (100,000) or smoke (200)")
]
RecipeOption = Annotated[str | None, typer.Option("--recipe", help="snert_quick, snert_thesis or snert_smoke")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, max=MOST_SEED, help="of all that is drawn at random")]
JsonOption = Annotated[bool, typer.Option("--json", help="machine-readable result on standard output")]


DISK_ERRORS = {errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG}
NO_PLACE = {errno.ENOTDIR, errno.ENOENT}
INTERRUPTED = 130
"""Exit code after Ctrl-C; typer returns it too."""


def say(line: str) -> None:
    """One line of progress on standard error."""
    print(line, file=sys.stderr, flush=True)


def show(text: str) -> None:
    """What the lake says, on standard output: only printable characters stand for themselves."""
    from ml.strangers import lines_escaped

    print(lines_escaped(text))


def _day(text: str | None) -> date | None:
    return None if text is None else parse_day(text)


def _toolbox(name: str, root: Path | None, device: str = "auto") -> "ToolBox":
    from resources.bindings import ToolBox

    return ToolBox(dataset=name if root else "", data_root=str(root.resolve()) if root else "", device=device)


def _dataset(name: str, root: Path | None) -> str:
    """The dataset's own name, once it is known to this process."""
    from resources.lake import Lake
    from resources.own_logs import learn
    from resources.places import lake_root

    if root is not None and not root.is_dir():
        raise UsageError(f"--data-root {root}: {'a file, not a folder' if root.exists() else 'no such folder'}")
    Lake(lake_root()).catch_up()
    return learn(name, root, lake_root()).name


def _settings(split: str, models: str | None = None, **given: Any) -> "RunSettings":
    from resources.bindings import run_settings

    return run_settings(split, models, **given)


@app.command()
def run(
    dataset: DatasetOption = "simulated",
    data_root: RootOption = None,
    as_of: DayOption = None,
    split: SplitOption = "rolling",
    models: Annotated[str | None, typer.Option(help="comma-separated names; default: all")] = None,
    profile: ProfileOption = None,
    recipe: RecipeOption = None,
    seed: SeedOption = 1,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    inview: Annotated[
        str, typer.Option(help="synthesise in-view lists for a click-only log: popularity or uniform")
    ] = "",
    inview_length: Annotated[int | None, typer.Option(help="articles in a synthesised list; default: 10")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="say what would run and why; run nothing")] = False,
    as_json: JsonOption = False,
) -> None:
    """Materialise what the evaluation as of a day needs; skip what is unchanged."""
    from ml.datasets import dataset as known_dataset
    from pipeline.deliveries import take_arrivals
    from pipeline.plan import make_plan
    from pipeline.run import as_of_day, execute, report_goals

    dataset = _dataset(dataset, data_root)
    toolbox = _toolbox(dataset, data_root, device)
    if inview_length is not None and not inview:
        raise UsageError("--inview-length goes with --inview popularity or uniform")
    lists = {"inview": inview} | ({"inview_length": inview_length} if inview_length is not None else {})
    settings = _settings(split, models, profile=profile, recipe=recipe, seed=seed, **lists)
    known = known_dataset(dataset)
    take_arrivals(toolbox.tools().source, known, say)
    settings.inview_of(known)
    if device == "cuda":
        _ = toolbox.tools().device.name  # refuses a device that is not there before any work
    day = as_of_day(known, settings, toolbox, _day(as_of))
    goals = report_goals(day, settings)
    if explain:
        _explain(make_plan(known, settings, toolbox.tools(), goals), as_json)
        return
    outcome = execute(known, settings, toolbox, goals, say)
    say(f"{known.name} as of {day}, split {split}: {outcome.ran} partitions ran, {outcome.fresh} were fresh")
    _print_report(_report(toolbox, settings, dataset, day), as_json)


def _explain(plan: Any, as_json: bool) -> None:
    rows = [{"partition": str(n.ref), "state": n.state, "why": n.why} for n in plan.nodes]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    width = max(len(row["partition"]) for row in rows)
    for row in rows:
        print(f"{row['state']:8}{row['partition']:{width}}  {row['why']}")
    print(f"{len(plan.pending)} of {len(rows)} partitions would run or be checked again")


def _report(toolbox: "ToolBox", settings: "RunSettings", dataset: str, day: date) -> Path:
    from assets.graph import BY_NAME
    from ml.datasets import dataset as known_dataset

    ref = BY_NAME["evaluation_report"].ref(known_dataset(dataset), day, settings, None)
    version = toolbox.tools().lake.current(ref)
    if version is None:
        raise UsageError(f"no report of {dataset} as of {day}, split {settings.split}: run `{ref.command}`")
    return version.path


def _print_report(folder: Path, as_json: bool) -> None:
    from ml.measured import read_report
    from ml.report_tables import text_table
    from ml.strangers import reading

    path = folder / "report.json"
    report = read_report(path)
    if as_json:
        print(json.dumps(report, indent=1))
        return
    with reading(path):
        show(text_table(report))
    show(f"page: {folder / 'report.html'}")


@app.command()
def backfill(
    dataset: DatasetOption = "simulated",
    data_root: RootOption = None,
    periods: Annotated[str | None, typer.Option("--periods", metavar="DAY..DAY", help="as-of days")] = None,
    weeks: Annotated[
        str | None, typer.Option("--weeks", metavar="WEEK..WEEK", help="ISO weeks, such as 2023-W20..2023-W21")
    ] = None,
    only_missing: Annotated[bool, typer.Option("--only-missing", help="leave out what is stale")] = False,
    only_stale: Annotated[bool, typer.Option("--only-stale", help="leave out what was never made")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="stay until the daemon is done, then compare")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print day x asset and the cost; run nothing")] = False,
    as_json: JsonOption = False,
) -> int:
    """Materialise a period through Dagster's daemon. Run again after an interruption: it goes on."""
    from pipeline import backfill as backfills

    if only_missing and only_stale:
        raise UsageError("--only-missing and --only-stale leave nothing: give one of them")
    dataset = _dataset(dataset, data_root)
    which: backfills.Which = "missing" if only_missing else "stale" if only_stale else "all"
    period = backfills.parse_period(periods, weeks)
    request = backfills.Request(dataset, _toolbox(dataset, data_root), period, which)
    return backfills.carry_out(request, wait, dry_run, as_json, say)


@app.command()
def analyse(
    dataset: DatasetOption = "simulated",
    data_root: RootOption = None,
    first: Annotated[str | None, typer.Option("--from", metavar="DAY", help="first day; default: of the log")] = None,
    last: Annotated[
        str | None, typer.Option("--to", metavar="DAY", help="last day, included; default: of the log")
    ] = None,
    weeks: Annotated[
        bool, typer.Option("--weeks", help="each whole week of these days, counted from the last")
    ] = False,
    explain: Annotated[bool, typer.Option("--explain", help="say what would run and why; run nothing")] = False,
    as_json: JsonOption = False,
) -> None:
    """Describe the log: lifecycles, inequality, categories, growth, readers, freshness; skip what is unchanged."""
    from assets.graph import BY_NAME
    from ml.analysis.page import text_table
    from ml.datasets import dataset as known_dataset
    from ml.strangers import read_object, reading
    from pipeline import analyse as spans
    from pipeline.plan import make_plan
    from pipeline.run import execute

    dataset = _dataset(dataset, data_root)
    toolbox, known = _toolbox(dataset, data_root), known_dataset(dataset)
    tools = toolbox.tools()
    whole = spans.span(known, tools.source.days(known), _day(first), _day(last))
    chosen = spans.weeks(whole) if weeks else [whole]
    settings = _settings("rolling", span_days=chosen[0].days)
    goals = [goal for span in chosen for goal in span.goal]
    if explain:
        _explain(make_plan(known, settings, tools, goals), as_json)
        return
    outcome = execute(known, settings, toolbox, goals, say)
    say(f"{known.name}, {whole.first} to {whole.last}: {outcome.ran} partitions ran, {outcome.fresh} were fresh")
    stage = BY_NAME["dataset_analysis"]
    folders = [tools.lake.require(stage.ref(known, day, settings, None)).path for _, day, _ in goals]
    reports = [read_object(folder / "analysis.json") for folder in folders]
    if as_json:
        print(json.dumps(reports, indent=1))
        return
    with reading(folders[0] / "analysis.json"):
        show(text_table(reports))
    for folder in folders:
        show(f"page: {folder / 'analysis.html'}")


@app.command()
def metrics(
    dataset: DatasetOption = "simulated",
    as_of: DayOption = None,
    split: SplitOption = "rolling",
    model: Annotated[str | None, typer.Option(help="only this model")] = None,
    segments: Annotated[str | None, typer.Option(help="by segment: readers, device, hour, ...; --json has all")] = None,
    as_json: JsonOption = False,
) -> None:
    """The numbers of the newest report, or of the one as of a day."""
    from ml.measured import read_report
    from ml.strangers import reading

    dataset = _dataset(dataset, None)
    toolbox = _toolbox(dataset, None)
    settings = _settings(split)
    day = _day(as_of) or _newest(toolbox, dataset, "evaluation_report", split)
    folder = _report(toolbox, settings, dataset, day)
    report = read_report(folder / "report.json")
    if model is not None:
        if model not in report["models"]:
            raise UsageError(f"no model {model!r} in this report: it has {', '.join(sorted(report['models']))}")
        report["models"] = {model: report["models"][model]}
    if as_json:
        print(json.dumps(report, indent=1))
        return
    from ml.report_tables import text_table
    from ml.segment_tables import segment_text

    with reading(folder / "report.json"):
        show(text_table(report) if segments is None else segment_text(report, segments))


def _newest(toolbox: "ToolBox", dataset: str, stage: str, split: str, model: str | None = None) -> date:
    partitions = toolbox.tools().lake.partitions(dataset, stage, model)
    days = sorted(p.split(".")[0] for p in partitions if p.endswith(f".{split}"))
    if not days:
        command = f"newsrec run --dataset {dataset} --split {split}"
        raise UsageError(f"no {stage} of {dataset} with split {split} yet: run `{command}`")
    return date.fromisoformat(days[-1])


@app.command()
def spec(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", parser=_path, help="folder that the training will write")
    ],
    dataset: DatasetOption = "simulated",
    as_of: DayOption = None,
    split: SplitOption = "rolling",
    model: Annotated[str, typer.Option(help="a model that is trained")] = "snert",
    recipe: Annotated[str | None, typer.Option("--recipe", help="a recipe by name")] = None,
    seed: SeedOption = 1,
) -> None:
    """Print a training's specification from the lake, for `python -m ml.train SPEC.json`."""
    from pipeline.spec import spec_json

    dataset = _dataset(dataset, None)
    toolbox = _toolbox(dataset, None)
    day = _day(as_of) or _newest(toolbox, dataset, "session_splits", split)
    settings = _settings(split, recipe=recipe, seed=seed)
    print(spec_json(toolbox.tools(), settings, dataset, day, model, out))


@app.command()
def recommend(
    user: Annotated[int, typer.Option("--user", help="reader id", min=0, max=2**63 - 1)],
    dataset: DatasetOption = "simulated",
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="ISO time, UTC unless it says otherwise")
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, max=1000)] = 20,
    model: Annotated[str, typer.Option(help="a model of the registry")] = "snert",
    split: SplitOption = "rolling",
    session: Annotated[
        int | None,
        typer.Option("--session", help="the source's session of the request; default: 30-minute rule", min=0),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="history, age and clicks beside each article")] = False,
    as_json: JsonOption = False,
) -> None:
    """A list for one reader from the champion, or else the newest checkpoint, as of a time."""
    from pipeline.recommend import recommend_for, render

    dataset = _dataset(dataset, None)
    toolbox = _toolbox(dataset, None)
    answer = recommend_for(toolbox.tools(), _settings(split), dataset, model, user, at, k, session)
    show(json.dumps(answer, indent=1) if as_json else render(answer, explain))


ModelOption = Annotated[str, typer.Option("--model", help="a model that trains")]
WhyOption = Annotated[str, typer.Option("--why", help="the reason, for the record")]


@app.command()
def challenge(
    dataset: DatasetOption = "simulated",
    data_root: RootOption = None,
    as_of: DayOption = None,
    model: ModelOption = "snert",
    split: SplitOption = "rolling",
    profile: ProfileOption = None,
    recipe: RecipeOption = None,
    seed: SeedOption = 1,
    margin_recall: Annotated[float, typer.Option(min=0, help="loss of RQ1 Recall@20 that is tolerated")] = 0.01,
    margin_auc: Annotated[float, typer.Option(min=0, help="loss of RQ2 AUC that is tolerated")] = 0.01,
    margin_coverage: Annotated[float, typer.Option(min=0, help="loss of RQ3 coverage that is tolerated")] = 0.01,
    latency_budget_ms: Annotated[float, typer.Option(min=0.001, help="of the slowest 5 % of lists")] = 250.0,
    as_json: JsonOption = False,
) -> None:
    """Weigh the checkpoint of a day against the champion; it takes its place if the rule allows."""
    from ml.datasets import dataset as known_dataset
    from pipeline import promotion
    from pipeline.deliveries import asked_by
    from pipeline.run import as_of_day

    dataset = _dataset(dataset, data_root)
    toolbox, known = _toolbox(dataset, data_root), known_dataset(dataset)
    rules = {"margin_recall": margin_recall, "margin_auc": margin_auc, "margin_coverage": margin_coverage}
    rules |= {"latency_budget_ms": latency_budget_ms}
    settings = _settings(split, model, profile=profile, recipe=recipe, seed=seed, **rules)
    day = as_of_day(known, settings, toolbox, _day(as_of))
    decision = promotion.challenge(known, settings, toolbox, day, model, asked_by(), say)
    show(json.dumps(decision, indent=1) if as_json else promotion.render_decision(decision))


@app.command()
def promote(
    why: WhyOption,
    dataset: DatasetOption = "simulated",
    as_of: DayOption = None,
    model: ModelOption = "snert",
    split: SplitOption = "rolling",
) -> None:
    """Make the checkpoint of a day (default: the newest) champion by hand."""
    from pipeline import promotion
    from pipeline.deliveries import asked_by

    dataset = _dataset(dataset, None)
    tools = _toolbox(dataset, None).tools()
    act, behind = promotion.promote(tools, dataset, model, split, _day(as_of), asked_by(), why)
    say(f"{act.subject.ref} is champion, by {act.who}: {act.why}")
    if behind:
        say(behind)


@app.command()
def rollback(
    why: WhyOption, dataset: DatasetOption = "simulated", model: ModelOption = "snert", split: SplitOption = "rolling"
) -> None:
    """Bring the champion before the present one back."""
    from pipeline import promotion
    from pipeline.deliveries import asked_by

    dataset = _dataset(dataset, None)
    act, behind = promotion.rollback(_toolbox(dataset, None).tools(), dataset, model, split, asked_by(), why)
    say(f"{act.subject.ref} is champion again, by {act.who}: {act.why}")
    if behind:
        say(behind)


@app.command()
def champion(
    dataset: DatasetOption = "simulated",
    model: ModelOption = "snert",
    split: SplitOption = "rolling",
    as_json: JsonOption = False,
) -> None:
    """Who is champion, and every promotion, refusal and rollback with who and why."""
    from pipeline import promotion

    dataset = _dataset(dataset, None)
    found = promotion.status(_toolbox(dataset, None).tools(), dataset, model, split)
    show(json.dumps(found, indent=1) if as_json else promotion.render_status(found))


@app.command()
def decay(
    dataset: DatasetOption = "simulated",
    data_root: RootOption = None,
    as_of: DayOption = None,
    model: ModelOption = "snert",
    days: Annotated[int, typer.Option("--days", min=1, max=60, help="test it up to so many days later")] = 7,
    profile: ProfileOption = None,
    recipe: RecipeOption = None,
    seed: SeedOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Test the checkpoint of a day (default: the oldest in the lake) on later days, without training it again."""
    from ml.datasets import dataset as known_dataset
    from pipeline import over_time

    dataset = _dataset(dataset, data_root)
    toolbox, known = _toolbox(dataset, data_root), known_dataset(dataset)
    settings = _settings("rolling", model, profile=profile, recipe=recipe, seed=seed, decay_days=days)
    _print_page(over_time.decay(known, settings, toolbox, _day(as_of), model, say), as_json)


@app.command()
def drift(
    dataset: DatasetOption = "simulated",
    data_root: RootOption = None,
    as_of: DayOption = None,
    as_json: JsonOption = False,
) -> None:
    """How the days up to a day (default: all of the log) differ: skew, categories, turnover, PSI, metrics."""
    from ml.datasets import dataset as known_dataset
    from pipeline import over_time

    dataset = _dataset(dataset, data_root)
    toolbox, known = _toolbox(dataset, data_root), known_dataset(dataset)
    _print_page(over_time.drift(known, _settings("rolling"), toolbox, _day(as_of), say), as_json)


def _print_page(found: "tuple[dict[str, Any], str, Path]", as_json: bool) -> None:
    report, text, page = found
    show(json.dumps(report, indent=1) if as_json else f"{text}\npage: {page}")


@app.command()
def validate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", parser=_path, help="folder of the log")],
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="whose contract; default: as the folder looks")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Check a log against its dataset's contract; nothing is written. Exit 0: clean, 2: breaches."""
    from pipeline.validate import report_on
    from pipeline.validate_text import render

    if not folder.is_dir():
        raise UsageError(f"{folder}: {'a file, not a folder' if folder.exists() else 'no such folder'}")
    report = report_on(folder.resolve(), dataset, say)
    print(json.dumps(report.to_json(), indent=1) if as_json else render(report))
    return 0 if report.clean else 2


@app.command()
def simulate(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", parser=_path, help="folder to write")],
    size: Annotated[str, typer.Option(help="tiny, tiny_weeks, demo, small, week or large")] = "demo",
    seed: SeedOption = 1,
    preset: Annotated[str, typer.Option(help="tabloid or regional")] = "tabloid",
    workers: Annotated[
        int | None, typer.Option(min=1, help="threads, all cores by default; the bytes do not depend on it")
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="print figures beside target and expected values")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="write over another or a damaged bundle")] = False,
) -> None:
    """Write a simulated log in EB-NeRD's layout, with a sealed oracle beside it. What is already there is not made
    again, and another bundle is not replaced without --replace."""
    from ml import simulator

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}: choose a folder that can be written") from error
    summary = simulator.simulate(out, size, seed, lambda done, of: say(f"day {done} of {of}"), preset, workers, replace)
    state = "written" if summary.generated else "already there, nothing to do"
    say(f"{out}: {summary.clicks:,} clicks of {summary.readers:,} readers in {summary.days} days, {state}")
    if report:
        print(simulator.report(out)[1])


@app.command()
def landing(dataset: DatasetOption = "simulated", data_root: RootOption = None, as_json: JsonOption = False) -> None:
    """List what lies in the landing folder, what was taken in from it, and the corrections; take in nothing."""
    from ml.datasets import dataset as known_dataset
    from pipeline.deliveries import status, text

    dataset = _dataset(dataset, data_root)
    found = status(_toolbox(dataset, data_root).tools().source, known_dataset(dataset))
    print(json.dumps(found, indent=1) if as_json else text(found))


@app.command()
def land(
    folder: Annotated[Path, typer.Argument(metavar="DIR", parser=_path, help="folder with the day's files")],
    day: Annotated[str, typer.Option("--day", metavar="DAY", help="YYYY-MM-DD")],
    dataset: DatasetOption = "simulated",
    data_root: RootOption = None,
) -> None:
    """Check a day's files and put them into the landing folder, complete with their marker."""
    from ml.datasets import dataset as known_dataset
    from pipeline.deliveries import land_files

    dataset = _dataset(dataset, data_root)
    known, when = known_dataset(dataset), parse_day(day)
    say(f"landed: {land_files(_toolbox(dataset, data_root).tools().source, known, _folder(folder), when)}")


@app.command()
def correct(
    day: Annotated[str, typer.Option("--day", metavar="DAY", help="YYYY-MM-DD")],
    folder: Annotated[
        Path, typer.Option("--from", metavar="DIR", parser=_path, help="folder with the day's files as they should be")
    ],
    why: Annotated[str, typer.Option("--why", help="the reason, for the record")],
    dataset: DatasetOption = "simulated",
    data_root: RootOption = None,
) -> None:
    """Replace a closed day's rows; everything downstream of that day becomes stale. Correct again to undo."""
    from ml.datasets import dataset as known_dataset
    from pipeline.deliveries import asked_by

    dataset = _dataset(dataset, data_root)
    known, when = known_dataset(dataset), parse_day(day)
    _toolbox(dataset, data_root).tools().source.correct(known, when, _folder(folder), why, asked_by())
    say(f"{dataset} {when}: corrected; `newsrec run` recomputes what depends on it")


def _folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    return folder.resolve()


@app.command()
def sql(
    query: Annotated[
        str | None, typer.Argument(help="one statement; without it, statements are read from input")
    ] = None,
    dataset: DatasetOption = "simulated",
    as_json: JsonOption = False,
) -> None:
    """Query the lake with DuckDB: articles, clicks, impressions, interactions, sessions, cases, top, inview."""
    from resources.bindings import lake_root
    from resources.engine import Engine
    from resources.lake import Lake

    lake = Lake(lake_root())
    with Engine(lake.root / ".spill") as engine:
        engine.views(lake, _dataset(dataset, None))
        statements = [query] if query is not None else _statements()
        if not any(s.strip() for s in statements):
            raise UsageError("no statement given: try `newsrec sql 'SHOW TABLES'`")
        for statement in statements:
            table = engine.query(statement)
            if as_json:
                print(json.dumps(table.to_pylist(), default=str))
            else:
                _print_table(table)


def _print_table(table: "pa.Table", limit: int = 100) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table(*table.column_names, box=None)
    for row in table.slice(0, limit).to_pylist():
        shown.add_row(*(_short(v) for v in row.values()))
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, Console(width=10_000).measure(shown).maximum))
    console.print(shown, markup=False)
    if len(table) > limit:
        print(f"{len(table):,} rows, the first {limit} shown: use --json for all, or LIMIT")


def _short(value: object) -> str:
    """A cell for the terminal: long lists by their last members, times to the second."""
    if isinstance(value, list):
        last = ", ".join(_short(v) for v in value[-3:])
        return f"[{len(value) - 3} more, {last}]" if len(value) > 3 else f"[{last}]"
    return f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else str(value)


def _statements() -> list[str]:
    if sys.stdin.isatty():
        say("statements end with ';', end of input leaves; \\d lists the views with `SHOW TABLES;`")
    return [s.strip() for s in sys.stdin.read().split(";") if s.strip()]


def main() -> None:
    """Entry point: runs a command and turns the project's errors into one line and an exit code."""
    from pathlib import Path

    os.environ["DAGSTER_HOME"] = os.environ.get("DAGSTER_HOME") or str(Path(__file__).resolve().parent.parent)
    for name, value in (("DAGSTER_DISABLE_TELEMETRY", "1"), ("DO_NOT_TRACK", "1"), ("GX_ANALYTICS_ENABLED", "false")):
        os.environ.setdefault(name, value)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("    %(message)s"))
    for room in ("pipeline", "assets", "ml", "resources"):
        logging.getLogger(room).setLevel(logging.INFO)
        logging.getLogger(room).addHandler(handler)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    if not Path(os.environ["DAGSTER_HOME"]).is_dir():
        say(f"newsrec: DAGSTER_HOME={os.environ['DAGSTER_HOME']}: no such folder: make it, or unset the variable")
        _leave(2)
    _leave(_guarded(lambda: app(standalone_mode=False)))


def _leave(code: int) -> NoReturn:
    """End the process after its exit handlers, without the interpreter's teardown: there, threads of the tracking
    store still hold DuckDB types, whose binding then prints pages of leak warnings."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _guarded(command: Callable[[], Any]) -> int:
    stopped = "interrupted: what was published stays; run the same command again to go on"
    try:
        code = int(command() or 0)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except typer.TyperException as error:
        describe = getattr(error, "format_message", error.__str__)
        say(describe())
        return 2
    except (UsageError, DataError) as error:
        say(f"newsrec: {error}")
        return 2
    except NewsrecError as error:
        say(f"newsrec: {error}")
        return 1
    except OSError as error:
        if error.errno not in DISK_ERRORS | NO_PLACE:
            raise
        say(f"newsrec: {error.strerror} ({error.filename or 'no file named'}): see to the disk, then run again")
        return 1
    if code == INTERRUPTED:
        say(stopped)
    return code


if __name__ == "__main__":
    main()
