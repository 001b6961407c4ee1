"""Networks from Keras models; Keras is imported when one arrives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastjac.layers import Activation
from fastjac.models.folding import (
    IDENTITY,
    Float64,
    Step,
    activation_of,
    affine,
    as_float64,
    clip,
    computes_as,
    fold,
    normalisation,
    scale,
)
from fastjac.models.limits import warned
from fastjac.network import Network


def from_keras(model: Any) -> Network:
    """Return the network that a Keras 3 model computes at inference.

    Parameters
    ----------
    model : keras.Model
        Sequential, or functional with one input, one output and one path between them, nested at will, of
        Dense, Activation, ReLU, LeakyReLU, ELU, Softmax, Flatten, Dropout, BatchNormalization,
        Normalization and Rescaling.

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
    steps = [step for layer, shape in _chain(model) for step in _steps(layer, shape)]
    wide = any(str(weight.dtype) == "float64" for weight in model.weights)
    n_inputs = None if None in model.input_shape[1:] else int(np.prod(model.input_shape[1:]))
    return warned(fold(steps, np.float64 if wide else np.float32, n_inputs))


def _chain(model: Any) -> list[tuple[Any, tuple[int, ...]]]:
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
    chain: list[tuple[Any, tuple[int, ...]]] = []
    tensor = model.outputs[0]
    while tensor is not model.inputs[0]:
        layer, node_index, _ = tensor._keras_history
        before = layer._inbound_nodes[node_index].input_tensors
        if len(before) != 1:
            raise ValueError(f"{layer.name} ({type(layer).__name__}) has {len(before)} inputs, expected 1")
        tensor = before[0]
        nested = _chain(layer) if isinstance(layer, keras.Model) else [(layer, tuple(tensor.shape))]
        chain[:0] = nested
    return chain


def _steps(layer: Any, shape: tuple[int, ...]) -> list[Step]:
    import keras

    where = f"{layer.name} ({type(layer).__name__})"
    for kind, steps in LAYERS.items():
        if computes_as(layer, getattr(keras.layers, kind), "call"):
            return steps(layer, where, shape)
    raise ValueError(f"{where} is not a layer that fastjac reads: {', '.join(LAYERS)}")


def _array(variable: Any) -> Float64:
    import keras

    return as_float64(keras.ops.convert_to_numpy(variable), "a Keras variable")


def _dense(layer: Any, where: str, shape: tuple[int, ...]) -> list[Step]:
    if len(shape) != 2:
        raise ValueError(f"{where} works on the last axis of {shape}: put a Flatten before it")
    if getattr(layer, "quantization_mode", None) is not None:
        raise ValueError(f"{where} is quantized to {layer.quantization_mode}, expected float weights")
    bias = None if layer.bias is None else _array(layer.bias)
    dense = affine(_array(layer.kernel), bias, where)
    return [dense, *_activation(layer.activation, where, (shape[0], dense.b.size))]


def _activation(function: Any, where: str, shape: tuple[int, ...]) -> list[Step]:
    import keras

    if isinstance(function, keras.Layer):
        return _steps(function, shape)
    name = "linear" if function is None else getattr(function, "__name__", "")
    if name not in _ACTIVATIONS or function not in (None, getattr(keras.activations, name)):
        raise ValueError(
            f"{where} has the activation {name or function!r}, expected one of {', '.join(_ACTIVATIONS)}"
        )
    if "softmax" in name and len(shape) != 2:
        raise ValueError(f"{where} is a softmax over the last axis of {shape}: put a Flatten before it")
    return [_ACTIVATIONS[name]]


def _batch_norm(layer: Any, where: str, shape: tuple[int, ...]) -> list[Step]:
    mean, variance = _array(layer.moving_mean), _array(layer.moving_variance)
    gamma = np.ones_like(mean) if layer.gamma is None else _array(layer.gamma)
    beta = np.zeros_like(mean) if layer.beta is None else _array(layer.beta)
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    along = [1] * len(shape)
    along[axis] = mean.size
    parts = [_flat(part.reshape(along), where, shape) for part in (mean, variance, gamma, beta)]
    return [normalisation(parts[0], parts[1], layer.epsilon, parts[2], parts[3], where)]


def _normalization(layer: Any, where: str, shape: tuple[int, ...]) -> list[Step]:
    import keras

    if layer.mean is None:
        raise ValueError(f"{where} has no mean yet: adapt it, or build the model")
    mean = _flat(_array(layer.mean), where, shape)
    deviation = _flat(np.sqrt(_array(layer.variance)), where, shape)
    deviation = np.maximum(deviation, keras.config.epsilon())
    if layer.invert:
        return [scale(deviation, mean, where)]
    return [scale(1 / deviation, -mean / deviation, where)]


def _rescaling(layer: Any, where: str, shape: tuple[int, ...]) -> list[Step]:
    factor, shift = (_flat(as_float64(part, where), where, shape) for part in (layer.scale, layer.offset))
    return [scale(factor, shift, where)]


def _flat(array: Float64, where: str, shape: tuple[int, ...]) -> Float64:
    """Return a parameter for each entry of the flattened input of shape ``shape[1:]``."""
    if None in shape[1:]:
        raise ValueError(f"{where} has an input of shape {shape}, expected known sizes")
    return np.broadcast_to(array, (1, *shape[1:])).ravel()


def _relu(layer: Any, where: str, shape: tuple[int, ...]) -> list[Step]:
    slope, limit = float(layer.negative_slope or 0), layer.max_value
    if layer.threshold or (slope and limit is not None):
        raise ValueError(
            f"{where} has negative_slope {slope}, max_value {limit} and threshold {layer.threshold}, "
            "expected negative_slope or max_value alone"
        )
    if slope:
        return [activation_of("leaky_relu", where, slope)]
    return clip(0.0, np.inf if limit is None else float(limit), where)


def _softmax(layer: Any, where: str, shape: tuple[int, ...]) -> list[Step]:
    if layer.axis not in (-1, 1) or len(shape) != 2:
        raise ValueError(f"{where} is a softmax over axis {layer.axis} of {shape}, expected the last of two")
    return [Activation("softmax")]


def _flatten(layer: Any, where: str, shape: tuple[int, ...]) -> list[Step]:
    if layer.data_format == "channels_first" and len(shape) > 2:
        raise ValueError(f"{where} moves the channels first, expected data_format='channels_last'")
    return []


def _nothing(layer: Any, where: str, shape: tuple[int, ...]) -> list[Step]:
    return []


LAYERS: dict[str, Callable[[Any, str, tuple[int, ...]], list[Step]]] = {
    "Dense": _dense,
    "Activation": lambda layer, where, shape: _activation(layer.activation, where, shape),
    "ReLU": _relu,
    "LeakyReLU": lambda layer, where, _: [activation_of("leaky_relu", where, float(layer.negative_slope))],
    "ELU": lambda layer, where, _: [activation_of("elu", where, float(layer.alpha))],
    "Softmax": _softmax,
    "Flatten": _flatten,
    "Dropout": _nothing,
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
    "gelu": Activation("gelu"),
    "softmax": Activation("softmax"),
    "log_softmax": Activation("log_softmax"),
}
