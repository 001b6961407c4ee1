"""The order in which a graph's Jacobian is multiplied out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from fastjac import notebook
from fastjac.graph.values import Add, Affine, Apply, Value, ordered

# What is done to an entry of a matrix beside products takes as long as so many multiply-adds.
_PER_ENTRY = 4


class _Way(NamedTuple):
    """A way to a Jacobian: its multiply-adds, what else it takes, and where it begins."""

    multiply_adds: int
    others: int
    is_forward: bool = False
    waist: Value | None = None


@dataclass(frozen=True, eq=False)
class GraphPlan:
    """How the Jacobian of a graph is multiplied out: from the outputs, the inputs, or a value between them.

    Parameters
    ----------
    value : Value
        What the network computes.

    Attributes
    ----------
    sizes : tuple of int
        Inputs, the entries of each value that is computed, outputs.

    Notes
    -----
    The best order for any graph is NP-complete to find (Griewank and Walther, Evaluating Derivatives, chapter
    10). These two take M or N multiply-adds for each weight, and none for a weight whose cotangents or
    tangents have ones on the diagonal. The other operations take M or N steps for each entry. A third way is
    open where all paths pass a value narrower than inputs and outputs: its cotangents back to the inputs, its
    tangents on to the outputs, and their product.
    """

    value: Value

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Inputs, the entries of each value that is computed, outputs."""
        values = self._values
        return values[0].size, *(value.size for value in values), self.value.size

    @cached_property
    def is_forward(self) -> bool:
        """Whether the Jacobian is made from the inputs on."""
        return self._chosen.is_forward

    @cached_property
    def waist(self) -> Value | None:
        """The value that the Jacobian is made from to both sides, None where it is made from one end."""
        return self._chosen.waist

    @cached_property
    def multiply_adds(self) -> int:
        """Multiply-adds of the Jacobian, all units active."""
        return self._chosen.multiply_adds

    @cached_property
    def _chosen(self) -> _Way:
        """The way that takes the fewest steps."""
        values = self._values
        others, n, m = _others(values), values[0].size, self.value.size
        ends = (
            _Way(self.reverse_multiply_adds, m * others),
            _Way(self.forward_multiply_adds, n * others, True),
        )
        return min((*ends, *self._from_waists()), key=lambda way: way.multiply_adds + way.others)

    def _from_waists(self) -> Iterator[_Way]:
        """Yield the ways from all values that every path passes, narrower than inputs and outputs.

        An affine map alone before its activation is none: both are computed together.
        """
        values = self._values
        n, m, others = values[0].size, self.value.size, _others(values)
        places = {id(value): i for i, value in enumerate(values)}
        last = [0] * len(values)  # Where the last reader of each value is.
        for i, value in enumerate(values):
            for before in value.inputs:
                last[places[id(before)]] = i
        weights = [0, *itertools.accumulate(_weights(value) for value in values)]  # of the values before each
        furthest = passed = 0
        for i, value in enumerate(values):
            if 0 < i < len(values) - 1 and furthest <= i:
                readers = values[i + 1 : last[i] + 1]
                is_fused = isinstance(value.operation, Affine) and isinstance(readers[-1].operation, Apply)
                if not is_fused and value.size < min(n, m):
                    # What takes no multiply-adds back from here lies behind the value passed before.
                    back = value.size * weights[passed] + _reverse(values[passed : i + 1])
                    weighted = sum(_weights(reader) for reader in readers if reader.inputs[0] is value)
                    on = value.size * (weights[-1] - weights[i + 1] - weighted)
                    steps = value.size * (others + _others([value]))
                    yield _Way(back + on + value.size * n * m, steps, waist=value)
                passed = i
            furthest = max(furthest, last[i])

    @cached_property
    def derivatives(self) -> int:
        """The numbers in all matrices that a call holds: one for each reader of a value.

        They have M rows from the outputs on, and there are N more where the Jacobian is made from the inputs,
        or as many as a value has entries where it is made from that.
        """
        values = self._values
        more = values[0].size if self.is_forward else self.waist.size if self.waist is not None else 0
        rows = self.value.size + more
        return rows * sum(before.size for value in values for before in value.inputs)

    @cached_property
    def reverse_multiply_adds(self) -> int:
        """Multiply-adds of pure reverse mode, from the outputs to the inputs."""
        return _reverse(self._values)

    @cached_property
    def forward_multiply_adds(self) -> int:
        """Multiply-adds of pure forward mode, from the inputs to the outputs."""
        return _forward(self._values)

    @cached_property
    def _values(self) -> list[Value]:
        return ordered(self.value)

    def __str__(self) -> str:
        """Return a table: the order, the multiply-adds of each layer, and those of both modes."""
        title, rows = self._table()
        lines = [f"order    {title}"]
        lines += [f"step     {name}: {size} = {count} multiply-adds" for name, size, count in rows]
        lines.append(f"total    {self.multiply_adds:,} multiply-adds")
        lines.append(f"reverse  {self.reverse_multiply_adds:,}")
        lines.append(f"forward  {self.forward_multiply_adds:,}")
        return "\n".join(lines)

    def _table(self) -> tuple[str, list[tuple[str, str, str]]]:
        """Return the direction, and a row for each product: its factors, sizes and multiply-adds."""
        values, n, m = self._values, self._values[0].size, self.value.size
        weights = [value.operation.w for value in values if isinstance(value.operation, Affine)]
        side = self.waist.size if self.waist is not None else n if self.is_forward else m
        rows = [
            (f"W{i}", f"{side} x {w.shape[0]} x {w.shape[1]}", f"{side * w.size:,}")
            for i, w in enumerate(weights, 1)
        ]
        if self.waist is not None:
            rows.append(("both", f"{m} x {side} x {n}", f"{m * side * n:,}"))
            return f"from a value of {side} to both sides", rows
        title = "from the inputs on" if self.is_forward else "from the outputs on"
        return title, rows if self.is_forward else rows[::-1]

    def _repr_html_(self) -> str:
        title, rows = self._table()
        total = f"{self.multiply_adds:,} multiply-adds, {title}"
        pure = f"reverse mode: {self.reverse_multiply_adds:,}, forward mode: {self.forward_multiply_adds:,}"
        return notebook.table(f"Plan: {total}", ["weights", "size", "multiply-adds"], rows, pure)


def _weights(value: Value) -> int:
    return value.operation.w.size if isinstance(value.operation, Affine) else 0


def _others(values: list[Value]) -> int:
    """Return what each row of derivatives takes beside products, in multiply-adds."""
    return _PER_ENTRY * sum(value.size for value in values if not isinstance(value.operation, Affine))


def _reverse(values: list[Value]) -> int:
    """Return the multiply-adds from the last value to the first."""
    last = values[-1]
    readers: dict[int, list[Value]] = {id(last): []}
    for reader in values[1:]:
        for value in reader.inputs:
            readers.setdefault(id(value), []).append(reader)
    is_unit: dict[int, bool] = {}
    total = 0
    for value in reversed(values):
        found = readers[id(value)]
        passed = [is_unit[id(reader)] and isinstance(reader.operation, Add) for reader in found]
        is_unit[id(value)] = not found or passed == [True]
        # An activation alone between an affine map and the output multiplies the weights themselves.
        is_last = len(found) == 1 and found[0] is last and isinstance(last.operation, Apply)
        if isinstance(value.operation, Affine) and not (is_unit[id(value)] or is_last):
            total += last.size * value.operation.w.size
    return total


def _forward(values: list[Value]) -> int:
    """Return the multiply-adds from the first value to the last."""
    first, *others = values
    return first.size * sum(_weights(value) for value in others if value.inputs[0] is not first)
