"""JAX's primitives on tensors of which some depend on the input; the rest are arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastjac.models.tensors import (
    Operand,
    Tensor,
    activated,
    entrywise,
    function,
    joined,
    matmul,
    moved,
    power,
    stopped,
    summed,
    turned,
)

_Params = Mapping[str, Any]
# Takes the place that errors name, the primitive's parameters, and what it computes from.
_Primitive = Callable[..., Tensor]


def _dot_general(where: str, params: _Params, a: Operand, b: Operand) -> Tensor:
    """Return sums of products over some axes of both, for each entry of the others."""
    (along_a, along_b), (batch_a, batch_b) = params["dimension_numbers"]
    left, lead, rows = _matrices(a, along_a, batch_a)
    right, _, columns = _matrices(b, along_b, batch_b)
    result = matmul(left, moved(right, turned), where)
    return result.moved(lambda p: p.reshape((*lead, *rows, *columns)))


def _matrices(operand: Operand, along: Sequence[int], batch: Sequence[int]) -> tuple[Any, ...]:
    """Return an operand as matrices whose rows lie ``along`` some axes, and the sizes of the others."""
    numbers = operand if isinstance(operand, Tensor) else np.asarray(operand, np.float64)
    kept = [axis for axis in range(len(numbers.shape)) if axis not in (*along, *batch)]
    lead, rows = ([numbers.shape[axis] for axis in axes] for axes in (batch, kept))

    def arranged(p: Any) -> Any:
        return p.transpose((*batch, *kept, *along)).reshape((*lead, math.prod(rows), -1))

    return moved(numbers, arranged), lead, rows


def _pow(where: str, params: _Params, x: Operand, exponent: Operand) -> Tensor:
    if not isinstance(x, Tensor) or isinstance(exponent, Tensor) or np.size(exponent) != 1:
        raise ValueError("its exponent is not one number")
    return power(x, float(np.asarray(exponent).item()), where)


def _select(where: str, params: _Params, which: Operand, *cases: Operand) -> Tensor:
    if len(cases) != 2:
        raise ValueError(f"it selects from {len(cases)} arrays, expected 2")
    return joined("where", [which, cases[1], cases[0]], where)


def _clamp(where: str, params: _Params, low: Operand, x: Operand, high: Operand) -> Tensor:
    return joined("minimum", [joined("maximum", [x, low], where), high], where)


def _converted(where: str, params: _Params, x: Tensor) -> Tensor:
    if np.dtype(params["new_dtype"]).kind in "iu":
        raise ValueError("it makes whole numbers, or a choice between branches, of what depends on the input")
    return x


def _reduced(name: str) -> _Primitive:
    return lambda where, params, x: summed(x, params["axes"], False, name, where)


def _joined(name: str) -> _Primitive:
    return lambda where, params, a, b: joined(name, [a, b], where)


def _plain(name: str) -> _Primitive:
    return lambda where, params, x: activated(x, name)


def _function(name: str) -> _Primitive:
    return lambda where, params, x: function(name, x, where)


PRIMITIVES: dict[str, _Primitive] = {
    "dot_general": _dot_general,
    **dict.fromkeys(("add", "add_any"), _joined("add")),
    "sub": _joined("subtract"),
    "mul": _joined("multiply"),
    "div": _joined("divide"),
    "max": _joined("maximum"),
    "min": _joined("minimum"),
    "eq": _joined("equal"),
    "ne": _joined("not_equal"),
    "gt": _joined("greater"),
    "ge": _joined("greater_equal"),
    "lt": _joined("less"),
    "le": _joined("less_equal"),
    "neg": lambda where, params, x: entrywise(x, lambda value: -value),
    "square": lambda where, params, x: entrywise(x, lambda value: value * value),
    "integer_pow": lambda where, params, x: power(x, params["y"], where),
    "pow": _pow,
    "tanh": _plain("tanh"),
    "logistic": _plain("sigmoid"),
    **{
        name: _function(name)
        for name in (
            *("exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "sin", "cos", "abs"),
            *("erf", "erfc", "sign"),
        )
    },
    "not": _function("logical_not"),
    "is_finite": _function("isfinite"),
    "select_n": _select,
    "clamp": _clamp,
    "convert_element_type": _converted,
    "reduce_sum": _reduced("sum"),
    "reduce_max": _reduced("max"),
    "stop_gradient": lambda where, params, x: stopped(x, where),
    **dict.fromkeys(
        ("copy", "copy_p", "reduce_precision", "device_put", "sharding_constraint", "optimization_barrier"),
        lambda where, params, x: x,
    ),
}

# Primitives that only move entries -> which of their operands have entries to move.
MOVES: dict[str, Callable[[int], bool]] = {
    **dict.fromkeys(
        (
            *("reshape", "squeeze", "expand_dims", "broadcast_in_dim", "transpose", "rev", "slice"),
            *("split", "tile", "dynamic_slice", "gather"),
        ),
        lambda place: place == 0,
    ),
    **dict.fromkeys(("concatenate", "stack", "pad"), lambda place: True),
    "dynamic_update_slice": lambda place: place < 2,
    "scatter": lambda place: place != 1,
}
