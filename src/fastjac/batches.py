"""Runs a compiled routine over a batch: in chunks that are short enough to stop between and to share out."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastjac import threads
from fastjac.arguments import as_outputs, as_samples
from fastjac.kernels.context import Contexts
from fastjac.kernels.entry import NAMES, Functions
from fastjac.kernels.packing import Packed

if TYPE_CHECKING:
    from fastjac.network import Network

Array = NDArray[Any]
# Gives the samples from start to stop, (stop - start, n).
Rows = Callable[[int, int], Array]

# A chunk begins at a multiple of this many samples, unless these are too much for one chunk: the kernels
# take up to this many together, counted from the first that they get.
GROUP = 32
# Work is counted in multiply-adds, of which a core does 2 to 60 in a nanosecond.
HELD = 1 << 16  # One sample's call keeps the interpreter's lock: handing it over takes as long.
SHORTEST = 500_000  # A thread takes a few microseconds to get a chunk.
LONGEST = 500_000_000  # Ctrl-C waits for the chunks that are being worked on.
HEAVIEST = 4 * LONGEST  # of a group: less would forgo what taking samples together gains
LONGEST_BYTES = 4 << 20  # of inputs: where they are converted, that is done chunk by chunk.
RESULT_BYTES = 16 << 20  # of the Jacobians that an iterator makes at a time


def sample_costs(packed: Packed) -> tuple[int, int]:
    """Return a sample's multiply-adds without and with the Jacobian, thirty for each activation."""
    passes = 1000 + 2 * sum(layer.w.size + 30 * layer.b.size for layer in packed.layers)
    return passes, passes + packed.plan.multiply_adds


def call_terms(cost: int) -> tuple[int, bool]:
    """Return the most samples of one call, and whether one sample's lets other threads run."""
    return max(LONGEST // cost, group_of(cost)), cost > HELD


class Calls(Functions):
    """Calls a network's routines on any number of samples.

    Parameters
    ----------
    packed : Packed
        The network's weights.

    Attributes
    ----------
    costs : (int, int)
        Its `sample_costs`.
    """

    def __init__(self, packed: Packed) -> None:
        self.costs = sample_costs(packed)
        terms = {name: call_terms(self.costs[name == "value_and_jacobian"]) for name in NAMES}
        super().__init__(packed.layers[0].w.dtype, Contexts(packed), terms)
        n_inputs, n_outputs = self.contexts.sizes
        self.sizes = {"x": n_inputs, "u": n_inputs, "v": n_outputs}

    def run(
        self,
        call: Callable[..., bool],
        given: Mapping[str, ArrayLike],
        out: Any,
        shapes: Mapping[str, tuple[int, ...]],
        n_threads: int,
    ) -> tuple[Array, ...]:
        """Call a routine with ``given`` and the arrays of ``out``, new ones where it has None.

        Parameters
        ----------
        call : callable
            ``call(*inputs, outputs) -> bool`` with arrays (B, n) and a tuple of arrays (B, ...).
        given : mapping of str to array_like
            What the caller calls the inputs, and what they are: (..., n), the leading axes the same.
        out : sequence of ndarray or None
            Results, one for each of ``shapes``.
        shapes : mapping of str to tuple
            What the caller calls the results, and the shape of each for one sample.
        n_threads : int
            How many threads share the work.
        """
        cost = self.costs[any(len(shape) == 2 for shape in shapes.values())]
        inputs = {name: as_samples(value, name, self.sizes[name]) for name, value in given.items()}
        lead = inputs["x"].shape[:-1]
        for name, array in inputs.items():
            if array.shape[:-1] != lead:
                raise ValueError(f"{name} has shape {array.shape}, but x has shape {inputs['x'].shape}")
        outputs = as_outputs(out, {name: lead + shape for name, shape in shapes.items()}, self.dtype, inputs)
        samples = math.prod(lead)
        read = [rows(array, lead, self.dtype) for array in inputs.values()]
        written = [
            plain(array.reshape(samples, *shape), self.dtype)
            for array, shape in zip(outputs, shapes.values(), strict=True)
        ]

        def work(start: int, stop: int) -> None:
            results = tuple(array[start:stop] for array in written)
            if not call(*(part(start, stop) for part in read), results):
                raise RuntimeError("an array was changed during the call")

        size = max(array.shape[-1] for array in inputs.values()) * self.dtype.itemsize
        threads.run(work, chunks(samples, cost, size, n_threads), helpers(samples, cost, n_threads))
        return outputs


def results(net: Network, x: Any, batch_size: int | None, n_threads: int) -> Iterator[tuple[Array, Array]]:
    """Return what `Network.iter_value_and_jacobian` says."""
    shape = np.shape(x)
    if len(shape) < 2 or shape[-1] != net.n_inputs:
        raise ValueError(f"x has shape {shape}, expected (B, {net.n_inputs}) or (B, ..., {net.n_inputs})")
    if batch_size is None:
        size = math.prod(shape[1:]) * net.n_outputs * net.dtype.itemsize
        fitting = RESULT_BYTES // max(size, 1)
        length = max(fitting // GROUP * GROUP, min(fitting, GROUP), 1)
    elif (length := operator.index(batch_size)) < 1:
        raise ValueError(f"batch_size is {length}, expected a positive integer")
    return (
        net.value_and_jacobian(x[start : start + length], threads=n_threads)
        for start in range(0, shape[0], length)
    )


def group_of(cost: int) -> int:
    """Return the number of samples whose multiples all chunks begin at: `GROUP` or a fraction of it."""
    group = GROUP
    while group > 1 and group * cost > HEAVIEST:
        group //= 2
    return group


def chunks(samples: int, cost: int, size: int, n_threads: int) -> Iterator[threads.Chunk]:
    """Yield ``(start, stop)`` of consecutive chunks.

    Parameters
    ----------
    samples : int
        In the batch.
    cost : int
        Multiply-adds of one sample.
    size : int
        Bytes of one sample's inputs.
    n_threads : int
        Many threads get long chunks first and short ones in the end, so that all finish together.
    """
    group = group_of(cost)
    longest = max(min(LONGEST // cost, LONGEST_BYTES // size) // group, 1) * group
    shortest = min(-(-SHORTEST // (cost * group)) * group, longest)
    start = 0
    while start < samples:
        share = (samples - start) // (2 * n_threads) // group * group
        length = longest if n_threads == 1 else max(shortest, min(longest, share))
        yield start, min(start + length, samples)
        start += length


def helpers(samples: int, cost: int, n_threads: int) -> int:
    """Return how many threads beside the calling one have something to do."""
    return min(n_threads, -(-samples * cost // SHORTEST)) - 1


def rows(array: Array, lead: tuple[int, ...], dtype: np.dtype[Any]) -> Rows:
    """Return what reads samples of ``array`` (*lead, n) in ``dtype``, converting no others."""
    if array.flags.c_contiguous or array.ndim <= 2:
        table = array.reshape(-1, array.shape[-1])
        return lambda start, stop: plain(np.require(table[start:stop], dtype, ["C", "A"]), dtype)

    def gather(start: int, stop: int) -> Array:
        index = np.unravel_index(np.arange(start, stop), lead)
        return plain(np.require(array[index], dtype, ["C", "A"]), dtype)

    return gather


def plain(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return an ndarray, of no subclass, with this very ``dtype`` in place of one equal to it."""
    return np.asarray(array).view(dtype)
