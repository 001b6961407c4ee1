"""Draws Jacobians as heat maps and pictures, and comparisons as bars, with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fastjac.bench.compare import title
from fastjac.explain.attribution import Attribution

_OURS, _OTHERS = "#d1495b", "#8fa3b0"
MOST_ROWS, MOST_COLUMNS, LONGEST_NAME = 30, 40, 24  # of names beside a heat map


def heat_map(
    path: Path,
    kind: str,
    values: NDArray[np.floating[Any]],
    samples: int,
    outputs: Sequence[str],
    inputs: Sequence[str] | None,
) -> None:
    """Draw Jacobians as a matrix.

    Parameters
    ----------
    path : Path
        The file.
    kind : {"png", "svg", "pdf"}
        Its format.
    values : ndarray, (rows, N)
        One sample's Jacobian, or the mean of its magnitude over many.
    samples : int
        The number of samples.
    outputs : sequence of str
        The rows' names.
    inputs : sequence of str, optional
        The columns' names. Default: numbers.
    """
    single = samples == 1
    finite = np.abs(values[np.isfinite(values)])
    limit = float(finite.max()) if finite.size else 0.0
    height = 1.5 + min(6.0, 0.3 * len(values) + 1) + (0.0 if inputs is None else 1.2)
    with _plain_text():
        figure = Figure(figsize=(9, height), dpi=120, layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(
            values,
            aspect="auto",
            interpolation="nearest",
            cmap="RdBu_r" if single else "viridis",
            vmin=-limit if single else 0.0,
            vmax=limit,
        )
        axes.set_xlabel("input")
        axes.set_ylabel("output")
        axes.set_yticks(*_ticks(outputs, MOST_ROWS))
        if inputs is not None:
            axes.set_xticks(*_ticks(inputs, MOST_COLUMNS), rotation=90, fontsize=7)
        axes.set_title("d y / d x" if single else f"mean |d y / d x| of {samples} samples")
        figure.colorbar(image)
        figure.savefig(path, format=kind)


def pictures(
    path: Path,
    kind: str,
    values: NDArray[np.floating[Any]],
    samples: int,
    outputs: Sequence[str],
    shape: tuple[int, int],
    x: NDArray[np.floating[Any]] | None,
) -> None:
    """Draw the derivatives of each output as a picture, all on one scale with 0 in its middle.

    Parameters
    ----------
    path, kind, samples, outputs
        As in `heat_map`.
    values : ndarray, (rows, N)
        One sample's Jacobian, or its mean over many.
    shape : (int, int)
        Height and width of a picture of the N inputs.
    x : ndarray, (N,), optional
        The only sample, drawn beside them.
    """
    title = "d y / d x" if samples == 1 else f"mean d y / d x of {samples} samples"
    inputs = tuple(map(str, range(values.shape[1])))
    names = tuple(map(_shortened, outputs))
    with _plain_text():
        Attribution(title, values, inputs, names, x).plot(shape=shape).savefig(path, format=kind)


def _plain_text() -> AbstractContextManager[None]:
    """Return a context in which a dollar sign in a name begins no formula."""
    context: AbstractContextManager[None] = rc_context({"text.parse_math": False})
    return context


def _ticks(names: Sequence[str], most: int) -> tuple[range, list[str]]:
    """Return the places of at most ``most`` names at equal distances, and these names."""
    places = range(0, len(names), -(-len(names) // most))
    return places, [_shortened(names[i]) for i in places]


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."


def bars(path: Path, results: Sequence[dict[str, Any]]) -> None:
    """Draw a comparison: for each network a bar for each peer on a log scale, and a line for the limit.

    The ending of ``path`` names the format.
    """
    heights = [sum("min_us" in peer for peer in figures["peers"]) + 2 for figures in results]
    figure = Figure(figsize=(9, 0.24 * sum(heights) + 0.6 * len(results)), layout="constrained")
    panels = figure.subplots(len(results), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, figures in zip(panels, results, strict=True):
        peers = [peer for peer in figures["peers"] if "min_us" in peer]
        names = [peer["peer"] for peer in peers]
        times = [peer["min_us"] for peer in peers]
        colours = [_OURS if name.startswith("fastjac") else _OTHERS for name in names]
        drawn = axes.barh(names, times, color=colours)
        axes.bar_label(drawn, [_label(time) for time in times], padding=3, fontsize=8)
        limit = figures["limit_us"]
        axes.axvline(limit, color="black", linestyle="--", linewidth=1, label=f"limit, {_label(limit)}")
        axes.legend(loc="upper right", fontsize=8, frameon=False)
        axes.set_xscale("log")
        axes.set_xlim(min([limit, *times]) / 2, max([limit, *times]) * 8)
        axes.invert_yaxis()
        axes.tick_params(axis="y", labelsize=8)
        axes.set_title(title(figures), loc="left", fontsize=10)
    panels[-1].set_xlabel("microseconds for the output and its Jacobian, one thread")
    figure.savefig(path, dpi=150)


def _label(microseconds: float) -> str:
    """Return three digits, more only before the point."""
    digits = 0 if microseconds >= 100 else 1 if microseconds >= 10 else 2
    return f"{microseconds:,.{digits}f} us"
