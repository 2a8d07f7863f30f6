"""The doors by which a stranger's file comes in: how the program opens each kind of artifact, and what it then says.

Belongs here: one function a door, from a lake's home to an answer that can be compared. Does not belong here: damage
(`strange`), judgement (`artifacts`).

An answer is built from what was read, so that two equal answers mean that the same was read; whatever is refused leaves
the function as one of the project's errors."""

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from assets.promotion import read_decision
from ml.articles import build_article_features
from ml.asof import AsOf, AsOfPaths
from ml.coclick_vectors import build_coclick_day
from ml.datasets import _DECLARED
from ml.errors import DamagedLake, DataError
from ml.evaluate import evaluate_rq1, evaluate_rq2
from ml.log import Catalogue
from ml.measured import read_curves, read_metrics, read_report
from ml.models.snert import Snert
from ml.report import report_json
from ml.report_tables import text_table
from ml.retrieval import load_index, search
from ml.segments import per_case_of
from ml.sessions import build_interactions, read_sessions
from ml.stored import InViewLists, TopLists, read_span
from ml.strangers import reading
from ml.train import TrainSpec, train
from ml.train import main as train_main
from pipeline.audit import verify_bundle
from pipeline.audit.leaks import leaks
from pipeline.audit.sign import check as check_signature
from pipeline.audit.sign import private_key, public_key
from pipeline.audit.text import tree
from pipeline.over_time import _decay_lines, _drift_text
from pipeline.promotion import render_decision
from resources.champion import Champions
from resources.engine import Engine
from resources.erasure.book import Book
from resources.lake import Lake, Ref, Version
from resources.lineage.check import hash_files
from resources.lineage.graph import walk_all
from resources.lineage.metric import Address, lineage
from resources.lineage.page import page
from resources.lineage.payload import payload
from resources.open_runs import OpenRuns
from resources.own_logs import learn_remembered
from resources.version import require_sound
from tests.fuzz.good_lake import DAY, END, NAME, SPLIT

Answer = Any


@dataclass(frozen=True, slots=True)
class Door:
    """`files`: patterns below the home, of which one is damaged. `open` gives the answer. `manifest`: whether a
    manifest states these files; it can be made to agree with a damaged one."""

    files: tuple[str, ...]
    open: Callable[[Path], Answer]
    manifest: bool = False


def told(*values: Any) -> str:
    """Arrays, tables and plain values as one digest."""
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            if value.dtype.kind == "f" and np.isnan(value).all() and value.size:
                raise AssertionError("nothing but NaN came out")
            digest.update(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
        elif isinstance(value, pa.Table):
            digest.update(str(value.schema.remove_metadata()).encode() + repr(value.to_pydict()).encode())
        else:
            digest.update(json.dumps(value, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _version(home: Path, stage: str, partition: str = SPLIT, model: str | None = None) -> Version:
    """As a step takes its input: the current version, every byte of it compared with its manifest."""
    version = Lake(home / "lake").require(Ref(NAME, stage, partition, model))
    require_sound(version)
    return version


def _paths(home: Path) -> AsOfPaths:
    files = {
        name: _version(home, stage, partition).file(file)
        for name, stage, partition, file in (
            ("features", "article_features", DAY, "features.parquet"),
            ("interactions", "interactions", DAY, "interactions.parquet"),
            ("popularity", "popularity_tensor", DAY, "popularity.safetensors"),
            ("body", "article_embeddings", "2023-05-20", "body.parquet"),
            ("shown", "impressions", "2023-05-20", "impressions.parquet"),
        )
    }
    return AsOfPaths(
        dataset=NAME,
        content={"body": [files.pop("body")]},
        impressions=[files.pop("shown")],
        **files,
    )


def as_of(home: Path) -> Answer:
    """The as-of door over the lake's tables, and what it says of a time."""
    asof = AsOf.open(_paths(home))
    times, rows = np.full(2, END - 1), np.tile(np.arange(min(50, len(asof.catalogue)), dtype=np.int32), (2, 1))
    users = np.unique(asof.clicks.user)[:5]
    cases = asof.cases(users, np.full(len(users), END))
    known = [getattr(cases, name) for name in ("user", "first", "stop", "session_start")]
    content = asof.content("body").at(times, rows)
    if not np.isfinite(content).all():
        raise AssertionError("vectors that are not finite came in")
    clicks = [getattr(asof.clicks, n) for n in ("user", "article", "time", "session")]
    return told(asof.counts(times, rows), asof.totals(times), content, asof.age_minutes(times, rows), *known, *clicks)


def checkpoint(home: Path) -> Answer:
    """Scores of a checkpoint over sound tables."""
    model = Snert.load(_version(home, "checkpoint", SPLIT, "snert").path)
    asof = AsOf.open(_good_paths(home))
    vectors = model.article_vectors(asof, END, np.arange(len(asof.catalogue)))
    readers = np.unique(asof.clicks.user)[:5]
    users = model.user_vectors(asof, asof.cases(readers, np.full(5, END)))
    if not (np.isfinite(vectors).all() and np.isfinite(users).all()):
        raise AssertionError("scores are not finite")
    return told(vectors, users, read_curves(_version(home, "checkpoint", SPLIT, "snert").file("curves.json")))


def _good_paths(home: Path) -> AsOfPaths:
    good = Path((home / "good").read_text()) / "world"
    return AsOfPaths(
        dataset=NAME,
        features=good / "features.parquet",
        interactions=good / "interactions.parquet",
        popularity=good / "popularity.safetensors",
        content={"body": [good / "body.parquet"]},
        impressions=[],
    )


def index(day: str) -> Callable[[Path], Answer]:
    """What an index finds."""

    def open_index(home: Path) -> Answer:
        found = load_index(_version(home, "faiss_index", f"{day}.rolling", "snert").path)
        queries = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
        ids, scores = search(found, queries)
        if np.isnan(scores).any():
            raise AssertionError("scores are not numbers")
        return told(ids, scores, found.choice["kind"])

    return open_index


def sessions(home: Path) -> Answer:
    """Session ranges over the interactions."""
    bound = _version(home, "interactions", DAY).content
    found = read_sessions(_version(home, "session_splits").file("sessions.parquet"), bound)
    return told(found.first, found.target, found.split.tolist())


def predictions(home: Path) -> Answer:
    """Stored lists, and the measures over them."""
    folder = _version(home, "predictions", SPLIT, "snert").path
    lists = [TopLists.read(folder, protocol) for protocol in ("thesis", "unread", "in_session")]
    shown = InViewLists.read(folder)
    with _scratch(home) as out:
        figures = [evaluate_rq1(folder, None, out / "rq1"), evaluate_rq2(folder, None, out / "rq2")]
    arrays = [a for each in lists for a in (each.articles, each.offsets)]
    return told(*arrays, shown.articles, shown.clicked, read_span(folder), figures)


@contextlib.contextmanager
def _scratch(home: Path) -> Any:
    out = home / "scratch"
    out.mkdir(exist_ok=True)
    try:
        yield out
    finally:
        shutil.rmtree(out, ignore_errors=True)


def tables(home: Path) -> Answer:
    """One day's canonical tables as the next stages read them: DuckDB, features, co-clicks, views."""
    clicks = _version(home, "clicks", "2023-05-20").file("clicks.parquet")
    articles = _version(home, "articles", "2023-05-20").file("articles.parquet")
    with _scratch(home) as out, Engine(out / "spill", memory_limit="500MB", threads=1) as engine:
        rows = build_interactions(engine.connection, [clicks], out / "i.parquet", 0, 2**50)
        counted = build_article_features([articles], out / "f.parquet")
        made = build_coclick_day([], clicks, END - 3 * 86_400_000, END, out / "c.parquet")
        catalogue = Catalogue.load(out / "f.parquet")
        return told(rows, counted, made, catalogue.article_id)


def views(home: Path) -> Answer:
    """SQL over the lake."""
    with _scratch(home) as out, Engine(out / "spill", memory_limit="500MB", threads=1) as engine:
        names = engine.views(Lake(home / "lake"), NAME)
        asked = ["SELECT count(*), sum(user_id), max(time) FROM clicks", "SELECT count(*), min(title) FROM articles"]
        asked += ["SELECT count(*), sum(len(inview)) FROM impressions", "SELECT count(*), sum(target) FROM sessions"]
        asked += ["SELECT count(*), sum(len(articles)) FROM top"]
        asked += [f"SELECT count(*) FROM {name}" for name in ("cases", "inview")]
        return told(names, *(engine.query(query).to_pylist() for query in asked))


def figures(home: Path) -> Answer:
    """Evaluations, as the report reads them."""
    entry: dict[str, Any] = {"manifests": {}}
    for question in ("rq1", "rq2", "rq3"):
        version = _version(home, f"evaluation_{question}", SPLIT, "snert")
        entry[question] = read_metrics(version.file("metrics.json"))
        protocol = "thesis" if question == "rq1" else ""
        keys, values = per_case_of(version.file("per_case.parquet"), question, protocol)
        entry[f"cases of {question}"] = told(*keys.values(), *values.values())
    with reading(home):
        report = report_json(NAME, DAY, "rolling", {"popular_15": entry, "snert": entry})
        return told(report, text_table(report), [v for k, v in entry.items() if k.startswith("cases")])


def report(home: Path) -> Answer:
    """The report on the terminal."""
    path = _version(home, "evaluation_report").path / "report.json"
    found = read_report(path)
    with reading(path):
        return told(text_table(found), found)


def decision(home: Path) -> Answer:
    """A promotion, its page, and the record of champions."""
    found = read_decision(_version(home, "promotion", SPLIT, "snert"))
    with reading(home):
        return told(render_decision(found | {"page": "p"}))


def over_time(home: Path) -> Answer:
    """Decay and drift."""
    from ml.measured import read_figures

    decay, drift = (_version(home, s, DAY, m).file(f"{s}.json") for s, m in (("decay", "snert"), ("drift", None)))
    found = read_figures(decay, {"rows": list, "missing": list})
    moved = read_figures(drift, {"days": list, "features": list, "first": str, "last": str})
    with reading(home):
        return told(_decay_lines(found), _drift_text(NAME, moved))


def current(home: Path) -> Answer:
    """What the lake says is current of every stage, and each file's bytes."""
    lake, found = Lake(home / "lake"), []
    for stage in lake.stages(NAME):
        for model in lake.models(NAME, stage) or [None]:  # type: ignore[list-item]
            for partition in lake.partitions(NAME, stage, model):
                version = _version(home, stage, partition, model)
                history = [entry.digest for entry in lake.history(version.ref)]
                texts = [hashlib.sha256(path.read_bytes()).hexdigest() for path in version.files()]
                found.append([str(version.ref), version.manifest, lake.publication(version.ref), history, texts])
    return told(found)


def records(home: Path) -> Answer:
    """The lake's other records: champions, erased readers, own logs, open runs."""
    lake = Lake(home / "lake")
    champions = Champions(lake, NAME, "snert", "rolling")
    title = champions.current()
    version = champions.version(title) if title else None
    requests = [[r.name, r.reader, r.done] for r in Book(lake.root, NAME).requests()]
    Book(lake.root, NAME).readers()
    _DECLARED.clear()
    learn_remembered(lake.root)
    with OpenRuns(lake.root / ".tracking").dead() as (runs, said):
        open_runs = [[str(r.ref), r.report] for r in runs]
    if said:
        raise DamagedLake(said[0])
    acts = [act.to_json() for act in champions.acts()]
    return told(acts, version and version.path.name, requests, sorted(_DECLARED), open_runs)


def states(home: Path) -> Answer:
    """Training goes on from a stored state (of its end, so that it is over at once)."""
    spec = TrainSpec.model_validate_json((Path((home / "good").read_text()) / "spec.json").read_bytes())
    said: list[str] = []
    with _scratch(home) as out:
        result = train(spec.model_copy(update={"states": home / "states", "out": out / "again"}), said.append)
        weights = hashlib.sha256((out / "again" / "model.safetensors").read_bytes()).hexdigest()
    for line in said:
        if "damaged" in line or "another training" in line:
            raise DataError(line)
    return told(weights, result.curves)


def specification(home: Path) -> Answer:
    """`python -m ml.train SPEC.json`."""
    errors, printed = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(printed):
        code = train_main([str(home / "spec.json")])
    if code == 2:
        raise DataError(errors.getvalue().strip().splitlines()[-1])
    if code:
        raise AssertionError(errors.getvalue())
    return told(printed.getvalue())


def keys(home: Path) -> Answer:
    """Key files and the signature beside the report."""
    private_key(home / "key")
    graph = walk_all(home / "lake")
    node = next(n for n in graph.nodes.values() if n.ref.stage == "evaluation_report")
    found = check_signature(node, public_key(home / "key.pub"))
    if found:
        raise DataError(str(found[0]))
    return "signed"


def audit(home: Path) -> Answer:
    """`audit show`, `verify`, `leaks` and the page over the whole lake; what does not hold counts as refused."""
    root = home / "lake"
    graph = walk_all(root)
    graph.order()
    hash_files(graph)
    data = payload(graph, "all")
    shown = [tree(data), page(data)]
    number, below = lineage(root, Address.parse("rq1.thesis.recall@20", NAME, DAY))
    shown.append(tree(payload(below, "one", number)))
    looked = leaks(below)
    broken = [f for f in data["findings"] if f["broken"]]
    if broken:
        raise DamagedLake(f"{broken[0]['ref']}: {broken[0]['message']}: see it")
    return told(shown, looked)


def bundle(home: Path) -> Answer:
    """The stand-alone verifier of an exported bundle."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = verify_bundle.main([str(home / "bundle")])
    lines = printed.getvalue().splitlines()
    if code:
        raise DamagedLake(next(line for line in lines if line.startswith("BROKEN")))
    return lines


DOORS: dict[str, Door] = {
    "tables behind the as-of door": Door(
        (
            "lake/*/article_features/*/*/*.parquet",
            "lake/*/interactions/*/*/*.parquet",
            "lake/*/article_embeddings/*/*/*.parquet",
            "lake/*/impressions/*/*/*.parquet",
            "lake/*/popularity_tensor/*/*/*.safetensors",
        ),
        as_of,
        True,
    ),
    "checkpoint": Door(
        ("lake/*/checkpoint/*/*/*/*.safetensors", "lake/*/checkpoint/*/*/*/[cfr]*.json"), checkpoint, "by file"
    ),
    "flat index": Door(("lake/*/faiss_index/*/2023-05-21*/*/*.*",), index("2023-05-21"), True),
    "IVF index": Door(("lake/*/faiss_index/*/2023-05-22*/*/*.*",), index("2023-05-22"), True),
    "HNSW index": Door(("lake/*/faiss_index/*/2023-05-23*/*/*.*",), index("2023-05-23"), True),
    "sessions": Door(("lake/*/session_splits/*/*/*.parquet",), sessions, True),
    "predictions": Door(("lake/*/predictions/*/*/*/*.*",), predictions, True),
    "canonical tables": Door(("lake/*/clicks/*/*/*.parquet", "lake/*/articles/*/*/*.parquet"), tables, True),
    "views": Door(
        ("lake/*/clicks/*/*/*.parquet", "lake/*/interactions/*/*/*.parquet", "lake/*/predictions/*/*/*/*.parquet"),
        views,
        True,
    ),
    "evaluations": Door(("lake/*/evaluation_rq?/*/*/*/*.*",), figures, True),
    "report": Door(("lake/*/evaluation_report/*/*/report.json",), report, True),
    "decision": Door(("lake/*/promotion/*/*/*/decision.json",), decision, True),
    "decay and drift": Door(("lake/*/decay/*/*/*/decay.json", "lake/*/drift/*/*/drift.json"), over_time, True),
    "manifests, pointers, ledgers": Door(
        (
            "lake/simulated/[a-z]*/**/manifest.json",
            "lake/simulated/[a-z]*/**/current.json",
            "lake/simulated/[a-z]*/**/ledger.jsonl",
        ),
        current,
    ),
    "other records": Door(
        ("lake/*/.champion/*", "lake/.erasures/*.jsonl", "lake/.erasures/key", "lake/.logs/*", "lake/.tracking/*.json"),
        records,
    ),
    "training states": Door(("states/*4.*",), states),
    "training specification": Door(("spec.json",), specification),
    "keys and signatures": Door(("key", "key.pub", "lake/*/**/*.signature.json"), keys),
    "audit": Door(("lake/simulated/[a-z]*/**/*.*",), audit),
    "bundle": Door(("bundle/**/*.json*",), bundle),
}
"""Every door by name."""
