"""Runs a compiled routine over a batch: in chunks that are short enough to stop between and to share out."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastjac.arguments import as_outputs, as_samples
from fastjac.batches import threads
from fastjac.batches.chunks import GROUP, LONGEST, chunks, group_of, helpers, plain, rows, sample_costs
from fastjac.kernels.context import Contexts
from fastjac.kernels.functions import NAMES, Functions
from fastjac.kernels.packing import Packed

if TYPE_CHECKING:
    from fastjac.network import Network

Array = NDArray[Any]
HELD = 1 << 16  # multiply-adds of one sample that keeps the interpreter's lock: handing it over takes as long
RESULT_BYTES = 16 << 20  # of the Jacobians that an iterator makes at a time


def _terms(cost: int) -> tuple[int, bool]:
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
        terms = {name: _terms(self.costs[name == "value_and_jacobian"]) for name in NAMES}
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
