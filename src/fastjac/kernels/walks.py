"""What tapes that multiply derivatives through a graph have in common, whichever way they go."""

from __future__ import annotations

import abc
from typing import Any

from numpy.typing import NDArray

from fastjac.graph.values import Value
from fastjac.kernels import operations
from fastjac.kernels.context import Arena
from fastjac.kernels.graphs import PackedGraph
from fastjac.kernels.values import Values

Array = NDArray[Any]
GIVEN = -1  # Stands for the matrix with ones on its diagonal, which is made only where it must be.


class Walk(abc.ABC):
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

    @abc.abstractmethod
    def _lay_out(self) -> None:
        """Add the nodes."""

    def node(self, operation: int, **fields: int | float | None) -> None:
        """Add a node."""
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


def whole_move(first: int, size: int) -> dict[str, Any]:
    """Return the fields of a node that copies all columns of a matrix."""
    return {"operation": operations.MOVE, "first": first, "size": size}
