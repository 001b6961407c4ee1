"""Tensors of a framework as entries of a value of `fastjac.graph`.

A tensor has the places of its entries in a value. So all that moves entries about, such as a reshape, a
transpose or a slice, is NumPy's on these places.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, Union

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple
from numpy.typing import NDArray

from fastjac import graph
from fastjac.graph.values import Value
from fastjac.layers import Activation
from fastjac.models import recognise

Array = NDArray[Any]
Operand: TypeAlias = Union["Tensor", Array, float]
# The rows on which a layer works one by one, as in a sequence of tokens.
_MOST_ROWS = 4096


class Tensor(NamedTuple):
    """The entries ``places``, of any shape, of a value."""

    value: Value
    places: NDArray[np.intp]

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of its axes."""
        return self.places.shape

    @property
    def flat(self) -> Value:
        """Its entries in C order."""
        return selected(self.value, self.places)

    def moved(self, function: Callable[[NDArray[np.intp]], NDArray[np.intp]]) -> Tensor:
        """Return the tensor after a function that moves its entries."""
        return Tensor(self.value, function(self.places))


def tensor(value: Value, shape: Sequence[int] | None = None) -> Tensor:
    """Return all entries of a value as a tensor of a shape."""
    places = np.arange(value.size)
    return Tensor(value, places if shape is None else places.reshape(shape))


def moved(operand: Operand, function: Callable[[Array], Array]) -> Any:
    """Return a tensor or a constant after a function that moves its entries."""
    return operand.moved(function) if isinstance(operand, Tensor) else function(np.asarray(operand))


def by_channel(parameters: Array, axes: int) -> Array:
    """Return parameters along the second of so many axes: that of channels, behind that of samples."""
    return parameters.reshape(-1, *[1] * (axes - 2))


def turned(matrices: Array) -> Array:
    """Return matrices with their rows as columns; a vector stays as it is."""
    return matrices.swapaxes(-1, -2) if matrices.ndim > 1 else matrices


def selected(value: Value, places: NDArray[np.intp]) -> Value:
    """Return some entries of a value, itself if they are all of them in order."""
    flat = places.ravel()
    is_all = flat.size == value.size and np.array_equal(flat, np.arange(flat.size))
    return value if is_all else graph.select(value, flat)


def constant(array: Array, of: Value) -> Tensor:
    """Return a constant as a tensor that depends on a value, if only by name."""
    zeros = graph.multiply(graph.select(of, np.zeros(array.size, np.intp)), 0.0)
    return tensor(graph.add(zeros, np.ravel(array)), array.shape)


def entrywise(x: Tensor, f: Callable[[Value], Value]) -> Tensor:
    """Return a function of each entry, computed before entries are repeated."""
    if x.places.size > x.value.size:
        return Tensor(f(x.value), x.places)
    return tensor(f(x.flat), x.shape)


def activated(x: Tensor, activation: str | Activation) -> Tensor:
    """Return an activation of each entry."""
    return entrywise(x, lambda value: graph.apply(value, activation))


def joined(name: str, operands: Sequence[Operand], where: str) -> Tensor:
    """Return a sum, product or another function of tensors and constants, as NumPy broadcasts."""
    shape = np.broadcast_shapes(*(np.shape(getattr(each, "places", each)) for each in operands))
    flat: list[Any] = []
    for each in operands:
        if isinstance(each, Tensor):
            flat.append(selected(each.value, np.broadcast_to(each.places, shape)))
        else:
            flat.append(np.broadcast_to(np.asarray(each, np.float64), shape).ravel())
    return tensor(_joined(name, flat, where), shape)


def _joined(name: str, flat: list[Any], where: str) -> Value:
    a, b = flat[:2]
    if name == "add":
        return graph.add(a, b)
    if name == "subtract":
        return graph.add(a, -b)
    if name == "multiply":
        return graph.multiply(a, b)
    if name == "divide" and not isinstance(b, Value):
        return graph.multiply(a, 1 / b)
    if name == "divide" and not isinstance(a, Value):
        return graph.multiply(recognise.function("reciprocal", [b], where), a)
    if name in ("maximum", "minimum"):
        return _larger(a, b) if name == "maximum" else -_larger(-a, -b)
    if name == "where" and not isinstance(a, Value):
        return _chosen(a != 0, *flat[1:])
    return recognise.function(name, [_as_value(each, flat) for each in flat], where)


def _larger(a: Any, b: Any) -> Value:
    """Return the larger of each two entries, of which one may be a constant."""
    if not isinstance(a, Value):
        a, b = b, a
    if isinstance(b, Value):
        return graph.add(b, graph.apply(graph.add(a, -b), "relu"))
    infinite = np.isinf(b)
    if np.all(b[infinite] < 0) and infinite.any():
        return _chosen(infinite, a, a if infinite.all() else _larger(a, np.where(infinite, 0, b)))
    return graph.add(graph.apply(graph.add(a, -b), "relu"), b)


def _chosen(condition: Array, a: Any, b: Any) -> Value:
    """Return the entries of ``a`` where a constant condition holds, else those of ``b``."""
    if condition.all() or not condition.any():
        return _as_value(a if condition.all() else b, [a, b])
    both = graph.concatenate([_as_value(each, [a, b]) for each in (a, b)])
    return graph.select(both, np.arange(condition.size) + condition.size * ~condition)


def _as_value(operand: Any, among: list[Any]) -> Value:
    if isinstance(operand, Value):
        return operand
    return constant(operand, next(each for each in among if isinstance(each, Value))).value


def power(x: Tensor, exponent: float, where: str) -> Tensor:
    """Return a power of each entry: a whole number up to 8, a half, or the negative of one."""
    size = abs(exponent)
    if size != 0.5 and size not in range(9):
        raise ValueError(f"its exponent is {exponent:g}, expected a whole number up to 8, or a half")
    if size == 0.5:
        return function("sqrt" if exponent > 0 else "rsqrt", x, where)
    result = entrywise(x, lambda value: _whole_power(value, int(size)))
    return function("reciprocal", result, where) if exponent < 0 else result


def _whole_power(value: Value, power: int) -> Value:
    """Return a product of equal factors, ones if there are none."""
    if power == 0:
        return constant(np.ones(value.size), value).value
    if power == 1:
        return value
    half = _whole_power(value, power // 2)
    even = half * half
    return even * value if power % 2 else even


def function(name: str, x: Tensor, where: str) -> Tensor:
    """Return a function of each entry that may be no activation."""
    return entrywise(x, lambda value: recognise.function(name, [value], where))


def stopped(x: Tensor, where: str) -> Tensor:
    """Return a tensor of which no derivative is taken."""
    return entrywise(x, lambda value: recognise.stop(value, where))


def rows(x: Tensor, f: Callable[[Value], Value], axes: int | Sequence[int] = -1, where: str = "") -> Tensor:
    """Return a function of the vectors along some axes, which comes back along the last one."""
    along = _from_front(x, axes)
    last = np.moveaxis(x.places, along, range(-len(along), 0))
    others = last.shape[: last.ndim - len(along)]
    each = last.reshape(math.prod(others), -1)
    if len(each) > _MOST_ROWS:
        raise ValueError(f"{where} works on {len(each)} vectors, expected at most {_MOST_ROWS}")
    results = [f(selected(x.value, row)) for row in each]
    return tensor(graph.concatenate(results), (*others, results[0].size))


def like_before(x: Tensor, f: Callable[[Value], Value], axes: int | Sequence[int], where: str) -> Tensor:
    """Return a function of the vectors along some axes, which keeps their entries in place."""
    along = _from_front(x, axes)
    last = range(-len(along), 0)
    shape = np.moveaxis(x.places, along, last).shape
    return rows(x, f, along, where).moved(lambda p: np.moveaxis(p.reshape(shape), last, along))


def _from_front(x: Tensor, axes: int | Sequence[int]) -> list[int]:
    return list(normalize_axis_tuple(axes, len(x.shape)))


def product(x: Tensor, w: Array, where: str) -> Tensor:
    """Return ``x @ w`` along the last axis."""
    return rows(x, lambda row: graph.affine(row, w), where=where)


def matmul(a: Operand, b: Operand, where: str) -> Tensor:
    """Return ``a @ b``, as NumPy multiplies matrices, of which one may be a constant."""
    if isinstance(a, Tensor) and not isinstance(b, Tensor):
        w = np.asarray(b)
        if w.ndim == 1:
            return product(a, w[:, None], where).moved(lambda p: p[..., 0])
        if w.ndim == 2:
            return product(a, w, where)
        if len(a.shape) > 1 and w.ndim >= 3:
            return _batched(a, w, where)
    if isinstance(b, Tensor) and not isinstance(a, Tensor):
        w = turned(np.asarray(a))
        result = matmul(b.moved(turned), w, where)
        return result.moved(turned) if w.ndim > 1 else result
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        raise ValueError(f"{where} multiplies matrices of shapes {np.shape(a)} and {np.shape(b)}")
    b = b.moved(turned)
    if len(a.shape) > 1 and len(b.shape) > 1:
        a, b = a.moved(lambda p: p[..., :, None, :]), b.moved(lambda p: p[..., None, :, :])
    return summed(joined("multiply", [a, b], where), [-1], where=where)


def _batched(a: Tensor, w: Array, where: str) -> Tensor:
    """Return ``a @ w`` where ``w`` has more than two axes."""
    lead = np.broadcast_shapes(a.shape[:-2], w.shape[:-2])
    left = np.broadcast_to(a.places, (*lead, *a.shape[-2:])).reshape(-1, *a.shape[-2:])
    right = np.broadcast_to(w, (*lead, *w.shape[-2:])).reshape(-1, *w.shape[-2:])
    parts = [product(Tensor(a.value, one), other, where) for one, other in zip(left, right, strict=True)]
    return stacked(parts).moved(lambda p: p.reshape(*lead, *p.shape[1:]))


def stacked(parts: Sequence[Operand], axis: int = 0) -> Tensor:
    """Return tensors and constants along a new axis."""
    return concatenated([moved(part, lambda p: np.expand_dims(p, axis)) for part in parts], axis)


def concatenated(parts: Sequence[Operand], axis: int) -> Tensor:
    """Return tensors and constants one behind the other along an axis."""
    of = next(part.value for part in parts if isinstance(part, Tensor))
    every = [part if isinstance(part, Tensor) else constant(np.asarray(part), of) for part in parts]
    if all(part.value is of for part in every):
        return Tensor(of, np.concatenate([part.places for part in every], axis))
    values = list({id(part.value): part.value for part in every}.values())
    starts = np.cumsum([0, *(value.size for value in values)])
    start = {id(value): int(begin) for value, begin in zip(values, starts[:-1], strict=True)}
    places = np.concatenate([part.places + start[id(part.value)] for part in every], axis)
    return Tensor(graph.concatenate(values), places)


def summed(x: Tensor, axes: Sequence[int], keep: bool = False, name: str = "sum", where: str = "") -> Tensor:
    """Return sums, means or maxima along axes."""
    if not x.shape:
        return x
    along = sorted(_from_front(x, axes))
    count = math.prod(x.shape[axis] for axis in along)
    kind = "max" if name == "max" else "sum"
    result = rows(x, lambda row: recognise.total(kind, row, where), along, where)
    if name == "mean":
        result = entrywise(result, lambda value: value * (1 / count))
    return result.moved(lambda p: np.expand_dims(p[..., 0], along) if keep else p[..., 0])


def normalised(
    x: Tensor,
    axes: int | Sequence[int],
    gain: Array | None,
    bias: Array | None,
    epsilon: float,
    centred: bool,
    where: str,
) -> Tensor:
    """Return layer_norm or rms_norm over axes, with flat gain and bias."""

    def of_row(row: Value) -> Value:
        factor = None if gain is None else np.ravel(gain)
        value = normal(row, factor, epsilon=epsilon)
        return value if bias is None else value + np.ravel(bias)

    normal: Callable[..., Value] = graph.layer_norm if centred else graph.rms_norm
    return like_before(x, of_row, axes, where)
