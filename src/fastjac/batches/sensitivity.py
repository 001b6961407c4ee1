"""Summaries of a network's Jacobians at many samples, none of which is kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastjac.arguments import as_samples
from fastjac.batches import threads
from fastjac.batches.chunks import LONGEST, Rows, chunks, group_of, helpers, rows
from fastjac.kernels import reductions

if TYPE_CHECKING:
    from fastjac.network import Network

Array = NDArray[Any]

MEANS = ("mean_abs", "class_mean")
NORMS = ("frobenius", "spectral")
# Jacobians that are made before they are reduced: as many as stay in the cache, and not so few that the
# kernels have too few samples to take together, if there is room.
BLOCK_BYTES = 1 << 20
FEW, FEW_BYTES = 16, 1 << 25
# A sum has so many parts, each over samples of its own: any number of threads adds the same numbers in
# the same order.
PARTS = range(8, 65)
PARTS_BYTES = 1 << 26


def sensitivity(net: Network, x: ArrayLike, reduce: str, n_threads: int) -> Array:
    """Return what `Network.sensitivity` says."""
    if reduce not in (*MEANS, *NORMS):
        raise ValueError(f"reduce is {reduce!r}, expected one of {', '.join((*MEANS, *NORMS))}")
    samples = as_samples(x, "x", net.n_inputs)
    lead = samples.shape[:-1]
    room = _Room(net, rows(samples, lead, net.dtype))
    count = samples.size // net.n_inputs
    if reduce in NORMS:
        return _norms(room, reduce, count, n_threads).reshape(lead)
    return _mean(room, reduce, count, n_threads)


class _Room(threading.local):
    """Where the calling thread makes Jacobians: a block of samples at a time."""

    def __init__(self, net: Network, read: Rows) -> None:
        self.net, self._read = net, read
        size = net.n_outputs * net.n_inputs * net.dtype.itemsize
        fitting = max(1, min(FEW, FEW_BYTES // size), BLOCK_BYTES // size)
        self._block = 1 << (fitting.bit_length() - 1)
        self._out: tuple[Array, Array] | None = None

    def samples(self, start: int, stop: int) -> Iterator[tuple[int, Array]]:
        """Yield the number of the first of some samples, and these samples (block, N)."""
        for first in range(start, stop, self._block):
            yield first, self._read(first, min(first + self._block, stop))

    def jacobians(self, start: int, stop: int) -> Iterator[tuple[int, Array]]:
        """Yield the number of the first of some samples, and their Jacobians (block * M, N)."""
        net = self.net
        if self._out is None:
            shape = (self._block, net.n_outputs)
            self._out = np.empty(shape, net.dtype), np.empty((*shape, net.n_inputs), net.dtype)
        y, jac = self._out
        for first, x in self.samples(start, stop):
            net.value_and_jacobian(x, out=(y[: len(x)], jac[: len(x)]))
            yield first, jac[: len(x)].reshape(-1, net.n_inputs)


def _norms(room: _Room, name: str, count: int, n_threads: int) -> Array:
    """Return a norm of each sample's Jacobian, (count,)."""
    net = room.net
    routine = reductions.routine(name, net.dtype)
    result = np.empty(count)
    shorter = min(net.n_outputs, net.n_inputs)
    cost = net._functions.costs[1]
    if name == "spectral":
        cost += shorter**2 * (net.n_outputs + net.n_inputs) + 4 * shorter**3

    def work(start: int, stop: int) -> None:
        space = [np.empty((shorter, shorter)), np.empty((4, shorter))] if name == "spectral" else []
        for first, jac in room.jacobians(start, stop):
            routine(jac, *space, result[first : first + len(jac) // net.n_outputs])

    size = net.n_inputs * net.dtype.itemsize
    threads.run(work, chunks(count, cost, size, n_threads), helpers(count, cost, n_threads))
    return result


def _mean(room: _Room, name: str, count: int, n_threads: int) -> Array:
    """Return a mean over all Jacobians, (M, N)."""
    net = room.net
    routine = reductions.routine(name, net.dtype)
    by_class = name == "class_mean"
    cost = 2 * net._functions.costs[0] if by_class else net._functions.costs[1]
    totals, share = _parts(net.n_outputs * net.n_inputs, count, cost)
    totals = totals.reshape(-1, net.n_outputs, net.n_inputs)
    counts = np.zeros(totals.shape[:2], np.int64)

    def work(start: int, stop: int) -> None:
        part = start // share % len(totals)
        if not by_class:
            for _, jac in room.jacobians(start, stop):
                routine(jac, totals[part])
            return
        for _, x in room.samples(start, stop):
            y = net(x)
            classes = y.argmax(axis=1)
            cotangents = np.zeros_like(y)
            cotangents[np.arange(len(y)), classes] = 1
            routine(net.vjp(x, cotangents)[1], classes, totals[part], counts[part])
            if np.isnan(y).any():
                totals[part] = np.nan

    # In turns of one share for each part, so that no two threads add to the same part.
    turn = len(totals) * share
    for start in range(0, count, turn):
        stop = min(start + turn, count)
        shares = ((first, min(first + share, stop)) for first in range(start, stop, share))
        threads.run(work, shares, helpers(stop - start, cost, n_threads))
    with np.errstate(all="ignore"):
        divisor = counts.sum(axis=0)[:, None] if by_class else count
        mean: Array = totals.sum(axis=0) / divisor
    return mean


def _parts(size: int, count: int, cost: int) -> tuple[Array, int]:
    """Return zeros (parts, size) to add to, and how many samples in a row belong to the same part."""
    group = group_of(cost)
    groups = -(-count // group)
    most = max(PARTS[0], min(PARTS[-1], PARTS_BYTES // (8 * size)))
    n_parts = max(1, min(most, groups))
    share = min(-(-groups // n_parts), max(1, LONGEST // 8 // cost // group)) * group
    return np.zeros((n_parts, size)), max(share, group)
