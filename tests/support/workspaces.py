"""The memory that a network's calls work in: what they write of it, and what is constant."""

import numpy as np

from fastjac.kernels.contexts import new_context


def calls(net, samples):
    """Call everything, for single samples and for a batch; return all results."""
    rng = np.random.default_rng(5)
    v, u = rng.standard_normal((len(samples), net.n_outputs)), rng.standard_normal(samples.shape)
    v, u = v.astype(net.dtype), u.astype(net.dtype)
    results = []
    for x, vx, ux in [*zip(samples[:2], v, u, strict=False), (samples, v, u)]:
        results += [net(x), *net.value_and_jacobian(x), net.jacobian(x), *net.vjp(x, vx), *net.jvp(x, ux)]
    results.append(net.sensitivity(samples))
    return results


def scratch(context, dtype):
    """Return the arrays of floating-point numbers that calls work in."""
    return [array for array in context.arena.arrays if array.dtype == dtype]


def bits(array):
    return array.view(f"u{array.itemsize}")


def find_written(net, arrays, batches):
    """Return which numbers of ``arrays`` calls write: those that do not stay zeros of either sign."""
    zero = [array == 0 for array in scratch(new_context(net.packed), net.dtype)]
    written = [np.zeros(array.shape, bool) for array in arrays]
    for start in (0.0, -0.0):
        for array, where in zip(arrays, zero, strict=True):
            array[where] = start
        expected = [bits(array).copy() for array in arrays]
        for samples in batches:
            calls(net, samples)
            for array, before, found in zip(arrays, expected, written, strict=True):
                found |= bits(array) != before
    for array, where, found in zip(arrays, zero, written, strict=True):
        array[where & ~found] = 0.0
    return written
