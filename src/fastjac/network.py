"""`Network`: weights packed once, then value and Jacobian in one compiled call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastjac import notebook
from fastjac.arguments import few
from fastjac.batches.calls import Calls, results
from fastjac.batches.sensitivity import Reduction, sensitivity
from fastjac.batches.threads import Threads, thread_count
from fastjac.graph import Value
from fastjac.graph.folding import as_graph, chain, of_layers
from fastjac.graph.plan import GraphPlan
from fastjac.graph.texts import summary, table
from fastjac.kernels.contexts import Weights
from fastjac.kernels.graphs import PackedGraph
from fastjac.kernels.machine_code import target
from fastjac.kernels.packing import Packed
from fastjac.layers import RELU, SOFTMAX, Activation, Default, FloatDType, Layer, as_layers
from fastjac.plan import Plan

if TYPE_CHECKING:
    from fastjac.embedding import CFunction

Array = NDArray[Any]
RoutineName = Literal["value", "value_and_jacobian", "vjp", "jvp"]
_ONE = 1  # Python has one integer 1: to ask for identity takes no call.


class Network:
    """A network whose output and Jacobian come from one compiled routine.

    Parameters
    ----------
    layers : sequence of (w, b), or of (w, b, activation), or Value
        Weights (fan_in, fan_out) and bias (fan_out,) or None of each affine layer, inputs first. Copied.
        The layers of another network have their activations with them. Or a value of `fastjac.graph`, for a
        network that is no chain of layers; it has its activations with it too.
    activation : str or sequence of str, default "relu"
        Of all hidden layers, or one for each: ``"tanh"``, ``"leaky_relu(0.2)"``, ...; the names are in
        `fastjac.layers.ACTIVATIONS`.
    head : str, default "softmax"
        Of the last layer: ``"softmax"``, ``"log_softmax"`` or any activation.
    dtype : float32 or float64, optional
        What the network computes in. Default: the widest of its weights, float64 where it has none.
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

    layers: tuple[Layer, ...]  # of a chain; other networks have their `graph` alone
    n_inputs: int
    n_outputs: int
    plan: Plan | GraphPlan
    dtype: np.dtype[Any]
    input_names: tuple[str, ...] | None
    output_names: tuple[str, ...] | None
    packed: Weights
    _calls: Calls
    _value: Value | None

    def __init__(
        self,
        layers: Sequence[Any] | Value,
        activation: str | Activation | Sequence[str | Activation] = RELU,
        head: str | Activation = SOFTMAX,
        dtype: FloatDType | None = None,
        *,
        input_names: Sequence[str] | None = None,
        output_names: Sequence[str] | None = None,
    ) -> None:
        if "packed" in self.__dict__:
            raise AttributeError("a Network is immutable: __init__ cannot run again")
        packed: Weights
        value: Value | None = None
        given: Any = layers
        if isinstance(layers, Value):
            for name, argument in (("activation", activation), ("head", head)):
                if not isinstance(argument, Default):
                    raise TypeError(
                        f"{name} is given, but a value of fastjac.graph has its activations with it"
                    )
            value, kind = as_graph(layers, dtype)
            given, activation = chain(value), RELU
        if given is not None:
            value, checked = None, as_layers(given, activation, head, dtype)
            sizes = (checked[0].w.shape[0], *(layer.b.size for layer in checked))
            packed = Packed(checked, Plan(sizes), target(checked[0].w.dtype))
            self.__dict__["layers"] = checked
        else:
            assert value is not None
            packed = PackedGraph(value, GraphPlan(value), kind, target(kind))
            sizes = packed.plan.sizes
        names = _names(input_names, "input_names", sizes[0])
        outputs = _names(output_names, "output_names", sizes[-1])
        # Past __setattr__, which refuses.
        self.__dict__.update(
            _value=value,
            n_inputs=sizes[0],
            n_outputs=sizes[-1],
            plan=packed.plan,
            dtype=packed.dtype,
            input_names=names,
            output_names=outputs,
            packed=packed,
            _calls=Calls(packed, names, outputs),
        )

    def __call__(self, x: ArrayLike, out: Array | None = None, *, threads: Threads = 1) -> Array:
        """Return the output ``y`` (M,) for the inputs ``x`` (N,); see `value_and_jacobian`."""
        outputs = None if out is None else (out,)
        result = self._calls.value(x, outputs) if threads is _ONE else None
        y: Array = (result or self._calls.run("value", {"x": x}, outputs, threads, ["out"]))[0]
        return y

    def value_and_jacobian(
        self, x: ArrayLike, out: tuple[Array, Array] | None = None, *, threads: Threads = 1
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
        # The routine's own function takes what most callers have, and refuses everything else unchanged.
        result = self._calls.value_and_jacobian(x, out) if threads is _ONE else None
        return result or self._calls.run("value_and_jacobian", {"x": x}, out, threads)  # type: ignore[return-value]

    def jacobian(self, x: ArrayLike, out: Array | None = None, *, threads: Threads = 1) -> Array:
        """Return the Jacobian (M, N) alone; see `value_and_jacobian`."""
        outputs = None if out is None else (None, out)
        result = self._calls.value_and_jacobian(x, outputs) if threads is _ONE else None
        run = self._calls.run
        jac: Array = (result or run("value_and_jacobian", {"x": x}, outputs, threads, ["y", "out"]))[1]
        return jac

    def iter_value_and_jacobian(
        self, x: ArrayLike, batch_size: int | None = None, *, threads: Threads = 1
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
        return results(self._calls, x, batch_size, threads)

    def sensitivity(
        self,
        x: ArrayLike,
        reduce: Reduction = "mean_abs",
        *,
        scale: ArrayLike | None = None,
        threads: Threads = 1,
    ) -> Array:
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
        scale : array_like, (N,), optional
            A positive number for each input, such as its standard deviation. ``jac`` above is then
            ``jac[m, n] * scale[n]`` in float64, so that inputs in different units compare.
        threads : int or "all", default 1
            How many threads, the calling one among them, work; the results are the same to the last bit.

        Returns
        -------
        ndarray of float64
            Whatever the network's dtype: sums are float64.

        Raises
        ------
        ValueError, TypeError
            If ``x`` or ``scale`` does not fit, a scale is not positive and finite, ``reduce`` is none of the
            above, or there is no sample to take a mean of.

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
        >>> net.sensitivity([0.0, 0.0], scale=[1.0, 1000.0])
        array([[   1.,    0.],
               [   0., 1000.]])
        """
        return sensitivity(self._calls, x, reduce, scale, thread_count(threads))

    def vjp(
        self,
        x: ArrayLike,
        v: ArrayLike,
        out: tuple[Array, Array] | None = None,
        *,
        threads: Threads = 1,
    ) -> tuple[Array, Array]:
        """Return the output (M,) and the vector-Jacobian product ``v @ jac`` (N,) of a cotangent ``v`` (M,).

        It costs about two forward passes; the Jacobian is not formed. See `value_and_jacobian`.
        """
        result = self._calls.vjp(x, v, out) if threads is _ONE else None
        return result or self._calls.run("vjp", {"x": x, "v": v}, out, threads)  # type: ignore[return-value]

    def jvp(
        self,
        x: ArrayLike,
        u: ArrayLike,
        out: tuple[Array, Array] | None = None,
        *,
        threads: Threads = 1,
    ) -> tuple[Array, Array]:
        """Return the output (M,) and the Jacobian-vector product ``jac @ u`` (M,) of a tangent ``u`` (N,).

        It costs about two forward passes; the Jacobian is not formed. See `value_and_jacobian`.
        """
        result = self._calls.jvp(x, u, out) if threads is _ONE else None
        return result or self._calls.run("jvp", {"x": x, "u": u}, out, threads)  # type: ignore[return-value]

    def bind(
        self,
        x: Array,
        out: Any,
        *,
        routine: RoutineName = "value_and_jacobian",
        v: Array | None = None,
        u: Array | None = None,
    ) -> Callable[[], Any]:
        """Return a function without arguments that reads ``x`` and writes ``out`` each time it is called.

        Everything is checked here, once, so a call costs little more than the compiled routine.

        Parameters
        ----------
        x : ndarray, (N,) or (..., N)
            One sample or a batch. Every array is C-contiguous and of the network's dtype, and no output
            overlaps another array.
        out : tuple of ndarray, or ndarray
            What the routine writes: ``(y, jac)``, ``(y, vjp)`` or ``(y, jvp)``, for ``"value"`` ``y`` alone.
        routine : {"value_and_jacobian", "value", "vjp", "jvp"}
            What is computed; see the methods of these names, ``"value"`` is the call of the network.
        v : ndarray, (M,) or (..., M)
            The cotangents of ``"vjp"``.
        u : ndarray, (N,) or (..., N)
            The tangents of ``"jvp"``.

        Returns
        -------
        callable
            It returns ``out``, keeps the network and the arrays alive, allocates nothing and works in any
            thread. A call that overlaps another of the same function raises RuntimeError: bind one for each
            thread. A batch runs on the calling thread, and Ctrl-C waits for its end.

        Raises
        ------
        ValueError, TypeError
            If an array does not fit; the message names it.

        Examples
        --------
        >>> import numpy as np
        >>> net = Network([(np.eye(2), None)], head="identity")
        >>> x, y, jac = np.zeros(2), np.empty(2), np.empty((2, 2))
        >>> step = net.bind(x, (y, jac))
        >>> x[:] = 1.0, 2.0
        >>> step()[0]
        array([1., 2.])
        """
        return self._calls.bind(routine, {"x": x, "v": v, "u": u}, out)

    def handle(self) -> NDArray[np.int64]:
        """Return what a compiled function calls this network with; see `fastjac.embedding`.

        For one thread at a time: make one for each. The array keeps all that it needs; a copy of it is
        of no use.
        """
        from fastjac import embedding  # which imports numba

        return embedding.handle(self.packed)

    def c_function(self) -> CFunction:
        """Return `value_and_jacobian` as a C function, for one thread at a time: make one for each."""
        from fastjac import embedding

        return embedding.CFunction(self.packed)

    def replace(
        self,
        *,
        activation: str | Activation | Sequence[str | Activation] | None = None,
        head: str | Activation | None = None,
        dtype: FloatDType | None = None,
        input_names: Sequence[str] | None = None,
        output_names: Sequence[str] | None = None,
    ) -> Network:
        """Return a network with the same weights and some things changed.

        Parameters
        ----------
        activation, head, dtype, input_names, output_names
            As in `Network`; what is None stays as it is.

        Examples
        --------
        >>> import numpy as np
        >>> net = Network([(np.eye(2), None)])
        >>> net.replace(head="identity")([1.0, 2.0])
        array([1., 2.])
        """
        pairs, hidden, last, kind, inputs, outputs = self._arguments()
        return Network(
            pairs,
            hidden if activation is None else activation,
            last if head is None else head,
            kind if dtype is None else dtype,
            input_names=inputs if input_names is None else input_names,
            output_names=outputs if output_names is None else output_names,
        )

    @property
    def graph(self) -> Value:
        """What the network computes, as a value of `fastjac.graph`, in the network's dtype."""
        return of_layers(self.layers) if self._value is None else self._value

    def _arguments(self) -> tuple[Any, ...]:
        """Return what makes this network again."""
        if self._value is not None:
            return self._value, RELU, SOFTMAX, self.dtype, self.input_names, self.output_names
        pairs = [(layer.w, layer.b) for layer in self.layers]
        *hidden, head = [layer.activation for layer in self.layers]
        return pairs, hidden, head, self.dtype, self.input_names, self.output_names

    def __getattr__(self, name: str) -> Any:
        if name == "layers" and "packed" in self.__dict__:
            raise AttributeError("this Network is no chain, so it has no layers: see its graph")
        if "packed" not in self.__dict__ and name in Network.__annotations__:
            raise AttributeError(f"this Network has no {name}: its __init__ has not run to the end")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Network is immutable: {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Network is immutable: {name} cannot be deleted")

    def __reduce__(self) -> tuple[Any, ...]:
        kind = type(self)
        if kind is Network:
            return _rebuild, self._arguments()
        # A subclass comes back without its __init__, with the attributes that it added.
        known = Network.__annotations__
        added = {name: value for name, value in self.__dict__.items() if name not in known}
        return _rebuild_subclass, (kind, self._arguments()), added or None

    def __repr__(self) -> str:
        if self._value is not None:
            return f"Network({self.n_inputs} -> {summary(self._value)} -> {self.n_outputs}, {self.dtype})"
        steps = " -> ".join(f"{layer.b.size} {layer.activation}" for layer in self.layers)
        return f"Network({self.n_inputs} -> {steps}, {self.dtype})"

    def _repr_html_(self) -> str:
        title = f"Network({self.n_inputs} -> {self.n_outputs}, {self.dtype})"
        named = {"inputs": self.input_names, "outputs": self.output_names}
        below = "; ".join(f"{kind}: {few(names)}" for kind, names in named.items() if names)
        if self._value is not None:
            return notebook.table(title, ["value", "of", "entries", "operation"], table(self._value), below)
        rows = [(i, *layer.w.shape, layer.activation) for i, layer in enumerate(self.layers, 1)]
        return notebook.table(title, ["layer", "inputs", "units", "activation"], rows, below)


def _rebuild(pairs: Any, hidden: Any, head: Any, dtype: Any, input_names: Any, output_names: Any) -> Network:
    return Network(pairs, hidden, head, dtype, input_names=input_names, output_names=output_names)


def _rebuild_subclass(kind: type[Network], arguments: tuple[Any, ...]) -> Network:
    pairs, hidden, head, dtype, input_names, output_names = arguments
    net = kind.__new__(kind)
    Network.__init__(net, pairs, hidden, head, dtype, input_names=input_names, output_names=output_names)
    return net


def _names(names: Sequence[str] | None, argument: str, size: int) -> tuple[str, ...] | None:
    if names is None:
        return None
    checked = tuple(str(name) for name in names)
    if len(checked) != size:
        raise ValueError(f"{argument} has {len(checked)} names, expected {size}")
    return checked
