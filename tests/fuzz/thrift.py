"""Thrift's compact protocol, read and written without knowing what the fields mean: for footers that lie.

Belongs here: the codec. Does not belong here: which field is made to lie (`tests.fuzz.lies`).
"""

from dataclasses import dataclass
from typing import Any

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12


@dataclass(slots=True)
class Field:
    """A field of a struct: its number, its type, its value (structs are lists of fields, lists are `Items`)."""

    number: int
    kind: int
    value: Any


@dataclass(slots=True)
class Items:
    """A list with the type of its items."""

    kind: int
    values: list[Any]


def field(fields: list[Field], number: int) -> Field | None:
    """The field of that number, None where there is none."""
    return next((f for f in fields if f.number == number), None)


def read_struct(data: bytes, at: int = 0) -> tuple[list[Field], int]:
    """A struct, and where it ends."""
    fields, number = [], 0
    while data[at]:
        delta, kind = data[at] >> 4, data[at] & 15
        at += 1
        if delta:
            number += delta
        else:
            number, at = _read_zigzag(data, at)
        value, at = _read(data, at, kind)
        fields.append(Field(number, kind, value))
    return fields, at + 1


def write_struct(fields: list[Field]) -> bytes:
    """The bytes of a struct."""
    out, last = bytearray(), 0
    for f in fields:
        delta = f.number - last
        out += bytes([delta << 4 | f.kind]) if 0 < delta < 16 else bytes([f.kind]) + _write_zigzag(f.number)
        out += _write(f.kind, f.value)
        last = f.number
    return bytes(out) + b"\0"


def _read(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in (TRUE, FALSE):
        return kind == TRUE, at
    if kind == BYTE:
        return data[at], at + 1
    if kind in (I16, I32, I64):
        return _read_zigzag(data, at)
    if kind == DOUBLE:
        return data[at : at + 8], at + 8
    if kind == BINARY:
        length, at = _read_varint(data, at)
        return data[at : at + length], at + length
    if kind == STRUCT:
        return read_struct(data, at)
    assert kind in (LIST, SET)
    head, at = data[at], at + 1
    length = head >> 4
    if length == 15:
        length, at = _read_varint(data, at)
    values = []
    for _ in range(length):
        if head & 15 in (TRUE, FALSE):
            value, at = data[at], at + 1
        else:
            value, at = _read(data, at, head & 15)
        values.append(value)
    return Items(head & 15, values), at


def _write(kind: int, value: Any) -> bytes:
    if kind in (TRUE, FALSE):
        return b""
    if kind == BYTE:
        return bytes([value])
    if kind in (I16, I32, I64):
        return _write_zigzag(value)
    if kind == DOUBLE:
        return bytes(value)
    if kind == BINARY:
        return _write_varint(len(value)) + bytes(value)
    if kind == STRUCT:
        return write_struct(value)
    head = [min(len(value.values), 15) << 4 | value.kind]
    long = _write_varint(len(value.values)) if len(value.values) >= 15 else b""
    flags = value.kind in (TRUE, FALSE)
    return bytes(head) + long + b"".join(bytes([v]) if flags else _write(value.kind, v) for v in value.values)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at


def _write_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _read_zigzag(data: bytes, at: int) -> tuple[int, int]:
    value, at = _read_varint(data, at)
    return value >> 1 ^ -(value & 1), at


def _write_zigzag(value: int) -> bytes:
    return _write_varint((value << 1 ^ value >> 63) & 0xFFFF_FFFF_FFFF_FFFF)
