"""The kernels' errors against the reference's own, both measured beyond double precision."""

from dataclasses import replace

import numpy as np

from fastjac import corners, reference
from fastjac.graph.values import (
    Affine,
    Apply,
    Concatenate,
    Input,
    Multiply,
    Normalise,
    Scale,
    Select,
    is_head,
    ordered,
)
from fastjac.layers import HEADS_ONLY
from support import exact, graphs
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


def rounded_once_in_graph(net, x):
    """Bound the errors of a graph as `rounded_once` does those of a chain, with twice their deviations.

    Each value has the variance of its entries' errors, and the sizes (k, N) of what its derivatives by the
    inputs are summed from. A graph may have one output and one input, and then one error has no others to be
    the largest of: in one graph of 4,000 it is larger than its deviation where the reference is lucky.
    """
    found = {}
    values = ordered(graphs.in_dtype(net.graph, np.dtype(np.float64)))
    for value in values:
        if isinstance(value.operation, Input):
            a = x.astype(np.float64)
            found[id(value)] = a, np.zeros(a.size), np.eye(a.size)
        else:
            found[id(value)] = _rounded_once(value.operation, [found[id(each)] for each in value.inputs])
    _, variance, size = found[id(values[-1])]
    return 2 * np.max(np.sqrt(variance)), 2 * np.max(size)


def _rounded_once(operation, inputs):
    """Return an operation's value, the variance of its errors and the sizes of its derivatives."""
    a = [each for each, _, _ in inputs]
    y = reference.evaluate(operation, a)
    slopes = reference.pull_back(operation, np.ones_like(y), a)
    variance, square = y**2, np.zeros((y.size, inputs[0][2].shape[1]))
    if isinstance(operation, Affine):
        variance = variance + a[0] ** 2 @ operation.w**2
    elif isinstance(operation, Scale):
        variance = variance + (a[0] * operation.factor) ** 2
    elif isinstance(operation, (Concatenate, Select)):
        variance = np.zeros_like(y)
    elif isinstance(operation, Normalise):  # The mean is rounded too.
        variance = variance + operation.centred * np.mean(a[0]) ** 2 * np.max(np.abs(slopes[0])) ** 2
    for slope, (_, before, size) in zip(slopes, inputs, strict=True):
        if slope.ndim == 1:
            variance, square = variance + slope**2 * before, square + (slope[:, None] * size) ** 2
        else:
            variance, square = variance + slope**2 @ before, square + slope**2 @ size**2
    # A slope that depends on values is as wrong as they are.
    if isinstance(operation, Multiply):
        for i in (0, 1):
            square = square + inputs[i][2] ** 2 * inputs[1 - i][1][:, None]
    elif isinstance(operation, Normalise) or is_head(operation):
        _, before, size = inputs[0]
        (parts,) = corners._sizes(operation, a, y)
        square = square + parts**2 @ size**2 * (1 + np.max(before))
    elif isinstance(operation, Apply) and operation.activation.name not in PIECEWISE:
        _, before, size = inputs[0]
        square = square + (np.maximum(np.abs(slopes[0]), 1)[:, None] * size) ** 2 * before[:, None]
    return y, variance, np.sqrt(square)


def errors(net, x):
    """The largest errors of the kernel and of the reference, and the floor, in y and in jac."""
    plain = reference.value_and_jacobian(x, net.layers)
    return _errors(net, x, plain, exact.value_and_jacobian(net, x), rounded_once(net, x))


def _errors(net, x, plain, true, floors):
    found = []
    eps, tiny = np.finfo(net.dtype).eps, np.finfo(net.dtype).tiny
    for ours, theirs, right, floor in zip(net.value_and_jacobian(x), plain, true, floors, strict=True):
        assert np.all(np.isfinite(ours))
        found.append((np.max(np.abs(ours - right)), np.max(np.abs(theirs - right)), eps * floor + tiny))
    return found


def errors_of_graph(net, x):
    """The errors and the floor of a network that is a graph, as `errors` has them of a chain."""
    wide = graphs.in_dtype(net.graph, np.dtype(np.longdouble))
    true = reference.graph_value_and_jacobian(x.astype(np.longdouble), wide)
    plain = reference.graph_value_and_jacobian(x, net.graph)
    return _errors(net, x, plain, true, rounded_once_in_graph(net, x))


def assert_accurate(case, more=0):
    """Compare errors, the largest of the case and of so many ``more``, each with the next seed.

    NumPy sums in an order that depends on the processor, and may happen to round to next to nothing.
    """
    found, each = [], case
    while len(found) <= more:
        net, x = each.network(), each.x()
        if not near_corner(net, x):
            found.append(errors(net, x))
        each = replace(each, seed=each.seed + 1)
    assert_below(case, np.max(found, axis=0))


def assert_below(case, found):
    """Assert that the kernel's errors are at most twice the reference's, and the floor."""
    for name, (ours, theirs, floor) in zip(("y", "jac"), found, strict=True):
        assert ours <= 2 * theirs + floor, (
            f"{name}: error {ours:.3g}, the reference's {theirs:.3g}, floor {floor:.3g}: {case}"
        )
