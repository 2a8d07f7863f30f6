"""`promotion`: whether the checkpoint of the as-of day becomes champion, with the evidence.

Belongs here: who meets whom, and what follows from the decision. Does not belong here: measuring (`ml.duel`), the rule
(`ml.promotion`), the record (`resources.champion`).
"""

import hashlib
import json
import math
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from assets.evaluation import VECTOR_FAMILIES
from assets.segments import sources
from assets.stage import Kept, Need, Stage, Summary, Work, inview_label, test_needs
from ml import sheet
from ml.datasets import Dataset
from ml.errors import DataError
from ml.measured import read_figures
from ml.models import MODELS
from ml.promotion import Evidence, Rules, decide
from ml.splits import split
from ml.strangers import reading
from ml.synthetic import SYNTHETIC
from resources import registry
from resources.bindings import RunSettings, Tools
from resources.champion import Champions, Title
from resources.lake import Lake, Ref, Version
from resources.lineage.check import hash_files
from resources.lineage.graph import walk
from resources.manifest import DIGEST

DECISION = "decision.json"


def rules_of(settings: RunSettings) -> Rules:
    """The margins of a run."""
    return Rules(
        recall=settings.margin_recall,
        auc=settings.margin_auc,
        coverage=settings.margin_coverage,
        erank_floor=settings.erank_floor,
        latency_ms=settings.latency_budget_ms,
    )


def _recipe(dataset: Dataset, settings: RunSettings, tools: Tools, model: str | None) -> dict[str, Any]:
    template = hashlib.sha256(sheet.template()).hexdigest()
    return {"rules": rules_of(settings).to_json(), "split": settings.split, "template": template}


def _incumbent(dataset: Dataset, day: date, model: str | None, settings: RunSettings, lake: Lake) -> Sequence[Version]:
    fit = split(settings.split).fit_name
    challenger = lake.current(Ref(dataset.name, "checkpoint", f"{day}.{fit}", model))
    if challenger is None:
        return ()
    champions = Champions(lake, dataset.name, str(model), fit)
    title = champions.incumbent(Title.of(challenger))
    return [champions.version(title)] if title is not None else ()


def _compute(work: Work) -> Summary:
    from ml.asof import AsOf
    from ml.duel import Side, duel
    from ml.stored import read_span

    challenger = work.one("checkpoint")
    champion = work.inputs["champion"][0] if work.inputs["champion"] else None
    load = MODELS[str(work.model)].load
    device = work.tools.device.name
    if champion is not None and Title.of(champion).day > work.day:
        raise DataError(f"{champion.ref} knows days that {challenger.ref} is tested on: it cannot be its champion")
    asof = AsOf.open(work.asof_paths())
    family = next((f for f in VECTOR_FAMILIES if f in asof.families), None)
    with tempfile.TemporaryDirectory(prefix="duel-", dir=work.out.parent) as scratch:
        folder = Path(scratch)
        found = duel(
            asof,
            Side(load(challenger.path, device), work.one("predictions").path),
            Side(load(champion.path, device), folder / "predictions") if champion else None,
            family,
            sources(work),
            folder,
        )
    ours = found.erank["challenger"]
    theirs = found.erank.get("champion", {})
    evidence = Evidence(
        champion=champion is not None,
        paired=found.paired,
        erank={tower: (rank, theirs.get(tower)) for tower, rank in ours.items()},
        latency_ms=found.latency["challenger"]["p95"],
        faults=_faults(work.tools.lake, challenger),
        unmeasured=found.unmeasured,
        synthetic=read_span(work.one("predictions").path).get(SYNTHETIC, ""),
    )
    rules = rules_of(work.settings)
    decision = {
        "dataset": work.dataset.name,
        "as_of": str(work.day),
        "split": work.settings.split,
        "model": work.model,
        SYNTHETIC: evidence.synthetic,
        "challenger": _named(challenger),
        "champion": _named(champion) if champion else None,
        **decide(evidence, rules).to_json(),
        "rules": rules.to_json(),
        "figures": found.figures,
        "segments": found.segments,
        "erank": {s: {k: _or_null(v) for k, v in e.items()} for s, e in found.erank.items()},
        "latency": {s: {k: _or_null(v) for k, v in e.items()} for s, e in found.latency.items()},
        "faults": list(evidence.faults),
    }
    return _write(work, decision)


def _write(work: Work, decision: dict[str, Any]) -> Summary:
    from ml.promotion_page import page

    (work.out / DECISION).write_text(json.dumps(decision, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    badge = "simulated data" if work.dataset.synthetic else ""
    (work.out / "promotion.html").write_text(page(decision, badge), encoding="utf-8")
    plain = str.maketrans("", "", ",()")  # the tracker takes no name with such signs
    passed = [(c["name"].translate(plain), c["passed"]) for c in decision["criteria"] if c["passed"] is not None]
    shown = {c["name"]: f"{c['passed']}: {c['measured']}, {c['required']}" for c in decision["criteria"]}
    metadata = {"promote": decision["promote"], "why": decision["why"], "criteria": shown}
    return Summary(
        metrics={f"criteria.{name}": float(holds) for name, holds in passed},
        metadata=metadata,
        labels=inview_label(decision[SYNTHETIC]),
        artifacts=[DECISION, "promotion.html"],
    )


def _or_null(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _faults(lake: Lake, challenger: Version) -> list[str]:
    """What does not hold under the challenger: every byte, manifest and link down to the raw tables."""
    graph = walk(lake.root, [(challenger.ref, challenger.manifest_digest)])
    return [str(f) for f in hash_files(graph).findings if f.broken]


def _named(version: Version) -> dict[str, str]:
    return {"ref": str(version.ref), "manifest": version.manifest_digest}


def read_decision(version: Version) -> dict[str, Any]:
    """The decision of a promotion. Raises DataError where it is of another form, or of other checkpoints than these."""
    path = version.file(DECISION)
    kinds = {"dataset": str, "as_of": str, "model": str, "why": str, "promote": bool, "criteria": list}
    decision = read_figures(path, {**kinds, "challenger": dict})
    with reading(path):
        ref, fit = version.ref, split(version.ref.partition.split(".")[1]).fit_name
        for side in filter(None, (decision["challenger"], decision["champion"])):
            title = _title(side)
            own = (title.ref.dataset, title.ref.stage, title.ref.model) == (ref.dataset, "checkpoint", ref.model)
            if not own or not DIGEST.fullmatch(title.manifest) or title.ref.partition != f"{title.day}.{fit}":
                raise ValueError(f"it weighs {title.ref}")
        if decision["challenger"]["manifest"] not in version.manifest["inputs"].values():
            raise ValueError("its challenger is none of its inputs")
        for criterion in decision["criteria"]:
            if not {"name", "passed", "measured", "required"} <= criterion.keys():
                raise ValueError("a criterion says nothing")
    return decision


def settle(tools: Tools, version: Version, who: str) -> None:
    """Act on a published decision, once: the record in the lake first, then the registry's aliases."""
    decision = read_decision(version)
    title, met = _title(decision["challenger"]), decision["champion"] and _title(decision["champion"])
    fit = title.ref.partition.split(".")[1]
    champions = Champions(tools.lake, title.ref.dataset, str(title.ref.model), fit)
    champions.settle(title, met, decision["promote"], f"{who} (rule)", decision["why"], version.manifest_digest)
    if not decision["promote"]:
        registry.note_refusal(tools.tracker, title.ref, title.manifest, decision["why"])
    follow(tools, champions)


def _title(side: dict[str, str]) -> Title:
    return Title(Ref.parse(side["ref"]), side["manifest"])


def follow(tools: Tools, champions: Champions) -> None:
    """Let the registry's alias `champion` follow the record. Raises TrackerError where the store cannot be told."""
    current = champions.current()
    if current is not None:
        last = next(a for a in reversed(champions.acts()) if a.subject == current and a.action != "refuse")
        registry.crown(tools.tracker, current.ref, current.manifest, last.who, last.why)


PROMOTION = Stage(
    name="promotion",
    group="evaluation",
    description="Whether the challenger of the day becomes champion: paired intervals, rank, latency, manifest.",
    needs=(
        Need("predictions", "predictions", model="same"),
        Need("checkpoint", "checkpoint", model="same"),
        *test_needs(),
        Need("clicks", "clicks", lambda s: (s.test_days[0], s.test_days[-1])),
        Kept("champion", "checkpoint", lambda _: (None, -1), model="same", find=_incumbent),
    ),
    modules=("assets.promotion", "ml.promotion", "ml.promotion_page", "ml.duel"),
    recipe=_recipe,
    compute=_compute,
    by_split="test",
    models="trained",
    kinds=("html",),
    after=settle,
)
