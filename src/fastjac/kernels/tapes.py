"""Lays a graph out for the kernels: which operations they carry out, in which order, and in which memory.

A tape is a sequence of `NODE` records. One computes the values. Three compute derivatives: of one cotangent,
of one tangent, and the Jacobian. The Jacobian goes from the outputs, from the inputs, or from a value between
them, whichever takes the fewest multiply-adds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.graph.values import Value
from fastjac.kernels.context import Arena, Context
from fastjac.kernels.cotangents import Cotangents
from fastjac.kernels.graphs import PackedGraph
from fastjac.kernels.layout import CONTEXT, NODE, STEP
from fastjac.kernels.tangents import Tangents
from fastjac.kernels.values import Values
from fastjac.kernels.walks import GIVEN

Array = NDArray[Any]


class GraphContext(Context):
    """What a call of a graph hands to the kernels."""

    is_graph = True
    _packed: PackedGraph  # type: ignore[assignment]

    def __init__(self, packed: PackedGraph) -> None:
        self._packed = packed
        self.arena = Arena(packed.target, packed.dtype)
        self.sizes = packed.plan.sizes[0], packed.plan.sizes[-1]
        arena, (n_inputs, n_outputs) = self.arena, self.sizes
        layers = self._make_layers(len(packed.others))
        for record, (activation, size) in zip(layers[len(packed.layers) :], packed.others, strict=True):
            self._fill_units(record, activation, size)
        for i in packed.plain.values():
            layers[i]["slope"] = arena.vector(int(layers[i]["fan_out"]), 1.0)
        context = arena.records(CONTEXT)
        self.record = context[0]
        self.address = int(context.ctypes.data)
        steps: list[dict[str, int]] = []
        x, v, u = (arena.vector(size) for size in (n_inputs, n_outputs, n_inputs))
        values = Values(packed, arena, layers, x)
        common = packed, arena, layers, steps, values
        tapes = {
            "value": values.nodes,
            "vjp": Cotangents(*common, 1, v).nodes,
            "jvp": Tangents(*common, 1, u).nodes,
        }
        # From the inputs on, NaN does not get to entries that are zero in between, as it does the other way.
        tapes["plain"] = Cotangents(*common, n_outputs, GIVEN).nodes
        if packed.plan.waist is not None:
            tapes["jacobian"] = _from_waist(*common, packed.plan.waist)
        elif packed.plan.is_forward:
            tapes["jacobian"] = Tangents(*common, n_inputs, GIVEN).nodes
        products = arena.records(STEP, len(steps))
        for record, fields in zip(products, steps, strict=True):
            for name, value in fields.items():
                record[name] = value
        self._fill(layers, products, 0, 0)
        record = self.record
        record["x"], record["cotangent"], record["tangent"] = x, v, u
        record["output"] = values.at[id(packed.value)]
        offsets = np.arange(n_outputs) * n_inputs * packed.dtype.itemsize
        record["jac_rows"] = arena.integers(offsets)
        for name, found in tapes.items():
            record[f"{name}_tape"], record[f"n_{name}_tape"] = self._tape(found, values), len(found)
        if "jacobian" not in tapes:
            record["jacobian_tape"], record["n_jacobian_tape"] = record["plain_tape"], record["n_plain_tape"]

    def _tape(self, found: list[dict[str, Any]], values: Values) -> int:
        """Return the address of a tape's records."""
        records = self.arena.records(NODE, len(found))
        if found is values.nodes:
            values.address = int(records.ctypes.data)
        for record, fields in zip(records, found, strict=True):
            for name, value in fields.items():
                record[name] = value
            if fields.get("source") is not None:
                record["source"] = values.address + fields["source"] * NODE.itemsize
        return int(records.ctypes.data)


def _from_waist(
    packed: PackedGraph,
    arena: Arena,
    layers: Array,
    steps: list[dict[str, int]],
    values: Values,
    waist: Value,
) -> list[dict[str, Any]]:
    """Return the tape of a Jacobian that is made from a value on, to the inputs and to the outputs."""
    common = packed, arena, layers, steps, values, waist.size, GIVEN
    before, after = Cotangents(*common, stop=waist), Tangents(*common, start=waist)
    whole, n, m = packed.plain[waist.size], before.start.size, packed.value.size
    after.product(after.matrix(packed.value), whole, before.matrix(before.start), n, 0, m)
    return [*before.nodes, *after.nodes]
