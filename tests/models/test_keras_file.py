"""load of .keras files, and what comes of those that are damaged or hostile."""

import io
import json
import zipfile

import numpy as np
import pytest

from fastjac.models import from_keras
from fastjac.models.files import ModelError, load

keras = pytest.importorskip("keras")
h5py = pytest.importorskip("h5py")
layers = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

rng = np.random.default_rng(0)


def sequential():
    normalization = layers.Normalization()
    normalization.adapt(rng.normal(size=(20, 2, 3)) * 2 + 1)
    return keras.Sequential(
        [
            keras.Input((2, 3)),
            layers.Rescaling(0.5, offset=[1.0, 2.0, 3.0]),
            normalization,
            layers.Flatten(),
            layers.Dense(4, kernel_regularizer="l2", kernel_constraint="max_norm"),
            layers.BatchNormalization(),
            layers.ReLU(max_value=3),
            keras.Sequential([layers.Dense(3, activation=layers.LeakyReLU(0.1)), layers.Dropout(0.5)]),
            layers.Dense(2, activation="softmax"),
        ]
    )


def functional():
    inputs = keras.Input((3,))
    twice = layers.Dense(3, activation="tanh")
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(twice(twice(inputs))))


@pytest.fixture(params=[sequential, functional])
def saved(request, tmp_path):
    model = request.param()
    model.compile("adam", "mse")
    model.save(tmp_path / "m.keras")
    return model, tmp_path / "m.keras"


def test_same_as_from_keras(saved):
    model, path = saved
    net, other = load(path), from_keras(model)
    assert net.dtype == other.dtype
    for layer, expected in zip(net.layers, other.layers, strict=True):
        np.testing.assert_array_equal(layer.w, expected.w)
        np.testing.assert_array_equal(layer.b, expected.b)
        assert layer.activation == expected.activation


def rewrite(path, change=None, **entries):
    """Write a file again with a changed configuration, or with other entries."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    if change is not None:
        config = json.loads(contents["config.json"])
        change(config)
        contents["config.json"] = json.dumps(config).encode()
    contents |= {name.replace("_", "."): data for name, data in entries.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)


def append(layer):
    return lambda config: config["config"]["layers"].append(layer)


def put(key, value):
    def change(config):
        dense = [layer for layer in config["config"]["layers"] if layer["class_name"] == "Dense"][-1]
        dense["config"][key] = value

    return change


LAMBDA = {"module": "keras.layers", "class_name": "Lambda", "config": {"function": "print"}}
GADGET = {"module": "keras.utils", "class_name": "get_file", "config": {"origin": "file:///etc/passwd"}}
FUNCTION = {"module": "builtins", "class_name": "function", "config": "eval", "registered_name": "function"}
OTHER = {"module": "os", "class_name": "Dense", "config": {}, "registered_name": None}
CUSTOM = {"module": "keras.layers", "class_name": "Dense", "config": {}, "registered_name": "mine>Dense"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (append(LAMBDA), r"keras\.layers\.Lambda"),
        (append(GADGET), r"keras\.utils\.get_file"),
        (append(OTHER), r"os\.Dense"),
        (append(CUSTOM), r"keras\.layers\.Dense"),
        (put("activation", FUNCTION), r"builtins\.function"),
        (put("activation", {"class_name": "__lambda__", "config": {}}), r"None\.__lambda__"),
        (put("units", 10**9), "would have .* weights"),
        (put("units", "many"), "m.keras"),
        (lambda config: config.update(class_name="Model"), r"keras.*Model, which fastjac does not let"),
        (lambda config: config.clear(), "m.keras"),
        (lambda config: config["config"].clear(), "m.keras"),
    ],
    ids=range(11),
)
def test_hostile_configurations(change, message, saved):
    _, path = saved
    rewrite(path, change)
    with pytest.raises(ModelError, match=message):
        load(path)


def weights_with(change):
    """Return an HDF5 file of one group with whatever ``change`` puts there."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        change(file.create_group("layers/dense/vars"))
    return stream.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        lambda group: group.create_dataset("0", (3,), "f4", external=[("/etc/hostname", 0, 12)]),
        lambda group: group.__setitem__("0", h5py.ExternalLink("/etc/hostname", "/")),
        lambda group: group.__setitem__("0", h5py.SoftLink("/layers")),
        lambda group: group.create_dataset("0", (10**6, 10**6), "f4", chunks=(100, 100)),
        lambda group: group.create_dataset(
            "0", (1000, 1000), data=np.zeros((1000, 1000)), compression="gzip"
        ),
        lambda group: group.create_virtual_dataset("0", h5py.VirtualLayout((3,), "f4")),
    ],
    ids=["external", "link", "soft link", "empty", "compressed", "virtual"],
)
def test_weights_are_in_the_file(change, saved):
    _, path = saved
    with zipfile.ZipFile(path) as archive:
        others = {name: archive.read(name) for name in archive.namelist() if not name.endswith(".h5")}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in others.items():
            archive.writestr(name, data)
        archive.writestr("model.weights.h5", weights_with(change) + bytes(10**5))
    with pytest.raises(ModelError, match="not plain numbers in the file itself"):
        load(path)


def test_damage_is_noticed(saved):
    _, path = saved
    data = path.read_bytes()
    for place in range(0, len(data), len(data) // 60):
        for mutated in (data[:place], data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]):
            path.write_bytes(mutated)
            try:
                net = load(path)
            except ModelError:
                continue
            assert net.n_outputs == 2


def test_zip_bombs_are_not_unpacked(tmp_path):
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", " " * 10**7)
        archive.writestr("model.weights.h5", "")
    with pytest.raises(ModelError, match=r"config\.json should have 10000000 bytes"):
        load(path)
