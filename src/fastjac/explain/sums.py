"""Weighted sums of Jacobians, none of which is kept, and the weights of an integral."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.batches.threads import Threads
from fastjac.network import Network

Array = NDArray[Any]
Place = Callable[[int, int, Array], object]

# Jacobians that are made before they are summed: few enough for the third cache, and enough for the kernels
# to take many samples together where there is room.
BLOCK_BYTES = 4 << 20
FEW, FEW_BYTES = 16, 1 << 25
# Nodes of a Gauss-Legendre rule cost the cube of their number.
MOST_NODES = 128


def weighted_jacobians(
    net: Network, count: int, weights: Array, place: Callable[[int, int], Place], threads: Threads
) -> Array:
    """Return ``sum_k weights[k] J(point k)`` for each of ``count`` samples, (count, M, N).

    ``place(first, last)`` returns a function that writes the points ``first`` to ``last`` of the samples
    ``start`` to ``stop`` into an array (stop - start, last - first, N). It is called once, in order, for each
    part of the points.
    """
    n, m = net.n_inputs, net.n_outputs
    size = n * m * net.dtype.itemsize
    room = max(1, min(FEW, FEW_BYTES // size), BLOCK_BYTES // size)
    across = min(room, len(weights))
    samples = min(max(1, room // across), max(count, 1))
    points = np.empty((samples * across, n), net.dtype)
    y, jac = np.empty((len(points), m), net.dtype), np.empty((len(points), m, n), net.dtype)
    total = np.zeros((count, m * n), net.dtype)
    for first in range(0, len(weights), across):
        part = weights[first : first + across]
        write = place(first, first + len(part))
        for start in range(0, count, samples):
            stop = min(start + samples, count)
            used = (stop - start) * len(part)
            write(start, stop, points[:used].reshape(stop - start, len(part), n))
            net.value_and_jacobian(points[:used], out=(y[:used], jac[:used]), threads=threads)
            total[start:stop] += part @ jac[:used].reshape(stop - start, len(part), m * n)
    return total.reshape(count, m, n)


@functools.lru_cache
def gauss_legendre(steps: int) -> tuple[Array, Array]:
    """Return nodes and weights (steps,) of Gauss-Legendre rules on equal parts of 0 to 1."""
    parts = -(-steps // MOST_NODES)
    counts = [steps // parts + (i < steps % parts) for i in range(parts)]
    rules = [np.polynomial.legendre.leggauss(count) for count in counts]
    nodes = [(i + (t + 1) / 2) / parts for i, (t, _) in enumerate(rules)]
    return np.concatenate(nodes), np.concatenate([w / (2 * parts) for _, w in rules])
