"""The graph names what it should, and nothing in a lake can be changed or removed unseen."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml.errors import UsageError
from resources.disk.reach import reach, read_all
from resources.lake import Lake, Ref
from resources.ledger import LEDGER
from resources.lineage.archive import partitions, read_partition
from resources.lineage.check import check_sources, hash_files
from resources.lineage.graph import Graph, walk, walk_all
from resources.lineage.metric import Address, complete, lineage, numbers, report_graph
from resources.manifest import MANIFEST, canonical, content_digest, list_files
from tests.resources.lineage_help import DATASET, DAY, PARTITION, every_file, flip, publish, rewrite, small_lake

ADDRESS = Address(DATASET, DAY, "rolling", "snert", "rq1.thesis.recall@20")
RAW = Ref(DATASET, "raw_parquet", "2023-05-16")
CHECKPOINT = Ref(DATASET, "checkpoint", PARTITION, "snert")


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """A lake that no test changes."""
    return small_lake(tmp_path_factory.mktemp("sealed")).root


@pytest.fixture
def root(sealed, tmp_path):
    """A copy to be damaged."""
    return Path(shutil.copytree(sealed, tmp_path / "lake"))


def broken(graph: Graph) -> list[str]:
    hash_files(graph)
    return [str(f) for f in graph.findings if f.broken]


def test_the_number_reaches_the_raw_files_and_nothing_beside_its_path(sealed):
    number, graph = lineage(sealed, ADDRESS)
    assert number.value == 0.5
    refs = {str(n.ref) for n in graph.nodes.values()}
    assert refs == {
        f"{DATASET}/evaluation_report/{PARTITION}",
        f"{DATASET}/evaluation_rq1/snert/{PARTITION}",
        f"{DATASET}/predictions/snert/{PARTITION}",
        f"{DATASET}/checkpoint/snert/{PARTITION}",
        f"{DATASET}/interactions/{DAY}",
        *(f"{DATASET}/{s}/2023-05-{d}" for s in ("clicks", "raw_parquet") for d in (16, 17)),
    }
    assert {n.state for n in graph.nodes.values()} == {"intact"}
    assert broken(graph) == []
    (checkpoint,) = graph.find(CHECKPOINT)
    assert (checkpoint.recipe["seed"], checkpoint.run["device"], checkpoint.rows) == (3, "cpu", 7)
    assert checkpoint.environment["python"]


def test_order_puts_every_node_after_its_inputs(sealed):
    done: set[str] = set()
    graph = walk_all(sealed)
    for node in graph.order():
        assert set(node.inputs) <= done
        done.add(node.id)
    assert done == set(graph.nodes)


def test_the_whole_lake_is_walked_and_sound(sealed):
    graph = walk_all(sealed)
    assert {n.ref for n in graph.nodes.values()} == set(partitions(sealed))
    assert len(graph.nodes) == 13
    assert broken(graph) == []


def test_a_newer_version_makes_the_old_one_superseded_for_its_users(root):
    publish(Lake(root), CHECKPOINT, {"model.safetensors": "other"}, [], recipe={"seed": 9})
    _, graph = lineage(root, ADDRESS)
    (checkpoint,) = graph.find(CHECKPOINT)
    assert checkpoint.state == "superseded"
    assert broken(graph) == []


def test_two_versions_of_one_partition_are_two_inputs(root):
    """A champion that meets its own partition, trained again: neither hides the other, here or for gc."""
    lake = Lake(root)
    champion = lake.require(CHECKPOINT)
    challenger = publish(lake, CHECKPOINT, {"model.safetensors": "trained again"}, [])
    judged = Ref(DATASET, "promotion", PARTITION, "snert")
    decision = publish(lake, judged, {"decision.json": "{}"}, [challenger, champion])
    graph = walk(root, [(judged, decision.manifest_digest)])
    both = {champion.manifest_digest, challenger.manifest_digest}
    assert set(graph.nodes[decision.manifest_digest].inputs) == both and broken(graph) == []
    assert both <= reach(read_all(root), [(judged, decision.manifest_digest)]).digests
    flip(champion.path / "model.safetensors", 1, 1)
    assert broken(walk(root, [(judged, decision.manifest_digest)]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.data())
def test_no_bit_anywhere_can_flip_unseen(root, data):
    path = data.draw(st.sampled_from(every_file(root)))
    place, bit = data.draw(st.integers(0, path.stat().st_size - 1)), data.draw(st.integers(0, 7))
    before = path.read_bytes()
    flip(path, place, bit)
    try:
        assert broken(walk_all(root)), f"{path} at {place}, bit {bit}"
    finally:
        rewrite(path, before)


def test_a_ledger_whose_publications_bear_another_name_is_named(root):
    for path in (p for p in every_file(root) if p.name == LEDGER):
        before = path.read_bytes()
        rewrite(path, before.replace(b'"publication"', b'"qublication"'))
        assert broken(walk_all(root)), path
        rewrite(path, before)


@pytest.mark.parametrize("name", ["clicks.bin", MANIFEST, LEDGER, "current.json"])
def test_a_file_that_vanished_is_named(root, name):
    path = next(p for p in every_file(root) if p.name == name and "/clicks/" in str(p))
    path.unlink()
    found = broken(walk_all(root))
    assert any("clicks/2023-05-16" in line for line in found)


def test_a_file_that_vanishes_between_the_walk_and_the_hashing_is_named_once(root):
    graph = walk_all(root)
    (Lake(root).require(CHECKPOINT).path / "model.safetensors").unlink()
    for found in (broken(graph), broken(walk_all(root))):
        assert [line.split("/")[-1] for line in found] == ["model.safetensors is missing"]
    assert [n.state for n in graph.find(CHECKPOINT)] == ["missing"]


def test_a_file_that_nobody_published_is_named(root):
    version = Lake(root).require(CHECKPOINT)
    (version.path / "extra.bin").write_bytes(b"x")
    assert any("extra.bin is not in the manifest" in line for line in broken(walk_all(root)))


def forge(root: Path, ref: Ref, name: str, text: bytes, **run: str) -> None:
    """What somebody does who knows the format: new bytes, a manifest that matches, folder, pointer and ledger too.
    `run` replaces what the ledger says of the run."""
    version = Lake(root).require(ref)
    rewrite(version.path / name, text)
    manifest = dict(version.manifest)
    manifest["files"] = list_files(version.path)
    manifest["content"] = content_digest(manifest["files"])
    rewrite(version.path / MANIFEST, canonical(manifest))
    digest = hashlib.sha256(canonical(manifest)).hexdigest()
    folder = version.path.parent
    version.path.rename(folder / manifest["content"][:16])
    line = json.loads((folder / LEDGER).read_text())
    line["record"]["publication"] |= {
        "manifest": digest, "content": manifest["content"], "version": manifest["content"][:16],
    }  # fmt: skip
    line["record"]["run"] |= run
    body = {"prev": line["prev"], "record": line["record"]}
    head = hashlib.sha256(canonical(body)).hexdigest()
    rewrite(folder / LEDGER, canonical({"digest": head, **body}) + b"\n")
    pointer = json.loads((folder / "current.json").read_text())
    pointer |= {"manifest": digest, "version": manifest["content"][:16], "ledger": head}
    rewrite(folder / "current.json", canonical(pointer))


def test_a_forged_version_is_betrayed_by_the_digest_that_its_users_name(root):
    forge(root, CHECKPOINT, "model.safetensors", b"forged")
    partition = read_partition(root, CHECKPOINT)
    assert partition.findings == [] and len(partition.by_digest) == 1
    _, graph = lineage(root, ADDRESS)
    found = broken(graph)
    assert any(f"{DATASET}/predictions/snert/{PARTITION} -> {CHECKPOINT}" in line for line in found)
    (checkpoint,) = graph.find(CHECKPOINT)
    assert checkpoint.state == "changed"
    assert checkpoint.inputs, "what lies below is still shown"


def test_a_removed_manifest_is_named_with_the_link_that_breaks(root):
    (Lake(root).require(CHECKPOINT).path / MANIFEST).unlink()
    _, graph = lineage(root, ADDRESS)
    (checkpoint,) = graph.find(CHECKPOINT)
    assert checkpoint.state == "missing"
    assert any(f"-> {CHECKPOINT}" in line and "manifest.json is missing" in line for line in broken(graph))


def test_a_removed_version_folder_is_missing(root):
    shutil.rmtree(Lake(root).require(RAW).path)
    _, graph = lineage(root, ADDRESS)
    assert [n.state for n in graph.find(RAW)] == ["missing"]


def test_a_number_that_the_report_changed_on_its_way_is_named(root):
    report = Ref(DATASET, "evaluation_report", PARTITION)
    text = Lake(root).require(report).file("report.json").read_text().replace('"value": 0.5', '"value": 0.9')
    forge(root, report, "report.json", text.encode())
    number, graph = lineage(root, ADDRESS)
    assert number.value == 0.9
    assert any("says 0.9" in line and "says 0.5" in line for line in broken(graph))


def bury(root: Path, ref: Ref, recorded: bool) -> None:
    """Erase a version by request: its folder goes, a tombstone comes, and a new version tells of it."""
    lake = Lake(root)
    old = lake.require(ref)
    stone = {
        "format": 1, "ref": str(ref), "version": old.path.name, "manifest": old.manifest_digest,
        "inputs": old.manifest["inputs"], "at": "2023-06-01T10:00:00+00:00", "request": "R-17",
    }  # fmt: skip
    path = old.path.parent / f"{old.path.name}.erased.json"
    path.write_bytes(canonical(stone))
    named = {"manifest": old.manifest_digest, "tombstone": hashlib.sha256(path.read_bytes()).hexdigest()}
    record = {"erased": [named]} if recorded else {}
    shutil.rmtree(old.path)
    publish(lake, ref, {"raw.bin": "without the reader"}, [], recipe={}, record=record)


def test_what_a_request_erased_is_erased_and_not_broken(root):
    bury(root, RAW, recorded=True)
    _, graph = lineage(root, ADDRESS)
    (node,) = graph.find(RAW)
    assert node.state == "erased" and node.tombstone["request"] == "R-17"
    assert broken(graph) == []


def test_a_tombstone_that_the_ledger_does_not_know_hides_nothing(root):
    bury(root, RAW, recorded=False)
    _, graph = lineage(root, ADDRESS)
    assert [n.state for n in graph.find(RAW)] == ["missing"]
    assert any("no erasure was recorded" in line for line in broken(graph))


def test_source_files_are_compared_where_they_are(sealed, tmp_path):
    _, graph = lineage(sealed, ADDRESS)
    (finding,) = check_sources(graph, tmp_path)
    assert "clicks.csv is missing" in finding.message
    (tmp_path / "clicks.csv").write_text("other")
    (finding,) = check_sources(graph, tmp_path)
    assert "other bytes" in finding.message


@pytest.mark.parametrize(
    ("manifest", "fault"),
    [
        (b"[" * 5000, "changed or damaged"),
        (b"{}", "changed or damaged"),
        (b"\xff\xfe", "changed or damaged"),
    ],
)
def test_a_strangers_manifest_is_named_not_raised(root, manifest, fault):
    rewrite(Lake(root).require(RAW).path / MANIFEST, manifest)
    assert any(fault in line for line in broken(walk_all(root)))


def test_paths_that_leave_the_folder_are_not_followed(root):
    version = Lake(root).require(RAW)
    manifest = dict(version.manifest)
    manifest["files"] = [{"name": "../../../secret", "bytes": 1, "sha256": "0" * 64}]
    manifest["content"] = content_digest(manifest["files"])
    rewrite(version.path / MANIFEST, canonical(manifest))
    assert any("no file name for the lake" in line for line in broken(walk_all(root)))


def test_a_link_in_the_place_of_a_file_is_not_read(root, tmp_path):
    version = Lake(root).require(RAW)
    (tmp_path / "elsewhere").write_bytes(version.file("raw.bin").read_bytes())
    (version.path / "raw.bin").unlink()
    (version.path / "raw.bin").symlink_to(tmp_path / "elsewhere")
    assert any("raw.bin is missing" in line for line in broken(walk_all(root)))


def test_the_last_day_is_meant_where_none_is_given(sealed):
    assert complete(sealed, Address.parse("rq2.auc")).day == DAY
    assert lineage(sealed, complete(sealed, Address.parse("rq2.auc")))[0].value == 0.75


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rq1.thesis.nothing", "it has recall@20"),
        ("rq1.thesis", "is no number"),
        ("rq1.thesis.recall@20.low.more", "nothing below"),
        ("magic:rq2.auc", "no model 'magic'"),
        ("a/b/c/d:e", "names no number"),
        ("2023-05-19/rq2.auc", "no report simulated/evaluation_report/2023-05-19.rolling"),
        ("2023-13-19/rq2.auc", "is no day"),
        ("2023-05-18#ffff/rq2.auc", "no single version"),
        ("2023-05-18.weekly/rq2.auc", "no report"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused_in_one_line(sealed, text, message):
    with pytest.raises(UsageError, match=message):
        lineage(sealed, complete(sealed, Address.parse(text)))


def test_every_number_of_a_report_has_an_address(sealed):
    path = Lake(sealed).require(Ref(DATASET, "evaluation_report", PARTITION)).file("report.json")
    found = numbers(json.loads(path.read_text()))
    assert set(found) == {(m, p) for m in ("snert", "popular_15") for p in ("rq1.thesis.recall@20", "rq2.auc")}
    for model, metric in found:
        _, graph = lineage(sealed, Address(DATASET, DAY, "rolling", model, metric))
        assert graph.findings == []


def test_a_report_reaches_all_models(sealed):
    assert len(report_graph(sealed, ADDRESS).nodes) == 13


def test_neither_dagster_nor_tables_are_imported():
    code = (
        "import sys, resources.lineage.metric, resources.lineage.check\n"
        "print(sorted({'dagster', 'mlflow', 'pyarrow', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
