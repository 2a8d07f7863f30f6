"""Files that a crash leaves old or new, never half.

Belongs here: flushing to disk and putting a whole file in its place. Does not belong here: what is written, and
temporary folders (`resources.staging`).
"""

import os
from pathlib import Path


def write_flushed(path: Path, data: bytes) -> None:
    """Write a file and flush its bytes to disk; its name is not, until its folder is (`sync_folder`)."""
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def replace_whole(path: Path, data: bytes) -> None:
    """Put `data` in the place of the file `path`, name and all: written beside it as `.NAME.new`, flushed, renamed. Two
    processes must not do it to one file at once."""
    fresh = path.with_name(f".{path.name}.new")
    write_flushed(fresh, data)
    fresh.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
