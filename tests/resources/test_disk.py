"""gc removes nothing that is reachable, on random lakes and however it dies; usage counts every byte."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml.errors import LakeError, UsageError
from resources import ledger
from resources.champion import Champions, Title
from resources.disk import reach as reaching
from resources.disk.collect import BOOK, Policy, collect, plan, remove_caches
from resources.disk.reach import keep
from resources.disk.usage import usage
from resources.lake import Lake, Ref, Version
from resources.lineage.check import hash_files
from resources.lineage.graph import walk_all
from tests.resources.kill_help import dies_before
from tests.resources.lake_help import publish_text
from tests.resources.lineage_help import small_lake

NOTHING = Policy(days=0, versions=0)
REFS = [Ref("simulated", f"stage{n}", "2023-05-18") for n in range(5)]


def later(**span: float) -> datetime:
    return datetime.now(UTC) + timedelta(**(span or {"seconds": 1}))


def random_lake(root: Path, steps: list[tuple[int, int, list[int]]]) -> Lake:
    """Each step publishes one of few texts into a partition, from versions (of lower stages) that are in the lake then,
    current or not: inputs of a superseded version, repeated content and shared inputs all come up."""
    lake, made = Lake(root), []
    for partition, text, chosen in steps:
        below = [v for v in made if v.ref.stage < REFS[partition].stage]
        inputs = {v.ref: v for v in (below[c % len(below)] for c in chosen if below)}
        made.append(publish_text(lake, REFS[partition], f"text {text}", f"key {text}", list(inputs.values())))
    return lake


def on_disk(lake: Lake) -> dict[str, dict]:
    """Manifest by digest of every version, read without the code under test."""
    import hashlib

    files = lake.root.glob("simulated/*/*/*/manifest.json")
    return {hashlib.sha256(p.read_bytes()).hexdigest(): json.loads(p.read_bytes()) for p in files}


def reached(lake: Lake, also: list[str]) -> set[str]:
    """Digests under the pointers and `also`, by a walk of its own."""
    manifests = on_disk(lake)
    pointers = [json.loads(p.read_bytes())["manifest"] for p in lake.root.glob("simulated/*/*/current.json")]
    todo, found = [*pointers, *also], set()
    while todo:
        digest = todo.pop()
        if digest not in found:
            found.add(digest)
            todo += manifests[digest]["inputs"].values()
    return found


STEPS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.lists(st.integers(0, 9), max_size=3)), max_size=25)


@given(STEPS, st.integers(0, 2), st.integers(0, 9))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_reachable_is_ever_removed(tmp_path: Path, steps: list, spare: int, mark: int) -> None:
    shutil.rmtree(tmp_path / "lake", ignore_errors=True)
    lake = random_lake(tmp_path / "lake", steps)
    versions = sorted(lake.root.glob("simulated/*/*/*/manifest.json"))
    also = []
    if versions:
        chosen = versions[mark % len(versions)].parent
        ref = Ref.parse(chosen.parent.relative_to(lake.root).as_posix())
        keep(lake.root, ref, chosen.name, "a test", "t", "now")
        also = [d for d, m in on_disk(lake).items() if m["ref"] == str(ref) and m["content"].startswith(chosen.name)]
    must_stay, before = reached(lake, also), on_disk(lake)
    collect(lake, Policy(0, spare), later(), "t")
    left = on_disk(lake)
    assert must_stay <= left.keys()
    for manifest in left.values():
        assert set(manifest["inputs"].values()) <= left.keys(), "what stays has all that it was made from"
    if spare == 0:
        assert left.keys() == must_stay, "and without a policy nothing else stays"
    for digest in before.keys() - left.keys():
        assert sum(m["ref"] == before[digest]["ref"] for m in left.values()) >= min(spare, 1)
    graph = walk_all(lake.root)
    hash_files(graph)
    assert graph.findings == []


def old_and_new(root: Path) -> tuple[Lake, list[Version]]:
    """Three versions of a chain of two partitions; the last is current."""
    lake, made = Lake(root), []
    for text in "abc":
        made.append(publish_text(lake, REFS[0], text))
        made.append(publish_text(lake, REFS[1], text, inputs=made[-1:]))
    return lake, made


def test_the_plan_removes_nothing_and_names_users_before_their_inputs(tmp_path: Path) -> None:
    lake, made = old_and_new(tmp_path)
    found = plan(tmp_path, NOTHING, later())
    assert len(found.victims) == 4
    place = {v.digest: n for n, v in enumerate(found.victims)}
    assert place[made[1].manifest_digest] < place[made[0].manifest_digest]
    assert place[made[3].manifest_digest] < place[made[2].manifest_digest]
    assert len(on_disk(lake)) == 6 and not (tmp_path / BOOK).exists()


@pytest.mark.parametrize(("policy", "days", "left"), [
    (Policy(0, 0), 0.001, 2), (Policy(0, 1), 0.001, 4), (Policy(14, 0), 13.9, 6), (Policy(14, 0), 14.1, 2),
    (Policy(), 400, 4),
])  # fmt: skip
def test_the_policy_keeps_by_number_and_by_age(tmp_path: Path, policy: Policy, days: float, left: int) -> None:
    lake, _ = old_and_new(tmp_path)
    collect(lake, policy, later(days=days), "t")
    assert len(on_disk(lake)) == left


def test_what_was_removed_is_recorded_before_and_after(tmp_path: Path) -> None:
    lake, made = old_and_new(tmp_path)
    collect(lake, NOTHING, later(), "me")
    planned, done = (e.record for e in ledger.entries(tmp_path / BOOK))
    assert planned["kind"] == "planned" and planned["who"] == "me"
    assert {v["manifest"] for v in planned["versions"]} == {v.manifest_digest for v in made[:4]}
    assert done["kind"] == "done" and done["versions"] == 4
    assert ledger.problems(tmp_path / BOOK) == []


def test_a_kept_version_goes_once_it_is_released(tmp_path: Path) -> None:
    lake, made = old_and_new(tmp_path)
    mark = keep(tmp_path, REFS[1], made[1].path.name, "for the board", "me", "now")
    collect(lake, NOTHING, later(), "t")
    assert {v.manifest_digest for v in made if v.path.exists()} == {made[i].manifest_digest for i in (0, 1, 4, 5)}
    mark.unlink()
    collect(lake, NOTHING, later(), "t")
    assert [v.path.exists() for v in made] == [False] * 4 + [True] * 2
    with pytest.raises(UsageError, match="no sound version"):
        keep(tmp_path, REFS[1], "0123", "", "me", "now")


def test_a_signed_version_stays(tmp_path: Path) -> None:
    lake, made = old_and_new(tmp_path)
    (made[1].path.parent / f"{made[1].path.name}.signature.json").write_text("{}")
    collect(lake, NOTHING, later(), "t")
    assert made[0].path.exists() and made[1].path.exists() and not made[2].path.exists()


def test_a_champion_stays_until_a_rollback_lets_it_go(tmp_path: Path) -> None:
    lake, made = old_and_new(tmp_path)
    record = Champions(lake, made[3].ref.dataset, "snert", "rolling")
    record.promote(Title.of(made[5]), "me", "first")
    record.promote(Title.of(made[3]), "me", "second")
    collect(lake, NOTHING, later(), "t")
    assert made[2].path.exists() and made[3].path.exists() and not made[1].path.exists()
    record.rollback("me", "worse")
    collect(lake, NOTHING, later(), "t")
    assert not made[3].path.exists() and made[5].path.exists()


def test_the_decision_behind_an_act_stays(tmp_path: Path) -> None:
    lake, made = old_and_new(tmp_path)
    record = Champions(lake, made[3].ref.dataset, "snert", "rolling")
    record.settle(Title.of(made[5]), None, True, "rule", "first", made[3].manifest_digest)
    collect(lake, NOTHING, later(), "t")
    assert made[2].path.exists() and made[3].path.exists() and not made[1].path.exists()


def test_states_of_trainings_that_are_not_under_way_are_caches(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for key in ("a", "b"):
        with pytest.raises(KeyError), lake.unfinished(key) as folder:
            folder.mkdir(parents=True)
            (folder / "1.json").write_text("state")
            raise KeyError
    with lake.unfinished("b") as folder:
        assert remove_caches(lake, []) == len("state")
        assert folder.is_dir() and not folder.with_name("a").exists()
        assert not list(lake.root.glob(".locks/unfinished~a*"))


def test_one_more_root_is_one_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, made = old_and_new(tmp_path)
    champion = lambda lake, read: [(made[3].ref, made[3].manifest_digest)]  # noqa: E731
    monkeypatch.setattr(reaching, "ROOTS", (*reaching.ROOTS, champion))
    collect(lake, NOTHING, later(), "t")
    assert made[2].path.exists() and made[3].path.exists() and not made[1].path.exists()


def test_a_partition_with_a_damaged_ledger_is_left_alone(tmp_path: Path) -> None:
    lake, made = old_and_new(tmp_path)
    path = lake.folder(REFS[1]) / ledger.LEDGER
    path.write_bytes(path.read_bytes().replace(b'"key"', b'"kex"', 1))
    collect(lake, NOTHING, later(), "t")
    assert all(v.path.exists() for v in made)


def test_where_nobody_can_say_what_a_version_was_made_from_nothing_goes(tmp_path: Path) -> None:
    lake, made = old_and_new(tmp_path)
    lake.folder(REFS[0]).rename(tmp_path / "elsewhere")
    with pytest.raises(LakeError, match="nobody can say what may go"):
        collect(lake, NOTHING, later(), "t")
    assert all(v.path.exists() for v in made if v.ref == REFS[1])


def test_a_damaged_manifest_is_walked_by_the_ledger(tmp_path: Path) -> None:
    lake, made = old_and_new(tmp_path)
    publish_text(lake, REFS[0], "d")
    (made[5].path / "manifest.json").chmod(0o644)
    (made[5].path / "manifest.json").write_text("{")
    found = collect(lake, NOTHING, later(), "t")
    assert made[4].path.exists(), "the ledger says that the damaged current version was made from it"
    assert len(found.left) == 1 and made[5].path.exists()


def test_a_version_that_a_killed_process_left_unpublished_goes_whatever_the_policy(tmp_path: Path) -> None:
    lake, _ = old_and_new(tmp_path)
    other = Lake(tmp_path / "other")
    foreign = publish_text(other, REFS[0], "never published here")
    shutil.copytree(foreign.path, lake.folder(REFS[0]) / foreign.path.name)
    shutil.rmtree(tmp_path / "other")
    found = collect(lake, Policy(400, 9), datetime.now(UTC), "t")
    assert [v.name for v in found.victims] == [foreign.path.name]


def test_killed_at_every_step_the_lake_verifies_and_a_rerun_finishes(tmp_path: Path) -> None:
    sealed, _ = old_and_new(tmp_path / "sealed")
    want = reached(sealed, [])
    for stop in range(1, 200):
        lake = Lake(Path(shutil.copytree(tmp_path / "sealed", tmp_path / f"lake{stop}")))
        killed = dies_before(stop, collect, lake, NOTHING, later(), "t")
        graph = walk_all(lake.root)
        hash_files(graph)
        assert graph.findings == [] and want <= on_disk(lake).keys()
        collect(lake, NOTHING, later(), "t")
        assert on_disk(lake).keys() == want
        assert not [p for p in (lake.root / ".staging").iterdir() if p.is_dir()]
        shutil.rmtree(lake.root)
        if not killed:
            break
    assert not killed and stop > 20


def test_a_publication_whose_inputs_were_collected_meanwhile_refuses_itself(tmp_path: Path) -> None:
    lake, made = old_and_new(tmp_path)
    collect(lake, NOTHING, later(), "t")
    with pytest.raises(LakeError, match="erased or collected"):
        publish_text(lake, REFS[2], "late", inputs=[made[0]])
    assert lake.current(REFS[2]) is None and walk_all(tmp_path).findings == []


def test_usage_counts_every_byte_once_and_tells_states_apart(tmp_path: Path) -> None:
    lake, made = old_and_new(tmp_path)
    publish_text(lake, REFS[0], "newer than what the current stage1 was made from")
    (lake.cache("text") / "x.parquet").write_bytes(b"1234567")
    (tmp_path / ".staging" / "dead").mkdir(parents=True)
    (tmp_path / ".staging" / "dead" / "file").write_bytes(b"123")
    found = usage(tmp_path)
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert found["total"] == sum(p.stat().st_size for p in files)
    one, two = found["stages"]
    size = {v.manifest_digest: sum(p.stat().st_size for p in v.path.iterdir()) for v in made}
    digests = [v.manifest_digest for v in made]
    assert one["superseded"] == size[digests[4]] and one["unreachable"] == size[digests[0]] + size[digests[2]]
    assert two["current"] == size[digests[5]] and two["superseded"] == 0 and two["versions"] == 3
    beside = {b["place"]: (b["kind"], b["bytes"]) for b in found["beside"]}
    assert beside[".cache/text"] == ("caches", 7) and beside[".staging"] == ("staging leftovers", 3)


def test_caches_go_by_request_and_text_vectors_stay(tmp_path: Path) -> None:
    lake = small_lake(tmp_path)
    for place in (".split/simulated/k/2023-05-16", ".cache/audit", ".cache/text"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "f").write_bytes(b"12345")
    assert remove_caches(lake, ["simulated"]) == 10
    assert [p.name for p in tmp_path.glob("**/f")] == ["f"] and (tmp_path / ".cache/text/f").exists()
