"""Networks in files: load, save, and the one error that a bad file ends in."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastjac.layers import Activation, as_activation
from fastjac.models.containers import Arrays, read_npz, read_safetensors, write_npz, write_safetensors
from fastjac.models.graph_files import describe, rebuild
from fastjac.models.keras_file import read_h5, read_keras
from fastjac.models.limits import Budget, network
from fastjac.models.nnet import read_nnet
from fastjac.models.onnx import read_onnx
from fastjac.models.params import Activations, check_activations, from_state_dict
from fastjac.network import Network

# Chains of the activations that 0.1.0 had are version 1, all other networks version 2.
_NAMES = {"input_names", "output_names"}
_KEYS = {1: {"version", "activations", *_NAMES}, 2: {"version", "dtype", "values", *_NAMES}}
_FIRST_ACTIVATIONS = (
    *("identity", "relu", "leaky_relu", "relu6", "hard_tanh", "elu", "tanh", "sigmoid"),
    *("softplus", "silu", "gelu", "gelu_tanh", "softmax", "log_softmax"),
)

_PICKLED = (
    "is a pickle, which can run any code when it is read, so fastjac does not read it; where you trust it, "
    "load it with its own framework and call fastjac.{function}, or save it as {better}"
)
_REFUSED = {
    **dict.fromkeys(
        (".pt", ".pth", ".bin", ".ckpt"),
        _PICKLED.format(function="from_torch(module)", better=".safetensors or .onnx"),
    ),
    **dict.fromkeys(
        (".pkl", ".pickle", ".joblib"),
        _PICKLED.format(function="from_sklearn(estimator)", better=".onnx, or with fastjac.save"),
    ),
}


class ModelError(ValueError):
    """A file is not a model that fastjac computes. The message names the file and the problem."""


def load(
    path: str | os.PathLike[str],
    activation: Activations | None = None,
    head: str | Activation | None = None,
    *,
    output: str | None = None,
    inputs: Sequence[str] | None = None,
    prefix: str | Sequence[str] = "",
) -> Network:
    """Return the network in a file, without running anything that the file holds.

    Parameters
    ----------
    path : path-like
        A ``.npz`` or ``.safetensors`` of `save`, a ``.safetensors`` of a PyTorch state_dict, an ``.onnx``
        model, a ``.keras`` or ``.h5`` model of Keras, or a ``.nnet`` network.
    activation, head : str or Activation, optional
        What `Network` takes; for files that hold weights alone, and only for these.
    output : str, optional
        Of an ``.onnx`` file: the tensor that the network ends in; whatever does not lead to it is left out.
        Default: the file's only output of floats.
    inputs : sequence of str, optional
        Of an ``.onnx`` file whose output depends on several inputs: the order in which they are the parts of
        the network's input. Default: the file's order.
    prefix : str or sequence of str, optional
        Of a state_dict: how the names of the network's weights begin, ``"actor."``; those of others are
        left out. Several are taken one after the other.

    Returns
    -------
    Network
        In the dtype of the file's weights; float16 and bfloat16 become float32.

    Raises
    ------
    ModelError
        If the file is damaged, or holds something that is not a multilayer perceptron.
    OSError
        If the file cannot be read.
    ValueError, TypeError
        If ``activation`` or ``head`` is not one that `Network` takes.
    ImportError
        If the package that reads such files is not installed: onnx, safetensors or h5py.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    for spec in (head, *([activation] if activation is None or isinstance(activation, str) else activation)):
        if spec is not None:
            as_activation(spec)
    if suffix in _REFUSED:
        raise ModelError(f"{path} {_REFUSED[suffix]}")
    if suffix not in (*_CONTAINERS, *_MODELS):
        raise ModelError(f"{path} ends in {suffix!r}, expected one of {', '.join((*_CONTAINERS, *_MODELS))}")
    if output is not None and suffix != ".onnx":
        raise ValueError(f"output is {output!r}, but {path} is no .onnx file")
    if inputs is not None and (suffix != ".onnx" or isinstance(inputs, str)):
        expected = "a list of names" if suffix == ".onnx" else "none"
        raise ValueError(f"inputs is {inputs!r}, expected {expected} for {path}")
    if prefix and suffix not in _CONTAINERS:
        raise ValueError(f"prefix is {prefix!r}, but {path} holds no state_dict")
    if "\0" in str(path):
        raise ModelError(f"{str(path)!r} is not the name of a file")
    if path.exists() and not path.is_file():
        raise ModelError(f"{path} is not a file")
    data = path.read_bytes()
    try:
        with np.errstate(all="ignore"):
            if suffix == ".onnx":
                check_activations(True, activation, head)
                net = read_onnx(data, path.parent, output, inputs)
            else:
                net = _read(data, suffix, activation, head, prefix)
    except ImportError:
        raise
    except Exception as error:  # Damaged bytes make parsers raise nearly anything.
        raise ModelError(f"{path}: {str(error) or type(error).__name__}") from error
    return net


def save(net: Network, path: str | os.PathLike[str]) -> None:
    """Write a network to a ``.npz`` or ``.safetensors`` file, from which `load` gives the same bits.

    Parameters
    ----------
    net : Network
        Weights, activations and names are kept.
    path : path-like
        An existing file is replaced when the new one is complete.

    Raises
    ------
    TypeError
        If ``net`` is not a `Network`.
    ValueError
        If the name of the file ends in something else.
    OSError
        If the file cannot be written.
    """
    if not isinstance(net, Network):
        raise TypeError(f"net must be a fastjac.Network, got {type(net).__name__}")
    path = Path(path)
    if path.suffix.lower() not in _CONTAINERS:
        raise ValueError(f"{path} ends in {path.suffix!r}, expected one of {', '.join(_CONTAINERS)}")
    arrays, description = _described(net)
    description |= {"input_names": net.input_names, "output_names": net.output_names}
    _, write = _CONTAINERS[path.suffix.lower()]
    data = write(arrays, json.dumps(description))
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".fastjac-{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # Some file systems tell only here that there is no room.
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _described(net: Network) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays of a network, and a description of it without names."""
    layers = getattr(net, "layers", ())
    if not layers or any(layer.activation.name not in _FIRST_ACTIVATIONS for layer in layers):
        arrays, values = describe(net.graph)
        return arrays, {"version": 2, "dtype": net.dtype.name, "values": values}
    arrays = {}
    for number, layer in enumerate(layers, 1):
        arrays[f"w{number}"], arrays[f"b{number}"] = layer.w, layer.b
    return arrays, {"version": 1, "activations": [str(layer.activation) for layer in layers]}


def _read(
    data: bytes,
    suffix: str,
    activation: Activations | None,
    head: str | Activation | None,
    prefix: str | Sequence[str],
) -> Network:
    if suffix in (".h5", ".hdf5"):
        return read_h5(data, activation, head)
    arrays, text = _CONTAINERS[suffix][0](data) if suffix in _CONTAINERS else ({}, "")
    check_activations(text is not None, activation, head)
    if suffix in (".keras", ".nnet"):
        return read_keras(data) if suffix == ".keras" else read_nnet(data)
    if text is not None:
        if prefix:
            raise ValueError(f"prefix is {prefix!r}, but the file is one that fastjac.save wrote")
        return _network(arrays, text, Budget(len(data)))
    return from_state_dict(arrays, activation or "", head or "", prefix, Budget(len(data)))


def _network(arrays: Arrays, text: str, budget: Budget) -> Network:
    """Return the network that `save` described with ``text``."""
    description = json.loads(text)
    if not isinstance(description, dict) or "version" not in description:
        raise ValueError("its description is not a JSON object with a version")
    version = description["version"]
    if type(version) is not int or version not in _KEYS:
        raise ValueError(f"its schema has version {version!r}, but this fastjac reads 1 and 2")
    if description.keys() != _KEYS[version]:
        raise ValueError(f"its description is not a JSON object with {', '.join(sorted(_KEYS[version]))}")
    names = {kind: description[kind] for kind in sorted(_NAMES)}
    activations = description.get("activations", [])
    for key, value in {"activations": activations, **names}.items():
        is_strings = isinstance(value, list) and all(isinstance(item, str) for item in value)
        if not is_strings and (value is not None or key == "activations"):
            raise ValueError(f"its {key} are not a list of strings")
    if version == 2:
        return Network(rebuild(arrays, description, budget), dtype=description["dtype"], **names)
    numbers = range(1, len(activations) + 1)
    if arrays.keys() != {f"{letter}{number}" for number in numbers for letter in "wb"}:
        raise ValueError(f"it has {len(activations)} activations, but the arrays {', '.join(sorted(arrays))}")
    if len({array.dtype for array in arrays.values()}) > 1:
        raise ValueError("its arrays differ in dtype")
    layers = [(arrays[f"w{number}"], arrays[f"b{number}"]) for number in numbers]
    net = network(layers, activations[:-1], activations[-1], **names, budget=budget)
    newer = [layer.activation.name for layer in net.layers if layer.activation.name not in _FIRST_ACTIVATIONS]
    if newer:
        raise ValueError(f"its schema has version 1, which has no {newer[0]}")
    return net


_CONTAINERS = {".npz": (read_npz, write_npz), ".safetensors": (read_safetensors, write_safetensors)}
_MODELS = (".onnx", ".keras", ".h5", ".hdf5", ".nnet")
