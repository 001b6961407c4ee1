"""`Network`: weights packed once, then value and Jacobian in one compiled call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastjac import embedding
from fastjac.arguments import new_where_none
from fastjac.batches.calls import Calls, results
from fastjac.batches.chunks import helpers
from fastjac.batches.sensitivity import sensitivity
from fastjac.batches.threads import thread_count
from fastjac.kernels.methods import Owner, replace
from fastjac.kernels.packing import Packed
from fastjac.layers import Activation, Layer, as_layers
from fastjac.plan import Plan

Array = NDArray[Any]


class Network(Owner):
    """A multilayer perceptron whose output and Jacobian come from one compiled routine.

    Parameters
    ----------
    layers : sequence of (w, b)
        Weights (fan_in, fan_out) and bias (fan_out,) or None of each affine layer, inputs first. Copied.
    activation : str or sequence of str, default "relu"
        Of all hidden layers, or one for each: ``"tanh"``, ``"leaky_relu(0.2)"``, ...; the names are in
        `fastjac.layers.ACTIVATIONS`.
    head : str, default "softmax"
        Of the last layer: ``"softmax"``, ``"log_softmax"`` or any activation.
    dtype : float32 or float64, optional
        What the network computes in. Default: the widest of its weights.
    input_names, output_names : sequence of str, optional
        Names of the N inputs and of the M outputs.

    Raises
    ------
    ValueError, TypeError
        If a shape, a name or a dtype does not fit; the message names the argument.

    Notes
    -----
    A network is immutable, hashed by identity, and safe to share between threads: calls that run
    at the same time work in memory of their own.

    Examples
    --------
    >>> import numpy as np
    >>> net = Network([(np.eye(2), [0.0, 0.0]), (np.eye(2), [0.0, 0.0])])
    >>> net
    Network(2 -> 2 relu -> 2 softmax, float64)
    >>> y, jac = net.value_and_jacobian([1.0, 1.0])
    >>> y
    array([0.5, 0.5])
    >>> jac
    array([[ 0.25, -0.25],
           [-0.25,  0.25]])
    """

    layers: tuple[Layer, ...]
    n_inputs: int
    n_outputs: int
    plan: Plan
    dtype: np.dtype[Any]
    input_names: tuple[str, ...] | None
    output_names: tuple[str, ...] | None
    _results: dict[str, dict[str, tuple[int, ...]]]
    _packed: Packed
    _functions: Calls

    def __init__(
        self,
        layers: Sequence[Any],
        activation: str | Activation | Sequence[str | Activation] = "relu",
        head: str | Activation = "softmax",
        dtype: DTypeLike | None = None,
        *,
        input_names: Sequence[str] | None = None,
        output_names: Sequence[str] | None = None,
    ) -> None:
        checked = as_layers(layers, activation, head, dtype)
        sizes = (checked[0].w.shape[0], *(layer.b.size for layer in checked))
        packed = Packed(checked, Plan(sizes))
        replace(Network)
        # Past __setattr__, which refuses.
        self.__dict__.update(
            layers=checked,
            n_inputs=sizes[0],
            n_outputs=sizes[-1],
            plan=packed.plan,
            dtype=checked[0].w.dtype,
            input_names=_names(input_names, "input_names", sizes[0]),
            output_names=_names(output_names, "output_names", sizes[-1]),
            _results=_results(sizes[0], sizes[-1]),
            _packed=packed,
        )
        object.__setattr__(self, "_functions", Calls(packed))

    def __call__(self, x: ArrayLike, out: Array | None = None, *, threads: int | str = 1) -> Array:
        """Return the output ``y`` (M,) for the inputs ``x`` (N,); see `value_and_jacobian`."""
        if out is not None and threads == 1 and self._functions.call("value", x, (out,)):
            return out
        y: Array = self._run("value", (x,), (out,), threads)[0]
        return y

    def value_and_jacobian(
        self, x: ArrayLike, out: tuple[Array, Array] | None = None, *, threads: int | str = 1
    ) -> tuple[Array, Array]:
        """Return the output and its Jacobian with respect to the inputs.

        Parameters
        ----------
        x : array_like, (N,) or (..., N)
            One sample, or any number of them. Cast to the network's dtype.
        out : (y, jac), optional
            Where to write: C-contiguous arrays of the network's dtype and the shapes below that overlap
            neither each other nor ``x``.
        threads : int or "all", default 1
            How many threads, the calling one among them, work on a batch; the results are the same to the
            last bit.

        Returns
        -------
        y : ndarray, (M,) or (..., M)
        jac : ndarray, (M, N) or (..., M, N)
            ``jac[m, n] = d y[m] / d x[n]``.

        Raises
        ------
        ValueError, TypeError
            If a shape, a dtype or the layout of ``out`` does not fit; nothing has been written then.
        """
        y, jac = self._run("value_and_jacobian", (x,), out, threads)
        return y, jac

    def jacobian(self, x: ArrayLike, out: Array | None = None, *, threads: int | str = 1) -> Array:
        """Return the Jacobian (M, N) alone; see `value_and_jacobian`."""
        jac: Array = self._run("jacobian", (x,), (out,), threads)[0]
        return jac

    def iter_value_and_jacobian(
        self, x: ArrayLike, batch_size: int | None = None, *, threads: int | str = 1
    ) -> Iterator[tuple[Array, Array]]:
        """Return an iterator over results that are together larger than memory.

        Parameters
        ----------
        x : array_like, (B, N) or (B, ..., N)
            Samples. Whatever has a shape and gives slices is read slice by slice: a `numpy.memmap`, an HDF5
            data set.
        batch_size : int, optional
            How many entries of the first axis are taken at a time; the last batch may be shorter. Default:
            as many as make about 16 MB of Jacobians.
        threads : int or "all", default 1
            How many threads work on each batch.

        Returns
        -------
        iterator of (y, jac)
            `value_and_jacobian` of each batch, in order. The arrays are new each time, and the caller's to
            keep.
        """
        return results(self, x, batch_size, thread_count(threads))

    def sensitivity(self, x: ArrayLike, reduce: str = "mean_abs", *, threads: int | str = 1) -> Array:
        """Return a summary of the Jacobians at many samples without keeping them.

        Parameters
        ----------
        x : array_like, (..., N)
            Samples, B of them.
        reduce : {"mean_abs", "class_mean", "frobenius", "spectral"}
            - ``"mean_abs"``: the mean of ``abs(jac)`` over all samples, (M, N).
            - ``"class_mean"``: row m is the mean of ``jac[m]``, the gradient of output m, over the samples
              whose largest output is ``y[m]``, (M, N); NaN where there are none.
            - ``"frobenius"``: the squared Frobenius norm of each sample's Jacobian, (...,).
            - ``"spectral"``: the largest singular value of each sample's Jacobian, (...,).
        threads : int or "all", default 1
            How many threads, the calling one among them, work; the results are the same to the last bit.

        Returns
        -------
        ndarray of float64
            Whatever the network's dtype: sums are float64.

        Notes
        -----
        Memory is bounded whatever B is. NaN and infinity stay visible: a mean is NaN where one of its terms
        is, a norm where the Jacobian has a NaN; a sample with NaN among its outputs has no largest one, and
        makes all of ``"class_mean"`` NaN. Of equal outputs the first counts as the largest.

        Examples
        --------
        >>> import numpy as np
        >>> net = Network([(np.eye(2), None)], head="tanh")
        >>> net.sensitivity([[0.0, 0.0], [0.0, 9.0]], "frobenius").round(3)
        array([2., 1.])
        """
        return sensitivity(self, x, reduce, thread_count(threads))

    def vjp(
        self,
        x: ArrayLike,
        v: ArrayLike,
        out: tuple[Array, Array] | None = None,
        *,
        threads: int | str = 1,
    ) -> tuple[Array, Array]:
        """Return the output (M,) and the vector-Jacobian product ``v @ jac`` (N,) of a cotangent ``v`` (M,).

        It costs about two forward passes; the Jacobian is not formed. See `value_and_jacobian`.
        """
        y, product = self._run("vjp", (x, v), out, threads)
        return y, product

    def jvp(
        self,
        x: ArrayLike,
        u: ArrayLike,
        out: tuple[Array, Array] | None = None,
        *,
        threads: int | str = 1,
    ) -> tuple[Array, Array]:
        """Return the output (M,) and the Jacobian-vector product ``jac @ u`` (M,) of a tangent ``u`` (N,).

        It costs about two forward passes; the Jacobian is not formed. See `value_and_jacobian`.
        """
        y, product = self._run("jvp", (x, u), out, threads)
        return y, product

    def handle(self) -> NDArray[np.int64]:
        """Return what a compiled function calls this network with; see `fastjac.embedding`.

        For one thread at a time: make one for each. The array keeps all that it needs; a copy of it is
        of no use.
        """
        return embedding.handle(self._packed)

    def c_function(self) -> embedding.CFunction:
        """Return `value_and_jacobian` as a C function, for one thread at a time: make one for each."""
        return embedding.CFunction(self._packed)

    def _run(self, name: str, given: tuple[ArrayLike, ...], out: Any, threads: int | str) -> Any:
        """Call the routine ``name`` with ``given`` and the arrays of ``out``, new ones where it has None."""
        n_threads, shapes, call = thread_count(threads), self._results[name], self._call(name)
        if out is None:
            out = (None,) * len(shapes)
        x = given[0]
        if type(x) is ndarray and x.ndim in (1, 2) and x.shape[-1] == self.n_inputs and type(out) is tuple:
            lead = x.shape[:-1]
            if helpers(sum(lead), self._functions.costs[1], n_threads) < 1:
                try:
                    out = new_where_none(out, [lead + shape for shape in shapes.values()], self.dtype)
                    if call(*given, out):
                        return out
                except (TypeError, ValueError):
                    pass  # The checks of a batch find what is wrong with `out`.
        inputs = dict(zip(("x", "u" if name == "jvp" else "v"), given, strict=False))
        return self._functions.run(call, inputs, out, shapes, n_threads)

    def _call(self, name: str) -> Callable[..., bool]:
        """Return ``f(*inputs, outputs)``, which calls a routine and returns whether the arrays fit."""
        if name != "jacobian":
            return functools.partial(self._functions.call, name)
        call, n, dtype = self._functions.call, self.n_outputs, self.dtype
        return lambda x, out: call("value_and_jacobian", x, (np.empty((*x.shape[:-1], n), dtype), *out))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Network is immutable: {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Network is immutable: {name} cannot be deleted")

    def __reduce__(self) -> tuple[Any, ...]:
        pairs = [(layer.w, layer.b) for layer in self.layers]
        *hidden, head = [layer.activation for layer in self.layers]
        return _rebuild, (pairs, hidden, head, self.dtype, self.input_names, self.output_names)

    def __repr__(self) -> str:
        steps = " -> ".join(f"{layer.b.size} {layer.activation}" for layer in self.layers)
        return f"Network({self.n_inputs} -> {steps}, {self.dtype})"


def _results(n: int, m: int) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return what each routine's results are called in errors, and their shapes."""
    return {
        "value": {"out": (m,)},
        "value_and_jacobian": {"y in out": (m,), "jac in out": (m, n)},
        "jacobian": {"out": (m, n)},
        "vjp": {"y in out": (m,), "vjp in out": (n,)},
        "jvp": {"y in out": (m,), "jvp in out": (m,)},
    }


def _rebuild(pairs: Any, hidden: Any, head: Any, dtype: Any, input_names: Any, output_names: Any) -> Network:
    return Network(pairs, hidden, head, dtype, input_names=input_names, output_names=output_names)


def _names(names: Sequence[str] | None, argument: str, size: int) -> tuple[str, ...] | None:
    if names is None:
        return None
    checked = tuple(str(name) for name in names)
    if len(checked) != size:
        raise ValueError(f"{argument} has {len(checked)} names, expected {size}")
    return checked
