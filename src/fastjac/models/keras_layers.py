"""The layers of Keras, as steps or on tensors; from Keras itself or from a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from fastjac import graph
from fastjac.graph.values import Value
from fastjac.layers import Activation, as_activation
from fastjac.models.steps import (
    Affine,
    Float64,
    Select,
    Step,
    activation_of,
    affine,
    as_float64,
    clip,
    computes_as,
    normalisation,
    scale,
)
from fastjac.models.tensors import Tensor, activated, concatenated, joined, normalised, tensor

Shape = tuple[int | None, ...]
# What Keras 2 had by this name clips 0.2 x + 0.5 to 0 and 1.
OLD_HARD_SIGMOID = "hard_sigmoid of Keras 2"


class FileLayer(SimpleNamespace):
    """A layer in a file, of the class ``kind``, with the attributes of Keras' layer and arrays as weights."""


def size_of(shape: Shape) -> int | None:
    """Return the number of entries of a sample, None where an axis is unknown."""
    sizes = [size for size in shape[1:] if size is not None]
    return math.prod(sizes) if len(sizes) == len(shape) - 1 else None


def steps_of(layer: Any, shape: Shape) -> list[Step]:
    """Return the steps of a layer of Keras or of a file, of which ``shape`` is the input, batch included."""
    kind = kind_of(layer)
    where = f"{layer.name} ({kind})"
    if kind not in LAYERS:
        known = ", ".join((*LAYERS, *JOINS))
        raise ValueError(f"{where} is not a layer that fastjac reads: {known}")
    return LAYERS[kind](layer, where, shape)


def kind_of(layer: Any) -> str:
    """Return the class of Keras that a layer computes as, or its own."""
    if isinstance(layer, FileLayer):
        return str(layer.kind)
    import keras

    for name in (*LAYERS, *JOINS):
        kind = getattr(keras.layers, name, None)
        if kind is not None and computes_as(layer, kind, "call"):
            return name
    return type(layer).__name__


def _array(variable: Any) -> Float64:
    if isinstance(variable, np.ndarray):
        return as_float64(variable, "a weight")
    import keras

    return as_float64(keras.ops.convert_to_numpy(variable), "a Keras variable")


def _dense(layer: Any, where: str, shape: Shape) -> list[Step]:
    if len(shape) != 2:
        raise ValueError(f"{where} works on the last axis of {shape}: put a Flatten before it")
    if getattr(layer, "quantization_mode", None) is not None:
        raise ValueError(f"{where} is quantized to {layer.quantization_mode}, expected float weights")
    bias = None if layer.bias is None else _array(layer.bias)
    dense = affine(_array(layer.kernel), bias, where)
    return [dense, *_activation(layer.activation, where, (shape[0], dense.b.size))]


def _activation(given: Any, where: str, shape: Shape) -> list[Step]:
    name = given if isinstance(given, str) else "linear"
    if isinstance(given, FileLayer):
        return steps_of(given, shape)
    if isinstance(given, (bool, int, float, list, dict)):  # from a file
        raise ValueError(f"{where} has the activation {given!r}, expected a name")
    if given is not None and not isinstance(given, str):
        import keras

        if isinstance(given, keras.Layer):
            return steps_of(given, shape)
        name = getattr(given, "__name__", repr(given))
        if name in _ACTIVATIONS and given is not getattr(keras.activations, name, None):
            name = repr(given)
    if name == OLD_HARD_SIGMOID:
        return [scale(1.2, 0.0, where), Activation("hard_sigmoid")]
    if name not in _ACTIVATIONS:
        raise ValueError(f"{where} has the activation {name!r}, expected one of {', '.join(_ACTIVATIONS)}")
    if "softmax" in name and len(shape) != 2:
        raise ValueError(f"{where} is a softmax over the last axis of {shape}: put a Flatten before it")
    return [_ACTIVATIONS[name]]


def _batch_norm(layer: Any, where: str, shape: Shape) -> list[Step]:
    mean, variance = _array(layer.moving_mean), _array(layer.moving_variance)
    gamma = np.ones_like(mean) if layer.gamma is None else _array(layer.gamma)
    beta = np.zeros_like(mean) if layer.beta is None else _array(layer.beta)
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    along = [1] * len(shape)
    along[axis] = mean.size
    parts = [_flat(part.reshape(along), where, shape) for part in (mean, variance, gamma, beta)]
    return [normalisation(parts[0], parts[1], layer.epsilon, parts[2], parts[3], where)]


def _normalization(layer: Any, where: str, shape: Shape) -> list[Step]:
    if layer.mean is None:
        raise ValueError(f"{where} has no mean yet: adapt it, or build the model")
    mean = _flat(_array(layer.mean), where, shape)
    deviation = _flat(np.sqrt(_array(layer.variance)), where, shape)
    deviation = np.maximum(deviation, _smallest_deviation(layer))
    if layer.invert:
        return [scale(deviation, mean, where)]
    return [scale(1 / deviation, -mean / deviation, where)]


def _smallest_deviation(layer: Any) -> float:
    if isinstance(layer, FileLayer):
        return 1e-7  # Keras' own default.
    import keras

    return float(keras.config.epsilon())


def _rescaling(layer: Any, where: str, shape: Shape) -> list[Step]:
    factor, shift = (_flat(as_float64(part, where), where, shape) for part in (layer.scale, layer.offset))
    return [scale(factor, shift, where)]


def _flat(array: Float64, where: str, shape: Shape) -> Float64:
    """Return a parameter for each entry of the flattened input of shape ``shape[1:]``."""
    sizes = [size for size in shape[1:] if size is not None]
    if len(sizes) < len(shape) - 1:
        raise ValueError(f"{where} has an input of shape {shape}, expected known sizes")
    return np.broadcast_to(array, (1, *sizes)).ravel()


def _relu(layer: Any, where: str, shape: Shape) -> list[Step]:
    slope, limit = float(layer.negative_slope or 0), layer.max_value
    if layer.threshold or (slope and limit is not None):
        raise ValueError(
            f"{where} has negative_slope {slope}, max_value {limit} and threshold {layer.threshold}, "
            "expected negative_slope or max_value alone"
        )
    if slope:
        return [activation_of("leaky_relu", where, slope)]
    return clip(0.0, np.inf if limit is None else float(limit), where)


def _prelu(layer: Any, where: str, shape: Shape) -> list[Step]:
    slopes = _flat(_array(layer.alpha), where, shape)
    return [activation_of("prelu", where, slopes)]


def _softmax(layer: Any, where: str, shape: Shape) -> list[Step]:
    if layer.axis not in (-1, 1) or len(shape) != 2:
        raise ValueError(f"{where} is a softmax over axis {layer.axis} of {shape}, expected the last of two")
    return [Activation("softmax")]


def _flatten(layer: Any, where: str, shape: Shape) -> list[Step]:
    if layer.data_format == "channels_first" and len(shape) > 2:
        raise ValueError(f"{where} moves the channels first, expected data_format='channels_last'")
    return []


LAYERS: dict[str, Callable[[Any, str, Shape], list[Step]]] = {
    "Dense": _dense,
    "Activation": lambda layer, where, shape: _activation(layer.activation, where, shape),
    "ReLU": _relu,
    "LeakyReLU": lambda layer, where, _: [activation_of("leaky_relu", where, float(layer.negative_slope))],
    "PReLU": _prelu,
    "ELU": lambda layer, where, _: [activation_of("elu", where, float(layer.alpha))],
    "Softmax": _softmax,
    "Flatten": _flatten,
    **dict.fromkeys(
        (
            *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout"),
            *("GaussianDropout", "GaussianNoise", "ActivityRegularization"),
        ),
        lambda layer, where, shape: [],
    ),
    "BatchNormalization": _batch_norm,
    "Normalization": _normalization,
    "Rescaling": _rescaling,
}

# Keras' names of activations that we have by others.
_OTHERWISE = {"leaky_relu": "leaky_relu(0.2)", "hard_silu": "hard_swish", "exponential": "exp"}
_ACTIVATIONS = {
    name: as_activation(_OTHERWISE.get(name, name))
    for name in (
        *("linear", "relu", "leaky_relu", "relu6", "hard_tanh", "elu", "tanh", "sigmoid", "softplus"),
        *("silu", "swish", "gelu", "selu", "celu", "hard_sigmoid", "hard_silu", "hard_swish", "mish"),
        *("softsign", "exponential", "softmax", "log_softmax"),
    )
}


def on_tensors(layer: Any, operands: Sequence[Tensor]) -> Tensor:
    """Return the output of a layer for tensors of one sample, with a batch axis of length 1."""
    kind = kind_of(layer)
    where = f"{layer.name} ({kind})"
    if kind in JOINS:
        return JOINS[kind](layer, where, *operands)
    if len(operands) != 1:
        raise ValueError(f"{where} has {len(operands)} inputs, expected 1")
    (x,) = operands
    steps = steps_of(layer, (None, *x.shape[1:]))
    value = x.flat
    for step in steps:
        value = _after(value, step)
    is_flat = kind in ("Dense", "Flatten")
    return tensor(value, (1, value.size) if is_flat else x.shape)


def _after(value: Value, step: Step) -> Value:
    if isinstance(step, Activation):
        return graph.apply(value, step)
    if isinstance(step, Affine):
        if len(step.w) != value.size:
            raise ValueError(f"{step.where} takes {len(step.w)} inputs, but gets {value.size}")
        return graph.affine(value, step.w, step.b)
    if isinstance(step, Select):
        return graph.select(value, step.places)
    return graph.add(graph.multiply(value, step.factor), step.shift)


def operation(name: str, where: str, arguments: Sequence[Any]) -> Tensor:
    """Return what one of Keras' operations computes from tensors, numbers and indices."""
    if name == "GetItem" and len(arguments) == 2:
        x, index = arguments
        return _indexed(x, tuple(index) if isinstance(index, list) else index, where)
    if name in _OPERATIONS and len(arguments) == 2:
        operands = [each if isinstance(each, Tensor) else as_float64(each, where) for each in arguments]
        return _of_samples(_OPERATIONS[name], operands, where)
    if name == "Negative" and len(arguments) == 1:
        return joined("multiply", [*arguments, -1.0], where)
    if name.lower() in _ACTIVATIONS and len(arguments) == 1 and "softmax" not in name.lower():
        return activated(arguments[0], _ACTIVATIONS[name.lower()])
    known = ", ".join(("GetItem", "Negative", *_OPERATIONS))
    raise ValueError(f"{where} is not an operation that fastjac reads: {known}, and activations")


def _indexed(x: Tensor, index: Any, where: str) -> Tensor:
    size = x.places.size
    try:
        # Of two samples: each must stay by itself.
        both = np.concatenate([np.arange(size), np.arange(size) + size]).reshape(2, *x.shape[1:])[index]
    except (IndexError, TypeError) as error:
        raise ValueError(f"{where} has an index that does not fit {x.shape[1:]}: {error}") from None
    if both.shape[:1] != (2,) or not np.array_equal(both[1], both[0] + size):
        raise ValueError(f"{where} has an index along the samples of a batch")
    return x.moved(lambda p: p.ravel()[both[:1]])


def _of_samples(name: str, operands: Sequence[Tensor | Float64], where: str) -> Tensor:
    """Return what an operation computes from each sample."""
    ranks = {len(each.shape) for each in operands if isinstance(each, Tensor)}
    if len(ranks) > 1:
        shapes = " and ".join(str(tuple(each.shape[1:])) for each in operands)
        raise ValueError(f"{where} takes shapes {shapes}, expected as many axes in each")
    result = joined(name, operands, where)
    if result.shape[0] != 1 or len(result.shape) not in ranks:
        raise ValueError(f"{where} takes numbers that differ along the samples of a batch")
    return result


def _join(name: str, share: bool = False) -> Callable[..., Tensor]:
    def follow(layer: Any, where: str, *operands: Tensor) -> Tensor:
        if len({operand.shape for operand in operands}) > 1:
            shapes = " and ".join(str(operand.shape[1:]) for operand in operands)
            raise ValueError(f"{where} joins shapes {shapes}, expected equal ones")
        result = operands[0]
        for operand in operands[1:]:
            result = joined(name, [result, operand], where)
        return joined("multiply", [result, 1 / len(operands)], where) if share else result

    return follow


def _concatenate(layer: Any, where: str, *operands: Tensor) -> Tensor:
    count = len(operands[0].shape)
    if layer.axis % count == 0 or any(len(operand.shape) != count for operand in operands):
        raise ValueError(f"{where} joins along axis {layer.axis} of {[each.shape[1:] for each in operands]}")
    return concatenated(operands, layer.axis)


def _layer_normalization(layer: Any, where: str, x: Tensor) -> Tensor:
    is_centred = not getattr(layer, "rms_scaling", False)
    return _normalised(layer, where, x, layer.gamma, layer.beta if is_centred else None, is_centred)


def _rms_normalization(layer: Any, where: str, x: Tensor) -> Tensor:
    return _normalised(layer, where, x, layer.scale, None, False)


def _normalised(layer: Any, where: str, x: Tensor, gain: Any, bias: Any, is_centred: bool) -> Tensor:
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    if any(axis % len(x.shape) == 0 for axis in axes):
        raise ValueError(f"{where} normalises along axes {axes}, of which one counts samples")
    gain, bias = (None if part is None else _array(part) for part in (gain, bias))
    return normalised(x, axes, gain, bias, float(layer.epsilon), is_centred, where)


# Layers that take several tensors, or entries of one together.
JOINS: dict[str, Callable[..., Tensor]] = {
    "Add": _join("add"),
    "Subtract": _join("subtract"),
    "Multiply": _join("multiply"),
    "Average": _join("add", share=True),
    "Maximum": _join("maximum"),
    "Minimum": _join("minimum"),
    "Concatenate": _concatenate,
    "LayerNormalization": _layer_normalization,
    "RMSNormalization": _rms_normalization,
    "Reshape": lambda layer, where, x: x.moved(lambda p: p.reshape(1, *layer.target_shape)),
    "Permute": lambda layer, where, x: x.moved(lambda p: p.transpose(0, *layer.dims)),
}
_OPERATIONS = {
    "Add": "add",
    "Subtract": "subtract",
    "Multiply": "multiply",
    "Divide": "divide",
    "TrueDivide": "divide",
    "Maximum": "maximum",
    "Minimum": "minimum",
}
