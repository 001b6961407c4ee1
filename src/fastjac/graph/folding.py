"""Makes a graph simpler: what the kernels need not compute is computed once, in float64.

Each rule leaves the number of multiply-adds as it is or lowers it; a few more may stand for inputs that are
not selected. Rules are applied until none applies. What is a chain of layers then is a chain for the kernels
too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastjac.graph.values import (
    Add,
    Affine,
    Apply,
    Concatenate,
    Input,
    Multiply,
    Operation,
    Scale,
    Select,
    Value,
    is_head,
    ordered,
)
from fastjac.layers import Activation, Layer, network_dtype, read_only

Array = NDArray[Any]
IDENTITY = Activation("identity")
# Folding (x - mean) / deviation into weights enlarges the rounding error by |mean / deviation|. In float32 it
# stays an operation of its own from this shift on.
MOST_SHIFTED = 100.0
# So many weights may come of folding a selection of inputs into them, or twice as many as there were.
_FEW_WEIGHTS = 16_384
# Most graphs take three. So many keep the time linear in the size of any graph.
_MOST_PASSES = 30


def as_graph(value: Value, dtype: DTypeLike | None) -> tuple[Value, np.dtype[Any]]:
    """Return a value as a network computes it, its arrays in one dtype, and that dtype.

    Raises
    ------
    ValueError
        If it has no input, or more than one.
    """
    inputs = [each for each in ordered(value) if isinstance(each.operation, Input)]
    if len(inputs) != 1:
        raise ValueError(f"the value is computed from {len(inputs)} inputs of fastjac.graph, expected one")
    weights = _weights(value)
    kind = network_dtype(weights, dtype if weights or dtype is not None else np.float64)
    return in_dtype(folded(value, kind), kind), kind


def _weights(value: Value) -> list[Array]:
    """Return the arrays that say in which dtype a graph computes: those of affine maps, if it has any."""
    every = [each.operation for each in ordered(value)]
    affine = [array for each in every if isinstance(each, Affine) for array in each]
    return affine or [array for each in every if isinstance(each, Scale) for array in each]


def folded(value: Value, dtype: np.dtype[Any]) -> Value:
    """Return a simpler value that equals ``value`` for all inputs, to rounding in ``dtype``."""
    with np.errstate(all="ignore"):  # Weights may be infinite.
        for _ in range(_MOST_PASSES):
            simpler = _Pass(value, dtype).result
            if simpler is value:
                break
            value = simpler
    return value


class _Pass:
    """One pass over all values, each behind its inputs."""

    def __init__(self, value: Value, dtype: np.dtype[Any]) -> None:
        self.wide = dtype.itemsize > 4
        values = ordered(value)
        uses = Counter(id(each) for user in values for each in user.inputs)
        self.is_single: dict[int, bool] = {}
        made: dict[int, Value] = {}
        for each in values:
            inputs = tuple(made[id(before)] for before in each.inputs)
            simpler = self.rewritten(each.operation, inputs, each.size)
            if simpler is None:
                same = all(a is b for a, b in zip(inputs, each.inputs, strict=True))
                simpler = each if same else Value(each.operation, inputs, each.size)
            made[id(each)] = simpler
            # What several values share keeps its own operation.
            self.is_single[id(simpler)] = uses[id(each)] == 1 and self.is_single.get(id(simpler), True)
        self.result = made[id(value)]
        self._made = made  # Keeps the values that the numbers above stand for.

    def rewritten(self, operation: Operation, inputs: tuple[Value, ...], size: int) -> Value | None:
        """Return a simpler value for an operation on values of this pass, None where no rule applies."""
        rule = _RULES.get(type(operation))
        return None if rule is None else rule(self, operation, inputs, size)

    def single(self, value: Value, kind: type) -> bool:
        """Return whether a value is of a kind of operation, and only one other value needs it."""
        return isinstance(value.operation, kind) and self.is_single.get(id(value), False)


def _scale(run: _Pass, operation: Scale, inputs: tuple[Value, ...], size: int) -> Value | None:
    (x,) = inputs
    factor, shift = operation
    before = x.operation
    if np.all(factor == 1) and np.all(shift == 0):
        return x
    if isinstance(before, Scale):
        combined = Scale(before.factor * factor, before.shift * factor + shift)
        return Value(combined, x.inputs, size)
    if isinstance(before, Affine) and run.single(x, Affine):
        w, b = (_float64(array) for array in before)
        return Value(Affine(w * factor, b * factor + shift), x.inputs, size)
    return None


def _affine(run: _Pass, operation: Affine, inputs: tuple[Value, ...], size: int) -> Value | None:
    (x,) = inputs
    before = x.operation
    if isinstance(before, Scale) and (run.wide or np.abs(before.shift).max() <= MOST_SHIFTED):
        w, b = (_float64(array) for array in operation)
        return Value(Affine(before.factor[:, None] * w, before.shift @ w + b), x.inputs, size)
    if isinstance(before, Select):
        (source,) = x.inputs
        only = isinstance(source.operation, Input) and run.is_single[id(source)]
        if (only and source.size * size <= most_weights(*operation.w.shape)) or source.size <= len(
            before.places
        ):
            w = np.zeros((source.size, size))
            np.add.at(w, before.places, operation.w)
            return Value(Affine(w, operation.b), (source,), size)
    return None


def most_weights(fan_in: int, fan_out: int) -> int:
    """Return how many weights may come of so many when a selection of inputs is folded into them."""
    return max(_FEW_WEIGHTS, 2 * fan_in * fan_out)


def _select(run: _Pass, operation: Select, inputs: tuple[Value, ...], size: int) -> Value | None:
    (x,) = inputs
    places, before = operation.places, x.operation
    if np.array_equal(places, np.arange(x.size)):
        return x
    if isinstance(before, Select):
        return Value(Select(before.places[places]), x.inputs, size)
    if isinstance(before, Concatenate):
        ends = np.cumsum([part.size for part in x.inputs])
        number = int(np.searchsorted(ends, places.min(), "right"))
        start = ends[number] - x.inputs[number].size
        if places.max() < ends[number]:
            return Value(Select(places - start), (x.inputs[number],), size)
    if size > x.size:
        return None
    if run.single(x, Affine):
        assert isinstance(before, Affine)
        return Value(Affine(before.w[:, places], before.b[places]), x.inputs, size)
    return _before_elementwise(run, operation, x)


def _before_elementwise(run: _Pass, operation: Select, x: Value) -> Value | None:
    """Return a selection that is made before all scales and activations that come before it."""
    passed: list[Operation] = []
    while run.single(x, Scale) or (run.single(x, Apply) and not is_head(x.operation)):
        passed.append(_of_some(x.operation, operation.places))
        (x,) = x.inputs
    return _followed(Value(operation, (x,), len(operation.places)), passed) if passed else None


def _of_some(operation: Operation, places: NDArray[np.intp]) -> Operation:
    """Return a scale or an activation of some entries."""
    if isinstance(operation, Scale):
        return Scale(operation.factor[places], operation.shift[places])
    assert isinstance(operation, Apply)
    return Apply(_at(operation.activation, places))


def _at(activation: Activation, places: NDArray[np.intp]) -> Activation:
    """Return the activation of some entries."""
    name, parameter = activation
    if not isinstance(parameter, tuple):
        return activation
    return Activation(name, tuple(parameter[place] for place in places))


def _concatenate(run: _Pass, operation: Concatenate, inputs: tuple[Value, ...], size: int) -> Value | None:
    parts: list[Value] = []
    for part in inputs:
        parts += part.inputs if run.single(part, Concatenate) else [part]
    merged: list[Value] = []
    for part in parts:
        last = merged[-1] if merged else None
        if last is not None and (pair := _neighbours(last, part)) is not None:
            merged[-1] = pair
        else:
            merged.append(part)
    if len(merged) == 1:
        return merged[0]
    if len(merged) < len(inputs) or len(parts) > len(inputs):
        return Value(operation, merged, size)
    first = inputs[0]
    if all(run.single(part, Affine) and part.inputs == first.inputs for part in inputs):
        w = np.hstack([part.operation.w for part in inputs])  # type: ignore[union-attr]
        b = np.concatenate([part.operation.b for part in inputs])  # type: ignore[union-attr]
        return Value(Affine(w, b), first.inputs, size)
    passed: list[Operation] = []
    while all(_is_alike(part, inputs[0]) and run.single(part, Apply) for part in inputs):
        passed.append(inputs[0].operation)
        inputs = tuple(part.inputs[0] for part in inputs)
    return _followed(Value(operation, inputs, size), passed) if passed else None


def _followed(value: Value, operations: Sequence[Operation]) -> Value:
    """Return the value after operations of one input, which are given last to first."""
    for operation in reversed(operations):
        value = Value(operation, (value,), value.size)
    return value


def _is_alike(value: Value, other: Value) -> bool:
    """Return whether both apply the same elementwise activation, with one parameter for all entries."""
    one, two = value.operation, other.operation
    if not isinstance(one, Apply) or not isinstance(two, Apply) or is_head(one):
        return False
    return one == two and not isinstance(one.activation.parameter, tuple)


def _neighbours(value: Value, other: Value) -> Value | None:
    """Return the selection of entries of one value that two selections are together."""
    one, two = value.operation, other.operation
    if isinstance(one, Select) and isinstance(two, Select) and value.inputs[0] is other.inputs[0]:
        places = np.concatenate((one.places, two.places))
        return Value(Select(places), value.inputs, places.size)
    return None


def _add(run: _Pass, operation: Add, inputs: tuple[Value, ...], size: int) -> Value | None:
    a, b = inputs
    if a is b:
        return Value(Scale(np.full(size, 2.0), np.zeros(size)), (a,), size)
    if run.single(a, Affine) and run.single(b, Affine) and a.inputs[0] is b.inputs[0]:
        one, two = a.operation, b.operation
        assert isinstance(one, Affine) and isinstance(two, Affine)
        return Value(Affine(_float64(one.w) + two.w, _float64(one.b) + two.b), a.inputs, size)
    return None


def _multiply(run: _Pass, operation: Multiply, inputs: tuple[Value, ...], size: int) -> Value | None:
    if inputs[0] is inputs[1]:
        return Value(Apply(Activation("square")), inputs[:1], size)
    return None


_RULES: dict[type, Callable[..., Value | None]] = {
    Scale: _scale,
    Affine: _affine,
    Select: _select,
    Concatenate: _concatenate,
    Add: _add,
    Multiply: _multiply,
}


def _float64(array: Array) -> Array:
    return array.astype(np.float64, copy=False)


def in_dtype(value: Value, dtype: np.dtype[Any]) -> Value:
    """Return ``value`` with read-only arrays of one dtype; what was one array still is."""
    kept: dict[int, Array] = {}

    def cast(array: Array) -> Array:
        if id(array) not in kept:
            kept[id(array)] = read_only(array, dtype)
        return kept[id(array)]

    made: dict[int, Value] = {}
    for each in ordered(value):
        operation = each.operation
        if isinstance(operation, (Affine, Scale)):
            operation = type(operation)(*(cast(array) for array in operation))
        elif isinstance(operation, Select):
            operation = Select(read_only(operation.places, np.dtype(np.intp)))
        made[id(each)] = Value(operation, (made[id(before)] for before in each.inputs), each.size)
    return made[id(value)]


def chain(value: Value) -> list[tuple[Array, Array, Activation]] | None:
    """Return the layers of a value that is a chain of them, None for any other."""
    layers: list[tuple[Array, Array, Activation]] = []
    last, at = True, value
    while not isinstance(at.operation, Input):
        activation = IDENTITY
        if isinstance(at.operation, Apply) and (last or not is_head(at.operation)):
            activation, (at,) = at.operation.activation, at.inputs
        if not isinstance(at.operation, Affine):
            return None
        layers.append((*at.operation, activation))
        last, (at,) = False, at.inputs
    return layers[::-1] or None


def of_layers(layers: Sequence[Layer]) -> Value:
    """Return the value that a chain of layers computes."""
    value = Value(Input(), (), layers[0].w.shape[0])
    for w, b, activation in layers:
        value = Value(Affine(w, b), (value,), b.size)
        if activation != IDENTITY:
            value = Value(Apply(activation), (value,), b.size)
    return value
