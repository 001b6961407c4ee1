"""The one table of what a routine takes and gives."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Signature(NamedTuple):
    """The arrays of one sample: name -> axes, of n inputs, m outputs and, for raw weights, h hidden units.

    A batch has one more axis in front of each but those that all of its samples share.
    """

    inputs: dict[str, str]
    outputs: dict[str, str]
    shared: tuple[str, ...] = ()

    @property
    def arrays(self) -> dict[str, str]:
        """Inputs first, then outputs: the order of a routine's arguments."""
        return self.inputs | self.outputs

    def shapes(self, n: int, m: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the outputs for one sample."""
        sizes = {"n": n, "m": m}
        return {name: tuple(sizes[axis] for axis in axes) for name, axes in self.outputs.items()}


SIGNATURES = {
    "value": Signature({"x": "n"}, {"y": "m"}),
    "value_and_jacobian": Signature({"x": "n"}, {"y": "m", "jac": "mn"}),
    "vjp": Signature({"x": "n", "v": "m"}, {"y": "m", "vjp": "n"}),
    "jvp": Signature({"x": "n", "u": "n"}, {"y": "m", "jvp": "m"}),
}
# The article's two layers, whose weights come with each call and serve all of its samples.
RAW = "value_and_jacobian_of"
_weights = {"w1": "nh", "b1": "h", "w2": "hm", "b2": "m"}
RAW_SIGNATURE = Signature({"x": "n", **_weights}, {"y": "m", "jac": "mn"}, tuple(_weights))
# All that functions are made for.
CALLS = {**SIGNATURES, RAW: RAW_SIGNATURE}

OK, MISMATCH = 0, 1
# What the routine does for its caller: one routine, so that what these share is compiled once.
VALUE, VJP, JVP, VALUE_AND_JACOBIAN, VALUE_AND_JACOBIAN_OF = range(5)
MODES = {
    "value": VALUE,
    "vjp": VJP,
    "jvp": JVP,
    "value_and_jacobian": VALUE_AND_JACOBIAN,
    RAW: VALUE_AND_JACOBIAN_OF,
}


def symbol_of(kind: str, name: str, dtype: np.dtype[Any]) -> str:
    """Return what a function is called in machine code."""
    return f"fastjac.{kind}.{name}.{dtype}"
