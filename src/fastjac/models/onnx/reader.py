"""The tensors of an ONNX graph by their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.models.onnx.patterns import X, activation_steps
from fastjac.models.onnx.tensors import Tensors
from fastjac.models.onnx.values import Node, Value
from fastjac.models.steps import Float64, as_float64


class Reader:
    """The constants and values known so far, and access to them.

    Attributes
    ----------
    constants : dict
        Arrays, or TensorProtos that have not been read, by their names.
    values : dict
        The tensors that depend on the input.
    makers : dict
        The nodes that made them.
    opset : int
        The version of the operators.
    is_wide : bool
        Whether the network computes in float64.
    output_names : list of str or None
        The names of the entries of the output.
    """

    def __init__(self, weights: Sequence[Any], opset: int, tensors: Tensors) -> None:
        self.constants: dict[str, Any] = {tensor.name: tensor for tensor in weights}
        if len(self.constants) < len(weights):
            raise ValueError("two of its weights have one name")
        self.opset = opset
        self.tensors = tensors
        self.values: dict[str, Value] = {}
        self.is_wide = False
        self.output_names: list[str] | None = None
        self.makers: dict[str, Node] = {}

    def settled(self, name: str) -> Value:
        """Return a tensor whose terms have become steps; all later users get the same one."""
        value = self.values[name]
        if value.terms != X:
            where = self.makers[name].where
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
        """Return a constant, one number for each entry of a sample or (1,), and the value with its sizes."""
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
