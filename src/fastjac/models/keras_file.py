"""Networks from .keras files: what one says it is made of is checked before Keras makes anything of it."""

from __future__ import annotations

import io
import json
import math
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastjac.models.containers import check_text, open_zip
from fastjac.models.keras import LAYERS, from_keras
from fastjac.models.limits import Budget
from fastjac.network import Network

# What a configuration may name besides layers: all of it is data.
_MODELS = ("Sequential", "Functional")
_OTHERS = ("InputLayer", "DTypePolicy", "__keras_tensor__", "__numpy__", "__tensor__")
_MODULES = (None, "keras", "keras.layers", "keras.src.models.functional", "builtins")


def read_keras(data: bytes) -> Network:
    """Return the network in the bytes of a ``.keras`` file.

    Only the configuration and the weights reach Keras, in a copy of the file that has nothing else:
    no optimiser, no custom objects, no lambda, no assets.

    Raises
    ------
    ValueError
        If the bytes are not such a file, or name anything but the layers that `from_keras` reads.
    ImportError
        If Keras is not installed.
    """
    with open_zip(data) as archive:
        entries = [archive.getinfo(name) for name in ("metadata.json", "config.json", "model.weights.h5")]
        for entry in entries[:2]:
            check_text(entry.filename, entry.file_size, len(data))
        Budget(len(data)).spend(entries[2].file_size // 4)
        metadata, config, weights = (archive.open(entry).read(entry.file_size) for entry in entries)
        config = _harmless(json.loads(config))
    numbers, _ = _weights_needed(config, None)
    if numbers > len(weights):
        raise ValueError(f"its layers would have {numbers} weights, its weights have {len(weights)} bytes")
    import h5py
    import keras

    with h5py.File(io.BytesIO(weights)) as file:
        _check_hdf5(file)
    with tempfile.TemporaryDirectory(prefix="fastjac-") as scratch:
        copy = Path(scratch) / "model.keras"
        with zipfile.ZipFile(copy, "w") as archive:
            archive.writestr("metadata.json", metadata)
            archive.writestr("config.json", json.dumps(config))
            archive.writestr("model.weights.h5", weights)
        return from_keras(keras.saving.load_model(copy, compile=False, safe_mode=True))


def _harmless(config: Any) -> Any:
    """Return a configuration without what only training needs, after a look at every name in it."""
    if isinstance(config, list):
        return [_harmless(item) for item in config]
    if not isinstance(config, dict):
        return config
    if "class_name" in config:
        name, module = config["class_name"], config.get("module")
        known = module in _MODULES and name in (*LAYERS, *_MODELS, *_OTHERS)
        if not known or config.get("registered_name") not in (None, name):
            raise ValueError(f"it has a {module}.{name}, which fastjac does not let Keras make from a file")
    kept: dict[str, Any] = {}
    for key, value in config.items():
        if key.endswith("_initializer"):
            kept[key] = "zeros"
        elif key.endswith(("_regularizer", "_constraint")):
            kept[key] = None
        elif key != "compile_config":
            kept[key] = _harmless(value)
    return kept


def _weights_needed(model: Any, width: int | None) -> tuple[int, int | None]:
    """Return how many weights a model's Dense layers would have, and how wide its output would be."""
    numbers = 0
    for layer in _in_order(model["config"]):
        kind, config = layer["class_name"], layer["config"]
        if kind in _MODELS:
            more, width = _weights_needed(layer, width)
            numbers += more
        elif kind == "InputLayer":
            width = math.prod(abs(int(size)) for size in config["batch_shape"][1:])
        elif kind == "Dense":
            if width is None:
                raise ValueError("it has no input of a known shape")
            numbers += width * abs(int(config["units"]))
            width = abs(int(config["units"]))
    return numbers, width


def _in_order(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the layers of a model's configuration in the order in which they compute."""
    if "input_layers" not in config:
        yield from config["layers"]
        return
    layers = {layer["name"]: layer for layer in config["layers"]}
    calls: list[tuple[str, int]] = []
    name, number, _ = config["output_layers"]
    while True:
        calls.append((name, int(number)))
        nodes = layers[name]["inbound_nodes"]
        if not nodes:
            break
        tensors = [argument for argument in nodes[int(number)]["args"] if isinstance(argument, dict)]
        if len(tensors) != 1 or (name, int(number)) in calls[:-1]:
            raise ValueError(f"its layer {name!r} has {len(tensors)} inputs, expected 1")
        name, number, _ = tensors[0]["config"]["keras_history"]
    for name, _ in reversed(calls):
        yield layers[name]


def _check_hdf5(group: Any) -> None:
    """Raise ValueError if weights are anywhere but in the file, or larger than what it has for them."""
    import h5py

    for name in group:
        item = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
        if isinstance(item, h5py.Group):
            _check_hdf5(item)
        elif (
            not isinstance(item, h5py.Dataset)
            or item.is_virtual
            or item.external
            or item.id.get_storage_size() < item.nbytes
        ):
            raise ValueError(f"its weights {name!r} are not plain numbers in the file itself")
