"""The bytes of an ONNX file as nested dictionaries: protobuf's wire format, and the fields that matter here.

A reader of our own needs no package, and allocates nothing that the file is too small to hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Message = dict[str, Any]

# Message -> number of a field -> its name and kind; a trailing * says that it is repeated. From onnx.proto.
_FIELDS: dict[str, dict[int, tuple[str, str]]] = {
    "Model": {7: ("graph", "Graph"), 8: ("opset_import", "Opset*"), 25: ("functions", "bytes*")},
    "Opset": {1: ("domain", "str"), 2: ("version", "int")},
    "Graph": {
        1: ("node", "Node*"),
        5: ("initializer", "Tensor*"),
        11: ("input", "Value*"),
        12: ("output", "Value*"),
        15: ("sparse_initializer", "bytes*"),
    },
    "Node": {
        1: ("input", "str*"),
        2: ("output", "str*"),
        3: ("name", "str"),
        4: ("op_type", "str"),
        5: ("attribute", "Attribute*"),
        7: ("domain", "str"),
    },
    "Attribute": {
        1: ("name", "str"),
        2: ("f", "float"),
        3: ("i", "int"),
        4: ("s", "bytes"),
        5: ("t", "Tensor"),
        6: ("g", "bytes"),
        7: ("floats", "float*"),
        8: ("ints", "int*"),
        9: ("strings", "bytes*"),
        20: ("type", "int"),
        21: ("ref_attr_name", "str"),
    },
    "Tensor": {
        1: ("dims", "int*"),
        2: ("data_type", "int"),
        4: ("float_data", "float*"),
        5: ("int32_data", "int*"),
        7: ("int64_data", "int*"),
        8: ("name", "str"),
        9: ("raw_data", "bytes"),
        10: ("double_data", "double*"),
        13: ("external_data", "Entry*"),
        14: ("data_location", "int"),
    },
    "Entry": {1: ("key", "str"), 2: ("value", "str")},
    "Value": {1: ("name", "str"), 2: ("type", "Type")},
    "Type": {1: ("tensor_type", "TensorType"), 4: ("sequence_type", "bytes"), 5: ("map_type", "bytes")},
    "TensorType": {1: ("elem_type", "int"), 2: ("shape", "Shape")},
    "Shape": {1: ("dim", "Dimension*")},
    "Dimension": {1: ("value", "int"), 2: ("parameter", "str")},
}
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
# Kind of number -> its dtype, and the wire type of a single one; many are packed into one field of bytes.
_NUMBERS = {"int": ("<i8", _VARINT), "float": ("<f4", _FOUR_BYTES), "double": ("<f8", _EIGHT_BYTES)}


def parse(data: bytes | memoryview, message: str = "Model") -> Message:
    """Return a message's fields.

    Repeated ones are lists, or arrays where they are numbers; others are left out where they are absent.

    Raises
    ------
    ValueError
        If the bytes are not such a message.
    """
    fields = _FIELDS[message]
    found: Message = {name: [] for name, kind in fields.values() if kind.endswith("*")}
    data = memoryview(data)
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        value, position = _value(data, position, key & 7)
        if key >> 3 not in fields:
            continue
        name, kind = fields[key >> 3]
        decoded = _decode(value, kind, key & 7)
        if kind.endswith("*"):
            found[name].append(decoded)
        elif name in found and kind in _FIELDS:
            raise ValueError(f"a {message} has two fields {name!r}")
        else:
            found[name] = decoded
    for name, kind in fields.values():
        if kind.endswith("*") and kind[:-1] in _NUMBERS:
            found[name] = np.concatenate([np.empty(0, _NUMBERS[kind[:-1]][0]), *found[name]])
    return found


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("the file is cut or damaged: a number does not end")


def _value(data: memoryview, position: int, wire: int) -> tuple[int | memoryview, int]:
    """Return a field's number or bytes, and where the next field starts."""
    if wire == _VARINT:
        return _varint(data, position)
    if wire == _LENGTH:
        size, position = _varint(data, position)
    elif wire in (_FOUR_BYTES, _EIGHT_BYTES):
        size = 4 if wire == _FOUR_BYTES else 8
    else:
        raise ValueError(f"the file is damaged: there is no field of kind {wire}")
    if size > len(data) - position:
        raise ValueError(f"the file is cut or damaged: a field of {size} bytes has {len(data) - position}")
    return data[position : position + size], position + size


def _decode(value: int | memoryview, kind: str, wire: int) -> Any:
    """Return a field's value, an array of one or more where it is a repeated number."""
    kind, repeated = kind.rstrip("*"), kind.endswith("*")
    if kind in _NUMBERS:
        dtype, single = _NUMBERS[kind]
        if wire == single or (repeated and wire == _LENGTH):
            if isinstance(value, int):
                numbers = np.array([value & 0xFFFFFFFFFFFFFFFF], np.uint64).view(np.int64)
            else:
                numbers = _packed_varints(value) if kind == "int" else np.frombuffer(value, dtype)
            return numbers if repeated else numbers[0].item()
    elif not isinstance(value, int) and wire == _LENGTH:
        if kind == "str":
            return str(value, "utf-8")
        return value if kind == "bytes" else parse(value, kind)
    raise ValueError(f"the file is damaged: a field of kind {kind} came as wire type {wire}")


def _packed_varints(data: memoryview) -> NDArray[np.int64]:
    """Return the numbers that ``data`` packs, seven bits to a byte, the last byte of each below 128."""
    octets = np.frombuffer(data, np.uint8)
    if not octets.size:
        return np.empty(0, np.int64)
    ends = np.flatnonzero(octets < 128)
    starts = np.append(0, ends[:-1] + 1)
    if octets[-1] >= 128 or np.max(ends - starts) > 9:
        raise ValueError("the file is damaged: a packed number does not end")
    values = np.zeros(ends.size, np.uint64)
    for place in range(int(np.max(ends - starts)) + 1):
        there = starts + place <= ends
        digits = octets[starts[there] + place].astype(np.uint64) & np.uint64(127)
        values[there] |= digits << np.uint64(7 * place)
    return values.view(np.int64)
