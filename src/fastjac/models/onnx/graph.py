"""Networks from ONNX files: the one path from the input to the output, node by node."""

from __future__ import annotations

import pathlib
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.models.folding import both_columns, fold
from fastjac.models.onnx.nodes import apply, check_last_axis, constant
from fastjac.models.onnx.path import Node, Path
from fastjac.models.onnx.patterns import COMPLEMENT, X, activation_steps, combine
from fastjac.models.onnx.tensors import DOUBLE, FLOATS, Tensors, computed
from fastjac.models.onnx.wire import Message, parse
from fastjac.network import Network

_OLDEST_OPSET = 7
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
# AttributeProto.AttributeType -> the field that has the value, and what an absent field means.
_ATTRIBUTES: dict[int, tuple[str, Any]] = {
    1: ("f", 0.0),
    2: ("i", 0),
    3: ("s", b""),
    4: ("t", None),
    6: ("floats", None),
    7: ("ints", None),
    8: ("strings", None),
}


def read_onnx(data: bytes, folder: pathlib.Path) -> Network:
    """Return the network in the bytes of an ONNX file, whose external data may be in ``folder`` alone.

    Raises
    ------
    ValueError
        If the bytes are not a model, or one that is not a chain of layers; the message names the node.
    """
    model = parse(data)
    for opset in model["opset_import"]:
        if opset.get("domain", "") in ("", "ai.onnx") and opset.get("version", 0) < _OLDEST_OPSET:
            raise ValueError(f"it has opset {opset.get('version')}, expected {_OLDEST_OPSET} or later")
    if model["functions"]:
        raise ValueError("it has functions of its own: inline them with onnx.inliner.inline_local_functions")
    graph = model.get("graph")
    if graph is None or graph["sparse_initializer"]:
        raise ValueError("it has no graph, or one with sparse weights")
    return _Graph(graph, Tensors(folder, len(data))).network()


class _Graph:
    """The nodes on the way to the output, followed one by one.

    After a fork, ``forked`` has the terms of every tensor that is still to be used.
    """

    def __init__(self, graph: Message, tensors: Tensors) -> None:
        constants: dict[str, Message | NDArray[Any]] = {
            tensor.get("name", ""): tensor for tensor in graph["initializer"]
        }
        inputs = [value for value in graph["input"] if value.get("name", "") not in constants]
        if len(constants) < len(graph["initializer"]):
            raise ValueError("two of its weights have one name")
        if len(inputs) != 1:
            raise ValueError(f"it has {len(inputs)} inputs, expected 1")
        self.path = Path(inputs[0].get("name", ""), _axes(inputs[0]), tensors)
        self.path.constants = constants
        self.path.is_wide = _element(inputs[0]) == DOUBLE
        self.n_inputs = self.path.size()
        tensors.spend(8 * (self.n_inputs or 0))
        self.output = _probabilities(graph["output"])
        self.nodes = _needed(graph["node"], self.output)
        self.uses = Counter(name for node in self.nodes if node.op != "Shape" for name in node.inputs)
        self.uses[self.output] += 1
        self.forked: dict[str, Any] = {}
        self.shape_of = {self.path.name: self.path.full_shape()}

    def network(self) -> Network:
        """Return the network of the whole path."""
        path = self.path
        for node in self.nodes:
            try:
                self._follow(node)
            except Exception as error:  # Damaged nodes make NumPy raise nearly anything.
                text = str(error) or type(error).__name__
                raise ValueError(text if node.where in text else f"{node.where}: {text}") from error
            self.shape_of[node.output] = path.full_shape()
        if path.name != self.output:
            raise ValueError(f"the way from its input ends at {path.name!r}, its output is {self.output!r}")
        path.add()
        names = path.output_names if path.output_names and len(path.output_names) == path.size() else None
        return fold(path.steps, np.float64 if path.is_wide else np.float32, self.n_inputs, output_names=names)

    def _follow(self, node: Node) -> None:
        path = self.path
        fixed = ({""}, path.constants, path.shapes)
        data = [name for name in node.inputs if not any(name in names for names in fixed)]
        if node.output in self.shape_of or node.output in path.constants:
            raise ValueError(f"its output {node.output!r} is there already")
        if node.op == "Shape":
            path.shapes[node.output] = self._shape(node)
        elif not data:
            self._compute(node)
        elif not {*data} <= ({*self.forked} or {path.name}):
            raise ValueError(f"it needs {data[0]!r}, which nothing before it on the way from the input gives")
        elif self.forked or self.uses[path.name] > 1:
            self._join(node, data)
        else:
            apply(path, node)
            path.name = node.output

    def _shape(self, node: Node) -> NDArray[np.int64]:
        sizes = self.shape_of[node.inputs[0]]
        if None in sizes:
            raise ValueError(f"its input has shape {sizes}, expected known sizes")
        return np.array(sizes, np.int64)[node.attributes.get("start", 0) : node.attributes.get("end")]

    def _compute(self, node: Node) -> None:
        """Keep what a node makes of constants, or of shapes."""
        path = self.path
        if node.op == "Constant":
            path.constants[node.output] = constant(node.attributes)
            return
        of_shapes = any(name in path.shapes for name in node.inputs)
        inputs = [path.shapes[name] if name in path.shapes else path.constant(name) for name in node.inputs]
        path.tensors.spend(sum(array.nbytes for array in inputs))
        result = computed(node.op, inputs, node.attributes)
        if result is None or (of_shapes and result.dtype != np.int64):
            raise ValueError("fastjac does not compute this, neither from the input nor from constants")
        if of_shapes:
            path.shapes[node.output] = result
        else:
            path.constants[node.output] = result

    def _join(self, node: Node, data: list[str]) -> None:
        """Take one node after a fork, and leave the fork when a single tensor is left."""
        path = self.path
        if not self.forked:
            path.add()
            self.forked = {path.name: X}
        inputs = [self.forked[name] if name in self.forked else self._number(name) for name in node.inputs]
        is_pair = node.op == "Concat" and inputs == [COMPLEMENT, X]
        self.forked[node.output] = X if is_pair else combine(node.op, inputs)
        for name in data:
            self.uses[name] -= 1
            if not self.uses[name]:
                self.forked.pop(name)
        is_joined = len(self.forked) == 1
        if is_pair:
            check_last_axis(path, node.attributes.get("axis"))
            if not is_joined:
                raise ValueError("a third path leads past the two that it joins")
            path.steps = both_columns(path.steps, node.where)
            path.shape = (2 * path.sizes()[0],)
        elif is_joined:
            path.steps += activation_steps(self.forked[node.output], node.where)
        if is_joined:
            path.name, self.forked = node.output, {}

    def _number(self, name: str) -> float:
        array = self.path.constant(name)
        if array.size != 1 or array.ndim > len(self.path.full_shape()):
            raise ValueError(f"{name!r} has shape {array.shape}, expected one number where two paths lead on")
        return float(array.ravel()[0])


def _axes(value: Message) -> tuple[int | None, ...]:
    """Return the shape that the file gives for its input, (None, None) where it gives none."""
    tensor = value.get("type", {}).get("tensor_type", {})
    if "shape" not in tensor:
        return (None, None)
    axes = tuple(axis["value"] if axis.get("value", 0) > 0 else None for axis in tensor["shape"]["dim"])
    if not axes:
        raise ValueError("its input is a single number, expected one or more axes")
    return axes


def _element(value: Message) -> int:
    return int(value.get("type", {}).get("tensor_type", {}).get("elem_type", 0))


def _is_sequence(value: Message) -> bool:
    return "sequence_type" in value.get("type", {})


def _probabilities(outputs: list[Message]) -> str:
    """Return the one output that is not a label: of floats, or what a classifier's ZipMap makes of them."""
    if len(outputs) > 1:
        outputs = [value for value in outputs if _element(value) in FLOATS or _is_sequence(value)]
    if len(outputs) != 1:
        raise ValueError(f"it has {len(outputs)} outputs of floats, expected 1")
    return str(outputs[0].get("name", ""))


def _needed(nodes: list[Message], output: str) -> list[Node]:
    """Return the nodes that the output depends on, in the file's order."""
    makers: dict[str, int] = {}
    for number, node in enumerate(nodes):
        for name in node["output"]:
            if name and makers.setdefault(name, number) != number:
                raise ValueError(f"two nodes have the output {name!r}")
    numbers: set[int] = set()
    wanted = [output]
    while wanted:
        number = makers.get(wanted.pop(), -1)
        if number >= 0 and number not in numbers:
            numbers.add(number)
            wanted += nodes[number]["input"]
    return [_node(nodes[number]) for number in sorted(numbers)]


def _node(message: Message) -> Node:
    op, (output, *_) = message.get("op_type", ""), message["output"]
    where = f"node {(message.get('name') or output)[:200]!r} ({op[:50]})"
    if message.get("domain", "") not in _DOMAINS:
        raise ValueError(f"{where} is of the domain {message['domain']!r}, which fastjac does not know")
    attributes: Message = {}
    for attribute in message["attribute"]:
        name = attribute.get("name", "")
        if attribute.get("type") not in _ATTRIBUTES or name in attributes or "ref_attr_name" in attribute:
            raise ValueError(f"{where} has an attribute {name!r} that fastjac does not read")
        field, default = _ATTRIBUTES[attribute["type"]]
        attributes[name] = attribute.get(field, default)
    return Node(op, message["input"], output, attributes, where)
