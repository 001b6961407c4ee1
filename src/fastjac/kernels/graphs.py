"""A graph's weights, packed, and which affine maps and activations are computed together."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastjac.graph.plan import GraphPlan
from fastjac.graph.values import Affine, Apply, Value, is_head, ordered
from fastjac.kernels.merging import Link
from fastjac.kernels.packing import pack_panels
from fastjac.kernels.target import Target
from fastjac.layers import Activation, Layer

Array = NDArray[Any]
IDENTITY = Activation("identity")


class Unit(NamedTuple):
    """A value as the kernels compute it: an operation, or an affine map and its activation together."""

    value: Value
    inputs: tuple[Value, ...]
    layer: int  # in the list of layers, -1 for an operation without


class PackedGraph:
    """A graph's weights in the layout that its tapes read, shared by all threads; see `packing.Packed`.

    Parameters
    ----------
    value : Value
        What the network computes, its arrays in one dtype.
    plan : GraphPlan
        How the Jacobian is multiplied out.
    """

    raw, is_graph, together, paths = False, True, 1, None

    def __init__(self, value: Value, plan: GraphPlan, dtype: np.dtype[Any], target: Target) -> None:
        self.value, self.plan, self.dtype, self.target = value, plan, dtype, target
        self.layers: list[Layer] = []
        self.units: list[Unit] = []
        self.others: list[tuple[Activation, int]] = []  # Layers without weights: activation and size.
        self._find_units()
        count = len(self.layers)
        self.forward = [False] * count
        self.chain = [Link(layer) for layer in self.layers]
        self.skips = self._skips()
        width = target.panel_width(dtype)
        packed: dict[tuple[int, bool], Array] = {}

        def pack(w: Array, transposed: bool) -> Array:
            if (id(w), transposed) not in packed:
                packed[id(w), transposed] = pack_panels(w.T if transposed else w, target)
            return packed[id(w), transposed]

        self.weights = [pack(layer.w, True) for layer in self.layers]
        self.rows = {
            i: pack(layer.w, False)
            for i, layer in enumerate(self.layers)
            if (self.skips[i] and layer.b.size > width) or layer.w.shape[0] <= width
        }
        self.spine: list[Any] = []
        first = 0 if plan.is_forward else len(self.units)
        if plan.waist is not None:
            first = next(i for i, unit in enumerate(self.units) if unit.value is plan.waist) + 1
        after = [unit.layer for unit in self.units[first:] if 0 <= unit.layer < count]
        self.across = {i: pack(self.layers[i].w, False) for i in after}

    @property
    def arrays(self) -> list[Array]:
        """All arrays of weights, each once."""
        found = [*self.weights, *self.rows.values(), *self.across.values()]
        return list({array.ctypes.data: array for array in found}.values())

    def has_weights(self, unit: Unit) -> bool:
        """Return whether a unit is an affine map, alone or with its activation."""
        return 0 <= unit.layer < len(self.layers)

    def _find_units(self) -> None:
        values = ordered(self.value)
        uses = Counter(id(each) for user in values for each in user.inputs)
        fused = set()
        for value in values:
            (before,) = value.inputs if len(value.inputs) == 1 else (None,)
            if isinstance(value.operation, Apply) and before is not None:
                is_last = value is self.value or not is_head(value.operation)
                if isinstance(before.operation, Affine) and uses[id(before)] == 1 and is_last:
                    fused.add(id(before))
        pending: list[int] = []
        for value in values:
            operation, inputs = value.operation, value.inputs
            if id(value) in fused:
                continue
            activation = operation.activation if isinstance(operation, Apply) else IDENTITY
            if isinstance(operation, Apply) and id(inputs[0]) in fused:
                operation, inputs = inputs[0].operation, inputs[0].inputs
            layer = -1
            if isinstance(operation, Affine):
                layer = len(self.layers)
                self.layers.append(Layer(operation.w, operation.b, activation))
            elif isinstance(operation, Apply):
                layer = len(pending)
                pending.append(len(self.units))
                self.others.append((activation, value.size))
            self.units.append(Unit(value, inputs, layer))
        for number, place in enumerate(pending):
            self.units[place] = self.units[place]._replace(layer=len(self.layers) + number)
        # Layers that stand for a value as it is, for products that multiply by no slope.
        self.plain = {}
        for size in sorted({value.size for value in values}):
            self.plain[size] = len(self.layers) + len(self.others)
            self.others.append((IDENTITY, size))

    def _skips(self) -> list[int]:
        """Return for each layer how many before it the ReLU is that it reads, 0 where it reads none."""
        relu = {
            id(unit.value): unit.layer
            for unit in self.units
            if self.has_weights(unit) and self.layers[unit.layer].activation.name == "relu"
        }
        skips = [0] * len(self.layers)
        for unit in self.units:
            if self.has_weights(unit) and np.isfinite(self.layers[unit.layer].w).all():
                skips[unit.layer] = unit.layer - relu.get(id(unit.inputs[0]), unit.layer)
        return skips
