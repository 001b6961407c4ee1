"""Finds the activations and normalisations that frameworks spell out in smaller operations.

Readers may use operations that `fastjac.graph` has not, such as a square root or a comparison. `resolved`
replaces them: `alike` computes a part of the graph for test inputs, and compares the results with those of
each activation, softmax and normalisation. So it does not matter how a framework or a user spells them.
"""

from __future__ import annotations

import heapq
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac import graph
from fastjac.graph.values import (
    Add,
    Apply,
    Concatenate,
    Multiply,
    Scale,
    Select,
    Value,
    is_head,
    ordered,
)
from fastjac.layers import ACTIVATIONS
from fastjac.models.alike import POINTS, Build, of_entries, of_vectors
from fastjac.models.limits import Budget
from fastjac.models.spelled import Function, Stop, Total, values
from fastjac.reference import graph_value_and_jacobian

Array = NDArray[np.floating[Any]]
# What activations are spelled with, and what may be beside it.
_JOINS = (Multiply, Function, Total, Stop)
_OPEN = (*_JOINS, Add, Apply, Concatenate, Scale, Select)
# Parts of the graph that are computed for test inputs have at most this many values, beside those of rows.
_MOST = 80
# What the search costs, in numbers that are kept: an attempt, and so many numbers that are computed for it.
_ATTEMPT, _CHEAP = 500, 100
# The scales of the inputs for which the whole is compared, in float64, and what is no rounding there.
_SCALES, _UNLIKE = np.array([0.1, 1, 1, 1, 10, 30]), 1e-4
_DIFFERS = 1e-3  # between a framework's results in float32 and those of a graph in float64


def function(name: str, inputs: Sequence[Value], where: str) -> Value:
    """Return a function of values of one size; an activation if it is one."""
    if len(inputs) == 1 and name in ACTIVATIONS:
        return graph.apply(inputs[0], name)
    return _value(Function(name, where), inputs, inputs[0].size)


def total(name: str, x: Value, where: str) -> Value:
    """Return the sum or maximum of a value's entries."""
    return x if x.size == 1 else _value(Total(name, where), (x,), 1)


def stop(x: Value, where: str) -> Value:
    """Return a value of which no derivative is taken."""
    return _value(Stop(where), (x,), x.size)


def _value(operation: Any, inputs: Iterable[Value], size: int) -> Value:
    return Value(operation, inputs, size)


def check(value: Value, samples: Array, y: Array, v: Array, v_jac: Array) -> bool:
    """Return whether a framework's outputs ``y`` (B, M), and the products ``v_jac`` (B, N), are a value's."""
    for row, x in enumerate(samples):
        expected, jac = graph_value_and_jacobian(x, value)
        largest = np.max(np.abs(expected), initial=1e-30), np.max(np.abs(v[row]) @ np.abs(jac), initial=1e-30)
        for found, wanted, size in zip((y[row], v_jac[row]), (expected, v[row] @ jac), largest, strict=True):
            if not np.allclose(found, wanted, rtol=0, atol=_DIFFERS * size, equal_nan=True):
                return False
    return True


def resolved(value: Value, budget: Budget | None = None) -> Value:
    """Return a value of `fastjac.graph` alone.

    Raises
    ------
    ValueError
        If an operation is left that `fastjac.graph` has not; it names the place. If the search for what is
        spelled out takes more than the ``budget``.
    """
    value = _shared(value)
    path = ordered(value)
    places = {id(each): place for place, each in enumerate(path)}
    # The values behind which something may be spelled out.
    spelled: set[int] = set()
    for each in path:
        if _is_open(each) and (_joins(each) or _bends(each) or not spelled.isdisjoint(map(id, each.inputs))):
            spelled.add(id(each))
    plans: dict[int, tuple[Build | None, tuple[Value, ...]]] = {}
    needed = {id(value)}
    for each in reversed(path):
        if id(each) in needed:
            with np.errstate(all="ignore"):
                found = _recognised(each, places, budget) if id(each) in spelled else None
            plans[id(each)] = (None, each.inputs) if found is None else (found[0], (found[1],))
            needed |= {id(before) for before in plans[id(each)][1]}
    made: dict[int, Value] = {}
    for each in path:
        if id(each) in plans:
            build, inputs = plans[id(each)]
            ready = [made[id(before)] for before in inputs]
            made[id(each)] = _native(each, ready) if build is None else build(ready[0])
    if any(build is not None for build, _ in plans.values()):
        _compare(path, ordered(made[id(value)]), budget)
    return made[id(value)]


def _compare(spelled: list[Value], path: list[Value], budget: Budget | None) -> None:
    """Raise ValueError unless the last of two paths from one input are alike for some test inputs."""
    if budget is not None:
        budget.spend(len(_SCALES) * sum(each.size for each in (*spelled, *path)) // 2)  # They are not kept.
    source = spelled[0]
    x = np.random.default_rng(0).normal(size=(len(_SCALES), source.size)) * _SCALES[:, None]
    with np.errstate(all="ignore"):
        expected, found = (values(each[1:], source, x) if each[1:] else x for each in (spelled, path))
        is_finite = np.isfinite(expected) & np.isfinite(found)
        differences = np.abs(found - expected, out=np.zeros_like(found), where=is_finite)
        largest = np.max(np.abs(expected), axis=-1, keepdims=True, where=is_finite, initial=0)
    if np.any(differences > _UNLIKE * largest):
        raise ValueError("a part of it is an activation, a softmax or a normalisation for some inputs alone")


def _shared(value: Value) -> Value:
    """Return a value in which what is computed twice is one value."""
    made: dict[int, Value] = {}
    seen: dict[tuple[Any, ...], list[Value]] = {}
    for each in ordered(value):
        inputs = [made[id(before)] for before in each.inputs]
        sums = [
            zlib.crc32(np.ascontiguousarray(part).data)
            for part in each.operation
            if isinstance(part, np.ndarray)
        ]
        alike = seen.setdefault((type(each.operation), each.size, *map(id, inputs), *sums), [])
        same = next((other for other in alike if _equal(each.operation, other.operation)), None)
        if same is None:
            alike.append(same := _of(each, inputs))
        made[id(each)] = same
    return made[id(value)]


def _equal(one: Any, other: Any) -> bool:
    """Return whether operations of one kind compute the same, wherever they are."""
    names = [name for name in one._fields if name != "where"]
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


def _of(value: Value, inputs: list[Value]) -> Value:
    if all(before is after for before, after in zip(value.inputs, inputs, strict=True)):
        return value
    return Value(value.operation, inputs, value.size)


def _native(value: Value, inputs: list[Value]) -> Value:
    """Return a value with other inputs, if `fastjac.graph` has its operation."""
    operation: Any = value.operation
    if isinstance(operation, Total) and operation.name == "sum":
        return graph.affine(inputs[0], np.ones((inputs[0].size, 1)))
    if isinstance(operation, Function) and operation.name == "expm1":
        return graph.apply(inputs[0], "exp") - 1
    if isinstance(operation, Stop):
        raise ValueError(f"{operation.where}: it stops the derivative, which fastjac does not")
    if isinstance(operation, (Function, Total)):
        raise ValueError(
            f"{operation.where}: fastjac computes this only where it is part of an activation, a softmax or "
            "a normalisation that it has"
        )
    return _of(value, inputs)


def _recognised(value: Value, places: dict[int, int], budget: Budget | None) -> tuple[Build, Value] | None:
    """Return how a value is computed from which other one, where that takes fewer operations."""
    for start, between in reversed(list(_starts(value, places, budget))):
        if not any(map(_joins, between)) and sum(map(_bends, between)) < 2 - isinstance(value.operation, Add):
            continue
        if budget is not None:
            budget.spend(_ATTEMPT + POINTS.size * start.size * len(between) // _CHEAP)
        build = of_entries(start, between) or of_vectors(start, between)
        if build is not None:
            return build, start
    return None


def _joins(value: Value) -> bool:
    """Return whether the operation of a value is one that activations are spelled with."""
    return isinstance(value.operation, _JOINS)


def _bends(value: Value) -> bool:
    """Return whether the operation of a value is an activation with a kink: several may be another one."""
    return isinstance(value.operation, Apply) and bool(value.operation.activation.kinks)


def _is_open(value: Value) -> bool:
    """Return whether an activation or a normalisation may be spelled with the operation of a value."""
    return isinstance(value.operation, _OPEN) and not is_head(value.operation)


def _starts(
    value: Value, places: dict[int, int], budget: Budget | None
) -> Iterator[tuple[Value, list[Value]]]:
    """Yield the values that all of a value depends on, the nearest first, and those on the way from each.

    ``places`` has a larger number for each value than for its inputs.
    """
    waiting, found, between, steps = [(0, value)], {id(value)}, deque[Value](), 0
    while steps < _MOST:
        _, each = heapq.heappop(waiting)
        if not _is_open(each):
            return
        if budget is not None:
            budget.spend(1)
        between.appendleft(each)
        steps += not isinstance(each.operation, (Concatenate, Select, Total))  # There may be many rows.
        for before in each.inputs:
            if id(before) not in found:
                found.add(id(before))
                heapq.heappush(waiting, (-places[id(before)], before))
        if len(waiting) == 1 and waiting[0][1].size == value.size:
            yield waiting[0][1], list(between)
