"""Activations and their derivatives over whole vectors, written so that LLVM vectorises every loop."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from fastjac.kernels.simd import from_bits, to_bits
from fastjac.layers import ACTIVATIONS

_CODES = {name: code for code, name in enumerate(ACTIVATIONS)}
IDENTITY, RELU = _CODES["identity"], _CODES["relu"]
SOFTMAX, LOG_SOFTMAX = _CODES["softmax"], _CODES["log_softmax"]


@njit(error_model="numpy")
def exp(x):
    """Return e**x to 1 ulp, without a branch: 2**n times a polynomial on [-ln(2)/2, ln(2)/2]."""
    # Adding 1.5 * 2**52 rounds to an integer and leaves it in the low bits.
    shifter = 6755399441055744.0
    z = min(max(x, -746.0), 710.0)
    shifted = z * 1.4426950408889634 + shifter
    n = shifted - shifter
    r = (z - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10
    p = 1.6059043836821613e-10
    p = p * r + 2.08767569878681e-09
    p = p * r + 2.505210838544172e-08
    p = p * r + 2.755731922398589e-07
    p = p * r + 2.7557319223985893e-06
    p = p * r + 2.48015873015873e-05
    p = p * r + 0.0001984126984126984
    p = p * r + 0.001388888888888889
    p = p * r + 0.008333333333333333
    p = p * r + 0.041666666666666664
    p = p * r + 0.16666666666666666
    p = p * r + 0.5
    p = p * r * r + r + 1.0
    exponent = to_bits(shifted) - to_bits(shifter)
    half = exponent >> 1
    result = p * from_bits((half + 1023) << 52) * from_bits((exponent - half + 1023) << 52)
    return x if x != x else result


@njit(error_model="numpy")
def softmax(z, probs, out, logs):
    """Write the softmax of ``z`` to ``probs``, it or its logarithm to ``out``; return the largest's index."""
    best = 0
    for i in range(z.size):
        if z[i] > z[best]:
            best = i
    largest = z[best]
    total = z.dtype.type(0)
    for i in range(z.size):
        probs[i] = exp(z[i] - largest)
    for i in range(z.size):
        total += probs[i]
    log_total = np.log(total) if logs else total
    for i in range(z.size):
        probs[i] /= total
        out[i] = z[i] - largest - log_total if logs else probs[i]
    return best


@njit(error_model="numpy")
def activate(code, parameter, a, slope):
    """Replace the pre-activations ``a`` by activations, and write the derivatives to ``slope``."""
    zero, one = a.dtype.type(0), a.dtype.type(1)
    if code == RELU:
        for i in range(a.size):
            z = a[i]
            a[i] = zero if z <= zero else z
            slope[i] = one if z > zero else (zero if z <= zero else z)
    elif code == IDENTITY:
        for i in range(a.size):
            z = a[i]
            slope[i] = one if z == z else z
