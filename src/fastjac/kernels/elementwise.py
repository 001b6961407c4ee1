"""Activations and their derivatives over whole vectors, written so that LLVM vectorises every loop.

The functions of one number are float64 without branches: a polynomial on a reduced argument, and
selects. float32 networks use them too: two conversions cost less than a second set of polynomials.
Errors are at most 1 unit in the last place for `exp`, 2 for `expm1` and `log1p`, 6 for `normal_tail`.
"""

# Compiled code carries no annotations: numba's types come from the arguments.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import math

import numpy as np
from numba import njit

from fastjac.kernels.intrinsics import from_bits, to_bits
from fastjac.layers import ACTIVATIONS

_CODES = {name: code for code, name in enumerate(ACTIVATIONS)}
IDENTITY, RELU, LEAKY_RELU = _CODES["identity"], _CODES["relu"], _CODES["leaky_relu"]
RELU6, HARD_TANH, ELU = _CODES["relu6"], _CODES["hard_tanh"], _CODES["elu"]
TANH, SIGMOID, SOFTPLUS = _CODES["tanh"], _CODES["sigmoid"], _CODES["softplus"]
SILU, GELU, GELU_TANH = _CODES["silu"], _CODES["gelu"], _CODES["gelu_tanh"]
SOFTMAX, LOG_SOFTMAX = _CODES["softmax"], _CODES["log_softmax"]

_SHIFTER = 6755399441055744.0  # 1.5 * 2**52: adding it rounds to an integer, left in the low bits
_LN2 = math.log(2)
_SQRT_HALF = math.sqrt(0.5)
_GELU_TANH = math.sqrt(2 / math.pi)
_DENSITY = 1 / math.sqrt(2 * math.pi)

_compiled = njit(error_model="numpy", fastmath={"contract"})
# A call in a loop's body would keep it scalar.
_inlined = njit(error_model="numpy", fastmath={"contract"}, forceinline=True)


@_inlined
def _exp_parts(x):
    """Return ``expm1(r)``, ``2**a`` and ``2**b`` with ``exp(x) = (1 + expm1(r)) * 2**a * 2**b``."""
    x = min(max(x, -746.0), 710.0)
    shifted = x * (1 / _LN2) + _SHIFTER
    n = shifted - _SHIFTER
    # ln(2) in two parts, the first short enough for n times it to be exact.
    r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10
    # Taylor's series to r**13 on |r| <= ln(2) / 2.
    p = 1 / 6227020800.0
    p = p * r + 1 / 479001600.0
    p = p * r + 1 / 39916800.0
    p = p * r + 1 / 3628800.0
    p = p * r + 1 / 362880.0
    p = p * r + 1 / 40320.0
    p = p * r + 1 / 5040.0
    p = p * r + 1 / 720.0
    p = p * r + 1 / 120.0
    p = p * r + 1 / 24.0
    p = p * r + 1 / 6.0
    p = p * r + 0.5
    p = p * r * r + r
    exponent = to_bits(shifted) - to_bits(_SHIFTER)
    half = exponent >> 1
    return p, from_bits((half + 1023) << 52), from_bits((exponent - half + 1023) << 52)


@_inlined
def exp(x):
    """Return ``e**x``; NaN for NaN."""
    p, a, b = _exp_parts(x)
    result = (1.0 + p) * a * b
    return x if x != x else result


@_inlined
def expm1(x):
    """Return ``e**x - 1`` for x <= 700; NaN for NaN."""
    p, a, b = _exp_parts(x)
    power = a * b
    result = p * power + (power - 1.0)
    return x if x != x else result


@_inlined
def log1p(e):
    """Return ``log(1 + e)`` for 0 <= e <= 1, by the series of the inverse hyperbolic tangent."""
    large = e > 0.41421356
    s = (e - 1.0) / (e + 3.0) if large else e / (e + 2.0)
    q = s * s
    p = 1 / 21.0
    p = p * q + 1 / 19.0
    p = p * q + 1 / 17.0
    p = p * q + 1 / 15.0
    p = p * q + 1 / 13.0
    p = p * q + 1 / 11.0
    p = p * q + 1 / 9.0
    p = p * q + 1 / 7.0
    p = p * q + 1 / 5.0
    p = p * q + 1 / 3.0
    result = 2.0 * (s + s * q * p)
    return _LN2 + result if large else result


@_inlined
def normal_tail(z):
    """Return ``P(Z > |z|)`` and the density at ``z`` of a standard normal Z.

    ``(1 + 2 x) exp(x**2) erfc(x)`` is a Chebyshev series in ``(x - 4) / (x + 4)`` (Shepherd and
    Laframboise, Mathematics of Computation 36, 1981), here of degree 24, error 1e-17.
    """
    y = min(abs(z), 40.0)
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
        z = np.float64(a[i])
        p, low, high = _exp_parts(min(z, 0.0))
        power = low * high
        negative = parameter * (p * power + (power - 1.0))
        a[i] = z if z > 0 else (negative if z <= 0 else z)
        slope[i] = 1 if z > 0 else (parameter * (p * power + power) if z <= 0 else z)
    for i in range(a.size if code == TANH else 0):
        z = np.float64(a[i])
        e = expm1(2.0 * min(abs(z), 22.0))
        a[i] = math.copysign(e / (e + 2.0), z) if z == z else z
        slope[i] = 1 - a[i] * a[i]
    for i in range(a.size if code == SIGMOID else 0):
        z = np.float64(a[i])
        e = exp(-abs(z))
        a[i] = (e if z < 0 else 1.0) / (1.0 + e)
        slope[i] = e / ((1.0 + e) * (1.0 + e))
    for i in range(a.size if code == SOFTPLUS else 0):
        z = np.float64(a[i])
        e = exp(-abs(z))
        a[i] = (z if z > 0 else 0.0) + log1p(e)
        slope[i] = (e if z < 0 else 1.0) / (1.0 + e)
    for i in range(a.size if code == SILU else 0):
        z = np.float64(a[i])
        e = exp(-abs(z))
        s, rest = (e if z < 0 else 1.0) / (1.0 + e), (1.0 if z < 0 else e) / (1.0 + e)
        a[i] = z * s
        slope[i] = s * (1.0 + z * rest)
    for i in range(a.size if code == GELU else 0):
        z = np.float64(a[i])
        tail, density = normal_tail(z)
        cdf = tail if z < 0 else 1.0 - tail
        a[i] = z * cdf
        slope[i] = cdf + z * density
    for i in range(a.size if code == GELU_TANH else 0):
        z = np.float64(a[i])
        # (1 + tanh(u)) / 2 is the sigmoid of 2 u.
        u = _GELU_TANH * (z + 0.044715 * z * z * z)
        e = exp(-2.0 * abs(u))
        s = (e if u < 0 else 1.0) / (1.0 + e)
        a[i] = z * s
        slope[i] = s + z * (2.0 * e / ((1.0 + e) * (1.0 + e))) * (_GELU_TANH * (1.0 + 3 * 0.044715 * z * z))


@_compiled
def exponentials(z, out):
    """Write ``exp(z - max(z))``, but 0 for the largest ``z``, and return the index of that."""
    best = 0
    for i in range(z.size):
        best = i if z[i] > z[best] else best
    largest = z[best]
    for i in range(z.size):
        out[i] = exp(np.float64(z[i] - largest)) if i != best else 0.0
    return best
