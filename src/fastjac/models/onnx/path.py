"""How far an ONNX graph has been followed: the tensor reached, its shape, and the steps that lead there."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastjac.models.folding import Float64, Step, as_float64, clip
from fastjac.models.onnx.tensors import Tensors
from fastjac.models.onnx.wire import Message

# Stands for the size of the batch in a shape that the file computes; no axis is as long.
BATCH = -(2**40)


class Node(NamedTuple):
    """What an operator does: ``inputs`` and ``output`` are names of tensors."""

    op: str
    inputs: list[str]
    output: str
    attributes: Message
    where: str


class Path:
    """The part of a graph that has been followed.

    Attributes
    ----------
    name : str
        The tensor reached.
    batched : bool
        Whether its first axis is the batch's.
    batch_size : int or None
        The batch's, None where the file does not say.
    shape : tuple of int or None
        Its other axes, None where the file does not say.
    is_wide : bool
        Whether it is computed in float64.
    steps : list of Step
        What leads there.
    output_names : list of str or None
        What the file calls its entries.
    """

    def __init__(self, name: str, axes: tuple[int | None, ...], tensors: Tensors) -> None:
        self.name = name
        self.batched = len(axes) > 1
        self.batch_size = axes[0] if self.batched else 1
        self.shape = axes[self.batched :]
        self.is_wide = False
        self.steps: list[Step] = []
        self.output_names: list[str] | None = None
        self.tensors = tensors
        self.constants: dict[str, Message | NDArray[Any]] = {}
        self.shapes: dict[str, NDArray[np.int64]] = {}
        self._limits = (-math.inf, math.inf)

    def add(self, *steps: Step) -> None:
        """Append steps, after what the limits collected so far make."""
        if self._limits != (-math.inf, math.inf):
            self.steps += clip(*self._limits, "Clip")
            self._limits = (-math.inf, math.inf)
        self.steps += steps

    def limit(self, low: float, high: float) -> None:
        """Clip the tensor reached; clips in a row, of which exporters make one ReLU, become one."""
        if math.isnan(low) or math.isnan(high):
            raise ValueError("it clips to NaN")
        self._limits = (min(max(self._limits[0], low), high), min(max(self._limits[1], low), high))

    def full_shape(self) -> list[int | None]:
        """Return the shape of the tensor reached, with the batch."""
        return [BATCH, *self.shape] if self.batched else [*self.shape]

    def size(self) -> int | None:
        """Return the number of entries of a sample, None where the file does not say."""
        return None if None in self.shape else math.prod(size or 0 for size in self.shape)

    def constant(self, name: str) -> NDArray[Any]:
        """Return a constant by its name."""
        value = self.constants[name]
        return self.tensors.read(value) if isinstance(value, dict) else value

    def spread(self, name: str) -> Float64:
        """Return a constant for each entry of the flattened tensor reached, or one for all of them."""
        array = as_float64(self.constant(name), name)
        if array.ndim > self.batched + len(self.shape):
            raise ValueError(f"{name!r} has shape {array.shape}, but the input has fewer axes")
        if array.size == 1:
            return array.ravel()
        if self.batched and array.ndim == 1 + len(self.shape):
            if len(array) != 1:
                raise ValueError(f"{name!r} has shape {array.shape}: it differs from sample to sample")
            array = array[0]
        if self.shape == (None,):
            self.shape = array.shape
        return np.broadcast_to(array, self.sizes()).ravel()

    def sizes(self) -> tuple[int, ...]:
        """Return the axes besides the batch's, of which the file must say the lengths."""
        sizes = tuple(size for size in self.shape if size is not None)
        if len(sizes) < len(self.shape):
            raise ValueError(f"its input has shape {self.shape}, expected known sizes")
        self.tensors.spend(8 * math.prod(sizes))
        return sizes
