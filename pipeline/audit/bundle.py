"""The bundle for an outside auditor: what lies under a number, with a verifier that needs only Python.

Belongs here: what goes into a bundle. Does not belong here: how it is verified (`verify_bundle.py`, which is copied
into it).
"""

import json
import shutil
from pathlib import Path
from typing import Any

from ml.errors import LakeError, UsageError
from pipeline.audit import verify_bundle
from resources.ledger import LEDGER
from resources.lineage.archive import POINTER, SIGNATURE, TOMBSTONE
from resources.lineage.graph import Graph
from resources.lineage.metric import Number
from resources.lineage.page import page

README = """Audit bundle of {title}

python verify_bundle.py . --root {root}

hashes every file under lake/ and walks from the root digest down. Get the root digest from a source you trust: the
signature beside this file (if there is one), or the tag newsrec.manifest of MLflow run {run}.
audit.html shows the same graph.
"""


def write_bundle(graph: Graph, title: str, number: Number | None, data: dict[str, Any], out: Path) -> dict[str, Any]:
    """Copy versions, ledgers, pointers and tombstones of the graph to the new folder `out`; gives what it holds.

    Raises UsageError when `out` exists, LakeError when part of the graph is not as it was published.
    """
    if out.exists():
        raise UsageError(f"{out} exists already: choose a new folder")
    bad = [n for n in graph.nodes.values() if n.state in ("changed", "missing")]
    if bad:
        raise LakeError(f"{bad[0].ref} is {bad[0].state}: run `newsrec audit verify`; a broken graph is not exported")
    (root,) = graph.roots
    node = graph.nodes[root]
    named = dict((node.manifest or {}).get("inputs", {}))
    follow = [name for name, digest in named.items() if digest in node.inputs]
    out.mkdir(parents=True)
    for each in graph.nodes.values():
        if each.kept is not None:
            shutil.copytree(each.kept.path, out / "lake" / str(each.ref) / each.version)
    for ref, partition in graph.partitions.items():
        target = out / "lake" / str(ref)
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(partition.folder.iterdir()):
            if path.name in (LEDGER, POINTER) or path.name.endswith((TOMBSTONE, SIGNATURE)):
                shutil.copyfile(path, target / path.name)
    about = {"format": 1, "title": title, "ref": str(node.ref), "root": root, "follow": follow}
    if number is not None:
        place = ["models", number.address.model, *number.address.metric.split("."), "value"]
        about |= {"path": place, "value": number.value}
    (out / "bundle.json").write_text(json.dumps(about, indent=1) + "\n")
    (out / "audit.html").write_text(page(data), encoding="utf-8")
    (out / "README.txt").write_text(README.format(title=title, root=root, run=node.run.get("mlflow_run")))
    shutil.copyfile(verify_bundle.__file__, out / "verify_bundle.py")
    return {**about, "versions": len(graph.nodes), "bytes": sum(n.size for n in graph.nodes.values() if n.kept)}
