"""Where the project lies on disk.

Belongs here: the one path that defaults are relative to. Does not belong here: the paths that a user configures.
"""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
