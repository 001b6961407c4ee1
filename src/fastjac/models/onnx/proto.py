"""ONNX files parsed by the onnx package, and the nodes that an output needs.

A file is parsed once it is known to have no more parts than a network has: protobuf takes up to 200 bytes
of memory for two bytes of a file that holds nothing but empty messages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fastjac.models.extras import needed
from fastjac.models.onnx.tensors import FLOATS

# A network of a thousand layers has about as many, with all that exporters write about it.
_MOST_PARTS = 100_000
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
# AttributeProto.AttributeType: numbers, strings and a tensor, and lists of the first two.
_ATTRIBUTES = (1, 2, 3, 4, 6, 7, 8)
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_DAMAGED = "the file is cut or damaged"


class Node(NamedTuple):
    """A node of the graph, for one of its outputs. ``inputs`` and ``output`` are names of tensors."""

    op: str
    inputs: list[str]
    output: str
    attributes: Mapping[str, Any]
    where: str
    opset: int  # the version of the operators
    place: int = 0  # of the output among those of the node
    outputs: int = 1  # how many the node has


def parse(data: bytes) -> Any:
    """Return the ``onnx.ModelProto`` in the bytes of a file.

    Raises
    ------
    ValueError
        If there is none, or if it has too many parts.
    """
    onnx = needed("onnx", "an .onnx file")
    _check_parts(data, onnx.ModelProto.DESCRIPTOR)
    return onnx.ModelProto.FromString(data)


def _check_parts(data: bytes, message: Any) -> None:
    """Raise ValueError if messages, and numbers that are written one by one, are too many."""
    left = _MOST_PARTS
    kinds: dict[str, dict[int, Any]] = {}
    waiting = [(0, len(data), message)]
    while waiting:
        position, end, message = waiting.pop()
        fields = kinds.setdefault(message.full_name, message.fields_by_number)
        while position < end:
            key, position = _varint(data, position)
            wire = key & 7
            size = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(wire, 0)
            if wire in (_VARINT, _LENGTH):
                size, position = _varint(data, position)
            elif not size:
                raise ValueError(_DAMAGED)
            left -= 1
            if wire == _LENGTH and key >> 3 in fields:
                field = fields[key >> 3]
                if field.message_type:
                    waiting.append((position, position + size, field.message_type))
                elif field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64, field.CPPTYPE_UINT64):
                    left -= size  # as many numbers, if all are small
            if left < 0:
                raise ValueError(
                    f"it has more than {_MOST_PARTS} parts, or as many numbers that are no raw data"
                )
            position += size if wire != _VARINT else 0
        if position > end:
            raise ValueError(_DAMAGED)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError(_DAMAGED)


def output_of(graph: Any, name: str | None) -> str:
    """Return the output that is asked for, or the only one that is not a label.

    It is of floats, or the output of a classifier's ZipMap.
    """
    names = [value.name for value in graph.output]
    if name is not None:
        if name not in names and not any(name in node.output for node in graph.node):
            raise ValueError(f"it has no output {name!r}, expected one of {', '.join(map(repr, names))}")
        return name
    outputs = list(graph.output)
    if len(outputs) > 1:
        outputs = [
            value
            for value in outputs
            if value.type.tensor_type.elem_type in FLOATS or value.type.HasField("sequence_type")
        ]
    if len(outputs) != 1:
        raise ValueError(
            f"it has the outputs {', '.join(map(repr, names))}: say which one, as in "
            f"fastjac.load(path, output={(names or ['y'])[0]!r})"
        )
    return str(outputs[0].name)


def needed_nodes(messages: Sequence[Any], output: str, opset: int) -> list[Node]:
    """Return the nodes that the output depends on, each after all that it needs; one for each output."""
    makers: dict[str, int] = {}
    for number, message in enumerate(messages):
        for name in message.output:
            if name and makers.setdefault(name, number) != number:
                raise ValueError(f"two nodes have the output {name!r}")
    found: dict[int, Any] = {}
    needed = {output}
    opened: set[int] = set()
    waiting = [makers[output]] if output in makers else []
    while waiting:
        number = waiting[-1]
        before = [makers[name] for name in messages[number].input if name in makers]
        before = [other for other in before if other not in found]
        if number in found:
            waiting.pop()
        elif not before:
            found[number] = messages[number]
            needed.update(messages[number].input)
        elif opened.intersection(before) or number in opened:
            raise ValueError(f"{_where(messages[number])} needs its own output")
        else:
            opened.add(number)
            waiting += before
    return [node for message in found.values() for node in _nodes(message, needed, opset)]


def _nodes(message: Any, needed: set[str], opset: int) -> Iterator[Node]:
    """Yield the node once for each of its outputs that is needed."""
    where = _where(message)
    if message.domain not in _DOMAINS:
        raise ValueError(f"{where} is of the domain {message.domain!r}, which fastjac does not know")
    from onnx import helper

    attributes: dict[str, Any] = {}
    for attribute in message.attribute:
        name = attribute.name
        if attribute.type not in _ATTRIBUTES or name in attributes or attribute.ref_attr_name:
            raise ValueError(f"{where} has an attribute {name!r} that fastjac does not read")
        attributes[name] = helper.get_attribute_value(attribute)
    count = len(message.output)
    for place, name in enumerate(message.output):
        if name in needed:
            yield Node(message.op_type, list(message.input), name, attributes, where, opset, place, count)


def _where(message: Any) -> str:
    name = message.name or message.output[0]
    return f"node {name[:200]!r} ({message.op_type[:50]})"
