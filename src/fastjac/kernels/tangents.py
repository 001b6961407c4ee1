"""Tapes that multiply derivatives through a graph from the inputs on."""

from __future__ import annotations

from fastjac.graph.values import (
    Add,
    Apply,
    Concatenate,
    Multiply,
    Normalise,
    Scale,
    Select,
    is_head,
)
from fastjac.kernels import operations
from fastjac.kernels.graphs import Unit
from fastjac.kernels.values import first_of_run
from fastjac.kernels.walks import GIVEN, Walk, whole_move


class Tangents(Walk):
    """From the inputs on: a matrix (rows, units) for each value, with a row for each direction."""

    def _lay_out(self) -> None:
        packed = self.packed
        for unit in self.units:
            if unit.value is self.start:
                self.matrices[id(unit.value)] = self.seed
            elif packed.has_weights(unit):
                self.matrices[id(unit.value)] = self._through_layer(unit)
            else:
                self.matrices[id(unit.value)] = self._through(unit)
        at, size = self.matrix(self.stop), self.stop.size
        if not self.is_whole:
            return
        if self.seed == GIVEN:
            self.node(operations.TRANSPOSE, first=at, size=size)
        else:
            self.move(**whole_move(at, size))

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
                self.move(**whole_move(sums, value.size), out=out, whole=value.size)
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
            self.move(**whole_move(first, size), out=out, whole=size)
            self.move(**whole_move(others[0], size), out=out, whole=size, adds=1)
        elif isinstance(operation, Multiply):
            a, b = (values.at[id(each)] for each in unit.inputs)
            part = self.new(size)
            self.node(operations.TIMES_SCALE, first=first, second=b, size=size, out=out)
            self.node(operations.TIMES_SCALE, first=others[0], second=a, size=size, out=part)
            self.move(**whole_move(part, size), out=out, whole=size, adds=1)
        elif isinstance(operation, Scale):
            factors = values.factors[id(value)]
            self.node(operations.TIMES_SCALE, first=first, second=factors, size=size, out=out)
        elif is_head(operation):
            self.move(**whole_move(first, size), out=out, whole=size)
            self.node(operations.HEAD_TIMES, layer=unit.layer, size=size, out=out)
        elif isinstance(operation, Apply):
            slopes = int(self.layers[unit.layer]["slope"])
            self.node(operations.TIMES_SCALE, first=first, second=slopes, size=size, out=out)
        elif isinstance(operation, Concatenate):
            to = 0
            for each, at in zip(unit.inputs, (first, *others), strict=True):
                self.move(**whole_move(at, each.size), out=out, to=to)
                to += each.size
        elif isinstance(operation, Select):
            start = first_of_run(operation.places)
            if start is not None:
                self.move(**whole_move(first, size), out=out, start=start)
            else:
                index = self.arena.integers(operation.places)
                self.node(operations.PICK, first=first, index=index, size=size, out=out)
        elif isinstance(operation, Normalise):
            y, number = values.at[id(value)], values.number[id(value)]
            self.node(operations.TIMES_NORMALISE, first=first, second=y, size=size, out=out, source=number)
        return out
