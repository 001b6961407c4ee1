"""Value and Jacobian beyond double precision: in extended precision, else with mpmath."""

import functools

import mpmath
import numpy as np
from mpmath import mpf

from fastjac import reference
from fastjac.layers import HEADS_ONLY
from support.oracles import in_dtype

EXTENDED = np.finfo(np.longdouble).nmant >= 63


def _gelu_tanh_argument(z):
    return mpmath.sqrt(2 / mpmath.pi) * (z + mpf("0.044715") * z**3)


# Name -> the function of a pre-activation and the activation's parameter.
FUNCTIONS = {
    "identity": lambda z, _: z,
    "relu": lambda z, _: z if z > 0 else mpf(0),
    "leaky_relu": lambda z, p: z if z > 0 else p * z,
    "relu6": lambda z, _: min(max(z, mpf(0)), mpf(6)),
    "hard_tanh": lambda z, _: min(max(z, mpf(-1)), mpf(1)),
    "elu": lambda z, p: z if z > 0 else p * mpmath.expm1(z),
    "tanh": lambda z, _: mpmath.tanh(z),
    "sigmoid": lambda z, _: 1 / (1 + mpmath.exp(-z)),
    "softplus": lambda z, _: mpmath.log1p(mpmath.exp(z)),
    "silu": lambda z, _: z / (1 + mpmath.exp(-z)),
    "gelu": lambda z, _: z * mpmath.ncdf(z),
    "gelu_tanh": lambda z, _: z * (1 + mpmath.tanh(_gelu_tanh_argument(z))) / 2,
}


def value_and_slope(z, activation):
    """Return an activation and its derivative at one point, as mpmath numbers; not at a corner."""
    parameter = mpf(activation.parameter)

    def function(at):
        return FUNCTIONS[activation.name](at, parameter)

    return function(z), mpmath.diff(function, z, h=mpf("1e-25"))


def _elementwise_mpmath(z, activation):
    return np.array([value_and_slope(value, activation) for value in z]).T


def _elementwise_extended(z, activation):
    if activation.name in ("gelu", "gelu_tanh"):  # The reference adds 1 to what is nearly -1.
        with mpmath.workdps(50):
            return _extended(_elementwise_mpmath(_exact(z), activation))
    return reference.elementwise(z, activation), reference.slope(z, activation)


@functools.partial(np.vectorize, otypes=[object])
def _exact(value):
    rounded = float(value)
    return mpf(rounded) + mpf(float(value - rounded))


@functools.partial(np.vectorize, otypes=[np.longdouble])
def _extended(value):
    return np.longdouble(mpmath.nstr(value, 25))  # By way of a float it would lose 11 bits.


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
