"""A network, an input, and the answer that every peer must give."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastjac import reference
from fastjac.graph.folding import in_dtype
from fastjac.graph.values import Apply, Value
from fastjac.layers import HEADS_ONLY, Activation, Layer, as_layers
from fastjac.network import Network

Array = NDArray[np.floating[Any]]

# The largest difference from the float64 reference, as a share of the largest entry.
TOLERANCES = {"float32": 1e-3, "float64": 1e-10}

_KINK_MARGIN = 2e-5  # more than the rounding of a float32 pre-activation of order one


class NotApplicableError(Exception):
    """A peer cannot compute this network; the message says why."""


class Problem(NamedTuple):
    """A network and its input, ``x`` (N,) or a batch (B, N), in the network's dtype.

    ``active`` holds the mean number of active units of each hidden layer.
    """

    layers: tuple[Layer, ...]
    x: Array
    active: tuple[float, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return ``(N, H1, ..., M)``."""
        return (self.layers[0].w.shape[0], *(layer.b.size for layer in self.layers))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return float32 or float64."""
        return self.x.dtype

    @property
    def batch(self) -> int | None:
        """Return B, None for a single input."""
        return self.x.shape[0] if self.x.ndim == 2 else None

    @property
    def head(self) -> Activation:
        """Return the last layer's activation."""
        return self.layers[-1].activation

    def outputs(self) -> tuple[Array, Array]:
        """Return zeroed arrays for y, (M,) or (B, M), and jac, (M, N) or (B, M, N)."""
        shape = (*self.x.shape[:-1], self.sizes[-1])
        return np.zeros(shape, self.dtype), np.zeros((*shape, self.sizes[0]), self.dtype)

    def single(self) -> Array:
        """Return the input (N,); raise `NotApplicableError` if it is a batch."""
        if self.batch is not None:
            raise NotApplicableError("one input at a time")
        return self.x


class GraphProblem(Problem):
    """A network that is no chain, and its input; its value stands where other networks have layers."""

    __slots__ = ()

    @property
    def value(self) -> Value:
        """Return the network, in its dtype."""
        return cast(Value, tuple.__getitem__(self, 0))

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Raise `NotApplicableError`, for peers that take layers alone."""
        raise NotApplicableError("layers in a row only")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return ``(N, M)``."""
        return self.x.shape[-1], self.value.size

    @property
    def head(self) -> Activation:
        """Return the last operation's activation."""
        operation = self.value.operation
        return operation.activation if isinstance(operation, Apply) else Activation("identity")


# The end of the names of peers that compute y without jac.
VALUE_ALONE = "value alone"

# The end of the name of a peer that gets so many inputs in a call, of which the problem's is the first.
MANY = 64
IN_A_CALL = f"{MANY} in a call"

# Computes y and jac in whatever kind of array the peer has; jac is None where it computes the value alone.
Call = Callable[[], tuple[Any, Any]]


def random_problem(
    sizes: Sequence[int],
    activation: str = "relu",
    head: str = "softmax",
    dtype: str = "float64",
    batch: int | None = None,
    share: float = 0.5,
    seed: int = 0,
) -> Problem:
    """Return a network of scaled normal weights in which ``share`` of the ReLUs are active.

    One number shifts the biases of a relu layer so that this holds over all inputs.
    """
    rng = np.random.default_rng(seed)
    xs = rng.standard_normal((batch or 1, sizes[0]))
    pairs = []
    a = xs
    for number, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes), 2):
        w = rng.standard_normal((fan_in, fan_out)) * np.sqrt(2 / fan_in)
        b = 0.1 * rng.standard_normal(fan_out)
        if activation == "relu" and number < len(sizes):
            b -= _threshold(a @ w + b, share)
        pairs.append((w, b))
        a = np.maximum(a @ w + b, 0)
    return _problem(as_layers(pairs, activation, head, dtype), xs, batch, rng)


def network_problem(
    net: Network, dtype: DTypeLike | None = None, batch: int | None = None, seed: int = 0
) -> Problem:
    """Return a network, in ``dtype`` if given, with standard normal inputs."""
    if hasattr(net, "layers"):
        return model_problem(net.layers, dtype, batch, seed)
    net = net if dtype is None else net.replace(dtype=np.dtype(dtype))  # type: ignore[arg-type]
    x = np.random.default_rng(seed).standard_normal((batch or 1, net.n_inputs))
    x = x.astype(np.float32).astype(net.dtype)  # Both dtypes hold it.
    return GraphProblem(net.graph, x if batch else x[0], ())  # type: ignore[arg-type]


def model_problem(
    layers: Sequence[Layer], dtype: DTypeLike | None = None, batch: int | None = None, seed: int = 0
) -> Problem:
    """Return the network of ``layers``, in ``dtype`` if given, with standard normal inputs."""
    *hidden, head = (layer.activation for layer in layers)
    checked = as_layers([layer[:2] for layer in layers], hidden, head, dtype)
    rng = np.random.default_rng(seed)
    return _problem(checked, rng.standard_normal((batch or 1, checked[0].w.shape[0])), batch, rng)


def _problem(layers: tuple[Layer, ...], xs: Array, batch: int | None, rng: np.random.Generator) -> Problem:
    """Return the problem at ``xs`` (B, N), after drawing again the inputs that are next to a kink.

    There, rounding may choose the side, and two right answers differ. Both dtypes hold the inputs.
    """
    dtype = layers[0].w.dtype
    xs = xs.astype(np.float32).astype(np.float64)
    for _ in range(100):
        near = _near_kink(xs, layers)
        if not near.any():
            break
        xs[near] = rng.standard_normal((int(near.sum()), xs.shape[1])).astype(np.float32)
    x = xs.astype(dtype) if batch else xs[0].astype(dtype)
    return Problem(layers, x, _active_counts(xs, layers))


def _threshold(z: Array, share: float) -> float:
    """Return a number halfway between two entries of ``z`` that ``share`` of all entries exceed."""
    ordered = np.sort(z, axis=None)
    bounds = np.concatenate([ordered[:1] - 1, ordered, ordered[-1:] + 1])
    inactive = round((1 - share) * z.size)
    return float(bounds[inactive] + bounds[inactive + 1]) / 2


def _pre_activations(xs: Array, layers: Sequence[Layer]) -> list[Array]:
    """Return each layer's pre-activations (B, fan_out) in float64."""
    collected = []
    a = xs
    for layer in layers:
        collected.append(a @ layer.w.astype(np.float64) + layer.b)
        if layer.activation.name not in HEADS_ONLY:
            a = reference.elementwise(collected[-1], layer.activation)
    return collected


def _near_kink(xs: Array, layers: Sequence[Layer]) -> NDArray[np.bool_]:
    """Return for each of ``xs`` (B, N) whether a unit is next to a kink."""
    near = np.zeros(len(xs), bool)
    for z, layer in zip(_pre_activations(xs, layers), layers, strict=True):
        margin = _KINK_MARGIN * max(1.0, float(np.abs(z).mean()))
        for kink in layer.activation.kinks:
            near |= (np.abs(z - kink) < margin).any(axis=1)
    return near


def _active_counts(xs: Array, layers: Sequence[Layer]) -> tuple[float, ...]:
    """Return the mean number of active units of each hidden layer."""
    counts = []
    for z, layer in zip(_pre_activations(xs, layers)[:-1], layers[:-1], strict=True):
        low, high = layer.activation.active
        counts.append(float(((z > low) & (z < high)).sum(axis=1).mean()))
    return tuple(counts)


def disagreement(problem: Problem, y: Any, jac: Any) -> float:
    """Return the largest error of ``y`` and ``jac`` as a share of the reference's largest entry.

    Parameters
    ----------
    problem : Problem
        Of a batch, at most 32 samples are compared, spread evenly.
    y : array_like, (M,) or (B, M)
    jac : array_like, (M, N) or (B, M, N), or None
        None where a peer computes the value alone.

    Notes
    -----
    A softmax that is nearly certain has a Jacobian far smaller than that of its logits, and rounding the
    logits changes it by a share of the latter. Errors of that size are not counted.
    """
    answers = [np.asarray(answer, np.float64) for answer in (y, jac) if answer is not None]
    for answer, expected in zip(answers, problem.outputs(), strict=False):
        if answer.shape != expected.shape:
            raise ValueError(f"shape {answer.shape}, expected {expected.shape}")
    answer_at = _reference(problem)
    count = problem.batch or 1
    xs = problem.x.reshape(count, -1).astype(float)
    worst = 0.0
    for i in np.unique(np.linspace(0, count - 1, 32).astype(int)):
        right, allowed = answer_at(xs[i])
        for answer, true, rounding in zip(answers, right, allowed, strict=False):
            error = np.abs(answer.reshape(count, *true.shape)[i] - true).max() - rounding
            worst = max(worst, float(error / (np.abs(true).max() or 1)) if np.isfinite(error) else np.inf)
    return worst


def _reference(problem: Problem) -> Callable[[Array], tuple[tuple[Array, Array], tuple[float, float]]]:
    """Return a function of x: the reference's y and jac in float64, and what rounding may change of each."""
    if isinstance(problem, GraphProblem):
        value = in_dtype(problem.value, np.dtype(np.float64))
        return lambda x: (reference.graph_value_and_jacobian(x, value), (0.0, 0.0))
    layers = [
        Layer(layer.w.astype(float), layer.b.astype(float), layer.activation) for layer in problem.layers
    ]
    return lambda x: (
        reference.value_and_jacobian(x, layers),
        _rounding_of_logits(x, layers, problem.dtype),
    )


def _rounding_of_logits(x: Array, layers: Sequence[Layer], dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return how far rounding the logits moves a softmax and its Jacobian; 0 for other heads."""
    if layers[-1].activation.name not in HEADS_ONLY:
        return 0.0, 0.0
    linear = [*layers[:-1], layers[-1]._replace(activation=Activation("identity"))]
    logits, jac = reference.value_and_jacobian(x, linear)
    noise = 16 * float(np.finfo(dtype).eps) * (1 + float(np.abs(logits).max()))
    return noise, noise * float(np.abs(jac).max())
