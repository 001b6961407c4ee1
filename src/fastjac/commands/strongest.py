"""The table of the inputs that move the outputs most, at the first of many samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastjac
from fastjac.arguments import place

MOST_SAMPLES = 10
HEADER = ("sample", "input", "output", "d y / d x")


class Strongest:
    """The inputs with the largest derivatives, collected as the Jacobians pass.

    Parameters
    ----------
    net : Network
        Whose Jacobians pass.
    outputs : sequence of int
        Those in the Jacobians' rows.
    k : int
        How many inputs of each sample.
    """

    def __init__(self, net: fastjac.Network, outputs: Sequence[int], k: int) -> None:
        self._net, self._outputs, self._k = net, outputs, k
        self._rows: list[tuple[str, ...]] = []
        self._count = 0

    def add(self, jacobians: NDArray[np.floating[Any]]) -> None:
        """Add ``jacobians`` (rows, outputs, n_inputs)."""
        shown = max(0, MOST_SAMPLES - self._count)
        for sample, jac in enumerate(jacobians[:shown], self._count):
            magnitude = np.where(np.isnan(jac), -1, np.abs(jac))
            strongest = magnitude.argmax(axis=0)  # For each input the output that it moves most.
            order = np.argsort(-magnitude.max(axis=0), kind="stable")[: self._k]
            for n in order:
                m = strongest[n]
                names = place(n, self._net.input_names), place(self._outputs[m], self._net.output_names)
                self._rows.append((str(sample), *names, f"{jac[m, n]:.4g}"))
        self._count += len(jacobians)

    def __str__(self) -> str:
        """Return the table, and a line before it that says how many samples are in it."""
        shown = min(self._count, MOST_SAMPLES)
        which = f"all {shown}" if shown == self._count else f"the first {shown} of {self._count}"
        title = f"top      the strongest inputs: {which} sample{'s' * (self._count != 1)}"
        table = [HEADER, *self._rows] if self._rows else []
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return "\n".join([title, *(_line(row, widths) for row in table)])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    sample, *names, value = row
    cells = [name.ljust(width) for name, width in zip(names, widths[1:-1], strict=True)]
    return "  ".join([sample.rjust(widths[0]), *cells, value.rjust(widths[-1])])
