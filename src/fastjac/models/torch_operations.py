"""PyTorch's operations on tensors of which some depend on the input; the rest are arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac import graph
from fastjac.layers import Activation
from fastjac.models.tensors import (
    Operand,
    Tensor,
    activated,
    concatenated,
    entrywise,
    function,
    joined,
    like_before,
    matmul,
    normalised,
    stacked,
    stopped,
    summed,
    tensor,
    whole_power,
)

Array = NDArray[Any]
# Takes the place that errors name, then what PyTorch's operation takes.
_Operation = Callable[..., Any]


def _add(where: str, a: Operand, b: Operand, alpha: float = 1) -> Tensor:
    return joined("add", [a, b if alpha == 1 else _times(where, b, alpha)], where)


def _subtract(where: str, a: Operand, b: Operand, alpha: float = 1) -> Tensor:
    return joined("subtract", [a, b if alpha == 1 else _times(where, b, alpha)], where)


def _times(where: str, a: Operand, b: Operand) -> Any:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return joined("multiply", [a, b], where)
    return a * b


def _divide(where: str, a: Operand, b: Operand, rounding_mode: str | None = None) -> Tensor:
    if rounding_mode is not None:
        raise ValueError("it rounds, so it has no derivative")
    return joined("divide", [a, b], where)


def _power(where: str, x: Operand, exponent: Any) -> Tensor:
    if isinstance(x, Tensor) and np.ndim(exponent) == 0 and not isinstance(exponent, Tensor):
        power = float(exponent)
        if power in (0.5, -0.5, -1):
            return function({0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}[power], x, where)
        if power in range(1, 9):
            return entrywise(x, lambda value: whole_power(value, int(power)))
    raise ValueError(f"its exponent is {exponent}, expected a whole number from 1 to 8, or -1, 0.5 or -0.5")


def _sum_of_product(
    where: str, b: Operand, x: Operand, w: Operand, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    both = matmul(x, w, where)
    return _add(
        where, both if alpha == 1 else _times(where, both, alpha), _times(where, b, beta) if beta != 1 else b
    )


def _linear(where: str, x: Tensor, w: Any, b: Operand | None = None) -> Tensor:
    y = matmul(x, w.moved(lambda p: p.T) if isinstance(w, Tensor) else w.T, where)
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
    other = b.moved(lambda p: p[..., None, :]) if isinstance(b, Tensor) else b[..., None, :]
    return summed(joined("multiply", [left, other], where), [-1], where=where)


def _clamp(where: str, x: Any, low: Any = None, high: Any = None, **limits: Any) -> Tensor:
    low, high = (limits.get(name, given) for name, given in (("min", low), ("max", high)))
    for name, limit in (("maximum", low), ("minimum", high)):
        x = x if limit is None else joined(name, [x, limit], where)
    clipped: Tensor = x
    return clipped


def _elu(where: str, x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor:
    if math.isclose(alpha, 1.6732632423543772) and input_scale == 1:
        y = activated(x, "selu")
        gain = scale / 1.0507009873554805
    else:
        # elu is not of the same slope on both sides, so the input's scale goes into both.
        y = activated(joined("multiply", [x, float(input_scale)], where), Activation("elu", float(alpha)))
        gain = scale
        if input_scale != 1:
            raise ValueError("its input_scale is not 1")
    return y if math.isclose(gain, 1) else joined("multiply", [y, gain], where)


def _softplus(where: str, x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    if threshold < 20:
        raise ValueError(f"its threshold is {threshold}, expected 20 or more")
    if beta == 1:
        return activated(x, "softplus")
    return entrywise(x, lambda value: graph.apply(value * beta, "softplus") / beta)


def _soft_shrink(where: str, x: Tensor, limit: float = 0.5) -> Tensor:
    return joined("subtract", [x, _clamp(where, x, -limit, limit)], where)


def _prelu(where: str, x: Tensor, slope: Operand) -> Tensor:
    if isinstance(slope, Tensor):
        raise ValueError("its slope depends on the input")
    slopes = np.asarray(slope, np.float64)
    if slopes.ndim == 1 and slopes.size > 1 and len(x.shape) > 2:
        slopes = slopes.reshape(-1, *[1] * (len(x.shape) - 2))
    if slopes.size == 1:
        return activated(x, Activation("leaky_relu", float(slopes.item())))
    wide = tuple(np.broadcast_to(slopes, x.shape).ravel().tolist())
    return tensor(graph.apply(x.flat, Activation("prelu", wide)), x.shape)


def _glu(where: str, x: Tensor, axis: int = -1) -> Tensor:
    half = x.shape[axis] // 2
    a = x.moved(lambda p: p.take(np.arange(half), axis))
    b = x.moved(lambda p: p.take(np.arange(half, 2 * half), axis))
    return joined("multiply", [a, activated(b, "sigmoid")], where)


def _heads(name: str) -> _Operation:
    def follow(where: str, x: Tensor, axis: int, *_: Any, **__: Any) -> Tensor:
        return like_before(x, lambda row: graph.apply(row, name), axis, where) if x.shape else _one(x, name)

    return follow


def _one(x: Tensor, name: str) -> Tensor:
    return entrywise(x, lambda value: graph.apply(value, name))


def _layer_norm(
    where: str,
    x: Tensor,
    shape: Sequence[int],
    gain: Any = None,
    bias: Any = None,
    epsilon: float = 1e-5,
    *_: Any,
) -> Tensor:
    return normalised(x, list(range(-len(shape), 0)), _fixed(gain), _fixed(bias), epsilon, True, where)


def _rms_norm(
    where: str, x: Tensor, shape: Sequence[int], gain: Any = None, epsilon: float | None = None
) -> Tensor:
    least = float(np.finfo(np.float32).eps) if epsilon is None else epsilon
    return normalised(x, list(range(-len(shape), 0)), _fixed(gain), None, least, False, where)


def _fixed(parameter: Any) -> Array | None:
    if isinstance(parameter, Tensor):
        raise ValueError("its parameters depend on the input")
    return None if parameter is None else np.asarray(parameter)


def _group_norm(
    where: str,
    x: Tensor,
    gain: Any,
    bias: Any,
    count: int,
    channels: int,
    size: int,
    groups: int,
    epsilon: float,
) -> Tensor:
    shape = x.shape
    parts = x.moved(lambda p: p.reshape(count * groups, -1))
    y = normalised(parts, [-1], None, None, epsilon, True, where).moved(lambda p: p.reshape(shape))
    along = (-1, *[1] * (len(shape) - 2))
    for name, part in (("multiply", _fixed(gain)), ("add", _fixed(bias))):
        if part is not None:
            y = joined(name, [y, part.reshape(along)], where)
    return y


def _batch_norm(
    where: str, x: Tensor, gain: Any, bias: Any, mean: Any, variance: Any, training: Any, *rest: Any
) -> Tensor:
    epsilon = rest[-1] if isinstance(rest[-1], float) else rest[1]
    if training or mean is None or variance is None:
        raise ValueError("it keeps no running statistics, so its output depends on the whole batch")
    along = (-1, *[1] * (len(x.shape) - 2))
    factor = 1 / np.sqrt(variance + epsilon) * (1 if gain is None else gain)
    shift = (0 if bias is None else bias) - mean * factor
    return joined("add", [joined("multiply", [x, factor.reshape(along)], where), shift.reshape(along)], where)


def _reduction(name: str) -> _Operation:
    def follow(where: str, x: Tensor, axes: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
        along = [axes] if isinstance(axes, int) else list(axes) if axes else list(range(len(x.shape)))
        return summed(x, along, keepdim, name, where)

    return follow


def _variance(
    where: str, x: Tensor, axes: Any = None, *, correction: float | None = None, keepdim: bool = False
) -> Tensor:
    along = [axes] if isinstance(axes, int) else list(axes) if axes else list(range(len(x.shape)))
    centred = joined("subtract", [x, summed(x, along, True, "mean", where)], where)
    squares = entrywise(centred, lambda value: value * value)
    count = np.prod([x.shape[axis] for axis in along])
    total = summed(squares, along, keepdim, "sum", where)
    return entrywise(total, lambda value: value * (1 / (count - (1 if correction is None else correction))))


def _norm(
    where: str, x: Tensor, order: float = 2, axes: Any = None, keepdim: bool = False, **_: Any
) -> Tensor:
    if order != 2:
        raise ValueError(f"its order is {order}, expected 2")
    along = [axes] if isinstance(axes, int) else list(axes) if axes else list(range(len(x.shape)))
    total = summed(entrywise(x, lambda value: value * value), along, keepdim, "sum", where)
    return function("sqrt", total, where)


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


def _masked_fill(where: str, x: Tensor, mask: Operand, value: Any) -> Tensor:
    return joined("where", [mask, value, x], where)


def _nothing(where: str, x: Tensor, *_: Any, **__: Any) -> Tensor:
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
    "mm": lambda where, a, b: matmul(a, b, where),
    "bmm": lambda where, a, b: matmul(a, b, where),
    "mv": lambda where, a, b: matmul(a, b, where),
    "dot": lambda where, a, b: matmul(a, b, where),
    "matmul": lambda where, a, b: matmul(a, b, where),
    "addmm": _sum_of_product,
    "addmv": _sum_of_product,
    "baddbmm": _sum_of_product,
    "linear": _linear,
    "_trilinear": _bilinear,
    "relu": _plain("relu"),
    "relu6": _plain("relu6"),
    "leaky_relu": lambda where, x, slope=0.01: activated(x, Activation("leaky_relu", float(slope))),
    "elu": _elu,
    "selu": _plain("selu"),
    "celu": lambda where, x, alpha=1.0: activated(x, Activation("celu", float(alpha))),
    "hardtanh": lambda where, x, low=-1.0, high=1.0: _clamp(where, x, low, high),
    "clamp": _clamp,
    "clamp_min": lambda where, x, low: _clamp(where, x, low),
    "clamp_max": lambda where, x, high: _clamp(where, x, None, high),
    "maximum": _comparison("maximum"),
    "minimum": _comparison("minimum"),
    "tanh": _plain("tanh"),
    "sigmoid": _plain("sigmoid"),
    "silu": _plain("silu"),
    "mish": _plain("mish"),
    "gelu": lambda where, x, approximate="none": activated(
        x, "gelu_tanh" if approximate == "tanh" else "gelu"
    ),
    "hardsigmoid": _plain("hard_sigmoid"),
    "hardswish": _plain("hard_swish"),
    "softplus": _softplus,
    "log_sigmoid_forward": lambda where, x: entrywise(x, lambda value: -graph.apply(-value, "softplus")),
    "softshrink": _soft_shrink,
    "_prelu_kernel": _prelu,
    "prelu": _prelu,
    "glu": _glu,
    **{
        name: _function(name)
        for name in ("exp", "sin", "cos", "abs", "sqrt", "rsqrt", "reciprocal", "log", "log1p", "expm1")
    },
    **{name: _function(name) for name in ("erf", "erfc", "logical_not", "isfinite")},
    **{
        short: _comparison(name)
        for short, name in (
            ("gt", "greater"),
            ("ge", "greater_equal"),
            ("lt", "less"),
            ("le", "less_equal"),
            ("eq", "equal"),
            ("ne", "not_equal"),
        )
    },
    "where": lambda where, condition, a, b: joined("where", [condition, a, b], where),
    "masked_fill": _masked_fill,
    "_softmax": _heads("softmax"),
    "softmax": _heads("softmax"),
    "_log_softmax": _heads("log_softmax"),
    "log_softmax": _heads("log_softmax"),
    "native_layer_norm": _layer_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "_fused_rms_norm": _rms_norm,
    "native_group_norm": _group_norm,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit": _batch_norm,
    "_native_batch_norm_legit_no_training": lambda where, x, gain, bias, mean, variance, momentum, epsilon: (
        _batch_norm(where, x, gain, bias, mean, variance, False, momentum, epsilon)
    ),
    "sum": _reduction("sum"),
    "mean": _reduction("mean"),
    "amax": _reduction("max"),
    "var": _variance,
    "std": lambda where, *args, **kwargs: function("sqrt", _variance(where, *args, **kwargs), where),
    "linalg_vector_norm": _norm,
    "norm": _norm,
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
    "copy": _copied,
    "fill": _copied,
    "zero": lambda where, x: _copied(where, x, 0.0),
    **dict.fromkeys(
        ("clone", "contiguous", "_to_copy", "to", "lift_fresh", "_unsafe_view", "alias"), _nothing
    ),
}
