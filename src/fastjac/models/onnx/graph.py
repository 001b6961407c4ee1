"""Networks from ONNX files: a walk through the nodes from the input to the output."""

from __future__ import annotations

import contextlib
import pathlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.models.limits import Budget
from fastjac.models.onnx.constants import computed, given
from fastjac.models.onnx.elementwise import settled
from fastjac.models.onnx.networks import network
from fastjac.models.onnx.nodes import apply
from fastjac.models.onnx.patterns import has_factors
from fastjac.models.onnx.proto import needed_nodes, output_of, parse
from fastjac.models.onnx.reader import Reader
from fastjac.models.onnx.tensors import DOUBLE, Tensors
from fastjac.models.onnx.values import BATCH, Base, Node, Value
from fastjac.models.steps import Select
from fastjac.network import Network

_OLDEST_OPSET = 6


def read_onnx(
    data: bytes, folder: pathlib.Path, output: str | None = None, inputs: Sequence[str] | None = None
) -> Network:
    """Return the network in the bytes of an ONNX file, whose external data may be in ``folder`` alone.

    Raises
    ------
    ValueError
        If the bytes are not a model, or one that fastjac does not compute; the message names the node.
    """
    model = parse(data)
    opsets = {opset.domain.removeprefix("ai.onnx"): opset.version for opset in model.opset_import}
    opset = opsets.get("", 1)
    if opset < _OLDEST_OPSET:
        raise ValueError(f"it has opset {opset}, expected {_OLDEST_OPSET} or later")
    if model.functions:
        raise ValueError("it has functions of its own: inline them with onnx.inliner.inline_local_functions")
    if not model.HasField("graph") or model.graph.sparse_initializer:
        raise ValueError("it has no graph, or one with sparse weights")
    reader = Reader(model.graph.initializer, opset, Tensors(folder, len(data)))
    return _Walk(model.graph, reader, output_of(model.graph, output), inputs).network()


class _Walk:
    """A walk through the nodes that an output needs, each after its inputs."""

    def __init__(self, graph: Any, reader: Reader, output: str, order: Sequence[str] | None) -> None:
        self.reader = reader
        self.output = output
        self.order = order
        self.inputs = [value for value in graph.input if value.name not in reader.constants]
        self.nodes = needed_nodes(graph.node, output)
        known = {*reader.constants, *(value.name for value in self.inputs)}
        if not self.nodes and output not in known:
            raise ValueError(f"its output {output!r} is the output of no node")
        known.update(name for message in graph.node for name in message.output)
        for node in self.nodes:
            missing = [name for name in node.inputs if name and name not in known]
            if missing:
                raise ValueError(
                    f"{node.where}: it needs {missing[0]!r}, no input, weight or output of a node"
                )
        self.uses = Counter(name for node in self.nodes if node.op != "Shape" for name in node.inputs)
        self.uses[output] += 1

    def network(self) -> Network:
        """Return the network that leads to the output."""
        reader, n_inputs = self.reader, self._start()
        for node in self.nodes:
            try:
                self._follow(node)
            except Exception as error:  # Damaged nodes make NumPy raise nearly anything.
                text = str(error) or type(error).__name__
                raise ValueError(text if text.startswith("node ") else f"{node.where}: {text}") from error
        if self.output not in reader.values:
            raise ValueError(f"its output {self.output!r} does not depend on its input")
        last = settled(reader, self.output)
        names = reader.output_names
        return network(
            last.base,
            n_inputs,
            np.float64 if reader.is_wide else np.float32,
            names if names and len(names) == last.size else None,
            Budget(reader.tensors.size),
        )

    def _start(self) -> int | None:
        """Set the values of the inputs that the nodes use, and return how many entries they have together."""
        used = self._used()
        values = [self._input(value) for value in used]
        sizes = [value.size for value in values]
        if len(used) > 1:
            root, start = Base(), 0
            for place, (message, value, size) in enumerate(zip(used, values, sizes, strict=True)):
                if size is None:
                    raise ValueError(
                        f"its input {message.name!r} has shape {value.shape}, expected known sizes"
                    )
                part = Select(np.arange(start, start + size), f"the input {message.name!r}")
                values[place], start = value._replace(base=root.then(part, part.where)), start + size
        for message, value in zip(used, values, strict=True):
            self.reader.values[message.name] = value
        return None if None in sizes else sum(size or 0 for size in sizes)

    def _used(self) -> list[Any]:
        """Return the inputs that the output depends on, in the order of the network's input."""
        used = {value.name: value for value in self.inputs if self.uses[value.name]}
        if not used:
            raise ValueError(
                f"its output {self.output!r} depends on none of its inputs ({_names(self.inputs)})"
            )
        if self.order is not None and Counter(self.order) != Counter(used.keys()):
            wanted = f"expected {_names(used.values())} in any order"
            raise ValueError(f"inputs is {list(self.order)}, but its output {self.output!r}: {wanted}")
        return [used[name] for name in self.order or used]

    def _input(self, message: Any) -> Value:
        axes = _axes(message)
        batch = 0 if len(axes) > 1 else None
        if self._has_columns(message.name, axes):
            batch = 1
        if batch is not None and axes[batch] == 1:
            batch = None
        value = Value(Base(), axes, batch)
        self.reader.is_wide |= message.type.tensor_type.elem_type == DOUBLE
        self.reader.tensors.budget.spend(value.size or 0)
        return value

    def _has_columns(self, name: str, axes: Sequence[int | None]) -> bool:
        """Return whether samples are columns, because the first weights are the left factor."""
        if len(axes) != 2 or (axes[0] is None and axes[1] not in (1, None)):
            return False
        data = {name}
        for node in self.nodes:
            inside = [name in data for name in node.inputs]
            if any(inside):
                data.add(node.output)
                if node.op == "Transpose":
                    return False
                if node.op == "MatMul" or (node.op == "Gemm" and not inside[0]):
                    return not inside[0] and not node.attributes.get("transB", 0)
        return False

    def _follow(self, node: Node) -> None:
        reader = self.reader
        inputs = [name for name in node.inputs if name]
        for name in inputs:
            if name not in reader.values and name not in reader.constants:
                raise ValueError(f"it needs {name!r}, which fastjac does not compute")
        if node.output in reader.values or node.output in reader.constants:
            raise ValueError(f"its output {node.output!r} is there already")
        reader.makers[node.output] = node
        data = [name for name in inputs if name in reader.values]
        if node.op == "Shape":
            reader.constants[node.output] = self._shape(node)
        elif node.op == "Constant":
            reader.constants[node.output] = given(node.attributes)
        elif data:
            reader.values[node.output] = apply(reader, node, data)
            # If several nodes use an activation, it becomes the base of all of them.
            if self.uses[node.output] > 1 and has_factors(reader.values[node.output].terms):
                with contextlib.suppress(ValueError):
                    settled(reader, node.output)
        else:
            arrays = [reader.constant(name) for name in inputs]
            if node.op == "ConstantOfShape" and "value" in node.attributes:
                arrays.append(reader.tensors.read(node.attributes["value"]))
            result = computed(node, arrays, reader.tensors.budget) if arrays else None
            if result is None:
                raise ValueError("fastjac does not compute this of constants")
            reader.constants[node.output] = result

    def _shape(self, node: Node) -> NDArray[Any]:
        reader, (name,) = self.reader, node.inputs
        if name in reader.constants:
            sizes: list[Any] = list(reader.constant(name).shape)
        else:
            value = reader.values[name]
            sizes = [BATCH if place == value.batch else size for place, size in enumerate(value.axes)]
            if None in sizes:
                raise ValueError(f"its input has shape {value.shape}, expected known sizes")
        sizes = sizes[node.attributes.get("start", 0) : node.attributes.get("end")]
        return np.array(sizes, object if BATCH in sizes else np.int64)


def _names(values: Iterable[Any]) -> str:
    return ", ".join(repr(value.name) for value in values)


def _axes(value: Any) -> tuple[int | None, ...]:
    """Return the shape that the file gives for its input, (None, None) where it gives none."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return (None, None)
    axes = tuple(axis.dim_value if axis.dim_value > 0 else None for axis in tensor.shape.dim)
    if not axes:
        raise ValueError("its input is a single number, expected one or more axes")
    return axes
