"""From stages to Dagster assets: one factory, one way of materialising.

Belongs here: skipping by recipe key, checking staged output, publishing, tracking and the metadata of every asset.
Does not belong here: what a stage computes.
"""

import base64
import logging
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date, datetime, time, timedelta
from time import monotonic
from typing import Any

import dagster as dg

from assets import links
from assets.expectations import CheckResult, suite_digest, suite_names, validate
from assets.stage import BASELINE, Kept, Need, Stage, Summary, Work, days_of
from ml.datasets import Dataset
from ml.errors import DataError, LakeError, NewsrecError, UsageError
from ml.memory import forget_peak, peak_mib
from ml.models import MODELS, ModelSpec
from ml.splits import ROLLING, split
from resources import running
from resources.bindings import RunSettings, ToolBox, Tools, default_settings
from resources.code import source_digest
from resources.event_log import keep_connections
from resources.lake import Lake, Ref, Version, recipe_key
from resources.manifest import input_names
from resources.tracker import TrackedRun
from resources.transient import is_transient
from resources.version import require_sound

warnings.filterwarnings("ignore", category=dg.BetaWarning, message=".*allow_nonexistent_upstream_partitions.*")
RETRIES = 2
"""After a transient error; any other error is final."""
WAIT_SECONDS = 5
NAMED_IN_PARTITIONS = {"split", "span_days"}
"""Settings that lead to partitions of their own in the lake."""
BUSY_SECONDS = 10
BUSY_TRIES = 8640
"""A step that a planned run keeps out asks again every BUSY_SECONDS, for a day."""


def partitions_of(dataset: Dataset) -> dg.DailyPartitionsDefinition:
    """Days of data plus one: the last as-of day may know the whole log, and may be the day that has just begun."""
    offset = timedelta(hours=dataset.clock.offset_hours)
    return dg.DailyPartitionsDefinition(
        start_date=dataset.first_day.isoformat(),
        end_date=datetime.combine(dataset.last_day + timedelta(days=2), time.min) + offset,
        hour_offset=dataset.clock.offset_hours,
        end_offset=1,
    )


def models_of(stage: Stage, names: Iterable[str]) -> list[str | None]:
    """The models that `stage` has an asset for, among `names`; [None] for stages without models."""
    if stage.models == "none":
        return [None]
    fits: dict[str, Callable[[ModelSpec], bool]] = {
        "every": lambda _: True,
        "trained": lambda spec: spec.trains,
        "embedding": lambda spec: spec.trains and spec.embeds,
    }
    return [n for n in names if fits[stage.models](MODELS[n])]


def needed_models(
    need: Need, by_name: Mapping[str, Stage], model: str | None, names: Sequence[str]
) -> list[str | None]:
    """Which models' partitions of the needed stage are inputs (none: the stage has no models)."""
    upstream = by_name[need.stage]
    if need.model is None:
        return [None]
    wanted: list[str | None] = (
        list(names) if need.model == "every" else [BASELINE if need.model == "baseline" else model]
    )
    if need.model == "baseline" and model == BASELINE:
        return []
    return [m for m in wanted if m in models_of(upstream, [str(m)])]


def input_refs(
    stage: Stage,
    dataset: Dataset,
    day: date,
    model: str | None,
    settings: RunSettings,
    by_name: Mapping[str, Stage],
    days_with_data: Sequence[date],
) -> dict[str, list[tuple[Stage, date, Ref]]]:
    """The lake partitions that the stage reads for `day`: by input name, in order. Days without data are left out of
    windows over daily stages."""
    known = set(days_with_data)
    found: dict[str, list[tuple[Stage, date, Ref]]] = {}
    for need in stage.needs:
        if isinstance(need, Kept):
            continue
        upstream = by_name[need.stage]
        days = days_of(need.within(settings), day, split(settings.split), dataset)
        if upstream.daily:
            days = [d for d in days if d in known]
        models = needed_models(need, by_name, model, settings.models)
        found[need.name] = [(upstream, d, upstream.ref(dataset, d, settings, m)) for m in models for d in days]
    return found


def kept_inputs(
    stage: Stage, dataset: Dataset, day: date, model: str | None, settings: RunSettings, lake: Lake
) -> dict[str, list[Version]]:
    """What the lake holds for the stage's `Kept` needs, by input name."""
    kept = [need for need in stage.needs if isinstance(need, Kept)]
    return {need.name: list(need.find(dataset, day, model, settings, lake)) for need in kept}


def key_of(
    stage: Stage,
    dataset: Dataset,
    day: date,
    model: str | None,
    settings: RunSettings,
    tools: Tools,
    inputs: Iterable[Version],
) -> tuple[str, dict[str, Any], dict[str, str]]:
    """Recipe key, recipe and code digests of one partition, given its inputs."""
    recipe = {**stage.recipe(dataset, settings, tools, model), **stage.day_recipe(dataset, day, tools), **dataset.facts}
    if stage.table:
        recipe = {**recipe, "rules": suite_digest(stage.table)}
    code = {module: source_digest([module]) for module in stage.sources(model)}
    seed = recipe.get("seed", 0)
    return recipe_key(input_names((v.ref, v) for v in inputs), "".join(code.values()), recipe, seed), recipe, code


class RuleBroken(DataError):
    """Staged output that broke a blocking rule; `checks` are the results of all rules."""

    def __init__(self, message: str, checks: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.checks = checks


def build_asset(
    stage: Stage, dataset: Dataset, model: str | None, by_name: Mapping[str, Stage], names: Sequence[str]
) -> Any:
    """The Dagster asset of one stage (and model) of one dataset."""
    key = asset_key(dataset, stage, model)

    @dg.asset(
        key=key,
        deps=_deps(stage, dataset, model, by_name, names),
        partitions_def=partitions_of(dataset),
        group_name=f"{dataset.name}_{stage.group}",
        description=stage.description,
        kinds=set(stage.kinds),
        pool=stage.pool,
        check_specs=[dg.AssetCheckSpec(n, asset=key) for n in (suite_names(stage.table) if stage.table else [])],
        tags={"dataset": dataset.name, **({"model": model} if model else {})},
    )
    def body(context: dg.AssetExecutionContext, settings: RunSettings, toolbox: ToolBox) -> Iterator[Any]:
        day = date.fromisoformat(context.partition_key)
        tools = toolbox.tools()
        keep_connections()
        try:
            with _place(context, dataset, settings, tools):
                yield materialise(context, stage, dataset, day, model, settings, tools, by_name)
        except RuleBroken as error:
            yield from (_check_result(c, key) for c in error.checks)
            raise dg.Failure(description=str(error), metadata={"bad_input": True}, allow_retries=False) from error
        except dg.RetryRequested:
            raise
        except Exception as error:
            tries = RETRIES + _WAITED[context.run.run_id, key]
            if is_transient(error) and context.retry_number < tries:
                raise dg.RetryRequested(max_retries=tries, seconds_to_wait=WAIT_SECONDS) from error
            if isinstance(error, NewsrecError):
                said = str(error)
            elif isinstance(error, OSError):
                said = f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}"
                said = f"{'/'.join(key.path)}: {said}: what was published stays; see to the disk, then run again"
            else:
                raise
            kind = {"bad_input": isinstance(error, (DataError, UsageError))}
            raise dg.Failure(description=said, metadata=kind, allow_retries=False) from error

    return body


_WAITED: Counter[tuple[str, dg.AssetKey]] = Counter()
"""How often a step of this process found the dataset taken: these tries are no failures."""


@contextmanager
def _place(context: dg.AssetExecutionContext, dataset: Dataset, settings: RunSettings, tools: Tools) -> Iterator[None]:
    """The right to write. A planned run, which executes its steps in its own process, has it already. A step that the
    UI, the daemon or a backfill launched waits while a planned run is at work, without keeping its pool's slot; and it
    writes with the deployment's settings only, since others would replace the partitions of the default."""
    if not running.is_launched(context.run):
        yield
        return
    running.at_work_to_the_end(tools.lake.root, context.run.run_id)
    refuse_other_settings(settings, dataset)

    def busy() -> None:
        context.log.info(f"a planned run of {dataset.name} is at work: trying again in {BUSY_SECONDS} s")
        _WAITED[context.run.run_id, context.asset_key] += 1
        raise dg.RetryRequested(max_retries=BUSY_TRIES, seconds_to_wait=BUSY_SECONDS)

    with tools.lake.beside(dataset.name, busy):
        yield


def refuse_other_settings(settings: RunSettings, dataset: Dataset) -> None:
    """Raises UsageError, naming the fields, for settings with which a run would replace what the default made."""
    usual = default_settings()
    fields = RunSettings.model_fields.keys() - NAMED_IN_PARTITIONS
    moved = sorted(f for f in fields if getattr(settings, f) != getattr(usual, f))
    if moved:
        asked = ", ".join(f"{f}={getattr(settings, f)!r}" for f in moved)
        raise UsageError(
            f"settings {asked} would replace the default's partition of {dataset.name}: launch the job "
            f"{dataset.name}_variant, which publishes under a name of its own, or set the deployment's environment"
        )


def asset_key(dataset: Dataset, stage: Stage, model: str | None) -> dg.AssetKey:
    """`[dataset, stage]` or `[dataset, stage, model]`."""
    return dg.AssetKey([dataset.name, stage.name, *([model] if model else [])])


def _deps(
    stage: Stage, dataset: Dataset, model: str | None, by_name: Mapping[str, Stage], names: Sequence[str]
) -> list[dg.AssetDep]:
    """Dependencies with the time windows of the rolling split; two needs of one asset become one window. Other splits
    read other days: the manifest says which."""
    windows: dict[dg.AssetKey, tuple[int, int]] = {}
    for need in stage.needs:
        first, last = need.offsets(ROLLING)
        first = -len(dataset.days) if first is None else first
        for m in needed_models(need, by_name, model, names):
            key = asset_key(dataset, by_name[need.stage], m)
            a, b = windows.get(key, (first, last))
            windows[key] = (min(a, first), max(b, last))
    return [
        dg.AssetDep(
            key,
            partition_mapping=dg.TimeWindowPartitionMapping(
                start_offset=a, end_offset=b, allow_nonexistent_upstream_partitions=True
            ),
        )
        for key, (a, b) in windows.items()
    ]


def materialise(
    context: dg.AssetExecutionContext,
    stage: Stage,
    dataset: Dataset,
    day: date,
    model: str | None,
    settings: RunSettings,
    tools: Tools,
    by_name: Mapping[str, Stage],
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Make one partition and publish it, or leave it where its recipe key is unchanged; what Dagster is told of it."""
    ref = stage.ref(dataset, day, settings, model)
    asked_by = context.run.tags.get("newsrec/asked_by") or os.environ.get("USER") or f"uid {os.getuid()}"
    tools.lake.catch_up()
    for line in tools.tracker.mend(tools.lake):
        context.log.warning(line)
    refs = input_refs(stage, dataset, day, model, settings, by_name, tools.source.days(dataset))
    inputs = {name: [tools.lake.require(r) for _, _, r in found] for name, found in refs.items()}
    inputs |= kept_inputs(stage, dataset, day, model, settings, tools.lake)
    flat = [v for versions in inputs.values() for v in versions]
    key, recipe, code = key_of(stage, dataset, day, model, settings, tools, flat)
    columns = links.column_lineage(stage, dataset, model, by_name)
    current = _current(context, tools.lake, ref)
    if current is not None and current.recipe_key == key and not current.lost():
        context.log.info(f"{ref}: unchanged, recipe key {key[:12]}")
        if stage.after is not None:  # an earlier try may have ended before it
            stage.after(tools, current, asked_by)
        more = {**links.links(tools.lake, current, tools.tracker.uri), **columns, "unchanged": True}
        return _result(stage, current, tools.lake.publication(ref)["checks"], more)
    for version in flat:
        require_sound(version)
    started = monotonic()
    forget_peak()
    with ExitStack() as stack:
        unfinished = stack.enter_context(tools.lake.unfinished(key))
        run = stack.enter_context(tools.tracker.run(ref, context.run.run_id, key))
        staged = stack.enter_context(tools.lake.staging(ref))
        work = Work(dataset, day, model, settings, inputs, staged.path, tools, _teller(context, ref), unfinished)
        summary = stage.compute(work)
        checks = _check(stage, dataset, work)
        _track(run, recipe, summary, flat)
        run.about_to_publish(summary.artifacts)
        cost = {"seconds": round(monotonic() - started, 3), "peak_mib": round(peak_mib())}
        record = {
            "dagster_run": context.run.run_id,
            "mlflow_run": run.run_id,
            "device": tools.device.name,
            **cost,
            "asked_by": asked_by,
        }
        version = tools.lake.publish(
            staged,
            inputs=input_names((v.ref, v) for v in flat),
            recipe_key=key,
            recipe=recipe,
            code=code,
            rows=summary.rows,
            checks=checks,
            record=record,
        )
        run.published(version, summary.artifacts)
        if stage.after is not None:
            stage.after(tools, version, asked_by)
    extra = {**_metadata(summary), "mlflow_run": run.run_id, **cost, **columns}
    extra |= links.links(tools.lake, version, tools.tracker.uri, run.url)
    return _result(stage, version, checks, extra)


def _current(context: dg.AssetExecutionContext, lake: Lake, ref: Ref) -> Version | None:
    """The current version, None where there is none that can be read: what is damaged is made anew."""
    try:
        return lake.current(ref)
    except LakeError as error:
        context.log.warning(f"made anew: {error}")
        return None


def _teller(context: dg.AssetExecutionContext, ref: Ref) -> Callable[[str], None]:
    """Progress goes to the run's log, and to this process's log for who watches the command line."""

    def tell(line: str) -> None:
        context.log.info(line)
        logging.getLogger("assets").info("%s: %s", ref, line)

    return tell


def _check(stage: Stage, dataset: Dataset, work: Work) -> list[dict[str, Any]]:
    """Great Expectations on the staged output; a failed blocking rule stops the step before anything is published."""
    if stage.table is None:
        return []
    results: list[CheckResult] = validate(stage.table, work.out, dataset, work.day, work.tools.engine())
    checks = [
        {
            "name": r.name,
            "passed": r.passed,
            "blocking": r.blocking,
            "count_bad": r.count_bad,
            "examples": list(r.examples),
            "description": r.description,
        }
        for r in results
    ]
    failed = [r for r in results if r.blocking and not r.passed]
    if failed:
        worst = failed[0]
        raise RuleBroken(
            f"{dataset.name}/{stage.name}/{work.day}: nothing published, rule {worst.name!r} failed for "
            f"{worst.count_bad} rows: {worst.description}; examples stand in the asset's check",
            checks,
        )
    return checks


def _track(run: TrackedRun, recipe: Mapping[str, Any], summary: Summary, inputs: Sequence[Version]) -> None:
    run.params(recipe)
    run.metrics(summary.metrics)
    if summary.curves:
        run.curves(summary.curves)
    for name, source in input_names((v.ref, v) for v in inputs).items():
        run.input(name, source.manifest_digest)
    run.tags({f"newsrec.{name}": words for name, words in summary.labels.items()})


def _metadata(summary: Summary) -> dict[str, Any]:
    plots = {
        name: dg.MetadataValue.md(f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})")
        for name, png in summary.plots.items()
    }
    figures = {k.replace(".", "/"): v for k, v in summary.metrics.items() if v == v}
    return {**summary.metadata, **summary.labels, **figures, **plots}


def _result(
    stage: Stage, version: Version, checks: Sequence[Mapping[str, Any]], extra: Mapping[str, Any]
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    rows = version.manifest.get("rows") or {}
    return dg.MaterializeResult(
        data_version=dg.DataVersion(version.content),
        metadata={
            "lake_path": dg.MetadataValue.path(str(version.path)),
            "manifest": version.manifest_digest,
            "ledger_head": version.ledger_head,
            **({"dagster/row_count": max(rows.values())} if rows else {}),
            **extra,
        },
        check_results=[_check_result(c) for c in checks],
    )


def _check_result(check: Mapping[str, Any], key: dg.AssetKey | None = None) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=check["name"],
        passed=check["passed"],
        severity=dg.AssetCheckSeverity.ERROR if check["blocking"] else dg.AssetCheckSeverity.WARN,
        metadata={"count": check["count_bad"], "examples": list(check["examples"]), "rule": check["description"]},
    )
