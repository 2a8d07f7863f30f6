"""A list for one reader, from the lake alone.

Belongs here: choosing the checkpoint and the tables that a request at a time may use, and printing the answer. Does
not belong here: scoring (`ml.predict`).
"""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np

from assets.graph import BY_NAME
from assets.stage import Work
from ml.asof import AsOf
from ml.datasets import Dataset, dataset
from ml.errors import DataError, UsageError
from ml.models import MODELS
from ml.predict import recommend
from ml.splits import split
from resources.bindings import RunSettings, Tools
from resources.champion import Champions
from resources.lake import Version


def recommend_for(
    tools: Tools,
    settings: RunSettings,
    dataset_name: str,
    model: str,
    user: int,
    at: str | None,
    k: int,
    session: int | None = None,
) -> dict[str, Any]:
    """Top `k` of `model` for `user` as of the ISO time `at` (default: the end of what the lake knows), in the session
    `session` of the source (default: the last one, if its last click is less than 30 minutes ago).

    Raises UsageError for an unknown model, a time outside the lake's span or a malformed one.
    """
    known = dataset(dataset_name)
    if model not in MODELS:
        raise UsageError(f"unknown model {model!r}: choose from {', '.join(sorted(MODELS))}")
    ends = sorted(date.fromisoformat(p) for p in tools.lake.partitions(dataset_name, "popularity_tensor"))
    if not ends:
        raise UsageError(f"nothing is known of {dataset_name} yet: run `newsrec run --dataset {dataset_name}`")
    time_ms = known.clock.start(ends[-1]) if at is None else _parse_time(at)
    end = next((e for e in ends if known.clock.start(e) >= time_ms), None)
    if end is None:
        raise UsageError(f"--at {at}: the lake knows {dataset_name} until {_iso(known.clock.start(ends[-1]))}")
    if time_ms <= known.clock.start(end - timedelta(days=1)):
        held = ", ".join(str(e - timedelta(days=1)) for e in ends)
        raise UsageError(f"--at {at}: no state is held for that day; there is one for {held}")
    checkpoint = _checkpoint(tools, known, model, settings, time_ms)
    asof = _open(tools, known, settings, end, checkpoint)
    loaded = MODELS[model].load(checkpoint.path if checkpoint else None)
    ranked = recommend(asof, loaded, user, time_ms, k, session=session)
    history = _history(asof, user, time_ms)
    rows = asof.catalogue.rows(np.array([a for a, _ in ranked], dtype=np.int64))
    ages = asof.age_minutes(np.array([time_ms]), rows[None, :])[0]
    clicks = asof.counts(np.array([time_ms]), rows[None, :])[0]
    titles = _titles(tools, known, [a for a, _ in ranked] + history)
    return {
        "dataset": dataset_name,
        "user": user,
        "at": _iso(time_ms),
        "model": model,
        "checkpoint": str(checkpoint.ref) if checkpoint else None,
        "history": [{"article_id": a, "title": titles.get(a)} for a in history],
        "articles": [
            {
                "article_id": article,
                "score": score,
                "title": titles.get(article),
                "age_minutes": round(float(age), 1),
                "clicks_15min": int(count[2]),
                "clicks_60min": int(count[3]),
            }
            for (article, score), age, count in zip(ranked, ages, clicks, strict=True)
        ],
    }


def render(answer: dict[str, Any], explain: bool) -> str:
    """The answer as text; with `explain` the history, ages and clicks beside it."""
    source = answer["checkpoint"] or "no checkpoint needed"
    lines = [f"reader {answer['user']} at {answer['at']}, {answer['model']} ({source})"]
    if explain:
        read = [f"{h['article_id']} {h['title'] or ''}".strip() for h in answer["history"]]
        lines.append(f"read last: {'; '.join(read) or 'nothing'}")
    for rank, a in enumerate(answer["articles"], 1):
        line = f"{rank:3d}  {a['article_id']:>9}  {a['score']:8.4f}  {a['title'] or ''}"
        if explain:
            line += (
                f"  [{a['age_minutes']:.0f} min old, {a['clicks_15min']} clicks in 15 min, {a['clicks_60min']} in 60]"
            )
        lines.append(line)
    return "\n".join(lines)


def _parse_time(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--at {text!r} is no ISO time: write it like 2023-05-18T12:00") from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="seconds")


def _checkpoint(tools: Tools, known: Dataset, model: str, settings: RunSettings, time_ms: int) -> Version | None:
    """The champion where there is one whose fitting ended at or before the time, else the newest such checkpoint."""
    if not MODELS[model].trains:
        return None
    run_split, clock = split(settings.split), known.clock
    champions = Champions(tools.lake, known.name, model, run_split.fit_name)
    champion = champions.current()
    if champion is not None and run_split.fit_end(clock, champion.day) <= time_ms:
        return champions.version(champion)
    for partition in sorted(tools.lake.partitions(known.name, "checkpoint", model), reverse=True):
        day, _, name = partition.partition(".")
        if name == run_split.fit_name and run_split.fit_end(clock, date.fromisoformat(day)) <= time_ms:
            return tools.lake.require(BY_NAME["checkpoint"].ref(known, date.fromisoformat(day), settings, model))
    raise UsageError(
        f"no checkpoint of {model} for {known.name} from before {_iso(time_ms)}: "
        f"run `newsrec run --dataset {known.name}`, or ask for a later --at"
    )


def _open(tools: Tools, known: Dataset, settings: RunSettings, end: date, checkpoint: Version | None) -> AsOf:
    """The as-of door over everything known up to the start of `end`. Raises DataError where the vectors are no longer
    those that the checkpoint was fitted with."""
    inputs: dict[str, list[Version]] = {"impressions": []}
    for name in ("interactions", "article_features", "popularity_tensor"):
        inputs[name] = [tools.lake.require(BY_NAME[name].ref(known, end, settings, None))]
    days = [date.fromisoformat(p) for p in tools.lake.partitions(known.name, "article_embeddings")]
    embeddings = BY_NAME["article_embeddings"]
    inputs["article_embeddings"] = [
        tools.lake.require(embeddings.ref(known, d, settings, None)) for d in sorted(days) if d < end
    ]
    fitted_with = checkpoint.manifest["inputs"] if checkpoint else {}
    for version in inputs["article_embeddings"]:
        if fitted_with.get(str(version.ref), version.manifest_digest) != version.manifest_digest:
            raise DataError(f"{version.ref} has changed since {checkpoint and checkpoint.ref} was fitted: train again")
    work = Work(known, end, None, settings, inputs, tools.lake.root, tools, print)
    return AsOf.open(work.asof_paths())


def _history(asof: AsOf, user: int, time_ms: int) -> list[int]:
    """The last five articles that the reader had read, newest first."""
    cases = asof.cases(np.array([user]), np.array([time_ms]))
    rows = asof.clicks.article[max(cases.first[0], cases.stop[0] - 5) : cases.stop[0]]
    return [int(a) for a in asof.catalogue.article_id[rows][::-1]]


def _titles(tools: Tools, known: Dataset, articles: list[int]) -> dict[int, str]:
    from resources.engine import Engine

    if not articles:
        return {}
    with Engine(tools.lake.root / ".spill") as engine:
        engine.views(tools.lake, known.name)
        wanted = ", ".join(str(int(a)) for a in articles)
        table = engine.query(
            f"SELECT article_id, any_value(title) AS title FROM articles WHERE article_id IN ({wanted}) GROUP BY 1"
        )
    return {r["article_id"]: r["title"] for r in table.to_pylist() if r["title"]}
