"""Keras' HDF5 files, written here as Keras 2 and Keras 3 write them, and what comes of hostile ones."""

import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from fastjac import Network
from fastjac.models import hdf5, hdf5_child
from fastjac.models.files import ModelError, load

h5py = pytest.importorskip("h5py")

rng = np.random.default_rng(0)
W = [rng.normal(size=shape).astype("f4") for shape in ((4, 3), (3, 2))]
B = [rng.normal(size=size).astype("f4") for size in (3, 2)]
STATISTICS = dict(
    zip(("gamma", "beta", "moving_mean", "moving_variance"), rng.uniform(1, 2, (4, 3)), strict=True)
)


def layer(kind, name, **config):
    return {"class_name": kind, "config": {"name": name, "trainable": True, "dtype": "float32", **config}}


def dense(number, activation):
    return layer("Dense", f"dense_{number}", units=len(B[number - 1]), activation=activation, use_bias=True)


LAYERS = [
    dense(1, "linear"),
    layer("BatchNormalization", "norm", axis=[1], momentum=0.99, epsilon=0.5, center=True, scale=True),
    layer("LeakyReLU", "leaky", alpha=0.25),
    layer("Dropout", "dropout", rate=0.5),
    dense(2, "softmax"),
]


def sequential_of_keras_2():
    shape = {
        "batch_input_shape": [None, 4],
        "name": "input",
        "dtype": "float32",
        "sparse": False,
        "ragged": False,
    }
    return {
        "class_name": "Sequential",
        "config": {"name": "sequential", "layers": [{"class_name": "InputLayer", "config": shape}, *LAYERS]},
    }


def sequential_without_an_input_layer():
    first = LAYERS[0] | {"config": LAYERS[0]["config"] | {"batch_input_shape": [None, 4]}}
    return {"class_name": "Sequential", "config": {"name": "sequential", "layers": [first, *LAYERS[1:]]}}


def functional_of_keras_2():
    layers = [{"name": "input", "class_name": "InputLayer", "inbound_nodes": []}]
    layers[0]["config"] = {
        "batch_input_shape": [None, 4],
        "dtype": "float32",
        "sparse": False,
        "name": "input",
    }
    for part in LAYERS:
        node = [[[layers[-1]["name"], 0, 0, {}]]]
        layers.append({"name": part["config"]["name"], "inbound_nodes": node, **part})
    ends = {"input_layers": [["input", 0, 0]], "output_layers": [["dense_2", 0, 0]]}
    layers[1:] = layers[:0:-1]  # Any order will do.
    return {"class_name": "Functional", "config": {"name": "model", "layers": layers, **ends}}


def weights_of_keras_2(group):
    """Write weights, and the attributes that tell their order."""
    names = [part["config"]["name"] for part in LAYERS]
    group.attrs["layer_names"] = [name.encode() for name in names]
    for name in names:
        arrays = {}
        if name.startswith("dense"):
            number = int(name[-1]) - 1
            arrays = {f"{name}/kernel:0": W[number], f"{name}/bias:0": B[number]}
        elif name == "norm":
            arrays = {f"norm/{key}:0": value.astype("f4") for key, value in STATISTICS.items()}
        own = group.create_group(name)
        own.attrs["weight_names"] = [key.encode() for key in arrays]
        for key, array in arrays.items():
            own[key] = array


EXPECTED = Network(
    [
        (
            W[0].astype("f8") * (STATISTICS["gamma"] / np.sqrt(STATISTICS["moving_variance"] + 0.5)),
            (B[0] - STATISTICS["moving_mean"])
            * (STATISTICS["gamma"] / np.sqrt(STATISTICS["moving_variance"] + 0.5))
            + STATISTICS["beta"],
        ),
        (W[1], B[1]),
    ],
    "leaky_relu(0.25)",
)


@pytest.mark.parametrize(
    "config", [sequential_of_keras_2, sequential_without_an_input_layer, functional_of_keras_2]
)
def test_models_of_keras_2(config, tmp_path):
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config())
        weights_of_keras_2(file.create_group("model_weights"))
    net = load(path)
    assert net.dtype == np.float32
    assert [str(layer.activation) for layer in net.layers] == ["leaky_relu(0.25)", "softmax"]
    x = rng.normal(size=(5, 4)).astype("f4")
    np.testing.assert_allclose(net.value_and_jacobian(x)[0], EXPECTED.value_and_jacobian(x)[0], rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_keras_reads_these_files_too(tmp_path):
    keras = pytest.importorskip("keras")
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(sequential_of_keras_2())
        weights_of_keras_2(file.create_group("model_weights"))
    x = rng.normal(size=(5, 4)).astype("f4")
    expected = keras.ops.convert_to_numpy(keras.models.load_model(path)(x))
    np.testing.assert_allclose(load(path).value_and_jacobian(x)[0], expected, rtol=1e-5)


def test_weights_of_keras_2_alone(tmp_path):
    path = tmp_path / "m.hdf5"
    with h5py.File(path, "w") as file:
        weights_of_keras_2(file)
        del file["norm"]
    net = load(path, "tanh", "softmax")
    for part, w, b in zip(net.layers, W, B, strict=True):
        np.testing.assert_array_equal(part.w, w)
        np.testing.assert_array_equal(part.b, b)
    with h5py.File(path, "w") as file:
        weights_of_keras_2(file)
    with pytest.raises(ModelError, match=r"weights\[1\] has gamma, beta, moving_mean"):
        load(path, "tanh", "softmax")


def keras_3(path, layers, arrays):
    """Write a .keras file."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    start = {"class_name": "InputLayer", "config": {"batch_shape": [None, 4], "name": "input"}}
    config = {"class_name": "Sequential", "config": {"name": "sequential", "layers": [start, *layers]}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", stream.getvalue())
    return path


ARRAYS = {
    "layers/dense/vars/0": W[0],
    "layers/dense/vars/1": B[0],
    "layers/dense_1/vars/0": W[1],
    "layers/dense_1/vars/1": B[1],
}


def test_a_model_of_keras_3(tmp_path):
    net = load(keras_3(tmp_path / "m.keras", [dense(1, "tanh"), dense(2, "softmax")], ARRAYS))
    for part, w, b in zip(net.layers, W, B, strict=True):
        np.testing.assert_array_equal(part.w, w)
        np.testing.assert_array_equal(part.b, b)
    assert [str(part.activation) for part in net.layers] == ["tanh", "softmax"]


@pytest.mark.parametrize(
    ("layers", "changes", "message"),
    [
        ([dense(1, "tanh"), layer("LSTM", "cells", units=3)], {}, r"cells \(LSTM\) is not a layer that"),
        ([dense(1, "tanh"), dense(2, "softmax")], {"layers/dense_1/vars/1": None}, "dense_2.* has 1 weights"),
        (
            [dense(1, "tanh")],
            {"layers/dense/vars/0": W[0].astype("i1")},
            "kernel has dtype int8.*no quantized",
        ),
        ([dense(1, "tanh")], {"layers/dense/vars/0": W[0].T}, "takes 3 inputs, but gets 4|bias has shape"),
        ([dense(1, "hard_shrink")], {}, "has the activation 'hard_shrink', expected one of linear"),
    ],
)
def test_other_models_are_refused(layers, changes, message, tmp_path):
    arrays = {name: array for name, array in (ARRAYS | changes).items() if array is not None}
    with pytest.raises(ModelError, match=message):
        load(keras_3(tmp_path / "m.keras", layers, arrays))


def test_a_missing_h5py_is_named_with_its_extra(tmp_path, monkeypatch):
    (tmp_path / "h5py.py").write_text("raise ImportError('not installed')")
    monkeypatch.syspath_prepend(tmp_path)
    path = keras_3(tmp_path / "m.keras", [dense(1, "tanh")], ARRAYS)
    with pytest.raises(ImportError, match=r"a \.keras file needs h5py: pip install 'fastjac\[h5py\]'"):
        load(path)


def test_the_death_of_the_process_is_a_model_error(tmp_path, monkeypatch):
    path = keras_3(tmp_path / "m.keras", [dense(1, "tanh")], ARRAYS)
    monkeypatch.setattr(hdf5, "_LAUNCH", "import os; os.abort()")
    with pytest.raises(ModelError, match="the HDF5 library died of it"):
        load(path)
    monkeypatch.setattr(hdf5, "_MOST_WAITED", 0.1)
    monkeypatch.setattr(hdf5, "_LAUNCH", "import time; time.sleep(60)")
    with pytest.raises(ModelError, match=r"the HDF5 library took more than 0\.1 seconds"):
        load(path)


def test_a_program_that_is_not_python_starts_no_process(tmp_path, monkeypatch):
    path = keras_3(tmp_path / "m.keras", [dense(1, "tanh")], ARRAYS)
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(ModelError, match="a Python process of its own, which this program cannot start"):
        load(path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not heed the limits")
@pytest.mark.parametrize("greed", ["bytearray(10**9)", "[0 for _ in iter(int, 1)]", "any(iter(int, 1))"])
def test_the_process_has_limits(greed):
    code = f"import sys; sys.path.insert(0, {str(hdf5_child.__file__.rpartition('/')[0])!r})\n"
    code += f"import hdf5_child; hdf5_child._limit(1000); {greed}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert result.returncode != 0


# Hostile files.


def cycle(file):
    file["a"] = file["/"]


def many_names(file):
    file["0"] = np.zeros(1000)
    for number in range(1, 200):
        file[str(number)] = file["0"]


def many_groups(file):
    for number in range(21_000):
        file.create_group(str(number))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda file: file.create_dataset("0", (3,), "f4", external=[("/etc/hostname", 0, 12)]),
            "plain numbers",
        ),
        (
            lambda file: file.__setitem__("0", h5py.ExternalLink("/etc/hostname", "/")),
            "not in the file itself",
        ),
        (lambda file: file.__setitem__("0", h5py.SoftLink("/layers")), "not in the file itself"),
        (lambda file: file.create_dataset("0", (10**6, 10**6), "f4", chunks=(100, 100)), "plain numbers"),
        (
            lambda file: file.create_dataset("0", data=np.zeros((999, 999)), compression="gzip"),
            "plain numbers",
        ),
        (lambda file: file.create_virtual_dataset("0", h5py.VirtualLayout((3,), "f4")), "plain numbers"),
        (lambda file: file.create_dataset("0", data=b"text"), "expected real numbers"),
        (lambda file: file.__setitem__("0", np.dtype("f4")), "not in the file itself"),
        (cycle, "recursion|groups and arrays"),
        (many_names, "larger than the file"),
        (many_groups, "more than 10000 groups and arrays"),
    ],
    ids=range(11),
)
def test_hostile_files(change, message, tmp_path):
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        change(file)
    with pytest.raises(ModelError, match=message):
        load(path, "relu", "softmax")
