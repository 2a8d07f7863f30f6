"""The dataset analysis: every number against plain loops on small logs, what is left out and why, the page."""

import json
import math
import re
import shutil
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml import published, schema
from ml.analysis import page
from ml.analysis.drawings import drawings
from ml.analysis.log import Articles, SpanFiles
from ml.analysis.measure import analyse
from ml.clock import MS_PER_DAY, MS_PER_HOUR, MS_PER_MINUTE
from ml.datasets import dataset
from ml.errors import DataError
from ml.harmless import for_spreadsheets
from ml.popularity_skew import GRID
from ml.readers import reader

LOG = dataset("ebnerd")
FIRST = date(2023, 5, 1)
START = LOG.clock.start(FIRST)
CATEGORIES = ("sport", "news", None)


class World:
    """A random log of `days`: articles (id, published, first seen, category), clicks (time, user, article) and
    impressions (time, in view, clicked), as plain lists and as the canonical files of each day."""

    def __init__(self, home, seed=1, days=(0, 1, 3), categories=CATEGORIES, shown=True, size=40):
        rng = np.random.default_rng(seed)
        self.days = [FIRST + timedelta(days=d) for d in days]
        spans = [(LOG.clock.start(d), LOG.clock.end(d)) for d in self.days]
        born = sorted(int(rng.integers(*spans[i])) for i in rng.integers(0, len(days), size))
        self.articles = [
            (100 + 7 * (i * 13 % size), t, i % 9 == 0, categories[i % len(categories)]) for i, t in enumerate(born)
        ]
        self.articles.insert(0, (5, START - 3 * MS_PER_DAY, False, categories[0]))
        self.clicks = []
        for start, end in spans:
            for t in rng.integers(start, end, 900).tolist():
                known = [a for a in self.articles if a[1] < end]
                index = min(int(rng.exponential(size / 12)), len(known) - 1)
                self.clicks.append((t, int(rng.integers(0, 60)), known[-1 - index][0]))
        self.clicks += [(spans[0][1] - 5, 3, 9999), (spans[-1][0] + 5, 3, 9999)]
        self.clicks = sorted(set(self.clicks))
        some = self.clicks[::4] if shown else []
        self.impressions = [(t, [a, 5, 9999][: 1 + t % 3], [a] if t % 2 else []) for t, _, a in some]
        self.files = self._write(home)

    def _write(self, home):
        paths = {table: {} for table in ("articles", "clicks", "impressions")}
        for i, day in enumerate(self.days):
            start, end = (-math.inf if i == 0 else LOG.clock.start(day)), LOG.clock.end(day)
            rows = {
                "articles": [
                    {"article_id": a, "published": t, "published_is_first_seen": f, "category": c}
                    for a, t, f, c in self.articles
                    if start <= t < end
                ],
                "clicks": [{"time": t, "user_id": u, "article_id": a} for t, u, a in self.clicks if start <= t < end],
                "impressions": [
                    {"time": t, "impression_id": t, "user_id": 1, "inview": v, "clicked": c}
                    for t, v, c in self.impressions
                    if start <= t < end
                ],
            }
            for table, found in rows.items():
                paths[table][day] = home / f"{table}-{day}.parquet"
                columns = {"articles": schema.ARTICLES, "clicks": schema.CLICKS, "impressions": schema.IMPRESSIONS}[
                    table
                ]
                pq.write_table(pa.Table.from_pylist(found, schema=columns), paths[table][day])
        return SpanFiles(LOG, **paths)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def found(world):
    return analyse(world.files)


def value(found, name):
    return found.report["measures"][name]["value"]


def test_sizes_and_days(world, found):
    assert value(found, "clicks") == len(world.clicks)
    assert value(found, "readers") == len({u for _, u, _ in world.clicks})
    assert value(found, "articles") == len(world.articles) + 1  # and the clicked one that no table lists
    assert value(found, "articles_clicked") == len({a for _, _, a in world.clicks})
    assert found.report["span"]["days_without_data"] == 1
    seen_users, seen_articles = set(), set()
    for row, day in zip(found.tables["days"].to_pylist(), world.days, strict=True):
        start, end = LOG.clock.start(day), LOG.clock.end(day)
        today = [c for c in world.clicks if start <= c[0] < end]
        users, articles = {u for _, u, _ in today}, {a for _, _, a in today}
        known = {a: t for a, t, _, _ in world.articles}
        ages = [(t - known[a]) // MS_PER_MINUTE for t, _, a in today if a in known and t >= known[a]]
        assert row == {
            "day": day,
            "clicks": len(today),
            "readers": len(users),
            "readers_first": len(users - seen_users),
            "published": sum(start <= t < end for _, t, _, _ in world.articles),
            "catalogue": sum(t < end for _, t, _, _ in world.articles),
            "articles_clicked": len(articles),
            "articles_clicked_first": len(articles - seen_articles),
            "median_age_minutes": float(np.median(ages)),
        }
        seen_users |= users
        seen_articles |= articles


def windows(world):
    """Counts by article in the 15 minutes before each minute of the span, from its 16th on, and the next clicks."""
    end = LOG.clock.end(world.days[-1])
    by_minute = {}
    for t, _, a in world.clicks:
        by_minute.setdefault(t // MS_PER_MINUTE, []).append(a)
    for minute in range(START // MS_PER_MINUTE + 15, end // MS_PER_MINUTE):
        counts = Counter(a for m in range(minute - 15, minute) for a in by_minute.get(m, ()))
        yield minute, counts, by_minute.get(minute, [])


def test_inequality_against_plain_loops(world, found):
    ginis, tops, hits, following, empty = [], [], 0, 0, 0
    place = {a: i for i, (a, *_) in enumerate(sorted(world.articles, key=lambda r: (r[1], r[0])))} | {9999: 10**6}
    popular = Counter()
    category = {a: c for a, _, _, c in world.articles}
    for _, counts, then in windows(world):
        if not counts:
            empty += 1
            continue
        n, total = len(counts), sum(counts.values())
        pairs = sum(abs(x - y) for x in counts.values() for y in counts.values())
        ginis.append(pairs / (2 * n * total))
        tops.append(sum(sorted(counts.values())[-5:]) / total)
        best = sorted(counts, key=lambda a: (-counts[a], -place[a]))
        hits, following = hits + sum(a in best[:5] for a in then), following + len(then)
        for a in best[:20]:
            popular[category.get(a) or "unknown"] += len(then)
    assert value(found, "gini") == pytest.approx(np.mean(ginis))
    assert found.report["gini_sigma"] == pytest.approx(np.std(ginis))
    assert value(found, "top_5_share") == pytest.approx(np.mean(tops))
    assert value(found, "top_5_share_next") == pytest.approx(hits / following)
    assert empty and f"{empty:,} without clicks" in found.report["measures"]["gini"]["basis"]
    lorenz = found.tables["lorenz"].to_pydict()
    assert lorenz["articles"] == GRID.tolist()
    assert 1 - 2 * np.trapezoid(lorenz["clicks"], GRID) == pytest.approx(value(found, "gini"), abs=1e-3)
    shares = {r["category"]: r["most_popular"] for r in found.tables["categories"].to_pylist()}
    assert shares == pytest.approx({c: popular[c] / popular.total() for c in shares})


def test_lifespans_against_sorted_lists(world, found):
    end = LOG.clock.end(world.days[-1])
    expected = {}
    for article, born, first_seen, _ in world.articles:
        times = sorted(t for t, _, a in world.clicks if a == article and t >= born)
        earliest = START + MS_PER_DAY if first_seen else START
        if times and earliest <= born <= end - MS_PER_DAY:
            expected[article] = (len(times), (times[math.ceil(0.9 * len(times)) - 1] - born) / MS_PER_HOUR)
    got = {r["article_id"]: (r["clicks"], r["hours"]) for r in found.tables["lifespans"].to_pylist()}
    assert got == expected and any(f for a, _, f, _ in world.articles if a in expected)
    for least in (1, 20):
        name = "lifecycle_median_hours" if least == 1 else f"lifecycle_median_hours_{least}"
        assert value(found, name) == pytest.approx(np.median([h for n, h in expected.values() if n >= least]))


def test_freshness_against_a_sorted_list(world, found):
    known = {a: t for a, t, _, _ in world.articles}
    ages = sorted((t - known[a]) // MS_PER_MINUTE for t, _, a in world.clicks if a in known and t >= known[a])
    for q, name in ((0.25, "click_age_hours_25"), (0.5, "click_age_median_hours"), (0.75, "click_age_hours_75")):
        assert value(found, name) * 60 == pytest.approx(ages[math.ceil(q * len(ages)) - 1])
    assert value(found, "younger_than_4_h") == pytest.approx(sum(a < 240 for a in ages) / len(ages))
    table = found.tables["click_ages"].to_pylist()
    for row in table:
        high = math.inf if row["to_minutes"] is None else row["to_minutes"]
        assert row["clicks"] == sum(row["from_minutes"] <= a < high for a in ages)
    assert table[-1]["share_up_to"] == pytest.approx(1)
    early = sum(t < known[a] for t, _, a in world.clicks if a in known)
    assert early and any(n.startswith(f"{early:,} clicks precede") for n in found.report["notes"])
    assert any(n.startswith("1 clicked articles are in no article table") for n in found.report["notes"])


def test_categories_readers_and_impressions(world, found):
    category = {a: c for a, _, _, c in world.articles}
    rows = {r["category"]: r for r in found.tables["categories"].to_pylist()}
    clicked = Counter(category.get(a) or "unknown" for _, _, a in world.clicks)
    inview = Counter(category.get(a) or "unknown" for _, v, _ in world.impressions for a in v)
    born = Counter(c or "unknown" for _, t, _, c in world.articles if t >= START)
    for name, row in rows.items():
        assert row["clicks"] == pytest.approx(clicked[name] / clicked.total())
        assert row["in_view"] == pytest.approx(inview[name] / inview.total())
        assert row["published"] == pytest.approx(born[name] / born.total())
    assert set(rows) == {"sport", "news", "unknown"}
    by_reader = Counter(u for _, u, _ in world.clicks)
    assert value(found, "clicks_per_reader") == np.median(list(by_reader.values()))
    binned = found.tables["clicks_per_reader"].to_pylist()
    assert [r["readers"] for r in binned] == [
        sum(r["from"] <= n <= r["to"] for n in by_reader.values()) for r in binned
    ]
    rhythm = found.tables["rhythm"].to_pydict()
    assert sum(rhythm["clicks"]) == len(world.clicks) and sum(rhythm["hours_covered"]) == 24 * len(world.days)
    hour = Counter()
    for t, _, _ in world.clicks:  # Copenhagen keeps summer time, UTC + 2, in May
        local = datetime.fromtimestamp(t / 1000, UTC) + timedelta(hours=2)
        hour[local.isoweekday(), local.hour] += 1
    got = dict(zip(zip(rhythm["weekday"], rhythm["hour"], strict=True), rhythm["clicks"], strict=True))
    assert {k: n for k, n in got.items() if n} == dict(hour)
    lengths = [len(v) for _, v, _ in world.impressions]
    assert value(found, "inview_median") == sorted(lengths)[math.ceil(len(lengths) / 2) - 1]
    clicks = [len(c) for _, _, c in world.impressions]
    assert value(found, "clicks_per_impression") == pytest.approx(sum(clicks) / len(clicks))
    assert value(found, "without_click") == pytest.approx(clicks.count(0) / len(clicks))


def test_lifespans_by_category_take_the_next_number_of_clicks(tmp_path):
    world = World(tmp_path, seed=2, days=(0, 1, 2, 3), size=80)
    lots = [(t + k, u, a) for t, u, a in world.clicks for k in range(4)]
    world.clicks = sorted(set(lots))
    found = analyse(world._write(tmp_path))
    told = found.report["lifespans_by_category"]
    lives = [r for r in found.tables["lifespans"].to_pylist() if r["category"] is not None]
    assert told["articles"] == {str(n): sum(r["clicks"] >= n for r in lives) for n in (1000, 100, 20)}
    assert told["least_clicks"] == next(n for n in (1000, 100, 20) if told["articles"][str(n)] >= 30)
    for row in found.tables["lifespans_by_category"].to_pylist():
        hours = [r["hours"] for r in lives if r["category"] == row["category"] and r["clicks"] >= row["least_clicks"]]
        assert row["articles"] == len(hours) and row["hours_50"] == pytest.approx(np.median(hours))
    density = found.tables["lifespan_density"].to_pandas()
    for _, part in density.groupby("category"):
        assert 0.3 < np.trapezoid(part["density"], part["hours"]) < 1.0001


def test_what_the_columns_do_not_allow_is_left_out_with_a_reason(tmp_path):
    found = analyse(World(tmp_path, categories=(None,), shown=False).files)
    left_out = found.report["left_out"]
    assert left_out["categories"] == left_out["lifespans_by_category"] == "no article of the log has a category"
    assert left_out["impressions"] == "the span holds no impressions"
    assert "canonical tables" in left_out["front_page_share"]
    assert not {"categories", "inview", "lifespan_density"} & set(found.tables)
    assert "inview_median" not in found.report["measures"]
    html = page.render(found)
    assert "no article of the log has a category" in html and "Fig. A.2)</h2>" not in html


MADE = "synthetic: uniform among clicks of the last 60 min, 3 long, seed 1"


def test_lists_that_nobody_was_shown_are_marked_wherever_they_appear(world, found, tmp_path):
    """Every figure that rests on impressions, in report, tables, drawings, page and terminal; and nothing else."""
    paths = {}
    for day, path in world.files.impressions.items():
        table = pq.read_table(path)
        place = table.schema.get_field_index(schema.SYNTHETIC)
        label = pa.array([MADE] * len(table), pa.string())
        paths[day] = tmp_path / path.name
        pq.write_table(table.set_column(place, schema.SYNTHETIC, label), paths[day])
    made = analyse(replace(world.files, impressions=paths))
    assert made.report[schema.SYNTHETIC] == MADE and found.report[schema.SYNTHETIC] == ""
    rests = {"clicks_per_impression", "inview_median", "without_click"}
    for name, entry in made.report["measures"].items():
        assert ("synthetic" in entry["label"] + entry["basis"]) == (name in rests), name
        assert entry["value"] == value(found, name)
    assert set(made.tables["inview"][schema.SYNTHETIC].to_pylist()) == {MADE}
    assert set(found.tables["inview"][schema.SYNTHETIC].to_pylist()) == {None}
    shares = made.tables["categories"], found.tables["categories"]
    assert "in_view_synthetic" in shares[0].column_names and "in_view" not in shares[0].column_names
    assert shares[0]["in_view_synthetic"].equals(shares[1]["in_view"])
    (drawing,) = [d for d in drawings(made) if "categories" in d.tables]
    assert ">in view (synthetic)</text>" in drawing.svg and "in view (synthetic)" in drawing.caption
    html, text = page.render(made), page.text_table([made.report])
    assert "synthetic in-view lists" in html and MADE in html and "<th>in view synthetic</th>" in html
    lines = [line for line in text.splitlines() if "impression" in line or "in view" in line]
    assert len(lines) == 4 and all("(synthetic)" in line or MADE in line for line in lines)
    assert "synthetic" not in page.render(found) + page.text_table([found.report])


def test_one_day_has_no_lifecycle(world):
    day = world.days[0]
    one = SpanFiles(LOG, world.files.articles, {day: world.files.clicks[day]}, {})
    found = analyse(one)
    assert "24 hours before its end" in found.report["left_out"]["lifecycle_median_hours"]
    assert "lifecycle" not in found.tables and found.report["span"]["days"] == 1
    assert {"Lorenz curve (Fig. 3.2)", "Freshness of clicks"} <= {d.title for d in drawings(found)}
    assert "Article lifecycle (Fig. 3.1)" not in {d.title for d in drawings(found)}


def test_a_day_without_clicks(world, tmp_path):
    path = tmp_path / "empty.parquet"
    pq.write_table(schema.CLICKS.empty_table(), path)
    found = analyse(SpanFiles(LOG, world.files.articles, {world.days[0]: path}, {}))
    left_out = found.report["left_out"]
    assert "no 15 minutes" in left_out["gini"] and "known publication time" in left_out["click_age_median_hours"]
    assert value(found, "clicks") == 0
    assert "dataset analysis" in page.render(found)


def test_no_days_is_one_clear_line():
    with pytest.raises(DataError, match="no day of the span holds data"):
        SpanFiles(LOG, {}, {}, {})


def test_clicks_out_of_order_are_refused(world, tmp_path):
    day = world.days[0]
    table = pq.read_table(world.files.clicks[day])
    pq.write_table(table.take(list(reversed(range(len(table))))), tmp_path / "clicks.parquet")
    with pytest.raises(DataError, match="order of time"):
        analyse(replace(world.files, clicks={day: tmp_path / "clicks.parquet"}))


def test_an_article_listed_twice_counts_once(world, tmp_path):
    days = world.files.articles
    twice = pa.concat_tables([pq.read_table(days[world.days[0]])] * 2)
    pq.write_table(twice, tmp_path / "articles.parquet")
    files = replace(world.files, articles={**days, world.days[0]: tmp_path / "articles.parquet"})
    assert len(Articles.read(files)) == len(world.articles) + 1


def test_same_log_same_bytes(world, found):
    again = analyse(world.files)
    assert json.dumps(again.report) == json.dumps(found.report)
    assert all(again.tables[name].equals(table) for name, table in found.tables.items())
    assert page.render(again) == page.render(found)


def test_the_page_stands_alone_and_shows_the_published_values(found):
    html = page.render(found)
    assert "<script" not in html and "<link" not in html and "<img" not in html
    assert not re.search(r'(?:src|href)="(?!#)', html) and not re.search(r"url\((?!#)", html)
    assert "0.918 (Sec. 3.2.2)" in html and "0.425 (Sec. 3.2.2); 0.4222 (Sec. 5.2.1)" in html
    assert f"{value(found, 'gini'):.4f}"[:5] in html and "0.2933" in html
    for name in found.tables:
        assert f"<code>{name}</code>" in html
    titles = [d.title for d in drawings(found)]
    assert html.count("<svg") == len(titles) == len(set(titles))


def test_names_from_the_log_are_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    assert "<script" not in page.render(analyse(World(tmp_path, categories=(evil, "a")).files))


def test_control_characters_in_names_are_replaced(tmp_path):
    html = page.render(analyse(World(tmp_path, categories=("a\x00b\x1b[31mc\u202ed", "a")).files))
    assert "a\ufffdb\ufffd[31mc\ufffdd" in html
    assert not re.search("[\\x00-\\x08\\x0b-\\x1f\\x7f\\u202e]", html)


def test_names_that_look_like_formulas_are_drawn_as_they_are(tmp_path):
    html = page.render(analyse(World(tmp_path, categories=("$\\frac{$", "_a$^$b")).files))
    bars, table = html.count("$\\frac{$"), html.count("<td>$\\frac{$</td>")
    assert bars > table > 0 and html.count("_a$^$b") > html.count("<td>_a$^$b</td>") > 0


def test_cells_that_a_spreadsheet_would_reckon_with_are_marked():
    texts = ["=1+1", "+1", "-1", "@a", "\ta", "\ra", "a=1", "'=1", "", None]
    table = pa.table({"t": texts, "u": pa.array(texts, pa.large_string()), "n": pa.array(range(-5, 5))})
    made = for_spreadsheets(table)
    assert made.schema == table.schema and made["n"].equals(table["n"])
    wanted = [f"'{t}" if i < 6 else t for i, t in enumerate(texts)]
    assert made["t"].to_pylist() == made["u"].to_pylist() == wanted


def test_terminal_table_of_two_spans(found, world):
    day = world.days[0]
    one = analyse(SpanFiles(LOG, world.files.articles, {day: world.files.clicks[day]}, {})).report
    lines = page.text_table([one, found.report]).splitlines()
    (gini,) = [line for line in lines if line.startswith("Gini of clicks in 15 minutes")]
    values = [page.number(r["measures"]["gini"]["value"], "share") for r in (one, found.report)]
    assert re.search(rf"{values[0]}\s+{values[1]}\s+0\.918", gini)
    (lived,) = [line for line in lines if line.startswith("median lifecycle, articles with at least 1 click ")]
    assert "–" in lived and "5.30 h (Sec. 3.2.1)" in lived
    assert any(line.startswith("Left out: front_page_share") for line in lines)


def test_published_descriptions_are_those_of_document_1():
    quoted = {(f.measure, f.where[:10]): f.value for f in published.DATASET_FIGURES}
    assert quoted["gini", "Sec. 3.2.2"] == 0.918
    assert quoted["top_5_share", "Sec. 3.2.2"] == 0.425 and quoted["top_5_share", "Sec. 5.2.1"] == 0.4222
    assert quoted["lifecycle_median_hours", "Sec. 3.2.1"] == 5.3


@pytest.mark.real
def test_a_day_of_globo_against_polars(real_data, tmp_path):
    """Twenty-four hours of the real log through the reader, and the same figures from the CSV files by other code."""
    root = tmp_path / "log" / "clicks"
    root.mkdir(parents=True)
    for hour in range(24):
        shutil.copy(real_data("globo") / "clicks" / f"clicks_hour_{hour:03d}.csv.gz", root)
    globo = dataset("globo")
    days = reader("globo").split(tmp_path / "log", globo, tmp_path / "days")[:1]
    paths = {table: {} for table in ("articles", "clicks", "impressions")}
    for day in days:
        tables = reader("globo").tables(tmp_path / "days" / str(day), globo, day)
        for name in paths:
            paths[name][day] = tmp_path / f"{name}-{day}.parquet"
            pq.write_table(getattr(tables, name), paths[name][day])
    found = analyse(SpanFiles(globo, **paths))
    start, end = globo.clock.start(days[0]), globo.clock.end(days[0])
    raw = pl.concat(pl.read_csv(path) for path in sorted(root.glob("*.csv.gz")))
    raw = raw.rename({"click_article_id": "a", "click_timestamp": "t", "user_id": "u"}).select("a", "t", "u").unique()
    raw = raw.filter((pl.col("t") >= start) & (pl.col("t") < end))
    assert value(found, "clicks") == len(raw) > 50_000
    minute = raw.with_columns(m=pl.col("t") // MS_PER_MINUTE)
    spread = minute.select("a", m=pl.int_ranges(pl.col("m") + 1, pl.col("m") + 16)).explode("m")
    spread = spread.filter((pl.col("m") >= start // MS_PER_MINUTE + 15) & (pl.col("m") < end // MS_PER_MINUTE))
    counts = spread.group_by("m", "a").len().sort("m", "len", "a")
    ranked = counts.with_columns(i=pl.int_range(1, pl.len() + 1).over("m"))
    window = ranked.group_by("m").agg(
        gini=(2 * pl.col("i") - pl.len() - 1).cast(pl.Int64).dot(pl.col("len").cast(pl.Int64))
        / (pl.len() * pl.col("len").sum()),
        top=pl.col("len").tail(5).sum() / pl.col("len").sum(),
    )
    assert value(found, "gini") == pytest.approx(window["gini"].mean())
    assert value(found, "top_5_share") == pytest.approx(window["top"].mean())
    first = raw.with_columns(age=(pl.col("t") - pl.col("t").min().over("a")) // MS_PER_MINUTE)
    assert value(found, "younger_than_1_h") == pytest.approx((first["age"] < 60).mean())
    assert any("35," not in note and "no publication time" in note for note in found.report["notes"])
    assert "lifecycle_median_hours" in found.report["left_out"]  # one day covers no life
