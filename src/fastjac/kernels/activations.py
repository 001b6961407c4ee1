"""The activations: what each makes of a pre-activation, and its derivative there.

Each is compiled by itself when a network that has it is first called. A layer's record holds the address of
the machine code, so that the routines know none of them.
"""

# Compiled code carries no annotations: numba's types come from the arguments.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastjac.kernels.cache import compiled
from fastjac.kernels.elementwise import (
    CUBIC,
    LINEAR,
    MOST_REDUCED,
    NO_REST,
    decay,
    decay_parts,
    exp,
    exp_parts,
    format_of,
    gelu_tanh_argument,
    inlined,
    log1p,
    normal_tail,
    quotient,
    sine,
)
from fastjac.kernels.llvm.intrinsics import larger, smaller, vector
from fastjac.layers import SELU_ALPHA, SELU_SCALE

# Of a parameter, and addresses of the slopes of prelu, of the pre-activations and of the derivatives, and how
# many there are.
_ARGUMENTS = (types.float64, types.intp, types.intp, types.intp, types.intp)


@intrinsic
def activate(typing: Any, function: Any, parameter: Any, slopes: Any, a: Any, slope: Any, size: Any) -> Any:
    """Replace the pre-activations at ``a`` by activations, and write the derivatives to ``slope``.

    ``function`` is the address of an activation's machine code.
    """

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        convention = context.call_conv
        kind = convention.get_function_type(types.void, _ARGUMENTS)
        code = builder.inttoptr(args[0], kind.as_pointer())
        convention.call_function(builder, code, types.void, _ARGUMENTS, args[1:])
        return context.get_dummy_value()

    return types.void(types.intp, *_ARGUMENTS), codegen


@inlined
def _identity(z, parameter):
    f = format_of(z)
    return z, (f.one if z == z else z)


@inlined
def _relu(z, parameter):
    f = format_of(z)
    return (f.zero if z <= 0 else z), (f.one if z > 0 else (f.zero if z <= 0 else z))


@inlined
def _leaky_relu(z, parameter):
    f = format_of(z)
    return (z if z > 0 else parameter * z), (f.one if z > 0 else (parameter if z <= 0 else z))


@inlined
def _relu6(z, parameter):
    f = format_of(z)
    six = type(z)(6)
    inside = f.one if z == z else z
    return (f.zero if z <= 0 else (six if z >= 6 else z)), (f.zero if z <= 0 or z >= 6 else inside)


@inlined
def _hard_tanh(z, parameter):
    f = format_of(z)
    inside = f.one if z == z else z
    return (-f.one if z <= -1 else (f.one if z >= 1 else z)), (f.zero if z <= -1 or z >= 1 else inside)


@inlined
def _hard_sigmoid(z, parameter):
    f = format_of(z)
    three, six = type(z)(3), type(z)(6)
    value = f.zero if z <= -3 else (f.one if z >= 3 else (z + three) / six)
    return value, (f.zero if z <= -3 or z >= 3 else (f.one / six if z == z else z))


@inlined
def _hard_swish(z, parameter):
    f = format_of(z)
    three, six = type(z)(3), type(z)(6)
    value = f.zero if z <= -3 else (z if z >= 3 else z * ((z + three) / six))
    return value, (f.zero if z <= -3 else (f.one if z >= 3 else (f.two * z + three) / six))


# A small factor comes last, in two parts: it may be no normal number where the product still is one.


@inlined
def _scaled_elu(z, gain, alpha):
    f = format_of(z)
    p, low, high = exp_parts(larger(smaller(z, f.zero), f.lowest), type(z)(NO_REST))
    power, low = low * high, alpha * low
    negative = alpha * (p * power + (power - f.one))
    value = gain * z if z > 0 else (negative if z <= 0 else z)
    return value, (gain if z > 0 else ((p * low + low) * high if z <= 0 else z))


@inlined
def _elu(z, parameter):
    return _scaled_elu(z, format_of(z).one, type(z)(parameter))


@inlined
def _selu(z, parameter):
    return _scaled_elu(z, type(z)(SELU_SCALE), type(z)(SELU_SCALE * SELU_ALPHA))


@inlined
def _celu(z, parameter):
    f = format_of(z)
    alpha = type(z)(parameter)
    x, rest = quotient(larger(smaller(z, f.zero), alpha * f.lowest), alpha, f.one / alpha)
    p, low, high = exp_parts(x, rest)
    power = low * high
    value = z if z > 0 else (alpha * (p * power + (power - f.one)) if z <= 0 else z)
    return value, (f.one if z > 0 else ((p * low + low) * high if z <= 0 else z))


@inlined
def _tanh(z, parameter):
    f = format_of(z)
    p, low, high = exp_parts(larger(-f.two * abs(z), f.lowest), type(z)(NO_REST))
    power, low = low * high, p * low + low
    t = ((f.one - power) - p * power) / (f.one + low * high)
    return math.copysign(t, z), ((f.one + t) * low) * ((f.one + t) * high)


@inlined
def _sigmoid(z, parameter):
    f = format_of(z)
    e = decay(z)
    r = f.one / (f.one + e)
    return (e if z < 0 else f.one) * r, e * r * r


@inlined
def _softplus(z, parameter):
    f = format_of(z)
    e = decay(z)
    return larger(z, f.zero) + log1p(e), (e if z < 0 else f.one) / (f.one + e)


@inlined
def _silu(z, parameter):
    f = format_of(z)
    x, low, high = decay_parts(z)
    e = low * high
    r = f.one / (f.one + e)
    share, high = (r * low, high) if z < 0 else (r, f.one)
    bend = x * ((f.one if z < 0 else -e) * r)
    return larger(z, x) * share * high, share * (f.one + bend) * high


@inlined
def _gelu(z, parameter):
    w = np.float64(z)
    y = smaller(abs(w), 40.0)
    tail, density, high = normal_tail(y)
    product, bend = y * tail * high, (tail - y * density) * high
    return (-product if w < 0 else w - product), (bend if w < 0 else 1.0 - bend)


@inlined
def _gelu_tanh(z, parameter):
    f = format_of(z)
    end, linear, cubed = f.gelu_tanh.end, type(z)(LINEAR), type(z)(3 * CUBIC)
    y = smaller(abs(z), end)
    argument, rest = gelu_tanh_argument(y)
    p, low, high = exp_parts(-argument, -rest)
    low = p * low + low
    e = low * high
    r = f.one / (f.one + e)
    share, high = (r * low, high) if z < 0 else (r, f.one)
    bend = y * (linear + cubed * (y * y)) * ((-f.one if z < 0 else e) * r)
    return larger(z, -end) * share * high, share * (f.one + bend) * high


@inlined
def _mish(z, parameter):
    f = format_of(z)
    x, low, high = decay_parts(z)
    e = low * high
    # tanh(softplus(z)) is top / bottom, times e where z < 0.
    top = e + f.two if z < 0 else f.one + f.two * e
    bottom = f.two + e * top if z < 0 else top + f.two * (e * e)
    r = f.one / bottom
    share, high = (r * low, high) if z < 0 else (r, f.one)
    bend = x * ((f.two + f.two) * (f.one if z < 0 else -e * e)) * (f.one + e) * r
    return larger(z, x) * (top * share) * high, share * (top + bend) * high


@inlined
def _softsign(z, parameter):
    f = format_of(z)
    y = smaller(abs(z), f.softsign_end)
    r = f.one / (f.one + y)
    return math.copysign(y * r, z), r * r


@inlined
def _exp(z, parameter):
    value = exp(z)
    return value, value


@inlined
def _square(z, parameter):
    return z * z, format_of(z).two * z


@inlined
def _abs(z, parameter):
    f = format_of(z)
    return abs(z), (f.one if z > 0 else (-f.one if z < 0 else abs(z)))


def _each(dtype: np.dtype[Any], one: Any) -> Callable[..., None]:
    """Return an activation over a vector, of what it is of one number."""

    def run(parameter, slopes, a, slope, size):
        values, derivatives = vector(dtype, a, size), vector(dtype, slope, size)
        for i in range(size):
            values[i], derivatives[i] = one(values[i], parameter)

    return run


def _prelu(dtype: np.dtype[Any]) -> Callable[..., None]:
    """Return leaky_relu with a parameter for each unit, over a vector."""

    def run(parameter, slopes, a, slope, size):
        values, derivatives = vector(dtype, a, size), vector(dtype, slope, size)
        parameters = vector(dtype, slopes, size)
        for i in range(size):
            values[i], derivatives[i] = _leaky_relu(values[i], parameters[i])

    return run


def _periodic(dtype: np.dtype[Any], quarters: int) -> Callable[..., None]:
    """Return ``sin(z + quarters * pi / 2)`` over a vector; quarters is 0 or 1."""

    def run(parameter, slopes, a, slope, size):
        values, derivatives = vector(dtype, a, size), vector(dtype, slope, size)
        far = 0
        for i in range(size):
            z = values[i]
            near = abs(z) <= MOST_REDUCED
            value, derivative = sine(z if near else values.dtype.type(0), quarters)
            values[i], derivatives[i] = value if near else z, derivative
            far += 0 if near else 1
        # A value is at most 1, so what is not near is a pre-activation still.
        for i in range(size if far else 0):
            if not abs(values[i]) <= MOST_REDUCED:
                s, c = math.sin(np.float64(values[i])), math.cos(np.float64(values[i]))
                values[i], derivatives[i] = (c, -s) if quarters else (s, c)

    return run


# What is computed number by number; the others have loops of their own.
_OF_ONE = {
    "identity": _identity,
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "relu6": _relu6,
    "hard_tanh": _hard_tanh,
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": _hard_swish,
    "elu": _elu,
    "selu": _selu,
    "celu": _celu,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "silu": _silu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "mish": _mish,
    "softsign": _softsign,
    "square": _square,
    "exp": _exp,
    "abs": _abs,
}
_LOOPS: dict[str, Callable[[np.dtype[Any]], Callable[..., None]]] = {
    "prelu": _prelu,
    "sin": functools.partial(_periodic, quarters=0),
    "cos": functools.partial(_periodic, quarters=1),
}
NAMES = (*_OF_ONE, *_LOOPS)


@functools.cache
def routine(name: str, dtype: np.dtype[Any]) -> Any:
    """Return the compiled activation ``f(parameter, slopes, a, slope, size)``; see `activate`."""
    run = _each(dtype, _OF_ONE[name]) if name in _OF_ONE else _LOOPS[name](dtype)
    return compiled(run, f"{name}_{dtype}", types.void(*_ARGUMENTS))
