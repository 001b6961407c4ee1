"""Tapes that multiply derivatives through a graph, from the outputs or from the inputs on."""

from __future__ import annotations

from collections import Counter
from typing import Any

from numpy.typing import NDArray

from fastjac.graph.values import (
    Add,
    Apply,
    Concatenate,
    Multiply,
    Normalise,
    Scale,
    Select,
    Value,
    is_head,
)
from fastjac.kernels import operations
from fastjac.kernels.context import Arena
from fastjac.kernels.graphs import PackedGraph, Unit
from fastjac.kernels.values import Values, first_of_run

Array = NDArray[Any]
GIVEN = -1  # Stands for the matrix with ones on its diagonal, which is made only where it must be.


class _Walk:
    """A tape that multiplies derivatives through a graph, or from a value that all paths pass to another.

    It ends with the result or, of a part of a graph, with the matrix of the value where it ends.

    Attributes
    ----------
    nodes : list of dict
        Fields of the records.
    matrices : dict of int to int
        The address of each value's matrix, by its id; `GIVEN` for ones on the diagonal.
    """

    def __init__(
        self,
        packed: PackedGraph,
        arena: Arena,
        layers: Array,
        steps: list[dict[str, int]],
        values: Values,
        rows: int,
        seed: int,
        start: Value | None = None,
        stop: Value | None = None,
    ) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.matrices: dict[int, int] = {}
        self.packed, self.arena = packed, arena
        self.layers, self.steps, self.values, self.rows, self.seed = layers, steps, values, rows, seed
        self._diagonal = 0
        places = {id(unit.value): i for i, unit in enumerate(packed.units)}
        self.start, self.stop = start or packed.units[0].value, stop or packed.value
        self.is_whole = start is stop is None
        self.units = packed.units[places[id(self.start)] : places[id(self.stop)] + 1]
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
            and operation == operations.MOVE
            and not (fields.get("start") or fields.get("adds"))
        ):
            size = self.packed.target.padded(size, self.packed.dtype)
        self.node(operation, first=first, size=size, out=out, **fields)

    def product(
        self,
        scalar: int,
        layer: int,
        panels: int,
        cols: int,
        out: int,
        transposed_rows: int = 0,
        scaled: bool = False,
        gain: int = -1,
    ) -> None:
        """Add the product of a matrix, times the slopes of a layer, and panels (units, cols).

        With ``transposed_rows`` the matrix is (units, transposed_rows). With ``scaled`` it has been
        multiplied by the slopes before. The columns of the product are multiplied by those of layer ``gain``,
        if that is not -1.
        """
        rows, transposed = transposed_rows or self.rows, int(transposed_rows > 0)
        step = {"layer": layer, "scalar": scalar, "scalar_transposed": transposed, "m": rows}
        self.steps.append({**step, "vector": panels, "n": cols, "out": out, "scaled": scaled, "gain": gain})
        self.node(operations.PRODUCT, step=len(self.steps) - 1, size=cols, out=out)


class Cotangents(_Walk):
    """From the outputs on: a matrix (rows, units) for each value, to which all that read it add."""

    def _lay_out(self) -> None:
        packed = self.packed
        self._own: set[int] = set()  # Ids of the values that have a matrix of their own.
        # Ids of values of a layer that one other value reads -> the layer, whose slopes multiply the matrix
        # as it is written.
        uses = Counter(id(each) for unit in self.units for each in unit.inputs)
        self._layer_of = {
            id(unit.value): unit.layer
            for unit in self.units
            if 0 <= unit.layer < len(packed.layers)
            and uses[id(unit.value)] == 1
            and not is_head(unit.value.operation)
            and packed.layers[unit.layer].activation.name not in ("relu", "identity")
        }
        self._scaled: set[int] = set()  # Ids of those whose matrix has been multiplied.
        self._waiting: list[dict[str, Any]] = []
        self.matrices[id(self.stop)] = self.seed
        for unit in reversed(self.units):
            if unit.value is self.start:
                self._finish(unit.value)
            elif 0 <= unit.layer < len(packed.layers):
                self._through_layer(unit)
            else:
                self._through(unit)

    def _through_layer(self, unit: Unit) -> None:
        (before,), i, value = unit.inputs, unit.layer, unit.value
        at, layer = self.matrices[id(value)], i
        if at == GIVEN:
            self._give(before, operations.HEAD_TIMES_W, layer=i)
            return
        if is_head(value.operation):
            at, layer = self.new(value.size), self.packed.plain[value.size]
            self._emit(value, self._times_head(unit), at, is_first=True)
        w, scaled = int(self.layers[i]["w"]), id(value) in self._scaled
        self._give(before, operations.PRODUCT, scalar=at, layer=layer, vector=w, scaled=scaled)

    def _times_head(self, unit: Unit) -> dict[str, Any]:
        ones, first = self.values.one(unit.value.size), self.matrix(unit.value)
        return {"operation": operations.TIMES_HEAD, "layer": unit.layer, "first": first, "index": ones}

    def _through(self, unit: Unit) -> None:
        value, operation = unit.value, unit.value.operation
        first, values = unit.inputs[0], self.values
        if isinstance(operation, Add):
            for each in unit.inputs:
                self._give(each, operations.MOVE, first=self.matrices[id(value)], size=value.size)
            return
        at = self.matrix(value)
        if isinstance(operation, Multiply):
            for each, other in (unit.inputs, unit.inputs[::-1]):
                self._give(each, operations.TIMES_SCALE, first=at, second=values.at[id(other)])
        elif isinstance(operation, Scale):
            self._give(first, operations.TIMES_SCALE, first=at, second=values.factors[id(value)])
        elif is_head(operation):
            self._give(first, **self._times_head(unit))
        elif isinstance(operation, Apply):
            self._give(first, operations.TIMES_SCALE, first=at, second=int(self.layers[unit.layer]["slope"]))
        elif isinstance(operation, Concatenate):
            start = 0
            for part in unit.inputs:
                self._give(part, operations.MOVE, first=at, start=start, size=part.size)
                start += part.size
        elif isinstance(operation, Select):
            to = first_of_run(operation.places)
            if to is not None:
                self._give(first, operations.MOVE, first=at, to=to, size=value.size)
            else:
                index = self.arena.integers(operation.places)
                self._give(first, operations.SPREAD, first=at, index=index, size=value.size)
        elif isinstance(operation, Normalise):
            y, number = values.at[id(value)], values.number[id(value)]
            self._give(first, operations.TIMES_NORMALISE, first=at, second=y, source=number)

    def _give(self, value: Value, operation: int, **fields: Any) -> None:
        """Add what a reader of ``value`` has to its matrix; for the first that waits until all are known."""
        fields["operation"] = operation
        at = self.matrices.get(id(value))
        if value is self.start:
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
        """Write the matrix of the first value, which the result is of the input, products first."""
        if id(value) in self.matrices:  # The network is its input.
            self._waiting.append(_move(self.matrices[id(value)], value.size))
        out = 0 if self.is_whole else self._new_own(value)
        for number, fields in enumerate(sorted(self._waiting, key=_rank)):
            self._emit(value, fields, out, is_first=number == 0)

    def _emit(self, value: Value, fields: dict[str, Any], out: int, is_first: bool) -> None:
        """Add the operations that write or add something to a value's matrix, or to the result."""
        operation, size = fields["operation"], value.size
        fields = {"size": size, **fields}
        if fields.get("first") == GIVEN:
            fields["first"] = self.diagonal()
        if operation in (operations.MOVE, operations.SPREAD):
            is_whole = operation == operations.MOVE and fields["size"] == size
            if is_first and not is_whole:
                self.node(operations.CLEAR, size=size, out=out)
            self.move(out=out, adds=not (is_first and is_whole), whole=size, **fields)
            return
        # Panels can be written directly, the result by a product alone.
        to = out if is_first and (out or operation == operations.PRODUCT) else self.new(size)
        gain = -1
        if (
            to == out
            and value is not self.start
            and operation in (operations.PRODUCT, operations.HEAD_TIMES_W)
        ):
            gain = self._layer_of.get(id(value), -1)
        if gain >= 0:
            self._scaled.add(id(value))
        if operation == operations.PRODUCT:
            of = fields["scalar"], fields["layer"], fields["vector"]
            self.product(*of, size, to, scaled=fields["scaled"], gain=gain)
        elif operation == operations.HEAD_TIMES_W:
            self.node(**fields, out=to, second=int(self.layers[gain]["slope"]) if gain >= 0 else 0)
        else:
            self.node(**fields, out=to)
        if to != out:
            self.move(**_move(to, size), out=out, adds=not is_first, whole=size)


def _move(first: int, size: int) -> dict[str, Any]:
    return {"operation": operations.MOVE, "first": first, "size": size}


def _is_whole(fields: dict[str, Any], size: int) -> bool:
    """Return whether a move copies all columns of one matrix to another."""
    return fields["operation"] == operations.MOVE and fields["size"] == size and not fields.get("start")


def _rank(fields: dict[str, Any]) -> int:
    """Return in which order the result is added up: a product first, which can write to it."""
    operation = fields["operation"]
    return 0 if operation == operations.PRODUCT else 2 if operation == operations.SPREAD else 1


class Tangents(_Walk):
    """From the inputs on: a matrix (rows, units) for each value, with a row for each direction."""

    def _lay_out(self) -> None:
        packed = self.packed
        for unit in self.units:
            if unit.value is self.start:
                self.matrices[id(unit.value)] = self.seed
            elif 0 <= unit.layer < len(packed.layers):
                self.matrices[id(unit.value)] = self._through_layer(unit)
            else:
                self.matrices[id(unit.value)] = self._through(unit)
        at, size = self.matrix(self.stop), self.stop.size
        if not self.is_whole:
            return
        if self.seed == GIVEN:
            self.node(operations.TRANSPOSE, first=at, size=size)
        else:
            self.move(**_move(at, size))

    def _through_layer(self, unit: Unit) -> int:
        (before,), i, value = unit.inputs, unit.layer, unit.value
        layer, at = self.layers[i], self.matrices[id(before)]
        out = sums = self.new(value.size)
        if at == GIVEN:
            sums = int(layer["across"])  # With ones on the diagonal, the weights are the product.
        elif self.seed != GIVEN:
            self.node(operations.TIMES_W, layer=i, first=at, size=value.size, out=out)
        else:
            gain = i if isinstance(value.operation, Apply) and not is_head(value.operation) else -1
            self.product(at, self.packed.plain[before.size], int(layer["across"]), value.size, out, gain=gain)
            if gain >= 0:
                return out
        if is_head(value.operation):
            if sums != out:
                self.move(**_move(sums, value.size), out=out, whole=value.size)
            self.node(operations.HEAD_TIMES, layer=i, size=value.size, out=out)
        elif isinstance(value.operation, Apply):
            self.node(
                operations.TIMES_SCALE, first=sums, second=int(layer["slope"]), size=value.size, out=out
            )
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
            self.node(operations.TIMES_SCALE, first=first, second=b, size=size, out=out)
            self.node(operations.TIMES_SCALE, first=others[0], second=a, size=size, out=part)
            self.move(**_move(part, size), out=out, whole=size, adds=1)
        elif isinstance(operation, Scale):
            factors = values.factors[id(value)]
            self.node(operations.TIMES_SCALE, first=first, second=factors, size=size, out=out)
        elif is_head(operation):
            self.move(**_move(first, size), out=out, whole=size)
            self.node(operations.HEAD_TIMES, layer=unit.layer, size=size, out=out)
        elif isinstance(operation, Apply):
            slopes = int(self.layers[unit.layer]["slope"])
            self.node(operations.TIMES_SCALE, first=first, second=slopes, size=size, out=out)
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
                self.node(operations.PICK, first=first, index=index, size=size, out=out)
        elif isinstance(operation, Normalise):
            y, number = values.at[id(value)], values.number[id(value)]
            self.node(operations.TIMES_NORMALISE, first=first, second=y, size=size, out=out, source=number)
        return out


def from_waist(
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
