"""Figures read back: metrics.json and curves.json of one evaluation or training, report.json, decision.json and the
like.

Belongs here: their form as far as those who read them rely on it. Does not belong here: what is measured
(`ml.evaluate`, `ml.segments`, `ml.train`) and how it is shown."""

from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from ml.strangers import AGAIN, read_json, read_object, reading

Json = dict[str, Any]
_FIGURE = ("value", "difference", "low", "high", "n")
_EVALUATION: Mapping[str, type] = {"conventions": dict, "protocols": dict, "rq": str, "dataset": str}
_SEGMENTS: Mapping[str, type] = {"left_out": dict}
_QUESTION: Mapping[str, type] = {"paired": dict, "counts": dict, "span": dict}


def read_metrics(path: Path, remedy: str = AGAIN) -> Json:
    """An evaluation's metrics.json. Raises DataError where it is not of that form."""
    found = read_figures(path, _EVALUATION, remedy)
    with reading(path, remedy):
        _require(found, _SEGMENTS if found["rq"] == "segments" else _QUESTION)
        _require(found["protocols"], dict.fromkeys(found["protocols"], dict))
    return found


def read_curves(path: Path, remedy: str = AGAIN) -> list[dict[str, float]]:
    """The points of curves.json: figures by name, a `step` in each. Raises DataError for anything else."""
    found = read_json(path, remedy)
    with reading(path, remedy):
        if not all("step" in point and all(_is_number(v) for v in point.values()) for point in found):
            raise ValueError("a point holds what is no number, or no step")
    return list(found)


def read_report(path: Path, remedy: str = AGAIN) -> Json:
    """A report.json. Raises DataError where it is not of that form."""
    texts = dict.fromkeys(("dataset", "as_of", "split", "baseline"), str)
    found = read_figures(path, {**texts, "models": dict, "published": dict, "conventions": dict, "notes": list}, remedy)
    with reading(path, remedy):
        _require(found["models"], dict.fromkeys(found["models"], dict))
    return found


def read_figures(path: Path, entries: Mapping[str, type], remedy: str = AGAIN) -> Json:
    """A JSON object that has `entries` of these types, and in which every figure is a number or null. Raises DataError
    for anything else."""
    found = read_object(path, remedy)
    with reading(path, remedy):
        _require(found, entries)
        todo: list[Any] = [found]
        while todo:
            value = todo.pop()
            if isinstance(value, dict) and ("value" in value or "difference" in value):
                figures = {name: value[name] for name in _FIGURE if name in value}
                wrong = [n for n, v in figures.items() if not (_is_number(v) or isinstance(v, (NoneType, dict)))]
                if wrong:
                    raise ValueError(f"a figure's {wrong[0]} is no number")
            todo += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return found


def _require(found: Json, entries: Mapping[str, type]) -> None:
    for name, kind in entries.items():
        if not isinstance(found[name], kind):
            raise TypeError(f"{name} is no {kind.__name__}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
