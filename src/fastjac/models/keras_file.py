"""Networks from Keras' files, .keras and .h5, read as data: neither Keras nor code in a file runs."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastjac.layers import Activation
from fastjac.models.containers import Arrays, check_text, open_zip
from fastjac.models.folding import fold
from fastjac.models.hdf5 import read_hdf5
from fastjac.models.keras import OLD_HARD_SIGMOID, FileLayer, Shape, size_of, steps_of
from fastjac.models.limits import MOST_LAYERS, Budget, network
from fastjac.models.params import Activations, check_activations, layers_of
from fastjac.models.steps import Step
from fastjac.network import Network

_MODELS = ("Sequential", "Functional", "Model")
# Keras' names and order of the weights of a layer. One after a colon is there if the attribute before it is.
_WEIGHTS = {
    "Dense": ["kernel", "use_bias: bias"],
    "BatchNormalization": ["scale: gamma", "center: beta", "moving_mean", "moving_variance"],
    "Normalization": ["mean", "variance", "count"],
    "PReLU": ["alpha"],
}
# Attributes that a layer has even where its configuration does not say so.
_DEFAULTS = {
    "activation": None,
    "bias": None,
    "beta": None,
    "data_format": "channels_last",
    "gamma": None,
    "max_value": None,
    "negative_slope": 0.0,
    "threshold": 0.0,
}


class _Leaf(NamedTuple):
    """A layer that is no model: its class and configuration, where its weights are, the names down to it."""

    kind: str
    config: dict[str, Any]
    place: str
    names: tuple[str, ...]


# Returns the weights of a leaf, in Keras' order.
_Finder = Callable[[_Leaf], list[NDArray[Any]]]


def read_keras(data: bytes) -> Network:
    """Return the network in the bytes of a ``.keras`` file.

    Raises
    ------
    ValueError
        If the bytes are not such a file, or have a layer that `from_keras` does not read.
    ImportError
        If h5py is not installed.
    """
    with open_zip(data) as archive:
        entries = [archive.getinfo(name) for name in ("config.json", "model.weights.h5")]
        check_text("config.json", entries[0].file_size, len(data))
        Budget(len(data)).spend(entries[1].file_size // 4)
        config, weights = (archive.open(entry).read(entry.file_size) for entry in entries)
        about: dict[str, Any] = {}
        if "metadata.json" in archive.namelist():
            check_text("metadata.json", archive.getinfo("metadata.json").file_size, len(data))
            about = json.loads(archive.read("metadata.json"))
    arrays, _ = read_hdf5(weights, "a .keras file")

    def found(leaf: _Leaf) -> list[NDArray[Any]]:
        places = (f"{leaf.place}vars/{number}" for number in itertools.count())
        return [arrays[place] for place in itertools.takewhile(arrays.__contains__, places)]

    return _network(json.loads(config), str(about.get("keras_version", "")), found, Budget(len(data)))


def read_h5(data: bytes, activation: Activations | None, head: str | Activation | None) -> Network:
    """Return the network in the bytes of an ``.h5`` file: a model, or weights alone and their activations.

    Raises
    ------
    ValueError
        As `read_keras`; or if activations are given for a model, or none for weights.
    ImportError
        If h5py is not installed.
    """
    arrays, texts = read_hdf5(data, "an .h5 file")
    check_activations("/model_config" in texts, activation, head)
    if activation is not None and head is not None:
        return network(
            list(layers_of(_tree(arrays, texts), "weights")), activation, head, budget=Budget(len(data))
        )
    check_text("its configuration", len(texts["/model_config"]), len(data))

    def found(leaf: _Leaf) -> list[NDArray[Any]]:
        group = f"/model_weights/{leaf.names[0]}/"
        names = texts.get(f"{group}weight_names", [])
        if len(leaf.names) > 1:  # A model's group has the weights of all its layers.
            names = [name for name in names if name.split("/")[-2:-1] == [leaf.names[-1]]]
        return [arrays[group + name] for name in names]

    version = str(texts.get("/keras_version", ""))
    return _network(json.loads(texts["/model_config"]), version, found, Budget(len(data)))


def _network(model: dict[str, Any], version: str, found: _Finder, budget: Budget) -> Network:
    """Return the network of the configuration of a model that a version of Keras wrote."""
    shape: Shape | None = None
    n_inputs, is_wide = None, False
    steps: list[Step] = []
    for number, leaf in enumerate(_leaves(model, "/", ())):
        if number > 10 * MOST_LAYERS:
            raise ValueError(f"it has more than {10 * MOST_LAYERS} layers")
        if shape is None:
            shape = _input_shape(model, leaf)
            n_inputs = size_of(shape)
        if leaf.kind == "InputLayer":
            continue
        layer = _layer(leaf, found(leaf) if leaf.kind in _WEIGHTS else [], shape)
        if layer.activation == "hard_sigmoid" and re.match("[0-2][.]", version):
            layer.activation = OLD_HARD_SIGMOID
        if leaf.kind in ("BatchNormalization", "Normalization", "Rescaling", "PReLU"):
            budget.spend(size_of(shape) or 0)
        steps += steps_of(layer, shape)
        if leaf.kind == "Dense":
            is_wide |= layer.kernel.dtype == np.float64
            shape = (*shape[:-1], layer.kernel.shape[1])
        elif leaf.kind == "Flatten":
            shape = (shape[0], size_of(shape))
    return fold(steps, np.float64 if is_wide else np.float32, n_inputs, budget=budget)


def _leaves(model: dict[str, Any], place: str, names: tuple[str, ...]) -> Iterator[_Leaf]:
    """Yield a model's layers in the order in which they compute, and those of models in it."""
    config = model["config"]
    layers = config if isinstance(config, list) else config["layers"]
    places: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for layer in layers:
        kind = _snake_case(layer["class_name"].replace("Model", "Functional"))
        places[_name(layer)] = (
            f"{place}layers/{kind}_{counts[kind]}/" if counts[kind] else f"{place}layers/{kind}/"
        )
        counts[kind] += 1
    for layer in _in_order(config, layers):
        kind, name = layer["class_name"], _name(layer)
        if layer.get("registered_name") not in (None, kind) or not str(
            layer.get("module", "keras")
        ).startswith(("keras", "tf_keras")):
            raise ValueError(f"{name} is a {layer.get('module')}.{kind}, which is none of Keras' own layers")
        if kind in _MODELS:
            yield from _leaves(layer, places[name], (*names, name))
        else:
            yield _Leaf(kind, layer["config"], places[name], (*names, name))


def _snake_case(name: str) -> str:
    """Return a class's name as Keras names a folder after it: batch_normalization, p_re_lu."""
    return re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)).lower()


def _in_order(config: Any, layers: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the layers of a model's configuration in the order in which they compute."""
    if isinstance(config, list) or "output_layers" not in config:
        yield from layers
        return
    by_name = {_name(layer): layer for layer in layers}
    calls: dict[tuple[str, int], None] = {}
    (call,) = _calls(config["output_layers"])
    while True:
        if call in calls:
            raise ValueError(f"its layer {call[0]!r} needs its own output")
        calls[call] = None
        name, number = call
        nodes = by_name[name]["inbound_nodes"]
        if not nodes:
            break
        if '"training": true' in json.dumps(nodes[number]):
            raise ValueError(f"its layer {name!r} is called as in training")
        before = _calls(nodes[number])
        if len(before) != 1:
            raise ValueError(f"its layer {name!r} has {len(before)} inputs, expected 1")
        call = before[0]
    for name, _ in reversed(calls):
        yield by_name[name]


def _calls(tensors: Any) -> list[tuple[str, int]]:
    """Return which calls of which layers make tensors, as Keras 2 or Keras 3 spell them."""
    if isinstance(tensors, dict):
        if "keras_history" in tensors:
            tensors = tensors["keras_history"]
        else:
            tensors = list(tensors.get("args", [])) if "args" in tensors else [tensors["config"]]
    if len(tensors) > 2 and isinstance(tensors[0], str):
        return [(tensors[0], int(tensors[1]))]
    return [call for tensor in tensors if isinstance(tensor, (list, dict)) for call in _calls(tensor)]


def _name(layer: dict[str, Any]) -> str:
    return str(layer.get("name") or layer["config"]["name"])


def _input_shape(model: dict[str, Any], first: _Leaf) -> Shape:
    """Return the shape that a model tells for its input, batch included."""
    config = model["config"] if isinstance(model["config"], dict) else {}
    given = [
        first.config.get("batch_shape"),
        first.config.get("batch_input_shape"),
        config.get("build_input_shape"),
    ]
    shape = next((shape for shape in given if shape), None)
    if not shape:
        raise ValueError("it does not tell the shape of its input")
    return tuple(None if size is None else int(size) for size in shape)


def _layer(leaf: _Leaf, arrays: list[NDArray[Any]], shape: Shape) -> FileLayer:
    """Return a leaf as a layer with Keras' attributes."""
    config = {key: _plain(value) for key, value in leaf.config.items()}
    if leaf.kind == "LeakyReLU" and "alpha" in config:
        config["negative_slope"] = config["alpha"]  # Keras 2's name of it.
    is_adapted = leaf.kind != "Normalization" or config.get("mean") is None
    wanted = [name.split(": ") for name in _WEIGHTS.get(leaf.kind, []) if is_adapted]
    names = [name[-1] for name in wanted if len(name) == 1 or config.get(name[0], True)]
    for name, array in zip(names, arrays, strict=False):
        if array.dtype.kind != "f" and name != "count":
            raise ValueError(
                f"{leaf.names[-1]}: its {name} has dtype {array.dtype}, expected floats: "
                "fastjac reads no quantized weights"
            )
    if len(arrays) != len(names):
        raise ValueError(
            f"{leaf.names[-1]} ({leaf.kind}) has {len(arrays)} weights, expected {', '.join(names)}"
        )
    layer = FileLayer(**_DEFAULTS | config | dict(zip(names, arrays, strict=True)) | {"kind": leaf.kind})
    if leaf.kind == "Normalization":
        axes = layer.axis if isinstance(layer.axis, list) else [] if layer.axis is None else [layer.axis]
        kept = {axis % len(shape) for axis in axes}
        along = [(size or 0) if place in kept else 1 for place, size in enumerate(shape)]
        layer.mean, layer.variance = (
            np.reshape(part, along) if is_adapted else np.asarray(part, np.float64)
            for part in (layer.mean, layer.variance)
        )
    return layer


def _plain(value: Any) -> Any:
    """Return a value of a configuration, with arrays and layers in place of their descriptions."""
    if not isinstance(value, dict) or "class_name" not in value or not isinstance(value.get("config"), dict):
        return value
    config, kind = value["config"], str(value["class_name"])
    if kind == "__numpy__":
        return config["value"]
    return FileLayer(**_DEFAULTS | {"name": kind} | config | {"kind": kind})


def _tree(arrays: Arrays, texts: dict[str, Any]) -> Any:
    """Return bare weights as `layers_of` takes them: in Keras 2's order, or by Keras 3's numbered names."""
    if "/layer_names" in texts:
        names = [(layer, texts.get(f"/{layer}/weight_names", [])) for layer in texts["/layer_names"]]
        return [
            {re.split("[/:]", f"/{name}")[-1 - (":" in name)]: arrays[f"/{layer}/{name}"] for name in weights}
            for layer, weights in names
            if weights
        ]
    tree: dict[str, dict[str, Any]] = {}
    for place, array in arrays.items():
        match = re.fullmatch(r"/layers/(.+)/vars/(\d+)", place)
        if match:
            tree.setdefault(match[1], {})[{"0": "kernel", "1": "bias"}.get(match[2], match[2])] = array
    return tree
