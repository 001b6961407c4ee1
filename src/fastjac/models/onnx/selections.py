"""ONNX operators that select, repeat, reorder and join a sample's entries."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from fastjac.models.onnx.constants import slices, split_places
from fastjac.models.onnx.elementwise import settled
from fastjac.models.onnx.patterns import COMPLEMENT, X
from fastjac.models.onnx.reader import Reader
from fastjac.models.onnx.shapes import moved
from fastjac.models.onnx.values import BATCH, Base, Node, Spread, Value
from fastjac.models.onnx.widths import numbered, of_rank, widened
from fastjac.models.steps import Scale, Select, Step, both_columns, scale


def _numbered(reader: Reader, value: Value) -> NDArray[np.intp]:
    """Return the places of a sample's entries in the shape of the tensor, after their number is checked."""
    if value.size is None:
        raise ValueError(f"its input has shape {value.shape}, expected known sizes")
    reader.tensors.budget.spend(value.size)
    return numbered(value)


def _selected(reader: Reader, node: Node, value: Value, places: NDArray[np.intp], batch: int | None) -> Value:
    """Return the entries at ``places``, whose shape is that of the result with one sample in its batch."""
    if places.size == 0:
        raise ValueError(f"it selects nothing of {value.shape}")
    reader.tensors.budget.spend(places.size)
    axes: list[int | None] = list(places.shape)
    if batch is not None and value.batch is not None:
        axes[batch] = value.axes[value.batch]
    flat = places.ravel()
    if np.array_equal(flat, np.arange(value.size or 0)):
        return value._replace(axes=tuple(axes), batch=batch)
    return value.then(Select(flat, node.where), axes=tuple(axes))._replace(batch=batch)


def axis_of(value: Value, axis: int) -> int:
    """Return an axis of a sample as a number from the front."""
    count = len(value.axes)
    place = axis + count if axis < 0 else axis
    if not 0 <= place < count or place == value.batch:
        raise ValueError(f"it works along axis {axis} of {value.shape}, expected an axis of one sample")
    return place


def split(reader: Reader, node: Node, value: Value) -> Value:
    """Follow a Split to one of its outputs."""
    axis = axis_of(value, node.attributes.get("axis", 0))
    places = _numbered(reader, value)
    sizes = reader.constant(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else None
    part = split_places(sizes, node, places.shape[axis], reader.tensors.budget)
    return _selected(reader, node, value, np.take(places, part, axis), value.batch)


def slice_(reader: Reader, node: Node, value: Value) -> Value:
    """Follow a Slice along axes of one sample."""
    inputs = [reader.constant(name) for name in node.inputs[1:] if name]
    parts = slices(inputs, node.attributes, len(value.axes))
    batch = slice(0, 1)
    if value.batch is not None:
        batch = parts[value.batch]
        is_whole = batch.start in (None, 0) and (batch.stop is None or batch.stop >= sys.maxsize >> 32)
        if not is_whole or batch.step not in (None, 1):
            raise ValueError(f"it works along axis {value.batch} of {value.shape}, which counts samples")
    return _selected(reader, node, value, _numbered(reader, value)[parts], value.batch)


def gather(reader: Reader, node: Node, value: Value) -> Value:
    """Follow a Gather of constant places along an axis of one sample."""
    places = reader.constant(node.inputs[1]).astype(np.int64)
    axis, batch = axis_of(value, node.attributes.get("axis", 0)), value.batch
    before = _numbered(reader, value)
    reader.tensors.budget.spend(places.size * before.size // max(before.shape[axis], 1))
    if batch is not None and batch > axis:
        batch += places.ndim - 1
    return _selected(reader, node, value, np.take(before, places, axis), batch)


def transpose(reader: Reader, node: Node, value: Value) -> Value:
    """Follow a Transpose, also one that reorders the entries of each sample."""
    order = list(node.attributes.get("perm", range(len(value.axes))[::-1]))
    kept = [place for place in order if place != value.batch and value.axes[place] != 1]
    if kept == sorted(kept):
        return moved(value, order)
    batch = None if value.batch is None else order.index(value.batch)
    return _selected(reader, node, value, _numbered(reader, value).transpose(order), batch)


def expand(reader: Reader, node: Node, value: Value) -> Value:
    """Follow an Expand, which repeats along axes of 1."""
    target = reader.constant(node.inputs[1]).tolist()
    count = max(len(target), len(value.axes))
    target = [1] * (count - len(target)) + target
    value = of_rank(value, count)
    axes = list(value.axes)
    for place, (size, wanted) in enumerate(zip(value.axes, target, strict=True)):
        if place == value.batch:
            if wanted is not BATCH and wanted not in (1, size):
                raise ValueError(f"it makes {target} of {value.shape}, expected the batch to stay")
        elif size == 1 and isinstance(wanted, int) and wanted > 0:
            axes[place] = wanted
        elif wanted not in (1, size):
            raise ValueError(f"it makes {target} of {value.shape}")
    return widened(reader, value, tuple(axes), node.where)


def concat(reader: Reader, node: Node, data: list[str]) -> Value:
    """Follow a Concat of tensors, and of constants where the file fixes one sample."""
    classes = _both_columns(reader, node, data)
    if classes is not None:
        return classes
    some = settled(reader, data[0])
    parts = [
        settled(reader, name) if name in reader.values else _constant(reader, node, name, some)
        for name in node.inputs
    ]
    axis = axis_of(some, node.attributes.get("axis", 1))
    shapes = " and ".join(part.shape for part in parts)
    others = {(part.batch, _without(part.axes, axis, part.batch)) for part in parts}
    if len(others) > 1:
        raise ValueError(f"it joins {shapes} along axis {axis}, which do not fit each other")
    if len(parts) == 1:
        return some
    start, numbers = 0, []
    for part in parts:
        numbers.append(_numbered(reader, part) + start)
        start += part.size or 0
    joined = Base(tuple(part.base for part in parts), "concatenate", node.where)
    places = np.concatenate(numbers, axis)
    return _selected(reader, node, Value(joined, (*some.axes[:-1], start), some.batch), places, some.batch)


def _without(axes: tuple[int | None, ...], axis: int, batch: int | None) -> tuple[int | None, ...]:
    return tuple(size for place, size in enumerate(axes) if place not in (axis, batch))


def _constant(reader: Reader, node: Node, name: str, beside: Value) -> Value:
    """Return a constant as a tensor that is the same for all inputs."""
    array, batch = reader.constant(name), beside.batch
    if array.ndim != len(beside.axes) or not array.size or (batch is not None and array.shape[batch] != 1):
        raise ValueError(f"it joins {name!r} of shape {array.shape} to {beside.shape}")
    reader.tensors.budget.spend(array.size)
    first = beside.base.ordered()[0].then(Select(np.zeros(1, np.intp), node.where))
    base = first.then(Spread(array.size)).then(scale(np.zeros(array.size), array, node.where))
    return Value(base, array.shape, batch)


def _both_columns(reader: Reader, node: Node, data: list[str]) -> Value | None:
    """Return 1 - p and p, the two columns of a classifier whose last unit is a sigmoid."""
    values = [reader.values[name] for name in data]
    if len(node.inputs) != 2 or [value.terms for value in values] != [COMPLEMENT, X]:
        return None
    value = values[1]
    if values[0].base is not value.base:
        return None
    steps: list[Step] = []
    base = value.base
    while isinstance(base.step, Step):
        steps.insert(0, base.step)
        (base,) = base.before
        if len(steps) > 1 and not isinstance(steps[0], Scale):
            break
    try:
        after = both_columns(steps, node.where)
    except ValueError:
        return None
    axis = axis_of(value, node.attributes.get("axis", 0))
    if any(size != 1 for size in _without(value.axes, axis, value.batch)):
        return None
    axes = list(value.axes)
    axes[axis] = 2 * (axes[axis] or 0)
    return value._replace(base=base).then(*after, axes=tuple(axes))
