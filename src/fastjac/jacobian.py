"""Value and Jacobian of affine-ReLU-affine-softmax on the raw arrays of its weights."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from fastjac.network import Network

Array = NDArray[Any]


def value_and_jacobian(
    x: ArrayLike,
    w1: ArrayLike,
    b1: ArrayLike,
    w2: ArrayLike,
    b2: ArrayLike,
    out: tuple[Array, Array] | None = None,
) -> tuple[Array, Array]:
    """Return ``softmax(relu(x @ w1 + b1) @ w2 + b2)`` and its Jacobian with respect to ``x``."""
    return Network([(w1, b1), (w2, b2)]).value_and_jacobian(x, out=out)


def jacobian(
    x: ArrayLike, w1: ArrayLike, b1: ArrayLike, w2: ArrayLike, b2: ArrayLike, out: Array | None = None
) -> Array:
    """Return the Jacobian alone."""
    return Network([(w1, b1), (w2, b2)]).jacobian(x, out=out)
