"""Finds the activations and normalisations that frameworks spell out in smaller operations.

Readers may use operations that `fastjac.graph` has not, such as a square root or a comparison. `resolved`
replaces them: it computes a part of the graph for test inputs, and compares the results with those of each
activation, softmax and normalisation. So it does not matter how a framework or a user spells them.
"""

from __future__ import annotations

import functools
import heapq
import math
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastjac import graph
from fastjac.graph.values import (
    Add,
    Apply,
    Concatenate,
    Multiply,
    Normalise,
    Scale,
    Select,
    Value,
    is_head,
    ordered,
)
from fastjac.layers import ACTIVATIONS, HEADS_ONLY, Activation
from fastjac.models.limits import Budget
from fastjac.reference import elementwise, evaluate, graph_value_and_jacobian

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


_Build = Callable[[Value], Value]
# The functions that are not NumPy's of the same name.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "erfc": np.vectorize(math.erfc, otypes=[np.float64]),
    "where": lambda condition, a, b: np.where(condition != 0, a, b),
}
# Parts of the graph that are computed for test inputs have at most this many values, beside those of rows.
_MOST = 80
_SIZES = (
    *(0, 1e-9, 1e-6, 1e-3, 0.01, 0.1, 0.3, 0.5, 0.9, 1, 1.1, 1.5, 2, 2.5, 2.9, 3, 3.1),
    *(4, 5, 5.9, 6, 6.1, 8, 12, 19, 30, 50, 80, 1e3, 1e6),
)
_POINTS = np.unique([sign * size for sign in (-1, 1) for size in _SIZES])
_TOLERANCE = 1e-6  # Frameworks keep constants in float32.
# What the search costs, in numbers that are kept: an attempt, and so many numbers that are computed for it.
_ATTEMPT, _CHEAP = 500, 100
_DIFFERS = 1e-3  # between a framework's results in float32 and those of a graph in float64


def function(name: str, values: Sequence[Value], where: str) -> Value:
    """Return a function of values of one size; an activation if it is one."""
    if len(values) == 1 and name in ACTIVATIONS:
        return graph.apply(values[0], name)
    return _value(Function(name, where), values, values[0].size)


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
    values = ordered(value)
    places = {id(each): place for place, each in enumerate(values)}
    # The values behind which something may be spelled out.
    spelled: set[int] = set()
    for each in values:
        if _is_open(each) and (_joins(each) or _bends(each) or not spelled.isdisjoint(map(id, each.inputs))):
            spelled.add(id(each))
    plans: dict[int, tuple[_Build | None, tuple[Value, ...]]] = {}
    needed = {id(value)}
    for each in reversed(values):
        if id(each) in needed:
            with np.errstate(all="ignore"):
                found = _recognised(each, places, budget) if id(each) in spelled else None
            plans[id(each)] = (None, each.inputs) if found is None else (found[0], (found[1],))
            needed |= {id(before) for before in plans[id(each)][1]}
    made: dict[int, Value] = {}
    for each in values:
        if id(each) in plans:
            build, inputs = plans[id(each)]
            ready = [made[id(before)] for before in inputs]
            made[id(each)] = _native(each, ready) if build is None else build(ready[0])
    return made[id(value)]


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


def _values(values: Sequence[Value], start: Value, x: Array) -> Array:
    """Return the last of ``values`` (rows, size), where ``start`` is ``x`` and each is behind its inputs."""
    rows = {id(start): x}
    for each in values:
        if each is not start:
            rows[id(each)] = _computed(each.operation, [rows[id(before)] for before in each.inputs])
    return rows[id(values[-1])]


def _computed(operation: Any, inputs: list[Array]) -> Array:
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
    if isinstance(operation, Select):
        return inputs[0][:, operation.places]
    if isinstance(operation, Concatenate):
        return np.concatenate(inputs, axis=1)
    return np.array([evaluate(operation, row) for row in zip(*inputs, strict=True)])


def _recognised(value: Value, places: dict[int, int], budget: Budget | None) -> tuple[_Build, Value] | None:
    """Return how a value is computed from which other one, where that takes fewer operations."""
    for start, between in reversed(list(_starts(value, places, budget))):
        if not any(map(_joins, between)) and sum(map(_bends, between)) < 2 - isinstance(value.operation, Add):
            continue
        if budget is not None:
            budget.spend(_ATTEMPT + _POINTS.size * start.size * len(between) // _CHEAP)
        build = _of_entries(start, between) or _of_vectors(start, between)
        if build is not None:
            return build, start
    return None


def _joins(value: Value) -> bool:
    """Return whether the operation of a value is one that activations are spelled with."""
    return isinstance(value.operation, (Multiply, Function, Total, Stop))


def _bends(value: Value) -> bool:
    """Return whether the operation of a value is an activation with a kink: several may be another one."""
    return isinstance(value.operation, Apply) and bool(value.operation.activation.kinks)


def _is_open(value: Value) -> bool:
    """Return whether an activation or a normalisation may be spelled with the operation of a value."""
    operation = value.operation
    return (_joins(value) or isinstance(operation, (Add, Apply, Concatenate, Scale, Select))) and not is_head(
        operation
    )


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


def _of_entries(start: Value, between: list[Value]) -> _Build | None:
    """Return the activation, of the entries or their negatives, that computes the last value."""
    if any(isinstance(each.operation, (Stop, Total)) for each in between):
        return None
    # Each entry but the first meets all points in an order of its own: a mix-up of entries does not pass.
    points = np.tile(_POINTS[:, None], start.size)
    points[:, 1:] = np.random.default_rng(0).permuted(points[:, 1:], axis=0)
    for stretch in _stretches(between):
        y = _values(between, start, points / stretch)
        for activation in _candidates(points, y):
            expected = elementwise(points, activation)
            gain = _gain(y, expected)
            if np.all(_agree(y, gain * expected, np.minimum(np.abs(points), 1) * np.abs(gain))):
                return lambda z: graph.apply(z * stretch, activation) * gain
        if stretch == 1 and (clip := _clipped(points, y)) is not None:
            return clip
    return None


def _stretches(between: list[Value]) -> Iterator[float]:
    """Yield the factors that the entries may have before an activation."""
    yield from (1.0, -1.0)
    for each in between:
        factors = np.unique(each.operation.factor) if isinstance(each.operation, Scale) else np.ones(1)
        if factors.size == 1 and abs(factors[0]) not in (0, 1):
            yield float(factors[0])


def _clipped(x: Array, y: Array) -> _Build | None:
    """Return the clip that computes ``y`` from ``x``, between limits of their own for each entry."""
    low, high = (y.T[np.equal(x.T, place)] for place in (-1e6, 1e6))
    is_between = np.all(high - low > 0) and np.all(high - low < 1e5)
    if is_between and np.all(_agree(y, np.clip(x, low, high), np.minimum(np.abs(x), 1))):
        half, middle = (high - low) / 2, (high + low) / 2
        return lambda z: graph.apply((z - middle) / half, "hard_tanh") * half + middle
    return None


def _candidates(x: Array, y: Array) -> Iterator[Activation]:
    """Yield the activations that may compute ``y`` from ``x``, with their parameters."""
    plain, expected = _plain()
    first, size = y[:, :1], np.minimum(np.abs(_POINTS), 1)[:, None]
    gain = _gain(np.broadcast_to(first, expected.shape), expected)
    is_like = _agree(first, gain * expected, size * np.abs(gain))
    yield from (plain[place] for place in np.flatnonzero(is_like))
    left, far_left = (np.abs(y.T[np.equal(x.T, place)]) for place in (-1, -80))
    for name, slope in (("leaky_relu", left), ("elu", far_left), ("celu", far_left)):
        parameter = _shortest(float(slope[0]))
        if 0 < parameter < 1e3:
            yield Activation(name, parameter)
    yield Activation("prelu", tuple(left.tolist()))


@functools.cache
def _plain() -> tuple[list[Activation], Array]:
    """Return the activations without a parameter, and the values of each at `_POINTS`, in a column."""
    plain = [Activation(name) for name, default in ACTIVATIONS.items() if default is None]
    plain = [activation for activation in plain if activation.name not in HEADS_ONLY]
    return plain, np.column_stack([elementwise(_POINTS, activation) for activation in plain])


def _shortest(parameter: float) -> float:
    """Return the decimal number that a float32 parameter stands for."""
    narrow = np.float32(parameter)
    return float(str(narrow)) if parameter == float(narrow) else parameter


def _of_vectors(start: Value, between: list[Value]) -> _Build | None:
    """Return the softmax or normalisation, of all entries or of rows, that computes the last value."""
    found = _rows(start, between)
    if found is None:
        return None
    places, rows = found
    random = np.random.default_rng(0)
    scales = np.array([0, 1e-6, 1e-4, 1e-2, 0.1, 1, 1, 1, 10, 10])[:, None]
    x = random.normal(size=(scales.size, start.size)) * scales
    x[6:8] += 3
    y = _values(between, start, x)
    stops = any(isinstance(each.operation, Stop) for each in between)
    builds = [_of_vector(x[:, places[row]], y[:, row], stops) for row in rows]
    if None in builds:
        return None
    order = np.argsort(np.concatenate(rows))

    def build(z: Value) -> Value:
        parts = [make(graph.select(z, places[row])) for make, row in zip(builds, rows, strict=True) if make]
        return graph.select(graph.concatenate(parts), order)

    return build


def _rows(start: Value, between: list[Value]) -> tuple[NDArray[np.intp], list[NDArray[np.intp]]] | None:
    """Return which entry of ``start`` each entry of the last value is made from, and those summed together.

    None if nothing is summed, or entries come and go.
    """
    row = np.arange(start.size)  # Entries that are summed together have the same number.

    def join(entries: NDArray[np.intp], others: NDArray[np.intp]) -> None:
        while np.any(row[entries] != row[others]):
            label, least = np.arange(start.size), np.minimum(row[entries], row[others])
            np.minimum.at(label, row[entries], least)
            np.minimum.at(label, row[others], least)
            row[:] = label[label][row]

    # Of each value: the entry that an entry is made from, and whether it is a sum.
    known = {id(start): (row.copy(), np.zeros(start.size, np.bool_))}
    for each in between:
        (places, is_sum), *others = (known[id(before)] for before in each.inputs)
        if isinstance(each.operation, Select):
            places, is_sum = places[each.operation.places], is_sum[each.operation.places]
        elif isinstance(each.operation, Total):
            join(np.full(places.size, places[0]), places)
            places, is_sum = places[:1], np.ones(1, np.bool_)
        elif isinstance(each.operation, Concatenate):
            parts = [(places, is_sum), *others]
            places, is_sum = (np.concatenate(part) for part in zip(*parts, strict=True))
        else:
            for other, other_is_sum in others:
                join(places, other)
                places, is_sum = np.where(is_sum, other, places), is_sum & other_is_sum
        known[id(each)] = places, is_sum
    if not any(isinstance(each.operation, Total) for each in between) or np.any(is_sum):
        return None
    if not np.array_equal(np.sort(places), np.arange(start.size)):
        return None
    return places, [np.flatnonzero(row[places] == number) for number in np.unique(row)]


def _of_vector(x: Array, y: Array, stops: bool) -> _Build | None:
    """Return the softmax or normalisation that computes vectors ``y`` from vectors ``x``."""
    for name in HEADS_ONLY:
        gain = _gain(y, expected := _computed(Apply(Activation(name)), [x]))
        if np.all(_agree(y, gain * expected, 0)):
            return lambda z: graph.multiply(graph.apply(z, name), gain)
    if stops:
        return None
    shift = np.where(np.isfinite(y[0]), y[0], 0.0)
    for centred in (True, False):
        for epsilon in (0.0, _epsilon(x - x.mean(-1, keepdims=True) if centred else x, y - shift)):
            expected = _computed(Normalise(epsilon, centred), [x])
            gain = _gain(y - shift, expected)
            expected[0] = np.where(np.isnan(expected[0]), 0, expected[0])  # 0 / 0, which others may avoid.
            if np.all(_agree(y, gain * expected + shift, np.abs(gain).max())):
                normal = graph.layer_norm if centred else graph.rms_norm
                return lambda z: normal(z, epsilon=epsilon) * gain + shift
    return None


def _gain(y: Array, expected: Array) -> Array:
    """Return the factor of each entry; those that are nearly whole numbers are."""
    is_finite = np.isfinite(y) & np.isfinite(expected)
    largest = np.where(is_finite, np.abs(expected), 0).argmax(axis=0), np.arange(y.shape[1])
    gain = y[largest] / expected[largest]
    whole: Array = np.round(gain)
    return whole if np.all(np.abs(gain - whole) < 1e-9) else gain


def _epsilon(d: Array, y: Array) -> float:
    """Return the number that is added to the mean of ``d**2`` under the root that ``d`` is divided by."""
    small, large = 1, -1  # rows
    entry = np.abs(d[small] * d[large]).argmax()
    variances = np.mean(d * d, axis=-1)
    ratio = (y[small, entry] / d[small, entry] / (y[large, entry] / d[large, entry])) ** 2
    epsilon = (variances[large] - ratio * variances[small]) / (ratio - 1)
    if not 0 < epsilon < np.inf:
        return 0.0
    short = float(f"{epsilon:.9g}")
    return short if math.isclose(short, epsilon, rel_tol=1e-11) else float(epsilon)


def _agree(y: Array, expected: Array, least: Any) -> NDArray[np.bool_]:
    """Return which columns agree where they are finite; an exponential may overflow far out."""
    is_finite = np.isfinite(y)
    near = np.abs(y - expected) <= _TOLERANCE * (np.abs(expected) + 1e-2 * least)
    return np.asarray((is_finite.mean() > 0.8) & np.all(near | ~is_finite, axis=0))
