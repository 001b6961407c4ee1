"""One random network with an input, and the answer that every peer must give."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastjac import reference
from fastjac.bench.peers.activations import VALUES
from fastjac.layers import Activation, Layer, as_layers

Array = NDArray[np.floating[Any]]

# The largest difference from the float64 reference, as a share of the largest entry.
TOLERANCES = {"float32": 1e-3, "float64": 1e-10}

# Activation -> the pre-activations between which its slope is not zero: units outside are inactive.
ACTIVE_RANGES = {"relu": (0.0, np.inf), "relu6": (0.0, 6.0), "hard_tanh": (-1.0, 1.0)}
KINKS = {"relu": (0.0,), "leaky_relu": (0.0,), "elu": (0.0,), "relu6": (0.0, 6.0), "hard_tanh": (-1.0, 1.0)}
_KINK_MARGIN = 2e-5  # more than the rounding of a float32 pre-activation of order one


class NotApplicableError(Exception):
    """A peer cannot compute this network; the message says what it lacks."""


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


# Computes y and jac, in whatever kind of array the peer has.
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

    Each relu layer's biases are shifted by one number so that this holds over all inputs. Inputs that
    come so near to a kink that rounding may choose its side are drawn again.
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
        pairs.append((w.astype(dtype), b.astype(dtype)))
        a = np.maximum(a @ w + b, 0)

    layers = as_layers(pairs, activation, head, dtype)
    xs = xs.astype(dtype).astype(np.float64)
    for _ in range(100):
        near = _near_kink(xs, layers)
        if not near.any():
            break
        xs[near] = rng.standard_normal((int(near.sum()), sizes[0])).astype(dtype)
    x = xs.astype(dtype) if batch else xs[0].astype(dtype)
    return Problem(layers, x, _active_counts(xs, layers))


def _threshold(z: Array, share: float) -> float:
    """Return a number halfway between two entries of ``z`` that ``share`` of all entries exceed."""
    ordered = np.sort(z, axis=None)
    bounds = np.concatenate([ordered[:1] - 1, ordered, ordered[-1:] + 1])
    inactive = round((1 - share) * z.size)
    return float(bounds[inactive] + bounds[inactive + 1]) / 2


def _pre_activations(xs: Array, layers: Sequence[Layer]) -> list[Array]:
    """Return the hidden layers' pre-activations (B, fan_out) in float64."""
    collected = []
    a = xs
    for layer in layers[:-1]:
        z = a @ layer.w.astype(np.float64) + layer.b
        collected.append(z)
        a = VALUES[layer.activation.name](z, layer.activation.parameter)
    return collected


def _near_kink(xs: Array, layers: Sequence[Layer]) -> NDArray[np.bool_]:
    near = np.zeros(len(xs), bool)
    for z, layer in zip(_pre_activations(xs, layers), layers, strict=False):
        for kink in KINKS.get(layer.activation.name, ()):
            near |= (np.abs(z - kink) < _KINK_MARGIN).any(axis=1)
    return near


def _active_counts(xs: Array, layers: Sequence[Layer]) -> tuple[float, ...]:
    counts = []
    for z, layer in zip(_pre_activations(xs, layers), layers, strict=False):
        low, high = ACTIVE_RANGES.get(layer.activation.name, (-np.inf, np.inf))
        counts.append(float(((z > low) & (z < high)).sum(axis=1).mean()))
    return tuple(counts)


def disagreement(problem: Problem, y: Any, jac: Any) -> float:
    """Return the largest error of ``y`` and ``jac`` as a share of the reference's largest entry.

    Of a batch, at most 32 samples are looked at, spread evenly.
    """
    y = np.asarray(y, np.float64)
    jac = np.asarray(jac, np.float64)
    expected_y, expected_jac = problem.outputs()
    if y.shape != expected_y.shape or jac.shape != expected_jac.shape:
        raise ValueError(f"shapes {y.shape} and {jac.shape}, not {expected_y.shape} and {expected_jac.shape}")
    layers = [
        Layer(layer.w.astype(float), layer.b.astype(float), layer.activation) for layer in problem.layers
    ]
    if problem.batch is None:
        samples = [(problem.x, y, jac)]
    else:
        chosen = np.unique(np.linspace(0, problem.batch - 1, 32).astype(int))
        samples = [(problem.x[i], y[i], jac[i]) for i in chosen]
    worst = 0.0
    for x, got_y, got_jac in samples:
        for got, expected in zip(
            (got_y, got_jac), reference.value_and_jacobian(x.astype(float), layers), strict=True
        ):
            scale = np.abs(expected).max() or 1.0
            error = np.abs(got - expected).max() / scale
            worst = max(worst, float(error) if np.isfinite(error) else np.inf)
    return worst
