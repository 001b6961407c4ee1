"""The activations in NumPy and their derivatives, for the peers that write the backward pass by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

try:
    from scipy import special
except ImportError:
    special = None

HAS_SCIPY = special is not None
erf: Any = special.erf if HAS_SCIPY else np.vectorize(math.erf, otypes=[np.float64])

# Name -> value in NumPy from the pre-activation z and the parameter.
VALUES: dict[str, Callable[[Any, float], Any]] = {
    "identity": lambda z, p: z,
    "relu": lambda z, p: np.maximum(z, 0),
    "leaky_relu": lambda z, p: np.maximum(z, p * z) if p <= 1 else np.where(z > 0, z, p * z),
    "relu6": lambda z, p: np.minimum(np.maximum(z, 0), 6),
    "hard_tanh": lambda z, p: np.minimum(np.maximum(z, -1), 1),
    "elu": lambda z, p: np.where(z > 0, z, p * np.expm1(np.minimum(z, 0))),
    "tanh": lambda z, p: np.tanh(z),
    "sigmoid": lambda z, p: 1 / (1 + np.exp(-z)),
    "softplus": lambda z, p: np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))),
    "silu": lambda z, p: z / (1 + np.exp(-z)),
    "gelu": lambda z, p: 0.5 * z * (1 + erf(z * math.sqrt(0.5))),
    "gelu_tanh": lambda z, p: 0.5 * z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z))),
}

# Name -> derivative from the array module, its erf, the pre-activation z, the value a and the parameter.
SLOPES: dict[str, Callable[[Any, Any, Any, Any, float], Any]] = {
    "relu": lambda xp, erf, z, a, p: z > 0,
    "leaky_relu": lambda xp, erf, z, a, p: xp.where(z > 0, xp.ones_like(z), xp.full_like(z, p)),
    "relu6": lambda xp, erf, z, a, p: (z > 0) & (z < 6),
    "hard_tanh": lambda xp, erf, z, a, p: (z > -1) & (z < 1),
    "elu": lambda xp, erf, z, a, p: xp.where(z > 0, xp.ones_like(z), a + p),
    "tanh": lambda xp, erf, z, a, p: 1 - a * a,
    "sigmoid": lambda xp, erf, z, a, p: a * (1 - a),
    "softplus": lambda xp, erf, z, a, p: 1 - xp.exp(-a),
    "silu": lambda xp, erf, z, a, p: _silu_slope(1 / (1 + xp.exp(-z)), z),
    "gelu": lambda xp, erf, z, a, p: (
        0.5 * (1 + erf(z * math.sqrt(0.5))) + z * xp.exp(-0.5 * z * z) * (1 / math.sqrt(2 * math.pi))
    ),
    "gelu_tanh": lambda xp, erf, z, a, p: _gelu_tanh_slope(
        xp.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z)), z
    ),
}


def _silu_slope(s: Any, z: Any) -> Any:
    return s * (1 + z * (1 - s))


def _gelu_tanh_slope(t: Any, z: Any) -> Any:
    inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * z * z)
    return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * inner


def jacobian_by_hand(xp: Any, erf: Any, layers: Any, zs: Any, activations: Any, transposed: Any) -> Any:
    """Return jac (M, N) or (B, M, N) by reverse accumulation with row scalings instead of diagonals.

    Parameters
    ----------
    xp : module
        ``numpy``-like: jax.numpy or torch.
    erf : function
        The module's error function.
    layers : sequence of Activation
        First to last.
    zs, activations : sequence of array, (fan_out,) or (B, fan_out)
        Each layer's pre-activation and value.
    transposed : sequence of array, (fan_out, fan_in)
        Transposed weights.
    """
    y = activations[-1]
    jac = transposed[-1]
    if layers[-1].name == "softmax":
        jac = y[..., :, None] * (jac - (y @ jac)[..., None, :])
    elif layers[-1].name == "log_softmax":
        jac = jac - (xp.exp(y) @ jac)[..., None, :]
    elif layers[-1].name == "identity":
        jac = xp.broadcast_to(jac, (*y.shape[:-1], *jac.shape))
    else:
        slope = SLOPES[layers[-1].name](xp, erf, zs[-1], y, layers[-1].parameter)
        jac = slope[..., :, None] * jac
    for i in range(len(layers) - 2, -1, -1):
        if layers[i].name != "identity":
            slope = SLOPES[layers[i].name](xp, erf, zs[i], activations[i], layers[i].parameter)
            jac = jac * slope[..., None, :]
        jac = jac @ transposed[i]
    return jac
