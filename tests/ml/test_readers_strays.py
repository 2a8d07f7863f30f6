"""Entries that no reader takes: all are named, slips of the pen with what was meant, neighbours without a cry."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ml.readers import READERS
from ml.readers.strays import strays

NAMES = {name: layout.names for name, layout in READERS.items()}
LOG = {
    "ebnerd": ("train/behaviors.parquet", "validation/history.parquet", "articles.parquet"),
    "globo": ("clicks/clicks_hour_000.csv.gz", "clicks/clicks_hour_001.csv"),
    "mind": ("train/behaviors.tsv", "train/news.tsv"),
    "own": ("log.toml", "clicks.parquet"),
}
"""Files of a log in each layout, which are read."""


def write(root: Path, names: Iterable[str]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def found(root: Path, layout: str, *more: str) -> dict[str, tuple[str, bool]]:
    """What was meant, and whether it is missing, by stray entry."""
    write(root, (*LOG[layout], *more))
    return {s.name: (s.meant, s.vacant) for s in READERS[layout].strays(root)}


@pytest.mark.parametrize(
    ("layout", "entry", "meant"),
    [
        ("own", "impression.parquet", "impressions.parquet"),
        ("own", "Impressions.parquet", "impressions.parquet"),
        ("own", "impresions.parquet", "impressions.parquet"),
        ("own", "articles.csv", "articles.parquet"),
        ("own", "news_articles.parquet", "articles.parquet"),
        ("own", "article/a.parquet", "articles/"),
        ("own", "articles/a.csv", "articles/a.parquet"),
        ("own", "articles.parquet.part", "articles.parquet"),
        ("own", "articles/2023/a.parquet", "articles/a.parquet"),
        ("ebnerd", "train/behaviours.parquet", None),
        ("ebnerd", "train/histories.parquet", "train/history.parquet"),
        ("ebnerd", "validation/behaviours.parquet", "validation/behaviors.parquet"),
        ("ebnerd", "tests/behaviors.parquet", "test/"),
        ("ebnerd", "ebnerd_test/behaviors.parquet", "test/"),
        ("ebnerd", "test.zip", "test/"),
        (
            "ebnerd",
            "dev/behaviors.parquet",
            "train/behaviors.parquet, validation/behaviors.parquet or test/behaviors.parquet",
        ),
        ("globo", "clicks/clickshour_002.csv", "clicks/clicks_hour_002.csv"),
        ("globo", "clicks/clickshour_002.csv.gz", "clicks/clicks_hour_002.csv.gz"),
        ("globo", "clicks/clicks_hour_002.CSV", "clicks/clicks_hour_002.csv"),
        ("globo", "clicks/clicks_hour_002.csv.part", "clicks/clicks_hour_002.csv"),
        ("globo", "clicks_hour_002.csv", "clicks/clicks_hour_002.csv"),
        ("globo", "click/x", None),
        ("globo", "article_metadata.csv", "articles_metadata.csv"),
        ("globo", "articles_metadata.csv.gz", "articles_metadata.csv"),
        ("mind", "valid/behaviors.tsv", "train/, dev/ or test/"),
        ("mind", "MINDsmall_dev/behaviors.tsv", "dev/"),
        ("mind", "dev/behavior.tsv", "dev/behaviors.tsv"),
        ("mind", "dev/behaviors.csv", "dev/behaviors.tsv"),
    ],
)
def test_a_slip_is_told_with_what_was_meant(tmp_path: Path, layout: str, entry: str, meant: str | None) -> None:
    told = found(tmp_path, layout, entry)
    ((_, (said, vacant)),) = told.items()
    if meant is None:  # the name that was meant is read already
        assert said and not vacant
    else:
        assert (said, vacant) == (meant, True)


@pytest.mark.parametrize("layout", sorted(LOG))
@pytest.mark.parametrize(
    "entry",
    ["readme.txt", "LICENSE", ".DS_Store", "notes/plan.md", "artifacts/word2vec.npy", "users.db", "metadata.json"],
)
def test_a_stranger_is_named_and_no_more(tmp_path: Path, layout: str, entry: str) -> None:
    name = f"{entry.split('/')[0]}/" if "/" in entry else entry
    assert found(tmp_path, layout, entry) == {name: ("", False)}


@pytest.mark.parametrize("layout", sorted(LOG))
def test_nothing_is_told_of_what_is_read(tmp_path: Path, layout: str) -> None:
    assert found(tmp_path, layout) == {}


def test_neighbours_of_a_simulated_bundle_are_named_with_what_they_are(tmp_path: Path) -> None:
    beside = (
        "oracle/articles.parquet",
        "oracle/inview.parquet",
        "simulation.json",
        "landing/2023-05-21/behaviors.parquet",
    )
    vectors = ("google/bert_base_multilingual_cased.parquet", "eb/image_embeddings.parquet", "eb/notes.txt")
    write(tmp_path, (*LOG["ebnerd"], *beside, *vectors))
    told = READERS["ebnerd"].strays(tmp_path)
    assert [(s.name, s.meant) for s in told] == [
        ("eb/notes.txt", ""), ("landing/", ""), ("oracle/", ""), ("simulation.json", ""),
    ]  # fmt: skip
    assert all(s.why and s.why in s.line for s in told[1:])


def test_a_table_that_is_there_beside_its_backup(tmp_path: Path) -> None:
    told = found(tmp_path, "own", "clicks_old.parquet", "clicks.csv", "backup/clicks.parquet")
    assert told == dict.fromkeys(("clicks_old.parquet", "clicks.csv", "backup/"), ("clicks.parquet", False))


def test_news_without_their_log_are_not_read(tmp_path: Path) -> None:
    write(tmp_path, (*LOG["mind"], "dev/news.tsv"))
    (told,) = READERS["mind"].strays(tmp_path)
    assert (told.name, told.meant) == ("dev/news.tsv", "") and "other files of its folder" in told.line


def test_links_within_the_root_are_read_and_others_are_named(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    write(root, LOG["own"])
    (root / "clicks.parquet").rename(root / "elsewhere.bin")
    (root / "clicks.parquet").symlink_to(root / "elsewhere.bin")
    outside.mkdir()
    (root / "more").symlink_to(outside)
    (root / "loop").symlink_to(root / "loop")
    assert [(s.name, s.meant) for s in READERS["own"].strays(root)] == [("loop", ""), ("more/", "")]


def test_a_link_that_leads_nowhere_is_named_as_one(tmp_path: Path) -> None:
    write(tmp_path, ("validation/behaviors.parquet",))
    (tmp_path / "train").symlink_to(tmp_path / "train")
    (tmp_path / "more").symlink_to(tmp_path / "nothing")
    found = {s.name: s for s in READERS["ebnerd"].strays(tmp_path)}
    assert [(s.meant, s.vacant) for s in found.values()] == [("", False), ("train/", True)]
    assert "more (a link that leads nowhere or in a circle, put what" in found["more"].line
    assert found["train"].remedy.startswith("a link that leads nowhere")


def test_names_that_cannot_be_printed_are_escaped(tmp_path: Path) -> None:
    told = found(tmp_path, "own", "impress\x1bions.parquet")
    assert list(told) == ["impress\\x1bions.parquet"]


PART = st.sampled_from(
    (
        "train",
        "validaton",
        "clicks",
        "dev",
        "behaviors.parquet",
        "news.tsv",
        "clicks_hour_1.csv",
        "a.parquet",
        "x",
        "log.toml",
    )
)


@settings(max_examples=60, deadline=None)
@example("own", {"clicks/behaviors.parquet/train"})
@given(st.sampled_from(sorted(LOG)), st.sets(st.lists(PART, min_size=1, max_size=3).map("/".join), max_size=6))
def test_every_file_is_read_or_named(tmp_path_factory, layout: str, more: set[str]) -> None:
    root = tmp_path_factory.mktemp("root")
    write(root, LOG[layout])
    for name in sorted(more):
        try:
            write(root, [name])
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue  # a file where a folder is wanted, or the other way round
    read = {p.relative_to(root).as_posix() for p in READERS[layout].named(root)}
    told = {s.name for s in READERS[layout].strays(root)}
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if path.is_file():
            above = {f"{parent.as_posix()}/" for parent in path.relative_to(root).parents}
            refused = above & {f"{place}/" for place in read}  # a folder in a file's place: the reader says so
            assert bool(name in read or refused) != bool(({name} | above) & told), f"{name}: read {read}, told {told}"


def test_only_places_of_the_layout_are_looked_into(tmp_path: Path) -> None:
    deep = tmp_path / "lake"
    write(tmp_path, LOG["own"])
    write(deep, [f"{i}/{j}/clicks.parquet" for i in range(3) for j in range(3)])
    assert [s.name for s in strays(tmp_path, NAMES["own"], READERS["own"].named(tmp_path))] == ["lake/"]
