"""Networks from .nnet files, the text format of the ACAS Xu networks (github.com/sisl/NNet)."""

from __future__ import annotations

import io
import itertools

import numpy as np

from fastjac.layers import Activation
from fastjac.models.folding import fold
from fastjac.models.limits import Budget
from fastjac.models.steps import Float64, Step, affine, clip, scale
from fastjac.network import Network

_LONGEST_LINE = 10**6


def read_nnet(data: bytes) -> Network:
    """Return the network in the bytes of a ``.nnet`` file, in float64.

    Raises
    ------
    ValueError
        If the bytes are not such a file.

    Notes
    -----
    Comments come first. Then there are lines of numbers: the numbers of layers, inputs and outputs and the
    largest size; all sizes; a flag; the least and the greatest value of each input; the mean and the range
    of each input, with one more for all outputs; the rows (fan_out, fan_in) and the biases of each layer.

    The network computes as the format's own evaluation does. It clips the inputs, subtracts their means and
    divides by their ranges. Hidden layers are relu. It multiplies the outputs by their range and adds their
    mean.
    """
    lines = _Lines(data)
    count, n_inputs, n_outputs, _ = lines.integers(4)
    sizes = lines.integers(count + 1)
    if count < 1 or sizes[0] != n_inputs or sizes[-1] != n_outputs or min(sizes) < 1:
        raise ValueError(f"it has {n_inputs} inputs and {n_outputs} outputs, but layers of {sizes}")
    if lines.integers(1) != [0]:
        raise ValueError(
            "its flag is not 0: symmetric networks flip negative angles, which fastjac does not compute"
        )
    low, high = lines.numbers(n_inputs), lines.numbers(n_inputs)
    means, ranges = lines.numbers(n_inputs + 1), lines.numbers(n_inputs + 1)
    steps: list[Step] = [
        *clip(low, high, "the limits of the inputs"),
        scale(1 / ranges[:-1], -means[:-1] / ranges[:-1], "the ranges of the inputs"),
    ]
    budget = Budget(len(data))
    for number, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes), 1):
        budget.spend_on_layer(fan_in, fan_out)
        rows, biases = np.empty((fan_out, fan_in)), np.empty((fan_out, 1))
        for part in (rows, biases):
            for row in part:
                row[:] = lines.numbers(row.size)
        steps += [affine(rows.T, biases.ravel(), f"layer {number}"), Activation("relu")]
    steps[-1] = scale(ranges[-1], means[-1], "the range of the outputs")
    lines.end()
    return fold(steps, np.float64, n_inputs, budget=Budget(len(data)))


class _Lines:
    """The lines of numbers, taken one after the other; each may end in a comma."""

    def __init__(self, data: bytes) -> None:
        self.stream = io.BytesIO(data)
        self.number = 0

    def numbers(self, count: int) -> Float64:
        """Return the ``count`` numbers of the next line."""
        line = self._next()
        parts = line.rstrip().rstrip(b",").split(b",")
        if len(parts) != count or not line:
            raise ValueError(f"line {self.number} has {len(parts) if line else 0} numbers, expected {count}")
        try:
            return np.array([float(part) for part in parts])
        except ValueError:
            raise ValueError(f"line {self.number} is not made of numbers: {line[:50]!r}") from None

    def integers(self, count: int) -> list[int]:
        """Return the ``count`` integers of the next line."""
        found = self.numbers(count)
        if not all(number == int(number) for number in found):
            raise ValueError(f"line {self.number} has {found}, expected integers")
        return [int(number) for number in found]

    def end(self) -> None:
        """Raise ValueError if there are more lines."""
        if self._next().strip():
            raise ValueError(f"it has more lines than its layers, from {self.number} on")

    def _next(self) -> bytes:
        line = b"//"
        while line.startswith(b"//"):
            line = self.stream.readline(_LONGEST_LINE)
            self.number += 1
        if len(line) == _LONGEST_LINE:
            raise ValueError(f"line {self.number} has more than {_LONGEST_LINE} bytes")
        return line
