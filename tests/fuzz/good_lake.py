"""A small lake with one sound artifact of every kind, made by the program's own code: what is then damaged.

Belongs here: making it. Does not belong here: damage (`strange`), how it is opened (`doors`).
"""

import hashlib
import json
import shutil
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import torch

from ml import schema
from ml.asof import AsOf
from ml.clock import MS_PER_DAY, DayClock
from ml.datasets import OWN, Dataset
from ml.decay import AtAge, decay
from ml.evaluate import evaluate_rq1, evaluate_rq2, evaluate_rq3
from ml.log import Catalogue, Clicks
from ml.models.snert import Snert
from ml.predict import predict
from ml.promotion import Evidence, Rules, decide
from ml.report import build_report
from ml.retrieval import build_index
from ml.sessions import session_ranges, write_sessions
from ml.train import TrainSpec, train
from pipeline.audit.bundle import write_bundle
from pipeline.audit.sign import new_key, private_key, sign
from resources import ledger, own_logs
from resources.champion import Champions, Title
from resources.erasure.book import Book
from resources.lake import Lake, Ref, Version, write_parquet
from resources.lineage.graph import walk
from resources.lineage.metric import Address, lineage
from resources.manifest import canonical
from resources.open_runs import OpenRuns
from tests.ml.interests import DAYS, START, TRAIN_END, World, small_recipe, write_world

NAME, DAY, SPLIT = "simulated", "2023-05-21", "2023-05-21.rolling"
END = START + DAYS * MS_PER_DAY
CHECKS: list[dict[str, Any]] = [
    {"name": "ids", "passed": True, "blocking": True, "count_bad": 0, "examples": [], "description": "ids are there"}
]


def make(home: Path) -> None:
    """Fill the new folder `home`: `lake`, `bundle`, `states` with `spec.json`, and keys."""
    home.mkdir(parents=True)
    world = write_world(home / "world", readers=40, articles=60)
    lake, made = Lake(home / "lake"), dict[str, Version]()
    _tables(lake, world, made)
    asof = AsOf.open(world.paths)
    spec = _checkpoint(lake, world, home, made)
    (home / "spec.json").write_text(spec.model_dump_json(indent=1))
    model = Snert.load(made["checkpoint"].path, asof)
    _indexes(lake, model, asof, made)
    _figures(lake, model, asof, made)
    _records(lake, made)
    new_key(home / "key")
    report = made["evaluation_report"]
    sign(
        walk(lake.root, [(report.ref, report.manifest_digest)]).nodes[report.manifest_digest],
        private_key(home / "key"),
        "me",
    )
    number, graph = lineage(lake.root, Address.parse("rq1.thesis.recall@20", NAME, DAY))
    write_bundle(graph, "a number", number, {"title": "a number"}, home / "bundle")


def publish(lake: Lake, ref: Ref, folder: Path, inputs: list[Version], **recipe: Any) -> Version:
    """Publish the files of a folder."""
    with lake.staging(ref) as staged:
        shutil.copytree(folder, staged.path, dirs_exist_ok=True)
        named = {str(v.ref): v for v in inputs}
        rows = {p.name: 1 for p in sorted(folder.iterdir())}
        record = {"dagster_run": "d", "mlflow_run": "m", "device": "cpu", "seconds": 1.0, "asked_by": "me"}
        return lake.publish(staged, named, f"key of {ref}", recipe, {"ml.x": "c"}, rows, CHECKS, record)


def _tables(lake: Lake, world: World, made: dict[str, Version]) -> None:
    paths, home = world.paths, world.sessions.parent
    catalogue = Catalogue.load(paths.features)
    clicks = Clicks.load(paths.interactions, catalogue)
    with lake.staging(Ref(NAME, "clicks", DAY)) as folder:
        for name, table in _daily(catalogue, clicks).items():
            where = folder.path / name
            where.mkdir()
            write_parquet(table, where / f"{name}.parquet")
            made[name] = publish(
                lake, Ref(NAME, name, "2023-05-20"), where, [], sources={"behaviors.parquet": "ab" * 32}
            )
        singles = {
            "article_features": (paths.features, DAY, ["articles"]),
            "interactions": (paths.interactions, DAY, ["clicks"]),
            "article_embeddings": (paths.content["body"][0], "2023-05-20", ["articles"]),
            "popularity_tensor": (paths.popularity, DAY, ["interactions", "article_features"]),
        }
        for name, (path, partition, inputs) in singles.items():
            where = folder.path / f"of {name}"
            where.mkdir()
            shutil.copyfile(path, where / path.name)
            made[name] = publish(lake, Ref(NAME, name, partition), where, [made[i] for i in inputs])
        spans = {"train": (START, TRAIN_END), "validation": (TRAIN_END, END)}
        where = folder.path / "sessions"
        where.mkdir()
        write_sessions(
            session_ranges(clicks.user, clicks.time, spans), where / "sessions.parquet", made["interactions"].content
        )
        made["session_splits"] = publish(lake, Ref(NAME, "session_splits", SPLIT), where, [made["interactions"]])
    shutil.copyfile(made["session_splits"].file("sessions.parquet"), home / "sessions.parquet")


def _daily(catalogue: Catalogue, clicks: Clicks) -> dict[str, pa.Table]:
    """One day's articles, clicks and impressions."""
    n, rng = len(catalogue), np.random.default_rng(1)
    texts = {
        name: [f"{name} of {i}" for i in range(n)] for name in ("title", "subtitle", "body", "category", "subcategory")
    }
    articles = pa.table(
        {
            **{name: pa.nulls(n, schema.ARTICLES.field(name).type) for name in schema.ARTICLES.names},
            schema.ARTICLE_ID: catalogue.article_id,
            schema.PUBLISHED: pa.array(catalogue.published).cast(schema.TIME),
            "published_is_first_seen": np.zeros(n, dtype=bool),
            **texts,
        }
    ).cast(schema.ARTICLES)
    order = np.argsort(clicks.time, kind="stable")
    ids = catalogue.article_id[clicks.article]
    day = pa.table(
        {
            **{name: pa.nulls(len(ids), schema.CLICKS.field(name).type) for name in schema.CLICKS.names},
            schema.USER_ID: clicks.user[order],
            schema.ARTICLE_ID: ids[order],
            schema.CLICK_TIME: pa.array(clicks.time[order]).cast(schema.TIME),
            schema.READ_TIME: clicks.read_time[order],
        }
    ).cast(schema.CLICKS)
    late = order[clicks.time[order] >= TRAIN_END][:80]
    shown = [rng.permutation(np.unique([*rng.choice(catalogue.article_id[:30], 5), ids[i]])) for i in late]
    impressions = pa.table(
        {
            **{name: pa.nulls(len(late), schema.IMPRESSIONS.field(name).type) for name in schema.IMPRESSIONS.names},
            schema.IMPRESSION_ID: np.arange(len(late)) + 1,
            schema.USER_ID: clicks.user[late],
            schema.CLICK_TIME: pa.array(clicks.time[late]).cast(schema.TIME),
            schema.INVIEW: [[int(a) for a in articles_] for articles_ in shown],
            schema.CLICKED: [[int(ids[i])] for i in late],
        }
    ).cast(schema.IMPRESSIONS)
    return {"articles": articles, "clicks": day, "impressions": impressions}


def _checkpoint(lake: Lake, world: World, home: Path, made: dict[str, Version]) -> TrainSpec:
    world.paths.impressions.append(made["impressions"].file("impressions.parquet"))
    spec = TrainSpec(
        asof=world.paths,
        sessions=world.sessions,
        sessions_digest=made["interactions"].content,
        recipe=small_recipe(steps=4, eval_every=2, validation_cases=50, batch=32),
        seed=3,
        out=home / "trained",
        device="cpu",
        train_end=TRAIN_END,
        states=home / "states",
        states_key="key",
        states_every=2,
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train(spec)
    torch.set_num_threads(threads)
    inputs = ("session_splits", "interactions", "article_features", "popularity_tensor", "article_embeddings")
    made["checkpoint"] = publish(lake, Ref(NAME, "checkpoint", SPLIT, "snert"), spec.out, [made[i] for i in inputs])
    return spec


def _indexes(lake: Lake, model: Snert, asof: AsOf, made: dict[str, Version]) -> None:
    """One of each kind, on days of their own."""
    rows = np.arange(len(asof.catalogue))
    vectors, ids = model.article_vectors(asof, END, rows), asof.catalogue.article_id
    d = vectors.shape[1]
    ivf = faiss.IndexIVFFlat(faiss.IndexFlatIP(d), d, 4, faiss.METRIC_INNER_PRODUCT)
    ivf.train(vectors)
    kinds = {"Flat": None, "IVF4,Flat": ivf, "HNSW32": faiss.IndexHNSWFlat(d, 32, faiss.METRIC_INNER_PRODUCT)}
    for number, (kind, index) in enumerate(kinds.items()):
        ref = Ref(NAME, "faiss_index", f"2023-05-{21 + number}.rolling", "snert")
        with lake.staging(ref) as staged:
            choice = build_index(vectors, ids, vectors[:5], staged.path / "out")
            if index is not None:
                index.add(vectors)
                faiss.write_index(index, str(staged.path / "out" / "index.faiss"))
                choice = {k: v for k, v in choice.items() if k != "candidates"} | {"kind": kind}
                (staged.path / "out" / "choice.json").write_text(json.dumps(choice))
            made[kind] = publish(lake, ref, staged.path / "out", [made["checkpoint"]])


def _figures(lake: Lake, model: Snert, asof: AsOf, made: dict[str, Version]) -> None:
    """Predictions, evaluations, report, decision, decay and drift."""

    def keep(ref: Ref, folder: Path, inputs: list[str]) -> Version:
        made[ref.stage] = publish(lake, ref, folder, [made[i] for i in inputs])
        return made[ref.stage]

    with lake.staging(Ref(NAME, "evaluation_report", SPLIT)) as staged:
        out = staged.path
        predict(asof, model, (TRAIN_END, END), 60, out / "lists")
        lists = keep(Ref(NAME, "predictions", SPLIT, "snert"), out / "lists", ["checkpoint", "interactions"]).path
        entry: dict[str, Any] = {
            "manifests": {},
            "curves": json.loads((made["checkpoint"].path / "curves.json").read_text()),
        }
        entry["rq1"] = evaluate_rq1(lists, lists, out / "rq1")
        entry["rq2"] = evaluate_rq2(lists, lists, out / "rq2")
        entry["rq3"] = evaluate_rq3(
            lists, lists, out / "rq3", asof, "body", made["article_features"].file("features.parquet")
        )
        for question in ("rq1", "rq2", "rq3"):
            version = keep(Ref(NAME, f"evaluation_{question}", SPLIT, "snert"), out / question, ["predictions"])
            entry["manifests"][question] = version.manifest_digest
        build_report(NAME, DAY, "rolling", {"popular_15": entry, "snert": entry}, out=out / "report")
        questions = [f"evaluation_{q}" for q in ("rq1", "rq2", "rq3")]
        keep(Ref(NAME, "evaluation_report", SPLIT), out / "report", questions)
        for stage, name, value in (
            ("promotion", "decision.json", _decision(made["checkpoint"])),
            ("decay", "decay.json", _decay(entry)),
            ("drift", "drift.json", _drift()),
        ):
            (out / stage).mkdir()
            (out / stage / name).write_text(json.dumps(value, indent=1))
            ref = Ref(NAME, stage, SPLIT if stage == "promotion" else DAY, None if stage == "drift" else "snert")
            keep(ref, out / stage, ["checkpoint"])


def _decision(checkpoint: Version) -> dict[str, Any]:
    evidence = Evidence(False, {}, {"reader": (0.5, None)}, 10.0, [])
    named = {"ref": str(checkpoint.ref), "manifest": checkpoint.manifest_digest}
    where = {"dataset": NAME, "as_of": DAY, "split": "rolling", "model": "snert", "challenger": named, "champion": None}
    return {**where, **decide(evidence, Rules()).to_json(), "figures": {}, "segments": {}}


def _decay(entry: dict[str, Any]) -> dict[str, Any]:
    measured = AtAge({q: entry[q] for q in ("rq1", "rq2", "rq3")}, {})
    rows = decay(date.fromisoformat(DAY), {0: measured}, {})
    return {"dataset": NAME, "as_of": DAY, "model": "snert", "rows": rows, "missing": [["2023-05-22", "no data yet"]]}


def _drift() -> dict[str, Any]:
    day = {"day": "2023-05-20", "clicks": 900, "gini": 0.5}
    features = [{"day": "2023-05-20", "psi": 0.1, "feature": "read_time"}]
    return {"first": "2023-05-20", "last": "2023-05-20", "days": [day], "features": features}


def _records(lake: Lake, made: dict[str, Version]) -> None:
    """Who is champion, an erased reader with a tombstone, a log that declared itself, a run that was left open."""
    champions = Champions(lake, NAME, "snert", "rolling")
    champions.promote(Title.of(made["checkpoint"]), "me", "the first")
    Book(lake.root, NAME).ask(17, "asked by letter", "me", datetime(2023, 5, 22, tzinfo=UTC), "r1")
    held = made["Flat"]
    stone = {
        **{"format": 1, "ref": str(held.ref), "version": "0" * 16, "manifest": "1" * 64, "inputs": {}},
        **{"content": "0" * 64, "at": "2023-05-22T00:00:00+00:00", "request": "r1"},
    }
    data = canonical(stone)
    (lake.folder(held.ref) / f"{'0' * 16}.erased.json").write_bytes(data)
    named = {"manifest": "1" * 64, "tombstone": hashlib.sha256(data).hexdigest()}
    ledger.append(lake.folder(held.ref) / ledger.LEDGER, {"run": {"erased": [named], "erasure": "r1"}})
    clock, days = DayClock(0, "Europe/Oslo"), (date(2023, 5, 1), date(2023, 5, 9))
    own = Dataset("mypaper", OWN, clock, *days, False, False, False, declared=True, text=())
    own_logs._remember(own, lake.root)
    with OpenRuns(lake.root / ".tracking").enter(made["checkpoint"].ref, "d") as run:
        texts = {name: {"a": "b"} for name in ("params", "tags", "inputs")}
        run.keep({**texts, "run_id": "m", "metrics": [["loss", 0.5, 1, 0]], "artifacts": ["metrics.json"]})
