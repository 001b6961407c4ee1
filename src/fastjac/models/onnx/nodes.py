"""What each ONNX operator adds to the path: steps, and a change of shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.layers import Activation
from fastjac.models.folding import activation_of, affine, as_float64, normalisation, scale
from fastjac.models.onnx.path import Node, Path
from fastjac.models.onnx.tensors import FLOATS
from fastjac.models.onnx.wire import Message


def apply(path: Path, node: Node) -> None:
    """Follow a node whose one input that is not constant is the tensor reached."""
    if node.op not in _OPERATORS:
        raise ValueError(f"fastjac does not compute this; it knows {', '.join(_OPERATORS)}")
    _OPERATORS[node.op](path, node)


def constant(attributes: Message) -> Message | NDArray[Any]:
    """Return the value of a Constant node."""
    for name, value in attributes.items():
        if name in ("value_float", "value_floats", "value_int", "value_ints"):
            return np.asarray(value, np.float32 if "float" in name else np.int64)
    value = attributes.get("value")
    if not isinstance(value, dict):
        raise ValueError("it has no tensor and no number")
    return value


def check_last_axis(path: Path, axis: int | None) -> None:
    """Raise ValueError unless ``axis`` is the last, and the only one besides the batch's."""
    if len(path.shape) != 1 or axis not in (-1, int(path.batched)):
        raise ValueError(f"it works along axis {axis} of {path.full_shape()}, expected the last of two")


def _gemm(path: Path, node: Node) -> None:
    attributes = node.attributes
    if not path.batched or attributes.get("transA", 0) or node.inputs[0] != path.name:
        raise ValueError("its first input must be the samples, not transposed")
    w, b = path.constant(node.inputs[1]), None
    path.is_wide |= w.dtype == np.float64
    w = as_float64(w.T if attributes.get("transB", 0) else w, node.where) * attributes.get("alpha", 1.0)
    if len(node.inputs) > 2 and node.inputs[2]:
        b = as_float64(path.constant(node.inputs[2]), node.where) * attributes.get("beta", 1.0)
    _affine(path, node, w, b)


def _matmul(path: Path, node: Node) -> None:
    if node.inputs[0] != path.name:
        raise ValueError("its first input must be the samples")
    w = path.constant(node.inputs[1])
    path.is_wide |= w.dtype == np.float64
    _affine(path, node, w, None)


def _affine(path: Path, node: Node, w: NDArray[Any], b: NDArray[Any] | None) -> None:
    if len(path.shape) != 1:
        raise ValueError(f"its input has shape {path.full_shape()}, expected one axis besides the batch")
    step = affine(w, b, node.where)
    path.add(step)
    path.shape = (step.b.size,)


def _elementwise(path: Path, node: Node) -> None:
    """Add, Sub, Mul or Div, of which one operand is constant."""
    first, second = node.inputs
    value = path.spread(second if first == path.name else first)
    zero, one = np.zeros(1), np.ones(1)
    if node.op == "Div":
        if first != path.name:
            raise ValueError("it divides by the input")
        path.add(scale(1 / value, zero, node.where))
    elif node.op == "Mul":
        path.add(scale(value, zero, node.where))
    elif node.op == "Add":
        path.add(scale(one, value, node.where))
    elif first == path.name:
        path.add(scale(one, -value, node.where))
    else:
        path.add(scale(-one, value, node.where))


def _batch_normalization(path: Path, node: Node) -> None:
    if node.attributes.get("training_mode", 0) or not node.attributes.get("spatial", 1) or not path.batched:
        raise ValueError("it does not normalise samples with fixed statistics")
    if path.shape == (None,):
        path.shape = (path.constant(node.inputs[1]).size,)
    gamma, beta, mean, variance = (_channels(path, name) for name in node.inputs[1:5])
    path.add(normalisation(mean, variance, node.attributes.get("epsilon", 1e-5), gamma, beta, node.where))


def _channels(path: Path, name: str) -> NDArray[Any]:
    """Return a parameter of the first axis after the batch's for each entry of the flattened input."""
    array, sizes = path.constant(name), path.sizes()
    if array.shape != (sizes[0],):
        raise ValueError(f"{name!r} has shape {array.shape}, expected ({sizes[0]},)")
    return np.repeat(array, math.prod(sizes[1:]))


def _scaler(path: Path, node: Node) -> None:
    offset, factor = (np.asarray(node.attributes[name], np.float64) for name in ("offset", "scale"))
    path.add(scale(factor, -offset * factor, node.where))


def _clip(path: Path, node: Node) -> None:
    limits = [node.attributes.get("min", -math.inf), node.attributes.get("max", math.inf)]
    for place, name in enumerate(node.inputs[1:3]):
        if name:
            limits[place] = path.constant(name).item()
    path.limit(*limits)


def _min_max(path: Path, node: Node) -> None:
    first, second = node.inputs
    value = path.constant(second if first == path.name else first).item()
    path.limit(*((-math.inf, value) if node.op == "Min" else (value, math.inf)))


def _softmax(path: Path, node: Node) -> None:
    check_last_axis(path, node.attributes.get("axis", -1))
    path.add(Activation("softmax" if node.op == "Softmax" else "log_softmax"))


def _gelu(path: Path, node: Node) -> None:
    approximate = bytes(node.attributes.get("approximate", b"none"))
    path.add(Activation("gelu_tanh" if approximate == b"tanh" else "gelu"))


def _flatten(path: Path, node: Node) -> None:
    axis = node.attributes.get("axis", 1)
    if not path.batched or axis not in (1, -len(path.shape)):
        raise ValueError(f"it flattens {path.full_shape()} from axis {axis} on, expected 1")
    path.shape = (path.size(),)


def _reshape(path: Path, node: Node) -> None:
    """Follow a Reshape that leaves the batch and flattens the rest."""
    name = node.inputs[1]
    target = (path.shapes[name] if name in path.shapes else path.constant(name)).tolist()
    size = path.size()
    copies = not node.attributes.get("allowzero", 0)
    *batch, rest = target
    fits = [rest == size, rest == -1 and batch != [-1], rest == 0 and copies and len(path.shape) == 1]
    fits.append(size is None and rest > 0)
    kept = [-1, path.full_shape()[0], path.batch_size or 1, 0 if copies else -1]
    if not any(fits) or len(batch) != path.batched or any(length not in kept for length in batch):
        raise ValueError(f"it makes {target} of {path.full_shape()}, expected only to flatten each sample")
    path.shape = (size if size is not None else rest if rest > 0 else None,)


def _zip_map(path: Path, node: Node) -> None:
    strings = node.attributes.get("classlabels_strings")
    if strings is not None:
        path.output_names = [str(label, "utf-8") for label in strings]
    else:
        path.output_names = [str(label) for label in node.attributes["classlabels_int64s"]]


def _cast(path: Path, node: Node) -> None:
    if node.attributes.get("to") not in FLOATS:
        raise ValueError("it casts to something else than floats")


def _dropout(path: Path, node: Node) -> None:
    if len(node.inputs) > 2 and node.inputs[2] and path.constant(node.inputs[2]).any():
        raise ValueError("it drops units at random: export the model in eval mode")


def _plain(name: str, attribute: str = "", default: float = 0.0) -> Callable[[Path, Node], None]:
    """Return what follows an operator that is one of our activations."""

    def follow(path: Path, node: Node) -> None:
        parameter = float(node.attributes.get(attribute, default))
        path.add(activation_of(name, node.where, parameter))

    return follow


_OPERATORS: dict[str, Callable[[Path, Node], None]] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Add": _elementwise,
    "Sub": _elementwise,
    "Mul": _elementwise,
    "Div": _elementwise,
    "Neg": lambda path, node: path.add(scale(-1.0, 0.0, node.where)),
    "BatchNormalization": _batch_normalization,
    "Scaler": _scaler,
    "Relu": lambda path, node: path.limit(0.0, math.inf),
    "Clip": _clip,
    "Min": _min_max,
    "Max": _min_max,
    "LeakyRelu": _plain("leaky_relu", "alpha", 0.01),
    "Elu": _plain("elu", "alpha", 1.0),
    "Tanh": _plain("tanh"),
    "Sigmoid": _plain("sigmoid"),
    "Softplus": _plain("softplus"),
    "Gelu": _gelu,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Dropout": _dropout,
    "Identity": lambda path, node: None,
    "Cast": _cast,
    "ZipMap": _zip_map,
}
