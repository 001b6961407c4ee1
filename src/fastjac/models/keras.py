"""Networks from Keras models; Keras is imported when one arrives."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from fastjac.layers import Activation
from fastjac.models.folding import fold
from fastjac.models.steps import (
    IDENTITY,
    Float64,
    Step,
    activation_of,
    affine,
    as_float64,
    clip,
    computes_as,
    normalisation,
    scale,
)
from fastjac.network import Network

Shape = tuple[int | None, ...]
# What Keras 2 had by this name clips 0.2 x + 0.5 to 0 and 1.
OLD_HARD_SIGMOID = "hard_sigmoid of Keras 2"


class FileLayer(SimpleNamespace):
    """A layer in a file, of the class ``kind``, with the attributes of Keras' layer and arrays as weights."""


def from_keras(model: Any) -> Network:
    """Return the network that a Keras 3 model computes at inference.

    Parameters
    ----------
    model : keras.Model
        Sequential, or functional with one input, one output and one path between them, nested at will, of
        Dense, Activation, ReLU, LeakyReLU, PReLU, ELU, Softmax, Flatten, BatchNormalization, Normalization
        and Rescaling; Dropout, GaussianNoise and their kin do nothing at inference.

    Returns
    -------
    Network
        Of the model's flattened input, in float64 if any weight is, else in float32.

    Raises
    ------
    TypeError
        If ``model`` is not a Keras 3 model.
    ValueError
        If it is not built, has a ``call`` of its own, or holds something else.
    """
    import keras

    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a keras.Model of Keras 3, got {type(model).__name__}")
    steps = [step for layer, shape in _chain(model) for step in steps_of(layer, shape)]
    wide = any(str(weight.dtype) == "float64" for weight in model.weights)
    return fold(steps, np.float64 if wide else np.float32, size_of(model.input_shape))


def _chain(model: Any) -> list[tuple[Any, Shape]]:
    """Return the layers of a model, each with the shape of its input, batch axis included."""
    import keras
    from keras.src.models import Functional

    if not (computes_as(model, keras.Sequential, "call") or computes_as(model, Functional, "call")):
        raise ValueError(
            f"{model.name} ({type(model).__name__}) has a call of its own, which fastjac cannot read: "
            "make it keras.Sequential or a functional model, or export it to ONNX and use fastjac.load"
        )
    if not model.built or not hasattr(model, "inputs"):
        raise ValueError(f"{model.name} has no weights yet: build it, or give it a keras.Input first")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            f"{model.name} has {len(model.inputs)} inputs and {len(model.outputs)} outputs, expected one each"
        )
    chain: list[tuple[Any, Shape]] = []
    tensor = model.outputs[0]
    while tensor is not model.inputs[0]:
        layer, node_index, _ = tensor._keras_history
        node = layer._inbound_nodes[node_index]
        before = node.input_tensors
        if node.arguments.kwargs.get("training"):
            raise ValueError(
                f"{layer.name} ({type(layer).__name__}) is called with training=True, so it does not compute "
                "as at inference"
            )
        if len(before) != 1:
            raise ValueError(f"{layer.name} ({type(layer).__name__}) has {len(before)} inputs, expected 1")
        tensor = before[0]
        nested = _chain(layer) if isinstance(layer, keras.Model) else [(layer, tuple(tensor.shape))]
        chain[:0] = nested
    return chain


def size_of(shape: Shape) -> int | None:
    """Return the number of entries of a sample, None where an axis is unknown."""
    sizes = [size for size in shape[1:] if size is not None]
    return math.prod(sizes) if len(sizes) == len(shape) - 1 else None


def steps_of(layer: Any, shape: Shape) -> list[Step]:
    """Return the steps of a layer of Keras or of a file, of which ``shape`` is the input, batch included."""
    kind = layer.kind if isinstance(layer, FileLayer) else _kind(layer)
    where = f"{layer.name} ({kind})"
    if kind not in LAYERS:
        raise ValueError(f"{where} is not a layer that fastjac reads: {', '.join(LAYERS)}")
    return LAYERS[kind](layer, where, shape)


def _kind(layer: Any) -> str:
    """Return the class of Keras that a layer computes as, or its own."""
    import keras

    for name in LAYERS:
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


def _nothing(layer: Any, where: str, shape: Shape) -> list[Step]:
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
            "Dropout",
            "SpatialDropout1D",
            "SpatialDropout2D",
            "SpatialDropout3D",
            "AlphaDropout",
            "GaussianDropout",
            "GaussianNoise",
            "ActivityRegularization",
        ),
        _nothing,
    ),
    "BatchNormalization": _batch_norm,
    "Normalization": _normalization,
    "Rescaling": _rescaling,
}

_ACTIVATIONS = {
    "linear": IDENTITY,
    "relu": Activation("relu"),
    "leaky_relu": Activation("leaky_relu", 0.2),
    "relu6": Activation("relu6"),
    "hard_tanh": Activation("hard_tanh"),
    "elu": Activation("elu", 1.0),
    "tanh": Activation("tanh"),
    "sigmoid": Activation("sigmoid"),
    "softplus": Activation("softplus"),
    "silu": Activation("silu"),
    "swish": Activation("silu"),
    "gelu": Activation("gelu"),
    "selu": Activation("selu"),
    "celu": Activation("celu", 1.0),
    "hard_sigmoid": Activation("hard_sigmoid"),
    "hard_silu": Activation("hard_swish"),
    "hard_swish": Activation("hard_swish"),
    "mish": Activation("mish"),
    "softsign": Activation("softsign"),
    "exponential": Activation("exp"),
    "softmax": Activation("softmax"),
    "log_softmax": Activation("log_softmax"),
}
