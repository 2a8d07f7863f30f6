"""Where the project and its lake lie on disk.

Belongs here: the paths that defaults are relative to. Does not belong here: the paths that a user configures.
"""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def lake_root() -> Path:
    """`NEWSREC_LAKE`, or `lake/` in the repository."""
    return Path(os.environ.get("NEWSREC_LAKE") or REPOSITORY / "lake")
