"""Lays a graph out for the kernels: which operations they carry out, in which order, and in which memory.

A tape is a sequence of `NODE` records. One computes the values. Three compute derivatives: of one cotangent,
of one tangent, and the Jacobian. The Jacobian goes from the outputs or from the inputs, whichever takes fewer
multiply-adds.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastjac.graph.plan import GraphPlan
from fastjac.graph.values import (
    Add,
    Affine,
    Apply,
    Concatenate,
    Input,
    Multiply,
    Normalise,
    Scale,
    Select,
    Value,
    is_head,
    ordered,
)
from fastjac.kernels import nodes
from fastjac.kernels.context import CONTEXT, NODE, STEP, Arena, Context
from fastjac.kernels.packing import pack_panels
from fastjac.kernels.target import Target
from fastjac.layers import Activation, Layer

Array = NDArray[Any]
IDENTITY = Activation("identity")
GIVEN = -1  # Stands for the matrix with ones on its diagonal, which is made only where it must be.


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

    raw = False

    def __init__(self, value: Value, plan: GraphPlan, dtype: np.dtype[Any], target: Target) -> None:
        self.value, self.plan, self.dtype, self.target = value, plan, dtype, target
        self.layers: list[Layer] = []
        self.units: list[Unit] = []
        self.others: list[tuple[Activation, int]] = []  # Layers without weights: activation and size.
        self._find_units()
        count = len(self.layers)
        self.forward = [False] * count
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
        self.across = [pack(layer.w, False) for layer in self.layers if plan.is_forward]

    @property
    def arrays(self) -> list[Array]:
        """All arrays of weights, each once."""
        found = [*self.weights, *self.rows.values(), *self.across]
        return list({array.ctypes.data: array for array in found}.values())

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
            if 0 <= unit.layer < len(self.layers) and self.layers[unit.layer].activation.name == "relu"
        }
        skips = [0] * len(self.layers)
        for unit in self.units:
            if 0 <= unit.layer < len(self.layers) and np.isfinite(self.layers[unit.layer].w).all():
                skips[unit.layer] = unit.layer - relu.get(id(unit.inputs[0]), unit.layer)
        return skips


class GraphContext(Context):
    """What a call of a graph hands to the kernels."""

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
        values = _Values(self, layers, x)
        tapes = {
            "value": values.nodes,
            "vjp": _Cotangents(self, layers, steps, values, 1, v).nodes,
            "jvp": _Tangents(self, layers, steps, values, 1, u).nodes,
        }
        # From the inputs on, NaN does not get to entries that are zero in between, as it does the other way.
        tapes["plain"] = _Cotangents(self, layers, steps, values, n_outputs, GIVEN).nodes
        if packed.plan.is_forward:
            tapes["jacobian"] = _Tangents(self, layers, steps, values, n_inputs, GIVEN).nodes
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
        if not packed.plan.is_forward:
            record["jacobian_tape"], record["n_jacobian_tape"] = record["plain_tape"], record["n_plain_tape"]

    def _tape(self, found: list[dict[str, Any]], values: _Values) -> int:
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


class _Values:
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

    def __init__(self, context: Context, layers: Array, x: int) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.at: dict[int, int] = {}
        self.number: dict[int, int] = {}
        self.factors: dict[int, int] = {}  # The vector of each scaled value's factors.
        self._ones: dict[int, int] = {}
        self._arena, self._layers = context.arena, layers
        packed: PackedGraph = context._packed  # type: ignore[assignment]
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
        self._node(nodes.AFFINE, layer=i, size=value.size, first=self.at[id(unit.inputs[0])])
        self.at[id(value)] = int(self._layers[i]["a"])
        if is_head(value.operation):
            self._add_head(unit)

    def _add_head(self, unit: Unit) -> None:
        self._layers[unit.layer]["shares"] = self._arena.vector(unit.value.size)
        out = self.at[id(unit.value)] = self._arena.vector(unit.value.size)
        self._node(nodes.HEAD, layer=unit.layer, size=unit.value.size, out=out)

    def _add_other(self, unit: Unit) -> None:
        """Add an activation, or a softmax, of a value that no affine map makes."""
        layer, size = self._layers[unit.layer], unit.value.size
        first, a = self.at[id(unit.inputs[0])], int(layer["a"])
        if is_head(unit.value.operation):
            self._node(nodes.COPY, size=size, first=first, out=a)
            self._add_head(unit)
        else:
            self._node(nodes.APPLY, layer=unit.layer, size=size, first=first)
            self.at[id(unit.value)] = a

    def _add_operation(self, unit: Unit) -> None:
        value, operation, size = unit.value, unit.value.operation, unit.value.size
        first, *others = (self.at[id(each)] for each in unit.inputs)
        out = self.at[id(value)] = self._arena.vector(size)
        if isinstance(operation, (Add, Multiply)):
            kind = nodes.ADD if isinstance(operation, Add) else nodes.MULTIPLY
            self._node(kind, size=size, first=first, second=others[0], out=out)
        elif isinstance(operation, Scale):
            factor, shift = (self._arena.vector(size, array) for array in operation)
            self._node(nodes.SCALE, size=size, first=first, second=factor, index=shift, out=out)
            self.factors[id(value)] = factor
        elif isinstance(operation, Concatenate):
            to = 0
            for part in unit.inputs:
                self._node(nodes.COPY, size=part.size, first=self.at[id(part)], out=out, to=to)
                to += part.size
        elif isinstance(operation, Select):
            start = first_of_run(operation.places)
            if start is not None:
                self._node(nodes.COPY, size=size, first=first, start=start, out=out)
            else:
                index = self._arena.integers(operation.places)
                self._node(
                    nodes.GATHER, size=size, rows=unit.inputs[0].size, first=first, index=index, out=out
                )
        elif isinstance(operation, Normalise):
            self.number[id(value)] = len(self.nodes)
            centre = self.one(size) if operation.centred else 0
            epsilon = operation.epsilon
            self._node(nodes.NORMALISE, size=size, first=first, second=centre, out=out, epsilon=epsilon)
        else:
            raise TypeError(f"no operation of the kernels for {type(operation).__name__}")


def first_of_run(places: NDArray[np.intp]) -> int | None:
    """Return the first of consecutive places, None if they are none."""
    first = int(places[0])
    return first if np.array_equal(places, np.arange(first, first + places.size)) else None


class _Walk:
    """A tape that multiplies derivatives through a graph.

    Attributes
    ----------
    nodes : list of dict
        Fields of the records.
    matrices : dict of int to int
        The address of each value's matrix, by its id; `GIVEN` for ones on the diagonal.
    """

    def __init__(
        self,
        context: GraphContext,
        layers: Array,
        steps: list[dict[str, int]],
        values: _Values,
        rows: int,
        seed: int,
    ) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.matrices: dict[int, int] = {}
        self.packed, self.arena = context._packed, context.arena
        self.layers, self.steps, self.values, self.rows, self.seed = layers, steps, values, rows, seed
        self._diagonal = 0
        self._lay_out()

    def _lay_out(self) -> None:
        raise NotImplementedError

    def node(self, operation: int, **fields: int | float | None) -> None:
        self.nodes.append({"operation": operation, "rows": self.rows, **fields})

    def new(self, cols: int) -> int:
        """Return the address of a new matrix."""
        return self.arena.panels(self.rows, cols)

    def matrix(self, value: Value) -> int:
        """Return the address of a value's matrix, which is made where it has ones on the diagonal."""
        at = self.matrices[id(value)]
        return self.diagonal() if at == GIVEN else at

    def diagonal(self) -> int:
        """Return the address of the matrix with ones on its diagonal."""
        if not self._diagonal:
            self._diagonal = self.new(self.rows)
            array, width = self.arena.arrays[-1], self.packed.target.panel_width(self.packed.dtype)
            for i in range(self.rows):
                array[(i // width * self.rows + i) * width + i % width] = 1
        return self._diagonal

    def move(
        self, operation: int, first: int, size: int, out: int = 0, whole: int = 0, **fields: Any
    ) -> None:
        """Add the copying or adding of columns; a copy of ``whole`` panels takes what fills them up along."""
        if (
            out
            and size == whole
            and operation == nodes.MOVE
            and not (fields.get("start") or fields.get("adds"))
        ):
            size = self.packed.target.padded(size, self.packed.dtype)
        self.node(operation, first=first, size=size, out=out, **fields)

    def product(self, scalar: int, layer: int, panels: int, cols: int, out: int) -> None:
        """Add the product of a matrix, times the slopes of a layer, and panels (units, cols)."""
        self.steps.append(
            {"layer": layer, "scalar": scalar, "m": self.rows, "vector": panels, "n": cols, "out": out}
        )
        self.node(nodes.PRODUCT, step=len(self.steps) - 1, size=cols, out=out)


class _Cotangents(_Walk):
    """From the outputs on: a matrix (rows, units) for each value, to which all that read it add."""

    def _lay_out(self) -> None:
        packed = self.packed
        self._own: set[int] = set()  # Ids of the values that have a matrix of their own.
        self._waiting: list[dict[str, Any]] = []
        self.matrices[id(packed.value)] = self.seed
        for unit in reversed(packed.units):
            if isinstance(unit.value.operation, Input):
                self._finish(unit.value)
            elif 0 <= unit.layer < len(packed.layers):
                self._through_layer(unit)
            else:
                self._through(unit)

    def _through_layer(self, unit: Unit) -> None:
        (before,), i, value = unit.inputs, unit.layer, unit.value
        at, layer = self.matrices[id(value)], i
        if at == GIVEN:
            self._give(before, nodes.HEAD_TIMES_W, layer=i)
            return
        if is_head(value.operation):
            at, layer = self.new(value.size), self.packed.plain[value.size]
            self._emit(value, self._times_head(unit), at, is_first=True)
        self._give(before, nodes.PRODUCT, scalar=at, layer=layer, vector=int(self.layers[i]["w"]))

    def _times_head(self, unit: Unit) -> dict[str, Any]:
        ones, first = self.values.one(unit.value.size), self.matrix(unit.value)
        return {"operation": nodes.TIMES_HEAD, "layer": unit.layer, "first": first, "index": ones}

    def _through(self, unit: Unit) -> None:
        value, operation = unit.value, unit.value.operation
        first, values = unit.inputs[0], self.values
        if isinstance(operation, Add):
            for each in unit.inputs:
                self._give(each, nodes.MOVE, first=self.matrices[id(value)], size=value.size)
            return
        at = self.matrix(value)
        if isinstance(operation, Multiply):
            for each, other in (unit.inputs, unit.inputs[::-1]):
                self._give(each, nodes.TIMES_SCALE, first=at, second=values.at[id(other)])
        elif isinstance(operation, Scale):
            self._give(first, nodes.TIMES_SCALE, first=at, second=values.factors[id(value)])
        elif is_head(operation):
            self._give(first, **self._times_head(unit))
        elif isinstance(operation, Apply):
            self._give(first, nodes.TIMES_SCALE, first=at, second=int(self.layers[unit.layer]["slope"]))
        elif isinstance(operation, Concatenate):
            start = 0
            for part in unit.inputs:
                self._give(part, nodes.MOVE, first=at, start=start, size=part.size)
                start += part.size
        elif isinstance(operation, Select):
            to = first_of_run(operation.places)
            if to is not None:
                self._give(first, nodes.MOVE, first=at, to=to, size=value.size)
            else:
                index = self.arena.integers(operation.places)
                self._give(first, nodes.SPREAD, first=at, index=index, size=value.size)
        elif isinstance(operation, Normalise):
            y, number = values.at[id(value)], values.number[id(value)]
            self._give(first, nodes.TIMES_NORMALISE, first=at, second=y, source=number)

    def _give(self, value: Value, operation: int, **fields: Any) -> None:
        """Add what a reader of ``value`` has to its matrix; for the input that waits until all are known."""
        fields["operation"] = operation
        at = self.matrices.get(id(value))
        if isinstance(value.operation, Input):
            self._waiting.append(fields)
        elif at is None and _is_whole(fields, value.size):
            self.matrices[id(value)] = fields["first"]  # The same matrix, until something is added.
        elif at is None:
            self._emit(value, fields, self._new_own(value), is_first=True)
        else:
            if id(value) not in self._own:
                whole = self.matrix(value)
                self._emit(value, _move(whole, value.size), self._new_own(value), is_first=True)
            self._emit(value, fields, self.matrices[id(value)], is_first=False)

    def _new_own(self, value: Value) -> int:
        out = self.matrices[id(value)] = self.new(value.size)
        self._own.add(id(value))
        return out

    def _finish(self, value: Value) -> None:
        """Write the result: the matrix of the input, products first."""
        if id(value) in self.matrices:  # The network is its input.
            self._waiting.append(_move(self.matrices[id(value)], value.size))
        for number, fields in enumerate(sorted(self._waiting, key=_rank)):
            self._emit(value, fields, 0, is_first=number == 0)

    def _emit(self, value: Value, fields: dict[str, Any], out: int, is_first: bool) -> None:
        """Add the operations that write or add something to a value's matrix, or to the result."""
        operation, size = fields["operation"], value.size
        fields = {"size": size, **fields}
        if fields.get("first") == GIVEN:
            fields["first"] = self.diagonal()
        if operation in (nodes.MOVE, nodes.SPREAD):
            is_whole = operation == nodes.MOVE and fields["size"] == size
            if is_first and not is_whole:
                self.node(nodes.CLEAR, size=size, out=out)
            self.move(out=out, adds=not (is_first and is_whole), whole=size, **fields)
            return
        # Panels can be written directly, the result by a product alone.
        to = out if is_first and (out or operation == nodes.PRODUCT) else self.new(size)
        if operation == nodes.PRODUCT:
            self.product(fields["scalar"], fields["layer"], fields["vector"], size, to)
        else:
            self.node(**fields, out=to)
        if to != out:
            self.move(**_move(to, size), out=out, adds=not is_first, whole=size)


def _move(first: int, size: int) -> dict[str, Any]:
    return {"operation": nodes.MOVE, "first": first, "size": size}


def _is_whole(fields: dict[str, Any], size: int) -> bool:
    """Return whether a move copies all columns of one matrix to another."""
    return fields["operation"] == nodes.MOVE and fields["size"] == size and not fields.get("start")


def _rank(fields: dict[str, Any]) -> int:
    """Return in which order the result is added up: a product first, which can write to it."""
    operation = fields["operation"]
    return 0 if operation == nodes.PRODUCT else 2 if operation == nodes.SPREAD else 1


class _Tangents(_Walk):
    """From the inputs on: a matrix (rows, units) for each value, with a row for each direction."""

    def _lay_out(self) -> None:
        packed = self.packed
        for unit in packed.units:
            if isinstance(unit.value.operation, Input):
                self.matrices[id(unit.value)] = self.seed
            elif 0 <= unit.layer < len(packed.layers):
                self.matrices[id(unit.value)] = self._through_layer(unit)
            else:
                self.matrices[id(unit.value)] = self._through(unit)
        at, size = self.matrix(packed.value), packed.value.size
        if self.seed == GIVEN:
            self.node(nodes.TRANSPOSE, first=at, size=size)
        else:
            self.move(**_move(at, size))

    def _through_layer(self, unit: Unit) -> int:
        (before,), i, value = unit.inputs, unit.layer, unit.value
        layer, at = self.layers[i], self.matrices[id(before)]
        out = sums = self.new(value.size)
        if at == GIVEN:
            sums = int(layer["across"])  # With ones on the diagonal, the weights are the product.
        elif self.seed != GIVEN:
            self.node(nodes.TIMES_W, layer=i, first=at, size=value.size, out=out)
        else:
            self.product(at, self.packed.plain[before.size], int(layer["across"]), value.size, out)
        if is_head(value.operation):
            if sums != out:
                self.move(**_move(sums, value.size), out=out, whole=value.size)
            self.node(nodes.HEAD_TIMES, layer=i, size=value.size, out=out)
        elif isinstance(value.operation, Apply):
            self.node(nodes.TIMES_SCALE, first=sums, second=int(layer["slope"]), size=value.size, out=out)
        else:
            return sums
        return out

    def _through(self, unit: Unit) -> int:
        value, operation, size = unit.value, unit.value.operation, unit.value.size
        first, *others = (self.matrix(each) for each in unit.inputs)
        values, out = self.values, self.new(size)
        if isinstance(operation, Add):
            self.move(**_move(first, size), out=out, whole=size)
            self.move(**_move(others[0], size), out=out, whole=size, adds=1)
        elif isinstance(operation, Multiply):
            a, b = (values.at[id(each)] for each in unit.inputs)
            part = self.new(size)
            self.node(nodes.TIMES_SCALE, first=first, second=b, size=size, out=out)
            self.node(nodes.TIMES_SCALE, first=others[0], second=a, size=size, out=part)
            self.move(**_move(part, size), out=out, whole=size, adds=1)
        elif isinstance(operation, Scale):
            factors = values.factors[id(value)]
            self.node(nodes.TIMES_SCALE, first=first, second=factors, size=size, out=out)
        elif is_head(operation):
            self.move(**_move(first, size), out=out, whole=size)
            self.node(nodes.HEAD_TIMES, layer=unit.layer, size=size, out=out)
        elif isinstance(operation, Apply):
            slopes = int(self.layers[unit.layer]["slope"])
            self.node(nodes.TIMES_SCALE, first=first, second=slopes, size=size, out=out)
        elif isinstance(operation, Concatenate):
            to = 0
            for each, at in zip(unit.inputs, (first, *others), strict=True):
                self.move(**_move(at, each.size), out=out, to=to)
                to += each.size
        elif isinstance(operation, Select):
            start = first_of_run(operation.places)
            if start is not None:
                self.move(**_move(first, size), out=out, start=start)
            else:
                index = self.arena.integers(operation.places)
                self.node(nodes.PICK, first=first, index=index, size=size, out=out)
        elif isinstance(operation, Normalise):
            y, number = values.at[id(value)], values.number[id(value)]
            self.node(nodes.TIMES_NORMALISE, first=first, second=y, size=size, out=out, source=number)
        return out
