"""Operations that frameworks have and `fastjac.graph` has not, and what a graph with them computes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastjac.graph.values import Add, Affine, Apply, Concatenate, Multiply, Scale, Select, Value, is_head
from fastjac.reference import evaluate

Array = NDArray[np.floating[Any]]


class Function(NamedTuple):
    """A function of one, two or three values, entry by entry; ``where`` is the place that errors name."""

    name: str
    where: str


class Total(NamedTuple):
    """The sum or the maximum of all entries, as one entry."""

    name: str
    where: str


class Stop(NamedTuple):
    """The value itself, of which a framework takes no derivative."""

    where: str


# The functions that are not NumPy's of the same name.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "erfc": np.vectorize(math.erfc, otypes=[np.float64]),
    "where": lambda condition, a, b: np.where(condition != 0, a, b),
}


def values(path: Sequence[Value], start: Value, x: Array) -> Array:
    """Return the last value of a path (rows, size) for ``x`` as its ``start``; each is behind its inputs."""
    last = {id(before): each for each in path for before in each.inputs}  # Who needs it last.
    rows = {id(start): x}
    for each in path:
        rows[id(each)] = computed(each.operation, [rows[id(before)] for before in each.inputs])
        for before in each.inputs:
            if last[id(before)] is each:
                rows.pop(id(before), None)
    return rows[id(path[-1])]


def computed(operation: Any, inputs: list[Array]) -> Array:
    """Return what an operation computes from its inputs, each (rows, size)."""
    if isinstance(operation, Function):
        compute = _FUNCTIONS.get(operation.name) or getattr(np, operation.name)
        return np.asarray(compute(*inputs), np.float64)
    if isinstance(operation, Total):
        return np.asarray((np.sum if operation.name == "sum" else np.max)(inputs[0], axis=-1, keepdims=True))
    if isinstance(operation, Stop):
        return inputs[0]
    if isinstance(operation, (Add, Multiply, Scale)) or (
        isinstance(operation, Apply) and not is_head(operation)
    ):
        return np.asarray(evaluate(operation, inputs))
    if isinstance(operation, Affine):
        return np.asarray(inputs[0] @ operation.w + operation.b)
    if isinstance(operation, Select):
        return inputs[0][:, operation.places]
    if isinstance(operation, Concatenate):
        return np.concatenate(inputs, axis=1)
    return np.array([evaluate(operation, row) for row in zip(*inputs, strict=True)])
