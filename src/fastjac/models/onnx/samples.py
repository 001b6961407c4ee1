"""Tensors of an ONNX graph that depend on its input, of which one axis may count samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from fastjac import graph
from fastjac.layers import Activation
from fastjac.models import tensors
from fastjac.models.limits import Budget
from fastjac.models.steps import as_float64
from fastjac.models.tensors import Tensor

Array = NDArray[Any]
Operand: TypeAlias = Union["Samples", Array]
# As many samples as a batch has where the file does not say: a number that hardly any file holds for
# another reason, such as rows of one sample.
BATCH = 13
# A value of a graph takes as much memory as so many numbers.
_VALUE = 60


class Samples(NamedTuple):
    """One sample of a tensor.

    Its axis ``batch`` has length 1 here, and ``samples`` in the file; it is None if the file has one sample
    alone. The ``budget`` counts what is made.
    """

    tensor: Tensor
    batch: int | None
    samples: int
    budget: Budget

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes in the file."""
        return tuple(
            self.samples if axis == self.batch else size for axis, size in enumerate(self.tensor.shape)
        )

    @property
    def from_last(self) -> int | None:
        """The axis of samples as a negative number."""
        return None if self.batch is None else self.batch - len(self.shape)

    def of(self, tensor: Tensor, batch: int | None) -> Samples:
        """Return another tensor of as many samples, which are along an axis counted from the last."""
        return self._replace(tensor=tensor, batch=None if batch is None else batch + len(tensor.shape))

    @property
    def text(self) -> str:
        """The shape as errors show it."""
        names = ["batch" if axis == self.batch else str(size) for axis, size in enumerate(self.shape)]
        return f"({', '.join(names)})"

    def each(self, function: Callable[[Tensor], Tensor]) -> Samples:
        """Return a function of each entry."""
        return self._replace(tensor=function(self.tensor))

    def activated(self, activation: str | Activation) -> Samples:
        """Return an activation of each entry."""
        return self.each(lambda x: tensors.activated(x, activation))

    def function(self, name: str, where: str) -> Samples:
        """Return a function of each entry that may be no activation."""
        return self.each(lambda x: tensors.function(name, x, where))

    def moved(self, move: Callable[[Array], Array]) -> Samples:
        """Return the tensor after a function that moves its entries, all samples at once.

        Raises
        ------
        ValueError
            If samples are no longer along one axis, each as the others are.
        """
        value, places = self.tensor
        if self.batch is None:
            return self._replace(tensor=Tensor(value, self._after(move, places)))
        self.budget.spend(self.samples * places.size // 2)  # They are not kept.
        starts = value.size * np.arange(self.samples)
        after = self._after(move, np.concatenate([places + start for start in starts], self.batch))
        for axis in np.flatnonzero(np.equal(after.shape, self.samples)).tolist():
            first = after.take([0], axis)
            others = starts.reshape([-1 if place == axis else 1 for place in range(after.ndim)])
            if np.array_equal(after, first + others):
                return self._replace(tensor=Tensor(value, first), batch=axis)
        raise ValueError(f"it joins, drops or mixes the samples of {self.text}")

    def _after(self, move: Callable[[Array], Array], places: Array) -> Array:
        try:
            after = move(places)
        except (IndexError, ValueError) as error:
            if str(error).startswith("it "):
                raise
            # NumPy's text has the sizes of all samples.
            raise ValueError(f"its parameters do not fit {self.text}") from error
        if after.size == 0:
            raise ValueError(f"it selects nothing of {self.text}")
        return after

    def turned(self) -> Samples:
        """Return matrices with their rows as columns."""
        return self.moved(tensors.turned)

    def along(self, *axes: int) -> list[int]:
        """Return axes of one sample as numbers from the front, and count the vectors along them."""
        count = len(self.shape)
        for axis in axes:
            if not -count <= axis < count or axis % count == self.batch:
                raise ValueError(f"it works along axis {axis} of {self.text}, expected an axis of one sample")
        self.budget.spend(_VALUE * self.tensor.places.size // math.prod(self.shape[axis] for axis in axes))
        return [axis % count for axis in axes]

    def kept(
        self, function: Callable[[graph.Value], graph.Value], axes: Sequence[int], where: str
    ) -> Samples:
        """Return a function of the vectors along some axes, which keeps their entries in place."""
        return self.each(lambda x: tensors.like_before(x, function, self.along(*axes), where))

    def normalised(self, axes: Sequence[int], epsilon: float, centred: bool, where: str) -> Samples:
        """Return layer_norm or rms_norm over some axes."""
        along = self.along(*axes)
        return self.each(lambda x: tensors.normalised(x, along, None, None, epsilon, centred, where))

    def summed(self, axes: Sequence[int], keep: bool, name: str, where: str) -> Samples:
        """Return sums, means or maxima along some axes."""
        along, batch = self.along(*axes), self.batch
        if batch is not None and not keep:
            batch -= sum(axis < batch for axis in along)
        return self._replace(tensor=tensors.summed(self.tensor, along, keep, name, where), batch=batch)


def _text(operand: Operand) -> str:
    return operand.text if isinstance(operand, Samples) else str(operand.shape)


def _meeting(operands: Sequence[Operand]) -> tuple[list[tensors.Operand], int | None, Samples]:
    """Return what meets as NumPy broadcasts, one sample of each, and the axis of samples from the last on.

    The last of the three has the number of samples.
    """
    followed = [each for each in operands if isinstance(each, Samples)]
    several = [each for each in followed if each.batch is not None] or followed
    batches = {(each.from_last, each.samples) for each in several}
    if len(batches) > 1:
        raise ValueError(f"it takes {_listed(operands)}, whose samples are along different axes")
    ((batch, count),) = batches
    parts: list[tensors.Operand] = []
    for each in operands:
        if not isinstance(each, Samples):
            parts.append(as_float64(_of_one_sample(each, batch, count), "a constant"))
        elif each.batch is None:
            parts.append(each.tensor.moved(lambda places: _of_one_sample(places, batch, count)))
        else:
            parts.append(each.tensor)
    return parts, batch, several[0]


def _of_one_sample(array: Array, axis: int | None, count: int) -> Array:
    """Return what a constant holds for one sample, where samples are along an axis counted from the last."""
    if axis is None or array.ndim < -axis or array.shape[axis] == 1:
        return array
    first = array.take([0], axis)
    if array.shape[axis] != count or not np.array_equal(array, np.broadcast_to(first, array.shape)):
        raise ValueError(f"it takes a constant of shape {array.shape}, which differs from sample to sample")
    return first


def _listed(operands: Sequence[Operand]) -> str:
    return " and ".join(_text(each) for each in operands)


def _sizes(part: tensors.Operand) -> tuple[int, ...]:
    return part.shape if isinstance(part, Tensor) else np.shape(part)


def joined(name: str, operands: Sequence[Operand], where: str) -> Samples:
    """Return a sum, product or another function of tensors and constants, as NumPy broadcasts."""
    parts, batch, model = _meeting(operands)
    try:
        shape = np.broadcast_shapes(*map(_sizes, parts))
    except ValueError:
        raise ValueError(f"it takes {_listed(operands)}, which do not fit each other") from None
    model.budget.spend(math.prod(shape))
    return model.of(tensors.joined(name, parts, where), batch)


def matmul(a: Operand, b: Operand, where: str) -> Samples:
    """Return ``a @ b``; samples are the rows of a, the columns of b, or matrices of both."""
    rows = -1 if len(b.shape) == 1 else -2  # The axis of b that is summed over.
    if a.shape[-1] != b.shape[rows]:
        raise ValueError(f"it multiplies {_listed([a, b])}, which do not fit each other")
    batches = set()
    for operand, axis, other in ((a, -1, b), (b, rows, a)):
        if not isinstance(operand, Samples):
            if operand.dtype.kind != "f" and operand.dtype.name != "bfloat16":
                text = "fastjac reads no quantized weights"
                raise ValueError(f"its weight has dtype {operand.dtype}, expected floats: {text}")
        elif operand.from_last == axis:
            raise ValueError(f"it sums over the samples of {operand.text}")
        elif operand.from_last is not None:
            batches.add(operand.from_last + (len(other.shape) == 1 and operand.from_last < -1))
    followed = [each for each in (a, b) if isinstance(each, Samples)]
    batch, model = min(batches, default=None), followed[0]
    if len(batches) > 1 or (len(followed) > 1 and batch is not None and batch > -3):
        raise ValueError(f"it multiplies {_listed([a, b])}, whose samples are along different axes")
    parts: Sequence[tensors.Operand]
    if batch is not None and batch < -2:
        parts, _, model = _meeting([a, b])
    else:
        parts = [each.tensor if isinstance(each, Samples) else as_float64(each, where) for each in (a, b)]
    # Each vector of one meets each of the other.
    length = a.shape[-1]
    vectors = [math.prod(_sizes(part)) // length for part in parts]
    model.budget.spend(math.prod(vectors) * (length if len(followed) > 1 else 1))
    model.budget.spend(_VALUE * vectors[isinstance(b, Samples)])
    return model.of(tensors.matmul(parts[0], parts[1], where), batch)


def concatenated(parts: Sequence[Operand], axis: int) -> Samples:
    """Return tensors and constants one behind the other along an axis of one sample."""
    count = len(parts[0].shape)
    arrays, batch, model = _meeting(parts)
    if not -count <= axis < count or axis % count - count == batch:
        raise ValueError(f"it joins {_listed(parts)} along axis {axis}, expected an axis of one sample")
    model.budget.spend(sum(math.prod(_sizes(part)) for part in arrays))
    try:
        return model.of(tensors.concatenated(arrays, axis), batch)
    except ValueError:
        raise ValueError(f"it joins {_listed(parts)}, which do not fit each other") from None
