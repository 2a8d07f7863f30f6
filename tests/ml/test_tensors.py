"""Headers of safetensors files: sound ones are read, lies are refused before anything is loaded."""

import io
import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save, save_file

from ml.errors import DataError
from ml.tensors import Layout, layouts, load_tensors

EXPECTED = {"a": Layout("F32", (2, 3)), "b": Layout("I64", (None,)), "c": Layout("F32 or F64", ())}
ARRAYS = {"a": np.ones((2, 3), np.float32), "b": np.arange(4), "c": np.array(1.0)}


def packed(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def test_a_sound_file_is_loaded(tmp_path: Path) -> None:
    save_file(ARRAYS, tmp_path / "t", {"format": "pt"})
    found = load_tensors(tmp_path / "t", EXPECTED, load_file, "again")
    assert found.keys() == ARRAYS.keys() and all(np.array_equal(found[n], ARRAYS[n]) for n in ARRAYS)


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=9), st.lists(st.integers(0, 4), max_size=3), max_size=6))
def test_layouts_are_those_that_were_saved(shapes: dict[str, list[int]]) -> None:
    shapes.pop("__metadata__", None)
    path = Path("layouts.safetensors")
    data = save({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ml.tensors.regular", lambda *_: len(data))
        patch.setattr(Path, "open", lambda *_: io.BytesIO(data))
        found = layouts(path, "again")
    assert found == {name: Layout("F32", tuple(shape)) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"a": np.ones((3, 2), np.float32)}, r"tensor a is F32 \[3, 2\], expected is F32 \[2, 3\]"),
        ({"a": np.ones((2, 3))}, r"tensor a is F64 \[2, 3\]"),
        ({"b": np.zeros((2, 2), np.int64)}, r"tensor b is I64 \[2, 2\], expected is I64 \[n\]"),
        ({"more": np.zeros(1)}, r"tensor more is F64 \[1\], expected is none of that name"),
        ({"a": None}, "tensor a is missing"),
        ({"b": np.zeros(3, np.float16)}, "type F16 is none of"),
    ],
)
def test_other_tensors_are_named(tmp_path: Path, change: dict, said: str) -> None:
    arrays = {n: a for n, a in {**ARRAYS, **change}.items() if a is not None}
    save_file(arrays, tmp_path / "t")
    with pytest.raises(DataError, match=f"t.*{said}.*: again"):
        load_tensors(tmp_path / "t", EXPECTED, lambda _: pytest.fail("it was loaded"), "again")


def f32(shape: list, *place: object) -> dict:
    return {"dtype": "F32", "shape": shape, "data_offsets": list(place)}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 8,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 10**9) + b"{" * 100,
        packed(b" " * (2 << 20)),
        packed(b'{"a":' * 100_000),
        packed(b"[]"),
        packed({"a": f32([1], 0, 8)}, b"12345678"),
        packed({"a": f32([1], 4, 8)}, b"12345678"),
        packed({"a": f32([1], 0, 4), "b": f32([1], 0, 4)}, b"1234"),
        packed({"a": f32([1], 0, 4)}, b"12345678"),
        packed({"a": f32([2**40, 2**40], 0, 4)}, b"1234"),
        packed({"a": f32([-1], 0, -4)}),
        packed({"a": f32([1.0], 0, 4)}, b"1234"),
        packed({"a": f32([True], 0, 4)}, b"1234"),
        packed({"a": f32([1] * 9, 0, 4)}, b"1234"),
        packed({"a": f32([1], 0)}, b"1234"),
        packed({"a": 7}, b"1234"),
        packed({"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
        packed(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": 1}', b"1234"),
    ],
)
def test_a_header_that_lies_is_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(DataError, match=r"t.*: again$") as error:
        layouts(tmp_path / "t", "again")
    assert str(error.value).isprintable() and len(str(error.value)) < 500


@pytest.mark.parametrize("zipped", [True, False, None])
def test_a_pickle_is_named_and_never_opened(tmp_path: Path, zipped: bool | None) -> None:
    path = tmp_path / "model.safetensors"
    if zipped is None:
        path.write_bytes(pickle.dumps({"a": 1}))
    else:
        torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataError, match="is a pickle or an archive of pickles, which can run anything"):
        layouts(path, "train again")
