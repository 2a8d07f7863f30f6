"""Two files of `newsrec bench --out` side by side: `python -m ml.benchmarks.compare OLD NEW` (`make bench-compare`).

Belongs here: what became faster or slower, and whether by more than its spread. Does not belong here: measuring
(`ml.benchmarks.common`).

A row is judged by its ratio to the reference of its own run, since that stood beside it on the same machine. Its
change lies between the quartiles of both files at their worst and at their best; slower is what lies wholly below
1 - `TOLERANCE`. Rows that were measured once have no spread and are shown, not judged; counts of bytes are exact.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ml.errors import DataError, NewsrecError

TOLERANCE = 0.1
_EXACT = {"bytes"}
Verdict = Literal["slower", "faster", "same", "measured once"]


@dataclass(frozen=True, slots=True)
class Change:
    """How a row's ratio to its reference moved: `change` = new / old, above 1 better; `low`, `high` its spread."""

    bench: str
    name: str
    change: float
    low: float
    high: float
    judged: bool

    @property
    def verdict(self) -> Verdict:
        """What can be said of it."""
        if not self.judged:
            return "measured once"
        if self.high < 1 - TOLERANCE:
            return "slower"
        return "faster" if self.low > 1 / (1 - TOLERANCE) else "same"


def compare(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[Change], list[str]]:
    """The changes of the rows that both have, in order, and one line for every row that one of them lacks."""
    before, after = _rows(old), _rows(new)
    changes = [_change(*key, before[key], after[key]) for key in before if key in after]
    lost = [f"only in the old file: {b}: {n}" for b, n in before if (b, n) not in after]
    return changes, lost + [f"only in the new file: {b}: {n}" for b, n in after if (b, n) not in before]


def _rows(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(b["bench"], row["name"]): row for b in document["benchmarks"] for row in b["results"]}


def _change(bench: str, name: str, old: dict[str, Any], new: dict[str, Any]) -> Change:
    exact = old["unit"] in _EXACT
    (old_low, old_high), (new_low, new_high) = (row.get("spread", [row["ratio"]] * 2) for row in (old, new))
    judged = exact or ("spread" in old and "spread" in new)
    return Change(bench, name, new["ratio"] / old["ratio"], new_low / old_high, new_high / old_low, judged)


def read(path: Path) -> dict[str, Any]:
    """A file of results. Raises DataError for anything else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        _rows(document)
        _ = [row["ratio"] / 1 for row in _rows(document).values()], document["machine"]["processor"], document["size"]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}: `make bench` writes one") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no file of results ({error!r}): `make bench` writes one") from error
    return dict(document)


def text(changes: list[Change], lost: list[str]) -> str:
    """The comparison for the terminal."""
    width = max((len(f"{c.bench}: {c.name}") for c in changes), default=0)
    lines = [
        f"{f'{c.bench}: {c.name}':{width}}  {c.change:6.2f} x  [{c.low:.2f}, {c.high:.2f}]  {c.verdict}"
        for c in changes
    ]
    slower = sum(c.verdict == "slower" for c in changes)
    return "\n".join([*lines, *lost, f"{slower} of {len(changes)} rows are slower beyond their spread"])


def main(arguments: list[str]) -> int:
    """Exit code 0: nothing is slower, 1: something is, 2: bad usage or bad input."""
    if len(arguments) != 2 or {"-h", "--help"} & set(arguments):
        print("usage: python -m ml.benchmarks.compare OLD.json NEW.json    (`make bench` writes them)", file=sys.stderr)
        return 2
    try:
        old, new = (read(Path(a)) for a in arguments)
    except NewsrecError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for fact in ("processor", "cores"):
        if old["machine"].get(fact) != new["machine"].get(fact):
            both = f"{old['machine'].get(fact)} and {new['machine'].get(fact)}"
            print(f"{fact}: {both}: rows held against a fixed figure tell nothing")
    if old["size"] != new["size"]:
        print(f"error: sizes {old['size']} and {new['size']} cannot be compared", file=sys.stderr)
        return 2
    changes, lost = compare(old, new)
    print(text(changes, lost))
    return int(any(c.verdict == "slower" for c in changes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
