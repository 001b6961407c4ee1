"""Finds the activations and normalisations that frameworks spell out in smaller operations.

Readers may use operations that `fastjac.graph` has not, such as a square root or a comparison. `resolved`
replaces them: it computes a part of the graph for test inputs, and compares the results with those of each
activation, softmax and normalisation. So it does not matter how a framework or a user spells them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastjac import graph
from fastjac.graph.values import Add, Apply, Multiply, Normalise, Scale, Select, Value, is_head, ordered
from fastjac.layers import ACTIVATIONS, HEADS_ONLY, Activation
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
# Parts of the graph that are computed for test inputs have at most this many values.
_MOST = 80
_SIZES = (
    *(0, 1e-9, 1e-6, 1e-3, 0.01, 0.1, 0.3, 0.5, 0.9, 1, 1.1, 1.5, 2, 2.5, 2.9, 3, 3.1),
    *(4, 5, 5.9, 6, 6.1, 8, 12, 19, 30, 50, 80, 1e3, 1e6),
)
_POINTS = np.unique([sign * size for sign in (-1, 1) for size in _SIZES])
_TOLERANCE = 1e-6  # Frameworks keep constants in float32.
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


def resolved(value: Value) -> Value:
    """Return a value of `fastjac.graph` alone.

    Raises
    ------
    ValueError
        If an operation is left that `fastjac.graph` has not; it names the place.
    """
    value = _shared(value)
    values = ordered(value)
    plans: dict[int, tuple[_Build | None, tuple[Value, ...]]] = {}
    needed = {id(value)}
    for each in reversed(values):
        if id(each) in needed:
            with np.errstate(all="ignore"):
                found = _recognised(each)
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
        alike = seen.setdefault((type(each.operation), each.size, *map(id, inputs)), [])
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
    return np.array([evaluate(operation, row) for row in zip(*inputs, strict=True)])


def _recognised(value: Value) -> tuple[_Build, Value] | None:
    """Return how a value is computed from which other one, where that takes fewer operations."""
    if not _joins(value) and not isinstance(value.operation, (Add, Apply, Scale)):
        return None
    part = list(_part(value))
    applied = sum(isinstance(each.operation, Apply) for each in (*part, value))
    several = applied > (0 if isinstance(value.operation, Add) else 1)
    if len(part) > _MOST or not (several or any(map(_joins, (*part, value)))):
        return None
    for start in part:
        between = _between(value, start, part)
        if between is not None:
            build = _of_entries(start, between) or _of_vectors(start, between)
            if build is not None:
                return build, start
    return None


def _joins(value: Value) -> bool:
    """Return whether the operation of a value is one that activations are spelled with."""
    return isinstance(value.operation, (Multiply, Function, Total, Stop))


def _part(value: Value) -> Iterator[Value]:
    """Yield the values before one, back to those that mix entries by weights; each behind its inputs."""
    waiting = [(value, False)]
    found: set[int] = set()
    while waiting and len(found) <= _MOST:
        each, is_ready = waiting.pop()
        if id(each) in found:
            continue
        if is_ready:
            found.add(id(each))
            if each is not value:
                yield each
            continue
        waiting.append((each, True))
        is_open = each is value or isinstance(
            each.operation, (Add, Apply, Function, Multiply, Scale, Select, Stop, Total)
        )
        if is_open and not is_head(each.operation):
            waiting += [(before, False) for before in reversed(each.inputs)]


def _between(value: Value, start: Value, part: list[Value]) -> list[Value] | None:
    """Return the values on all paths from one to another, None if the other depends on more."""
    if start.size != value.size:
        return None
    inside = {id(start)}
    between = []
    for each in (*part, value):
        if each.inputs and id(each) not in inside and inside.issuperset(map(id, each.inputs)):
            inside.add(id(each))
            between.append(each)
    if id(value) not in inside:
        return None
    needed = {id(value)}
    for each in reversed(between):
        if id(each) in needed:
            needed |= {id(before) for before in each.inputs}
    return [each for each in between if id(each) in needed]


def _of_entries(start: Value, between: list[Value]) -> _Build | None:
    """Return the activation, of the entries or their negatives, that computes the last value."""
    if any(isinstance(each.operation, Stop) for each in between):
        return None
    # Each entry meets all points, in an order of its own: a mix-up of entries does not pass.
    points = np.tile(_POINTS[:, None], start.size)
    x = np.random.default_rng(0).permuted(points, axis=0)
    y = _values(between, start, x)
    for sign in (1, -1):
        for activation in _candidates(sign * x, y):
            expected = elementwise(sign * x, activation)
            for gain in (1, -1):
                if _agree(y, gain * expected, np.minimum(np.abs(x), 1)):
                    return lambda z: gain * graph.apply(sign * z, activation)
    return _clipped(x, y)


def _clipped(x: Array, y: Array) -> _Build | None:
    """Return the clip that computes ``y`` from ``x``, between limits of their own for each entry."""
    low, high = (y.T[np.equal(x.T, place)] for place in (-1e6, 1e6))
    is_between = np.all(high - low > 0) and np.all(high - low < 1e5)
    if is_between and _agree(y, np.clip(x, low, high), np.minimum(np.abs(x), 1)):
        half, middle = (high - low) / 2, (high + low) / 2
        return lambda z: graph.apply((z - middle) / half, "hard_tanh") * half + middle
    return None


def _candidates(x: Array, y: Array) -> Iterator[Activation]:
    """Yield the activations that may compute ``y`` from ``x``, with their parameters."""
    left, far_left = (np.abs(y.T[np.equal(x.T, place)]) for place in (-1, -80))
    for name, default in ACTIVATIONS.items():
        if name == "prelu":
            yield Activation(name, tuple(left.tolist()))
        elif default is not None:
            parameter = _shortest(float((left if name == "leaky_relu" else far_left)[0]))
            if 0 < parameter < 1e3:
                yield Activation(name, parameter)
        elif name not in HEADS_ONLY:
            yield Activation(name)


def _shortest(parameter: float) -> float:
    """Return the decimal number that a float32 parameter stands for."""
    narrow = np.float32(parameter)
    return float(str(narrow)) if parameter == float(narrow) else parameter


def _of_vectors(start: Value, between: list[Value]) -> _Build | None:
    """Return the softmax or normalisation that computes the last value."""
    if not any(isinstance(each.operation, Total) for each in between):
        return None
    random = np.random.default_rng(0)
    scales = np.array([1e-6, 1e-4, 1e-2, 0.1, 1, 1, 1, 10, 10])[:, None]
    x = random.normal(size=(scales.size, start.size)) * scales
    x[5:7] += 3
    y = _values(between, start, x)
    for name in HEADS_ONLY:
        if _agree(y, _computed(Apply(Activation(name)), [x]), 0):
            return lambda z: graph.apply(z, name)
    if any(isinstance(each.operation, Stop) for each in between):
        return None
    for epsilon in _epsilons(between):
        for centred in (True, False):
            expected = _computed(Normalise(epsilon, centred), [x])
            largest = np.abs(expected).argmax(axis=0), np.arange(start.size)
            gain = y[largest] / expected[largest]
            if _agree(y, gain * expected, np.abs(gain).max()):
                normal = graph.layer_norm if centred else graph.rms_norm
                gains = None if np.all(np.abs(gain - 1) < 1e-9) else gain
                return lambda z: normal(z, gains, epsilon=epsilon)
    return None


def _epsilons(between: list[Value]) -> Iterator[float]:
    """Yield the numbers that may be added to a variance."""
    yield 0.0
    for each in between:
        if isinstance(each.operation, Scale) and np.all(each.operation.shift == each.operation.shift[0]):
            shift = abs(float(each.operation.shift[0]))
            yield from (shift, shift**2 / each.inputs[0].size)


def _agree(y: Array, expected: Array, least: Any) -> bool:
    """Return whether results agree where they are finite; an exponential may overflow far out."""
    is_finite = np.isfinite(y)
    near = np.abs(y - expected) <= _TOLERANCE * (np.abs(expected) + 1e-2 * least)
    return bool(is_finite.mean() > 0.8 and np.all(near | ~is_finite))
