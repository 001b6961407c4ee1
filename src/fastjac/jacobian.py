"""Value and Jacobian of affine-ReLU-affine-softmax on the raw arrays of its weights."""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike, NDArray

from fastjac.arguments import as_outputs, as_samples
from fastjac.batches.threads import Threads, thread_count
from fastjac.kernels import routines
from fastjac.kernels.context import Context
from fastjac.kernels.functions import TARGET
from fastjac.kernels.packing import Packed
from fastjac.layers import Activation, Layer, as_layers
from fastjac.network import Network
from fastjac.plan import Plan

Array = NDArray[Any]

# Samples in a batch from which on a call packs the weights first: that takes as long as some ten samples.
PACKED_FROM = 16


class _Call:
    """Room for a network of some sizes whose weights come with each call, and the routine to call."""

    def __init__(self, n: int, h: int, m: int, kind: str) -> None:
        dtype = np.dtype(kind)
        first = Layer(np.zeros((n, h), dtype), np.zeros(h, dtype), Activation("relu"))
        last = Layer(np.zeros((h, m), dtype), np.zeros(m, dtype), Activation("softmax"))
        self.context = Context(Packed([first, last], Plan((n, h, m)), TARGET, raw=True))
        self.address = self.context.address
        self.routine = routines.routine("value_and_jacobian_of", dtype)


class _Calls(threading.local):
    """What the calling thread used last: `_Call` by sizes and kind of number."""

    def __init__(self) -> None:
        self.get = functools.lru_cache(maxsize=8)(_Call)


_calls = _Calls()


def value_and_jacobian(
    x: ArrayLike,
    w1: ArrayLike,
    b1: ArrayLike,
    w2: ArrayLike,
    b2: ArrayLike,
    out: tuple[Array | None, Array | None] | None = None,
    *,
    threads: Threads = 1,
) -> tuple[Array, Array]:
    """Return ``y = softmax(relu(x @ w1 + b1) @ w2 + b2)`` and its Jacobian with respect to ``x``.

    Nothing is remembered between calls: for weights that stay the same a `fastjac.Network` is faster.

    Parameters
    ----------
    x : array_like, (N,) or (..., N)
        One sample, or any number of them.
    w1, b1, w2, b2 : array_like, (N, H), (H,), (H, M), (M,)
        Weights. They decide the dtype: float64, or float32 where that holds all of them.
    out : (y, jac), optional
        Where to write: C-contiguous arrays of that dtype and the shapes below that overlap neither
        each other nor an input.
    threads : int or "all", default 1
        How many threads, the calling one among them, work on a batch of 16 samples and more; the results
        are the same to the last bit.

    Returns
    -------
    y : ndarray, (M,) or (..., M)
        Probabilities.
    jac : ndarray, (M, N) or (..., M, N)
        ``jac[m, n] = d y[m] / d x[n]``.

    Raises
    ------
    ValueError, TypeError
        If a shape, a dtype or the layout of ``out`` does not fit; nothing has been written then.

    Examples
    --------
    >>> import numpy as np
    >>> from fastjac.jacobian import value_and_jacobian
    >>> y, jac = value_and_jacobian([1.0, 1.0], np.eye(2), np.zeros(2), np.eye(2), np.zeros(2))
    >>> jac
    array([[ 0.25, -0.25],
           [-0.25,  0.25]])
    """
    if type(x) is type(w1) is type(w2) is ndarray and x.ndim == 1 and w1.ndim == w2.ndim == 2:
        n, h = w1.shape
        m, kind = w2.shape[1], x.dtype.char
        if n and h and m and kind in "df":
            try:
                y, jac = (None, None) if out is None else out
                y = np.empty(m, kind) if y is None else y
                jac = np.empty((m, n), kind) if jac is None else jac
                call = _calls.get(n, h, m, kind)
                if call.routine(call.address, x, w1, b1, w2, b2, y, jac) == routines.OK:
                    return y, jac
            except (TypeError, ValueError):
                pass  # The checks below find what is wrong, or convert it.

    n_threads = thread_count(threads)
    given = {"x": x, "w1": w1, "b1": b1, "w2": w2, "b2": b2}
    first, last = as_layers([(w1, b1), (w2, b2)])
    (n, h), m, dtype = first.w.shape, last.b.size, first.w.dtype
    samples = as_samples(x, "x", n)
    lead = samples.shape[:-1]
    shapes = {"y in out": (*lead, m), "jac in out": (*lead, m, n)}
    y, jac = as_outputs((None, None) if out is None else out, shapes, dtype, given | {"x": samples})
    if samples.size >= PACKED_FROM * n:
        net = Network([first[:2], last[:2]])
        return net.value_and_jacobian(samples, out=(y, jac), threads=n_threads)
    call = _calls.get(n, h, m, dtype.char)
    inputs = np.require(samples, dtype, ["C", "A"])
    flat = (inputs.reshape(-1), first.w, first.b, last.w, last.b, y.reshape(-1), jac.reshape(-1, n))
    call.routine(call.address, *flat)
    return y, jac


def jacobian(
    x: ArrayLike,
    w1: ArrayLike,
    b1: ArrayLike,
    w2: ArrayLike,
    b2: ArrayLike,
    out: Array | None = None,
    *,
    threads: Threads = 1,
) -> Array:
    """Return the Jacobian (M, N) alone; see `value_and_jacobian`."""
    return value_and_jacobian(x, w1, b1, w2, b2, out=(None, out), threads=threads)[1]
