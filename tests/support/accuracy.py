"""The kernels' errors against the reference's own, both measured beyond double precision."""

from dataclasses import replace

import numpy as np

from fastjac import reference
from fastjac.layers import HEADS_ONLY
from support import exact
from support.oracles import PIECEWISE, in_dtype, near_corner


def rounded_once(net, x):
    """Bound the errors in y and jac, in units of eps, of a routine that rounds each number only once.

    Each product of two numbers, each sum, activation and product of matrices is exact but for its last
    rounding; the errors are independent, so their squares add up. No routine in this dtype promises
    less, and where the reference happens to round to next to nothing it cannot be the measure.
    """
    a, variance = x.astype(np.float64), np.zeros(x.size)
    jac = np.eye(x.size)
    # The rounding of an earlier product has the same variance behind the later ones as their own.
    rounded = np.sqrt(max(len(net.layers) - 1, 1))
    for layer in in_dtype(net.layers, np.float64):
        z = a @ layer.w + layer.b
        variance = (a**2 + variance) @ layer.w**2 + z**2
        size = np.sqrt((layer.w**2).T @ jac**2)
        if layer.activation.name in HEADS_ONLY:
            s = reference.softmax(z)
            a, size = reference._head(z, layer.activation), size + s @ size
            shift = 2 * np.sqrt(variance.max())
            if layer.activation.name == "softmax":
                return np.max(s * (1 + shift)), rounded * np.max(s[:, None] * size) * (1 + shift)
            return np.max(np.abs(a)) + shift, rounded * np.max(size) * (1 + shift)
        slope = np.abs(reference.slope(z, layer.activation))
        # A smooth activation's slope is as wrong as its argument.
        smooth = layer.activation.name not in PIECEWISE
        jac = size * (slope + smooth * np.sqrt(variance) * np.maximum(slope, 1))[:, None]
        a = reference.elementwise(z, layer.activation)
        variance = slope**2 * variance + a**2
    return np.max(np.sqrt(variance)), rounded * np.max(jac)


def errors(net, x):
    """The largest errors of the kernel and of the reference, and the floor, in y and in jac."""
    kernel = net.value_and_jacobian(x)
    plain = reference.value_and_jacobian(x, net.layers)
    found = []
    eps, tiny = np.finfo(net.dtype).eps, np.finfo(net.dtype).tiny
    for ours, theirs, true, floor in zip(
        kernel, plain, exact.value_and_jacobian(net, x), rounded_once(net, x), strict=True
    ):
        assert np.all(np.isfinite(ours))
        found.append((np.max(np.abs(ours - true)), np.max(np.abs(theirs - true)), eps * floor + tiny))
    return found


def assert_accurate(case):
    net, x = case.network(), case.x()
    while near_corner(net, x):
        case = replace(case, seed=case.seed + 1)
        net, x = case.network(), case.x()
    for name, (ours, theirs, floor) in zip(("y", "jac"), errors(net, x), strict=True):
        assert ours <= 2 * theirs + floor, (
            f"{name}: error {ours:.3g}, the reference's {theirs:.3g}, floor {floor:.3g}: {case}"
        )
