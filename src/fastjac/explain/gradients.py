"""Attributions from Jacobians: at the sample, around it, along a line to it, and over a data set."""

from __future__ import annotations

from operator import index
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastjac.arguments import as_samples, real_array
from fastjac.batches.threads import Threads
from fastjac.explain.attribution import Attribution
from fastjac.explain.names import input_names, output_names
from fastjac.explain.sums import Place, gauss_legendre, weighted_jacobians
from fastjac.network import Network

Array = NDArray[Any]


def saliency(net: Network, x: ArrayLike, *, threads: Threads = 1) -> Attribution:
    """Return the gradient of every output: the Jacobian, with names.

    Parameters
    ----------
    net : Network
        A network of N inputs and M outputs.
    x : array_like, (N,) or (..., N)
        One sample, or any number of them. Cast to the network's dtype.
    threads : int or "all", default 1
        How many threads, the calling one among them, work; the results are the same to the last bit.

    Returns
    -------
    Attribution
        (M, N) or (..., M, N), in the network's dtype: ``d y[m] / d x[n]``, signed.

    Raises
    ------
    ValueError, TypeError
        If a shape or a dtype does not fit; the message names the argument.

    Notes
    -----
    K. Simonyan, A. Vedaldi, A. Zisserman, "Deep Inside Convolutional Networks", 2013, with its sign.
    """
    samples = _samples(net, x)
    return _attribution(net, "saliency", net.jacobian(samples, threads=threads), samples)


def input_x_gradient(net: Network, x: ArrayLike, *, threads: Threads = 1) -> Attribution:
    """Return each input times the gradient of every output.

    Parameters
    ----------
    net, x, threads
        As in `saliency`.

    Returns
    -------
    Attribution
        (M, N) or (..., M, N), in the network's dtype: ``x[n] * d y[m] / d x[n]``.

    Raises
    ------
    ValueError, TypeError
        As `saliency`.

    Notes
    -----
    A. Shrikumar, P. Greenside, A. Shcherbina, A. Kundaje, "Not Just a Black Box", 2016.
    """
    samples = _samples(net, x)
    values = net.jacobian(samples, threads=threads)
    values *= samples[..., None, :]
    return _attribution(net, "input_x_gradient", values, samples)


def smooth_grad(
    net: Network,
    x: ArrayLike,
    noise: ArrayLike,
    samples: int = 50,
    seed: int = 0,
    *,
    threads: Threads = 1,
) -> Attribution:
    """Return the mean gradient of every output at samples with noise.

    Parameters
    ----------
    net, x, threads
        As in `saliency`.
    noise : float or array_like, (N,)
        Standard deviation of the Gaussian noise in units of the inputs: of all, or of each.
    samples : int, default 50
        How many noisy samples for each of ``x``.
    seed : int
        Of the noise. It is the same for every one of ``x``, so that a batch gives what single calls give.

    Returns
    -------
    Attribution
        (M, N) or (..., M, N), in the network's dtype.

    Raises
    ------
    ValueError, TypeError
        As `saliency`; and if ``noise`` is negative or not finite, or ``samples`` is less than 1.

    Notes
    -----
    ``mean_k J(x + noise * g_k)`` with standard normal ``g_k`` (D. Smilkov, N. Thorat, B. Kim, F. Viégas,
    M. Wattenberg, "SmoothGrad", 2017). Jacobians are made and added some megabytes at a time, so memory
    beyond the result does not grow with ``samples`` or the batch.
    """
    given, count = _samples(net, x), _count(samples, "samples")
    deviation = real_array(noise, "noise", net.input_names).astype(net.dtype)
    if deviation.shape not in ((), (net.n_inputs,)):
        raise ValueError(f"noise has shape {deviation.shape}, expected () or ({net.n_inputs},)")
    if not (np.isfinite(deviation) & (deviation >= 0)).all():
        raise ValueError("noise has entries that are negative or not finite, expected standard deviations")
    rows, random = given.reshape(-1, net.n_inputs), np.random.default_rng(seed)

    def place(first: int, last: int) -> Place:
        offsets = random.standard_normal((last - first, net.n_inputs), net.dtype)
        offsets *= deviation
        return lambda start, stop, out: np.add(rows[start:stop, None], offsets, out=out)

    weights = np.full(count, 1 / count, net.dtype)
    values = weighted_jacobians(net, len(rows), weights, place, threads)
    return _attribution(net, "smooth_grad", values, given)


def integrated_gradients(
    net: Network, x: ArrayLike, baseline: ArrayLike = 0.0, steps: int = 50, *, threads: Threads = 1
) -> Attribution:
    """Return what each input adds to every output on the straight line from a baseline to the sample.

    Parameters
    ----------
    net, x, threads
        As in `saliency`.
    baseline : float or array_like, (N,) or (..., N), default 0
        Where the line begins: one number for all inputs, one baseline for all samples, or one for each.
    steps : int, default 50
        At how many points of the line the gradient is taken.

    Returns
    -------
    Attribution
        (M, N) or (..., M, N), in the network's dtype. Its ``completeness`` (..., M) says by how much the sum
        over the inputs misses ``y(x) - y(baseline)``: more steps bring it down.

    Raises
    ------
    ValueError, TypeError
        As `saliency`; and if ``baseline`` has another shape, or ``steps`` is less than 1.

    Notes
    -----
    ``(x - b) * integral_0^1 J(b + t (x - b)) dt`` (M. Sundararajan, A. Taly, Q. Yan, "Axiomatic Attribution
    for Deep Networks", 2017), by a Gauss-Legendre rule; above 128 steps the line falls into equal parts with
    a rule each. Jacobians are made and added some megabytes at a time, so memory beyond the result does not
    grow with ``steps`` or the batch.

    Examples
    --------
    >>> import numpy as np
    >>> from fastjac import Network
    >>> names = {"input_names": ["age", "income"], "output_names": ["yes", "no"]}
    >>> net = Network([([[2.0, 0.5], [1.0, -1.0]], None)], head="identity", **names)
    >>> gradients = integrated_gradients(net, [1.0, 3.0])
    >>> np.round(gradients, 6)
    array([[ 2. ,  3. ],
           [ 0.5, -3. ]])
    >>> [name for name, value in gradients.top("no")]
    ['income', 'age']
    """
    given, count = _samples(net, x), _count(steps, "steps")
    start_of = real_array(baseline, "baseline", net.input_names).astype(net.dtype)
    if start_of.shape not in ((), (net.n_inputs,), given.shape):
        expected = ", ".join(map(str, dict.fromkeys(((), (net.n_inputs,), given.shape))))
        raise ValueError(f"baseline has shape {start_of.shape}, expected one of {expected}")
    shape = (-1, net.n_inputs)
    begin = np.broadcast_to(start_of, given.shape)
    # A baseline that all samples share stays one.
    rows = begin.reshape(shape) if start_of.ndim > 1 else np.broadcast_to(start_of, net.n_inputs)[None]
    lines = (given - begin).reshape(shape)
    nodes, weights = (part.astype(net.dtype) for part in gauss_legendre(count))

    def place(first: int, last: int) -> Place:
        t = nodes[first:last, None]

        def points(start: int, stop: int, out: Array) -> None:
            np.multiply(t, lines[start:stop, None], out=out)
            out += rows[start:stop, None] if len(rows) > 1 else rows

        return points

    values = weighted_jacobians(net, len(lines), weights, place, threads)
    values *= lines[:, None]
    attribution = values.reshape(*given.shape[:-1], net.n_outputs, net.n_inputs)
    change = net(given, threads=threads).astype(np.float64) - _outputs(net, start_of, begin, threads)
    return _attribution(
        net, "integrated_gradients", values, given, attribution.sum(axis=-1, dtype=np.float64) - change
    )


def importance(
    net: Network,
    data: ArrayLike,
    reduce: Literal["mean_abs", "class_mean"] = "mean_abs",
    *,
    scale: ArrayLike | None = None,
    threads: Threads = 1,
) -> Attribution:
    """Return how much each input moves every output over a whole data set.

    Parameters
    ----------
    net : Network
        A network of N inputs and M outputs.
    data : array_like, (..., N)
        Samples.
    reduce : {"mean_abs", "class_mean"}
        The mean magnitude of the gradients over all samples, or the mean gradient of each output over the
        samples whose largest output it is; see `Network.sensitivity`.
    scale : array_like, (N,), optional
        One positive number for each input, such as its standard deviation, by which the gradients are
        multiplied, so that inputs in different units compare.
    threads : int or "all", default 1
        How many threads, the calling one among them, work; the results are the same to the last bit.

    Returns
    -------
    Attribution
        (M, N), float64.

    Raises
    ------
    ValueError, TypeError
        If a shape, a dtype, ``reduce`` or ``scale`` does not fit; the message names the argument.
    """
    if reduce not in ("mean_abs", "class_mean"):
        raise ValueError(f"reduce is {reduce!r}, expected 'mean_abs' or 'class_mean'")
    values = net.sensitivity(data, reduce, scale=scale, threads=threads)
    return _attribution(net, "importance", values, None)


def _samples(net: Network, x: ArrayLike) -> Array:
    """Return ``x`` (..., N) C-contiguous in the network's dtype: its own copy."""
    return np.array(as_samples(x, "x", net.n_inputs, net.input_names), net.dtype, order="C")


def _count(value: int, name: str) -> int:
    try:
        count = index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}") from None
    if count < 1:
        raise ValueError(f"{name} is {count}, expected at least 1")
    return count


def _attribution(
    net: Network, method: str, values: Array, x: Array | None, completeness: Array | None = None
) -> Attribution:
    lead = () if x is None else x.shape[:-1]
    shaped = values.reshape(*lead, net.n_outputs, net.n_inputs)
    return Attribution(method, shaped, input_names(net), output_names(net), x, completeness)


def _outputs(net: Network, baseline: Array, begin: Array, threads: Threads) -> Array:
    """Return the outputs at the baseline of each sample, computed once where all share it."""
    if baseline.ndim > 1:
        return net(begin, threads=threads)
    return net(np.broadcast_to(baseline, net.n_inputs))
