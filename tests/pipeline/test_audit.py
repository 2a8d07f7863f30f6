"""The audit commands on a small lake: what they print, what they refuse, and their exit codes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.audit import verify_bundle
from pipeline.audit.diff import diff
from pipeline.audit.diff import render as diff_text
from pipeline.audit.replay import _told, first_difference
from pipeline.audit.replay import render as replay_text
from pipeline.audit.replay_reports import differing
from pipeline.audit.sign import new_key
from pipeline.audit.text import tree
from pipeline.benchmarks.audit import synthetic_graph
from resources.lake import Lake, Ref
from resources.lineage.archive import SIGNATURE
from resources.lineage.metric import ADDRESSED, Address, lineage, numbers
from resources.lineage.page import page
from resources.lineage.payload import payload
from tests.resources.lineage_help import DATASET, DAY, PARTITION, every_file, flip, publish, small_lake
from tests.resources.test_lineage import bury

METRIC = "rq1.thesis.recall@20"
CHECKPOINT = Ref(DATASET, "checkpoint", PARTITION, "snert")


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    return small_lake(tmp_path_factory.mktemp("sealed")).root


@pytest.fixture
def root(sealed, tmp_path):
    return Path(shutil.copytree(sealed, tmp_path / "lake"))


def audit(lake: Path, *arguments: str, code: int = 0) -> str:
    """Run the command in its own process; standard output, or standard error of a refusal."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "audit", *arguments, "--lake", str(lake)],
        env={"PATH": "", "DAGSTER_HOME": str(lake.parent), "MLFLOW_TRACKING_URI": f"sqlite:///{lake.parent}/none.db"},
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr if code == 2 else done.stdout


def test_show_prints_the_tree_with_what_manifest_and_ledger_say(sealed):
    text = audit(sealed, "show", METRIC)
    lines = text.splitlines()
    assert lines[0] == f"{METRIC} = 0.5 [0.4, 0.6]  snert, simulated as of {DAY}, split rolling"
    checkpoint = next(i for i, line in enumerate(lines) if "checkpoint/snert" in line)
    assert "7 rows" in lines[checkpoint] and "sha256" in lines[checkpoint] and lines[checkpoint].endswith("intact")
    assert "seed 3" in lines[checkpoint + 1] and "recipe=snert_quick" in lines[checkpoint + 1]
    assert f"MLflow run m {CHECKPOINT}" in lines[checkpoint + 1] and "checks 1/1" in lines[checkpoint + 1]
    assert "shown above" in text and "source file clicks.csv" in text


def test_show_as_json_holds_every_node_once(sealed):
    data = json.loads(audit(sealed, "show", METRIC, "--json"))
    assert data["number"]["value"] == 0.5 and data["findings"] == []
    assert data["counts"] == {"intact": 9, "superseded": 0, "changed": 0, "missing": 0, "erased": 0, "outside": 1}
    for node in data["nodes"].values():
        assert set(node["inputs"]) <= set(data["nodes"])
    assert all(n["environment"] in data["environments"] for n in data["nodes"].values() if n["version"])


def test_show_writes_one_page_that_nothing_can_break_out_of(root, tmp_path):
    lake = Lake(root)
    publish(lake, Ref(DATASET, "clicks", "2023-05-20"), {"a.txt": "a"}, [], recipe={"x": "</script><script>evil()"})
    audit(root, "show", "--all", "--html", str(tmp_path / "page.html"))
    text = (tmp_path / "page.html").read_text()
    assert text.count("</script>") == 2 and "evil()" in text
    assert "http://" not in text and "https://" not in text
    data = text.split('id="data">')[1].split("</script>")[0]
    assert len(json.loads(data)["nodes"]) == 15


def test_show_does_not_import_dagster(sealed):
    code = (
        "import sys; from pipeline.cli import app\n"
        f"app(['audit', 'show', '{METRIC}', '--lake', '{sealed}'], standalone_mode=False)\n"
        "print(sorted({'dagster', 'mlflow', 'pyarrow', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    shown, loaded = done.stdout.rstrip().rsplit("\n", 1)
    assert "clicks" in shown and loaded == "[]"


def test_verify_says_what_it_read_and_that_no_store_was_there(sealed):
    answer = json.loads(audit(sealed, "verify", METRIC, "--json"))
    assert answer["ok"] and answer["files"] == 9 and answer["counts"]["intact"] == 9
    assert answer["anchors"]["mlflow"] == answer["anchors"]["dagster"] == "no store"
    assert answer["reports"][0]["agree"] == 1, "of the evaluation that is in the graph"
    whole = json.loads(audit(sealed, "verify", "--json"))
    assert [(r["ref"], r["state"], r["agree"]) for r in whole["reports"]] == [
        (f"{DATASET}/evaluation_report/{PARTITION}", "intact", 4)
    ]
    assert "everything is as it was published" in audit(sealed, "verify", "--all")


def test_verify_fails_on_a_flipped_bit_and_names_the_file(root):
    flip(Lake(root).require(CHECKPOINT).file("model.safetensors"), 0, 0)
    text = audit(root, "verify", METRIC, code=1)
    assert f"BROKEN  {CHECKPOINT}" in text and "model.safetensors differs" in text
    assert "everything is as it was" in audit(root, "verify", METRIC, "--model", "popular_15")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "rq9.x"), "no 'rq9"),
        (("show", METRIC, "--as-of", "2023-05-01"), "no report"),
        (("show", METRIC, "--as-of", "May"), "no day"),
        (("show", METRIC, "--split", "thesis"), "no report"),
        (("show", METRIC, "--model", "magic"), "no model"),
        (("verify", "--data-root", "/nowhere"), "no such folder"),
        (("verify", "--all", "--key", "x"), "--key is for one report"),
        (("verify", "--key", "/nowhere"), "no public key"),
        (("replay", METRIC, "--from", "magic"), "use predictions"),
        (("replay", METRIC, "--all"), "--all replays every report"),
        (("replay", "--all", "--as-of", DAY), "--all replays every report"),
        (("replay", "--all", "--dataset", "globo"), "no report of globo"),
        (("sign", "--key", "/nowhere"), "no private key"),
        (("reconcile", "--dataset", "globo"), "no report"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(sealed, arguments, message):
    text = audit(sealed, *arguments, code=2)
    assert message in text and len(text.strip().splitlines()) == 1


def test_a_lake_that_is_not_there_is_bad_usage(tmp_path):
    assert "no lake at" in audit(tmp_path / "nothing", "show", METRIC, code=2)
    (tmp_path / "empty").mkdir()
    assert "nothing was ever published" in audit(tmp_path / "empty", "verify", "--all", code=2)


def test_a_signature_holds_for_its_report_and_key_only(root, tmp_path):
    for name in ("a", "b"):
        new_key(tmp_path / name)
    assert (tmp_path / "a").stat().st_mode & 0o077 == 0
    path = Path(audit(root, "sign", "--key", str(tmp_path / "a"), "--by", "T").strip())
    audit(root, "verify", "--key", str(tmp_path / "a.pub"))
    assert "no signature of key" in audit(root, "verify", "--key", str(tmp_path / "b.pub"), code=1)
    audit(root, "sign", "--key", str(tmp_path / "b"))
    audit(root, "verify", "--key", str(tmp_path / "a.pub"))
    signed = json.loads(path.read_text())
    signed["signatures"][0]["signature"] = signed["signatures"][1]["signature"]
    path.write_text(json.dumps(signed))
    assert "is not over this version" in audit(root, "verify", "--key", str(tmp_path / "a.pub"), code=1)
    path.write_text("{")
    assert "damaged" in audit(root, "verify", "--key", str(tmp_path / "a.pub"), code=1)


def test_nothing_broken_is_signed(root, tmp_path):
    new_key(tmp_path / "k")
    flip(Lake(root).require(CHECKPOINT).file("model.safetensors"), 0, 0)
    audit(root, "sign", "--key", str(tmp_path / "k"), code=1)
    assert not list(root.rglob(f"*{SIGNATURE}"))


@pytest.fixture(scope="module")
def bundle(sealed, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "bundle"
    audit(sealed, "export", METRIC, "--out", str(out))
    return out


def check_bundle(path: Path, *arguments: str) -> tuple[int, str]:
    """The stand-alone script as an auditor runs it: another folder, no packages."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(path / "verify_bundle.py"), str(path), *arguments],
        cwd=path.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def test_the_bundle_verifies_with_python_alone_and_to_its_root(bundle):
    root = json.loads((bundle / "bundle.json").read_text())["root"]
    code, text = check_bundle(bundle, "--root", root)
    assert code == 0 and "9 versions" in text
    code, text = check_bundle(bundle, "--root", "0" * 64)
    assert code == 1 and "you trust" in text
    assert len((bundle / "verify_bundle.py").read_text().splitlines()) <= 150


def test_the_bundle_verifier_finds_every_flipped_bit_and_missing_file(bundle, tmp_path, capsys):
    """In one process, since it is many: each file with a bit flipped at three places, then gone."""
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    assert verify_bundle.main([str(copy)]) == 0
    for path in every_file(copy / "lake"):
        before = path.read_bytes()
        for place in (0, len(before) // 2, len(before) - 1):
            flip(path, place, place % 8)
            assert verify_bundle.main([str(copy)]) == 1, f"{path} at {place}"
        path.unlink()
        assert verify_bundle.main([str(copy)]) == 1, f"{path} gone"
        path.write_bytes(before)
    assert verify_bundle.main([str(copy)]) == 0
    about = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps(about | {"value": 0.9}))
    assert verify_bundle.main([str(copy)]) == 1
    assert "the bundle claims 0.9" in capsys.readouterr().out
    (copy / "bundle.json").unlink()
    assert verify_bundle.main([str(copy)]) == 1
    assert verify_bundle.main([str(copy / "nowhere")]) == 2


def test_a_broken_graph_is_not_exported(root, tmp_path):
    shutil.rmtree(Lake(root).require(CHECKPOINT).path)
    audit(root, "export", METRIC, "--out", str(tmp_path / "b"), code=1)
    assert not (tmp_path / "b").exists()


def test_diff_names_what_differs_and_nothing_else(tmp_path):
    root = tmp_path / "lake"
    first = small_lake(root).require(Ref(DATASET, "evaluation_report", PARTITION)).path.name
    small_lake(root, recall=0.75, seed=4)
    a = Address(DATASET, DAY, "rolling", "snert", METRIC, version=first)
    found = diff(root, a, Address(DATASET, DAY, "rolling", "snert", METRIC))
    assert (found["a"]["value"], found["b"]["value"], found["difference"]) == (0.5, 0.75, 0.25)
    assert found["seed"] == {"checkpoint/snert": {"seed": [3, 4]}}
    assert found["code"] == found["recipe"] == {}
    assert found["number"] == {"version": [first, ""]}
    assert found["data"] == {"days_only_a": {}, "days_only_b": {}, "changed": [], "rows": {}}
    small_lake(root, recall=0.75, seed=4, clicks="corrected")
    found = diff(root, a, Address(DATASET, DAY, "rolling", "snert", METRIC))
    changed = {c["ref"] for c in found["data"]["changed"]}
    assert f"{DATASET}/raw_parquet/2023-05-16" in changed and f"{DATASET}/interactions/{DAY}" in changed
    text = audit(root, "diff", f"{DAY}.rolling#{first}/{METRIC}", METRIC)
    assert "seed    checkpoint/snert: seed: 3 -> 4" in text and "B - A = 0.25" in text


def test_of_a_whole_report_the_numbers_that_come_out_otherwise_are_named(tmp_path):
    lake, other = small_lake(tmp_path / "lake"), small_lake(tmp_path / "other", recall=0.75)
    report = json.loads(lake.require(Ref(DATASET, "evaluation_report", PARTITION)).file("report.json").read_text())
    address = Address(DATASET, DAY, "rolling", "snert", "rq1")
    found = list(differing(other.require, address, numbers(report, ADDRESSED)))
    assert {(d["model"], d["metric"]) for d in found} == {
        (model, "rq1.thesis.recall@20") for model in ("snert", "popular_15")
    }
    assert found[0]["difference"].startswith("decimal 1: 0.5 became 0.75")
    assert list(differing(lake.require, address, numbers(report, ADDRESSED))) == []


def test_a_report_that_cannot_be_replayed_says_why_and_fails(sealed):
    text = audit(sealed, "replay", code=1)
    assert "not replayed" in text and "0 of 4 numbers identical" in text


def test_numbers_of_lists_that_nobody_was_shown_are_marked(tmp_path):
    made = "synthetic: uniform"
    lake = small_lake(tmp_path / "lake", made=made)
    shown, other = (Address.parse(f"{DATASET}/{DAY}.rolling/snert:{m}") for m in ("rq2.auc", METRIC))
    for address, mark in ((shown, " (synthetic)"), (other, "")):
        number, graph = lineage(lake.root, address)
        assert number.synthetic == (made if mark else "")
        data = payload(graph, "a title", number)
        assert tree(data).startswith(f"{address.metric}{mark} = 0.")
        assert data["number"].get("synthetic_inview", "") == number.synthetic
    found = diff(lake.root, other, shown)
    assert diff_text(found).splitlines()[:2] == [f"A  {other} = 0.5", f"B  {shown} (synthetic) = 0.75"]
    answer = {"stages": [], "notes": [], "stored": 0.75, "replayed": 0.75, "identical": True, "level": "raw"}
    assert f"{shown} (synthetic) = 0.75" in replay_text(answer | {"address": str(shown), "synthetic_inview": made})
    assert f"{shown} = 0.75" in replay_text(answer | {"address": str(shown)})


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (0.5, 0.5, ""),
        (0.123456, 0.123457, "decimal 6"),
        (0.999, 1.001, "before the decimal point"),
        (12.5, 2.5, "before the decimal point"),
        (0.5, -0.5, "before the decimal point"),
        (None, 0.5, "None became 0.5"),
    ],
)
def test_the_first_digit_that_differs_is_named(before, after, words):
    assert first_difference(before, after).startswith(words)
    assert bool(first_difference(before, after)) == (before != after)


def test_the_synthetic_graph_is_large_and_shares_its_parts():
    graph = synthetic_graph(2000)
    assert len(graph.nodes) == 2000 == len(graph.order())
    links = sum(len(n.inputs) for n in graph.nodes.values())
    assert links > 10_000
    data = payload(graph, "t")
    assert len(page(data)) < 6_000_000


def test_of_an_erased_version_nothing_is_left_to_compare(root):
    ref = Ref(DATASET, "interactions", DAY)
    before = Lake(root).require(ref)
    bury(root, ref, recorded=True)
    _, graph = lineage(root, Address.parse(f"{DATASET}/{DAY}.rolling/snert:{METRIC}"))
    (node,) = graph.find(ref)
    assert (node.id, node.state) == (before.manifest_digest, "erased")
    erased = _told(node, Lake(root).require(ref), 1.0)
    assert erased["same"] is None and erased["differs"] == []
    (kept,) = graph.find(CHECKPOINT)
    same = _told(kept, Lake(root).require(CHECKPOINT), 1.0)
    assert (same["same"], _told(kept, Lake(root).require(ref), 1.0)["same"]) == (True, False)
    answer = {"stages": [erased, same], "notes": [], "stored": 0.5, "replayed": 0.5, "identical": True, "level": "raw"}
    first, _ = replay_text(answer | {"address": METRIC}).splitlines()
    assert first == "2 partitions made again in 2.0 s, 1 with the same bytes, 1 erased: nothing left to compare"
