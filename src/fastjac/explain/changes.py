"""What if one input were another: the outputs after each single change, exactly."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastjac.arguments import real_array
from fastjac.batches.threads import Threads
from fastjac.explain.names import input_names, output_names
from fastjac.network import Network

Array = NDArray[Any]
BLOCK_BYTES = 1 << 20  # of changed samples that are made at a time


class Flip(NamedTuple):
    """A change of one input that makes another output the largest.

    Attributes
    ----------
    input : int
        Which input, counted from 0.
    name : str
        That input's name.
    old, new : float
        Its value before and after.
    winner : int
        The output that is the largest after it.
    output : str
        That output's name.
    """

    input: int
    name: str
    old: float
    new: float
    winner: int
    output: str


def what_if(net: Network, x: ArrayLike, to: ArrayLike = 0.0, *, threads: Threads = 1) -> Array:
    """Return the outputs after each single input is changed, all others as they are.

    Parameters
    ----------
    net : Network
        A network of N inputs and M outputs.
    x : array_like, (N,)
        One sample. Cast to the network's dtype.
    to : float or array_like, (N,) or (N, K), default 0
        What each input is changed to: one number for all, one for each, or K candidates for each.
    threads : int or "all", default 1
        How many threads, the calling one among them, work.

    Returns
    -------
    ndarray, (N, M) or (N, K, M)
        Row n holds the outputs at ``x`` with ``x[n]`` changed; in the network's dtype.

    Raises
    ------
    ValueError, TypeError
        If a shape or a dtype does not fit; the message names the argument.
    """
    sample, candidates = _arguments(net, x, to)
    table = candidates.reshape(net.n_inputs, candidates.size // net.n_inputs)
    y = np.empty((table.size, net.n_outputs), net.dtype)
    rows = max(1, BLOCK_BYTES // (net.n_inputs * net.dtype.itemsize))
    for start in range(0, table.size, rows):
        inputs, columns = np.divmod(np.arange(start, min(start + rows, table.size)), table.shape[1])
        changed = np.tile(sample, (len(inputs), 1))
        changed[np.arange(len(inputs)), inputs] = table[inputs, columns]
        net(changed, out=y[start : start + len(inputs)], threads=threads)
    return y.reshape(*candidates.shape, net.n_outputs)


def flips(net: Network, x: ArrayLike, to: ArrayLike = 0.0, *, threads: Threads = 1) -> list[Flip]:
    """Return the single changes that make another output the largest, the smallest change first.

    Parameters
    ----------
    net : Network
        A network of N inputs and at least two outputs.
    x, to, threads
        As in `what_if`.

    Returns
    -------
    list of Flip
        In the order of ``abs(new - old)``; empty where no single change is enough. Of equal outputs the first
        counts as the largest.

    Raises
    ------
    ValueError, TypeError
        As `what_if`; and if there is one output, or NaN among the outputs at ``x``: none is the largest.
    """
    if net.n_outputs < 2:
        raise ValueError("net has 1 output: flips compares the largest of at least 2")
    sample, candidates = _arguments(net, x, to)
    before = net(sample)
    if np.isnan(before).any():
        raise ValueError("the outputs at x have NaN among them: none is the largest")
    after = what_if(net, sample, candidates, threads=threads).reshape(candidates.size, net.n_outputs)
    new, inputs = candidates.reshape(-1), np.repeat(np.arange(net.n_inputs), candidates.size // net.n_inputs)
    old, winners = sample[inputs], after.argmax(axis=1)
    # A change to the same value is none, though a batch may round another way.
    flipped = (winners != before.argmax()) & (new != old) & ~np.isnan(after).any(axis=1)
    found = np.flatnonzero(flipped)
    with np.errstate(over="ignore"):
        order = found[np.argsort(np.abs(new - old)[found], kind="stable")]
    names, outputs = input_names(net), output_names(net)
    return [
        Flip(int(n), names[n], float(old[i]), float(new[i]), int(m), outputs[m])
        for i, n, m in zip(order, inputs[order], winners[order], strict=True)
    ]


def _arguments(net: Network, x: ArrayLike, to: ArrayLike) -> tuple[Array, Array]:
    """Return ``x`` (N,), and ``to`` (N,) or (N, K), in the network's dtype."""
    n = net.n_inputs
    sample, candidates = real_array(x, "x"), real_array(to, "to")
    if sample.shape != (n,):
        raise ValueError(f"x has shape {sample.shape}, expected ({n},)")
    if candidates.ndim == 0:
        candidates = np.broadcast_to(candidates, n)
    if candidates.ndim > 2 or candidates.shape[0] != n:
        raise ValueError(f"to has shape {candidates.shape}, expected (), ({n},) or ({n}, K)")
    return sample.astype(net.dtype), candidates.astype(net.dtype)
