"""Values that are computed from one input vector, and the operations that compute them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastjac.arguments import real_array
from fastjac.layers import HEADS_ONLY, Activation, as_activation

Array = NDArray[Any]


class Input(NamedTuple):
    """The network's input."""


class Affine(NamedTuple):
    """``x @ w + b`` with ``w`` (fan_in, fan_out) and ``b`` (fan_out,)."""

    w: Array
    b: Array


class Apply(NamedTuple):
    """An activation of each entry, or softmax or log_softmax of all entries."""

    activation: Activation


class Scale(NamedTuple):
    """``x * factor + shift``, both (n,)."""

    factor: Array
    shift: Array


class Add(NamedTuple):
    """The sum of two values of one size."""


class Multiply(NamedTuple):
    """The product of two values of one size, entry by entry."""


class Concatenate(NamedTuple):
    """Values one behind the other."""


class Select(NamedTuple):
    """``x[places]`` with ``places`` (k,); an entry may be taken more than once."""

    places: NDArray[np.intp]


class Normalise(NamedTuple):
    """``(x - m) / sqrt(mean((x - m)**2) + epsilon)``, where m is the mean of x, or 0 unless ``centred``."""

    epsilon: float
    centred: bool


Operation: TypeAlias = Input | Affine | Apply | Scale | Add | Multiply | Concatenate | Select | Normalise


class Value:
    """A vector that is computed from the network's input.

    Values are made by the functions of `fastjac.graph`. They add and multiply, with each other, with
    numbers and with arrays (size,), and indices select some of their entries, as with NumPy's arrays.

    Attributes
    ----------
    operation : Operation
        How it is computed.
    inputs : tuple of Value
        From which values.
    size : int
        Its entries.
    """

    __slots__ = ("inputs", "operation", "size")
    __array_ufunc__ = None  # array + value asks the value.

    operation: Operation
    inputs: tuple[Value, ...]
    size: int

    def __init__(self, operation: Operation, inputs: Iterable[Value], size: int) -> None:
        for name, value in (("operation", operation), ("inputs", tuple(inputs)), ("size", int(size))):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Value is immutable: {name} cannot be set")

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Any:
        return (self[i] for i in range(self.size))

    def __repr__(self) -> str:
        return f"<Value ({self.size},) of {type(self.operation).__name__.lower()}>"

    def __getitem__(self, index: Any) -> Value:
        return select(self, index)

    def __add__(self, other: Value | ArrayLike) -> Value:
        return add(self, other)

    __radd__ = __add__

    def __mul__(self, other: Value | ArrayLike) -> Value:
        return multiply(self, other)

    __rmul__ = __mul__

    def __neg__(self) -> Value:
        return multiply(self, -1)

    def __sub__(self, other: Value | ArrayLike) -> Value:
        return add(self, -other if isinstance(other, Value) else np.negative(real_array(other, "other")))

    def __rsub__(self, other: ArrayLike) -> Value:
        return add(-self, other)

    def __truediv__(self, other: ArrayLike) -> Value:
        if isinstance(other, Value):
            raise TypeError("a Value is divided by a number or an array, not by another Value")
        with np.errstate(divide="ignore", over="ignore"):
            return multiply(self, 1 / real_array(other, "divisor").astype(np.float64))

    def __reduce__(self) -> tuple[Any, ...]:
        # A list in order, so that pickle follows no long chain by recursion.
        values = ordered(self)
        number = {id(value): i for i, value in enumerate(values)}
        rows = [
            (value.operation, [number[id(each)] for each in value.inputs], value.size) for value in values
        ]
        return _rebuilt, (rows,)


def _rebuilt(rows: Sequence[tuple[Operation, Sequence[int], int]]) -> Value:
    values: list[Value] = []
    for operation, inputs, size in rows:
        values.append(Value(operation, (values[i] for i in inputs), size))
    return values[-1]


def ordered(value: Value) -> list[Value]:
    """Return all values that ``value`` is computed from, and itself, each behind its inputs."""
    found: dict[int, Value] = {}
    waiting = [(value, False)]
    while waiting:
        each, is_ready = waiting.pop()
        if id(each) in found:
            continue
        if is_ready:
            found[id(each)] = each
        else:
            waiting.append((each, True))
            waiting += [(before, False) for before in reversed(each.inputs)]
    return list(found.values())


def input(size: int) -> Value:
    """Return the network's input, a vector of ``size`` numbers.

    Raises
    ------
    TypeError, ValueError
        If ``size`` is not a positive integer.
    """
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)):
        raise TypeError(f"size must be an integer, got {type(size).__name__}")
    if size < 1:
        raise ValueError(f"size is {size}, expected a positive integer")
    return Value(Input(), (), int(size))


def affine(
    x: Value, w: ArrayLike, b: ArrayLike | None = None, activation: str | Activation = "identity"
) -> Value:
    """Return ``activation(x @ w + b)``.

    Parameters
    ----------
    x : Value, (fan_in,)
    w : array_like, (fan_in, fan_out)
        Weights.
    b : array_like, (fan_out,), optional
        Bias.
    activation : str or Activation, default "identity"
        Of the sum; softmax and log_softmax too.

    Raises
    ------
    ValueError, TypeError
        If a shape, a name or a dtype does not fit; the message names the argument.
    """
    _check_value(x, "x")
    weights = real_array(w, "w")
    if weights.ndim != 2 or 0 in weights.shape:
        raise ValueError(f"w has shape {weights.shape}, expected (fan_in, fan_out), each at least 1")
    if weights.shape[0] != x.size:
        hint = "; w.T would fit" if weights.shape[1] == x.size else ""
        raise ValueError(f"w has shape {weights.shape}, but x has {x.size} entries{hint}")
    bias = np.zeros(weights.shape[1], weights.dtype) if b is None else real_array(b, "b")
    if bias.shape != weights.shape[1:]:
        raise ValueError(f"b has shape {bias.shape}, expected {weights.shape[1:]}")
    return apply(Value(Affine(weights, bias), (x,), weights.shape[1]), activation)


def apply(x: Value, activation: str | Activation) -> Value:
    """Return an activation of each entry (n,) of ``x``, or softmax or log_softmax of all.

    Raises
    ------
    ValueError, TypeError
        If the name is not in `fastjac.layers.ACTIVATIONS`, or has not one parameter for each entry.
    """
    _check_value(x, "x")
    kind = as_activation(activation)
    if isinstance(kind.parameter, tuple) and len(kind.parameter) != x.size:
        raise ValueError(f"activation is {kind}, expected one for each of the {x.size} entries of x")
    return x if kind.name == "identity" else Value(Apply(kind), (x,), x.size)


def softmax(x: Value) -> Value:
    """Return the probabilities of the logits ``x``."""
    return apply(x, "softmax")


def log_softmax(x: Value) -> Value:
    """Return the logarithms of the probabilities of the logits ``x``."""
    return apply(x, "log_softmax")


def add(*values: Value | ArrayLike) -> Value:
    """Return the sum (n,) of values and constants (n,); one entry is added to each of many.

    Raises
    ------
    ValueError, TypeError
        If the sizes differ, a constant is none of real numbers, or none of all is a Value.
    """
    return _combined("add", values, Add(), lambda constant, size: Scale(np.ones(size), constant))


def multiply(*values: Value | ArrayLike) -> Value:
    """Return the product (n,), entry by entry, of values and constants (n,), or of one entry; see `add`."""
    return _combined("multiply", values, Multiply(), lambda constant, size: Scale(constant, np.zeros(size)))


def concatenate(values: Iterable[Value]) -> Value:
    """Return values one behind the other, with as many entries as they have together.

    Raises
    ------
    ValueError, TypeError
        If there are none, or one is no Value; the message has its number.
    """
    parts = tuple(values)
    for number, part in enumerate(parts):
        _check_value(part, f"values[{number}]")
    if not parts:
        raise ValueError("values is empty, expected at least one Value")
    return parts[0] if len(parts) == 1 else Value(Concatenate(), parts, sum(part.size for part in parts))


def select(x: Value, index: Any) -> Value:
    """Return some entries of ``x``: an integer (one entry), a slice, a list of integers or a mask (n,).

    Raises
    ------
    IndexError, ValueError
        If the index does not fit ``x``, or selects nothing.
    """
    _check_value(x, "x")
    if isinstance(index, tuple):
        raise IndexError(f"a Value has one axis, got {len(index)} indices")
    try:
        places = np.atleast_1d(np.arange(x.size)[index])
    except IndexError as error:
        raise IndexError(f"index does not fit the {x.size} entries of x: {error}") from None
    if places.ndim != 1 or places.size == 0:
        raise ValueError(f"index selects shape {places.shape}, expected (k,) with at least one entry")
    return Value(Select(places), (x,), places.size)


def layer_norm(
    x: Value, gain: ArrayLike | None = None, bias: ArrayLike | None = None, epsilon: float = 1e-5
) -> Value:
    """Return ``(x - mean(x)) / sqrt(var(x) + epsilon) * gain + bias``.

    Parameters
    ----------
    x : Value, (n,)
    gain, bias : array_like, (n,), optional
        Default: 1 and 0.
    epsilon : float
        At least 0.

    Raises
    ------
    ValueError, TypeError
        If a shape, a dtype or ``epsilon`` does not fit; the message names the argument.

    Notes
    -----
    Ba, Kiros and Hinton, Layer Normalization, 2016. The variance is the mean of the squares.
    """
    return _normalised(x, gain, bias, epsilon, centred=True)


def rms_norm(x: Value, gain: ArrayLike | None = None, epsilon: float = 1e-5) -> Value:
    """Return ``x / sqrt(mean(x**2) + epsilon) * gain``; see `layer_norm`.

    Notes
    -----
    Zhang and Sennrich, Root Mean Square Layer Normalization, 2019.
    """
    return _normalised(x, gain, None, epsilon, centred=False)


def _normalised(
    x: Value, gain: ArrayLike | None, bias: ArrayLike | None, epsilon: float, centred: bool
) -> Value:
    _check_value(x, "x")
    if not isinstance(epsilon, Real):
        raise TypeError(f"epsilon must be a number, got {type(epsilon).__name__}")
    if not 0 <= epsilon < np.inf:
        raise ValueError(f"epsilon is {epsilon}, expected a number of at least 0")
    value = Value(Normalise(float(epsilon), centred), (x,), x.size)
    if gain is None and bias is None:
        return value
    factor = np.ones(x.size) if gain is None else _constant(gain, "gain", x.size)
    shift = np.zeros(x.size) if bias is None else _constant(bias, "bias", x.size)
    return Value(Scale(factor, shift), (value,), x.size)


def _combined(
    name: str,
    values: Sequence[Value | ArrayLike],
    operation: Operation,
    with_constant: Callable[[Array, int], Operation],
) -> Value:
    """Return a sum or product of values and constants, from the left."""
    if not any(isinstance(value, Value) for value in values):
        raise TypeError(f"{name} takes at least one Value")
    shapes = [value.size if isinstance(value, Value) else _size(value, name) for value in values]
    sizes = {*shapes} - {1}
    if len(sizes) > 1:
        raise ValueError(f"{name} takes values of one size, got {', '.join(map(str, shapes))}")
    size = max(shapes)
    result: Value | None = None
    # Values first: a constant is applied to what there is.
    for value in sorted(values, key=lambda each: not isinstance(each, Value)):
        if isinstance(value, Value):
            wide = value if value.size == size else select(value, np.zeros(size, np.intp))
            result = wide if result is None else Value(operation, (result, wide), size)
        else:
            assert result is not None
            result = Value(with_constant(_constant(value, name, size), size), (result,), size)
    assert result is not None
    return result


def _size(constant: ArrayLike, name: str) -> int:
    array = real_array(constant, f"a constant of {name}")
    if array.ndim > 1 or array.size == 0:
        raise ValueError(f"a constant of {name} has shape {array.shape}, expected () or (n,)")
    return array.size


def _constant(constant: ArrayLike, name: str, size: int) -> Array:
    array = real_array(constant, name)
    if array.shape not in ((), (1,), (size,)):
        raise ValueError(f"{name} has shape {array.shape}, expected ({size},)")
    return np.broadcast_to(array, (size,))


def _check_value(value: Any, name: str) -> None:
    if not isinstance(value, Value):
        raise TypeError(f"{name} must be a Value of fastjac.graph, got {type(value).__name__}")


def is_head(operation: Operation) -> bool:
    """Return whether an operation is softmax or log_softmax."""
    return isinstance(operation, Apply) and operation.activation.name in HEADS_ONLY
