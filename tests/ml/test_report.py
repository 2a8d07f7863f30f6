"""The report: form of report.json, the page's content and safety, published figures, the terminal table."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from ml import published
from ml.evaluate import CONVENTIONS, evaluate_rq1, evaluate_rq2, evaluate_rq3
from ml.models import model_spec
from ml.predict import predict
from ml.report import build_report, text_table
from ml.report_tables import tables
from ml.segment_tables import segment_text
from tests.ml.worlds import end_ms, tiny_world

MODELS = ("popular_15", "popular_15_paper_window", "random")
CURVES = [{"step": 1.0, "loss": 3.0}, {"step": 2.0, "loss": 2.0, "erank_user": 0.5, "recall@20": 0.25}]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Metrics of three baselines on a small world, as build_report takes them; `random` poses as trained."""
    home, world = tmp_path_factory.mktemp("report"), tiny_world(seed=2, n_users=50, n_articles=60)
    for name in MODELS:
        predict(world, model_spec(name).load(None), (end_ms() - 86_400_000, end_ms()), 60, home / name)
    models = {}
    for name in MODELS:
        base = None if name == "popular_15" else home / "popular_15"
        models[name] = {
            "rq1": evaluate_rq1(home / name, base, home / "out"),
            "rq2": evaluate_rq2(home / name, base, home / "out"),
            "rq3": evaluate_rq3(home / name, base, home / "out", world, "body"),
            "manifests": {"rq1": f"digest-1-{name}", "rq2": f"digest-2-{name}", "rq3": f"digest-3-{name}"},
        }
    models["random"]["curves"] = CURVES
    return models


@pytest.fixture(scope="module")
def folder(measured, tmp_path_factory):
    out = tmp_path_factory.mktemp("page")
    build_report("simulated", "2023-05-21", "rolling", measured, ["a note"], {"torch": "2"}, out=out)
    return out


@pytest.fixture
def report(folder):
    return json.loads((folder / "report.json").read_text())


def entry(value, low=0.0, high=1.0):
    return {"value": value, "low": low, "high": high, "n": 9, "readers": 3, "left_out": 0}


def rq1(value, difference=None):
    """metrics.json of RQ1 with one protocol and one metric."""
    paired = {} if difference is None else {"thesis": {"recall@20": entry(0) | {"difference": difference[0]}}}
    if difference is not None:
        paired["thesis"]["recall@20"] |= {"low": difference[1], "high": difference[2]}
    span = {"n_cases": 9, "n_minutes": 3, "n_minutes_total": 4}
    found = {"rq": "rq1", "conventions": CONVENTIONS["rq1"], "span": span, "counts": {"thesis": {"lists": 9}}}
    return found | {"protocols": {"thesis": {"recall@20": entry(value)}}, "paired": paired}


def test_form_of_the_json(report, measured):
    assert {"dataset", "as_of", "split", "models"} <= set(report)
    for name in MODELS:
        model = report["models"][name]
        for protocol, metrics in measured[name]["rq1"]["protocols"].items():
            assert model["rq1"][protocol] == metrics
            assert {"value", "low", "high"} <= set(model["rq1"][protocol]["recall@20"])
        assert model["rq2"] == measured[name]["rq2"]["protocols"]["in_view"]
        assert model["rq3"] == measured[name]["rq3"]["protocols"]["thesis"]
        assert model["manifest"] == measured[name]["manifests"]
    assert report["models"]["random"]["paired"]["rq2"] == measured["random"]["rq2"]["paired"]["in_view"]
    assert report["models"]["popular_15"]["paired"]["rq3"] == {}
    assert report["simulated"] is True and report["notes"][-1] == "a note"


def test_same_input_same_bytes(folder, measured, tmp_path):
    found = build_report("simulated", "2023-05-21", "rolling", measured, ["a note"], {"torch": "2"}, out=tmp_path)
    assert json.loads((tmp_path / "report.json").read_text()) == found
    for name in ("report.json", "report.html"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


class Page(HTMLParser):
    """Tags and attributes of a page; complains of tags that do not close in order."""

    VOID = ("meta", "br", "link", "img")

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.text = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_stands_alone(folder):
    page = Page((folder / "report.html").read_text())
    tags = [tag for tag, _ in page.seen]
    assert "script" not in tags and "link" not in tags and "img" not in tags
    for _, attributes in page.seen:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert tags.count("svg") == 3  # Recall@20, categories, training curves
    assert not re.search(r"url\((?!#)", (folder / "report.html").read_text())


def test_every_figure_names_its_manifest(folder):
    page = Page((folder / "report.html").read_text())
    titles = {attributes["title"] for tag, attributes in page.seen if tag == "td" and "title" in attributes}
    for name in MODELS:
        for number in (1, 2, 3):
            assert f"{name}, evaluation_rq{number}, manifest digest-{number}-{name}" in titles
    text = " ".join(page.text)
    assert "digest-3-random" in text and "simulated data" in text
    assert "another dataset" in text and "Tab. 5.2" in text and "Tab. A.6" in text


def test_own_dataset_is_not_called_another(measured, tmp_path):
    report = build_report("ebnerd", "2023-05-21", "thesis", measured, out=tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert "another dataset" not in html and 'class="badge"' not in html
    assert report["published"]["label"] == "EB-NeRD large, as published; comparable only with a run on that bundle"


def test_the_artefact_of_globo_is_told(tmp_path):
    report = build_report("globo", "2017-10-11", "rolling", {"popular_15": {"rq1": rq1(0.5)}}, out=tmp_path)
    assert "exactly 30 s" in report["notes"][0] and "exactly 30 s" in (tmp_path / "report.html").read_text()
    assert "exactly 30 s" in " ".join(text_table(report).split())
    assert "RQ2" not in (tmp_path / "report.html").read_text().replace("RQ1 and RQ2", "")


MADE = "synthetic: uniform among clicks of the last 60 min, 6 long, seed 1"


def test_lists_that_nobody_was_shown_are_marked_in_every_table_and_drawing(measured, tmp_path):
    figures = {"rq1": {"thesis": {"readers": {"new": {"lists": 2, "readers": 1, "recall@20": entry(0.5)}}}}}
    figures |= {"rq2": {"readers": {"new": {"lists": 2, "readers": 1, "auc": entry(0.5)}}}, "rq3": {}}
    segments = {"rq": "segments", "conventions": {}, "left_out": {}, "protocols": {"all": figures}, "span": {}}
    label = {"synthetic_inview": MADE}
    models = {n: m | {"rq2": m["rq2"] | label, "segments": segments | label} for n, m in measured.items()}
    models["random"] |= {"curves": [point | {"auc": 0.5} for point in CURVES]}
    report = build_report("globo", "2017-10-05", "rolling", models, out=tmp_path)
    html, text = (tmp_path / "report.html").read_text(), text_table(report)
    assert ">AUC (synthetic)</text>" in html and ">AUC</text>" not in html, "training curves"
    assert '<th scope="row">random (synthetic)</th>' in html and "<th>AUC (synthetic)</th>" in html
    assert "synthetic in-view lists</span>" in html and MADE in html
    assert segment_text(report, "readers").splitlines()[0].rstrip().endswith("AUC (synthetic)")
    shown = text.split("RQ2: ")[1].split("RQ3: ")[0]
    rows = [line for line in shown.splitlines() if line.startswith(MODELS)]
    assert len(rows) == len(MODELS) and all("(synthetic)" in row for row in rows)
    assert "synthetic" not in text_table(report | {"synthetic_inview": "", "notes": []})


def test_what_the_oracle_does_not_hold_is_left_out_with_the_reason(measured, tmp_path):
    why = "the oracle holds 3 of the 9 in-view lists"
    models = {n: m | {"rq2": m["rq2"] | {"left_out": {"share_of_signal": why}}} for n, m in measured.items()}
    report = build_report("simulated", "2023-05-21", "rolling", models, out=tmp_path)
    assert report["models"]["random"]["left_out"]["share_of_signal"] == why
    assert f"Left out: Share of the oracle's signal: {why}." in text_table(report)
    rq2 = (tmp_path / "report.html").read_text().split("<h2>RQ2")[1].split("<h2>RQ3")[0]
    assert f"Share of the oracle&#39;s signal is left out: {why}." in rq2


def test_text_from_outside_is_escaped(measured, tmp_path):
    evil = "<script>alert(1)</script>"
    models = {evil: dict(measured["random"], manifests={"rq1": evil})}
    build_report("simulated", evil, evil, models, [evil], {evil: evil}, out=tmp_path)
    assert "<script" not in (tmp_path / "report.html").read_text()


def test_best_and_verdicts(tmp_path):
    models = {
        "popular_15": {"rq1": rq1(0.5)},
        "popular_15_paper_window": {"rq1": rq1(0.9, (0.4, 0.3, 0.5))},
        "better": {"rq1": rq1(0.6, (0.1, 0.05, 0.15))},
        "alike": {"rq1": rq1(0.51, (0.01, -0.05, 0.07))},
        "worse": {"rq1": rq1(0.4, (-0.1, -0.15, -0.05))},
        "unknown": {"rq1": rq1(None)},
    }
    report = build_report("globo", "2017-10-11", "rolling", models, out=tmp_path)
    cells = {name: row[0] for name, row in tables(report)[0].rows}
    assert [name for name, cell in cells.items() if cell.best] == ["better"]
    verdicts = {name: cell.verdict for name, cell in cells.items()}
    assert (verdicts["popular_15"], verdicts["better"], verdicts["alike"], verdicts["worse"]) == (
        "",
        "up",
        "even",
        "down",
    )
    assert cells["unknown"].value == "–"
    assert (cells["better"].value, cells["better"].interval) == ("0.6000", "[0.0000, 1.0000]")
    assert (cells["better"].difference, cells["better"].bounds) == ("+0.1000", "[+0.0500, +0.1500]")
    text = text_table(report)
    assert re.search(r"0\.6000 \[0\.0000, 1\.0000\] +\+0\.1000\*", text)
    assert "+0.0100" in text and "+0.0100*" not in text


def test_terminal_table_fits_and_shows_published_figures(report):
    text = text_table(report, width=120)
    assert max(map(len, text.splitlines())) <= 120
    assert re.search(r"\(SNeRT\)\s+0\.7700\s+0\.3230", text)
    recall = report["models"]["random"]["rq1"]["thesis"]["recall@20"]
    assert f"{recall['value']:.4f} [{recall['low']:.4f}, {recall['high']:.4f}]" in text


def test_published_figures_are_those_of_document_1():
    by_key = {(f.metric, f.model): (f.value, f.table) for f in published.FIGURES}
    assert by_key["recall@20", "SNeRT"] == (0.770, "Tab. 5.2")
    assert by_key["ndcg@20", "Most Popular"] == (0.299, "Tab. 5.2")
    assert by_key["auc", "Ensemble"] == (0.8220, "Tab. 5.3")
    assert by_key["coverage", "SNeRT"] == (0.1381, "Tab. 5.4")
    for shares in published.CATEGORIES.values():
        assert sum(shares.values()) == pytest.approx(1, abs=2e-4)
    change = {c: published.CATEGORIES["SNeRT"][c] - x for c, x in published.CATEGORIES["Most Popular"].items()}
    deltas = [0.0183, -0.0314, 0.0032, -0.0077, 0.0342, 0.0077, -0.0244]  # the table's own third row
    np.testing.assert_allclose(list(change.values()), deltas, atol=1e-9)
