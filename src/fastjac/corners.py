"""How a network rounds its Jacobian, and where its activations have corners; both of any graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastjac import reference
from fastjac.graph.values import (
    Add,
    Affine,
    Apply,
    Concatenate,
    Normalise,
    Operation,
    Scale,
    Select,
    Value,
    ordered,
)
from fastjac.layers import HEADS_ONLY

Array = NDArray[np.floating[Any]]
Index = NDArray[np.intp]
Mask = NDArray[np.bool_]


class _Step(NamedTuple):
    """A value of the network in float64, and its rounding errors in units of eps."""

    value: Value
    inputs: list[Array]
    a: Array
    spread: Array


def _walk(network: Value, x: Array) -> list[_Step]:
    """Return all values that a network in float64 computes for ``x``, in order."""
    found: dict[int, _Step] = {}
    for value in ordered(network):
        before = [found[id(each)] for each in value.inputs]
        inputs = [step.a for step in before]
        a, spread = x, np.zeros_like(x)
        if before:
            a = reference.evaluate(value.operation, inputs)
            spread = _own_rounding(value.operation, inputs, a)
            slopes = reference.pull_back(value.operation, np.ones_like(a), inputs)
            for jac, step in zip(slopes, before, strict=True):
                spread = spread + np.abs(jac * step.spread if jac.ndim == 1 else np.abs(jac) @ step.spread)
        found[id(value)] = _Step(value, inputs, a, spread)
    return list(found.values())


def _own_rounding(operation: Operation, inputs: list[Array], a: Array) -> Array:
    """Return what an operation itself rounds, in units of eps."""
    if isinstance(operation, Affine):
        return np.asarray(np.abs(inputs[0]) @ np.abs(operation.w) + np.abs(operation.b))
    if isinstance(operation, Scale):
        return np.asarray(np.abs(inputs[0] * operation.factor) + np.abs(operation.shift))
    if isinstance(operation, Add):
        return np.asarray(np.abs(inputs[0]) + np.abs(inputs[1]))
    exact = (Apply, Concatenate, Select)
    return np.zeros_like(a) if isinstance(operation, exact) else np.abs(a)


# Their slope crosses 0, and is as wrong there as the pre-activation.
_CROSSING = ("silu", "gelu", "gelu_tanh", "hard_swish", "mish", "square", "sin", "cos")


def _sizes(operation: Operation, inputs: list[Array], a: Array) -> list[Array]:
    """Return the sizes of what an operation's Jacobians are computed from: (k,) diagonals or (k, n)."""
    if isinstance(operation, Apply):
        name = operation.activation.name
        if name in HEADS_ONLY:  # Where 1 - s cancels, the rounding of the 1 stays.
            s = reference.softmax(inputs[0])
            return [(np.eye(a.size) + s) * (s[:, None] if name == "softmax" else 1)]
        if name in _CROSSING:
            return [np.maximum(np.abs(reference.slope(inputs[0], operation.activation)), 1)]
    if isinstance(operation, Normalise):
        # Of few entries, the identity and what is subtracted from it cancel.
        centred = inputs[0] - np.mean(inputs[0]) if operation.centred else inputs[0]
        root = np.sqrt(np.mean(centred * centred) + operation.epsilon)
        return [(np.eye(a.size) + operation.centred / a.size + np.abs(np.outer(a, a)) / a.size) / root]
    return [np.abs(jac) for jac in reference.pull_back(operation, np.ones_like(a), inputs)]


def rounding(network: Value, eps: float, x: Array) -> Array:
    """Return a bound on the rounding of the network's Jacobian, (M, N): the same products, all positive."""
    walk = _walk(network, x)
    largest = max(np.max(step.spread) for step in walk)
    bounds: dict[int, Array] = {id(walk[-1].value): np.eye(network.size)}
    for step in reversed(walk[1:]):
        bound = bounds.pop(id(step.value))
        sizes = _sizes(step.value.operation, step.inputs, step.a)
        for before, size in zip(step.value.inputs, sizes, strict=True):
            part = bound * size if size.ndim == 1 else bound @ size
            bounds[id(before)] = bounds.get(id(before), 0) + part
    (bound,) = bounds.values()
    return np.asarray(4 * eps * (1 + largest) * bound)


def _to_corners(network: Value, eps: float, x: Array) -> Iterator[tuple[Array, Array]]:
    """Yield, for each corner of each activation, the units' distances from it and their rounding errors."""
    found: dict[int, _Step] = {}
    for step in _walk(network, x):
        found[id(step.value)] = step
        operation = step.value.operation
        if isinstance(operation, Apply):
            for corner in operation.activation.kinks:
                yield step.inputs[0] - corner, 16 * eps * found[id(step.value.inputs[0])].spread


def straddles(network: Value, eps: float, x: Array, columns: Index, steps: Array) -> Mask:
    """Return for each column whether a unit has a corner between its two sides, or at x itself."""
    here = list(_to_corners(network, eps, x))
    skip = np.zeros(columns.size, bool)
    for k, (n, h) in enumerate(zip(columns, steps, strict=True)):
        before, behind = (_to_corners(network, eps, moved(x, n, by)) for by in (-h, h))
        sides = zip(here, before, behind, strict=True)
        skip[k] = any(
            np.any(
                (np.sign(left) * np.sign(right) < 0)
                | (((left != at) | (right != at)) & (np.abs(at) <= error))
            )
            for (at, error), (left, _), (right, _) in sides
        )
    return skip


def moved(x: Array, n: int, by: float) -> Array:
    """Return a copy of ``x`` whose entry ``n`` is larger by a number."""
    copy: Array = x.copy()
    copy[n] += by
    return copy
