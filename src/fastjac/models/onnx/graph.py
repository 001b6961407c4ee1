"""Networks from ONNX files: a walk through the nodes from the input to the output."""

from __future__ import annotations

import contextlib
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.models.folding import fold
from fastjac.models.limits import Budget
from fastjac.models.onnx.nodes import apply, constant
from fastjac.models.onnx.patterns import has_factors
from fastjac.models.onnx.proto import needed_nodes, output_of, parse
from fastjac.models.onnx.reader import Reader
from fastjac.models.onnx.tensors import DOUBLE, Tensors, computed
from fastjac.models.onnx.values import BATCH, Base, Node, Value
from fastjac.network import Network

_OLDEST_OPSET = 6


def read_onnx(data: bytes, folder: pathlib.Path, output: str | None = None) -> Network:
    """Return the network in the bytes of an ONNX file, whose external data may be in ``folder`` alone.

    Raises
    ------
    ValueError
        If the bytes are not a model, or one that is not a chain of layers; the message names the node.
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
    return _Walk(model.graph, reader, output_of(model.graph, output)).network()


class _Walk:
    """A walk through the nodes that an output needs, each after its inputs."""

    def __init__(self, graph: Any, reader: Reader, output: str) -> None:
        self.reader = reader
        self.output = output
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
        reader, start = self.reader, self._start()
        for node in self.nodes:
            try:
                self._follow(node)
            except Exception as error:  # Damaged nodes make NumPy raise nearly anything.
                text = str(error) or type(error).__name__
                raise ValueError(text if text.startswith("node ") else f"{node.where}: {text}") from error
        if self.output not in reader.values:
            raise ValueError(f"its output {self.output!r} does not depend on its input")
        last = reader.settled(self.output)
        names = reader.output_names
        return fold(
            last.base.path(),
            np.float64 if reader.is_wide else np.float32,
            start.size,
            output_names=names if names and len(names) == last.size else None,
            budget=Budget(reader.tensors.size),
        )

    def _start(self) -> Value:
        """Set the value of the one input that the nodes use."""
        used = [value for value in self.inputs if self.uses[value.name]]
        if len(used) != 1:
            names = ", ".join(value.name for value in self.inputs)
            raise ValueError(
                f"its output {self.output!r} depends on {len(used)} of its inputs ({names}), expected 1"
            )
        axes = _axes(used[0])
        batch = 0 if len(axes) > 1 else None
        if self._has_columns(used[0].name, axes):
            batch = 1
        if batch is not None and axes[batch] == 1:
            batch = None
        value = Value(Base(), axes, batch)
        self.reader.is_wide = used[0].type.tensor_type.elem_type == DOUBLE
        self.reader.tensors.budget.spend(value.size or 0)
        self.reader.values[used[0].name] = value
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
            reader.constants[node.output] = constant(node.attributes)
        elif data:
            reader.values[node.output] = apply(reader, node, data)
            # If several nodes use an activation, it becomes the base of all of them.
            if self.uses[node.output] > 1 and has_factors(reader.values[node.output].terms):
                with contextlib.suppress(ValueError):
                    reader.settled(node.output)
        else:
            arrays = [reader.constant(name) for name in inputs]
            result = computed(node.op, arrays, node.attributes, reader.tensors.budget) if arrays else None
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


def _axes(value: Any) -> tuple[int | None, ...]:
    """Return the shape that the file gives for its input, (None, None) where it gives none."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return (None, None)
    axes = tuple(axis.dim_value if axis.dim_value > 0 else None for axis in tensor.shape.dim)
    if not axes:
        raise ValueError("its input is a single number, expected one or more axes")
    return axes
