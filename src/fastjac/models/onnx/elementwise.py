"""Elementwise ONNX nodes: terms of a base where they can be, steps and joins where they cannot."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.layers import Activation
from fastjac.models.onnx.joins import added, multiplied, powered
from fastjac.models.onnx.patterns import FUNCTIONS, X, activation_steps, combine, has_factors, is_softplus
from fastjac.models.onnx.reader import Reader
from fastjac.models.onnx.tensors import FLOATS
from fastjac.models.onnx.values import Node, Value
from fastjac.models.onnx.widths import aligned, spread
from fastjac.models.steps import scale

_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Sum")
TERMWISE = (*FUNCTIONS, *_ARITHMETIC, "Neg", "Pow", "Identity", "Cast", "Greater", "Where")


def settled(reader: Reader, name: str) -> Value:
    """Return a tensor whose terms have become steps; all later users get the same one."""
    waiting = [name]
    while waiting:
        name = waiting[-1]
        value = reader.values[name]
        if value.terms != X:
            node = reader.makers[name]
            try:
                steps = activation_steps(value.terms, node.where)
                value = value._replace(terms=X).then(*steps, where=node.where)
            except ValueError as error:
                # As one they are no activation: follow the node itself, after those before it.
                before = [other for other in node.inputs if other in reader.values]
                before = [other for other in before if reader.values[other].terms != X]
                if before:
                    waiting += before
                    continue
                try:
                    value = _followed(reader, node, str(error))
                except ValueError as another:
                    raise ValueError(f"{node.where}: {another}") from None
            reader.values[name] = value
        waiting.pop()
    return value


def termwise(reader: Reader, node: Node, data: list[str]) -> Value:
    """Return the output of an elementwise node: terms if its constants are single numbers, else a scale."""
    arrays = {name: reader.constant(name) for name in node.inputs if name not in reader.values}
    values = [reader.values[name] for name in data]
    if node.op == "Cast" and node.attributes.get("to") not in FLOATS:
        raise ValueError("it casts to something else than floats")
    plain = all(array.size == 1 and array.ndim <= len(values[0].axes) for array in arrays.values())
    if not plain and (len(data) > 1 or node.op not in _ARITHMETIC):
        shapes = " and ".join(f"{name!r} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"it takes {shapes}, expected single numbers")
    spelled = node.op == "Tanh" and is_softplus(values[0].terms)
    if node.op in FUNCTIONS and has_factors(values[0].terms) and not spelled:
        values = [settled(reader, data[0])]
    first, problem = values[0], ""
    if plain and all(value.base is first.base and value[1:3] == first[1:3] for value in values):
        inputs = [
            reader.values[name].terms if name in reader.values else float(arrays[name].item())
            for name in node.inputs
        ]
        try:
            if node.op == "HardSigmoid":
                slope, shift = _of_hard_sigmoid(node)
                inputs = [combine("Add", [combine("Mul", [inputs[0], slope]), shift])]
            return first._replace(terms=combine(node.op, inputs))
        except ValueError as error:
            problem = str(error)
    for name in data:
        settled(reader, name)
    return _followed(reader, node, problem)


def _followed(reader: Reader, node: Node, problem: str) -> Value:
    """Return the output of an elementwise node whose inputs are settled; raise ``problem`` if it has none."""
    operands: list[Value | NDArray[Any]] = [
        reader.values[name] if name in reader.values else reader.constant(name) for name in node.inputs
    ]
    first, where = operands[0], node.where
    if len(operands) == 1 and isinstance(first, Value):
        if node.op == "Neg":
            return first.then(scale(-1.0, 0.0, where))
        if node.op in ("Identity", "Cast", "Sum"):
            return first
        if node.op == "HardSigmoid":
            first = first.then(scale(*_of_hard_sigmoid(node), where))
        if FUNCTIONS.get(node.op):
            return first.then(Activation(FUNCTIONS[node.op]), where=where)
    if node.op == "Pow" and isinstance(first, Value) and isinstance(operands[1], np.ndarray):
        return first._replace(base=powered(first.base, float(operands[1].item()), where))
    if node.op == "Sum" or (node.op in _ARITHMETIC and len(operands) == 2):
        result = first
        for place, other in enumerate(operands[1:], 1):
            result = _pair(reader, node, result, other, place)
        assert isinstance(result, Value)
        return result
    raise ValueError(problem or f"it has {len(operands)} inputs, expected those of an elementwise operator")


def _of_hard_sigmoid(node: Node) -> tuple[float, float]:
    """Return slope and shift before a function of what goes from -3 to 3."""
    slope, shift = (node.attributes.get(name, default) for name, default in (("alpha", 0.2), ("beta", 0.5)))
    # 6 times a sixth in float32 is not 1.
    return (1.0 if math.isclose(6 * slope, 1, rel_tol=1e-6) else 6 * slope), 6 * shift - 3


def _pair(
    reader: Reader, node: Node, one: Value | NDArray[Any], two: Value | NDArray[Any], place: int
) -> Value | NDArray[Any]:
    """Return the sum, difference, product or quotient of two tensors, of which ``place`` is the second's."""
    where, op = node.where, node.op
    if isinstance(one, Value) and isinstance(two, Value):
        if op == "Sub":
            two = two.then(scale(-1.0, 0.0, where))
        elif op == "Div":
            two = two._replace(base=powered(two.base, -1.0, where))
        (a, b), axes, batch = aligned(reader, [one, two], where)
        join = multiplied if op in ("Mul", "Div") else added
        return Value(join(a, b, where), axes, batch)
    if isinstance(one, Value):
        return _scaled(reader, node, one, np.asarray(two), node.inputs[place], True)
    if isinstance(two, Value):
        return _scaled(reader, node, two, one, node.inputs[0], False)
    return np.asarray(np.add(one, two))  # Only of a Sum, whose constants come first.


def _scaled(
    reader: Reader, node: Node, value: Value, array: NDArray[Any], name: str, is_second: bool
) -> Value:
    """Return the sum, difference, product or quotient of a tensor and a constant."""
    if reader.opset < 7 and "axis" in node.attributes:
        # Then a constant's axes began at this one.
        array = array.reshape(array.shape + (1,) * (len(value.axes) - node.attributes["axis"] - array.ndim))
    if node.op == "Div" and not is_second:
        value = value._replace(base=powered(value.base, -1.0, node.where))
    constants, value = spread(reader, value, array, repr(name))
    if node.op in ("Mul", "Div"):
        factor = 1 / constants if node.op == "Div" and is_second else constants
        return value.then(scale(factor, 0.0, node.where))
    minus = -1.0 if node.op == "Sub" else 1.0
    gain, shift = (1.0, minus * constants) if is_second else (minus, constants)
    return value.then(scale(gain, shift, node.where))
