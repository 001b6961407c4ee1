"""Networks from ONNX files: what leads from the input to the output, node by node."""

from __future__ import annotations

import contextlib
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.models.folding import Float64, as_float64, fold
from fastjac.models.limits import Budget
from fastjac.models.onnx.nodes import apply, constant
from fastjac.models.onnx.patterns import X, activation_steps, has_factors
from fastjac.models.onnx.proto import needed_nodes, output_of, parse
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
    return Reader(model.graph, opset, Tensors(folder, Budget(len(data)))).network(output, Budget(len(data)))


class Reader:
    """Follows the nodes that an output needs.

    Attributes
    ----------
    values : dict
        What is known of each tensor that depends on the input.
    opset : int
        The version of the operators.
    is_wide : bool
        Whether the network computes in float64.
    output_names : list of str or None
        What the file calls the entries of the output.
    """

    def __init__(self, graph: Any, opset: int, tensors: Tensors) -> None:
        self.graph = graph
        self.opset = opset
        self.tensors = tensors
        self.constants: dict[str, Any] = {tensor.name: tensor for tensor in graph.initializer}
        if len(self.constants) < len(graph.initializer):
            raise ValueError("two of its weights have one name")
        self.values: dict[str, Value] = {}
        self.is_wide = False
        self.output_names: list[str] | None = None
        self._makers: dict[str, Node] = {}
        self._uses: Counter[str] = Counter()

    def network(self, output: str | None, budget: Budget) -> Network:
        """Return the network that leads to ``output``, by default the file's only one."""
        output = output_of(self.graph, output)
        nodes = needed_nodes(self.graph.node, output)
        if not nodes and output not in (value.name for value in self.graph.input):
            raise ValueError(f"its output {output!r} is the output of no node")
        known = {*self.constants, *(value.name for value in self.graph.input)}
        known.update(name for message in self.graph.node for name in message.output)
        for node in nodes:
            missing = [name for name in node.inputs if name and name not in known]
            if missing:
                raise ValueError(
                    f"{node.where}: it needs {missing[0]!r}, no input, weight or output of a node"
                )
        self._uses.update(name for node in nodes if node.op != "Shape" for name in node.inputs)
        self._uses[output] += 1
        start = self._start(nodes, output)
        for node in nodes:
            try:
                self._follow(node)
            except Exception as error:  # Damaged nodes make NumPy raise nearly anything.
                text = str(error) or type(error).__name__
                raise ValueError(text if text.startswith("node ") else f"{node.where}: {text}") from error
        if output not in self.values:
            raise ValueError(f"its output {output!r} does not depend on its input")
        last = self.settled(output)
        names = self.output_names
        return fold(
            last.base.path(),
            np.float64 if self.is_wide else np.float32,
            start.size,
            output_names=names if names and len(names) == last.size else None,
            budget=budget,
        )

    def settled(self, name: str) -> Value:
        """Return a tensor as a base of its own, once for all that use it."""
        value = self.values[name]
        if value.terms != X:
            where = self._makers[name].where
            try:
                value = value._replace(terms=X).then(*activation_steps(value.terms, where))
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
            self.values[name] = value
        return value

    def constant(self, name: str) -> NDArray[Any]:
        """Return a constant by its name."""
        value = self.constants[name]
        return value if isinstance(value, np.ndarray) else self.tensors.read(value)

    def weight(self, name: str) -> Float64:
        """Return a matrix of floats by its name."""
        array = self.constant(name)
        if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
            raise ValueError(
                f"{name!r} has dtype {array.dtype}, expected floats: fastjac reads no quantized weights"
            )
        self.is_wide |= array.dtype == np.float64
        return as_float64(array, name)

    def spread(self, value: Value, array: NDArray[Any], what: str) -> tuple[Float64, Value]:
        """Return a constant for each entry of a sample, or one for all of them, and the sizes it tells."""
        array = as_float64(array, what)
        if array.ndim > len(value.axes):
            raise ValueError(f"{what} has shape {array.shape}, but the input has fewer axes: {value.shape}")
        if array.size == 1:
            return array.ravel(), value
        lengths = [1] * (len(value.axes) - array.ndim) + list(array.shape)
        if value.batch is not None and lengths[value.batch] != 1:
            raise ValueError(f"{what} has shape {array.shape}: it differs from sample to sample")
        pairs = list(zip(value.axes, lengths, strict=True))
        value = value._replace(
            axes=tuple(length if size is None and length > 1 else size for size, length in pairs)
        )
        if value.size is None or any(length not in (1, size) for size, length in pairs if size is not None):
            raise ValueError(f"{what} has shape {array.shape}, its input {value.shape}")
        self.tensors.budget.spend(value.size)
        shape = [1 if place == value.batch else size or 0 for place, size in enumerate(value.axes)]
        return np.broadcast_to(array, shape).ravel(), value

    def _start(self, nodes: Sequence[Node], output: str) -> Value:
        """Set the value of the one input that the nodes use."""
        names = [value.name for value in self.graph.input if value.name not in self.constants]
        used = [value for value in self.graph.input if value.name in names and self._uses[value.name]]
        if len(used) != 1:
            raise ValueError(
                f"its output {output!r} depends on {len(used)} of its inputs ({', '.join(names)}), expected 1"
            )
        axes = _axes(used[0])
        batch = 0 if len(axes) > 1 else None
        if self._has_columns(nodes, used[0].name, axes):
            batch = 1
        if batch is not None and axes[batch] == 1:
            batch = None
        value = Value(Base(), axes, batch)
        self.is_wide = used[0].type.tensor_type.elem_type == DOUBLE
        self.tensors.budget.spend(value.size or 0)
        self.values[used[0].name] = value
        return value

    def _has_columns(self, nodes: Sequence[Node], name: str, axes: Sequence[int | None]) -> bool:
        """Return whether samples are columns: the first weights stand before what they multiply."""
        if len(axes) != 2 or (axes[0] is None and axes[1] not in (1, None)):
            return False
        data = {name}
        for node in nodes:
            inside = [name in data for name in node.inputs]
            if any(inside):
                data.add(node.output)
                if node.op == "Transpose":
                    return False
                if node.op == "MatMul" or (node.op == "Gemm" and not inside[0]):
                    return not inside[0] and not node.attributes.get("transB", 0)
        return False

    def _follow(self, node: Node) -> None:
        inputs = [name for name in node.inputs if name]
        for name in inputs:
            if name not in self.values and name not in self.constants:
                raise ValueError(f"it needs {name!r}, which fastjac does not compute")
        if node.output in self.values or node.output in self.constants:
            raise ValueError(f"its output {node.output!r} is there already")
        self._makers[node.output] = node
        data = [name for name in inputs if name in self.values]
        if node.op == "Shape":
            self.constants[node.output] = self._shape(node)
        elif node.op == "Constant":
            self.constants[node.output] = constant(node.attributes)
        elif data:
            self.values[node.output] = apply(self, node, data)
            # Where several paths go on from an activation, it is the base of them all.
            if self._uses[node.output] > 1 and has_factors(self.values[node.output].terms):
                with contextlib.suppress(ValueError):
                    self.settled(node.output)
        else:
            arrays = [self.constant(name) for name in inputs]
            result = computed(node.op, arrays, node.attributes, self.tensors.budget) if arrays else None
            if result is None:
                raise ValueError("fastjac does not compute this of constants")
            self.constants[node.output] = result

    def _shape(self, node: Node) -> NDArray[Any]:
        (name,) = node.inputs
        if name in self.constants:
            sizes: list[Any] = list(self.constant(name).shape)
        else:
            value = self.values[name]
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
