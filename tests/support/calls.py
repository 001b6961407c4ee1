"""Every method of a network, called in one way, with inputs and buffers made for it."""

import numpy as np

METHODS = ["call", "value_and_jacobian", "jacobian", "vjp", "jvp"]


def vectors(net):
    """An input, a cotangent and a tangent."""
    rng = np.random.default_rng(3)
    return [rng.standard_normal(n).astype(net.dtype) for n in (net.n_inputs, net.n_outputs, net.n_inputs)]


def call(net, method, x, v, u, out=None):
    """Call a method; return all that it returns as a list of arrays."""
    arguments = {"vjp": (x, v), "jvp": (x, u)}.get(method, (x,))
    function = net if method == "call" else getattr(net, method)
    result = function(*arguments) if out is None else function(*arguments, out=out)
    return list(result) if isinstance(result, tuple) else [result]


def buffers(net, method, fill):
    n, m = net.n_inputs, net.n_outputs
    shapes = {
        "call": [(m,)],
        "value_and_jacobian": [(m,), (m, n)],
        "jacobian": [(m, n)],
        "vjp": [(m,), (n,)],
        "jvp": [(m,), (m,)],
    }[method]
    return [np.full(shape, fill, net.dtype) for shape in shapes]


def as_out(method, arrays):
    """What the method takes as ``out``: one array, or a tuple."""
    return arrays[0] if method in ("call", "jacobian") else tuple(arrays)
