"""Where the project and its lake lie on disk.

Belongs here: the paths that defaults are relative to. Does not belong here: the paths that a user configures.
"""

import os
from pathlib import Path

from ml.errors import UsageError

REPOSITORY = Path(__file__).resolve().parent.parent


def lake_root() -> Path:
    """`NEWSREC_LAKE`, or `lake/` in the repository."""
    return Path(os.environ.get("NEWSREC_LAKE") or REPOSITORY / "lake")


def existing_lake(given: Path | None) -> Path:
    """The root of a lake that is there: the one `given`, or the default, up to date with its bucket where it has one.
    Raises UsageError where it is not."""
    from resources.bucket.address import bucket_of

    root = (given or lake_root()).absolute()
    if bucket_of(root) is not None:
        from resources.lake import Lake

        Lake(root).catch_up()
    elif not root.is_dir():
        raise UsageError(f"no lake at {root}: give --lake or NEWSREC_LAKE")
    return root
