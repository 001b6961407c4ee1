"""Calls a network's routines with any number of samples, in chunks where there are many."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastjac.arguments import PLAIN, as_outputs, as_samples, check_array
from fastjac.batches import threads
from fastjac.batches.chunks import (
    HELD,
    call_terms,
    chunks,
    helpers,
    plain,
    rows,
    sample_costs,
)
from fastjac.kernels.contexts import Contexts, Weights, new_context
from fastjac.kernels.functions import bound, step
from fastjac.kernels.signatures import SIGNATURES

Array = NDArray[Any]
SHORT = 1 << 14  # numbers of an input that are converted at once, not chunk by chunk
RESULT_BYTES = 16 << 20  # of the Jacobians that an iterator makes at a time


class Calls:
    """A network's routines.

    Parameters
    ----------
    packed : Packed
        The network's weights.
    input_names, output_names : tuple of str, optional
        Names of the N inputs and of the M outputs.

    Attributes
    ----------
    value, value_and_jacobian, vjp, jvp : callable
        The routines as `functions.bound` makes them, each when it is first called.
    contexts : Contexts
        The memory that calls work in.
    sizes, names : mapping of str to int, and to tuple of str or None
        Of the inputs, ``"n"``, and of the outputs, ``"m"``.
    costs : mapping of str to Cost
        Of one sample in each routine.
    """

    value: Callable[..., Any]
    value_and_jacobian: Callable[..., Any]
    vjp: Callable[..., Any]
    jvp: Callable[..., Any]

    def __init__(
        self,
        packed: Weights,
        input_names: tuple[str, ...] | None = None,
        output_names: tuple[str, ...] | None = None,
    ) -> None:
        self.contexts = Contexts(packed)
        self.sizes = dict(zip("nm", self.contexts.sizes, strict=True))
        self.dtype = packed.dtype
        self._packed = packed
        self.names = {"n": input_names, "m": output_names}
        passes, both = sample_costs(packed)
        self.costs = {name: both if name == "value_and_jacobian" else passes for name in SIGNATURES}
        # The least numbers in a batch that a second thread may have a share of.
        n = self.sizes["n"]
        self._shared_from = {name: cost.shared_from * n for name, cost in self.costs.items()}
        for name in SIGNATURES:
            setattr(self, name, functools.partial(self._first, name))

    def _first(self, name: str, *arguments: Any) -> Any:
        """Make a routine's function, and call it."""
        function = bound(name, self.dtype, self.contexts, *call_terms(self.costs[name]))
        setattr(self, name, function)
        return function(*arguments)

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a routine with its inputs and its outputs; return the outputs, or False if they do not fit."""
        while (result := getattr(self, name)(*arguments)) is None:
            self.contexts.add()
        return result

    def run(
        self,
        name: str,
        given: Mapping[str, ArrayLike],
        out: Any = None,
        n_threads: threads.Threads = 1,
        labels: Sequence[str] | None = None,
    ) -> tuple[Array, ...]:
        """Call a routine with any inputs; return its outputs.

        Parameters
        ----------
        name : str
            Of the routine.
        given : mapping of str to array_like
            Its inputs (..., n). The leading axes of ``x`` are those of the batch; another input has the same,
            or none.
        out : sequence of ndarray or None, optional
            Its outputs; those that are None are made.
        n_threads : int or "all"
            How many threads share the work.
        labels : sequence of str, optional
            What errors call the outputs.
        """
        if n_threads != 1 or type(n_threads) is not int:
            n_threads, x = threads.thread_count(n_threads), given["x"]
            # A batch too short for a second thread goes the way that it goes with one.
            if type(x) is np.ndarray and x.size < self._shared_from[name]:
                n_threads = 1
                if result := self.call(name, *given.values(), out):
                    return tuple(result)
        cost, signature = self.costs[name], SIGNATURES[name]
        if n_threads == 1 and (result := self._short_way(name, given, out)):
            return tuple(result)
        inputs = {
            label: as_samples(value, label, self.sizes[axis], self.names[axis])
            for (label, value), axis in zip(given.items(), signature.inputs.values(), strict=True)
        }
        lead = inputs["x"].shape[:-1]
        samples = math.prod(lead)
        n_helpers = helpers(samples, cost, n_threads)
        for label, array in inputs.items():
            if array.ndim == 1 and lead:
                inputs[label] = np.broadcast_to(array, (*lead, array.size))
            elif array.shape[:-1] != lead:
                raise ValueError(f"{label} has shape {array.shape}, but x has shape {inputs['x'].shape}")
        size = max(array.shape[-1] for array in inputs.values()) * self.dtype.itemsize
        shapes = signature.shapes(*self.sizes.values())
        labels = [f"{label} in out" for label in shapes] if labels is None else labels
        full = [(*lead, *shape) for shape in shapes.values()]
        given_out = (None,) * len(shapes) if out is None else out
        outputs = as_outputs(given_out, dict(zip(labels, full, strict=True)), self.dtype, inputs)
        read = [rows(array, lead, self.dtype) for array in inputs.values()]
        written = [
            plain(array.reshape(samples, *shape), self.dtype)
            for array, shape in zip(outputs, shapes.values(), strict=True)
        ]

        def work(start: int, stop: int) -> None:
            results = tuple(array[start:stop] for array in written)
            if not self.call(name, *(part(start, stop) for part in read), results):
                raise RuntimeError("an array was changed during the call")

        threads.run(work, chunks(samples, cost, size, n_threads), n_helpers)
        return outputs

    def _short_way(self, name: str, given: Mapping[str, ArrayLike], out: Any) -> Any:
        """Convert lists, and arrays of another kind or layout, and call a routine; False if it refuses them.

        The long way costs a few microseconds, which is more than a small network takes.
        """
        arrays, dtype = [], self.dtype
        values: Iterable[Any] = given.values()
        for value in values:
            kind = type(value)
            if kind is np.ndarray:
                array = value
            elif kind is list or kind is tuple:
                try:
                    array = np.array(value)
                except (TypeError, ValueError, RuntimeError):
                    return False
                if array.ndim > 1 and not PLAIN.issuperset(map(type, value)):
                    return False
            else:
                return False
            # An output may overlap an array that was converted, and the long way says so.
            if (kind is np.ndarray and out is not None) or array.size > SHORT:
                return False
            if array.dtype is not dtype:
                if array.dtype.kind not in "biuf":
                    return False
                array = array.astype(dtype, "C")
            arrays.append(array)
        return self.call(name, *arrays, out)

    def bind(self, name: str, given: Mapping[str, Array | None], out: Any) -> Callable[[], Any]:
        """Return what `Network.bind` says."""
        if name not in SIGNATURES:
            raise ValueError(f"routine is {name!r}, expected one of {', '.join(SIGNATURES)}")
        signature = SIGNATURES[name]
        for label, value in given.items():
            if (value is None) == (label in signature.inputs):
                raise TypeError(f"routine {name!r} {'needs' if value is None else 'does not take'} {label}")
        inputs = {label: value for label, value in given.items() if value is not None}
        lead = np.shape(inputs["x"])[:-1]
        for label, value in inputs.items():
            check_array(value, label, (*lead, self.sizes[signature.inputs[label]]), self.dtype)
        labels = [f"{label} in out" for label in signature.outputs] if len(signature.outputs) > 1 else ["out"]
        shapes = [(*lead, *shape) for shape in signature.shapes(*self.sizes.values()).values()]
        outputs = (out,) if len(labels) == 1 else out
        for label, array in zip(labels, outputs if isinstance(outputs, tuple) else (), strict=False):
            if array is None:
                raise TypeError(f"{label} must be an ndarray, got None")
        arrays = as_outputs(outputs, dict(zip(labels, shapes, strict=True)), self.dtype, inputs)
        samples, cost = math.prod(lead), self.costs[name]
        context, releases = new_context(self._packed), samples * cost.multiply_adds > HELD
        everything = [inputs[label] for label in signature.inputs] + list(arrays)
        return step(name, self.dtype, context, everything, out, samples, releases)


def results(
    calls: Calls, x: Any, batch_size: int | None, n_threads: threads.Threads
) -> Iterator[tuple[Array, Array]]:
    """Return what `Network.iter_value_and_jacobian` says."""
    (n_inputs, n_outputs), n_threads = calls.contexts.sizes, threads.thread_count(n_threads)
    shape = np.shape(x)
    if len(shape) < 2 or shape[-1] != n_inputs:
        raise ValueError(f"x has shape {shape}, expected (B, {n_inputs}) or (B, ..., {n_inputs})")
    if batch_size is None:
        size = math.prod(shape[1:]) * n_outputs * calls.dtype.itemsize
        fitting = RESULT_BYTES // max(size, 1)
        group = calls.costs["value_and_jacobian"].group
        length = max(fitting // group * group, min(fitting, group), 1)
    elif (length := operator.index(batch_size)) < 1:
        raise ValueError(f"batch_size is {length}, expected a positive integer")

    def batch(start: int) -> tuple[Array, Array]:
        y, jac = calls.run("value_and_jacobian", {"x": x[start : start + length]}, None, n_threads)
        return y, jac

    return (batch(start) for start in range(0, shape[0], length))
