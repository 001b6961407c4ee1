"""The order in which a network's Jacobian is multiplied out, by matrix-chain dynamic programming."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fastjac import notebook

# Finding the order takes half a second and 30 MB then, and eight times as long for twice as many.
MOST_LAYERS = 1000


@dataclass(frozen=True, eq=False)
class Product:
    """The Jacobian of the layers ``first`` to ``last``: a weight matrix, or left times right.

    Attributes
    ----------
    first, last : int
        Layers, counted from 0 at the input; equal for a single weight matrix.
    rows, cols : int
        ``fan_out`` of ``last`` and ``fan_in`` of ``first``.
    left, right : Product or None
        The factors: ``left`` covers the layers nearer to the output.
    """

    first: int
    last: int
    rows: int
    cols: int
    left: Product | None = field(default=None, repr=False)
    right: Product | None = field(default=None, repr=False)

    @property
    def contracted(self) -> int:
        """The layer whose units are summed over."""
        assert self.right is not None
        return self.right.last

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of this product alone, its factors given."""
        return 0 if self.right is None else self.rows * self.right.rows * self.cols

    def steps(self) -> Iterator[Product]:
        """Return the products in the order in which they are computed."""
        products, waiting = [], [self]
        while waiting:
            product = waiting.pop()
            if product.left is not None and product.right is not None:
                products.append(product)
                waiting += [product.left, product.right]
        return reversed(products)

    def __str__(self) -> str:
        """Return the bracketing with layers counted from 1: ``(W3' W2') W1'``."""
        parts: list[str] = []
        waiting: list[Product | str] = [self]
        while waiting:
            part = waiting.pop()
            if isinstance(part, str):
                parts.append(part)
            elif part.left is None or part.right is None:
                parts.append(f"W{part.first + 1}'")
            else:
                waiting += [*_bracketed(part.right), " ", *_bracketed(part.left)]
        return "".join(parts)


def _span(factor: Product | None) -> str:
    """Return a factor by its first and last weights alone."""
    assert factor is not None
    first, last = f"W{factor.first + 1}'", f"W{factor.last + 1}'"
    return first if factor.left is None else f"({last} ... {first})"


def _bracketed(factor: Product) -> list[Product | str]:
    """Return a factor and its brackets, the last first."""
    return [factor] if factor.left is None else [")", factor, "("]


@dataclass(frozen=True)
class Plan:
    """How the Jacobian of layers of ``sizes`` is multiplied out.

    Raises
    ------
    ValueError
        If there are more than 1,000 layers.

    Notes
    -----
    The Jacobian is the matrix chain ``W_L' D_{L-1} W_{L-1}' ... D_1 W_1'`` (``'`` transposes, the
    diagonal ``D`` holds the slopes of the activations). The cheapest bracketing is found by dynamic
    programming in ``O(L**3)`` (Cormen et al., Introduction to Algorithms, section 14.2; Griewank and
    Walther, Evaluating Derivatives, chapter 9 on Jacobian accumulation). Inactive units save the same
    share of every product, so the sizes alone decide. Where inputs are few, and fewer than outputs or
    hidden layers wide, a `Network` carries their tangents along with the forward pass of a single input:
    in the order ``W_L' (... (W_2' W_1'))``, even if it is not quite the cheapest, it reads the weights once.

    The plan of a `Network` counts affine maps in a row as one layer where they are computed as one.

    Attributes
    ----------
    sizes : tuple of int
        Inputs, hidden units of each layer, outputs.
    """

    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        layers = len(self.sizes) - 1
        if layers > MOST_LAYERS:
            raise ValueError(f"the network has {layers:,} layers, expected at most {MOST_LAYERS:,}")

    @cached_property
    def root(self) -> Product:
        """The cheapest bracketing; of equal ones the one nearest to reverse mode."""
        most = min(self.reverse_multiply_adds, self.forward_multiply_adds)
        lengths = _lengths_of_right_factors(self.sizes, most)
        spans, waiting = [], [(0, len(self.sizes) - 2)]
        while waiting:
            first, last = waiting.pop()
            split = first + int(lengths[first, last])
            spans.append((first, split, last))
            if first < last:
                waiting += [(first, split - 1), (split, last)]
        products: dict[tuple[int, int], Product] = {}
        for first, split, last in reversed(spans):
            left, right = products.get((split, last)), products.get((first, split - 1))
            ends = (first, last, self.sizes[last + 1], self.sizes[first])
            products[first, last] = Product(*ends, left=left, right=right)
        return products[0, len(self.sizes) - 2]

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of the whole chain, all units active."""
        return sum(step.multiply_adds for step in self.root.steps())

    @property
    def reverse_multiply_adds(self) -> int:
        """Multiply-adds of pure reverse mode, from the outputs to the inputs."""
        return self.sizes[-1] * sum(a * b for a, b in pairwise(self.sizes[:-1]))

    @property
    def forward_multiply_adds(self) -> int:
        """Multiply-adds of pure forward mode, from the inputs to the outputs."""
        return self.sizes[0] * sum(a * b for a, b in pairwise(self.sizes[1:]))

    def __reduce__(self) -> tuple[Any, ...]:
        # Without `root`, which pickle would follow by recursion.
        return Plan, (self.sizes,)

    def __str__(self) -> str:
        """Return a table: the order, the multiply-adds of each step, and those of the pure modes."""
        lines = [f"order    {self.root}"]
        for step in self.root.steps():
            sizes = f"{step.rows} x {self.sizes[step.contracted + 1]} x {step.cols}"
            lines.append(f"step     {step}: {sizes} = {step.multiply_adds:,} multiply-adds")
        lines.append(f"total    {self.multiply_adds:,} multiply-adds")
        lines.append(f"reverse  {self.reverse_multiply_adds:,}")
        lines.append(f"forward  {self.forward_multiply_adds:,}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = []
        for step in self.root.steps():
            size = f"{step.rows} x {self.sizes[step.contracted + 1]} x {step.cols}"
            rows.append((f"{_span(step.left)} {_span(step.right)}", size, f"{step.multiply_adds:,}"))
        total = f"{self.multiply_adds:,} multiply-adds"
        pure = f"reverse mode: {self.reverse_multiply_adds:,}, forward mode: {self.forward_multiply_adds:,}"
        return notebook.table(f"Plan: {total}", ["product", "size", "multiply-adds"], rows, pure)


def _lengths_of_right_factors(sizes: tuple[int, ...], most: int) -> NDArray[np.int16]:
    """Return how many layers the right factor of each product covers, (first, last), in the cheapest order.

    The fewest where some are equally cheap; 0 for a single layer. ``most`` is what the whole chain takes at
    most. What takes more is no part of the cheapest order, so it may count as little more than ``most``:
    then 64 bits hold all numbers, unless those of the whole chain are beyond any computer.
    """
    layers, widest = len(sizes) - 1, max(sizes)
    n = np.array(sizes, np.int64 if max(most, widest * widest) < 1 << 60 else object)
    # Multiply-adds of `length` layers from the first one on, and of as many up to the last one.
    by_first, by_last = np.zeros((2, layers, layers + 1), n.dtype)
    lengths = np.zeros((layers, layers), np.int16)
    for length in range(2, layers + 1):
        count = layers + 1 - length
        firsts, lasts = np.arange(count), slice(length - 1, None)
        entries = n[:count] * n[length:]
        enough = most // np.maximum(entries, 1) + 1  # units to sum over for more than `most`
        # One row for each product of this length, one column for each length of its right factor.
        totals = np.minimum(sliding_window_view(n[1:-1], length - 1), enough[:, None])
        totals *= entries[:, None]
        totals += by_first[:count, 1:length]
        totals += by_last[lasts, length - 1 : 0 : -1]
        shortest = totals.argmin(axis=1)
        lengths[firsts, firsts + length - 1] = shortest + 1
        by_first[:count, length] = by_last[lasts, length] = np.minimum(totals[firsts, shortest], most)
    return lengths
