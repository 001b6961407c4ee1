"""Random networks to test with, outside oracles to compare them with, and the tolerances."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from fastjac import Network, reference
from fastjac.layers import ACTIVATIONS, HEADS_ONLY, SELU_ALPHA, SELU_SCALE, Layer

DTYPES = (np.float32, np.float64)
HIDDEN = ["leaky_relu(0.2)" if n == "leaky_relu" else n for n in ACTIVATIONS if n not in HEADS_ONLY]
HEADS = [*HIDDEN, *HEADS_ONLY]
# Without those that soon overflow in a chain.
STEADY = [name for name in HIDDEN if name not in ("exp", "square")]
AUTOGRAD = [name for name in STEADY if name != "gelu"]  # gelu would need scipy
# Their slope has a few values only, which rounding does not change.
PIECEWISE = ("identity", "relu", "leaky_relu", "prelu", "relu6", "hard_tanh", "hard_sigmoid", "abs")

# The one table of tolerances: units in the last place per unit of the error bound below.
TOLERANCE = {np.dtype(np.float32): 4 * 2.0**-23, np.dtype(np.float64): 4 * 2.0**-52}

# One less, exactly and one more than one or two vectors or tiles of any width in use.
EDGES = sorted({k * m + d for m in (2, 4, 8, 16, 24, 32, 48, 64) for k in (1, 2) for d in (-1, 0, 1)})

widths = st.integers(1, 70) | st.sampled_from(EDGES)
dtypes = st.sampled_from(DTYPES)


@dataclass(frozen=True)
class Case:
    """A random network that prints as what it takes to make it again."""

    widths: tuple[int, ...]
    activation: tuple[str, ...] | str = "relu"
    head: str = "softmax"
    dtype: type = np.float64
    scale: float = 1.0
    seed: int = 0

    def weights(self):
        rng = np.random.default_rng([self.seed, *self.widths])
        return [
            (
                (self.scale / np.sqrt(n) * rng.standard_normal((n, m))).astype(self.dtype),
                (self.scale / 2 * rng.standard_normal(m)).astype(self.dtype),
            )
            for n, m in itertools.pairwise(self.widths)
        ]

    def network(self):
        return Network(self.weights(), self.activation, self.head, self.dtype)

    def x(self):
        rng = np.random.default_rng([self.seed + 1, *self.widths])
        return rng.standard_normal(self.widths[0]).astype(self.dtype)


@st.composite
def cases(draw, hidden=tuple(STEADY), heads=(*STEADY, *HEADS_ONLY), depth=6, widths=widths, dtypes=dtypes):
    layers = draw(st.integers(1, depth))
    return Case(
        widths=tuple(draw(widths) for _ in range(layers + 1)),
        activation=tuple(draw(st.sampled_from(hidden)) for _ in range(layers - 1)),
        head=draw(st.sampled_from(heads)),
        dtype=draw(dtypes),
        scale=draw(st.sampled_from([0.5, 1.0, 2.0])),
        seed=draw(st.integers(0, 1000)),
    )


def in_dtype(layers, dtype):
    return [Layer(w.astype(dtype), b.astype(dtype), activation) for w, b, activation in layers]


def reference64(net, x):
    """The reference in float64, on the network's own weights."""
    x = np.asarray(x).astype(net.dtype).astype(np.float64)
    return reference.value_and_jacobian(x, in_dtype(net.layers, np.float64))


def _walk(net, x):
    """Each layer in float64 with its pre-activations and a first-order bound on their error in eps."""
    a = np.asarray(x).astype(net.dtype).astype(np.float64)
    spread = np.zeros_like(a)
    for layer in in_dtype(net.layers, np.float64):
        z = a @ layer.w + layer.b
        spread = (np.abs(a) + spread) @ np.abs(layer.w) + np.abs(layer.b)
        yield layer, z, spread
        if layer.activation.name not in HEADS_ONLY:
            a = reference.elementwise(z, layer.activation)
            spread = spread * np.abs(reference.slope(z, layer.activation))


def tolerances(net, x):
    """Return the errors allowed in y (M,) and jac (M, N), from a bound on the rounding of every sum.

    Every product counts with its absolute value; an activation's slope counts at least 1 where it is a
    smooth function, for its own error is as large as that of its argument.
    """
    walk = list(_walk(net, x))
    eps = TOLERANCE[net.dtype]
    tiny = 2.0**20 * float(np.finfo(net.dtype).tiny)
    head, z, spread = walk[-1]
    if head.activation.name == "softmax":
        y = reference.softmax(z) * (1 + 2 * spread.max())
    elif head.activation.name == "log_softmax":
        y = np.abs(reference.log_softmax(z)) + 2 * spread.max()
    else:
        slope = np.abs(reference.slope(z, head.activation))
        y = np.abs(reference.elementwise(z, head.activation)) + 2 * spread * np.maximum(slope, 1)
    bound = np.eye(net.n_outputs)
    for layer, z, _ in reversed(walk):
        name = layer.activation.name
        if name in HEADS_ONLY:
            s = reference.softmax(z)
            bound = (bound + s) * (s[:, None] if name == "softmax" else 1)
        else:
            slope = np.abs(reference.slope(z, layer.activation))
            bound = bound * (slope if name in PIECEWISE else np.maximum(slope, 1))
        bound = bound @ np.abs(layer.w).T
    largest = 1 + max(spread.max() for _, _, spread in walk)
    return eps * y + tiny, eps * largest * bound + tiny


def near_corner(net, x):
    """Whether a pre-activation is so near to a corner that rounding decides on its side."""
    return any(
        np.any(np.abs(z - corner) <= 4 * TOLERANCE[net.dtype] * spread)
        for layer, z, spread in _walk(net, x)
        for corner in layer.activation.kinks
    )


def assert_close(got, expected, allowed):
    """Compare, entry by entry, and show the worst."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape
    excess = np.abs(got - expected) / allowed
    worst = np.unravel_index(np.argmax(np.where(np.isnan(excess), np.inf, excess)), excess.shape)
    assert excess[worst] <= 1, (
        f"at {tuple(map(int, worst))}: got {got[worst]!r}, expected {expected[worst]!r}, "
        f"which is {excess[worst]:.3g} times the tolerance"
    )


def assert_right(net, x, y, jac):
    """Compare with the float64 reference, within the bound."""
    y_expected, jac_expected = reference64(net, x)
    y_allowed, jac_allowed = tolerances(net, x)
    assert y.dtype == jac.dtype == net.dtype
    assert_close(y, y_expected, y_allowed)
    assert_close(jac, jac_expected, jac_allowed)


def assert_a_batch_is_right_after_nan(net):
    """Compare all of a batch that is not whole blocks with the reference, after a sample of NaN."""
    x = np.random.default_rng(1).standard_normal((37, net.n_inputs)).astype(net.dtype)
    net.value_and_jacobian(np.full(net.n_inputs, np.nan))
    y, jac = net.value_and_jacobian(x)
    for i in range(len(x)):
        if not near_corner(net, x[i]):
            assert_right(net, x[i], y[i], jac[i])


def forward_autograd(layers):
    """The forward pass in autograd.numpy, a function of x."""
    import autograd.numpy as anp

    def sigmoid(z):
        return 0.5 * (1 + anp.tanh(0.5 * z))

    table = {
        "identity": lambda z, _: z,
        "relu": lambda z, _: anp.maximum(z, 0),
        "leaky_relu": lambda z, p: anp.where(z > 0, z, p * z),
        "relu6": lambda z, _: anp.minimum(anp.maximum(z, 0), 6),
        "hard_tanh": lambda z, _: anp.minimum(anp.maximum(z, -1), 1),
        "elu": lambda z, p: anp.where(z > 0, z, p * (anp.exp(anp.minimum(z, 0)) - 1)),
        "tanh": lambda z, _: anp.tanh(z),
        "sigmoid": lambda z, _: sigmoid(z),
        "softplus": lambda z, _: anp.logaddexp(z, 0),
        "silu": lambda z, _: z * sigmoid(z),
        "gelu_tanh": lambda z, _: 0.5 * z * (1 + anp.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))),
        "prelu": lambda z, p: anp.where(z > 0, z, p * z),
        "selu": lambda z, _: SELU_SCALE * anp.where(z > 0, z, SELU_ALPHA * (anp.exp(anp.minimum(z, 0)) - 1)),
        "celu": lambda z, p: anp.where(z > 0, z, p * (anp.exp(anp.minimum(z, 0) / p) - 1)),
        "hard_sigmoid": lambda z, _: anp.clip(z + 3, 0, 6) / 6,
        "hard_swish": lambda z, _: z * anp.clip(z + 3, 0, 6) / 6,
        "mish": lambda z, _: z * anp.tanh(anp.logaddexp(z, 0)),
        "softsign": lambda z, _: z / (1 + anp.abs(z)),
        "abs": lambda z, _: anp.abs(z),
        "sin": lambda z, _: anp.sin(z),
        "cos": lambda z, _: anp.cos(z),
        "softmax": lambda z, _: anp.exp(z - anp.max(z)) / anp.sum(anp.exp(z - anp.max(z))),
        "log_softmax": lambda z, _: z - anp.max(z) - anp.log(anp.sum(anp.exp(z - anp.max(z)))),
    }

    def forward(x):
        for w, b, (name, parameter) in layers:
            x = table[name](anp.dot(x, w) + b, parameter)
        return x

    return forward


def autograd_oracle(layers, x):
    """Value and Jacobian by autograd, in the dtype of the arguments."""
    import autograd

    forward = forward_autograd(layers)
    # Its slope of tanh is 1 / cosh**2, which is 0 where that overflows.
    with np.errstate(over="ignore"):
        return forward(x), autograd.jacobian(forward)(x)


def torch_oracle(layers, x):
    """Value and Jacobian by torch, in the dtype of the arguments."""
    import torch
    from torch.nn import functional as F

    table = {
        "identity": lambda z, _: z,
        "leaky_relu": F.leaky_relu,
        "hard_tanh": lambda z, _: F.hardtanh(z),
        "elu": F.elu,
        "gelu": lambda z, _: F.gelu(z),
        "gelu_tanh": lambda z, _: F.gelu(z, approximate="tanh"),
        "prelu": lambda z, p: F.prelu(z, torch.tensor(p, dtype=z.dtype).reshape(-1)),
        "celu": F.celu,
        "hard_sigmoid": lambda z, _: F.relu6(z + 3) / 6,  # The slope of hardsigmoid is 1 / 6 in float32.
        "hard_swish": lambda z, _: F.hardswish(z),
        **{name: lambda z, _, name=name: getattr(torch, name)(z) for name in ("exp", "square", "abs")},
        **{name: lambda z, _, name=name: getattr(torch, name)(z) for name in ("sin", "cos")},
        "softmax": lambda z, _: F.softmax(z, dim=0),
        "log_softmax": lambda z, _: F.log_softmax(z, dim=0),
    }

    def forward(x):
        for w, b, (name, parameter) in layers:
            f = table.get(name) or (lambda z, _, name=name: getattr(F, name)(z))
            x = f(x @ torch.tensor(w) + torch.tensor(b), parameter)
        return x

    x = torch.tensor(x)
    return forward(x).numpy(), torch.autograd.functional.jacobian(forward, x).numpy()


def jax_oracle(layers, x):
    """Value and Jacobian by JAX, in the dtype of the arguments."""
    import jax

    jax.config.update("jax_enable_x64", True)
    table = {
        "identity": lambda z, _: z,
        "leaky_relu": jax.nn.leaky_relu,
        "elu": jax.nn.elu,
        "gelu": lambda z, _: jax.nn.gelu(z, approximate=False),
        "gelu_tanh": lambda z, _: jax.nn.gelu(z, approximate=True),
        "prelu": lambda z, p: jax.numpy.where(z > 0, z, jax.numpy.asarray(p, z.dtype) * z),
        "celu": jax.nn.celu,
        "softsign": lambda z, _: jax.nn.soft_sign(z),
        **{name: lambda z, _, name=name: getattr(jax.numpy, name)(z) for name in ("exp", "square", "abs")},
        **{name: lambda z, _, name=name: getattr(jax.numpy, name)(z) for name in ("sin", "cos")},
    }

    def forward(x):
        for w, b, (name, parameter) in layers:
            f = table.get(name) or (lambda z, _, name=name: getattr(jax.nn, name)(z))
            x = f(x @ w + b, parameter)
        return x

    return np.asarray(forward(x)), np.asarray(jax.jacrev(forward)(x))
