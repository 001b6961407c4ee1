"""Tapes that multiply derivatives through a graph from the outputs on."""

from __future__ import annotations

from collections import Counter
from typing import Any

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
from fastjac.kernels.graphs import Unit
from fastjac.kernels.layout import UNSCALED
from fastjac.kernels.values import first_of_run
from fastjac.kernels.walks import GIVEN, Walk, whole_move


class Cotangents(Walk):
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
            if packed.has_weights(unit)
            and uses[id(unit.value)] == 1
            and not is_head(unit.value.operation)
            and packed.layers[unit.layer].activation.name not in UNSCALED
        }
        self._scaled: set[int] = set()  # Ids of those whose matrix has been multiplied.
        self._waiting: list[dict[str, Any]] = []
        self.matrices[id(self.stop)] = self.seed
        for unit in reversed(self.units):
            if unit.value is self.start:
                self._finish(unit.value)
            elif packed.has_weights(unit):
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
                self._emit(value, whole_move(whole, value.size), self._new_own(value), is_first=True)
            self._emit(value, fields, self.matrices[id(value)], is_first=False)

    def _new_own(self, value: Value) -> int:
        out = self.matrices[id(value)] = self.new(value.size)
        self._own.add(id(value))
        return out

    def _finish(self, value: Value) -> None:
        """Write the matrix of the first value, which the result is of the input, products first."""
        if id(value) in self.matrices:  # The network is its input.
            self._waiting.append(whole_move(self.matrices[id(value)], value.size))
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
        gain = self._layer_of.get(id(value), -1)
        if gain >= 0 and operation in (operations.PRODUCT, operations.HEAD_TIMES_W):
            self._scaled.add(id(value))
        if operation == operations.PRODUCT:
            of = fields["scalar"], fields["layer"], fields["vector"]
            self.product(*of, size, to, scaled=fields["scaled"], gain=gain)
        elif operation == operations.HEAD_TIMES_W:
            self.node(**fields, out=to, second=int(self.layers[gain]["slope"]) if gain >= 0 else 0)
        else:
            self.node(**fields, out=to)
        if to != out:
            self.move(**whole_move(to, size), out=out, adds=not is_first, whole=size)


def _is_whole(fields: dict[str, Any], size: int) -> bool:
    """Return whether a move copies all columns of one matrix to another."""
    return fields["operation"] == operations.MOVE and fields["size"] == size and not fields.get("start")


def _rank(fields: dict[str, Any]) -> int:
    """Return in which order the result is added up: a product first, which can write to it."""
    operation = fields["operation"]
    return 0 if operation == operations.PRODUCT else 2 if operation == operations.SPREAD else 1
