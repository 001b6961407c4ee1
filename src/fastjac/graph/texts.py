"""What a graph looks like in print."""

from __future__ import annotations

from collections import Counter

from fastjac.graph.values import Affine, Apply, Input, Normalise, Value, ordered


def summary(value: Value) -> str:
    """Return how many of each operation a value is computed with: ``3 affine, 2 tanh, 1 add``."""
    names = Counter(_name(each) for each in ordered(value) if not isinstance(each.operation, Input))
    return ", ".join(f"{count} {name}" for name, count in names.items()) or "its input"


def table(value: Value) -> list[tuple[int, str, int, str]]:
    """Return for each value its number, those it is computed from, its entries and its operation."""
    values = ordered(value)
    number = {id(each): i for i, each in enumerate(values)}
    return [
        (i, ", ".join(str(number[id(before)]) for before in each.inputs), each.size, _name(each))
        for i, each in enumerate(values)
    ]


def _name(value: Value) -> str:
    operation = value.operation
    if isinstance(operation, Apply):
        return str(operation.activation)
    if isinstance(operation, Normalise):
        return "layer_norm" if operation.centred else "rms_norm"
    return "affine" if isinstance(operation, Affine) else type(operation).__name__.lower()
