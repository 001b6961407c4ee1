"""The tensors that depend on the input of an ONNX graph.

Each is a sum of terms in a base tensor. Elementwise nodes only change the terms, because they may be parts of
an activation that an exporter spelled out. Other nodes need a settled input: its terms become steps, and it
becomes a new base.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from fastjac.models.onnx.patterns import Above, Terms, X
from fastjac.models.steps import Step, clip


class _Batch:
    """The size of the batch in a shape that the file computes."""

    def __repr__(self) -> str:
        return "batch"


BATCH = _Batch()


class Node(NamedTuple):
    """A node of the graph. ``inputs`` and ``output`` are names of tensors."""

    op: str
    inputs: list[str]
    output: str
    attributes: Mapping[str, Any]
    where: str


class Limits(NamedTuple):
    """A step that clips. Clips in a row become one, because exporters spell some ReLUs as two."""

    low: float
    high: float


class Base(NamedTuple):
    """A tensor, as the base before it and the steps from there. The input has no base before it."""

    before: Base | None = None
    steps: tuple[Step | Limits, ...] = ()

    def path(self) -> Iterator[Step]:
        """Yield all steps from the input on."""
        bases = [self]
        while bases[-1].before is not None:
            bases.append(bases[-1].before)
        for base in reversed(bases):
            for step in base.steps:
                yield from clip(*step, "Clip") if isinstance(step, Limits) else (step,)


class Value(NamedTuple):
    """A tensor as ``terms`` of a ``base``.

    ``axes`` are its sizes, None where the file gives none. The axis ``batch`` counts samples; it is None if
    the file fixes one sample.
    """

    base: Base
    axes: tuple[int | None, ...]
    batch: int | None
    terms: Terms | Above = X

    @property
    def sample(self) -> list[int | None]:
        """The axes without the batch's."""
        return [size for place, size in enumerate(self.axes) if place != self.batch]

    @property
    def size(self) -> int | None:
        """The number of entries of a sample, None where the file does not say."""
        sizes = self.sample
        return None if None in sizes else math.prod(size or 0 for size in sizes)

    @property
    def shape(self) -> str:
        """The axes as errors show them."""
        names = ["?" if size is None else str(size) for size in self.axes]
        if self.batch is not None:
            names[self.batch] = str(BATCH)
        return f"({', '.join(names)})"

    def then(self, *steps: Step | Limits, axes: tuple[int | None, ...] | None = None) -> Value:
        """Return the tensor after some steps; this one must be settled."""
        if not steps:
            return self
        before = self.base
        if isinstance(steps[0], Limits) and before.steps and isinstance(before.steps[-1], Limits):
            low, high = steps[0]
            last = before.steps[-1]
            steps = (Limits(min(max(last.low, low), high), min(max(last.high, low), high)), *steps[1:])
            before = Base(before.before, before.steps[:-1])
        return Value(Base(before, steps), self.axes if axes is None else axes, self.batch)
