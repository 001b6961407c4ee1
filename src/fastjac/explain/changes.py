"""What if one input were another: the outputs after each single change, exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastjac.arguments import real_array
from fastjac.batches import threads as pool
from fastjac.batches.chunks import LONGEST, SHORTEST, Cost, helpers, sample_costs
from fastjac.batches.threads import Threads, thread_count
from fastjac.explain.names import input_names, output_names
from fastjac.kernels.context import Context
from fastjac.kernels.contexts import new_context
from fastjac.kernels.functions import changes
from fastjac.kernels.packing import Packed
from fastjac.network import Network

Array = NDArray[Any]
Work = Callable[[int, int], None]
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

    Notes
    -----
    Nothing is linearised. A change moves the first layer's pre-activations by a multiple of one row of its
    weights, ``z + (to - x[n]) w1[n]``, and one compiled routine takes many changes through all that follows.
    So a change costs what the layers behind the first cost. The network is called with a changed sample as
    it is where the update would be less exact: where a pre-activation is not finite, and where the old value
    outweighed all that is left. So it is for networks of more outputs than inputs, whose weights are packed
    the other way.

    Examples
    --------
    >>> import numpy as np
    >>> from fastjac import Network
    >>> net = Network([(np.eye(2), None)], head="relu")
    >>> what_if(net, [1.0, 2.0], -3.0)
    array([[0., 2.],
           [1., 0.]])
    """
    sample, candidates = _arguments(net, x, to)
    table = candidates.reshape(net.n_inputs, candidates.size // net.n_inputs)
    y = np.empty((*table.shape, net.n_outputs), net.dtype)
    updates = _updates(net)
    work = _calls(net, sample, table, y)
    if updates.fit(sample, table):
        work = updates.prepare(sample, table, y, work)
    pool.run(work, *updates.shares(table.shape[1], thread_count(threads)))
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
    names = net.input_names
    sample, candidates = real_array(x, "x", names), real_array(to, "to", names if np.ndim(to) < 2 else None)
    if sample.shape != (n,):
        raise ValueError(f"x has shape {sample.shape}, expected ({n},)")
    if candidates.ndim == 0:
        candidates = np.full(n, candidates)
    if candidates.ndim > 2 or candidates.shape[0] != n:
        raise ValueError(f"to has shape {candidates.shape}, expected (), ({n},) or ({n}, K)")
    return sample.astype(net.dtype), candidates.astype(net.dtype, order="C")


def _calls(net: Network, sample: Array, to: Array, y: Array) -> Work:
    """Return a function that writes ``y[start:stop]`` by calls of the network with changed samples."""
    each, rows = to.shape[1], max(1, BLOCK_BYTES // sample.nbytes)
    outputs = y.reshape(to.size, net.n_outputs)

    def work(start: int, stop: int) -> None:
        for first in range(start * each, stop * each, rows):
            numbers = np.arange(first, min(first + rows, stop * each))
            changed = np.tile(sample, (len(numbers), 1))
            changed[np.arange(len(numbers)), numbers // each] = to.reshape(-1)[numbers]
            net(changed, out=outputs[first : first + len(numbers)])

    return work


class _Updates:
    """What the changes of a network need besides it: made once, and kept as long as it lives."""

    def __init__(self, net: Network) -> None:
        packed = net.packed
        self._packed, self._n_inputs, self._bound = packed, net.n_inputs, 0.0
        self._width, self._cost = packed.target.panel_width(net.dtype), sample_costs(packed)[0].multiply_adds
        self._possible = False
        if not isinstance(packed, Packed) or any(packed.forward):
            return
        first, *rest = packed.layers
        self._possible, self._bound = True, packed.chain[0].bound
        self._largest = np.abs(first.w).max(axis=1)
        self._free: list[Context] = []
        units = first.b.size + sum(layer.b.size for layer in rest)
        self._cost = 1000 + 2 * (first.b.size + sum(layer.w.size for layer in rest) + 30 * units)

    def fit(self, *inputs: Array) -> bool:
        """Return whether the compiled routine can read the network's weights, and takes such inputs."""
        within = not self._bound or all((np.abs(array) <= self._bound).all() for array in inputs)
        return self._possible and within

    def shares(self, each: int, n_threads: int) -> tuple[Iterator[tuple[int, int]], int]:
        """Return the inputs that are taken at a time, whole panels of them, and how many threads help."""
        cost = self._cost * max(each, 1)
        total = cost * self._n_inputs
        share = LONGEST if n_threads == 1 else min(LONGEST, max(SHORTEST, total // (4 * n_threads)))
        step = max(1, share // (cost * self._width)) * self._width
        starts = range(0, self._n_inputs if each else 0, step)
        spans = ((start, min(start + step, self._n_inputs)) for start in starts)
        return spans, helpers(self._n_inputs, Cost(cost, self._width), n_threads)

    def prepare(self, sample: Array, to: Array, y: Array, call: Work) -> Work:
        """Return a function that writes ``y[start:stop]``, as ``call`` does at more cost."""
        routine, width, each = changes(y.dtype), self._width, to.shape[1]
        x_at, to_at = int(sample.ctypes.data), int(to.ctypes.data)
        y_at, stride = int(y.ctypes.data), y.nbytes // max(len(y), 1)
        # The update takes an old value out of a sum, but leaves its share of the rounding there. That counts
        # where the value outweighed all others; it is one input's at most.
        weights = np.abs(sample) * self._largest
        n = int(weights.argmax())
        outweighs = 2 * weights[n] > weights.sum()

        def work(start: int, stop: int) -> None:
            try:
                context = self._free.pop()
            except IndexError:
                context = new_context(self._packed)
            done = start
            while done < stop:
                inputs = stop - done
                done += routine(context.address, x_at, to_at, each, done, inputs, y_at + done * stride)
                if done < stop:
                    call(done, min(done + width, stop))
                    done += width
            self._free.append(context)
            if outweighs and start <= n < stop:
                call(n, n + 1)

        return work


_made: WeakKeyDictionary[Network, _Updates] = WeakKeyDictionary()


def _updates(net: Network) -> _Updates:
    try:
        return _made[net]
    except KeyError:
        return _made.setdefault(net, _Updates(net))
