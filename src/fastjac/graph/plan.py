"""The order in which a graph's Jacobian is multiplied out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from fastjac import notebook
from fastjac.graph.values import Add, Affine, Apply, Value, ordered

# What is done to an entry of a matrix beside products takes as long as so many multiply-adds.
_PER_ENTRY = 4


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
        return self._chosen[1:] == (True, None)

    @cached_property
    def waist(self) -> Value | None:
        """The value that the Jacobian is made from to both sides, None where it is made from one end."""
        return self._chosen[2]

    @cached_property
    def multiply_adds(self) -> int:
        """Multiply-adds of the Jacobian, all units active."""
        if self.waist is not None:
            return self._from_waist(self.waist)[0]
        return self.forward_multiply_adds if self.is_forward else self.reverse_multiply_adds

    @cached_property
    def _chosen(self) -> tuple[int, bool, Value | None]:
        """The steps that it takes, and the direction or the value that takes the fewest."""
        values = self._values
        others = _others(values)
        n, m = values[0].size, self.value.size
        ways: list[tuple[int, bool, Value | None]] = [
            (self.reverse_multiply_adds + m * others, False, None),
            (self.forward_multiply_adds + n * others, True, None),
        ]
        ways += [(sum(self._from_waist(waist)), False, waist) for waist in self._waists()]
        return min(ways, key=lambda way: way[0])

    def _waists(self) -> list[Value]:
        """Return all values that every path passes and that are narrower than inputs and outputs.

        An affine map alone before its activation is none: both are computed together.
        """
        values = self._values
        places = {id(value): i for i, value in enumerate(values)}
        last = [0] * len(values)
        for value in values:
            for before in value.inputs:
                last[places[id(before)]] = max(last[places[id(before)]], places[id(value)])
        found, furthest = [], 0
        for i, value in enumerate(values):
            is_passed = furthest <= i and 0 < i < len(values) - 1
            is_fused = isinstance(value.operation, Affine) and isinstance(values[last[i]].operation, Apply)
            if is_passed and not is_fused and value.size < min(values[0].size, self.value.size):
                found.append(value)
            furthest = max(furthest, last[i])
        return found

    def _from_waist(self, waist: Value) -> tuple[int, int]:
        """Return the multiply-adds of a Jacobian made from a value to both sides, and its other steps."""
        before = ordered(waist)
        known = {id(value) for value in before}
        after = [waist, *(value for value in self._values if id(value) not in known)]
        products = _reverse(before) + _forward(after) + waist.size * before[0].size * self.value.size
        return products, waist.size * (_others(before) + _others(after))

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
    return first.size * sum(
        value.operation.w.size
        for value in others
        if isinstance(value.operation, Affine) and value.inputs[0] is not first
    )
