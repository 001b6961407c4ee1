"""Value and Jacobian beyond double precision: in extended precision, else with mpmath."""

import functools

import mpmath
import numpy as np
from mpmath import mpf

from fastjac import reference
from fastjac.layers import HEADS_ONLY, SELU_ALPHA, SELU_SCALE
from support.oracles import in_dtype

EXTENDED = np.finfo(np.longdouble).nmant >= 63


def _sigmoid(z):
    return 1 / (1 + mpmath.exp(-z)) if z > 0 else mpmath.exp(z) / (1 + mpmath.exp(z))


def _cdf(z):
    # mpmath has no erfc of huge numbers.
    return mpmath.erfc(-z / mpmath.sqrt(2)) / 2 if abs(z) < 1000 else mpf(z > 0)


def _gelu_tanh_argument(z):
    return 2 * mpmath.sqrt(2 / mpmath.pi) * (z + mpf("0.044715") * z**3)


def _gelu_tanh_slope(z):
    u, by_z = _gelu_tanh_argument(z), 2 * mpmath.sqrt(2 / mpmath.pi) * (1 + 3 * mpf("0.044715") * z**2)
    return _sigmoid(u) * (1 + z * _sigmoid(-u) * by_z)


def _mish(z):
    """Return tanh(log(1 + e)) and its derivative with respect to z, where e is exp(z)."""
    e = mpmath.exp(-abs(z))
    top, rest = (2 * e + 1, 2 * e**2) if z > 0 else (e * (e + 2), mpf(2))
    return top / (top + rest), 4 * (e**2 if z > 0 else e) * (1 + e) / (top + rest) ** 2


# Name -> value and derivative at a pre-activation that is no corner, with the activation's parameter. They
# are right in all digits, because nothing cancels but where the derivative is near to 0.
FUNCTIONS = {
    "identity": (lambda z, _: z, lambda z, _: mpf(1)),
    "relu": (lambda z, _: max(z, mpf(0)), lambda z, _: mpf(z > 0)),
    "leaky_relu": (lambda z, p: z if z > 0 else p * z, lambda z, p: mpf(1) if z > 0 else p),
    "relu6": (lambda z, _: min(max(z, mpf(0)), mpf(6)), lambda z, _: mpf(0 < z < 6)),
    "hard_tanh": (lambda z, _: min(max(z, mpf(-1)), mpf(1)), lambda z, _: mpf(-1 < z < 1)),
    "elu": (
        lambda z, p: z if z > 0 else p * mpmath.expm1(z),
        lambda z, p: mpf(1) if z > 0 else p * mpmath.exp(z),
    ),
    "tanh": (lambda z, _: mpmath.tanh(z), lambda z, _: 4 * _sigmoid(2 * z) * _sigmoid(-2 * z)),
    "sigmoid": (lambda z, _: _sigmoid(z), lambda z, _: _sigmoid(z) * _sigmoid(-z)),
    "softplus": (
        lambda z, _: max(z, mpf(0)) + mpmath.log1p(mpmath.exp(-abs(z))),
        lambda z, _: _sigmoid(z),
    ),
    "silu": (lambda z, _: z * _sigmoid(z), lambda z, _: _sigmoid(z) * (1 + z * _sigmoid(-z))),
    "gelu": (lambda z, _: z * _cdf(z), lambda z, _: _cdf(z) + z * mpmath.npdf(z)),
    "gelu_tanh": (lambda z, _: z * _sigmoid(_gelu_tanh_argument(z)), lambda z, _: _gelu_tanh_slope(z)),
    "prelu": (lambda z, p: z if z > 0 else p * z, lambda z, p: mpf(1) if z > 0 else p),
    "selu": (
        lambda z, _: SELU_SCALE * (z if z > 0 else SELU_ALPHA * mpmath.expm1(z)),
        lambda z, _: SELU_SCALE * (mpf(1) if z > 0 else SELU_ALPHA * mpmath.exp(z)),
    ),
    "celu": (
        lambda z, p: z if z > 0 else p * mpmath.expm1(z / p),
        lambda z, p: mpf(1) if z > 0 else mpmath.exp(z / p),
    ),
    "hard_sigmoid": (lambda z, _: min(max(z + 3, mpf(0)), mpf(6)) / 6, lambda z, _: mpf(-3 < z < 3) / 6),
    "hard_swish": (
        lambda z, _: z * min(max(z + 3, mpf(0)), mpf(6)) / 6,
        lambda z, _: (2 * z + 3) / 6 if -3 < z < 3 else mpf(z > 0),
    ),
    "mish": (lambda z, _: z * _mish(z)[0], lambda z, _: _mish(z)[0] + z * _mish(z)[1]),
    "softsign": (lambda z, _: z / (1 + abs(z)), lambda z, _: 1 / (1 + abs(z)) ** 2),
    "exp": (lambda z, _: mpmath.exp(z), lambda z, _: mpmath.exp(z)),
    "square": (lambda z, _: z * z, lambda z, _: 2 * z),
    "abs": (lambda z, _: abs(z), lambda z, _: mpf(mpmath.sign(z))),
    "sin": (lambda z, _: mpmath.sin(z), lambda z, _: mpmath.cos(z)),
    "cos": (lambda z, _: mpmath.cos(z), lambda z, _: -mpmath.sin(z)),
}


def value_and_slope(z, activation, parameter=None):
    """Return an activation and its derivative at one point, as mpmath numbers; not at a corner."""
    parameter = mpf(activation.parameter if parameter is None else parameter)
    return tuple(function(z, parameter) for function in FUNCTIONS[activation.name])


def _elementwise_mpmath(z, activation):
    parameters = np.broadcast_to(activation.parameter, z.shape)
    pairs = zip(z, parameters, strict=True)
    return np.array([value_and_slope(value, activation, float(p)) for value, p in pairs]).T


def _elementwise_extended(z, activation):
    if activation.name == "gelu":  # The reference's error function is float64.
        with mpmath.workdps(50):
            return _extended(_elementwise_mpmath(_exact(z), activation))
    return reference.elementwise(z, activation), reference.slope(z, activation)


# In two parts: one float would lose the last bits.
@functools.partial(np.vectorize, otypes=[object])
def _exact(value):
    rounded = float(value)
    return mpf(rounded) + mpf(float(value - rounded))


@functools.partial(np.vectorize, otypes=[np.longdouble])
def _extended(value):
    rounded = float(value)
    return np.longdouble(rounded) + np.longdouble(float(value - rounded))


def _head(z, jac, exp, log):
    """Return softmax, its logarithm, and the Jacobian of the latter, where nothing cancels."""
    e = exp(z - max(z))
    # Row m of (I - 1 s^T) A is sum_j s_j (A_m - A_j).
    differences = jac[:, None, :] - jac[None, :, :]
    s = e / e.sum()
    return s, z - max(z) - log(e.sum()), (s[:, None] * differences).sum(axis=1)


def value_and_jacobian(net, x, extended=EXTENDED):
    """Return the network's ``y`` and ``jac`` at ``x``, right to the 64 bits of extended precision."""
    x = np.asarray(x).astype(net.dtype)
    if extended:
        layers = in_dtype(net.layers, np.longdouble)
        return _walk(x.astype(np.longdouble), layers, _elementwise_extended, np.exp, np.log)
    exp, log = np.vectorize(mpmath.exp, otypes=[object]), mpmath.log
    with mpmath.workdps(50):
        layers = [layer._replace(w=_exact(layer.w), b=_exact(layer.b)) for layer in net.layers]
        y, jac = _walk(_exact(x), layers, _elementwise_mpmath, exp, log)
        return _extended(y), _extended(jac)


def _walk(a, layers, elementwise, exp, log):
    jac = None
    for layer in layers:
        z = a @ layer.w + layer.b
        jac = layer.w.T if jac is None else layer.w.T @ jac
        if layer.activation.name in HEADS_ONLY:
            s, log_s, jac = _head(z, jac, exp, log)
            a, jac = (s, s[:, None] * jac) if layer.activation.name == "softmax" else (log_s, jac)
        else:
            a, slope = elementwise(z, layer.activation)
            jac = slope[:, None] * jac
    return a, jac
