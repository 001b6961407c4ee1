"""Networks from Keras models; Keras is imported when one arrives."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastjac.models.keras_calls import Argument, Call, network_of
from fastjac.models.keras_layers import Shape, kind_of
from fastjac.models.steps import computes_as
from fastjac.network import Network


def from_keras(model: Any) -> Network:
    """Return the network that a Keras 3 model computes at inference.

    Parameters
    ----------
    model : keras.Model
        Sequential or functional with one output, nested at will, of Dense, Activation, ReLU, LeakyReLU,
        PReLU, ELU, Softmax, Flatten, Reshape, Permute, BatchNormalization, LayerNormalization,
        RMSNormalization, Normalization and Rescaling; Add, Subtract, Multiply, Average, Maximum, Minimum and
        Concatenate; sums, differences, products and slices of tensors. Dropout, GaussianNoise and their kin
        do nothing at inference.

    Returns
    -------
    Network
        Of the model's flattened inputs, one behind the other in the model's order, in float64 if any weight
        is, else in float32. Several inputs give the names of the network's: ``"state[0]"``.

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
    _check_model(model)
    calls: list[Call] = []
    inputs = {each.name: tuple(each.shape) for each in model.inputs}
    output = _follow(model, list(range(len(inputs))), len(inputs), calls)
    wide = any(str(weight.dtype) == "float64" for weight in model.weights)
    return network_of(inputs, calls, output, np.float64 if wide else np.float32)


def _check_model(model: Any) -> None:
    import keras
    from keras.src.models import Functional

    if not (computes_as(model, keras.Sequential, "call") or computes_as(model, Functional, "call")):
        raise ValueError(
            f"{model.name} ({type(model).__name__}) has a call of its own, which fastjac cannot read: "
            "make it keras.Sequential or a functional model, or export it to ONNX and use fastjac.load"
        )
    if not model.built or not hasattr(model, "inputs"):
        raise ValueError(f"{model.name} has no weights yet: build it, or give it a keras.Input first")
    if len(model.outputs) != 1:
        raise ValueError(f"{model.name} has {len(model.outputs)} outputs, expected one")


def _follow(model: Any, inputs: list[int], first: int, calls: list[Call]) -> int:
    """Add the calls of a model to a list, and return the number of its output.

    Numbers below ``first`` are of the inputs of the outermost model, the others of what calls return.
    """
    import keras

    known = {id(tensor): number for tensor, number in zip(model.inputs, inputs, strict=True)}
    waiting = [model.outputs[0]]
    while waiting:
        tensor = waiting[-1]
        if id(tensor) in known:
            waiting.pop()
            continue
        layer, node_index, _ = tensor._keras_history
        node = layer._inbound_nodes[node_index]
        missing = [each for each in node.input_tensors if id(each) not in known]
        if missing:
            waiting += reversed(missing)
            continue
        where = f"{layer.name} ({type(layer).__name__})"
        if node.arguments.kwargs.get("training"):
            raise ValueError(f"{where} is called with training=True, so it does not compute as at inference")
        before = [known[id(each)] for each in node.input_tensors]
        if isinstance(layer, keras.Model):
            _check_model(layer)
            known[id(tensor)] = _follow(layer, before, first, calls)
            continue
        arguments = None
        if not isinstance(layer, keras.Layer):
            given = (*node.arguments.args, *node.arguments.kwargs.values())
            arguments = tuple(
                Argument(known[id(each)]) if isinstance(each, keras.KerasTensor) else each for each in given
            )
        shape: Shape = tuple(node.input_tensors[0].shape)
        kind = type(layer).__name__ if arguments is not None else kind_of(layer)
        calls.append(Call(layer, kind, where, tuple(before), shape, arguments))
        known[id(tensor)] = first + len(calls) - 1
    return known[id(model.outputs[0])]
