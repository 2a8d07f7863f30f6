"""The account of a cut into days: what became of the rows of every source file.

Belongs here: counting, and keeping the figures beside the days. Does not belong here: which rows are held back (the
readers), what the days' tables make of their rows (`ml.readers.canonical`), comparing both (`ml.log_rows`).

Rows are what a table is made of: of a history its clicks (one that is held back whole is one row), of text lines (a
blank one holds no row), else rows of the file.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ml import schema
from ml.readers.rules import SOURCE
from ml.readers.spill import Spill

ACCOUNT = "account.json"
_NUMBER = ":[0-9]+$"


@dataclass(slots=True)
class Rows:
    """Rows of one file for one table: all of them, those placed in days, those held back before that, and those that
    repeat another one exactly. One that lies in several days is placed once."""

    rows_in: int = 0
    placed: int = 0
    quarantined: int = 0
    duplicates: int = 0

    @property
    def lost(self) -> int:
        """Rows of which nothing is known; below 0: rows too many. 0 unless the reader is at fault."""
        return self.rows_in - self.placed - self.quarantined - self.duplicates

    def __add__(self, other: "Rows") -> "Rows":
        """The figures of both."""
        return Rows(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


class Account:
    """Figures by source file (relative to the root) and table."""

    def __init__(self, files: Mapping[tuple[str, str], Rows] | None = None) -> None:
        self.files: dict[tuple[str, str], Rows] = dict(files or {})

    def of(self, file: str, table: str) -> Rows:
        """The figures of a file, to be changed."""
        return self.files.setdefault((file, table), Rows())

    def of_table(self, table: str) -> Rows:
        """The figures of all files of a table."""
        return sum((rows for (_, name), rows in self.files.items() if name == table), Rows())

    def write(self, out: Path) -> None:
        """Writes the account beside the days in `out`."""
        plain = [{"file": file, "table": table, **asdict(rows)} for (file, table), rows in sorted(self.files.items())]
        (out / ACCOUNT).write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


def read_account(out: Path) -> Account:
    """The account in `out`; an empty one where there is none."""
    path = out / ACCOUNT
    said = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return Account({(row.pop("file"), row.pop("table")): Rows(**row) for row in said})


class Quarantine(Spill):
    """`quarantine.parquet` of a cut into days below `out`, and the `account` beside it, written at the end."""

    def __init__(self, out: Path) -> None:
        super().__init__(out / "quarantine.parquet", schema.QUARANTINE)
        self._out = out
        self._reasons: Counter[str] = Counter()
        self.account = Account()

    def append(self, table: pa.Table) -> None:
        """Adds rows, which are counted by reason and by source file."""
        super().append(table)
        if len(table):
            self._reasons.update(table[schema.REASON].to_pylist())
            for file, count in _by_file(table).items():
                self.account.of(file, table["table"][0].as_py()).quarantined += count

    def withdraw(self, table: pa.Table) -> None:
        """Adds rows that had a place in a day."""
        self.append(table)
        for file, count in _by_file(table).items():
            self.account.of(file, table["table"][0].as_py()).placed -= count

    def told(self) -> str:
        """The rows in words, for the end of a clause; empty without any."""
        said = ", ".join(f"{reason} {count:,}" for reason, count in self._reasons.most_common(5))
        return f" (held back: {said})" if said else ""

    def close(self) -> None:
        """Writes what is gathered, and the account."""
        super().close()
        self.account.write(self._out)


def _by_file(held_back: pa.Table) -> dict[str, int]:
    """Rows by source file, which a row number may follow."""
    counts = pc.value_counts(pc.replace_substring_regex(held_back[SOURCE], _NUMBER, ""))
    return {str(c["values"]): int(c["counts"]) for c in counts.to_pylist()}
