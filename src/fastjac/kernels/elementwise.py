"""Activations and their derivatives over whole vectors, written so that LLVM vectorises every loop.

The functions of one number have no branches: a polynomial on a reduced argument, and selects. They
compute in the format of the number, gelu in float64. Errors are at most 1.1 units in the last place for
`exp`, 2 for `expm1` and `log1p`, 6 for `normal_tail`.
"""

# Compiled code carries no annotations: numba's types come from the arguments.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import overload

from fastjac.kernels.linking import INNER
from fastjac.kernels.llvm.intrinsics import from_bits, larger, smaller, to_bits
from fastjac.layers import ACTIVATIONS

_CODES = {name: code for code, name in enumerate(ACTIVATIONS)}
IDENTITY, RELU, LEAKY_RELU = _CODES["identity"], _CODES["relu"], _CODES["leaky_relu"]
RELU6, HARD_TANH, ELU = _CODES["relu6"], _CODES["hard_tanh"], _CODES["elu"]
TANH, SIGMOID, SOFTPLUS = _CODES["tanh"], _CODES["sigmoid"], _CODES["softplus"]
SILU, GELU, GELU_TANH = _CODES["silu"], _CODES["gelu"], _CODES["gelu_tanh"]
SOFTMAX, LOG_SOFTMAX = _CODES["softmax"], _CODES["log_softmax"]

_SQRT_HALF = math.sqrt(0.5)
_GELU_TANH = math.sqrt(2 / math.pi)
_DENSITY = 1 / math.sqrt(2 * math.pi)

_compiled = njit(error_model="numpy", fastmath={"contract"}, **INNER)
# A call in a loop's body would keep it scalar.
_inlined = njit(error_model="numpy", fastmath={"contract"}, forceinline=True, **INNER)


class _Format(NamedTuple):
    """The constants of one floating-point format, all of that format or the integer of its size."""

    one: Any
    two: Any
    lowest: Any  # exp is 0 from here down
    highest: Any  # and infinite from here up.
    shifter: Any  # 1.5 * 2**mantissa: adding it rounds to an integer, left in the low bits
    per_ln2: Any
    ln2: Any
    sqrt2m1: Any  # sqrt(2) - 1
    ln2_high: Any  # short enough for an exponent times it to be exact
    ln2_low: Any
    mantissa: Any
    bias: Any
    exp: Any  # 1 / n! for n from the last term to 2
    atanh: Any  # 1 / n for odd n from the last term to 3


def _format(real: Any, integer: Any, ln2_high: float, ln2_low: float, terms: int, odd: int) -> _Format:
    info = np.finfo(real)
    return _Format(
        one=real(1),
        two=real(2),
        lowest=real(math.log(info.smallest_subnormal) - 2),
        highest=real(math.log(info.max) + 1),
        shifter=real(1.5 * 2**info.nmant),
        per_ln2=real(1 / math.log(2)),
        ln2=real(math.log(2)),
        sqrt2m1=real(math.sqrt(2) - 1),
        ln2_high=real(ln2_high),
        ln2_low=real(ln2_low),
        mantissa=integer(info.nmant),
        bias=integer(info.maxexp - 1),
        exp=tuple(real(1 / math.factorial(n)) for n in range(terms, 1, -1)),
        atanh=tuple(real(1 / n) for n in range(odd, 1, -2)),
    )


_DOUBLE = _format(np.float64, np.int64, 6.93147180369123816490e-01, 1.90821492927058770002e-10, 13, 21)
_SINGLE = _format(np.float32, np.int32, 0.693145751953125, 1.42860682030941723212e-06, 7, 11)


def _format_of(x: Any) -> _Format:
    """Return the constants of a number's format, also in compiled code."""
    return _DOUBLE if x.itemsize == 8 else _SINGLE


@overload(_format_of, jit_options=INNER)
def _overload_format_of(x):
    constants = _DOUBLE if x == types.float64 else _SINGLE
    return lambda x: constants


@_inlined
def _exp_parts(x):
    """Return ``expm1(r)``, ``2**a`` and ``2**b`` with ``exp(x) = (1 + expm1(r)) * 2**a * 2**b``."""
    f = _format_of(x)
    x = smaller(larger(x, f.lowest), f.highest)
    shifted = x * f.per_ln2 + f.shifter
    n = shifted - f.shifter
    r = (x - n * f.ln2_high) - n * f.ln2_low
    p = f.exp[0]
    for i in range(1, len(f.exp)):  # Taylor's series on |r| <= ln(2) / 2
        p = p * r + f.exp[i]
    p = p * r * r + r
    exponent = to_bits(shifted) - to_bits(f.shifter)
    half = exponent >> 1
    return p, _power(half, f), _power(exponent - half, f)


@_inlined
def _power(exponent, f):
    """Return ``2**exponent``."""
    return from_bits(type(f.bias)((exponent + f.bias) << f.mantissa))


@_inlined
def exp(x):
    """Return ``e**x``; NaN for NaN."""
    p, a, b = _exp_parts(x)
    result = (_format_of(x).one + p) * a * b
    return x if x != x else result


@_inlined
def expm1(x):
    """Return ``e**x - 1`` where that is finite; NaN for NaN."""
    p, a, b = _exp_parts(x)
    power = a * b
    result = p * power + (power - _format_of(x).one)
    return x if x != x else result


@_inlined
def log1p(e):
    """Return ``log(1 + e)`` for 0 <= e <= 1, by the series of the inverse hyperbolic tangent."""
    f = _format_of(e)
    large = e > f.sqrt2m1
    s = (e - f.one) / (e + (f.two + f.one)) if large else e / (e + f.two)
    q = s * s
    p = f.atanh[0]
    for i in range(1, len(f.atanh)):
        p = p * q + f.atanh[i]
    result = f.two * (s + s * q * p)
    return f.ln2 + result if large else result


@_inlined
def normal_tail(z):
    """Return ``P(Z > |z|)`` and the density at ``z`` of a standard normal Z.

    ``(1 + 2 x) exp(x**2) erfc(x)`` is a Chebyshev series in ``(x - 4) / (x + 4)`` (Shepherd and
    Laframboise, Mathematics of Computation 36, 1981), here of degree 24, error 1e-17.
    """
    y = smaller(abs(z), 40.0)
    x = y * _SQRT_HALF
    t = (x - 4.0) / (x + 4.0)
    p = -2.764120233734578e-10
    p = p * t + 9.297625263709659e-10
    p = p * t + 3.2323973445082033e-09
    p = p * t - 1.2338731403798444e-08
    p = p * t - 2.0725802488181963e-08
    p = p * t + 1.0631817593818149e-07
    p = p * t + 7.771943241086912e-08
    p = p * t - 8.210647933297337e-07
    p = p * t + 2.9173425573089733e-07
    p = p * t + 5.70657829924074e-06
    p = p * t - 1.1221135665965907e-05
    p = p * t - 2.4397731143023292e-05
    p = p * t + 0.00015062142608651945
    p = p * t - 0.0001992571524726518
    p = p * t - 0.0007577732435942576
    p = p * t + 0.005031970069102256
    p = p * t - 0.01619773406293477
    p = p * t + 0.037167515526338006
    p = p * t - 0.06633036581186058
    p = p * t + 0.09373283499911264
    p = p * t - 0.10103906603631811
    p = p * t + 0.06809705425466839
    p = p * t + 0.015379652102619974
    p = p * t - 0.13962111684056228
    p = p * t + 1.2329951186255526
    # exp(-y**2 / 2) from the upper bits of y, whose square is exact, and the small rest.
    upper = from_bits(to_bits(y) & -134217728)
    rest = 0.5 * (y - upper) * (y + upper)
    e = exp(-0.5 * upper * upper) * (1.0 - rest * (1.0 - rest * (0.5 - rest * (1 / 6.0))))
    return 0.5 * e * p / (1.0 + 2.0 * x), e * _DENSITY


@_compiled
def activate(code, parameter, a, slope):
    """Replace the pre-activations ``a`` by activations, and write the derivatives to ``slope``."""
    real = a.dtype.type
    zero, one, two, alpha = real(0), real(1), real(2), real(parameter)
    for i in range(a.size if code == IDENTITY else 0):
        z = a[i]
        slope[i] = 1 if z == z else z
    for i in range(a.size if code == RELU else 0):
        z = a[i]
        a[i] = 0 if z <= 0 else z
        slope[i] = 1 if z > 0 else (0 if z <= 0 else z)
    for i in range(a.size if code == LEAKY_RELU else 0):
        z = a[i]
        a[i] = z if z > 0 else parameter * z
        slope[i] = 1 if z > 0 else (parameter if z <= 0 else z)
    for i in range(a.size if code == RELU6 else 0):
        z = a[i]
        a[i] = 0 if z <= 0 else (6 if z >= 6 else z)
        slope[i] = 0 if z <= 0 or z >= 6 else (1 if z == z else z)
    for i in range(a.size if code == HARD_TANH else 0):
        z = a[i]
        a[i] = -1 if z <= -1 else (1 if z >= 1 else z)
        slope[i] = 0 if z <= -1 or z >= 1 else (1 if z == z else z)
    for i in range(a.size if code == ELU else 0):
        z = a[i]
        p, low, high = _exp_parts(smaller(z, zero))
        power = low * high
        negative = alpha * (p * power + (power - one))
        a[i] = z if z > 0 else (negative if z <= 0 else z)
        slope[i] = one if z > 0 else (alpha * (p * power + power) if z <= 0 else z)
    for i in range(a.size if code == TANH else 0):
        z = a[i]
        e = expm1(two * smaller(abs(z), real(22)))
        a[i] = math.copysign(e / (e + two), z) if z == z else z
        slope[i] = one - a[i] * a[i]
    for i in range(a.size if code == SIGMOID else 0):
        z = a[i]
        e = exp(-abs(z))
        a[i] = (e if z < 0 else one) / (one + e)
        slope[i] = e / ((one + e) * (one + e))
    for i in range(a.size if code == SOFTPLUS else 0):
        z = a[i]
        e = exp(-abs(z))
        a[i] = larger(z, zero) + log1p(e)
        slope[i] = (e if z < 0 else one) / (one + e)
    for i in range(a.size if code == SILU else 0):
        z = a[i]
        e = exp(-abs(z))
        s, rest = (e if z < 0 else one) / (one + e), (one if z < 0 else e) / (one + e)
        a[i] = z * s
        slope[i] = s * (one + z * rest)
    for i in range(a.size if code == GELU else 0):
        z = np.float64(a[i])
        tail, density = normal_tail(z)
        cdf = tail if z < 0 else 1.0 - tail
        a[i] = z * cdf
        slope[i] = cdf + z * density
    rate, cubic, slower = real(_GELU_TANH), real(0.044715), real(3 * 0.044715)
    for i in range(a.size if code == GELU_TANH else 0):
        z = a[i]
        # (1 + tanh(u)) / 2 is the sigmoid of 2 u.
        u = rate * (z + cubic * z * z * z)
        e = exp(-two * abs(u))
        s = (e if u < 0 else one) / (one + e)
        a[i] = z * s
        slope[i] = s + z * (two * e / ((one + e) * (one + e))) * (rate * (one + slower * z * z))


@_compiled
def exponentials(z, size, best, top, out):
    """Write ``exp(z - top)`` for the first ``size`` of whole vectors, but 0 for the best, and 0 behind."""
    for i in range(z.size):
        out[i] = exp(z[i] - top) if i < size and i != best else 0.0
