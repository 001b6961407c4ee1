"""Networks in files: load, save, and the one error that a bad file ends in."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from fastjac.layers import Activation, as_activation
from fastjac.models.containers import Arrays, read_npz, read_safetensors, write_npz, write_safetensors
from fastjac.models.keras_file import read_keras
from fastjac.models.onnx import read_onnx
from fastjac.models.params import Activations, from_state_dict
from fastjac.network import Network

SCHEMA_VERSION = 1
_KEYS = {"version", "activations", "input_names", "output_names"}

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
    **dict.fromkeys(
        (".h5", ".hdf5"),
        "is Keras' old format; load it with Keras and save it as .keras, or call fastjac.from_keras(model)",
    ),
}


class ModelError(ValueError):
    """A file is not a model that fastjac computes; the message names the file, and what in it is wrong."""


def load(
    path: str | os.PathLike[str], activation: Activations | None = None, head: str | Activation | None = None
) -> Network:
    """Return the network in a file, without running anything that the file holds.

    Parameters
    ----------
    path : path-like
        A ``.npz`` or ``.safetensors`` of `save`, a ``.safetensors`` of a PyTorch state_dict, an ``.onnx``
        or a ``.keras`` model.
    activation, head : str or Activation, optional
        What `Network` takes; for files that hold weights alone, and only for these.

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
        If a ``.keras`` file needs Keras, and Keras is not installed.
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
    if path.exists() and not path.is_file():
        raise ModelError(f"{path} is not a file")
    data = path.read_bytes()
    try:
        if suffix in _MODELS:
            _refuse_activations(activation, head)
            return _MODELS[suffix](data, path.parent)
        arrays, text = _CONTAINERS[suffix][0](data)
        if text is None:
            return _network_of_weights(arrays, activation, head)
        _refuse_activations(activation, head)
        return _network(arrays, text)
    except ImportError:
        raise
    except Exception as error:  # Damaged bytes make parsers raise nearly anything.
        raise ModelError(f"{path}: {str(error) or type(error).__name__}") from error


def save(net: Network, path: str | os.PathLike[str]) -> None:
    """Write a network to a ``.npz`` or ``.safetensors`` file, from which `load` gives the same bits.

    Parameters
    ----------
    net : Network
        Weights, activations and names are kept.
    path : path-like
        An existing file is replaced.

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
    arrays: Arrays = {}
    for number, layer in enumerate(net.layers, 1):
        arrays[f"w{number}"], arrays[f"b{number}"] = layer.w, layer.b
    description = {
        "version": SCHEMA_VERSION,
        "activations": [str(layer.activation) for layer in net.layers],
        "input_names": net.input_names,
        "output_names": net.output_names,
    }
    _, write = _CONTAINERS[path.suffix.lower()]
    path.write_bytes(write(arrays, json.dumps(description)))


def _network(arrays: Arrays, text: str) -> Network:
    """Return the network that `save` described with ``text``."""
    description = json.loads(text)
    if not isinstance(description, dict) or description.keys() != _KEYS:
        raise ValueError(f"its description is not a JSON object with {', '.join(sorted(_KEYS))}")
    if description["version"] != SCHEMA_VERSION:
        raise ValueError(
            f"its schema has version {description['version']!r}, but this fastjac reads {SCHEMA_VERSION}"
        )
    activations = description["activations"]
    names = {kind: description[kind] for kind in ("input_names", "output_names")}
    for key, value in {"activations": activations, **names}.items():
        is_strings = isinstance(value, list) and all(isinstance(item, str) for item in value)
        if not is_strings and (value is not None or key == "activations"):
            raise ValueError(f"its {key} are not a list of strings")
    numbers = range(1, len(activations) + 1)
    if arrays.keys() != {f"{letter}{number}" for number in numbers for letter in "wb"}:
        raise ValueError(f"it has {len(activations)} activations, but the arrays {', '.join(sorted(arrays))}")
    if len({array.dtype for array in arrays.values()}) > 1:
        raise ValueError("its arrays differ in dtype")
    layers = [(arrays[f"w{number}"], arrays[f"b{number}"]) for number in numbers]
    return Network(layers, activations[:-1], activations[-1], **names)


def _refuse_activations(activation: Activations | None, head: str | Activation | None) -> None:
    if activation is not None or head is not None:
        raise ValueError("it tells its activations itself: leave activation and head out")


def _network_of_weights(
    arrays: Arrays, activation: Activations | None, head: str | Activation | None
) -> Network:
    """Return the network of a file that holds weights alone."""
    if activation is None or head is None:
        raise ValueError(
            "it holds weights but no activations: say which, as in "
            'fastjac.load(path, activation="relu", head="softmax")'
        )
    return from_state_dict(arrays, activation, head)


_CONTAINERS = {".npz": (read_npz, write_npz), ".safetensors": (read_safetensors, write_safetensors)}
_MODELS: dict[str, Callable[[bytes, Path], Network]] = {".onnx": read_onnx, ".keras": read_keras}
