"""Constants that an ONNX file computes from others, with NumPy, after their sizes are checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastjac.models.limits import Budget
from fastjac.models.onnx.proto import Node
from fastjac.models.onnx.tensors import NUMBERS

Array = NDArray[Any]
_Operator: TypeAlias = "Callable[[Node, list[Array], Budget], Array | None]"
# So many multiply-adds cost as much as a number that is kept.
_CHEAP = 100


def given(attributes: Mapping[str, Any]) -> Any:
    """Return the value of a Constant node."""
    for name, value in attributes.items():
        if name in ("value_float", "value_floats", "value_int", "value_ints"):
            return np.asarray(value, np.float32 if "float" in name else np.int64)
    if "value" not in attributes:
        raise ValueError("it has no tensor and no number")
    return attributes["value"]


def computed(node: Node, inputs: list[Array], budget: Budget) -> Array | None:
    """Return the output of a node whose inputs are constants, None if fastjac does not compute it."""
    op, first = node.op, inputs[0]
    if op in _ELEMENTWISE:
        budget.spend(math.prod(np.broadcast_shapes(*(array.shape for array in inputs))))
        return np.asarray(_ELEMENTWISE[op](*inputs))
    if op in _REDUCTIONS:
        axes = reduced_axes(inputs[1] if len(inputs) > 1 else None, node.attributes, first.ndim)
        if axes is None:
            return first
        budget.spend(first.size)
        keep = bool(node.attributes.get("keepdims", 1))
        return np.asarray(_REDUCTIONS[op](first, axis=axes, keepdims=keep))
    return _OPERATORS[op](node, inputs, budget) if op in _OPERATORS else None


def _divided(a: Array, b: Array) -> Any:
    """Return a quotient; that of whole numbers loses what is behind the point, also where it is negative."""
    if a.dtype.kind == "f":
        return np.divide(a, b)
    return np.floor_divide(a, b) + ((a % b != 0) & ((a < 0) != (b < 0)))


def _cast(node: Node, inputs: list[Array], budget: Budget) -> Array | None:
    budget.spend(inputs[0].size)
    kind = node.attributes.get("to")
    if kind not in NUMBERS or kind == 16:
        return None
    from onnx import helper

    return inputs[0].astype(helper.tensor_dtype_to_np_dtype(kind))


def _concat(node: Node, inputs: list[Array], budget: Budget) -> Array:
    budget.spend(sum(array.size for array in inputs))
    return np.concatenate(inputs, node.attributes["axis"])


def _gather(node: Node, inputs: list[Array], budget: Budget) -> Array:
    first, places = inputs[0], inputs[1].astype(np.int64)
    axis = node.attributes.get("axis", 0)
    budget.spend(places.size * first.size // max(first.shape[axis], 1))
    return np.asarray(np.take(first, places, axis))


def _split(node: Node, inputs: list[Array], budget: Budget) -> Array:
    axis = node.attributes.get("axis", 0)
    sizes = inputs[1] if len(inputs) > 1 else None
    return np.take(inputs[0], _split_places(sizes, node, inputs[0].shape[axis], budget), axis)


def _reshape(node: Node, inputs: list[Array], budget: Budget) -> Array:
    first, sizes = inputs[0], inputs[1].tolist()
    if not node.attributes.get("allowzero", 0):
        sizes = [first.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return np.reshape(first, sizes)


def _flatten(node: Node, inputs: list[Array], budget: Budget) -> Array:
    rows = math.prod(inputs[0].shape[: node.attributes.get("axis", 1)])
    return inputs[0].reshape(rows, -1)


def _squeeze(node: Node, inputs: list[Array], budget: Budget) -> Array:
    axes = _given_axes(inputs[1] if len(inputs) > 1 else None, node.attributes)
    first = inputs[0]
    return np.squeeze(first, axes) if node.op == "Squeeze" else np.expand_dims(first, axes or ())


def _matmul(node: Node, inputs: list[Array], budget: Budget) -> Array | None:
    a, b = inputs
    if a.dtype.kind != "f" or not (a.ndim and b.ndim):
        return None
    columns = b.size // max(b.shape[max(b.ndim - 2, 0)], 1)
    budget.spend(a.size * columns // _CHEAP + a.size // max(a.shape[-1], 1) * columns)
    wide = np.float64 if a.dtype == np.float64 else np.float32
    return np.asarray(a.astype(wide) @ b.astype(wide)).astype(a.dtype)


def _expand(node: Node, inputs: list[Array], budget: Budget) -> Array:
    shape = np.broadcast_shapes(inputs[0].shape, _sizes(inputs[1]))
    budget.spend(math.prod(shape))
    return np.broadcast_to(inputs[0], shape)


def _tile(node: Node, inputs: list[Array], budget: Budget) -> Array:
    repeats = _sizes(inputs[1])
    budget.spend(inputs[0].size * math.prod(repeats))
    return np.tile(inputs[0], repeats)


def _constant_of_shape(node: Node, inputs: list[Array], budget: Budget) -> Array:
    shape = _sizes(inputs[0])
    budget.spend(math.prod(shape))
    filling = inputs[1] if len(inputs) > 1 else np.zeros(1, np.float32)
    return np.full(shape, filling.item(), filling.dtype)


def _range(node: Node, inputs: list[Array], budget: Budget) -> Array:
    start, limit, delta = (array.item() for array in inputs)
    budget.spend(max(math.ceil((limit - start) / delta), 0))
    return np.asarray(np.arange(start, limit, delta), inputs[0].dtype)


def _sizes(array: Array) -> tuple[int, ...]:
    sizes = tuple(array.astype(np.int64).tolist())
    if min(sizes, default=0) < 0:
        raise ValueError(f"its shape is {sizes}")
    return sizes


def _given_axes(array: Array | None, attributes: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the axes that a node has as an input, from opset 13 on, or as an attribute."""
    axes = attributes.get("axes") if array is None else array
    return None if axes is None else tuple(np.ravel(axes).tolist())


def reduced_axes(array: Array | None, attributes: Mapping[str, Any], count: int) -> tuple[int, ...] | None:
    """Return along which of so many axes a node reduces, all if it names none; None if it reduces nothing."""
    axes = _given_axes(array, attributes)
    if not axes and attributes.get("noop_with_empty_axes", 0):
        return None
    return axes or tuple(range(count))


def _slices(inputs: list[Array], attributes: Mapping[str, Any], count: int) -> tuple[slice, ...]:
    """Return the slices of so many axes; from opset 10 on, inputs tell where they start and end."""
    parts = [part.tolist() for part in inputs] or [attributes["starts"], attributes["ends"]]
    starts, ends = parts[:2]
    axes = parts[2] if len(parts) > 2 else attributes.get("axes", range(len(starts)))
    steps = parts[3] if len(parts) > 3 else [1] * len(starts)
    found = [slice(None)] * count
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        found[axis] = slice(start, end, step)
    return tuple(found)


def _split_places(sizes: Any, node: Node, length: int, budget: Budget) -> NDArray[np.int64]:
    """Return the places of one part of a Split.

    The lengths of all parts are an input from opset 13 on, an attribute, or equal.
    """
    sizes = node.attributes.get("split") if sizes is None else sizes
    if sizes is None:
        budget.spend(node.outputs)
        step = -(-length // node.outputs)
        sizes = np.clip(length - step * np.arange(node.outputs), 0, step)
    budget.spend(len(sizes))
    lengths = np.asarray(sizes, np.int64)
    count = node.attributes.get("num_outputs", node.outputs)
    if lengths.min() < 1 or lengths.sum() != length or not lengths.size == count == node.outputs:
        raise ValueError(f"it splits {length} entries into {node.outputs} parts of {lengths[:20].tolist()}")
    end = lengths[: node.place + 1].sum()
    return np.arange(end - lengths[node.place], end)


_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "Identity": np.asarray,
    "Neg": np.negative,
    "Abs": np.abs,
    "Sqrt": np.sqrt,
    "Reciprocal": np.reciprocal,
    "Exp": np.exp,
    "Log": np.log,
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _divided,
    "Pow": lambda a, b: np.power(a, b).astype(a.dtype),
    "Equal": np.equal,
    "Where": np.where,
}
_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceSum": np.sum,
    "ReduceMean": np.mean,
    "ReduceProd": np.prod,
    "ReduceL2": lambda array, **how: np.sqrt(np.sum(array * array, **how)),
}
# Operators that only move the entries of their first input.
MOVES: dict[str, Callable[[Node, list[Array], Budget], Array]] = {
    "Gather": _gather,
    "Slice": lambda node, inputs, budget: inputs[0][_slices(inputs[1:], node.attributes, inputs[0].ndim)],
    "Split": _split,
    "Transpose": lambda node, inputs, budget: np.transpose(inputs[0], node.attributes.get("perm")),
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _squeeze,
    "Expand": _expand,
    "Tile": _tile,
}
_OPERATORS: dict[str, _Operator] = {
    **MOVES,
    "Cast": _cast,
    "Concat": _concat,
    "MatMul": _matmul,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
}
