"""Entries of a data root that no reader takes, and the names that they may have been meant to bear.

Belongs here: listing them, and telling a slip of the pen from a stranger. Does not belong here: which names a layout
has (its reader), what is told of them (`ml.log_check`).

A folder that no file of the layout can lie in is one entry; only the names directly in it are looked at, for files that
lie in the wrong place. What `ASIDE` names is not looked into at all.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path, PurePosixPath

from ml.readers.files import escaped

ASIDE: Mapping[str, str] = {
    "landing": "deliveries; `newsrec landing` tells of them",
    "oracle": "the simulator's truth, sealed but for evaluation",
    "simulation.json": "what the simulator says of the log",
}
"""Entries directly below a root that stand beside a log, and what they are."""

BESIDE_A_FILE = "._"
"""How the names begin that macOS gives to what it cannot keep in a file of another system (AppleDouble): no table."""
_BROKEN = "a link that leads nowhere or in a circle, put what it stands for in its place"
_ASIDE_FILE = "what macOS keeps beside a file"
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z")
_TABLES = re.compile(
    r"\.(parquet|parq|pq|csv|tsv|jsonl?|ndjson|feather|arrow|orc|avro|xlsx?|gz|zip|zst|bz2)(\.|$)", re.I
)
_LOOKED_AT = 1_000
_SHORT, _ALIKE_SHORT, _ALIKE, _WORD = 6, 0.8, 0.75, 5


@dataclass(frozen=True, slots=True)
class Stray:
    """An entry that is not read: `name` relative to the root, printable, of a folder with "/" at its end.

    `meant`: in words, which name it was probably meant to bear; empty where it is like none. `vacant`: whether nothing
    that is read bears such a name, so that rows are likely to be missing. `why`: what a known neighbour is,
    or what is wrong with a link.
    """

    name: str
    meant: str = ""
    vacant: bool = False
    why: str = ""

    @property
    def remedy(self) -> str:
        """What to do."""
        if self.meant and self.why:
            return self.why
        if not self.meant:
            return "nothing to do, if it is no part of the log"
        if not self.vacant:
            return f"{self.meant} is read, this is not: move it away, or bring its rows there"
        holds = self.name.endswith("/") and not self.meant.endswith("/")
        what = f"is its content meant as {self.meant}?" if holds else f"is {self.meant} meant?"
        return f"{what} Rename, convert or move it; if it is no part of the log, move it away"

    @property
    def line(self) -> str:
        """The entry in one line."""
        return self.name + (f" ({self.why})" if self.why else f": {self.remedy}" if self.meant else "")


def strays(root: Path, names: Sequence[str], taken: Collection[Path]) -> list[Stray]:
    """All entries below `root` that are not `taken` (files) and hold nothing that is, sorted.

    `names`: paths that the layout knows, relative, with "/" between parts; "*" stands for anything within a part.
    """
    layout = _Layout(root, tuple(PurePosixPath(name) for name in names), _with_targets(root, taken))
    return sorted(layout.below(PurePosixPath()), key=lambda stray: stray.name)


def _with_targets(root: Path, taken: Collection[Path]) -> frozenset[PurePosixPath]:
    """The taken files relative to the root, and what they link to within it."""
    home, found = root.resolve(), set()
    for path in taken:
        found.add(PurePosixPath(path.relative_to(root)))
        try:
            found.add(PurePosixPath(path.resolve().relative_to(home)))
        except (OSError, RuntimeError, ValueError):
            continue  # it leads nowhere or outside: the reader says so
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class _Layout:
    root: Path
    names: tuple[PurePosixPath, ...]
    taken: frozenset[PurePosixPath]

    def below(self, place: PurePosixPath) -> Iterator[Stray]:
        """The strays in a folder (relative to the root)."""
        for entry in _entries(self.root / place):
            path = place / entry.name
            if path in self.taken:
                continue
            if not _is_folder(entry):
                yield self._broken(path) if _is_broken(entry) else self._file(path)
            elif entry.is_symlink():
                if not self._is_place(path):  # one in place of a folder of the layout is followed
                    yield self._folder(path, ())
            elif self._is_place(path) or any(path in file.parents for file in self.taken):
                yield from self.below(path)
            else:
                inside = () if str(path) in ASIDE else islice(_entries(self.root / path), _LOOKED_AT)
                yield self._folder(path, [e.name for e in inside])

    def _is_place(self, folder: PurePosixPath) -> bool:
        """Whether files of the layout lie in the folder."""
        return any(folder in name.parents for name in self.names)

    def _folders(self, place: PurePosixPath) -> list[str]:
        """Names of the layout's folders directly in a folder."""
        parents = {parent for name in self.names for parent in name.parents if parent.name}
        return sorted(parent.name for parent in parents if parent.parent == place)

    def _file(self, path: PurePosixPath) -> Stray:
        if path.name.startswith(BESIDE_A_FILE):
            return Stray(escaped(str(path)), why=_ASIDE_FILE)
        known = [n.name for n in self.names if n.parent == path.parent]
        if path.name in known:
            return Stray(escaped(str(path)), why="read only beside the other files of its folder")
        like = None if str(path) in ASIDE else _nearest(path.name, known)
        if like is not None:
            return self._stray(path, "", [path.parent / like])
        packed = [path.parent / f for f in self._folders(path.parent) if _is_archive_of(path.name, f)]
        if packed:
            return self._stray(path, "", packed, "/")
        return self._stray(path, "", self._elsewhere(path.name))

    def _broken(self, path: PurePosixPath) -> Stray:
        """A link that leads nowhere; in place of a folder of the layout, that folder is missing."""
        if self._is_place(path):
            return Stray(escaped(str(path)), escaped(f"{path}/"), True, _BROKEN)
        found = self._file(path)
        return found if found.meant else replace(found, why=_BROKEN)

    def _elsewhere(self, name: str) -> list[PurePosixPath]:
        """Where in the layout a file of this name lies; patterns that fit any name do not count."""
        return [n.parent / name for n in self.names if _has_words(n.name) and fnmatchcase(name, n.name)]

    def _folder(self, path: PurePosixPath, inside: Sequence[str]) -> Stray:
        like = None if str(path) in ASIDE else _nearest_folder(path.name, self._folders(path.parent))
        if like is not None:
            return self._stray(path, "/", [path.parent / like], "/")
        return self._stray(path, "/", [place for name in inside for place in self._home_of(name, path)])

    def _home_of(self, name: str, folder: PurePosixPath) -> list[PurePosixPath]:
        """Where a file that lies in a strange folder belongs: in the folder above, or elsewhere."""
        above = [n for n in self.names if n.parent == folder.parent and n.parent.name and fnmatchcase(name, n.name)]
        return [folder.parent / name for _ in above] or self._elsewhere(name)

    def _stray(self, path: PurePosixPath, ending: str, meant: Sequence[PurePosixPath], meant_ending: str = "") -> Stray:
        said = list(dict.fromkeys(f"{place}{meant_ending}" for place in meant))
        if len(said) > 3:
            said = list(dict.fromkeys(f"{place.parent}/" for place in meant if place.parent.name))
        words = " or ".join(filter(None, [", ".join(said[:-1]), *said[-1:]]))
        vacant = any(self._vacant(place) for place in meant)
        return Stray(escaped(str(path)) + ending, escaped(words), vacant, ASIDE.get(str(path), ""))

    def _vacant(self, place: PurePosixPath) -> bool:
        """Whether nothing that is read bears the name, in whatever form."""
        stem = str(place.parent / _parts(place.name)[0])
        return not any(t == place or str(t).startswith((f"{stem}/", f"{stem}.")) for t in self.taken)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, by name; nothing of one that cannot be listed, which the reader tells of."""
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circular link
        return False


def _is_broken(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a link that leads nowhere or in a circle."""
    return entry.is_symlink() and not Path(entry.path).exists()


def _parts(name: str) -> tuple[str, str]:
    """A file's name up to its first dot, and the rest."""
    stem, dot, ending = name.partition(".")
    return stem, dot + ending


def _has_words(pattern: str) -> bool:
    return bool(re.search(r"[a-z]", _parts(pattern)[0]))


def _plain(text: str) -> str:
    return re.sub(r"[\s_-]+", "_", text.casefold())


def _ratio(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()


def _alike(one: str, other: str) -> bool:
    """Whether a word is nearly the other, or its beginning."""
    one, other = _plain(one), _plain(other)
    if min(len(one), len(other)) >= 3 and (one.startswith(other) or other.startswith(one)):
        return True
    return _ratio(one, other) >= (_ALIKE_SHORT if max(len(one), len(other)) <= _SHORT else _ALIKE)


def _nearest(name: str, patterns: Sequence[str]) -> str | None:
    """The name of the layout that a file's name nearly is; None where it is like none."""
    stem, ending = _parts(name)
    numbers, words = re.findall(r"[0-9]+", stem), [w for w in _plain(stem).split("_") if len(w) >= _WORD]
    found: dict[str, float] = {}
    for pattern in patterns:
        wanted = pattern.replace("*", numbers[-1]) if numbers and _has_words(pattern) else pattern
        meant, meant_ending = _parts(wanted)
        if meant == "*":  # any name with this ending
            alike, meant = _TABLES.search(ending) and not name.startswith((".", "_")), stem
        else:
            alike = any(_alike(word, meant) for word in (stem, *words))
        if alike:
            begun = ending.startswith(meant_ending) and ending != meant_ending  # packed, or not yet whole
            found[meant + meant_ending] = _ratio(stem, meant) + (0.99 if begun else _ratio(ending, meant_ending))
    return max(found, key=lambda meant: found[meant], default=None)


def _nearest_folder(name: str, known: Sequence[str]) -> str | None:
    """The folder of the layout that a folder's name nearly is, or has as one of its words."""
    words = re.split(r"[^a-z]+", name.casefold())
    found = [k for k in known if _alike(name, k) or k in words]
    return max(found, key=lambda k: _ratio(_plain(name), k), default=None)


def _is_archive_of(name: str, folder: str) -> bool:
    return any(name.casefold() == f"{folder}{ending}" for ending in _ARCHIVES)
