"""The activations, written once for all array libraries, and what the peers build from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from fastjac.bench.problem import GraphProblem, NotApplicableError, Problem
from fastjac.graph.values import (
    Affine,
    Apply,
    Concatenate,
    Input,
    Multiply,
    Normalise,
    Operation,
    Scale,
    Select,
    Value,
    ordered,
)
from fastjac.layers import ACTIVATIONS, SELU_ALPHA, SELU_SCALE, Activation, Layer

_SQRT_HALF = math.sqrt(0.5)
_DENSITY = 1 / math.sqrt(2 * math.pi)
_GELU_TANH = math.sqrt(2 / math.pi)


def _gelu_inner(z: Any) -> Any:
    return _GELU_TANH * (z + 0.044715 * z * z * z)


def _softmax(xp: Any, erf: Any, p: float, z: Any) -> Any:
    exponentials = xp.exp(z - xp.max(z))
    return exponentials / xp.sum(exponentials)


def _log_softmax(xp: Any, erf: Any, p: float, z: Any) -> Any:
    shifted = z - xp.max(z)
    return shifted - xp.log(xp.sum(xp.exp(shifted)))


def _elu(xp: Any, p: float, z: Any) -> Any:
    return xp.where(z > 0, z, p * xp.expm1(xp.minimum(z, 0)))


def _hard_sigmoid(xp: Any, z: Any) -> Any:
    return xp.minimum(xp.maximum(z + 3, 0), 6) / 6


def _mish(xp: Any, erf: Any, p: float, z: Any) -> Any:
    # Above 20, the hyperbolic tangent of softplus is 1.
    e = xp.exp(xp.minimum(z, 20))
    return z * (e * (e + 2) / (e * (e + 2) + 2))


# Name -> value from the array module, its erf, the parameter p and the pre-activation z; for the heads
# softmax and log_softmax, z is one vector.
_VALUES: dict[str, Callable[[Any, Any, float, Any], Any]] = {
    "identity": lambda xp, erf, p, z: z,
    "relu": lambda xp, erf, p, z: xp.maximum(z, 0),
    "leaky_relu": lambda xp, erf, p, z: xp.maximum(z, p * z) if p <= 1 else xp.minimum(z, p * z),
    "relu6": lambda xp, erf, p, z: xp.minimum(xp.maximum(z, 0), 6),
    "hard_tanh": lambda xp, erf, p, z: xp.minimum(xp.maximum(z, -1), 1),
    "elu": lambda xp, erf, p, z: _elu(xp, p, z),
    "tanh": lambda xp, erf, p, z: xp.tanh(z),
    "sigmoid": lambda xp, erf, p, z: 1 / (1 + xp.exp(-z)),
    "softplus": lambda xp, erf, p, z: xp.maximum(z, 0) + xp.log1p(xp.exp(-xp.abs(z))),
    "silu": lambda xp, erf, p, z: z / (1 + xp.exp(-z)),
    "gelu": lambda xp, erf, p, z: 0.5 * z * (1 + erf(z * _SQRT_HALF)),
    "gelu_tanh": lambda xp, erf, p, z: 0.5 * z * (1 + xp.tanh(_gelu_inner(z))),
    "prelu": lambda xp, erf, p, z: xp.where(z > 0, z, p * z),
    "selu": lambda xp, erf, p, z: SELU_SCALE * _elu(xp, SELU_ALPHA, z),
    "celu": lambda xp, erf, p, z: xp.where(z > 0, z, p * xp.expm1(xp.minimum(z, 0) / p)),
    "hard_sigmoid": lambda xp, erf, p, z: _hard_sigmoid(xp, z),
    "hard_swish": lambda xp, erf, p, z: z * _hard_sigmoid(xp, z),
    "mish": _mish,
    "softsign": lambda xp, erf, p, z: z / (1 + xp.abs(z)),
    "exp": lambda xp, erf, p, z: xp.exp(z),
    "square": lambda xp, erf, p, z: z * z,
    "abs": lambda xp, erf, p, z: xp.abs(z),
    "sin": lambda xp, erf, p, z: xp.sin(z),
    "cos": lambda xp, erf, p, z: xp.cos(z),
    "softmax": _softmax,
    "log_softmax": _log_softmax,
}


def _silu_slope(xp: Any, erf: Any, p: float, z: Any, a: Any) -> Any:
    s = 1 / (1 + xp.exp(-z))
    return s * (1 + z * (1 - s))


def _gelu_tanh_slope(xp: Any, erf: Any, p: float, z: Any, a: Any) -> Any:
    t = xp.tanh(_gelu_inner(z))
    return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * (_GELU_TANH * (1 + 3 * 0.044715 * z * z))


def _hard_sigmoid_slope(xp: Any, erf: Any, p: float, z: Any, a: Any) -> Any:
    return xp.where((z > -3) & (z < 3), xp.full_like(z, 1 / 6), xp.zeros_like(z))


def _hard_swish_slope(xp: Any, erf: Any, p: float, z: Any, a: Any) -> Any:
    inside = xp.where(z < 3, (2 * z + 3) / 6, xp.ones_like(z))
    return xp.where(z > -3, inside, xp.zeros_like(z))


def _mish_slope(xp: Any, erf: Any, p: float, z: Any, a: Any) -> Any:
    e = xp.exp(-xp.abs(z))
    top, rest = xp.where(z > 0, 2 * e + 1, e * (e + 2)), xp.where(z > 0, 2 * e * e, xp.full_like(z, 2))
    t = top / (top + rest)
    return t + z * (1 - t * t) * xp.where(z > 0, xp.ones_like(z), e) / (1 + e)


# Name -> derivative from the same and the value a.
_SLOPES: dict[str, Callable[[Any, Any, float, Any, Any], Any]] = {
    "relu": lambda xp, erf, p, z, a: z > 0,
    "leaky_relu": lambda xp, erf, p, z, a: xp.where(z > 0, xp.ones_like(z), xp.full_like(z, p)),
    "relu6": lambda xp, erf, p, z, a: (z > 0) & (z < 6),
    "hard_tanh": lambda xp, erf, p, z, a: (z > -1) & (z < 1),
    "elu": lambda xp, erf, p, z, a: xp.where(z > 0, xp.ones_like(z), a + p),
    "tanh": lambda xp, erf, p, z, a: 1 - a * a,
    "sigmoid": lambda xp, erf, p, z, a: a * (1 - a),
    "softplus": lambda xp, erf, p, z, a: 1 - xp.exp(-a),
    "silu": _silu_slope,
    "gelu": lambda xp, erf, p, z, a: 0.5 * (1 + erf(z * _SQRT_HALF)) + z * xp.exp(-0.5 * z * z) * _DENSITY,
    "gelu_tanh": _gelu_tanh_slope,
    "prelu": lambda xp, erf, p, z, a: xp.where(z > 0, xp.ones_like(z), xp.full_like(z, p)),
    "selu": lambda xp, erf, p, z, a: xp.where(
        z > 0, xp.full_like(z, SELU_SCALE), a + SELU_SCALE * SELU_ALPHA
    ),
    "celu": lambda xp, erf, p, z, a: xp.where(z > 0, xp.ones_like(z), a / p + 1),
    "hard_sigmoid": _hard_sigmoid_slope,
    "hard_swish": _hard_swish_slope,
    "mish": _mish_slope,
    "softsign": lambda xp, erf, p, z, a: 1 / ((1 + xp.abs(z)) * (1 + xp.abs(z))),
    "exp": lambda xp, erf, p, z, a: a,
    "square": lambda xp, erf, p, z, a: 2 * z,
    "abs": lambda xp, erf, p, z, a: xp.sign(z),
    "sin": lambda xp, erf, p, z, a: xp.cos(z),
    "cos": lambda xp, erf, p, z, a: -xp.sin(z),
}


def weights(problem: Problem) -> list[tuple[Any, Any]]:
    """Return the pairs of arrays of a problem's affine maps, and of its scales, in order."""
    if not isinstance(problem, GraphProblem):
        return [(layer.w, layer.b) for layer in problem.layers]
    operations = (each.operation for each in ordered(problem.value))
    return [(each[0], each[1]) for each in operations if isinstance(each, (Affine, Scale))]


def one_parameter(activation: Activation) -> float:
    """Return the parameter, if it is one number for all units."""
    if isinstance(activation.parameter, tuple):
        raise NotApplicableError("it has a slope for each unit")
    return activation.parameter


def own_functions(*modules: Any, **others: Callable[..., Any] | None) -> dict[str, Callable[..., Any] | None]:
    """Return the activations that ``modules`` have under our names, the last module's first, and ``others``.

    None stands for the formula.
    """
    found: dict[str, Callable[..., Any] | None] = {}
    for module in modules:
        found |= {name: getattr(module, name) for name in ACTIVATIONS if hasattr(module, name)}
    return found | others


class Dialect(NamedTuple):
    """How one library writes the activations.

    Parameters
    ----------
    xp : module
        With NumPy's names: ``exp``, ``where``, ``maximum``, ...
    erf : function, optional
        The library's error function; without it there is no gelu.
    own : mapping of str to function
        The library's own activations, taken instead of the formulas: ``f(z)``, or ``f(z, parameter)``.
    """

    xp: Any
    erf: Callable[[Any], Any] | None = None
    own: Mapping[str, Callable[..., Any] | None] = {}

    def value(self, activation: Activation) -> Callable[[Any], Any]:
        """Return the activation as a function of the pre-activation."""
        name, parameter = activation.name, one_parameter(activation)
        own = self.own.get(name)
        if own is None:
            return self._bound(_VALUES[name], activation)
        return own if ACTIVATIONS[name] is None else lambda z: own(z, parameter)

    def slope(self, activation: Activation) -> Callable[[Any, Any], Any] | None:
        """Return the derivative as a function of the pre-activation and the value.

        None for the identity, and for softmax and log_softmax, whose derivative is no diagonal.
        """
        formula = _SLOPES.get(activation.name)
        return formula and self._bound(formula, activation)

    def _bound(self, formula: Callable[..., Any], activation: Activation) -> Callable[..., Any]:
        if activation.name == "gelu" and self.erf is None:
            raise NotApplicableError("gelu needs scipy")
        return partial(formula, self.xp, self.erf, one_parameter(activation))

    def function(self, problem: Problem) -> Callable[[Any, Any], Any]:
        """Return ``f(a, weights) -> y``, with the `weights` of the problem."""
        return (
            self.graph(problem.value) if isinstance(problem, GraphProblem) else self.network(problem.layers)
        )

    def graph(self, value: Value) -> Callable[[Any, Any], Any]:
        """Return ``f(a, weights) -> y``, with the pairs of arrays of maps and scales, in order."""
        values = ordered(value)
        applied = {
            id(each): self.value(each.operation.activation)
            for each in values
            if isinstance(each.operation, Apply)
        }

        def network(a: Any, weights: Any) -> Any:
            found: dict[int, Any] = {}
            pairs = iter(weights)
            for each in values:
                inputs = [found[id(before)] for before in each.inputs]
                if isinstance(each.operation, Input):
                    found[id(each)] = a
                elif isinstance(each.operation, Apply):
                    found[id(each)] = applied[id(each)](inputs[0])
                elif isinstance(each.operation, Affine):
                    w, b = next(pairs)
                    found[id(each)] = inputs[0] @ w + b
                elif isinstance(each.operation, Scale):
                    factor, shift = next(pairs)
                    found[id(each)] = inputs[0] * factor + shift
                else:
                    found[id(each)] = self._operation(each.operation, inputs)
            return found[id(value)]

        return network

    def _operation(self, operation: Operation, inputs: list[Any]) -> Any:
        """Return what an operation without weights computes."""
        xp, a = self.xp, inputs[0]
        if isinstance(operation, Concatenate):
            return xp.concatenate(inputs)
        if isinstance(operation, Select):
            first, last = int(operation.places[0]), int(operation.places[-1])
            is_range = operation.places.tolist() == list(range(first, last + 1))
            return a[first : last + 1] if is_range else a[xp.asarray(operation.places.copy())]
        if isinstance(operation, Normalise):
            centred = a - xp.mean(a) if operation.centred else a
            return centred / xp.sqrt(xp.mean(centred * centred) + operation.epsilon)
        return a * inputs[1] if isinstance(operation, Multiply) else a + inputs[1]

    def network(self, layers: Sequence[Layer]) -> Callable[[Any, Any], Any]:
        """Return ``f(a, weights) -> y``, with ``weights`` the pairs (w, b) of the layers."""
        values = [self.value(layer.activation) for layer in layers]

        def network(a: Any, weights: Any) -> Any:
            for (w, b), value in zip(weights, values, strict=True):
                a = value(a @ w + b)
            return a

        return network

    def by_hand(self, layers: Sequence[Layer]) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
        """Return ``f(x, weights, transposed) -> (y, jac)``, reverse accumulation that scales rows.

        ``x`` is (N,) or (B, N), ``transposed`` the weights (fan_out, fan_in).
        """
        xp, head = self.xp, layers[-1].activation.name
        values = [self.value(layer.activation) for layer in layers]
        slopes = [self.slope(layer.activation) for layer in layers]

        def value_and_jacobian(x: Any, weights: Any, transposed: Any) -> tuple[Any, Any]:
            zs, kept = [], [x]
            for (w, b), value in zip(weights, values, strict=True):
                zs.append(kept[-1] @ w + b)
                kept.append(value(zs[-1]))
            y, jac = kept[-1], transposed[-1]
            if slopes[-1] is not None:
                jac = slopes[-1](zs[-1], y)[..., :, None] * jac
            elif head == "identity":
                jac = xp.broadcast_to(jac, (*y.shape[:-1], *jac.shape))
            elif head == "softmax":
                jac = y[..., :, None] * (jac - (y @ jac)[..., None, :])
            else:
                jac = jac - (xp.exp(y) @ jac)[..., None, :]
            for i in range(len(layers) - 2, -1, -1):
                slope = slopes[i]
                if slope is not None:
                    jac = jac * slope(zs[i], kept[i + 1])[..., None, :]
                jac = jac @ transposed[i]
            return y, jac

        return value_and_jacobian
