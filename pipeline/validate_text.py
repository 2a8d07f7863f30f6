"""The report of `newsrec validate` in words.

Belongs here: what is printed, and how much of it. Does not belong here: the check (`ml.log_check`), which contract
(`pipeline.validate`).
"""

from collections.abc import Sequence

from ml.log_check import LogReport
from ml.log_rows import EXAMPLES
from ml.readers.account import Rows
from ml.readers.breaches import Breach

MOST_LINES = {"error": 30, "warning": 12}
MOST_NAMED, FEW_FILES = 20, 5
"""Lines of the report on one kind of finding; files whose account it shows, and entries that are not read."""
TEXT_FILES = (".csv", ".csv.gz", ".tsv")
FURTHER = {
    "from_impressions": "{:,} of the rows in are told by impressions",
    "without_a_row": "{:,} more articles have no row and are known by their appearance alone",
    "untimed_history": "{:,} entries of histories have no time and are no clicks",
}
"""What else is said of a table's figures."""
Row = tuple[str | int, ...]


def render(report: LogReport) -> str:
    """The report as text: the account, then errors and warnings by kind, each kind in a few dozen lines at most."""
    lines = [f"{report.root}: {report.dataset}, {_count(len(report.files), 'file')} read"]
    if report.days:
        lines[0] += f", {_count(len(report.days), 'day')} from {report.days[0]} to {report.days[-1]}"
    if report.assumed:
        lines.append(f"rows are checked as if it were said that {'; '.join(report.assumed)}")
    if report.left_out and report.files:
        lines.append(
            f"rows are checked without {_few(report.left_out)}, at which a run would stop; findings about what these "
            "hold may be missing"
        )
    elif not report.files:
        lines.append("no row could be checked")
    lines += _files(report) + _tables(report)
    for severity in ("error", "warning"):
        found = [b for b in report.breaches if b.severity == severity]
        kinds = list(dict.fromkeys((b.kind, b.table) for b in found))
        lines += ["", f"{severity}s, {_count(len(kinds), 'kind')}"] if found else []
        for kind in kinds:
            lines += _of_kind([b for b in found if (b.kind, b.table) == kind])
    if report.not_read:
        shown, rest = report.not_read[:MOST_NAMED], len(report.not_read) - MOST_NAMED
        lines += ["", "not read", *(f"  {line}" for line in shown), *([f"  and {rest:,} more"] if rest > 0 else [])]
    lines += ["", "nothing breaks the contract" if report.clean else "the contract is broken: see the errors"]
    if report.stops:
        lines[-1] += "; a run would stop"
    return "\n".join(lines)


def _files(report: LogReport) -> list[str]:
    """The account of the files; of many only those that lost rows, and all others as one."""
    found = list(report.files.items())
    if len(found) > MOST_NAMED:
        found = [(name, rows) for name, rows in found if rows.rows_in != rows.placed][:MOST_NAMED]
    others = [rows for name, rows in report.files.items() if name not in dict(found)]
    if others:
        found.append((f"{_count(len(others), 'other file')}", sum(others, Rows())))
    heads = ("file", "rows in", "in days", "quarantined", "exact copies")
    lines = _table(heads, [(name, r.rows_in, r.placed, r.quarantined, r.duplicates) for name, r in found])
    histories = any(name.endswith("history.parquet") for name in report.files)
    return [*lines, *(["  rows of a history are its clicks"] if histories else [])]


def _tables(report: LogReport) -> list[str]:
    """The account of the tables."""
    figures = ("rows_in", "published", "quarantined", "duplicates")
    rows: list[Row] = [(name, *(counts[f] for f in figures)) for name, counts in report.tables.items()]
    lines = _table(("table", "rows in", "published", "quarantined", "exact copies"), rows)
    for name, counts in report.tables.items():
        for figure, said in FURTHER.items():
            if counts.get(figure):
                lines.append(f"  {name}: {said.format(counts[figure])}")
    return lines


def _table(heads: Sequence[str], rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    cells = [tuple(heads), *(tuple(c if isinstance(c, str) else f"{c:,}" for c in row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    return [
        "",
        *(
            "  ".join([r[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(r[1:], widths[1:], strict=True))])
            for r in cells
        ),
    ]


def _of_kind(found: Sequence[Breach]) -> list[str]:
    """All findings of one kind: how many, what to do, then file by file, in a bounded number of lines."""
    first, merged, most = found[0], _merged(found), MOST_LINES[found[0].severity]
    table = f" ({first.table})" if first.table else ""
    total = f", {sum(b.count for b in found):,} in all" if len(found) > 1 else ""
    one_remedy = len({b.remedy for b in found}) == 1 and bool(first.examples)
    lines = [f"  {first.kind}{table}{total}" + (f": {first.remedy}" if one_remedy else "")]
    examples = EXAMPLES if len(merged) == 1 else 2 if len(merged) <= FEW_FILES else 1
    for done, (breach, columns) in enumerate(merged):
        told = _lines(breach, columns, not one_remedy, examples)
        if done and len(lines) + len(told) > most:
            rest = merged[done:]
            return [*lines, f"    and {len(rest):,} more, {sum(b.count * len(c) for b, c in rest):,} in all"]
        lines += told
    return lines


def _merged(found: Sequence[Breach]) -> list[tuple[Breach, list[str]]]:
    """Findings about columns of one file that say the same, as one with all the columns."""
    groups: dict[tuple[object, ...], tuple[Breach, list[str]]] = {}
    for b in found:
        said = (b.file, b.count, b.remedy, repr(b.examples))
        groups.setdefault(said, (b, []))[1].append(b.column)
    return list(groups.values())


def _lines(breach: Breach, columns: Sequence[str], with_remedy: bool, most: int) -> list[str]:
    """A finding, with at most so many examples; what is said of a whole file stands beside its name."""
    named = [c for c in columns if c]
    column = f", {'columns' if len(named) > 1 else 'column'} {', '.join(named)}" if named else ""
    where = f"    {breach.file or 'the log'}{column}"
    remedy = breach.remedy if with_remedy else ""
    if not breach.table and breach.count == 1:
        return [
            f"{where}: " + "; ".join(filter(None, [*(_bare(str(e["value"]), breach) for e in breach.examples), remedy]))
        ]
    place = "line" if breach.file.endswith(TEXT_FILES) else "row"
    lines = [f"{where}: {breach.count:,}" + (f"; {remedy}" if remedy else "")]
    for example in breach.examples[:most]:
        row = f"{place} {example['row']}: " if example.get("row") else ""
        lines.append(f"      {row}{example['value']}")
    return lines


def _bare(said: str, breach: Breach) -> str:
    """What is said of a file, without its name and what to do, which stand beside it."""
    return said.removeprefix(breach.file).lstrip(": ").removesuffix(f": {breach.remedy}")


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more files" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"
