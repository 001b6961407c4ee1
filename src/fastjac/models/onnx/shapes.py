"""ONNX operators that give a sample's entries other axes, in the same order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fastjac.models.onnx.constants import given_axes
from fastjac.models.onnx.reader import Reader
from fastjac.models.onnx.values import BATCH, Node, Value


def flatten(reader: Reader, node: Node, value: Value) -> Value:
    """Follow a Flatten that leaves the samples apart."""
    axis = node.attributes.get("axis", 1)
    rows, columns = value.axes[:axis], value.axes[axis:]
    if value.batch is None:
        return value._replace(axes=(_length(rows), _length(columns)))
    if value.batch >= len(rows) or any(size != 1 for place, size in enumerate(rows) if place != value.batch):
        raise ValueError(f"it flattens {value.shape} from axis {axis} on, which joins samples")
    return value._replace(axes=(rows[value.batch], _length(columns)), batch=0)


def _length(sizes: Sequence[int | None]) -> int | None:
    return None if None in sizes else math.prod(size or 0 for size in sizes)


def reshape(reader: Reader, node: Node, value: Value) -> Value:
    """Follow a Reshape that leaves each sample's entries in their order."""
    target = reader.constant(node.inputs[1]).tolist()
    sizes: list[Any] = list(target)
    for place, size in enumerate(sizes):
        if size == 0 and not node.attributes.get("allowzero", 0):
            sizes[place] = BATCH if place == value.batch else value.axes[place]
    batch = None
    if value.batch is not None:
        batch = next((place for place, size in enumerate(sizes) if size != 1), 0)
        is_kept = sizes[batch] in (BATCH, -1) or sizes[batch] == value.axes[value.batch]
        if not is_kept or any(size != 1 for size in value.axes[: value.batch]):
            raise ValueError(f"it makes {target} of {value.shape}, expected the batch to stay")
        sizes[batch] = value.axes[value.batch]
    rest = [size for place, size in enumerate(sizes) if place != batch]
    known = math.prod(size for size in rest if size not in (-1, None))
    if value.size is not None and -1 in rest and known:
        sizes = [value.size // known if size == -1 else size for size in sizes]
        rest[rest.index(-1)] = value.size // known
    after = value._replace(axes=tuple(None if size == -1 else size for size in sizes), batch=batch)
    if value.size is not None and (-1 in rest or after.size != value.size):
        raise ValueError(f"it makes {target} of {value.shape}")
    return after


def moved(value: Value, places: Sequence[int | None]) -> Value:
    """Return a tensor whose axes are others of before, or new ones, in the same order for each sample."""
    order = [
        place for place in places if place is not None and place != value.batch and value.axes[place] != 1
    ]
    lost = [size for place, size in enumerate(value.axes) if place not in places and size != 1]
    if order != sorted(order) or lost or (value.batch is not None and value.batch not in places):
        raise ValueError(f"it moves or drops axes of {value.shape}, of which fastjac lets only those of 1 go")
    axes = tuple(1 if place is None else value.axes[place] for place in places)
    return value._replace(axes=axes, batch=None if value.batch is None else list(places).index(value.batch))


def squeeze(reader: Reader, node: Node, value: Value) -> Value:
    """Follow the loss of axes of 1."""
    axes = _given_axes(reader, node)
    count = len(value.axes)
    gone = [place for place in range(count) if place != value.batch and value.axes[place] == 1]
    if axes is not None:
        gone = [axis + count if axis < 0 else axis for axis in axes]
    return moved(value, [place for place in range(count) if place not in gone])


def unsqueeze(reader: Reader, node: Node, value: Value) -> Value:
    """Follow new axes of 1."""
    axes = _given_axes(reader, node) or ()
    count = len(value.axes) + len(axes)
    new = {axis + count if axis < 0 else axis for axis in axes}
    if len(new) != len(axes) or not new <= {*range(count)}:
        raise ValueError(f"it adds the axes {list(axes)} to {value.shape}")
    old = iter(range(len(value.axes)))
    return moved(value, [None if place in new else next(old) for place in range(count)])


def _given_axes(reader: Reader, node: Node) -> tuple[int, ...] | None:
    return given_axes(reader.constant(node.inputs[1]) if len(node.inputs) > 1 else None, node.attributes)
