"""The tensors of an ONNX graph by their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
