"""The decision whether a challenger becomes champion: a rule over evidence, and nothing else.

Belongs here: margins, criteria, the verdict. Does not belong here: measuring the evidence (`ml.duel`), who is champion
(`resources.champion`).

No loss beyond a margin: the lower bound of the 95 % interval of the paired difference (challenger less champion, the
same lists) is at least minus the margin. What the log cannot measure for either is no criterion; Recall@20 must be
measured. Without a champion the challenger only has to be sound: rank, latency, manifest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ml.synthetic import marked

Json = dict[str, Any]
LABELS = {"recall": "RQ1 Recall@20", "auc": "RQ2 AUC", "coverage": "RQ3 coverage"}


@dataclass(frozen=True, slots=True)
class Rules:
    """Margins are differences of the metric (0.01: one point of Recall@20 in a hundred). `erank_floor`: lowest relative
    effective rank (Eq. A.10); `erank_share`: lowest share of the champion's; `latency_ms`: of the slowest 5 % of lists.
    """

    recall: float = 0.01
    auc: float = 0.01
    coverage: float = 0.01
    erank_floor: float = 0.1
    erank_share: float = 0.5
    latency_ms: float = 250.0

    def to_json(self) -> Json:
        """By name."""
        return {name: getattr(self, name) for name in Rules.__slots__}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a challenger. `champion`: whether there is one to compare with. `paired`: by `recall`, `auc`,
    `coverage` the entry `{"difference", "low", "high"}`; a missing one has its reason in `unmeasured`. `erank`: by
    tower the relative effective rank of the challenger and, where there is one, of the champion; empty for models
    without vectors. `latency_ms`: 95th percentile. `faults`: what is wrong with the challenger's bytes and those that
    it came from. `synthetic` says how in-view lists that nobody was shown were made, empty without such."""

    champion: bool
    paired: Mapping[str, Mapping[str, float | None]]
    erank: Mapping[str, tuple[float, float | None]]
    latency_ms: float
    faults: Sequence[str]
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    synthetic: str = ""


@dataclass(frozen=True, slots=True)
class Criterion:
    """One condition: `passed` is None where it does not apply. `measured`, `required` in words."""

    name: str
    passed: bool | None
    measured: str
    required: str


@dataclass(frozen=True, slots=True)
class Decision:
    """All criteria; the challenger is promoted when none of them failed."""

    criteria: tuple[Criterion, ...]

    @property
    def promote(self) -> bool:
        """Whether the challenger becomes champion."""
        return all(c.passed is not False for c in self.criteria)

    @property
    def why(self) -> str:
        """In one line: what failed, or that nothing did."""
        failed = [f"{c.name}: {c.measured}, required {c.required}" for c in self.criteria if c.passed is False]
        return "; ".join(failed) or "every criterion holds"

    def to_json(self) -> Json:
        """`promote`, `why`, `criteria`."""
        rows = [{name: getattr(c, name) for name in Criterion.__slots__} for c in self.criteria]
        return {"promote": self.promote, "why": self.why, "criteria": rows}


def decide(evidence: Evidence, rules: Rules) -> Decision:
    """The verdict of `rules` on `evidence`."""
    criteria = [_no_loss(name, getattr(rules, name), evidence) for name in LABELS]
    criteria += [_rank(tower, *ranks, rules) for tower, ranks in evidence.erank.items()]
    if not evidence.erank:
        criteria.append(Criterion("effective rank", None, "the model has no vectors", "none"))
    required = f"at most {rules.latency_ms:g} ms"
    in_budget = evidence.latency_ms <= rules.latency_ms  # False for NaN
    criteria.append(Criterion("latency", in_budget, f"{evidence.latency_ms:.1f} ms (95th percentile)", required))
    more = f" and {len(evidence.faults) - 1} more" if len(evidence.faults) > 1 else ""
    found = f"{evidence.faults[0]}{more}" if evidence.faults else "every byte as published"
    criteria.append(Criterion("manifest", not evidence.faults, found, "no fault"))
    return Decision(tuple(criteria))


def _no_loss(name: str, margin: float, evidence: Evidence) -> Criterion:
    label = marked(LABELS[name], evidence.synthetic if name == "auc" else "")
    required = f"lower bound at least {-margin:+.4f}"
    if not evidence.champion:
        return Criterion(label, None, "no champion to compare with", required)
    entry = evidence.paired.get(name)
    if entry is None:
        why = evidence.unmeasured.get(name, "not measured")
        return Criterion(label, None if name == "auc" else False, why, required)
    difference, low, high = entry["difference"], entry["low"], entry["high"]
    if difference is None or low is None or high is None:
        return Criterion(label, False, "no interval: fewer than two readers", required)
    return Criterion(label, low >= -margin, f"difference {difference:+.4f} [{low:+.4f}, {high:+.4f}]", required)


def _rank(tower: str, ours: float, theirs: float | None, rules: Rules) -> Criterion:
    floor = max(rules.erank_floor, rules.erank_share * theirs if theirs is not None else 0.0)
    measured = (f"{ours:.3f}" if ours == ours else "undefined: the vectors have collapsed") + (
        f" (champion {theirs:.3f})" if theirs is not None else ""
    )
    return Criterion(f"effective rank, {tower}", ours >= floor, measured, f"at least {floor:.3f}")
