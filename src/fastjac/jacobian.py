"""Value and Jacobian of an affine-ReLU-affine-softmax network from the arrays of its weights.

The article "Computing the Jacobian matrix of a neural network in Python" computes the Jacobian of this
network in three ways and compares their times.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike, NDArray

from fastjac.arguments import as_outputs, as_samples
from fastjac.batches.chunks import call_terms, plain, sample_costs
from fastjac.batches.threads import Threads, thread_count
from fastjac.kernels.contexts import Contexts
from fastjac.kernels.functions import bound
from fastjac.kernels.machine_code import target
from fastjac.kernels.packing import Packed
from fastjac.kernels.signatures import RAW
from fastjac.layers import Activation, Layer, as_layers
from fastjac.network import Network
from fastjac.plan import Plan

Array = NDArray[Any]

# From this many samples on, a call packs the weights first, which takes as long as about ten samples.
PACKED_FROM = 16
_ONE = 1  # Python has one integer 1: to ask for identity takes no call.


def _call(n: int, h: int, m: int, kind: str) -> Callable[..., Any]:
    """Return ``f(x, w1, b1, w2, b2, out)`` for networks of these sizes, whose weights come with each call."""
    dtype = np.dtype(kind)
    first = Layer(np.zeros((n, h), dtype), np.zeros(h, dtype), Activation("relu"))
    last = Layer(np.zeros((h, m), dtype), np.zeros(m, dtype), Activation("softmax"))
    packed = Packed([first, last], Plan((n, h, m)), target(dtype), raw=True)
    most, releases = call_terms(sample_costs(packed)[1])
    contexts = Contexts(packed)
    contexts.add()
    return bound(RAW, dtype, contexts, max(most, PACKED_FROM), releases)


class _Calls(threading.local):
    """The functions of the last eight combinations of sizes and dtype that the calling thread used."""

    def __init__(self) -> None:
        self.get = functools.lru_cache(maxsize=8)(_call)


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

    Nothing is remembered between calls. For weights that stay the same, a `fastjac.Network` is faster.

    Parameters
    ----------
    x : array_like, (N,) or (..., N)
        One sample, or any number of them.
    w1, b1, w2, b2 : array_like, (N, H), (H,), (H, M), (M,)
        Weights and biases. They decide the dtype: float32 if that holds all of them, else float64.
    out : (y, jac), optional
        Where to write the results: C-contiguous arrays of that dtype and of the shapes below, which overlap
        neither each other nor an input.
    threads : int or "all", default 1
        How many threads work on a batch of 16 samples or more, the calling thread included. The results
        do not depend on it, to the last bit.

    Returns
    -------
    y : ndarray, (M,) or (..., M)
        Probabilities.
    jac : ndarray, (M, N) or (..., M, N)
        ``jac[m, n] = d y[m] / d x[n]``.

    Raises
    ------
    ValueError, TypeError
        If a shape, a dtype or the layout of ``out`` does not fit. Nothing is written then.

    Examples
    --------
    >>> import numpy as np
    >>> from fastjac.jacobian import value_and_jacobian
    >>> y, jac = value_and_jacobian([1.0, 1.0], np.eye(2), np.zeros(2), np.eye(2), np.zeros(2))
    >>> jac
    array([[ 0.25, -0.25],
           [-0.25,  0.25]])
    """
    if threads is _ONE and type(w1) is type(w2) is ndarray and w1.ndim == w2.ndim == 2:
        (n, h), m, kind = w1.shape, w2.shape[1], w1.dtype.char
        if n and h and m and kind in "df":
            result = _calls.get(n, h, m, kind)(x, w1, b1, w2, b2, out)
            if result:
                return result  # type: ignore[no-any-return]

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
    inputs, *weights = (
        plain(np.require(array, dtype, ["C", "A"]), dtype)
        for array in (samples.reshape(-1, n), first.w, first.b, last.w, last.b)
    )
    written = plain(y.reshape(-1, m), dtype), plain(jac.reshape(-1, m, n), dtype)
    if not _calls.get(n, h, m, dtype.char)(inputs, *weights, written):
        raise RuntimeError("an array was changed during the call")
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
    """Return the Jacobian (M, N) or (..., M, N) alone; see `value_and_jacobian`."""
    return value_and_jacobian(x, w1, b1, w2, b2, out=(None, out), threads=threads)[1]
