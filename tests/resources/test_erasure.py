"""Erasing a reader: no row is left, the lake verifies at every moment, damage beside it is still found."""

import gzip
import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml import schema
from ml.errors import LakeError, UsageError
from ml.sessions import read_sessions, write_sessions
from resources import ledger
from resources.erasure import rows
from resources.erasure.book import Book
from resources.erasure.erase import erase, look, resume
from resources.lake import Lake, Ref, Version, write_parquet
from resources.lineage.check import hash_files
from resources.lineage.graph import walk_all
from tests.resources.kill_help import dies_before
from tests.resources.lineage_help import flip

DAY, AS_OF = "2023-05-17", "2023-05-18.rolling"
READER, OTHER, THIRD = 70017, 70002, 70090
MIDWAY = ("the ledger never published version", "is not that of the ledger's last publication")
"""What any publication leaves that dies between its renames: the next one of the partition heals it."""
NOW = datetime(2026, 11, 25, 10, tzinfo=UTC)


def put(lake: Lake, ref: Ref, tables: dict[str, pa.Table], inputs: list[Version], examples: list[str] = []) -> Version:  # noqa: B006
    with lake.staging(ref) as staged:
        for name, table in tables.items():
            if name == "sessions.parquet":
                write_sessions(table, staged.path / name, inputs[0].content)
            else:
                write_parquet(table, staged.path / name)
        (staged.path / "facts.json").write_text("{}")
        check = {
            "name": "c",
            "passed": True,
            "blocking": False,
            "count_bad": 1,
            "examples": examples,
            "description": "d",
        }
        checks = [{**check, "examples": examples}]
        counts = {name: len(t) for name, t in tables.items()}
        return lake.publish(staged, {str(v.ref): v for v in inputs}, "k", {"r": 1}, {}, counts, checks, {"run": "x"})


def table(**columns: Any) -> pa.Table:
    return pa.table({k: pa.array(v) for k, v in columns.items()})


def world(root: Path) -> Lake:
    """A chain like the real one, with a superseded version at its beginning, and a reader in all but the checkpoint."""
    lake = Lake(root)
    users = [OTHER, READER, THIRD, READER]
    row = [json.dumps({"user_id": READER}), json.dumps({"user_id": OTHER, "n": READER}), f"torn {READER}|"]
    held_back = table(table=["clicks"] * 3, reason=["x"] * 3, source=["f"] * 3, row=row).cast(schema.QUARANTINE)
    ref = Ref("simulated", "raw_parquet", DAY)
    put(lake, ref, {"clicks.parquet": table(user_id=[*users, READER], n=range(5))}, [])
    raw = put(lake, ref, {"clicks.parquet": table(user_id=users, n=range(4)), "quarantine.parquet": held_back}, [])
    clicks = put(
        lake, Ref("simulated", "clicks", DAY), {"clicks.parquet": table(user_id=users)}, [raw], [f"user_id {READER}"]
    )
    ordered = table(user_id=[OTHER, OTHER, READER, READER, THIRD, THIRD], time=range(6))
    known = put(lake, Ref("simulated", "interactions", "2023-05-18"), {"interactions.parquet": ordered}, [clicks])
    ranges = pa.table({"first": [0, 2, 4], "target": [1, 3, 5], "split": ["train"] * 3})
    sessions = put(lake, Ref("simulated", "session_splits", AS_OF), {"sessions.parquet": ranges}, [known])
    model = put(lake, Ref("simulated", "checkpoint", AS_OF, "snert"), {}, [sessions, known])
    lists = {
        "cases.parquet": table(case=[0, 1, 2], user_id=[OTHER, READER, THIRD]),
        "top.parquet": table(case=[0, 1, 1, 2], score=[0.1, 0.2, 0.3, 0.4]),
    }
    put(lake, Ref("simulated", "predictions", AS_OF, "snert"), lists, [model, known])
    put(lake, Ref("simulated", "raw_parquet", "2023-05-16"), {"clicks.parquet": table(user_id=[OTHER], n=[0])}, [])
    return lake


def readers_in(root: Path) -> dict[str, list[int]]:
    """Every number of every parquet file below a folder, hidden or not, by path: read without the code under test."""
    found = {}
    for path in root.rglob("*.parquet"):
        columns = [c for c in pq.read_table(path).to_pydict().items() if c[0] in ("user_id", "row")]
        found[str(path)] = [v for _, values in columns for v in values]
    return found


def assert_gone(root: Path) -> None:
    for path, values in readers_in(root).items():
        for value in values:
            assert value != READER and f'"user_id": {READER}' not in str(value) and "torn" not in str(value), path
    for path in [*root.rglob("*.json"), *root.rglob("*.jsonl"), *root.rglob("*.html")]:
        assert re.search(rf"(?<![0-9a-f]){READER}(?![0-9a-f])", path.read_text()) is None, path


def broken(lake: Lake) -> list[str]:
    graph = walk_all(lake.root)
    hash_files(graph)
    return [str(f) for f in graph.findings if f.broken]


def do(lake: Lake) -> dict[str, Any]:
    return erase(lake, "simulated", READER, "a letter", "me", NOW, lambda _: None, "R-17")


def test_no_row_of_the_reader_is_left_and_all_others_stay(tmp_path: Path) -> None:
    lake = world(tmp_path)
    assert any(READER in values for values in readers_in(tmp_path).values())
    answer = do(lake)
    assert_gone(tmp_path)
    assert broken(lake) == []
    assert answer["rows"] == {"raw_parquet": 3 + 4, "clicks": 2, "interactions": 2, "predictions": 1}
    assert len(answer["rewritten"]) == 5 and len(answer["erased"]) == 6
    assert [m["ref"] for m in answer["models"]] == [f"simulated/checkpoint/snert/{AS_OF}"]
    current = lake.require(Ref("simulated", "predictions", AS_OF, "snert"))
    assert pq.read_table(current.file("cases.parquet")).column("case").to_pylist() == [0, 2]
    assert pq.read_table(current.file("top.parquet")).column("case").to_pylist() == [0, 2]
    assert current.rows == {"cases.parquet": 2, "top.parquet": 2}
    raw = lake.require(Ref("simulated", "raw_parquet", DAY))
    assert pq.read_table(raw.file("clicks.parquet")).to_pydict() == {"user_id": [OTHER, THIRD], "n": [0, 2]}
    assert pq.read_table(raw.file("quarantine.parquet")).num_rows == 1


def test_session_ranges_move_with_the_interactions(tmp_path: Path) -> None:
    lake = world(tmp_path)
    do(lake)
    known = lake.require(Ref("simulated", "interactions", "2023-05-18"))
    sessions = lake.require(Ref("simulated", "session_splits", AS_OF))
    found = read_sessions(sessions.file("sessions.parquet"), known.content)
    users = np.array(pq.read_table(known.file("interactions.parquet")).column("user_id"))
    assert users[found.target].tolist() == users[found.first].tolist() == [OTHER, THIRD]
    assert sessions.manifest["inputs"] == {str(known.ref): known.manifest_digest}


def test_every_erased_version_is_told_with_day_and_request(tmp_path: Path) -> None:
    lake = world(tmp_path)
    do(lake)
    nodes = walk_all(tmp_path).nodes.values()
    stones = [n.tombstone for n in nodes if n.state == "erased" and n.tombstone]
    assert {(s["request"], s["at"][:10]) for s in stones} == {("R-17", "2026-11-25")}
    assert len(stones) == 4, "what nothing in the lake uses (lists, the older raw version) is not walked to"
    assert len(list(tmp_path.rglob("*.erased.json"))) == 6


def test_damage_beside_an_erasure_is_still_found(tmp_path: Path) -> None:
    lake = world(tmp_path)
    beside = lake.require(Ref("simulated", "raw_parquet", "2023-05-16"))
    flip(beside.file("clicks.parquet"), 30, 1)
    with pytest.raises(LakeError, match="2023-05-16"):
        do(lake)  # a file that cannot be searched stops it: nobody knows whom it holds
    shutil.rmtree(tmp_path)
    lake = world(tmp_path)
    do(lake)
    flip(lake.require(Ref("simulated", "clicks", DAY)).file("facts.json"), 0, 1)
    assert len(broken(lake)) == 1 and "facts.json" in broken(lake)[0]


def test_nothing_is_rewritten_from_damaged_bytes(tmp_path: Path) -> None:
    lake = world(tmp_path)
    flip(lake.require(Ref("simulated", "clicks", DAY)).file("facts.json"), 0, 1)
    with pytest.raises(LakeError, match="damaged bytes"):
        do(lake)


def test_a_dry_run_changes_nothing_and_says_the_same(tmp_path: Path) -> None:
    lake = world(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    said = look(lake, "simulated", READER)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    done = do(lake)
    assert all(said[k] == done[k] for k in ("rows", "rewritten", "erased", "models"))


@pytest.mark.slow
def test_killed_at_every_step_readers_see_old_or_new_and_a_rerun_completes(tmp_path: Path) -> None:
    world(tmp_path / "sealed")
    whole = Ref("simulated", "predictions", AS_OF, "snert")
    stop, step = 1, 1
    while True:
        lake = Lake(Path(shutil.copytree(tmp_path / "sealed", tmp_path / f"lake{stop}")))
        killed = dies_before(stop, do, lake)
        assert [line for line in broken(lake) if not any(m in line for m in MIDWAY)] == []
        for ref in [whole, Ref("simulated", "clicks", DAY), Ref("simulated", "session_splits", AS_OF)]:
            assert lake.verify(lake.require(ref)) == []
        cases, top = (pq.read_table(lake.require(whole).file(f"{n}.parquet")).column("case") for n in ("cases", "top"))
        assert set(cases.to_pylist()) == set(top.to_pylist())
        if killed and Book(lake.root, "simulated").requests():
            resume(lake, "simulated", "me", NOW, lambda _: None)
        else:
            do(lake)
        assert_gone(lake.root)
        assert broken(lake) == [] and Book(lake.root, "simulated").requests()[0].done
        shutil.rmtree(lake.root)
        if not killed:
            break
        stop, step = stop + step, step + (stop % 3 == 0)
    assert stop > 100


def test_a_second_request_of_another_reader_erases_the_rewritten_versions(tmp_path: Path) -> None:
    lake = world(tmp_path)
    do(lake)
    erase(lake, "simulated", OTHER, "", "me", NOW, lambda _: None)
    assert broken(lake) == []
    assert not any({READER, OTHER} & set(values) for values in readers_in(tmp_path).values())


def test_the_same_reader_again_is_the_same_request_and_changes_no_version(tmp_path: Path) -> None:
    lake = world(tmp_path)
    do(lake)
    before = set(walk_all(tmp_path).nodes)
    again = erase(lake, "simulated", READER, "another letter", "me", NOW, lambda _: None)
    assert again["request"] == "R-17" and again["rows"] == {} and set(walk_all(tmp_path).nodes) == before


def test_what_a_killed_training_learnt_from_the_reader_goes(tmp_path: Path) -> None:
    lake = world(tmp_path)
    with pytest.raises(ZeroDivisionError), lake.unfinished("key") as state:
        state.mkdir(parents=True)
        (state / "state.pt").write_text("weights")
        _ = 1 / 0
    do(lake)
    assert not state.exists()


def test_the_list_holds_no_id_and_refuses_one_in_the_reason(tmp_path: Path) -> None:
    lake = world(tmp_path)
    with pytest.raises(UsageError, match="must not be kept"):
        erase(lake, "simulated", READER, f"letter of reader {READER}", "me", NOW, lambda _: None)
    do(lake)
    book = Book(tmp_path, "simulated")
    assert str(READER) not in book.path.read_text() and (tmp_path / ".erasures/key").stat().st_mode & 0o077 == 0
    assert book.readers().among([READER, str(READER), f"U{READER}", f'"0{READER}"', OTHER, "x", None]).keys() == {
        READER, str(READER), f"U{READER}", f'"0{READER}"'
    }  # fmt: skip
    (tmp_path / ".erasures/key").unlink()
    with pytest.raises(LakeError, match="erased readers come back"):
        book.readers()


def test_the_ledger_keeps_no_example_of_a_check(tmp_path: Path) -> None:
    lake = world(tmp_path)
    clicks = lake.require(Ref("simulated", "clicks", DAY))
    assert clicks.manifest["checks"][0]["examples"] == [f"user_id {READER}"]
    assert str(READER) not in (lake.folder(clicks.ref) / ledger.LEDGER).read_text()


@pytest.mark.parametrize(("name", "lines", "left"), [
    ("clicks_hour_1.csv", ["user_id,n", f"{READER},1", f"{OTHER},{READER}", f"{READER}"], [0, 2]),
    ("clicks_hour_1.csv.gz", ["n,user_id", f"1,{READER}", f"{READER},{OTHER}"], [0, 2]),
    ("behaviors.tsv", [f"1\tU{READER}\tt\th\ti", f"2\tU{OTHER}\tt\tN{READER}\ti", f"torn U{READER}"], [1]),
    ("news.csv", ["article_id,n", f"{READER},1"], [0, 1]),
])  # fmt: skip
def test_text_files_lose_the_readers_lines_and_no_others(tmp_path: Path, name: str, lines: list, left: list) -> None:
    book = Book(tmp_path, "simulated")
    book.ask(READER, "", "me", NOW)
    data = "".join(f"{line}\r\n" for line in lines).encode()
    path, out = tmp_path / name, tmp_path / f"out-{name}"
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    removed = rows.strip(path, book.readers(), out)
    assert removed.total == len(lines) - len(left)
    after = out.read_bytes() if out.exists() else path.read_bytes()
    after = gzip.decompress(after) if name.endswith(".gz") else after
    assert after == "".join(f"{lines[i]}\r\n" for i in left).encode()
