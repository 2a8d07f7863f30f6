"""docs/month.md: what it says of the method, the month's ledger, and that of the backfill.

Belongs here: which part of the page is whose. Does not belong here: the ledgers (`ledger`).
"""

from pathlib import Path

BACKFILL = "## Six weeks of backfill"
HEAD = Path(__file__).with_name("page.md")


def write_month(page: Path, ledger: str) -> None:
    """Write the page anew; what is there of the backfill stays."""
    _, found, kept = _parts(page)
    page.write_text(f"{HEAD.read_text(encoding='utf-8')}\n{ledger}\n{found}{kept}", encoding="utf-8")


def write_backfill(page: Path, ledger: str) -> None:
    """Write the backfill's part anew; what stands before it stays."""
    before, _, _ = _parts(page)
    page.write_text(f"{before}{BACKFILL}\n\n{ledger}", encoding="utf-8")


def _parts(page: Path) -> tuple[str, str, str]:
    return (page.read_text(encoding="utf-8") if page.exists() else "").partition(BACKFILL)
