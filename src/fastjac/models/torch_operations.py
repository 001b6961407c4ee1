"""PyTorch's operations on tensors of which some depend on the input; the rest are arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac import graph
from fastjac.layers import SELU_ALPHA, SELU_SCALE, Activation
from fastjac.models.tensors import (
    Operand,
    Tensor,
    activated,
    by_channel,
    concatenated,
    entrywise,
    function,
    joined,
    like_before,
    matmul,
    moved,
    power,
    stacked,
    stopped,
    summed,
    tensor,
    turned,
)
from fastjac.models.torch_normalisations import NORMALISATIONS

Array = NDArray[Any]
# Takes the place that errors name, then what PyTorch's operation takes.
_Operation = Callable[..., Any]


def _add(where: str, a: Operand, b: Operand, alpha: float = 1) -> Tensor:
    return joined("add", [a, _scaled(where, b, alpha)], where)


def _subtract(where: str, a: Operand, b: Operand, alpha: float = 1) -> Tensor:
    return joined("subtract", [a, _scaled(where, b, alpha)], where)


def _scaled(where: str, x: Operand, factor: float) -> Operand:
    return x if factor == 1 else _times(where, x, factor)


def _times(where: str, a: Operand, b: Operand) -> Any:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return joined("multiply", [a, b], where)
    return a * b


def _divide(where: str, a: Operand, b: Operand, rounding_mode: str | None = None) -> Tensor:
    if rounding_mode is not None:
        raise ValueError("it rounds, so it has no derivative")
    return joined("divide", [a, b], where)


def _power(where: str, x: Operand, exponent: Any) -> Tensor:
    if isinstance(exponent, Tensor):
        raise ValueError("its exponent depends on the input, expected a number")
    if not isinstance(x, Tensor) or np.ndim(exponent) > 0:
        raise ValueError(f"its exponent is {exponent}, expected a number")
    return power(x, float(exponent), where)


def _sum_of_product(
    where: str, b: Operand, x: Operand, w: Operand, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    return _add(where, _scaled(where, matmul(x, w, where), alpha), _scaled(where, b, beta))


def _linear(where: str, x: Tensor, w: Operand, b: Operand | None = None) -> Tensor:
    y = matmul(x, moved(w, turned), where)
    return y if b is None else joined("add", [y, b], where)


def _bilinear(where: str, a: Tensor, w: Array, b: Tensor, *axes: Any) -> Tensor:
    """Follow the product of a Bilinear layer: y_k = sum_ij a_i w_kij b_j."""
    if not isinstance(w, np.ndarray):
        raise ValueError("its weight depends on the input")
    if list(axes) != [[1, 3], [0], [1, 2], [2, 3]]:
        raise ValueError("it multiplies other axes than a Bilinear layer's")
    if not isinstance(a, Tensor):
        return matmul(b, np.einsum("bi,kij->bjk", a, w)[0], where)
    left = matmul(a, w.transpose(1, 0, 2).reshape(w.shape[1], -1), where)
    left = left.moved(lambda p: p.reshape(*p.shape[:-1], w.shape[0], w.shape[2]))
    right = moved(b, lambda p: p[..., None, :])
    return summed(joined("multiply", [left, right], where), [-1], where=where)


def _clamp(where: str, x: Any, min: Any = None, max: Any = None) -> Any:
    for name, limit in (("maximum", min), ("minimum", max)):
        x = x if limit is None else joined(name, [x, limit], where)
    return x


def _elu(where: str, x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor:
    if input_scale != 1:
        raise ValueError("its input_scale is not 1")
    if math.isclose(alpha, SELU_ALPHA):
        y, gain = activated(x, "selu"), scale / SELU_SCALE
    else:
        y, gain = activated(x, Activation("elu", float(alpha))), scale
    return y if math.isclose(gain, 1) else joined("multiply", [y, gain], where)


def _softplus(where: str, x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    if threshold < 20:
        raise ValueError(f"its threshold is {threshold}, expected 20 or more")
    if beta == 1:
        return activated(x, "softplus")
    return entrywise(x, lambda value: graph.apply(value * beta, "softplus") / beta)


def _prelu(where: str, x: Tensor, slope: Operand) -> Tensor:
    if isinstance(slope, Tensor):
        raise ValueError("its slope depends on the input")
    slopes = np.asarray(slope, np.float64)
    if slopes.size == 1:
        return activated(x, Activation("leaky_relu", float(slopes.item())))
    if slopes.ndim == 1:
        slopes = by_channel(slopes, len(x.shape))
    wide = tuple(np.broadcast_to(slopes, x.shape).ravel().tolist())
    return tensor(graph.apply(x.flat, Activation("prelu", wide)), x.shape)


def _glu(where: str, x: Tensor, axis: int = -1) -> Tensor:
    half = x.shape[axis] // 2
    a = x.moved(lambda p: p.take(np.arange(half), axis))
    b = x.moved(lambda p: p.take(np.arange(half, 2 * half), axis))
    return joined("multiply", [a, activated(b, "sigmoid")], where)


def _heads(name: str) -> _Operation:
    def follow(where: str, x: Tensor, axis: int, *_: Any, **__: Any) -> Tensor:
        if not x.shape:
            return activated(x, name)
        return like_before(x, lambda row: graph.apply(row, name), axis, where)

    return follow


def _indexed(where: str, x: Tensor, indices: Sequence[Any]) -> Tensor:
    index = tuple(slice(None) if each is None else each for each in indices)
    return x.moved(lambda p: p[_constants(index)])


def _constants(index: Any) -> Any:
    if any(isinstance(each, Tensor) for each in (index if isinstance(index, tuple) else (index,))):
        raise ValueError("its index depends on the input")
    return index


def _padded(where: str, x: Tensor, pad: Sequence[int], value: float = 0.0) -> Tensor:
    for number in range(len(pad) // 2):
        axis = len(x.shape) - 1 - number
        for at_end in (False, True):
            size = pad[2 * number + at_end]
            if size < 0:
                raise ValueError("it cuts entries off")
            if size:
                more = np.full([*x.shape[:axis], size, *x.shape[axis + 1 :]], value)
                x = concatenated([x, more] if at_end else [more, x], axis)
    return x


def _copied(where: str, target: Operand, source: Operand, *_: Any) -> Tensor:
    """Return what is written over a tensor, a constant if nothing of it depends on the input."""
    if isinstance(source, Tensor):
        return source
    assert isinstance(target, Tensor)
    return joined("add", [entrywise(target, lambda value: value * 0.0), source], where)


def _dropout(where: str, x: Tensor, probability: float, training: bool) -> Tensor:
    if training and probability:
        raise ValueError("it drops units at random, also in eval mode")
    return x


def _plain(name: str) -> _Operation:
    return lambda where, x: activated(x, name)


def _function(name: str) -> _Operation:
    return lambda where, x: function(name, x, where)


def _comparison(name: str) -> _Operation:
    return lambda where, a, b: joined(name, [a, b], where)


OPERATIONS: dict[str, _Operation] = {
    "add": _add,
    "sub": _subtract,
    "rsub": lambda where, a, b, alpha=1: _subtract(where, b, a, alpha),
    "mul": _times,
    "div": _divide,
    "neg": lambda where, x: entrywise(x, lambda value: -value),
    "pow": _power,
    "square": lambda where, x: entrywise(x, lambda value: value * value),
    "addcmul": lambda where, x, a, b, value=1: _add(where, x, _times(where, a, b), value),
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "matmul"), lambda where, a, b: matmul(a, b, where)),
    **dict.fromkeys(("addmm", "addmv", "baddbmm"), _sum_of_product),
    "linear": _linear,
    "_trilinear": _bilinear,
    **{name: _plain(name) for name in ("relu", "relu6", "selu", "tanh", "sigmoid", "silu", "mish")},
    "hardsigmoid": _plain("hard_sigmoid"),
    "hardswish": _plain("hard_swish"),
    "leaky_relu": lambda where, x, slope=0.01: activated(x, Activation("leaky_relu", float(slope))),
    "elu": _elu,
    "celu": lambda where, x, alpha=1.0: activated(x, Activation("celu", float(alpha))),
    "gelu": lambda where, x, approximate="none": activated(
        x, "gelu_tanh" if approximate == "tanh" else "gelu"
    ),
    "hardtanh": lambda where, x, low=-1.0, high=1.0: _clamp(where, x, low, high),
    "clamp": _clamp,
    "clamp_min": lambda where, x, low: _clamp(where, x, low),
    "clamp_max": lambda where, x, high: _clamp(where, x, None, high),
    "softplus": _softplus,
    "log_sigmoid_forward": lambda where, x: entrywise(x, lambda value: -graph.apply(-value, "softplus")),
    "softshrink": lambda where, x, limit=0.5: _subtract(where, x, _clamp(where, x, -limit, limit)),
    **dict.fromkeys(("prelu", "_prelu_kernel"), _prelu),
    "glu": _glu,
    **{
        name: _function(name)
        for name in (
            *("exp", "sin", "cos", "abs", "sqrt", "rsqrt", "reciprocal", "log", "log1p", "expm1"),
            *("erf", "erfc", "logical_not", "isfinite"),
        )
    },
    # Only choices depend on the input and are no numbers, so these are choices.
    "bitwise_not": lambda where, x: function("logical_not", x, where),
    "maximum": _comparison("maximum"),
    "minimum": _comparison("minimum"),
    "gt": _comparison("greater"),
    "ge": _comparison("greater_equal"),
    "lt": _comparison("less"),
    "le": _comparison("less_equal"),
    "eq": _comparison("equal"),
    "ne": _comparison("not_equal"),
    "where": lambda where, condition, a, b: joined("where", [condition, a, b], where),
    "masked_fill": lambda where, x, mask, value: joined("where", [mask, value, x], where),
    **dict.fromkeys(("softmax", "_softmax", "_safe_softmax"), _heads("softmax")),
    **dict.fromkeys(("log_softmax", "_log_softmax"), _heads("log_softmax")),
    **NORMALISATIONS,
    "cat": lambda where, parts, axis=0: concatenated(
        [part for part in parts if isinstance(part, Tensor) or np.size(part)], axis
    ),
    "stack": lambda where, parts, axis=0: stacked(parts, axis),
    "index": _indexed,
    "index_select": lambda where, x, axis, index: x.moved(lambda p: p.take(_constants(index), axis)),
    "gather": lambda where, x, axis, index: x.moved(lambda p: np.take_along_axis(p, _constants(index), axis)),
    "repeat": lambda where, x, repeats: x.moved(lambda p: np.tile(p, repeats)),
    "flip": lambda where, x, axes: x.moved(lambda p: np.flip(p, axes)),
    "roll": lambda where, x, shifts, axes=(): x.moved(
        lambda p: np.roll(p, shifts, tuple(axes)) if axes else np.roll(p, shifts)
    ),
    "constant_pad_nd": _padded,
    "native_dropout": _dropout,
    "detach": lambda where, x: stopped(x, where),
    **dict.fromkeys(("copy", "fill"), _copied),
    "zero": lambda where, x: _copied(where, x, 0.0),
    **dict.fromkeys(
        ("clone", "contiguous", "_to_copy", "to", "lift_fresh", "alias"),
        lambda where, x, *_, **__: x,
    ),
    "_unsafe_view": lambda where, x, shape: x.moved(lambda p: p.reshape(shape)),
}
