"""The direction in which a graph's Jacobian is multiplied out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from fastjac import notebook
from fastjac.graph.values import Add, Affine, Apply, Input, Value, ordered

# What is done to an entry of a matrix beside products takes as long as so many multiply-adds.
_PER_ENTRY = 4


@dataclass(frozen=True, eq=False)
class GraphPlan:
    """How the Jacobian of a graph is multiplied out: from the outputs or from the inputs on.

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
    tangents have ones on the diagonal. The other operations take M or N steps for each entry.
    """

    value: Value

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Inputs, the entries of each value that is computed, outputs."""
        values = ordered(self.value)
        return values[0].size, *(value.size for value in values), self.value.size

    @cached_property
    def is_forward(self) -> bool:
        """Whether the Jacobian is made from the inputs on."""
        values = ordered(self.value)
        others = _PER_ENTRY * sum(value.size for value in values if not isinstance(value.operation, Affine))
        forward = self.forward_multiply_adds + self._n_inputs(values) * others
        return forward < self.reverse_multiply_adds + self.value.size * others

    @cached_property
    def multiply_adds(self) -> int:
        """Multiply-adds of the Jacobian, all units active."""
        return self.forward_multiply_adds if self.is_forward else self.reverse_multiply_adds

    @cached_property
    def derivatives(self) -> int:
        """The numbers in all matrices that a call holds: one for each reader of a value.

        They have M rows from the outputs on, and there are N more where the Jacobian is made from the inputs.
        """
        values = ordered(self.value)
        rows = self.value.size + (self._n_inputs(values) if self.is_forward else 0)
        return rows * sum(before.size for value in values for before in value.inputs)

    @cached_property
    def reverse_multiply_adds(self) -> int:
        """Multiply-adds of pure reverse mode, from the outputs to the inputs."""
        readers: dict[int, list[Value]] = {id(self.value): []}
        values = ordered(self.value)
        for reader in values:
            for value in reader.inputs:
                readers.setdefault(id(value), []).append(reader)
        is_unit: dict[int, bool] = {}
        total = 0
        for value in reversed(values):
            found = readers[id(value)]
            passed = [is_unit[id(reader)] and isinstance(reader.operation, Add) for reader in found]
            is_unit[id(value)] = not found or passed == [True]
            if isinstance(value.operation, Affine) and not (is_unit[id(value)] or self._is_last(found)):
                total += self.value.size * value.operation.w.size
        return total

    def _is_last(self, readers: list[Value]) -> bool:
        """Return whether an activation alone is between an affine map and the output."""
        return len(readers) == 1 and readers[0] is self.value and isinstance(readers[0].operation, Apply)

    @cached_property
    def forward_multiply_adds(self) -> int:
        """Multiply-adds of pure forward mode, from the inputs to the outputs."""
        values = ordered(self.value)
        weights = (
            value.operation.w.size
            for value in values
            if isinstance(value.operation, Affine) and not isinstance(value.inputs[0].operation, Input)
        )
        return self._n_inputs(values) * sum(weights)

    @staticmethod
    def _n_inputs(values: list[Value]) -> int:
        return next(value.size for value in values if isinstance(value.operation, Input))

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
        """Return the direction, and a row for each layer: its weights, sizes and multiply-adds."""
        values = ordered(self.value)
        weights = [value.operation.w for value in values if isinstance(value.operation, Affine)]
        side = self._n_inputs(values) if self.is_forward else self.value.size
        rows = [
            (f"W{i}", f"{side} x {w.shape[0]} x {w.shape[1]}", f"{side * w.size:,}")
            for i, w in enumerate(weights, 1)
        ]
        title = "from the inputs on" if self.is_forward else "from the outputs on"
        return title, rows if self.is_forward else rows[::-1]

    def _repr_html_(self) -> str:
        title, rows = self._table()
        total = f"{self.multiply_adds:,} multiply-adds, {title}"
        pure = f"reverse mode: {self.reverse_multiply_adds:,}, forward mode: {self.forward_multiply_adds:,}"
        return notebook.table(f"Plan: {total}", ["weights", "size", "multiply-adds"], rows, pure)
