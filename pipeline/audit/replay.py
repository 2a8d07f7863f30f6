"""`newsrec audit replay METRIC`: a published number computed again, in a fresh process and a scratch lake.

Belongs here: which stages run again, from which stored versions, and how results compare. Does not belong here: what
the stages compute (`assets`), whole reports (`pipeline.audit.replay_reports`).

`python -m pipeline.audit.replay SPEC.json OUT.json` is the fresh process.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ml.errors import DataError, LakeError, NewsrecError, UsageError
from ml.strangers import read_json, reading
from ml.synthetic import SYNTHETIC, marked
from resources.lineage.graph import Graph, Node
from resources.lineage.metric import METRICS_FILE, REPORT, Address, figure, lineage
from resources.manifest import canonical
from resources.ref import Ref

if TYPE_CHECKING:
    from resources.bindings import RunSettings, Tools
    from resources.version import Version

Level = Literal["predictions", "checkpoint", "raw", "changed"]
EVALUATIONS = ("evaluation_rq1", "evaluation_rq2", "evaluation_rq3", "evaluation_segments")
AGAIN: Mapping[str, tuple[str, ...] | None] = {
    "predictions": EVALUATIONS,
    "checkpoint": (*EVALUATIONS, "predictions"),
    "raw": None,
    "changed": (),
}
"""Stages that run again at each level whatever their recipe; None: all. `changed`: only what other settings change."""
SETTLED = ("checkpoint", "predictions")
"""Stages under a number whose recipe depends on the settings of a run."""
NOTHING_LEFT = "nothing left to compare"
_ERRORS: dict[str, type[NewsrecError]] = {e.__name__: e for e in (DataError, UsageError, LakeError)}


@dataclass(frozen=True)
class Spec:
    """What the fresh process is told: one number (`address`), or all of `reports` (addresses of any of their numbers).
    `settings` replace those that the number was made with (for `diff`)."""

    lake: str
    level: Level
    scratch: str
    address: str = ""
    reports: tuple[str, ...] = ()
    data_root: str = ""
    device: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


def replay(
    root: Path, address: Address, level: Level, data_root: Path | None, device: str = "", **settings: Any
) -> dict[str, Any]:
    """Run the stages again; see `compare` for the answer. The scratch lake is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="newsrec-replay-") as scratch:
        given = str(data_root.absolute()) if data_root else ""
        return in_fresh_process(Spec(str(root), level, scratch, str(address), (), given, device, settings))


def in_fresh_process(spec: Spec) -> dict[str, Any]:
    """The answer of the work that `spec` describes; its error is raised here."""
    told, out = Path(spec.scratch) / "spec.json", Path(spec.scratch) / "answer.json"
    told.write_text(json.dumps(asdict(spec)))
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.audit.replay", str(told), str(out)],
        stdout=sys.stderr,
        check=False,
    )
    if not out.exists():
        raise LakeError(f"the replaying process ended with code {done.returncode} before it had an answer")
    answer: dict[str, Any] = json.loads(out.read_text())
    if "error" in answer:
        raise _ERRORS.get(answer["kind"], LakeError)(answer["error"])
    return answer


def first_difference(before: float | None, after: float | None) -> str:
    """Which decimal place differs first, in words; "" for equal figures.

    >>> first_difference(0.4123, 0.4129)
    'decimal 4: 0.4123 became 0.4129'
    """
    if before == after:
        return ""
    if before is None or after is None:
        return f"{before} became {after}"
    exponent = 17
    a, b = (f"{v:+.{exponent}f}" for v in (before, after))
    length = max(len(a), len(b))
    a, b = (t[0] + t[1:].rjust(length - 1, "0") for t in (a, b))
    place = next((i for i in range(length) if a[i] != b[i]), length)
    decimal = place - a.index(".")
    where = f"decimal {decimal}" if decimal > 0 else "before the decimal point"
    return f"{where}: {before!r} became {after!r}"


def render(answer: dict[str, Any]) -> str:
    """For the terminal."""
    lines = []
    for stage in answer["stages"]:
        if stage["same"] is False:
            lines.append(f"{stage['ref']}: other bytes: {', '.join(stage['differs'])}")
            lines += [f"    {stage['first']}"] if stage["first"] else []
    seconds = sum(stage["seconds"] for stage in answer["stages"])
    lines.append(f"{len(answer['stages'])} partitions made again in {seconds:.1f} s, {counted(answer['stages'])}")
    lines += [f"note  {note}" for note in answer["notes"]]
    stored, again = answer["stored"], answer["replayed"]
    address = marked(answer["address"], answer.get(SYNTHETIC))
    if answer["identical"]:
        lines.append(f"identical: {address} = {again!r}, from {answer['level']}")
    else:
        lines.append(f"{address}: stored {stored!r}, replayed {again!r}; {answer['difference']}")
        if answer["first_stage"]:
            lines.append(f"first stage that differs: {answer['first_stage']}")
    return "\n".join(lines)


def counted(stages: Sequence[Mapping[str, Any]]) -> str:
    """How many came out with the same bytes, and of how many nothing is left to compare with."""
    same, gone = (sum(stage["same"] is said for stage in stages) for said in (True, None))
    return f"{same} with the same bytes" + (f", {gone} erased: {NOTHING_LEFT}" if gone else "")


def compare(spec: Spec) -> dict[str, Any]:
    """The work of the fresh process: `identical`, the two figures, each stage run again with whether its bytes are the
    `same` as were published (None: they were erased), the first stage and digit that differ, and notes (other code than
    then)."""
    address = Address.parse(spec.address)
    number, graph = lineage(Path(spec.lake), address)
    again = Again.of(spec, address, graph)
    again.run()
    version = again.version(
        Ref(address.dataset, f"evaluation_{address.question}", address.report.partition, address.model)
    )
    value = figure(json.loads(version.file(METRICS_FILE).read_text()), address.metric)
    differing = [s for s in again.stages if s["same"] is False]
    return {
        "address": str(address),
        **({SYNTHETIC: number.synthetic} if number.synthetic else {}),
        "level": spec.level,
        "identical": value == number.value,
        "stored": number.value,
        "replayed": value,
        "difference": first_difference(number.value, value),
        "first_stage": differing[0]["ref"] if differing else None,
        "stages": again.stages,
        "notes": again.notes,
    }


class Again:
    """Stages of a graph run again into the scratch lake of `tools`; stored versions serve as inputs elsewhere."""

    def __init__(self, graph: Graph, settings: "RunSettings", tools: "Tools", level: Level) -> None:
        self.graph, self.settings, self.tools, self.level = graph, settings, tools, level
        self.versions: dict[str, Version] = {}
        self.stages: list[dict[str, Any]] = []
        self.notes: list[str] = []

    @classmethod
    def of(cls, spec: Spec, address: Address, graph: Graph) -> "Again":
        """With the settings that the graph under `address` was made with, and the scratch lake of `spec`."""
        from pipeline.audit.recorded import RecordedSettings, settings_of
        from resources.bindings import ToolBox
        from resources.erasure.book import carry_list

        settings = RecordedSettings(**{**settings_of(graph, address.model), **spec.settings})
        toolbox = ToolBox(
            lake=str(Path(spec.scratch) / "lake"),
            dataset=address.dataset,
            data_root=spec.data_root,
            device=spec.device or _device(graph),
        )
        carry_list(Path(spec.lake), toolbox.tools().lake.root)
        return cls(graph, settings, toolbox.tools(), spec.level)

    def version(self, ref: Ref) -> "Version":
        """The version that stands for the partition `ref` now. Raises LakeError where it is not in the graph."""
        nodes = self.graph.find(ref)
        if not nodes:
            raise LakeError(f"{ref} is not under this number: run `newsrec audit verify`")
        return self.versions[nodes[0].id]

    def run(self) -> None:
        """Every stage but the report, inputs first. Raises LakeError for an input that is not intact."""
        for node in self.graph.order():
            if node.ref.stage != REPORT and self._due(node):
                self.versions[node.id] = self._again(node)
            elif node.ref.stage != REPORT and node.state != "erased":
                self.versions[node.id] = self._stored(node)

    def _due(self, node: Node) -> bool:
        stages = AGAIN[self.level]
        if stages is None or node.ref.stage in stages:
            return True
        replaced = any(i in self.versions and self.versions[i].manifest_digest != i for i in node.inputs)
        return self.level == "changed" and (replaced or bool(self._other_fields(node)))

    def _other_fields(self, node: Node) -> list[str]:
        """Fields of the recipe that are others under these settings and this code."""
        from assets.graph import BY_NAME
        from ml.datasets import dataset

        if self.level == "changed" and node.ref.stage not in SETTLED:
            return []
        stage, known = BY_NAME[node.ref.stage], dataset(node.ref.dataset)
        now = json.loads(canonical(stage.recipe(known, self.settings, self.tools, node.ref.model)))
        then = node.recipe
        return sorted(k for k in now.keys() | (then.keys() - {"rules"}) if now.get(k) != then.get(k))

    def _stored(self, node: Node) -> "Version":
        from resources.version import Version

        if node.kept is None or node.manifest is None or node.state not in ("intact", "superseded"):
            raise LakeError(
                f"{node.ref} is {node.state}, the replay needs it: try --from raw, or `newsrec audit verify`"
            )
        return Version(node.ref, node.kept.path, node.manifest, node.id, "", "")

    def _again(self, node: Node) -> "Version":
        from time import monotonic

        from assets.graph import BY_NAME
        from assets.stage import Work
        from ml.datasets import dataset
        from resources.code import source_digest

        stage, known, ref = BY_NAME[node.ref.stage], dataset(node.ref.dataset), node.ref
        fields = self._other_fields(node)
        if fields and self.level != "changed":
            self.notes.append(f"{ref}: recipe differs from what was published: {', '.join(fields)}")
        code = {module: source_digest([module]) for module in stage.sources(ref.model)}
        then = node.publication.get("code") or (node.manifest or {}).get("code", {})
        moved = [module for module, digest in code.items() if then.get(module) != digest]
        if moved:
            commit = str(node.environment.get("git_commit"))[:12]
            self.notes.append(f"{ref}: code of {', '.join(moved)} is not that of then (commit {commit})")
        inputs = self._inputs(node)
        day = date.fromisoformat(ref.partition.split(".")[0])
        started = monotonic()
        with self.tools.lake.staging(ref) as staged:
            work = Work(known, day, ref.model, self.settings, inputs, staged.path, self.tools, lambda _: None)
            summary = stage.compute(work)
            flat = {str(v.ref): v for versions in inputs.values() for v in versions}
            version = self.tools.lake.publish(staged, flat, "replay", {}, code, summary.rows, [], {"replay": True})
        told = _told(node, version, monotonic() - started)
        self.stages.append(told)
        said = "the same bytes" if told["same"] else f"other bytes in {', '.join(told['differs'])}"
        said = said if told["same"] is not None else f"erased, {NOTHING_LEFT}"
        print(f"{ref}: {said} ({told['seconds']} s)", file=sys.stderr, flush=True)
        return version

    def _inputs(self, node: Node) -> "dict[str, list[Version]]":
        """The stage's inputs by name: the partitions that its manifest names, in the order that the stage asks for."""
        from assets.build import input_refs
        from assets.graph import BY_NAME
        from ml.datasets import dataset

        known, ref = dataset(node.ref.dataset), node.ref
        day = date.fromisoformat(ref.partition.split(".")[0])
        asked = input_refs(BY_NAME[ref.stage], known, day, ref.model, self.settings, BY_NAME, known.days)
        named = dict((node.manifest or {})["inputs"])
        gone = [name for name, digest in named.items() if digest not in self.versions]
        if gone:
            raise LakeError(f"{gone[0]} was erased, {ref} needs it: try --from raw, or a report made since")
        found = {
            name: [self.versions[named[str(r)]] for _, _, r in refs if str(r) in named] for name, refs in asked.items()
        }
        used = {str(v.ref) for versions in found.values() for v in versions}
        if used != set(named):
            lost = sorted(set(named) - used)
            raise LakeError(
                f"{ref} was made from {lost[0]}, which this code would not read: check out the code of then"
            )
        return found


def _device(graph: Graph) -> str:
    """The device that the checkpoints under a number were trained on; auto where there are none."""
    devices = {str(n.run.get("device")) for n in graph.nodes.values() if n.ref.stage == "checkpoint"}
    return devices.pop() if len(devices) == 1 and devices <= {"cpu", "cuda"} else "auto"


def _told(node: Node, version: "Version", seconds: float) -> dict[str, Any]:
    """One stage against what was published: whether the bytes are the `same` (None where those were erased), which
    files differ, and the first figure that does."""
    if node.state == "erased":
        return {"ref": str(node.ref), "same": None, "differs": [], "first": "", "seconds": round(seconds, 2)}
    then = {f["name"]: f["sha256"] for f in (node.manifest or {}).get("files", [])}
    now = {f["name"]: f["sha256"] for f in version.manifest["files"]}
    differs = sorted(n for n in then.keys() | now.keys() if then.get(n) != now.get(n))
    first = ""
    for name in differs:
        if name.endswith(".json") and name in then and name in now and node.kept is not None and not first:
            with reading(node.kept.path / name):
                first = _json_difference(read_json(node.kept.path / name), read_json(version.file(name)), name)
    return {"ref": str(node.ref), "same": not differs, "differs": differs, "first": first, "seconds": round(seconds, 2)}


def _json_difference(before: Any, after: Any, path: str) -> str:
    """The first place where two JSON values differ, in words."""
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        inner = ((f"{path}:{k}" if ":" not in path else f"{path}.{k}", before[k], after[k]) for k in before)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        inner = ((f"{path}[{i}]", a, b) for i, (a, b) in enumerate(zip(before, after, strict=True)))
    elif before == after:
        return ""
    elif all(isinstance(v, (int, float)) for v in (before, after)):
        return f"{path}: {first_difference(float(before), float(after))}"
    else:
        return f"{path}: {str(before)[:40]} became {str(after)[:40]}"
    return next((found for name, a, b in inner if (found := _json_difference(a, b, name))), "")


def _main(told: Path, out: Path) -> None:
    from pipeline.audit.replay_reports import compare_reports
    from resources.own_logs import learn_remembered

    spec = Spec(**json.loads(told.read_text()))
    try:
        learn_remembered(Path(spec.lake))
        answer = compare_reports(spec) if spec.reports else compare(spec)
    except NewsrecError as error:
        answer = {"error": str(error), "kind": type(error).__name__}
    out.write_text(json.dumps(answer))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
