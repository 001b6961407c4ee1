"""The tape that computes a graph's values, and where each of them is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.graph.values import Add, Concatenate, Input, Multiply, Normalise, Scale, Select, is_head
from fastjac.kernels import operations
from fastjac.kernels.context import Arena
from fastjac.kernels.graphs import PackedGraph, Unit
from fastjac.layers import Activation

Array = NDArray[Any]


class Values:
    """The tape that computes a graph's values.

    Attributes
    ----------
    nodes : list of dict
        Fields of the records.
    at : dict of int to int
        The address of each value's vector, by its id.
    number : dict of int to int
        Which node a normalised value is, by its id.
    """

    address = 0

    def __init__(self, packed: PackedGraph, arena: Arena, layers: Array, x: int) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.at: dict[int, int] = {}
        self.number: dict[int, int] = {}
        self.factors: dict[int, int] = {}  # The vector of each scaled value's factors.
        self._ones: dict[int, int] = {}
        self._arena, self._layers = arena, layers
        for unit in packed.units:
            if isinstance(unit.value.operation, Input):
                self.at[id(unit.value)] = x
            elif unit.layer >= len(packed.layers):
                self._add_other(unit)
            elif unit.layer >= 0:
                self._add_layer(unit, packed.layers[unit.layer].activation)
            else:
                self._add_operation(unit)

    def one(self, size: int) -> int:
        """Return the address of a vector of ones."""
        if size not in self._ones:
            self._ones[size] = self._arena.vector(size, 1.0)
        return self._ones[size]

    def _node(self, operation: int, **fields: int | float) -> None:
        self.nodes.append({"operation": operation, **fields})

    def _add_layer(self, unit: Unit, activation: Activation) -> None:
        value, i = unit.value, unit.layer
        self._node(operations.AFFINE, layer=i, size=value.size, first=self.at[id(unit.inputs[0])])
        self.at[id(value)] = int(self._layers[i]["a"])
        if is_head(value.operation):
            self._add_head(unit)

    def _add_head(self, unit: Unit) -> None:
        self._layers[unit.layer]["shares"] = self._arena.vector(unit.value.size)
        out = self.at[id(unit.value)] = self._arena.vector(unit.value.size)
        self._node(operations.HEAD, layer=unit.layer, size=unit.value.size, out=out)

    def _add_other(self, unit: Unit) -> None:
        """Add an activation, or a softmax, of a value that no affine map makes."""
        layer, size = self._layers[unit.layer], unit.value.size
        first, a = self.at[id(unit.inputs[0])], int(layer["a"])
        if is_head(unit.value.operation):
            self._node(operations.COPY, size=size, first=first, out=a)
            self._add_head(unit)
        else:
            self._node(operations.APPLY, layer=unit.layer, size=size, first=first)
            self.at[id(unit.value)] = a

    def _add_operation(self, unit: Unit) -> None:
        value, operation, size = unit.value, unit.value.operation, unit.value.size
        first, *others = (self.at[id(each)] for each in unit.inputs)
        out = self.at[id(value)] = self._arena.vector(size)
        if isinstance(operation, (Add, Multiply)):
            kind = operations.ADD if isinstance(operation, Add) else operations.MULTIPLY
            self._node(kind, size=size, first=first, second=others[0], out=out)
        elif isinstance(operation, Scale):
            factor, shift = (self._arena.vector(size, array) for array in operation)
            self._node(operations.SCALE, size=size, first=first, second=factor, index=shift, out=out)
            self.factors[id(value)] = factor
        elif isinstance(operation, Concatenate):
            to = 0
            for part in unit.inputs:
                self._node(operations.COPY, size=part.size, first=self.at[id(part)], out=out, to=to)
                to += part.size
        elif isinstance(operation, Select):
            start = first_of_run(operation.places)
            if start is not None:
                self._node(operations.COPY, size=size, first=first, start=start, out=out)
            else:
                index = self._arena.integers(operation.places)
                self._node(
                    operations.GATHER, size=size, rows=unit.inputs[0].size, first=first, index=index, out=out
                )
        elif isinstance(operation, Normalise):
            self.number[id(value)] = len(self.nodes)
            centre = self.one(size) if operation.centred else 0
            epsilon = operation.epsilon
            self._node(operations.NORMALISE, size=size, first=first, second=centre, out=out, epsilon=epsilon)
        else:
            raise TypeError(f"no operation of the kernels for {type(operation).__name__}")


def first_of_run(places: NDArray[np.intp]) -> int | None:
    """Return the first of consecutive places, None if they are none."""
    first = int(places[0])
    return first if np.array_equal(places, np.arange(first, first + places.size)) else None
