"""Files of strangers: what is opened, what is refused, always in one line."""

import json
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from ml.errors import DataError
from ml.strangers import (
    JSON_BYTES,
    lines_escaped,
    one_line,
    parse_json,
    read_bytes,
    read_json,
    read_model,
    read_object,
    reading,
    regular,
)

SOUND = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def no_file(path: Path, kind: str) -> Path:
    """Something at `path` that is no regular file."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "circle":
        path.symlink_to(path)
    elif kind == "link":
        (path.parent / "elsewhere").write_text("{}")
        path.symlink_to(path.parent / "elsewhere")
    return path


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "circle", "link", "nothing"])
@pytest.mark.parametrize("read", [regular, read_bytes, read_json, read_object])
def test_only_regular_files_are_opened(tmp_path: Path, kind: str, read) -> None:
    path = no_file(tmp_path / "a.json", kind)
    with pytest.raises(DataError, match=r"a\.json is (missing|no regular file|a link).*: get it again") as error:
        read(path)
    assert str(error.value).isprintable()


def test_names_that_are_none_are_refused(tmp_path: Path) -> None:
    for name in ("a\0b", "x" * 300):
        with pytest.raises(DataError, match="name"):
            read_bytes(tmp_path / name)


def test_errors_of_the_disk_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(*_: object) -> int:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(os, "open", stale)
    with pytest.raises(OSError, match="Stale"):
        read_bytes(tmp_path / "a")


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with path.open("wb") as stream:
        stream.truncate(JSON_BYTES + 1)
    with pytest.raises(DataError, match="more than 16,777,216"):
        read_json(path)
    assert read_bytes(path, most=JSON_BYTES + 1) == bytes(JSON_BYTES + 1)


@settings(deadline=None)
@given(SOUND)
def test_what_json_writes_is_read_back(value: object) -> None:
    assert parse_json(json.dumps(value).encode(), Path("a")) == value


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"a": 1, "b": 2, "a": 1}', "'a' stands there twice"),
        (b'{"a": NaN}', "NaN is no number"),
        (b"[Infinity]", "Infinity is no number"),
        (b"[1e999]", "beyond every number"),
        (b"[" * 100_000, "recursion"),
        (b'["\\ud800"]', "surrogates not allowed"),
        (b'["\xff"]', "can't decode"),
        ("[]".encode("utf-16"), "can't decode"),
        (b"", "Expecting value"),
        (b"[" + b"9" * 5_000 + b"]", "digits"),
        (pickle.dumps([1]), "can't decode"),
    ],
)
def test_other_json_is_refused_in_one_line(data: bytes, said: str) -> None:
    with pytest.raises(DataError, match=f"a is not sound JSON .*{said}.*: do it") as error:
        parse_json(data, Path("a"), "do it")
    assert str(error.value).isprintable() and len(str(error.value)) < 500


def test_only_an_object_is_an_object(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("[]")
    with pytest.raises(DataError, match="no JSON object"):
        read_object(tmp_path / "a")


class Form(BaseModel):
    size: int


def test_a_model_names_the_entry_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"size": 3}')
    assert read_model(Form, path).size == 3
    path.write_text('{"size": "\\u001b[2Jbig"}')
    with pytest.raises(DataError, match=r"a\.json: size: Input should be a valid integer.*: again") as error:
        read_model(Form, path, "again")
    assert str(error.value).isprintable()
    path.write_text('{"size": 3, "size": 4}')
    with pytest.raises(DataError, match="twice"):
        read_model(Form, path)


def test_another_form_becomes_one_line() -> None:
    for error in (KeyError("a\x1b"), TypeError("b\nc"), IndexError(), OverflowError("big"), RecursionError()):
        with (
            pytest.raises(DataError, match=r"^f has another form than is written here \(.*\): again$") as said,
            reading(Path("f"), "again"),
        ):
            raise error
        assert str(said.value).isprintable()
    with pytest.raises(RuntimeError), reading(Path("f")):
        raise RuntimeError("not of the form")


def test_text_for_the_terminal() -> None:
    assert one_line("a\x1b[2J\nb") == "a\\x1b[2J"
    assert lines_escaped("på\n\x9bx\t\u202e") == "på\n\\x9bx\\t\\u202e"
