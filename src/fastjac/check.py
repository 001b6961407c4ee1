"""Checks a Jacobian against central finite differences; knows the corners of ReLU and similar functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastjac.arguments import place, real_array
from fastjac.corners import Index, Mask, moved, rounding, straddles
from fastjac.network import Network
from fastjac.report import JacobianReport, of_batch

Array = NDArray[np.floating[Any]]
Function = Callable[[Any], ArrayLike]


def check_jacobian(
    f: Network | Function,
    x: ArrayLike,
    jacobian: Function | None = None,
    *,
    columns: int | None = None,
    step: float | None = None,
    rtol: float | None = None,
    seed: int = 0,
) -> JacobianReport:
    """Compare the Jacobian at one sample, or at each of many, with central finite differences.

    Parameters
    ----------
    f : Network or callable
        The network, or any function from (N,) to (M,).
    x : array_like, (N,) or (B, N)
        Where to check: real and finite numbers. A callable receives one sample at a time, in its own dtype,
        integers as float64.
    jacobian : callable, optional
        Function from (N,) to the (M, N) Jacobian under test. Default: ``f.jacobian`` of a Network;
        required for any other ``f``.
    columns : int, optional
        Check this many columns (inputs), drawn at random, the same of every sample. Default: all of them.
    step : float, optional
        Half the distance of a central difference. Default: ``cbrt(eps) * max(1, abs(x[n]))``.
    rtol : float, optional
        Allowed error as a share of the row's largest entry; allowances for rounding come on top.
        Default: ``4 cbrt(eps)``, which is 2.4e-5 for a Network and in float64, and 2.0e-2 for a callable
        that computes in float32.
    seed : int
        Seed of the random choice of columns.

    Returns
    -------
    JacobianReport
        True in a condition if the Jacobian is right, at every sample of a batch. ``print`` shows the worst
        entry, and the sample that it is of; ``reports`` has the report of each sample.

    Raises
    ------
    TypeError
        If an argument has the wrong type, or ``jacobian`` is missing.
    ValueError
        If ``x`` is not finite or not of the right shape, or has no samples, ``columns`` is not in 1..N,
        ``step`` or ``rtol`` is not positive, or a callable returns the wrong shape.

    Notes
    -----
    Column ``n`` is ``(f(x + h e_n) - f(x - h e_n)) / 2h``. ``eps`` is that of the coarser of the dtypes
    of ``x`` and ``f(x)``. The differences of a float32 Network are computed in float64, with the same
    weights, so they are sharper than the Jacobian under test.

    If a ReLU's corner lies between ``x - h e_n`` and ``x + h e_n``, the difference mixes two slopes and
    says nothing about either. The column is skipped. For a Network, the signs of the pre-activations on
    both sides show this, and a pre-activation that is zero to within the network's own rounding does too.

    For any function, the differences themselves show it. Let ``D(h)`` be the gap between the right and
    the left one-sided slope. Where ``f`` is smooth, it is proportional to ``h``. Where a slope jumps by
    ``d`` at a distance ``t``, it is ``d (1 - t/h)`` for ``t < h``, else 0. Take the largest of
    ``abs(D(h) - 2 D(h/2))``, ``abs(D(h/2) - 2 D(h/4))`` and the change of the central difference from
    ``h/2`` to ``h``. For every ``t`` it is at least two thirds of the corner's effect on the central
    difference. A column where it exceeds half the tolerance is skipped. None of this looks at the
    Jacobian under test, so a wrong Jacobian cannot hide behind it.

    Errors are measured as changes of the output by one step. Each row has its own scale, so tiny
    probabilities are checked as strictly as large ones. The tolerance is the sum of three terms:

    - ``rtol`` times the row's scale;
    - the rounding noise of ``f``, which is measured, and counted up to ``64 eps max(abs(f(x)))``;
    - the rounding of the Jacobian in its own dtype. For a Network, this is a bound from the sizes of all
      products that it sums. For any other Jacobian, it is 64 units in the last place of its largest entry.

    The article "Computing the Jacobian matrix of a neural network in Python" computes the Jacobian of a
    network in three ways and checks it with finite differences. This check is stricter: central instead
    of forward differences, a step from the dtype instead of 1e-5, every column instead of five, and
    relative errors instead of 1e-3.

    Examples
    --------
    >>> import numpy as np, fastjac
    >>> f = lambda x: np.array([x[0] * x[1], np.sin(x[1])])
    >>> jacobian = lambda x: np.array([[x[1], x[0]], [0, np.cos(x[1])]])
    >>> bool(fastjac.check_jacobian(f, [1.0, 2.0], jacobian))
    True
    >>> wrong = lambda x: np.array([[x[1], 0], [0, np.cos(x[1])]])
    >>> report = fastjac.check_jacobian(f, [[0.0, 2.0], [1.0, 2.0]], wrong)
    >>> report.ok, report.sample, report.entry
    (False, 1, 'jac[0, 1]')
    """
    forward: Function
    if isinstance(f, Network):
        points = _points(x, f.n_inputs, f.input_names).astype(f.dtype)
        forward, given = _in_float64(f), jacobian or f.jacobian
    else:
        if not callable(f):
            raise TypeError(f"f must be a Network or a callable, got {type(f).__name__}")
        if jacobian is None:
            raise TypeError("jacobian is missing: f is a plain callable, not a Network")
        points = _points(x)
        forward, given = f, jacobian
    names = (f.output_names, f.input_names) if isinstance(f, Network) else (None, None)
    chosen = _columns(columns, points.shape[-1], seed)
    reports = []
    for point in np.atleast_2d(points):
        analytic = np.array(given(point.copy()))
        at = point.astype(np.float64) if isinstance(f, Network) else point
        report = _compare(f, forward, at, analytic, chosen, step, rtol)
        if report.where is not None:
            m, n = (place(number, of) for number, of in zip(report.where, names, strict=True))
            report = replace(report, entry=f"jac[{m}, {n}]")
        reports.append(report)
    return reports[0] if points.ndim == 1 else of_batch(reports)


def _compare(
    f: Network | Function,
    forward: Function,
    point: Array,
    analytic: Array,
    chosen: Index,
    step: float | None,
    rtol: float | None,
) -> JacobianReport:
    """Compare the ``chosen`` columns of ``analytic`` (M, N) with differences of ``forward`` at ``point``."""
    y = np.array(forward(point.copy()))
    if y.ndim != 1:
        raise ValueError(f"f returned shape {y.shape}, expected (M,)")
    if analytic.shape != (y.size, point.size):
        raise ValueError(f"jacobian returned shape {analytic.shape}, expected {(y.size, point.size)}")

    eps = max(float(_finfo(point).eps), float(_finfo(y).eps))
    if rtol is None:
        rtol = 4 * float(np.cbrt(eps))
    elif not rtol > 0:
        raise ValueError(f"rtol is {rtol}, expected a positive number")
    steps = _steps(step, point, eps)[chosen]

    with np.errstate(all="ignore"):
        numeric, doubt = _differences(forward, point, y, chosen, steps)
        if isinstance(f, Network):
            assert isinstance(forward, Network)
            value, unit = forward.graph, float(np.finfo(f.dtype).eps)
            rounded = rounding(value, unit, point)[:, chosen]
            skip = straddles(value, unit, point, chosen, steps)
        else:
            largest = np.fmax.reduce(np.abs(numeric) * steps, axis=None) / steps
            rounded = 64 * _finfo(analytic).eps * np.tile(largest, (y.size, 1))
            skip = np.zeros(chosen.size, bool)
        # Below the normal numbers of the Jacobian's dtype, nothing has relative accuracy.
        rounded += 2.0**20 * float(_finfo(analytic).tiny)
        tolerance = rtol * _swing(numeric, steps) + _noise(doubt, steps, y, eps) + rounded
        skip |= np.any(doubt > tolerance / 2, axis=0)
        return _report(analytic[:, chosen], numeric, tolerance, skip, chosen)


def _report(analytic: Array, numeric: Array, tolerance: Array, skip: Mask, chosen: Index) -> JacobianReport:
    error = np.abs(analytic - numeric)
    excess = np.where(error == 0, 0, error / tolerance)
    excess = np.where(skip, -1, np.where(np.isnan(excess), np.inf, excess))
    m, k = np.unravel_index(np.argmax(excess), excess.shape)
    skipped = int(np.count_nonzero(skip))
    checked = skip.size - skipped
    if checked == 0:
        return JacobianReport(False, np.nan, None, np.nan, np.nan, np.nan, 0, skipped)
    return JacobianReport(
        ok=bool(excess[m, k] <= 1),
        error=float(error[m, k]),
        where=(int(m), int(chosen[k])),
        analytic=float(analytic[m, k]),
        numeric=float(numeric[m, k]),
        tolerance=float(tolerance[m, k]),
        checked=checked,
        skipped=skipped,
    )


def _differences(f: Function, x: Array, y: Array, columns: Index, steps: Array) -> tuple[Array, Array]:
    """Return the central differences (M, K), and their disagreement with those of smaller steps (M, K)."""
    numeric = np.empty((y.size, columns.size), np.result_type(x, y, np.float64))
    doubt = np.empty_like(numeric)

    def slopes(n: int, h: float) -> tuple[Array, Array]:
        """Return the central slope, and the gap between the two one-sided slopes."""
        right, left = (moved(x, n, by) for by in (h, -h))
        # Divide by the distances moved, not by h: x + h is rounded.
        rise, fall = np.array(f(right.copy())) - y, y - np.array(f(left.copy()))
        run, back = right[n] - x[n], x[n] - left[n]
        return (rise + fall) / (run + back), rise / run - fall / back

    for k, (n, h) in enumerate(zip(columns, steps, strict=True)):
        central, gap = slopes(n, h)
        central_half, gap_half = slopes(n, h / 2)
        _, gap_quarter = slopes(n, h / 4)
        numeric[:, k] = central
        doubt[:, k] = np.max(
            np.abs([gap - 2 * gap_half, gap_half - 2 * gap_quarter, central - central_half]), axis=0
        )
    return numeric, doubt


def _swing(numeric: Array, steps: Array) -> Array:
    """Return the largest change of each row by one step, as a slope for each column: (M, K)."""
    return np.asarray(np.fmax.reduce(np.abs(numeric) * steps, axis=1)[:, None] / steps)


def _noise(doubt: Array, steps: Array, y: Array, eps: float) -> Array:
    """Return a bound on the effect of f's rounding on the differences, (M, K)."""
    size = np.abs(y)
    # A row's own magnitude understates the noise of, say, log_softmax near 0, so the noise is measured too.
    # The effect of corners is not noise, hence the bound.
    measured = 4 * np.mean(np.minimum(doubt * steps, 16 * eps * np.max(size)), axis=1)
    noise = 64 * eps * size + measured
    return np.asarray(noise[:, None] / steps)


def _in_float64(net: Network) -> Network:
    """Return ``net``, or its like in float64."""
    return net if net.dtype == np.float64 else net.replace(dtype=np.float64)


def _finfo(array: Array) -> np.finfo[Any]:
    info: np.finfo[Any] = np.finfo(np.result_type(array, np.float32))
    return info


def _points(x: ArrayLike, size: int | None = None, names: Sequence[str] | None = None) -> Array:
    """Return ``x`` as a new native array of floats, (size,) or (B, size)."""
    array = real_array(x, "x", names)
    if array.ndim not in (1, 2) or array.size == 0 or size not in (None, array.shape[-1]):
        sizes = "N" if size is None else size
        raise ValueError(
            f"x has shape {array.shape}, expected ({sizes},) or (B, {sizes}) of B samples, B > 0"
        )
    if not np.all(np.isfinite(array)):
        first = np.unravel_index(np.argmin(np.isfinite(array)), array.shape)
        raise ValueError(f"x[{', '.join(map(str, first))}] is {array[first]}, expected finite numbers")
    dtype = np.result_type(array, np.float32) if array.dtype.kind == "f" else np.dtype(np.float64)
    return np.array(array, dtype.newbyteorder("="))


def _columns(columns: int | None, size: int, seed: int) -> Index:
    if columns is None:
        return np.arange(size)
    if isinstance(columns, bool) or not isinstance(columns, (int, np.integer)):
        raise TypeError(f"columns must be an integer or None, got {type(columns).__name__}")
    if not 1 <= columns <= size:
        raise ValueError(f"columns is {columns}, expected 1 to {size}, the size of x")
    return np.sort(np.random.default_rng(seed).choice(size, columns, replace=False))


def _steps(step: float | None, x: Array, eps: float) -> Array:
    if step is None:
        return np.asarray(np.cbrt(eps) * np.maximum(1, np.abs(x)), x.dtype)
    if not 0 < step < np.inf:
        raise ValueError(f"step is {step}, expected a positive number")
    if np.any(x + x.dtype.type(step / 4) == x) or np.any(x - x.dtype.type(step / 4) == x):
        raise ValueError(f"step is {step}, too small to move x in {x.dtype}")
    return np.full(x.shape, step, x.dtype)
