"""Days as people write them, on the command line and in the launchpad.

Belongs here: text to day. Does not belong here: periods (`pipeline.backfill_plan`) and which days a log has.
"""

from datetime import date

from ml.errors import UsageError


def parse_day(text: str, where: str = "") -> date:
    """A day given as YYYY-MM-DD. Raises UsageError for anything else, with the option or field `where` it stood."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{where and f'{where}: '}{text!r} is no day: write it as YYYY-MM-DD") from error
