"""Networks from ONNX files: a walk through the nodes from the input to the output."""

from __future__ import annotations

import math
import pathlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac import graph
from fastjac.graph.folding import most_weights
from fastjac.graph.plan import GraphPlan
from fastjac.graph.values import Affine, Input, Select, Value, ordered
from fastjac.models import recognise
from fastjac.models.folding import of_value
from fastjac.models.limits import MOST_LAYERS, MOST_OPERATIONS, Budget
from fastjac.models.onnx.constants import computed, given
from fastjac.models.onnx.operators import apply
from fastjac.models.onnx.proto import Node, needed_nodes, output_of, parse
from fastjac.models.onnx.samples import BATCH, Operand, Samples
from fastjac.models.onnx.tensors import DOUBLE, Tensors
from fastjac.models.tensors import Tensor
from fastjac.network import Network

_OLDEST_OPSET = 6
_MOST_NODES = 2 * MOST_OPERATIONS  # Some are constants, or become none.
_PRODUCTS = ("Gemm", "MatMul")


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
    walk = _Walk(model.graph, opset, Tensors(folder, len(data)), output_of(model.graph, output), inputs)
    with np.errstate(all="ignore"):
        return walk.network()


class _Walk:
    """A walk through the nodes that an output needs, each after its inputs.

    Attributes
    ----------
    constants : dict
        Arrays, or TensorProtos that have not been read, by their names.
    followed : dict
        The tensors that depend on the input.
    """

    def __init__(
        self, graph: Any, opset: int, tensors: Tensors, output: str, order: Sequence[str] | None
    ) -> None:
        self.tensors, self.output, self.order = tensors, output, order
        self.constants: dict[str, Any] = {tensor.name: tensor for tensor in graph.initializer}
        if len(self.constants) < len(graph.initializer):
            raise ValueError("two of its weights have one name")
        self.followed: dict[str, Samples] = {}
        self.is_wide = False
        self.output_names: list[str] | None = None
        self.inputs = [value for value in graph.input if value.name not in self.constants]
        self.nodes = needed_nodes(graph.node, output, opset)
        if len(self.nodes) > _MOST_NODES:
            raise ValueError(f"its output needs {len(self.nodes)} nodes, expected at most {_MOST_NODES}")
        known = {*self.constants, *(value.name for value in self.inputs)}
        if not self.nodes and output not in known:
            raise ValueError(f"its output {output!r} is the output of no node")
        known.update(name for message in graph.node for name in message.output)
        for node in self.nodes:
            missing = [name for name in node.inputs if name and name not in known]
            if missing:
                raise ValueError(
                    f"{node.where}: it needs {missing[0]!r}, no input, weight or output of a node"
                )

    def network(self) -> Network:
        """Return the network that leads to the output."""
        self._start()
        for node in self.nodes:
            try:
                self._follow(node)
            except Exception as error:  # Damaged nodes make NumPy raise nearly anything.
                text = str(error) or type(error).__name__
                raise ValueError(text if text.startswith("node ") else f"{node.where}: {text}") from error
        if self.output not in self.followed:
            raise ValueError(f"its output {self.output!r} does not depend on its input")
        budget = Budget(self.tensors.size)
        value = recognise.resolved(self.followed[self.output].tensor.flat, budget)
        _check_size(value, budget)
        names = self.output_names
        dtype = np.float64 if self.is_wide else np.float32
        net = of_value(value, dtype, output_names=names if names and len(names) == value.size else None)
        if isinstance(net.plan, GraphPlan):
            budget.check_derivatives(net.plan.derivatives)
        return net

    def _start(self) -> None:
        """Follow the inputs that the nodes use: one behind the other, they are the network's."""
        used = self._used()
        shapes = [self._shape_of(value, len(used) == 1) for value in used]
        sizes = [math.prod(axes) for axes, *_ in shapes]
        self.tensors.budget.spend(sum(sizes))
        source, start = graph.input(sum(sizes)), 0
        for message, (axes, batch, count), size in zip(used, shapes, sizes, strict=True):
            places = start + np.arange(size).reshape(axes)
            self.followed[message.name] = Samples(Tensor(source, places), batch, count, self.tensors.budget)
            start += size
            self.is_wide |= message.type.tensor_type.elem_type == DOUBLE

    def _used(self) -> list[Any]:
        """Return the inputs that the output depends on, in the order of the network's input."""
        names = {self.output, *(name for node in self.nodes if node.op != "Shape" for name in node.inputs)}
        used = {value.name: value for value in self.inputs if value.name in names}
        if not used:
            raise ValueError(
                f"its output {self.output!r} depends on none of its inputs ({_names(self.inputs)})"
            )
        if self.order is not None and Counter(self.order) != Counter(used.keys()):
            wanted = f"expected {_names(used.values())} in any order"
            raise ValueError(f"inputs is {list(self.order)}, but its output {self.output!r}: {wanted}")
        return [used[name] for name in self.order or used]

    def _shape_of(self, message: Any, is_only: bool) -> tuple[list[int], int | None, int]:
        """Return the axes of one sample of an input, which of them counts samples, and how many it counts."""
        axes = _axes(message)
        batch = 0 if len(axes) > 1 else None
        if self._has_columns(message.name, axes):
            batch = 1
        if batch is not None and axes[batch] == 1:
            batch = None
        missing = [place for place, size in enumerate(axes) if size is None and place != batch]
        if is_only and len(missing) == 1:
            others = [size or 1 for place, size in enumerate(axes) if place != batch]
            axes[missing.pop()] = max(self._first_size(message.name) // math.prod(others), 1)
        if missing:
            names = ["batch" if place == batch else str(size or "?") for place, size in enumerate(axes)]
            text = f"({', '.join(names)})"
            raise ValueError(f"its input {message.name!r} has shape {text}, expected known sizes")
        count = 1 if batch is None else axes[batch] or BATCH
        return [1 if place == batch else size or 0 for place, size in enumerate(axes)], batch, count

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

    def _first_size(self, name: str) -> int:
        """Return the number of inputs that the first weights take, where the file does not give it."""
        data = {name}
        for node in self.nodes:
            if not data.intersection(node.inputs):
                continue
            data.add(node.output)
            if node.op in _PRODUCTS:
                weights = next((name for name in node.inputs[:2] if name in self.constants), None)
                is_second = len(node.inputs) > 1 and weights == node.inputs[1]
                turned = node.attributes.get("transB" if is_second else "transA", 0)
                if weights is not None and len(self.constants[weights].dims) == 2:
                    return int(self.constants[weights].dims[bool(turned) == is_second])
        raise ValueError("it does not say how many inputs it has")

    def _follow(self, node: Node) -> None:
        names = [name for name in node.inputs if name]
        for name in names:
            if name not in self.followed and name not in self.constants:
                raise ValueError(f"it needs {name!r}, which fastjac does not compute")
        if node.output in self.followed or node.output in self.constants:
            raise ValueError(f"its output {node.output!r} is there already")
        if node.op == "Shape":
            shape = self._operand(names[0]).shape
            start, end = node.attributes.get("start", 0), node.attributes.get("end")
            self.constants[node.output] = np.array(shape[start:end], np.int64)
        elif node.op == "Constant":
            self.constants[node.output] = given(node.attributes)
        elif self.followed.keys() & set(names):
            self.followed[node.output] = self._computed(node)
        else:
            arrays = [self._read(name) for name in names]
            if node.op == "ConstantOfShape" and "value" in node.attributes:
                arrays.append(self.tensors.read(node.attributes["value"]))
            result = computed(node, arrays, self.tensors.budget) if arrays else None
            if result is None:
                raise ValueError("fastjac does not compute this of constants")
            self.constants[node.output] = result

    def _read(self, name: str) -> NDArray[Any]:
        value = self.constants[name]
        return value if isinstance(value, np.ndarray) else self.tensors.read(value)

    def _operand(self, name: str) -> Operand:
        return self.followed[name] if name in self.followed else self._read(name)

    def _computed(self, node: Node) -> Samples:
        """Return the output of a node that depends on the network's input."""
        operands = [self._operand(name) if name else None for name in node.inputs]
        if node.op in _PRODUCTS:
            self.is_wide |= any(getattr(each, "dtype", None) == np.float64 for each in operands[:2])
        if node.op == "ZipMap":
            labels = node.attributes.get("classlabels_strings") or node.attributes["classlabels_int64s"]
            self.output_names = [
                str(each, "utf-8") if isinstance(each, bytes) else str(each) for each in labels
            ]
        return apply(node, operands)


def _check_size(value: Value, budget: Budget) -> None:
    """Raise ValueError if a network is larger than its file allows."""
    values = ordered(value)
    layers = sum(isinstance(each.operation, Affine) for each in values)
    if layers > MOST_LAYERS or len(values) > MOST_OPERATIONS:
        raise ValueError(
            f"it has {layers} layers of {len(values)} operations, expected at most {MOST_LAYERS} of "
            f"{MOST_OPERATIONS}"
        )
    for each in values:
        budget.spend(each.size)
        if isinstance(each.operation, Affine):
            fan_in, fan_out = each.operation.w.shape
            budget.spend_on_layer(fan_in, fan_out)
            before = each.inputs[0]
            if isinstance(before.operation, Select) and isinstance(before.inputs[0].operation, Input):
                # The selection becomes rows of the weights.
                budget.spend(min(before.inputs[0].size * fan_out, most_weights(fan_in, fan_out)))


def _names(values: Iterable[Any]) -> str:
    return ", ".join(repr(value.name) for value in values)


def _axes(value: Any) -> list[int | None]:
    """Return the shape that the file gives for its input, (None, None) where it gives none."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return [None, None]
    axes = [axis.dim_value if axis.dim_value > 0 else None for axis in tensor.shape.dim]
    if not axes:
        raise ValueError("its input is a single number, expected one or more axes")
    return axes
