"""Compiled reductions of Jacobians that are still in the cache; sums are float64."""

# Compiled code carries no annotations: numba's types come from the arguments.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numba import from_dtype, njit, types

from fastjac.kernels.compiling import compiled
from fastjac.kernels.linking import INNER

_inner = njit(nogil=True, error_model="numpy", **INNER)
# Sums in whichever order is fastest.
_summing = njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract"}, **INNER)


@_summing
def _dot(a, b, gain):
    total = 0.0
    for i in range(a.size):
        total += (np.float64(a[i]) * gain) * (np.float64(b[i]) * gain)
    return total


def _add_magnitudes(jac, total):
    """Add the absolute values of ``jac`` (B * M, N) to ``total`` (M, N)."""
    for i in range(jac.shape[0]):
        row = i % total.shape[0]
        for n in range(total.shape[1]):
            total[row, n] += abs(jac[i, n])


def _add_by_class(gradients, classes, total, counts):
    """Add row b of ``gradients`` (B, N) to row ``classes[b]`` of ``total`` (M, N), and count it."""
    for i in range(classes.size):
        row = classes[i]
        counts[row] += 1
        for n in range(total.shape[1]):
            total[row, n] += gradients[i, n]


def _square_norms(jac, norms):
    """Write the squared Frobenius norm of each sample of ``jac`` (B * M, N) to ``norms`` (B,)."""
    rows = jac.shape[0] // norms.size
    for i in range(norms.size):
        total = 0.0
        for m in range(i * rows, (i + 1) * rows):
            total += _dot(jac[m], jac[m], 1.0)
        norms[i] = total


def _spectral_norms(jac, gram, vectors, norms):
    """Write the largest singular value of each sample of ``jac`` (B * M, N) to ``norms`` (B,).

    It is the square root of the largest eigenvalue of J J' or J' J, whichever is smaller, which goes to
    ``gram`` (k, k); ``vectors`` (4, k) is room to work in.
    """
    rows = jac.shape[0] // norms.size
    for i in range(norms.size):
        part = jac[i * rows : (i + 1) * rows]
        largest, nan = 0.0, False
        for m in range(rows):
            for n in range(part.shape[1]):
                value = abs(np.float64(part[m, n]))
                nan |= value != value
                largest = value if value > largest else largest
        if nan:
            norms[i] = math.nan
        elif largest == 0.0 or largest == math.inf:
            norms[i] = largest
        else:
            # A power of two near the largest entry: no square overflows, none that counts underflows.
            exponent = min(max(math.frexp(largest)[1], -1000), 1000)
            _fill_gram(part, math.ldexp(1.0, -exponent), gram)
            norms[i] = math.ldexp(math.sqrt(_largest_eigenvalue(gram, vectors)), exponent)


@_inner
def _fill_gram(jac, gain, gram):
    """Write both triangles of J J' or J' J for ``gain * jac``."""
    k = gram.shape[0]
    if k == jac.shape[0]:
        for i in range(k):
            for j in range(i + 1):
                gram[i, j] = gram[j, i] = _dot(jac[i], jac[j], gain)
    else:
        gram[:] = 0.0
        for m in range(jac.shape[0]):
            for i in range(k):
                factor = jac[m, i] * gain
                for j in range(k):
                    gram[i, j] += factor * (jac[m, j] * gain)


@_inner
def _largest_eigenvalue(a, vectors):
    """Return the largest eigenvalue of the symmetric matrix ``a`` (k, k), which is overwritten.

    Householder's reduction to tridiagonal form, then bisection: beyond the largest eigenvalue all pivots
    of ``T - x I`` are negative (Golub and Van Loan, Matrix Computations, 8.3.1 and 8.4.1).
    """
    k = a.shape[0]
    v, w, diagonal, off = vectors[0], vectors[1], vectors[2], vectors[3]
    for c in range(k - 2):
        size = k - c - 1
        for i in range(size):
            v[i] = a[c, c + 1 + i]
        norm = math.sqrt(_dot(v[:size], v[:size], 1.0))
        diagonal[c], off[c] = a[c, c], norm
        if norm == 0.0:
            continue
        scale = 1.0 / (norm * (norm + abs(v[0])))
        v[0] += math.copysign(norm, v[0])
        for i in range(size):
            w[i] = scale * _dot(a[c + 1 + i, c + 1 :], v[:size], 1.0)
        half = 0.5 * scale * _dot(v[:size], w[:size], 1.0)
        for i in range(size):
            w[i] -= half * v[i]
        for i in range(size):
            row, low, high = a[c + 1 + i], v[i], w[i]
            for j in range(size):
                row[c + 1 + j] -= low * w[j] + high * v[j]
    diagonal[k - 1] = a[k - 1, k - 1]
    if k > 1:
        diagonal[k - 2], off[k - 2] = a[k - 2, k - 2], abs(a[k - 2, k - 1])
    off[k - 1] = 0.0

    low = high = diagonal[0]
    for i in range(k):
        low = max(low, diagonal[i])
        high = max(high, diagonal[i] + off[i] + (off[i - 1] if i else 0.0))
    while True:
        middle = 0.5 * (low + high)
        if not low < middle < high:
            return high
        pivot = diagonal[0] - middle
        for i in range(1, k):
            if pivot >= 0.0:
                break
            pivot = diagonal[i] - middle - off[i - 1] * (off[i - 1] / pivot)
        if pivot >= 0.0:
            low = middle
        else:
            high = middle


# Name -> function, and the arguments after the first: kind of number and of dimensions.
_ROUTINES: dict[str, tuple[Any, tuple[tuple[Any, int], ...]]] = {
    "mean_abs": (_add_magnitudes, ((types.float64, 2),)),
    "class_mean": (_add_by_class, ((types.int64, 1), (types.float64, 2), (types.int64, 1))),
    "frobenius": (_square_norms, ((types.float64, 1),)),
    "spectral": (_spectral_norms, ((types.float64, 2), (types.float64, 2), (types.float64, 1))),
}


@functools.cache
def routine(name: str, dtype: np.dtype[Any]) -> Any:
    """Return the compiled reduction of that name, for Jacobians of ``dtype``."""
    function, rest = _ROUTINES[name]
    arrays = [types.Array(kind, ndim, "C") for kind, ndim in ((from_dtype(dtype), 2), *rest)]
    return compiled(function, f"{name}_{dtype}", types.void(*arrays))
