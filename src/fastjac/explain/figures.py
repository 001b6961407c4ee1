"""Draws attributions with matplotlib: bars by name, or pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray


class Drawn(Protocol):
    """What is drawn of an `Attribution`."""

    @property
    def values(self) -> NDArray[Any]: ...  # noqa: D102
    @property
    def outputs(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def method(self) -> str: ...  # noqa: D102
    @property
    def x(self) -> NDArray[Any] | None: ...  # noqa: D102

    def top(self, output: int, k: int) -> Sequence[tuple[str, float]]:
        """Return the ``k`` strongest inputs of an output, by name."""


# The ends of matplotlib's RdBu: also people who see no red or no green tell them apart.
POSITIVE, NEGATIVE, DIVERGING = "#b2182b", "#2166ac", "RdBu_r"
MOST_ACROSS = 6


def bars(attribution: Drawn, outputs: Sequence[int], k: int) -> Figure:
    """Return a panel for each of ``outputs``: bars of its ``k`` strongest inputs, the strongest on top."""
    tops = [attribution.top(m, k) for m in outputs]
    figure, panels = _panels(len(outputs), (4.0, 0.8 + 0.22 * max(len(top) for top in tops)))
    for m, top, axes in zip(outputs, tops, panels, strict=True):
        values = [value for _, value in top]
        axes.barh(range(len(top)), values, color=[POSITIVE if value > 0 else NEGATIVE for value in values])
        axes.set_yticks(range(len(top)), [name for name, _ in top], parse_math=False)
        axes.invert_yaxis()
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_title(attribution.outputs[m], parse_math=False)
    figure.suptitle(attribution.method)
    return figure


def pictures(attribution: Drawn, outputs: Sequence[int], shape: tuple[int, int]) -> Figure:
    """Return the input, where it is known, and a picture for each of ``outputs``."""
    beside = attribution.x is not None
    figure, panels = _panels(len(outputs) + beside, (1.8, 1.8 * max(shape[0] / shape[1], 0.3) + 0.3))
    for axes in panels:
        axes.set_xticks([])
        axes.set_yticks([])
    if attribution.x is not None:
        panels[0].imshow(attribution.x.reshape(shape), cmap="gray")
        panels[0].set_title("input")
    values = attribution.values[list(outputs)]
    finite = np.abs(values[np.isfinite(values)])
    limit = float(finite.max(initial=0.0)) or 1.0
    scale = Normalize(-limit, limit)
    for m, row, axes in zip(outputs, values, panels[beside:], strict=True):
        image = axes.imshow(row.reshape(shape), cmap=DIVERGING, norm=scale)
        axes.set_title(attribution.outputs[m], parse_math=False)
    figure.colorbar(image, ax=panels)
    figure.suptitle(attribution.method)
    return figure


def _panels(count: int, size: tuple[float, float]) -> tuple[Figure, list[Any]]:
    """Return a figure with ``count`` panels of ``size`` inches in rows."""
    down = math.ceil(count / MOST_ACROSS)
    across = math.ceil(count / down)
    figure = Figure(figsize=(across * size[0] + 1.0, down * size[1] + 0.5), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes in panels[count:]:
        axes.remove()
    return figure, list(panels[:count])
