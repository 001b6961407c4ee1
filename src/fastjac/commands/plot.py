"""Draws Jacobians as heat maps, with matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from fastjac.commands.jacobian import Summary
    from fastjac.network import Network


def heat_map(path: Path, net: Network, summary: Summary) -> None:
    """Draw one sample's Jacobian, or the mean of its magnitude over many, as a PNG file ``path``."""
    single = summary.count == 1
    values = summary.total if single else summary.total_magnitude / max(summary.count, 1)
    finite = np.abs(values[np.isfinite(values)])
    limit = float(finite.max()) if finite.size else 0.0
    figure = Figure(figsize=(9, 1.5 + min(6.0, 0.3 * len(values) + 1)), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(
        values,
        aspect="auto",
        interpolation="nearest",
        cmap="RdBu_r" if single else "viridis",
        vmin=-limit if single else 0.0,
        vmax=limit,
    )
    axes.set_xlabel("input n")
    axes.set_ylabel("output m")
    names = net.output_names
    if len(values) <= 30:
        labels = [str(m) if names is None else str(names[m]) for m in summary.outputs]
        axes.set_yticks(range(len(values)), labels)
    quantity = "d y[m] / d x[n]" if single else f"mean |d y[m] / d x[n]| of {summary.count} samples"
    axes.set_title(quantity)
    figure.colorbar(image)
    figure.savefig(path, format="png")
