"""Which bucket a lake belongs to: by a note in the lake, so that no command can forget it.

Belongs here: the note and NEWSREC_BUCKET. Does not belong here: the bucket's content.
"""

import os
import re
from pathlib import Path

from ml.errors import UsageError
from resources.places import lake_root

HOME = Path(".bucket")
"""What a lake knows of its bucket, below its root."""
NOTE = HOME / "address"
_ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9_.-]+)*)/?")


def parse(address: str) -> tuple[str, str]:
    """Bucket and prefix ("" or with a slash at its end) of `s3://BUCKET[/PREFIX]`. Raises UsageError for other text.

    >>> parse("s3://news/lake")
    ('news', 'lake/')
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise UsageError(f"{address!r} is no bucket: write s3://BUCKET or s3://BUCKET/PREFIX")
    return found[1], f"{found[2][1:]}/" if found[2] else ""


def bucket_of(lake: Path) -> str | None:
    """The address of the lake's bucket: what its note says, else NEWSREC_BUCKET for the configured lake, else None.
    Raises UsageError where the two differ."""
    note = lake / NOTE
    noted = note.read_text().strip() if note.is_file() else None
    asked = os.environ.get("NEWSREC_BUCKET") or None
    if asked is not None:
        parse(asked)
        asked = asked.rstrip("/")
    if lake.resolve() != lake_root().resolve():
        return noted
    if noted and asked and noted != asked:
        raise UsageError(f"{lake} belongs to {noted}, NEWSREC_BUCKET says {asked}: give another lake, or that bucket")
    return noted or asked
