"""The mathematics of the kernels in plain NumPy, as an explanation and an oracle.

Each kind of layer has a forward function and a backward function. The backward function takes the
Jacobian of the network's output with respect to the layer's output, and returns the Jacobian with
respect to the layer's input. Everything is computed in the dtype of the arguments, also in
`numpy.longdouble`, except gelu, whose error function is float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from fastjac.layers import SELU_ALPHA, SELU_SCALE, Activation, Layer

Array = NDArray[np.floating[Any]]

_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _affine(x: Array, w: Array, b: Array) -> Array:
    return np.asarray(x @ w + b)


def _affine_backward(jac: Array, w: Array) -> Array:
    return np.asarray(jac @ w.T)


def _times(z: Array, p: Array) -> Array:
    """Return ``z * p``, and 0 where ``p`` is 0, also times infinity."""
    return np.where(p == 0, p, z * p)


def _sigmoid(z: Array) -> Array:
    e = np.exp(-np.abs(z))
    return np.asarray(np.where(z < 0, e, 1) / (1 + e))


def _sigmoid_slope(z: Array) -> Array:
    e = np.exp(-np.abs(z))
    return np.asarray(e / (1 + e) ** 2)


def _gelu_cdf(z: Array) -> Array:
    return np.asarray(0.5 * _erfc(-z / math.sqrt(2)), z.dtype)


def _gelu_slope(z: Array) -> Array:
    return np.asarray(_gelu_cdf(z) + _times(z, np.exp(-z * z / 2) / math.sqrt(2 * math.pi)))


def _silu_slope(z: Array) -> Array:
    return _times(1 + _times(z, _sigmoid(-z)), _sigmoid(z))


def _gelu_tanh_parts(z: Array) -> tuple[Array, Array]:
    """Return ``2 u``, u being what gelu_tanh has the hyperbolic tangent of, and its derivative."""
    c = z.dtype.type(2) * np.sqrt(z.dtype.type(2) / z.dtype.type(math.pi))
    cubic = z.dtype.type(44715) / z.dtype.type(10) ** 6
    return c * (z + cubic * z**3), np.asarray(c * (1 + 3 * cubic * z**2))


def _gelu_tanh_slope(z: Array) -> Array:
    # Beyond these limits it is 0 or 1, and z**2 times 0 might be NaN.
    y = np.clip(z, -100, 100)
    argument, slope = _gelu_tanh_parts(y)
    return np.asarray(_sigmoid(argument) + y * _sigmoid_slope(argument) * slope)


def _tanh_slope(z: Array) -> Array:
    return np.asarray(4 * _sigmoid_slope(2 * z))


def _elu(z: Array, alpha: Array) -> Array:
    return np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0)))


def _elu_slope(z: Array, alpha: Array) -> Array:
    return np.where(z > 0, 1, alpha * np.exp(np.minimum(z, 0)))


def _mish_slope(z: Array) -> Array:
    u = np.logaddexp(z, np.zeros_like(z))
    return np.asarray(np.tanh(u) + _times(z, _tanh_slope(u) * _sigmoid(z)))


def _softsign(z: Array) -> Array:
    # From 1 on as 1 / (1 + 1 / abs(z)), which has a limit at infinity.
    far = 1 / (1 + 1 / np.maximum(np.abs(z), 1))
    return np.asarray(np.where(np.abs(z) < 1, z / (1 + np.abs(z)), np.copysign(far, z)))


def _inside(z: Array, low: float, high: float) -> Array:
    return np.where((low < z) & (z < high), np.ones_like(z), np.zeros_like(z))


def _hard_swish(z: Array) -> Array:
    return np.asarray(np.where(z <= -3, 0, np.where(z >= 3, z, z * ((z + 3) / 6))))


def _hard_swish_slope(z: Array) -> Array:
    return np.asarray(np.where(z <= -3, 0, np.where(z >= 3, 1, (2 * z + 3) / 6)))


_Function = Callable[[Array, Array], Array]
# Name -> (value, derivative) as functions of the pre-activation z and the activation's parameter.
# At a kink the derivative is PyTorch's: 0 for relu, relu6, hard_tanh, hard_sigmoid and abs, at -3 and at 3
# what hard_swish has outside, else the slope on the left.
_ELEMENTWISE: dict[str, tuple[_Function, _Function]] = {
    "identity": (lambda z, _: z, lambda z, _: np.ones_like(z)),
    "relu": (lambda z, _: np.maximum(z, 0), lambda z, _: np.where(z > 0, 1, 0)),
    "leaky_relu": (
        lambda z, slope: np.where(z > 0, z, slope * z),
        lambda z, slope: np.where(z > 0, 1, slope),
    ),
    "relu6": (lambda z, _: np.clip(z, 0, 6), lambda z, _: _inside(z, 0, 6)),
    "hard_tanh": (lambda z, _: np.clip(z, -1, 1), lambda z, _: _inside(z, -1, 1)),
    "elu": (_elu, _elu_slope),
    "tanh": (lambda z, _: np.tanh(z), lambda z, _: _tanh_slope(z)),
    "sigmoid": (lambda z, _: _sigmoid(z), lambda z, _: _sigmoid_slope(z)),
    "softplus": (lambda z, _: np.logaddexp(z, np.zeros_like(z)), lambda z, _: _sigmoid(z)),
    "silu": (lambda z, _: _times(z, _sigmoid(z)), lambda z, _: _silu_slope(z)),
    "gelu": (lambda z, _: _times(z, _gelu_cdf(z)), lambda z, _: _gelu_slope(z)),
    "gelu_tanh": (
        lambda z, _: _times(z, _sigmoid(_gelu_tanh_parts(z)[0])),
        lambda z, _: _gelu_tanh_slope(z),
    ),
    "prelu": (
        lambda z, slopes: np.where(z > 0, z, slopes * z),
        lambda z, slopes: np.where(z > 0, 1, slopes),
    ),
    "selu": (
        lambda z, _: z.dtype.type(SELU_SCALE) * _elu(z, z.dtype.type(SELU_ALPHA)),
        lambda z, _: z.dtype.type(SELU_SCALE) * _elu_slope(z, z.dtype.type(SELU_ALPHA)),
    ),
    "celu": (
        lambda z, alpha: np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0) / alpha)),
        lambda z, alpha: np.exp(np.minimum(z, 0) / alpha),
    ),
    "hard_sigmoid": (lambda z, _: np.clip(z + 3, 0, 6) / 6, lambda z, _: _inside(z, -3, 3) / 6),
    "hard_swish": (lambda z, _: _hard_swish(z), lambda z, _: _hard_swish_slope(z)),
    "mish": (
        lambda z, _: _times(z, np.tanh(np.logaddexp(z, np.zeros_like(z)))),
        lambda z, _: _mish_slope(z),
    ),
    "softsign": (lambda z, _: _softsign(z), lambda z, _: (1 / (1 + np.abs(z))) ** 2),
    "exp": (lambda z, _: np.exp(z), lambda z, _: np.exp(z)),
    "square": (lambda z, _: z * z, lambda z, _: 2 * z),
    "abs": (lambda z, _: np.abs(z), lambda z, _: np.sign(z)),
    "sin": (lambda z, _: np.sin(z), lambda z, _: np.cos(z)),
    "cos": (lambda z, _: np.cos(z), lambda z, _: -np.sin(z)),
}


def elementwise(z: Array, activation: Activation) -> Array:
    """Return the activation of the pre-activations ``z``, of any shape, in their dtype."""
    value, _ = _ELEMENTWISE[activation.name]
    return np.asarray(value(z, np.asarray(activation.parameter, z.dtype)), z.dtype)


def slope(z: Array, activation: Activation) -> Array:
    """Return the activation's derivative at ``z``, of any shape, in its dtype; NaN where ``z`` is NaN."""
    _, derivative = _ELEMENTWISE[activation.name]
    parameter = np.asarray(activation.parameter, z.dtype)
    return np.where(np.isnan(z), z, derivative(z, parameter)).astype(z.dtype)


def _elementwise_backward(jac: Array, z: Array, activation: Activation) -> Array:
    return np.asarray(jac * slope(z, activation))


def softmax(z: Array) -> Array:
    """Return the probabilities (M,) of the logits ``z`` (M,)."""
    e = np.exp(z - np.max(z))
    return np.asarray(e / np.sum(e))


def log_softmax(z: Array) -> Array:
    """Return the logarithms of the probabilities (M,) of the logits ``z`` (M,)."""
    shifted = z - np.max(z)
    return np.asarray(shifted - np.log(np.sum(np.exp(shifted))))


def _head(z: Array, activation: Activation) -> Array:
    """Return the network's output from the last pre-activation."""
    if activation.name == "softmax":
        return softmax(z)
    if activation.name == "log_softmax":
        return log_softmax(z)
    return elementwise(z, activation)


def _head_backward(jac: Array, z: Array, activation: Activation) -> Array:
    """Multiply the Jacobian ``jac`` of the last pre-activation ``z`` by the head's, from the left."""
    if activation.name == "softmax":
        s = softmax(z)
        return np.asarray((np.diag(s) - np.outer(s, s)) @ jac)
    if activation.name == "log_softmax":
        return np.asarray(jac - softmax(z) @ jac)
    return np.asarray(slope(z, activation)[:, None] * jac)


def value_and_jacobian(x: Array, layers: Sequence[Layer]) -> tuple[Array, Array]:
    """Return the output of a chain of layers and its Jacobian with respect to the inputs.

    Parameters
    ----------
    x : ndarray, (N,)
        Inputs.
    layers : sequence of Layer
        First to last.

    Returns
    -------
    y : ndarray, (M,)
    jac : ndarray, (M, N)
        ``jac[m, n] = d y[m] / d x[n]``.

    Notes
    -----
    The forward pass computes ``z_l = a_{l-1} w_l + b_l`` and ``a_l = f_l(z_l)``, with ``a_0 = x`` and
    ``y = a_L``. The backward pass computes ``jac = F_L w_L^T ... F_1 w_1^T`` from the left. ``F_l`` is the
    Jacobian of ``f_l`` at ``z_l``: a diagonal matrix, ``diag(s) - s s^T`` for softmax, or ``I - 1 s^T`` for
    log_softmax.
    """
    *hidden, last = layers
    with np.errstate(all="ignore"):
        a = x
        pre_activations = []
        for layer in hidden:
            z = _affine(a, layer.w, layer.b)
            pre_activations.append(z)
            a = elementwise(z, layer.activation)
        z = _affine(a, last.w, last.b)
        y = _head(z, last.activation)
        jac = _head_backward(last.w.T, z, last.activation)
        for layer, z in zip(reversed(hidden), reversed(pre_activations), strict=True):
            jac = _elementwise_backward(jac, z, layer.activation)
            jac = _affine_backward(jac, layer.w)
        return y, jac


def evaluate(operation: Operation, inputs: Sequence[Array]) -> Array:
    """Return what an operation of a graph computes from its inputs, each (size,)."""
    a = inputs[0]
    if isinstance(operation, Affine):
        return _affine(a, operation.w, operation.b)
    if isinstance(operation, Apply):
        return _head(a, operation.activation)
    if isinstance(operation, Scale):
        return np.asarray(a * operation.factor + operation.shift)
    if isinstance(operation, Concatenate):
        return np.concatenate(inputs)
    if isinstance(operation, Select):
        return np.asarray(a[operation.places])
    if isinstance(operation, Normalise):
        return _normalise(a, operation)[0]
    return np.asarray(a * inputs[1] if isinstance(operation, Multiply) else a + inputs[1])


def _normalise(a: Array, operation: Normalise) -> tuple[Array, Array]:
    """Return the normalised entries, and the root that they were divided by."""
    centred = a - np.mean(a) if operation.centred else a
    root = np.sqrt(np.mean(centred * centred) + a.dtype.type(operation.epsilon))
    return np.asarray(centred / root), np.asarray(root)


def pull_back(operation: Operation, jac: Array, inputs: Sequence[Array]) -> list[Array]:
    """Multiply the Jacobian ``jac`` of some outputs by an operation's, from the right: one for each input.

    A Jacobian (M,) stands for the square matrix with these entries on its diagonal, and zeros elsewhere.
    """
    a = inputs[0]
    if isinstance(operation, Affine):
        return [_product(jac, operation.w.T)]
    if isinstance(operation, Apply) and operation.activation.name == "softmax":
        s = softmax(a)
        return [_product(jac, np.diag(s) - np.outer(s, s))]
    if isinstance(operation, Apply) and operation.activation.name == "log_softmax":
        return [_product(jac, np.eye(a.size, dtype=a.dtype) - softmax(a))]
    if isinstance(operation, Apply):
        return [np.asarray(jac * slope(a, operation.activation))]
    if isinstance(operation, Scale):
        return [np.asarray(jac * operation.factor)]
    if isinstance(operation, Multiply):
        return [np.asarray(jac * inputs[1]), np.asarray(jac * a)]
    if isinstance(operation, Concatenate):
        return np.split(_full(jac), np.cumsum([part.size for part in inputs])[:-1], axis=1)
    if isinstance(operation, Select):
        given = np.zeros((len(jac), a.size), jac.dtype)
        np.add.at(given.T, operation.places, _full(jac).T)
        return [given]
    if isinstance(operation, Normalise):
        y, root = _normalise(a, operation)
        mean = np.full_like(a, 1 / a.size) if operation.centred else np.zeros_like(a)
        return [_product(jac, (np.eye(a.size, dtype=a.dtype) - mean - np.outer(y, y) / a.size) / root)]
    return [jac, jac]


def _full(jac: Array) -> Array:
    return np.diag(jac) if jac.ndim == 1 else jac


def _product(jac: Array, matrix: Array) -> Array:
    return np.asarray(jac[:, None] * matrix if jac.ndim == 1 else jac @ matrix)


def graph_value_and_jacobian(x: Array, value: Value) -> tuple[Array, Array]:
    """Return a value of `fastjac.graph` and its Jacobian with respect to the input; see `value_and_jacobian`.

    Notes
    -----
    The forward pass computes every value. The backward pass goes from the output to the input. The Jacobian
    of the output with respect to a value is the sum of what all operations that read it give.
    """
    values = ordered(value)
    found: dict[int, Array] = {}
    with np.errstate(all="ignore"):
        for each in values:
            is_input = isinstance(each.operation, Input)
            inputs = [found[id(before)] for before in each.inputs]
            found[id(each)] = x if is_input else evaluate(each.operation, inputs)
        jacobians = {id(value): np.ones_like(found[id(value)])}
        for each in reversed(values):
            inputs = [found[id(before)] for before in each.inputs]
            if not inputs:
                continue
            given = pull_back(each.operation, jacobians[id(each)], inputs)
            for before, part in zip(each.inputs, given, strict=True):
                other = jacobians.get(id(before))
                if other is not None and other.ndim != part.ndim:
                    part, other = _full(part), _full(other)
                jacobians[id(before)] = part if other is None else part + other
        source = next(each for each in values if not each.inputs)
        return found[id(value)], _full(jacobians[id(source)])
