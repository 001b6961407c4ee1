"""The tensors that depend on the inputs of an ONNX graph.

Each is a sum of terms in a base tensor. Elementwise nodes only change the terms, because they may be parts of
an activation that an exporter spelled out. Other nodes need a settled input: its terms become steps, and it
becomes a new base.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from fastjac.models.onnx.patterns import Above, Terms, X
from fastjac.models.steps import Affine, Scale, Select, Step, clip


class _Batch:
    """The size of the batch in a shape that the file computes."""

    def __repr__(self) -> str:
        return "batch"


BATCH = _Batch()


class Node(NamedTuple):
    """A node of the graph, for one of its outputs. ``inputs`` and ``output`` are names of tensors."""

    op: str
    inputs: list[str]
    output: str
    attributes: Mapping[str, Any]
    where: str
    place: int = 0  # of the output among those of the node
    outputs: int = 1  # how many the node has


class Limits(NamedTuple):
    """A step that clips. Clips in a row become one, because exporters spell some ReLUs as two."""

    low: float
    high: float


class Spread(NamedTuple):
    """A step that repeats the only entry ``size`` times."""

    size: int


class Mean(NamedTuple):
    """A step to the mean of ``size`` entries."""

    size: int


class Normalise(NamedTuple):
    """A step to layer_norm of `fastjac.graph` if it is ``centred``, otherwise to rms_norm."""

    epsilon: float
    centred: bool


class Power(NamedTuple):
    """A step that is only ever a part of another: ``x ** exponent``, with 1/2, -1/2 or -1."""

    exponent: float


# Steps that compute one tensor from several, and others with no numbers of their own. The last three are only
# ever parts of another: the largest entry, x less the largest entry, and the logarithm.
Join: TypeAlias = Literal["add", "multiply", "concatenate"]
Plain: TypeAlias = Literal["centre", "largest", "less_largest", "log"]
AnyStep: TypeAlias = Step | Limits | Spread | Mean | Normalise | Power | Join | Plain


@dataclass(frozen=True, eq=False)
class Base:
    """A tensor that a step makes of the ones before it. An input has none before it."""

    before: tuple[Base, ...] = ()
    step: AnyStep | None = None
    where: str = ""

    def then(self, step: AnyStep, where: str = "") -> Base:
        """Return the tensor after a step."""
        return Base((self,), step, where)

    def path(self) -> list[Step] | None:
        """Return all steps from the input on, None where they are more than a chain of layers has."""
        steps: list[Step] = []
        base = self
        while base.step is not None:
            step = base.step
            if isinstance(step, Limits):
                steps += clip(*step, "Clip")[::-1]
            elif isinstance(step, Spread):
                steps.append(Select(np.zeros(step.size, np.intp), base.where))
            elif isinstance(step, Step):
                steps.append(step)
            else:
                return None
            (base,) = base.before
        return steps[::-1]

    def ordered(self) -> list[Base]:
        """Return all tensors that this one is made of, and itself, each behind those before it."""
        found: dict[int, Base] = {}
        waiting = [(self, False)]
        while waiting:
            base, is_ready = waiting.pop()
            if id(base) in found:
                continue
            if is_ready:
                found[id(base)] = base
            else:
                waiting.append((base, True))
                waiting += [(before, False) for before in reversed(base.before)]
        return list(found.values())


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

    def then(self, *steps: AnyStep, where: str = "", axes: tuple[int | None, ...] | None = None) -> Value:
        """Return the tensor after some steps; this one must be settled."""
        base = self.base
        for step in steps:
            last = base.step
            if isinstance(step, Limits) and isinstance(last, Limits):
                low, high = step
                step = Limits(min(max(last.low, low), high), min(max(last.high, low), high))
                (base,) = base.before
            named = step.where if isinstance(step, (Affine, Scale, Select)) else where
            base = base.then(step, named)
        return Value(base, self.axes if axes is None else axes, self.batch)
