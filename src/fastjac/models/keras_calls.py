"""The calls of layers that a Keras model consists of, in order: a chain, or a graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastjac import graph
from fastjac.models.folding import fold, has_head_last, of_value
from fastjac.models.keras_layers import JOINS, Shape, on_tensors, operation, size_of, steps_of
from fastjac.models.limits import MOST_LAYERS, Budget
from fastjac.models.tensors import Tensor
from fastjac.network import Network


class Argument(NamedTuple):
    """The number of a tensor among the arguments of an operation."""

    number: int


class Call(NamedTuple):
    """A call of a layer, or of an operation with ``arguments``.

    ``kind`` is its class. ``inputs`` are numbers of tensors: first the model's inputs, then what each call
    returns. ``shape`` is that of the first input, batch included.
    """

    layer: Any
    kind: str
    where: str
    inputs: tuple[int, ...]
    shape: Shape = ()
    arguments: tuple[Any, ...] | None = None


def network_of(
    inputs: Mapping[str, Shape],
    calls: Sequence[Call],
    output: int,
    dtype: Any,
    budget: Budget | None = None,
) -> Network:
    """Return the network of a model with named inputs, of which one tensor is the output."""
    if is_chain(inputs, calls, output):
        steps = [step for call in calls for step in steps_of(call.layer, call.shape)]
        if has_head_last(steps):
            (shape,) = inputs.values()
            return fold(steps, dtype, size_of(shape), budget=budget)
    return graph_of(inputs, calls, output, lambda call, shape: call.layer, dtype, budget)


def is_chain(inputs: Mapping[str, Shape], calls: Sequence[Call], output: int) -> bool:
    """Return whether each call takes what the one before returns, and no layer needs a graph."""
    one_path = len(inputs) == 1 and output == len(calls)
    return one_path and all(
        call.inputs == (number,) and call.arguments is None and call.kind not in JOINS
        for number, call in enumerate(calls)
    )


def graph_of(
    inputs: Mapping[str, Shape],
    calls: Sequence[Call],
    output: int,
    layer_of: Callable[[Call, Shape], Any],
    dtype: Any,
    budget: Budget | None = None,
) -> Network:
    """Return the network of calls that are no chain; ``layer_of`` gives the layer of a call."""
    if len(calls) > 10 * MOST_LAYERS:
        raise ValueError(f"it has more than {10 * MOST_LAYERS} layers")
    sizes = []
    for name, shape in inputs.items():
        size = size_of(shape)
        if not size:
            raise ValueError(f"its input {name!r} has shape {shape}, expected known sizes")
        sizes.append(size)
    source = graph.input(sum(sizes))
    ends = np.cumsum(sizes)
    places = np.split(np.arange(source.size), ends[:-1])
    tensors = [
        Tensor(source, each.reshape([1, *(size or 0 for size in shape[1:])]))
        for each, shape in zip(places, inputs.values(), strict=True)
    ]
    for call in calls:
        operands = [tensors[number] for number in call.inputs]
        if budget is not None:
            budget.spend(_most_entries(operands))
        if call.arguments is None:
            layer = layer_of(call, (None, *operands[0].shape[1:]))
            if budget is not None and hasattr(layer, "kernel"):
                budget.spend_on_layer(*layer.kernel.shape)
            tensors.append(on_tensors(layer, operands))
        else:
            arguments = [
                tensors[each.number] if isinstance(each, Argument) else each for each in call.arguments
            ]
            tensors.append(operation(call.kind, call.where, arguments))
    names = None
    if len(inputs) > 1:
        names = [
            name if size == 1 else f"{name}[{place}]"
            for name, size in zip(inputs, sizes, strict=True)
            for place in range(size)
        ]
    return of_value(tensors[output].flat, dtype, input_names=names)


def _most_entries(operands: Sequence[Tensor]) -> int:
    """Return how many entries a layer may make of tensors, broadcast or concatenated."""
    shapes = [operand.shape for operand in operands]
    try:
        together = math.prod(np.broadcast_shapes(*shapes))
    except ValueError:
        together = 0
    return max(together, sum(math.prod(shape) for shape in shapes))
