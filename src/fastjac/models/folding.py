"""Turns what readers make into networks: a chain of steps into layers, and values.

`fold` composes every scale with an affine map next to it, in float64, and rounds once at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastjac.graph import values
from fastjac.graph.folding import MOST_SHIFTED, folded
from fastjac.graph.values import Value, ordered
from fastjac.layers import HEADS_ONLY, Activation
from fastjac.models.limits import MOST_LAYERS, Budget, network
from fastjac.models.steps import IDENTITY, Affine, Float64, Scale, Select, Step, scale
from fastjac.network import Network

# A diagonal matrix of this many rows takes 128 MB.
_WIDEST_DIAGONAL = 4096


def fold(
    steps: Iterable[Step],
    dtype: DTypeLike,
    n_inputs: int | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    budget: Budget | None = None,
) -> Network:
    """Return the network that computes a chain of steps.

    Parameters
    ----------
    steps : iterable of Affine, Scale, Select or Activation
        First to last.
    dtype : float32 or float64
        Of the network. It becomes float64 if a scale shifts by more than float32 can bear.
    n_inputs : int, optional
        Required if no step before the first activation determines it.
    input_names, output_names : sequence of str, optional
        Passed to `Network`.
    budget : Budget, optional
        A limit on the number of weights.

    Raises
    ------
    ValueError
        If the steps do not fit each other, or something follows softmax or log_softmax, or there are too
        many of them.

    Notes
    -----
    A scale after an affine map is merged into it: ``(x w + b) f + c = x (w f) + (b f + c)``. So is a scale
    before an affine map: ``(x f + c) w + b = x (f w) + (c w + b)``. A scale with no affine map next to it
    becomes a layer with a diagonal matrix. Of two affine maps in a row, the first gets the identity as its
    activation, unless it is absorbed.
    """
    chain = _Chain(n_inputs, budget)
    for step in steps:
        chain.add(step)
    waits = chain.pending is not None or chain.selected is not None
    if not chain.layers or chain.is_open or waits:
        chain.close(IDENTITY)
    return network(
        chain.layers,
        chain.activations[:-1],
        chain.activations[-1],
        np.float64 if chain.is_wide else dtype,
        input_names,
        output_names,
    )


def of_value(value: Value, dtype: DTypeLike, **names: Sequence[str] | None) -> Network:
    """Return the network of a value, in float64 also if inputs are shifted by more than float32 can bear.

    Of ``(x - mean) / deviation``, the factor of ``x`` and the shift ``-mean / deviation`` are both rounded.
    """
    if _is_shifted(value) and _is_shifted(folded(value, np.dtype(np.float32))):
        dtype = np.float64
    return Network(value, dtype=dtype, **names)  # type: ignore[arg-type]


def _is_shifted(value: Value) -> bool:
    """Return whether a scale of inputs shifts by so much."""
    for each in ordered(value):
        if isinstance(each.operation, values.Scale) and np.max(np.abs(each.operation.shift)) > MOST_SHIFTED:
            while isinstance(each.operation, (values.Scale, values.Select)):
                (each,) = each.inputs
            if isinstance(each.operation, values.Input):
                return True
    return False


def has_head_last(steps: Sequence[Step]) -> bool:
    """Return whether softmax and log_softmax come last only, as `fold` asks."""
    return not any(isinstance(step, Activation) and step.name in HEADS_ONLY for step in steps[:-1])


class _Chain:
    """The layers so far, a scale that waits for the next affine map, and the current width."""

    def __init__(self, width: int | None, budget: Budget | None) -> None:
        self.width = width
        self.budget = budget
        self.layers: list[tuple[Float64, Float64]] = []
        self.activations: list[Activation] = []
        self.pending: Scale | None = None
        self.selected: NDArray[np.intp] | None = None  # Entries before the pending scale, of `before`.
        self.before = 0
        self.absorbs = False
        self.is_wide = False

    @property
    def is_open(self) -> bool:
        """Whether the last affine map still has no activation."""
        return len(self.layers) > len(self.activations)

    def add(self, step: Step) -> None:
        if isinstance(step, Activation) and step == IDENTITY:
            return
        if self.activations and self.activations[-1].name in HEADS_ONLY:
            raise ValueError(f"{self.activations[-1]} is not the last layer, but fastjac has it only there")
        if isinstance(step, Activation):
            self.close(step)
        elif isinstance(step, Affine):
            self._add_affine(step)
        elif isinstance(step, Select):
            self._add_select(step)
        else:
            self._add_scale(step)

    def close(self, activation: Activation) -> None:
        """End a layer with its activation; if no affine map is open, add a diagonal matrix first."""
        if not self.is_open:
            if self.width is None:
                raise ValueError(f"{activation} comes first, and nothing tells how many inputs it has")
            if self.width > _WIDEST_DIAGONAL:
                raise ValueError(f"{activation} of {self.width} entries has no Dense layer right before it")
            self._spend(self._rows(self.width), self.width)
            factor, shift = self._take_pending(self.width)
            self.layers.append((self._of_selected(np.diag(factor)), shift))
        self.activations.append(activation)

    def _add_affine(self, step: Affine) -> None:
        w, b, where, _ = step
        self._reach(w.shape[0], where)
        if self.is_open and self.absorbs:
            w_before, b_before = self.layers.pop()
            w, b = w_before @ w, b_before @ w + b
        elif self.is_open:
            self.close(IDENTITY)
        self._spend(self._rows(len(w)), w.shape[1])
        if self.pending is not None:
            factor, shift = self._take_pending(len(w))
            w, b = factor[:, None] * w, shift @ w + b
        self.layers.append((self._of_selected(w), b))
        self.absorbs = step.absorbed
        self.width = b.size

    def _add_scale(self, step: Scale) -> None:
        factor, shift, where = step
        if factor.size > 1:
            self._reach(factor.size, where)
        if self.is_open:
            w, b = self.layers[-1]
            self.layers[-1] = (w * factor, b * factor + shift)
        elif self.pending is not None:
            self.pending = scale(self.pending.factor * factor, self.pending.shift * factor + shift, where)
        else:
            self.pending = step

    def _rows(self, fan_in: int) -> int:
        """Return how many rows the next weights have: one for each entry, selected or not."""
        return fan_in if self.selected is None else self.before

    def _spend(self, fan_in: int, fan_out: int) -> None:
        if len(self.layers) == MOST_LAYERS:
            raise ValueError(f"it has more than {MOST_LAYERS} layers")
        if self.budget is not None:
            self.budget.spend_on_layer(fan_in, fan_out)

    def _add_select(self, step: Select) -> None:
        places, where = step
        if self.width is None or (places.size and int(places.max()) >= self.width):
            raise ValueError(f"{where} takes inputs up to {places.max()}, but gets {self.width}")
        if self.is_open:
            w, b = self.layers[-1]
            self.layers[-1] = (w[:, places], b[places])
        else:
            if self.pending is not None and self.pending.factor.size > 1:
                factor, shift, name = self.pending
                self.pending = Scale(factor[places], shift[places], name)
            if self.selected is None:
                self.before = self.width
            self.selected = places if self.selected is None else self.selected[places]
        self.width = places.size

    def _of_selected(self, w: Float64) -> Float64:
        """Return weights with a row for each entry, selected or not."""
        if self.selected is None:
            return w
        all_rows = np.zeros((self.before, w.shape[1]))
        np.add.at(all_rows, self.selected, w)
        self.selected = None
        return all_rows

    def _take_pending(self, width: int) -> tuple[Float64, Float64]:
        if self.pending is None:
            return np.ones(width), np.zeros(width)
        factor, shift, _ = self.pending
        self.pending = None
        self.is_wide |= bool(np.max(np.abs(shift)) > MOST_SHIFTED)
        return np.broadcast_to(factor, width), np.broadcast_to(shift, width)

    def _reach(self, size: int, where: str) -> None:
        if self.width not in (None, size):
            raise ValueError(f"{where} takes {size} inputs, but gets {self.width}")
        self.width = size
