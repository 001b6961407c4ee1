"""Tensors of different axes that meet in one operation: which entries of each meet, as NumPy broadcasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.models.onnx.reader import Reader
from fastjac.models.onnx.values import Base, Spread, Value
from fastjac.models.steps import Float64, Select, as_float64

Axes = tuple[int | None, ...]


def spread(reader: Reader, value: Value, array: NDArray[Any], what: str) -> tuple[Float64, Value]:
    """Return a constant, one number for each entry of a sample or (1,), and the value with its sizes."""
    array = as_float64(array, what)
    if array.ndim > len(value.axes):
        raise ValueError(f"{what} has shape {array.shape}, but the input has fewer axes: {value.shape}")
    if array.size == 1:
        return array.ravel(), value
    lengths = [1] * (len(value.axes) - array.ndim) + list(array.shape)
    if value.batch is not None and lengths[value.batch] != 1:
        raise ValueError(f"{what} has shape {array.shape}: it differs from sample to sample")
    pairs = list(zip(value.axes, lengths, strict=True))
    axes = tuple(length if size is None and length > 1 else size for size, length in pairs)
    if None in value._replace(axes=axes).sample or any(
        1 != length != size != 1 for size, length in pairs if size is not None
    ):
        raise ValueError(f"{what} has shape {array.shape}, its input {value.shape}")
    wide = tuple(
        size if place == value.batch or size != 1 else length
        for place, (size, length) in enumerate(zip(axes, lengths, strict=True))
    )
    value = widened(reader, value._replace(axes=axes), wide, what)
    reader.tensors.budget.spend(value.size or 0)
    shape = [1 if place == value.batch else size or 0 for place, size in enumerate(value.axes)]
    return np.broadcast_to(array, shape).ravel(), value


def widened(reader: Reader, value: Value, axes: Axes, where: str) -> Value:
    """Return a tensor whose axes of 1 are repeated until its axes are these."""
    if axes == value.axes:
        return value
    after = value._replace(axes=axes)
    if after.size is None and value.size == 1:
        return after  # Sums and products repeat it.
    if after.size is None or value.size is None:
        raise ValueError(f"its input has shape {value.shape}, expected known sizes to repeat it")
    reader.tensors.budget.spend(after.size)
    if value.size == 1:
        return value.then(Spread(after.size), where=where, axes=axes)
    lengths = [1 if place == after.batch else size or 0 for place, size in enumerate(axes)]
    return value.then(Select(np.broadcast_to(numbered(value), lengths).ravel(), where), axes=axes)


def of_rank(value: Value, count: int) -> Value:
    """Return a tensor with so many axes, of which new ones are in front."""
    new = count - len(value.axes)
    batch = None if value.batch is None else value.batch + new
    return value._replace(axes=(1,) * new + value.axes, batch=batch)


def numbered(value: Value) -> NDArray[np.intp]:
    """Return the places of a sample's entries in the shape of the tensor, with one sample in its batch."""
    lengths = [1 if place == value.batch else size or 0 for place, size in enumerate(value.axes)]
    return np.arange(value.size or 0).reshape(lengths)


def _shapes(values: Sequence[Value]) -> str:
    return " and ".join(value.shape for value in values)


def aligned(reader: Reader, values: Sequence[Value], where: str) -> tuple[list[Base], Axes, int | None]:
    """Return tensors that meet entry by entry, with the axes and the batch of the result."""
    count = max(len(value.axes) for value in values)
    padded = [of_rank(value, count) for value in values]
    batches = {value.batch for value in padded} - {None}
    batch = batches.pop() if batches else None
    if batches:
        raise ValueError(f"it takes {_shapes(values)}, whose samples are along different axes")
    axes: list[int | None] = []
    for place in range(count):
        sizes = {value.axes[place] for value in padded} - {1}
        if place == batch:
            if any(value.batch is None and value.axes[place] != 1 for value in padded):
                raise ValueError(f"it takes {_shapes(values)}, of which one differs from sample to sample")
            axes.append(next(value.axes[place] for value in padded if value.batch is not None))
        elif len(sizes - {None}) > 1:
            raise ValueError(f"it takes {_shapes(values)}, which do not fit each other")
        else:
            # A size that the file does not give is that of the other.
            axes.append(max(sizes, key=lambda size: -1 if size is None else size, default=1))
    result = tuple(axes)
    bases = []
    for value in padded:
        # Of the axis of samples, and of sizes that the file does not give, the result says more.
        known = tuple(
            size if place == batch or value.axes[place] is None else value.axes[place]
            for place, size in enumerate(result)
        )
        bases.append(widened(reader, value._replace(axes=known, batch=batch), result, where).base)
    reader.tensors.budget.spend(Value(bases[0], result, batch).size or 0)
    return bases, result, batch
