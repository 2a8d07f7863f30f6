"""What an asset's page in Dagster links to: column lineage, inputs, the MLflow run, a report's audit page.

Belongs here: metadata that points elsewhere. Does not belong here: figures (each stage's summary) and the audit page's
content (`resources.lineage`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from assets.column_lineage import columns_of
from assets.stage import Stage
from ml.datasets import Dataset
from resources.lake import Lake, Version
from resources.lineage.graph import walk
from resources.lineage.metric import REPORT, REPORT_FILE
from resources.lineage.page import page
from resources.lineage.payload import payload
from resources.tracking_store import SERVERS

MLFLOW_UI = "http://127.0.0.1:5000"
"""Where `mlflow ui` answers when the store is a file."""


def column_lineage(
    stage: Stage, dataset: Dataset, model: str | None, by_name: Mapping[str, Stage]
) -> dict[str, dg.TableColumnLineage]:
    """`dagster/column_lineage` of an asset; {} where its stage has no columns."""

    def key(upstream: str) -> dg.AssetKey:
        own = [model] if model and by_name[upstream].models != "none" else []
        return dg.AssetKey([dataset.name, upstream, *own])

    deps = {
        column: [dg.TableColumnDep(asset_key=key(upstream), column_name=name) for upstream, name in sources]
        for column, sources in columns_of(stage.name, dataset.reader).items()
        if all(upstream in by_name for upstream, _ in sources)
    }
    return {"dagster/column_lineage": dg.TableColumnLineage(deps_by_column=deps)} if deps else {}


def links(lake: Lake, version: Version, tracking_uri: str, run_page: str = "") -> dict[str, Any]:
    """Inputs as a table, the page of the MLflow run, and for a report its own page and its audit page."""
    rows = [f"| {ref} | `{digest[:16]}` |" for ref, digest in version.manifest["inputs"].items()]
    found: dict[str, Any] = {}
    if rows:
        found["inputs"] = dg.MetadataValue.md("\n".join(["| input | manifest |", "|---|---|", *rows]))
    if run_page:
        server = tracking_uri.rstrip("/") if tracking_uri.startswith(SERVERS) else MLFLOW_UI
        found["mlflow_page"] = dg.MetadataValue.url(f"{server}/{run_page}")
    if version.ref.stage == REPORT:
        found["report_page"] = dg.MetadataValue.path(str(version.path / REPORT_FILE.replace(".json", ".html")))
        found["audit_page"] = dg.MetadataValue.url(audit_page(lake, version).as_uri())
    return found


def audit_page(lake: Lake, version: Version) -> Path:
    """Write the audit page of a version into the lake's cache, whence it can go at any time; gives its path."""
    graph = walk(lake.root, [(version.ref, version.manifest_digest)])
    path = lake.cache("audit") / f"{str(version.ref).replace('/', '~')}.{version.path.name}.html"
    temporary = path.with_suffix(".new")
    temporary.write_text(page(payload(graph, str(version.ref))), encoding="utf-8")
    temporary.replace(path)
    return path
