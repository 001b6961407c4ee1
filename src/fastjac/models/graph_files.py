"""Graphs as arrays and a description, as `files` saves and loads them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac import graph
from fastjac.graph.plan import GraphPlan
from fastjac.graph.values import (
    Add,
    Apply,
    Concatenate,
    Input,
    Multiply,
    Normalise,
    Scale,
    Select,
    Value,
    ordered,
)
from fastjac.layers import Activation, as_activation
from fastjac.models.containers import Arrays
from fastjac.models.limits import Budget

MOST_VALUES = 10_000
_PLAIN: dict[str, type[Add | Multiply | Concatenate]] = {
    "add": Add,
    "multiply": Multiply,
    "concatenate": Concatenate,
}
# Operation -> what its entry has beside its inputs.
_KEYS: dict[str, set[str]] = {
    "input": {"size"},
    "affine": {"w", "b"},
    "apply": {"activation"},
    "scale": {"factor", "shift"},
    "select": {"places"},
    "normalise": {"epsilon", "centred"},
    **{kind: set() for kind in _PLAIN},
}


def describe(value: Value) -> tuple[Arrays, list[dict[str, Any]]]:
    """Return the arrays of a graph, each once, and an entry for each of its values."""
    values = ordered(value)
    number = {id(each): i for i, each in enumerate(values)}
    arrays: Arrays = {}
    names: dict[int, str] = {}

    def name(array: NDArray[Any], letter: str, i: int) -> str:
        if id(array) not in names:
            names[id(array)] = f"{letter}{i}"
            arrays[f"{letter}{i}"] = array
        return names[id(array)]

    rows = []
    for i, each in enumerate(values):
        operation = each.operation
        row: dict[str, Any] = {
            "operation": type(operation).__name__.lower(),
            "inputs": [number[id(before)] for before in each.inputs],
        }
        if isinstance(operation, Input):
            row["size"] = each.size
        elif isinstance(operation, Apply):
            activation, parameter = operation.activation, operation.activation.parameter
            row["activation"] = str(activation)
            if isinstance(parameter, tuple):
                row["activation"], row["parameter"] = activation.name, f"parameter{i}"
                arrays[f"parameter{i}"] = np.array(parameter)
        elif isinstance(operation, Select):
            row["places"] = operation.places.tolist()
        elif isinstance(operation, Normalise):
            row |= operation._asdict()
        else:
            row |= {key: name(array, key, i) for key, array in operation._asdict().items()}
        rows.append(row)
    return arrays, rows


def rebuild(arrays: Arrays, description: dict[str, Any], budget: Budget) -> Value:
    """Return the value that `describe` described, from a description with ``dtype`` and ``values``.

    Raises
    ------
    ValueError, TypeError
        If it did not, or the file is too small for what it asks for.
    """
    rows, dtype = description["values"], description["dtype"]
    if dtype not in ("float32", "float64"):
        raise ValueError(f"its dtype is {dtype!r}, expected float32 or float64")
    for name, array in arrays.items():
        wanted = "float64" if name.startswith("parameter") else dtype
        if array.dtype != wanted:
            raise ValueError(f"its array {name} has dtype {array.dtype}, expected {wanted}")
    if not isinstance(rows, list) or not 1 <= len(rows) <= MOST_VALUES:
        raise ValueError(f"its values are not a list of 1 to {MOST_VALUES:,} entries")
    unread = set(arrays)
    values: list[Value] = []
    for i, row in enumerate(rows):
        try:
            values.append(_value(row, values, arrays, unread, budget))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"its value {i}: {error}") from error
    if unread:
        raise ValueError(f"no value has its arrays {', '.join(sorted(unread))}")
    budget.check_derivatives(GraphPlan(values[-1]).derivatives)
    return values[-1]


def _value(row: Any, values: list[Value], arrays: Arrays, unread: set[str], budget: Budget) -> Value:
    kind = row.get("operation") if isinstance(row, dict) else None
    if not isinstance(kind, str) or kind not in _KEYS:
        raise ValueError(f"its operation is {kind!r}, expected one of {', '.join(_KEYS)}")
    keys = row.keys() - {"operation", "inputs"}
    if keys - {"parameter"} != _KEYS[kind] or ("parameter" in keys and kind != "apply"):
        raise ValueError(f"{kind} has {', '.join(sorted(keys))}, expected {', '.join(sorted(_KEYS[kind]))}")
    inputs = [values[number] for number in _integers(row["inputs"], "inputs", len(values))]

    def array(key: str) -> NDArray[Any]:
        name = row[key]
        if not isinstance(name, str) or name not in arrays:
            raise ValueError(f"its {key} is {name!r}, which is no array of the file")
        unread.discard(name)
        return arrays[name]

    if kind == "input":
        if inputs:
            raise ValueError("input has inputs")
        (size,) = _integers([row["size"]], "size", None)
        budget.spend(size)
        return graph.input(size)
    if not inputs or (len(inputs) != 1 and kind not in _PLAIN):
        raise ValueError(f"{kind} has {len(inputs)} inputs")
    (x, *others), size = inputs, inputs[0].size
    budget.spend(sum(each.size for each in inputs))
    if kind == "concatenate":
        return graph.concatenate(inputs)
    if kind in _PLAIN:
        if len(others) != 1 or others[0].size != size:
            raise ValueError(f"{kind} has inputs of sizes {', '.join(str(each.size) for each in inputs)}")
        return Value(_PLAIN[kind](), inputs, size)
    if kind == "affine":
        w = array("w")
        if w.ndim == 2:
            budget.spend_on_layer(*w.shape)
        return graph.affine(x, w, array("b"))
    if kind == "apply":
        return graph.apply(
            x, _activation(row["activation"], array("parameter") if "parameter" in row else None)
        )
    if kind == "scale":
        factor, shift = array("factor"), array("shift")
        if factor.shape != (size,) or shift.shape != (size,):
            raise ValueError(f"scale has arrays of shapes {factor.shape} and {shift.shape}")
        return Value(Scale(factor, shift), (x,), size)
    if kind == "select":
        places = _integers(row["places"], "places", size)
        budget.spend(len(places))
        return graph.select(x, places)
    epsilon, centred = row["epsilon"], row["centred"]
    if not isinstance(epsilon, float) or not 0 <= epsilon < np.inf or not isinstance(centred, bool):
        raise ValueError(f"normalise has epsilon {epsilon!r} and centred {centred!r}")
    return Value(Normalise(epsilon, centred), (x,), size)


def _activation(text: Any, parameter: NDArray[Any] | None) -> Activation:
    if not isinstance(text, str):
        raise ValueError(f"its activation is {text!r}, expected a string")
    if parameter is None:
        return as_activation(text)
    if parameter.ndim != 1:
        raise ValueError(f"its parameter has shape {parameter.shape}, expected (n,)")
    return as_activation(Activation(text, tuple(parameter.tolist())))


def _integers(numbers: Any, what: str, below: int | None) -> list[int]:
    """Return a list of integers from 0 on, and below a limit."""
    fit = isinstance(numbers, list) and all(type(number) is int and number >= 0 for number in numbers)
    if not fit or (below is not None and any(number >= below for number in numbers)):
        raise ValueError(f"its {what} are not integers from 0 to {'any' if below is None else below - 1}")
    return list(numbers)
