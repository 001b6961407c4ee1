"""Networks from Keras' files, .keras and .h5, read as data: neither Keras nor code in a file runs."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastjac.layers import Activation
from fastjac.models.containers import Arrays, check_text, open_zip
from fastjac.models.hdf5 import read_hdf5
from fastjac.models.keras_calls import Argument, Call, graph_of, is_chain, network_of
from fastjac.models.keras_layers import OLD_HARD_SIGMOID, FileLayer, Shape, size_of
from fastjac.models.limits import MOST_LAYERS, Budget, network
from fastjac.models.params import Activations, check_activations, layers_of
from fastjac.network import Network

_MODELS = ("Sequential", "Functional", "Model")
# Keras' names and order of the weights of a layer. One after a colon is there if the attribute before it is.
_WEIGHTS = {
    "Dense": ["kernel", "use_bias: bias"],
    "BatchNormalization": ["scale: gamma", "center: beta", "moving_mean", "moving_variance"],
    "Normalization": ["mean", "variance", "count"],
    "PReLU": ["alpha"],
    "LayerNormalization": ["scale: gamma", "center: beta"],
    "RMSNormalization": ["scale"],
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
    inputs = _input_shapes(model)
    calls: list[Call] = []
    output = _follow(model, "/", (), list(range(len(inputs))), len(inputs), calls)

    def layer_of(call: Call, shape: Shape) -> FileLayer:
        layer = _layer(call.layer, found(call.layer) if call.kind in _WEIGHTS else [], shape)
        if layer.activation == "hard_sigmoid" and re.match("[0-2][.]", version):
            layer.activation = OLD_HARD_SIGMOID
        return layer

    dense = [call.layer for call in calls if call.kind == "Dense"]
    is_wide = any(array.dtype == np.float64 for leaf in dense for array in found(leaf)[:1])
    dtype = np.float64 if is_wide else np.float32
    if is_chain(inputs, calls, output):
        (shape,) = inputs.values()
        ready = []
        for call in calls:
            layer = layer_of(call, shape)
            if call.kind in ("BatchNormalization", "Normalization", "Rescaling", "PReLU"):
                budget.spend(size_of(shape) or 0)
            ready.append(call._replace(layer=layer, shape=shape))
            if call.kind == "Dense":
                shape = (*shape[:-1], layer.kernel.shape[1])
            elif call.kind == "Flatten":
                shape = (shape[0], size_of(shape))
        return network_of(inputs, ready, output, dtype, budget)
    return graph_of(inputs, calls, output, layer_of, dtype, budget)


def _input_shapes(model: dict[str, Any]) -> dict[str, Shape]:
    """Return the names and shapes of a model's inputs, batch included."""
    config = model["config"]
    layers = config if isinstance(config, list) else config["layers"]
    if isinstance(config, list) or "input_layers" not in config:
        first = layers[0]
        while first["class_name"] in _MODELS:
            inner = first["config"]
            first = (inner if isinstance(inner, list) else inner["layers"])[0]
        return {"input": _input_shape(model, first["config"])}
    by_name = {_name(layer): layer for layer in layers}
    return {name: _input_shape(model, by_name[name]["config"]) for name, _ in _calls(config["input_layers"])}


def _follow(
    model: dict[str, Any],
    place: str,
    names: tuple[str, ...],
    inputs: list[int],
    first: int,
    calls: list[Call],
) -> int:
    """Add the calls of a model to a list, and return the number of its output; see `Call`."""
    config = model["config"]
    layers = config if isinstance(config, list) else config["layers"]
    places = _places(layers, place)

    def call(layer: dict[str, Any], before: list[int], arguments: Any = None) -> int:
        kind, name = layer["class_name"], _name(layer)
        if layer.get("registered_name") not in (None, kind) or not _module(layer).startswith(
            ("keras", "tf_keras")
        ):
            raise ValueError(f"{name} is a {layer.get('module')}.{kind}, which is none of Keras' own layers")
        if kind in _MODELS:
            return _follow(layer, places[name], (*names, name), before, first, calls)
        if len(calls) > 10 * MOST_LAYERS:
            raise ValueError(f"it has more than {10 * MOST_LAYERS} layers")
        leaf = _Leaf(kind, layer["config"], places.get(name, ""), (*names, name))
        calls.append(Call(leaf, kind, f"{name} ({kind})", tuple(before), (), arguments))
        return first + len(calls) - 1

    if isinstance(config, list) or "output_layers" not in config:
        (number,) = inputs
        for layer in layers:
            number = number if layer["class_name"] == "InputLayer" else call(layer, [number])
        return number
    by_name = {_name(layer): layer for layer in layers}
    known = dict(zip(_calls(config["input_layers"]), inputs, strict=True))
    outputs = _calls(config["output_layers"])
    if len(outputs) != 1:
        raise ValueError(f"it has {len(outputs)} outputs, expected one")
    waiting, open_calls = [outputs[0]], set()
    while waiting:
        each = name, number = waiting[-1]
        if each in known:
            waiting.pop()
            continue
        node = by_name[name]["inbound_nodes"][number]
        before = _calls(node)
        missing = [other for other in before if other not in known]
        if missing:
            if each in open_calls:
                raise ValueError(f"its layer {name!r} needs its own output")
            open_calls.add(each)
            waiting += reversed(missing)
            continue
        if '"training": true' in json.dumps(node):
            raise ValueError(f"its layer {name!r} is called as in training")
        is_operation = _module(by_name[name]).startswith("keras.src.ops")
        arguments = _arguments(node, known) if is_operation else None
        known[each] = call(by_name[name], [known[other] for other in before], arguments)
    return known[outputs[0]]


def _module(layer: dict[str, Any]) -> str:
    return str(layer.get("module", "keras"))


def _places(layers: list[dict[str, Any]], place: str) -> dict[str, str]:
    """Return where the weights of each layer of a model are in a ``.keras`` file."""
    places: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for layer in layers:
        if _module(layer).startswith("keras.src.ops"):
            continue
        kind = _snake_case(layer["class_name"].replace("Model", "Functional"))
        places[_name(layer)] = (
            f"{place}layers/{kind}_{counts[kind]}/" if counts[kind] else f"{place}layers/{kind}/"
        )
        counts[kind] += 1
    return places


def _snake_case(name: str) -> str:
    """Return a class's name as Keras names a folder after it: batch_normalization, p_re_lu."""
    return re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)).lower()


def _arguments(node: dict[str, Any], known: dict[tuple[str, int], int]) -> tuple[Any, ...]:
    """Return the arguments of an operation: tensors, slices and numbers."""

    def argument(given: Any) -> Any:
        if isinstance(given, dict) and given.get("class_name") == "__keras_tensor__":
            return Argument(known[_calls(given)[0]])
        if isinstance(given, dict) and given.get("class_name") == "__slice__":
            return slice(*(given["config"][name] for name in ("start", "stop", "step")))
        if isinstance(given, list):
            return [argument(each) for each in given]
        if isinstance(given, (dict, str)):
            raise ValueError(f"an operation has the argument {given!r}")
        return given

    return tuple(argument(each) for each in (*node["args"], *node["kwargs"].values()))


def _calls(tensors: Any) -> list[tuple[str, int]]:
    """Return which calls of which layers make tensors, as Keras 2 or Keras 3 spell them."""
    if isinstance(tensors, dict):
        if tensors.get("class_name") == "__slice__":
            return []
        if "keras_history" in tensors:
            tensors = tensors["keras_history"]
        else:
            tensors = list(tensors.get("args", [])) if "args" in tensors else [tensors["config"]]
    if len(tensors) > 2 and isinstance(tensors[0], str):
        return [(tensors[0], int(tensors[1]))]
    return [call for tensor in tensors if isinstance(tensor, (list, dict)) for call in _calls(tensor)]


def _name(layer: dict[str, Any]) -> str:
    return str(layer.get("name") or layer["config"]["name"])


def _input_shape(model: dict[str, Any], first: dict[str, Any]) -> Shape:
    """Return the shape that a model, or the configuration of its first layer, tells for its input."""
    config = model["config"] if isinstance(model["config"], dict) else {}
    shape = first.get("batch_shape") or first.get("batch_input_shape") or config.get("build_input_shape")
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
