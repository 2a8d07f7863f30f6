"""Lines of text files, whatever their bytes."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.readers import lines


@given(st.lists(st.binary(max_size=40).filter(lambda b: b"\n" not in b), max_size=20), st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_line_is_there_once(tmp_path_factory: pytest.TempPathFactory, content: list[bytes], ended: bool) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.tsv"
    path.write_bytes(b"\n".join(content) + (b"\n" if ended else b""))
    found = [row for piece in lines.numbered_lines(path) for row in piece.iter_rows(named=True)]
    expected = []
    for number, line in enumerate(content, start=1):
        try:
            text, problem = line.rstrip(b"\r\n").decode(), None
        except UnicodeDecodeError:
            text, problem = line.decode("utf-8", "replace").rstrip("\r\n"), "not_utf8"
        if text:
            expected.append({"number": number, "text": text, "problem": problem})
    assert found == expected


def test_a_long_line_is_cut_and_the_next_one_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST", 10)
    path = tmp_path / "a.tsv"
    path.write_bytes(b"short\n" + b"x" * 35 + b"\nnext\n" + b"y" * 10 + b"\n" + b"z" * 30)
    found = [row for piece in lines.numbered_lines(path) for row in piece.iter_rows()]
    assert [(n, p) for n, _, p in found] == [
        (1, None), (2, "line_too_long"), (3, None), (4, None), (5, "line_too_long"),
    ]  # fmt: skip
    assert found[2][1] == "next"
