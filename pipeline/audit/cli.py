"""The commands of `newsrec audit`.

Belongs here: arguments, what is printed, exit codes (0 it holds, 1 something is broken, 2 bad usage). Does not belong
here: the work; imports stay inside the commands, so that `show` answers at once.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml.errors import UsageError
from ml.synthetic import marked
from resources.places import existing_lake

if TYPE_CHECKING:
    from resources.lineage.graph import Graph
    from resources.lineage.metric import Address, Number

audit = typer.Typer(no_args_is_help=True, help="Where a number came from, and whether it still holds.")

MetricArgument = Annotated[
    str, typer.Argument(help="such as rq1.in_session.recall@20, or DATASET/DAY.SPLIT[#VERSION]/MODEL:METRIC")
]
DatasetOption = Annotated[str, typer.Option("--dataset", envvar="NEWSREC_DATASET")]
DayOption = Annotated[str, typer.Option("--as-of", metavar="DAY", help="default: the last day with a report")]
SplitOption = Annotated[str, typer.Option("--split", help="rolling, thesis or lag_K")]
ModelOption = Annotated[str, typer.Option("--model")]
VersionOption = Annotated[str, typer.Option("--version", help="a superseded version of the report")]
LakeOption = Annotated[Path | None, typer.Option("--lake", help="root of the lake; default NEWSREC_LAKE")]
RootOption = Annotated[Path | None, typer.Option("--data-root", help="folder of the source log")]
JsonOption = Annotated[bool, typer.Option("--json", help="machine-readable result on standard output")]


def _learn(root: Path) -> None:
    """Own logs of the lake become known datasets."""
    from resources.own_logs import learn_remembered

    learn_remembered(root)


def _data_root(given: Path | None, dataset: str) -> Path | None:
    """The folder given, or that of NEWSREC_DATA_ROOT where NEWSREC_DATASET is the dataset."""
    if given is None and os.environ.get("NEWSREC_DATASET") == dataset and os.environ.get("NEWSREC_DATA_ROOT"):
        given = Path(os.environ["NEWSREC_DATA_ROOT"])
    if given is not None and not given.is_dir():
        raise UsageError(f"--data-root {given}: no such folder")
    return given


def _address(root: Path, text: str, dataset: str, day: str, split: str, model: str, version: str) -> "Address":
    from resources.lineage.metric import Address, complete

    return complete(root, Address.parse(text, dataset, day, split, model, version))


def _graph(
    root: Path, metric: str | None, dataset: str, day: str, split: str, model: str, version: str
) -> "tuple[Graph, str, Number | None]":
    """The graph under a number, or, without one, under a whole report; its title, and the number."""
    from resources.lineage.metric import lineage, report_graph

    address = _address(root, metric or "rq1", dataset, day, split, model, version)
    if metric is None:
        return report_graph(root, address), str(address.report), None
    number, graph = lineage(root, address)
    return graph, marked(str(address), number.synthetic), number


def _print(answer: Any, as_json: bool, render: Callable[[Any], str]) -> None:
    from ml.strangers import lines_escaped

    print(json.dumps(answer, indent=1) if as_json else lines_escaped(render(answer)))


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}: choose a file that can be written") from error


@audit.command()
def show(
    metric: Annotated[str | None, typer.Argument(help="a number; without it, a whole report")] = None,
    dataset: DatasetOption = "simulated",
    as_of: DayOption = "",
    split: SplitOption = "rolling",
    model: ModelOption = "snert",
    version: VersionOption = "",
    lake: LakeOption = None,
    everything: Annotated[bool, typer.Option("--all", help="the whole lake instead of one report")] = False,
    hash_bytes: Annotated[bool, typer.Option("--hash", help="hash every byte before showing states")] = False,
    full: Annotated[bool, typer.Option("--full", help="every day on a line of its own")] = False,
    html: Annotated[Path | None, typer.Option("--html", help="write one interactive page to this file")] = None,
    as_json: JsonOption = False,
) -> None:
    """The tree from a number down to the raw files."""
    from pipeline.audit.text import tree
    from resources.lineage.payload import HASHED, LOOKED, payload

    root = existing_lake(lake)
    if everything:
        from resources.lineage.graph import walk_all

        graph, title, number = walk_all(root), "everything in the lake", None
    else:
        graph, title, number = _graph(root, metric, dataset, as_of, split, model, version)
    if hash_bytes:
        from resources.lineage.check import hash_files

        hash_files(graph)
    data = payload(graph, title, number, HASHED if hash_bytes else LOOKED)
    if html is not None:
        from resources.lineage.page import page

        _write(html, page(data))
    if html is None or as_json:
        _print(data, as_json, lambda d: tree(d, full))
    else:
        print(f"page: {html}")
    if any(f["broken"] for f in data["findings"]):
        raise typer.Exit(1)


@audit.command()
def verify(
    metric: Annotated[str | None, typer.Argument(help="a number; without it, a whole report")] = None,
    dataset: DatasetOption = "simulated",
    as_of: DayOption = "",
    split: SplitOption = "rolling",
    model: ModelOption = "snert",
    version: VersionOption = "",
    lake: LakeOption = None,
    everything: Annotated[bool, typer.Option("--all", help="every version in the lake")] = False,
    data_root: RootOption = None,
    key: Annotated[Path | None, typer.Option("--key", help="public key that must have signed the report")] = None,
    anchors: Annotated[bool, typer.Option(help="compare with MLflow and Dagster where they are")] = True,
    as_json: JsonOption = False,
) -> None:
    """Hash every byte under a number, a report, or the whole lake; name what does not hold."""
    from pipeline.audit.verify import render
    from pipeline.audit.verify import verify as check

    root = existing_lake(lake)
    if everything and key is not None:
        raise UsageError("--key is for one report: leave --all out")
    if everything:
        from resources.lineage.graph import walk_all

        graph = walk_all(root)
        if not graph.nodes and not graph.findings:
            raise UsageError(f"nothing was ever published in {root}: run `newsrec run`")
    else:
        graph, _, _ = _graph(root, metric, dataset, as_of, split, model, version)
    if key is not None:
        from pipeline.audit.sign import check as check_signature
        from pipeline.audit.sign import public_key

        report = graph.nodes[graph.roots[0]]
        report.findings += check_signature(report, public_key(key))
    answer = check(graph, _data_root(data_root, ""), anchors)
    _print(answer, as_json, render)
    if not answer["ok"]:
        raise typer.Exit(1)


@audit.command()
def leaks(
    metric: Annotated[str | None, typer.Argument(help="a number; without it, a whole report")] = None,
    dataset: DatasetOption = "simulated",
    as_of: DayOption = "",
    split: SplitOption = "rolling",
    model: ModelOption = "snert",
    version: VersionOption = "",
    lake: LakeOption = None,
    everything: Annotated[bool, typer.Option("--all", help="every checkpoint and prediction in the lake")] = False,
    as_json: JsonOption = False,
) -> None:
    """Training and test overlap, columns that know the future, inputs newer than the as-of day."""
    from pipeline.audit.leaks import leaks as look
    from pipeline.audit.leaks import render

    root = existing_lake(lake)
    _learn(root)
    if everything:
        from resources.lineage.graph import walk_all

        graph = walk_all(root)
    else:
        graph, _, _ = _graph(root, metric, dataset, as_of, split, model, version)
    answer = look(graph)
    _print(answer, as_json, render)
    if not answer["ok"]:
        raise typer.Exit(1)


@audit.command()
def replay(
    metric: Annotated[str | None, typer.Argument(help="a number; without it, every number of a report")] = None,
    dataset: DatasetOption = "simulated",
    as_of: DayOption = "",
    split: SplitOption = "rolling",
    model: ModelOption = "snert",
    version: VersionOption = "",
    lake: LakeOption = None,
    everything: Annotated[bool, typer.Option("--all", help="every current report of the dataset")] = False,
    start: Annotated[str, typer.Option("--from", help="predictions, checkpoint or raw")] = "predictions",
    data_root: RootOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; default: that of the record")] = "",
    as_json: JsonOption = False,
) -> None:
    """Compute a number, or all of a report, again in a fresh process and a scratch lake: identical, or what differs."""
    from pipeline.audit import replay as one
    from pipeline.audit import replay_reports as whole

    if start not in one.AGAIN or start == "changed":
        raise UsageError(f"--from {start!r}: use predictions, checkpoint or raw")
    if everything and (metric is not None or as_of or version):
        raise UsageError("--all replays every report: leave the number, --as-of and --version out")
    root = existing_lake(lake)
    _learn(root)
    level: one.Level = start  # type: ignore[assignment]
    source = _data_root(data_root, dataset)
    if metric is not None:
        address = _address(root, metric, dataset, as_of, split, model, version)
        answer = one.replay(root, address, level, source, device)
        _print(answer, as_json, one.render)
        same = answer["identical"]
    else:
        reports = (
            whole.current_reports(root, dataset)
            if everything
            else [_address(root, whole.ANY, dataset, as_of, split, model, version)]
        )
        answer = whole.replay_reports(root, reports, level, source, device)
        _print(answer, as_json, whole.render)
        same = answer["ok"]
    if not same:
        raise typer.Exit(1)


@audit.command()
def diff(
    a: Annotated[str, typer.Argument(help="a number, as METRIC or DATASET/DAY.SPLIT[#VERSION]/MODEL:METRIC")],
    b: Annotated[str, typer.Argument(help="another; what it leaves out is that of the options")],
    dataset: DatasetOption = "simulated",
    as_of: DayOption = "",
    split: SplitOption = "rolling",
    model: ModelOption = "snert",
    lake: LakeOption = None,
    attribute: Annotated[bool, typer.Option("--attribute", help="rerun, changing one thing at a time")] = False,
    data_root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """What changed between two numbers: data, code, recipe, seed, environment."""
    from pipeline.audit.diff import attribute as explain
    from pipeline.audit.diff import diff as compare
    from pipeline.audit.diff import render

    root = existing_lake(lake)
    _learn(root)
    first, second = (_address(root, text, dataset, as_of, split, model, "") for text in (a, b))
    found = compare(root, first, second)
    if attribute:
        told = explain(root, first, second, found, _data_root(data_root, dataset), lambda s: print(s, file=sys.stderr))
        found["attribution"] = told
    _print(found, as_json, render)


@audit.command()
def reconcile(dataset: DatasetOption = "simulated", lake: LakeOption = None, as_json: JsonOption = False) -> None:
    """The same number in report, evaluation, MLflow and Dagster; orphan runs; superseded inputs; Dagster's pointers."""
    from pipeline.audit.reconcile import reconcile as compare
    from pipeline.audit.reconcile import render

    answer = compare(existing_lake(lake), dataset)
    _print(answer, as_json, render)
    if not answer["ok"]:
        raise typer.Exit(1)


@audit.command()
def export(
    metric: Annotated[str | None, typer.Argument(help="a number; without it, a whole report")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="file (for a bundle: a new folder) to write")] = None,
    kind: Annotated[str, typer.Option("--format", help="openlineage, prov, mermaid, graphml or bundle")] = "bundle",
    dataset: DatasetOption = "simulated",
    as_of: DayOption = "",
    split: SplitOption = "rolling",
    model: ModelOption = "snert",
    version: VersionOption = "",
    lake: LakeOption = None,
) -> None:
    """The graph for other tools, or a bundle with a stand-alone verifier for an outside auditor."""
    kinds = ("openlineage", "prov", "mermaid", "graphml", "bundle")
    if kind not in kinds:
        raise UsageError(f"--format {kind!r}: use {', '.join(kinds)}")
    graph, title, number = _graph(existing_lake(lake), metric, dataset, as_of, split, model, version)
    if kind == "bundle":
        from pipeline.audit.bundle import write_bundle
        from resources.lineage.payload import payload

        if out is None:
            raise UsageError("a bundle is a folder: say which with --out")
        made = write_bundle(graph, title, number, payload(graph, title, number), out)
        print(f"{out}: {made['versions']} versions, {made['bytes']:,} bytes, root {made['root']}")
        return
    from pipeline.audit.export import text

    written = text(graph, kind)
    if out is None:
        print(written, end="")
    else:
        _write(out, written)


@audit.command()
def sign(
    key: Annotated[Path, typer.Option("--key", help="private key, PEM, Ed25519")],
    dataset: DatasetOption = "simulated",
    as_of: DayOption = "",
    split: SplitOption = "rolling",
    version: VersionOption = "",
    lake: LakeOption = None,
    by: Annotated[str, typer.Option("--by", help="who signs")] = "",
) -> None:
    """Verify a report and sign its root digest; the signature lies beside the report."""
    import getpass

    from ml.errors import LakeError
    from pipeline.audit.sign import private_key
    from pipeline.audit.sign import sign as put
    from pipeline.audit.verify import verify as check
    from resources.lake import Lake

    secret = private_key(key)
    root = existing_lake(lake)
    graph, title, _ = _graph(root, None, dataset, as_of, split, "snert", version)
    answer = check(graph, None, anchors=True)
    if not answer["ok"]:
        raise LakeError(f"{title} is not signed: {answer['findings'][0]['ref']}: {answer['findings'][0]['message']}")
    node = graph.nodes[graph.roots[0]]
    with Lake(root).changing(str(node.ref)):
        path = put(node, secret, by or getpass.getuser())
    print(path)


@audit.command()
def keygen(
    out: Annotated[Path, typer.Option("--out", help="file of the private key; the public one gets .pub")],
) -> None:
    """Make an Ed25519 key pair for `sign` and `verify --key`."""
    from pipeline.audit.sign import new_key

    print(f"private {out}\npublic {new_key(out)}")
