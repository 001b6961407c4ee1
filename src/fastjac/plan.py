"""The order in which a network's Jacobian is multiplied out, by matrix-chain dynamic programming."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise


@dataclass(frozen=True)
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
    left: Product | None = None
    right: Product | None = None

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
        """Yield the products in the order in which they are computed."""
        if self.left is not None and self.right is not None:
            yield from self.left.steps()
            yield from self.right.steps()
            yield self

    def __str__(self) -> str:
        """Return the bracketing with layers counted from 1: ``(W3' W2') W1'``."""
        if self.left is None:
            return f"W{self.first + 1}'"
        parts = (f"({part})" if part and part.left else str(part) for part in (self.left, self.right))
        return " ".join(parts)


@dataclass(frozen=True)
class Plan:
    """How the Jacobian of layers of ``sizes`` is multiplied out.

    Notes
    -----
    The Jacobian is the matrix chain ``W_L' D_{L-1} W_{L-1}' ... D_1 W_1'`` (``'`` transposes, the
    diagonal ``D`` holds the slopes of the activations). The cheapest bracketing is found by dynamic
    programming in ``O(L**3)`` (Cormen et al., Introduction to Algorithms, section 14.2; Griewank and
    Walther, Evaluating Derivatives, chapter 9 on Jacobian accumulation). Inactive units save the same
    share of every product, so the sizes alone decide. Where inputs are few, and fewer than outputs or
    hidden layers wide, a `Network` carries their tangents along with the forward pass of a single input:
    in the order ``W_L' (... (W_2' W_1'))``, even if it is not quite the cheapest, it reads the weights once.

    Attributes
    ----------
    sizes : tuple of int
        Inputs, hidden units of each layer, outputs.
    """

    sizes: tuple[int, ...]

    @cached_property
    def root(self) -> Product:
        """The cheapest bracketing; of equal ones the one nearest to reverse mode."""
        layers = len(self.sizes) - 1
        best: dict[tuple[int, int], tuple[int, int]] = {}
        for first in reversed(range(layers)):
            best[first, first] = (0, first)
            for last in range(first + 1, layers):
                ends = self.sizes[first] * self.sizes[last + 1]
                best[first, last] = min(
                    (best[first, k][0] + best[k + 1, last][0] + ends * self.sizes[k + 1], k)
                    for k in range(first, last)
                )
        return self._tree({span: k for span, (_, k) in best.items()}, 0, layers - 1)

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

    def _tree(self, split: dict[tuple[int, int], int], first: int, last: int) -> Product:
        ends = (first, last, self.sizes[last + 1], self.sizes[first])
        if first == last:
            return Product(*ends)
        k = split[first, last]
        return Product(*ends, left=self._tree(split, k + 1, last), right=self._tree(split, first, k))

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
