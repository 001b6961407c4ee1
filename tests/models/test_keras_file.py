"""load of .keras and .h5 files, and what comes of those that are damaged or hostile."""

import io
import json
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

import fastjac
from fastjac.models import from_keras
from fastjac.models.files import ModelError, load
from fastjac.models.keras_layers import JOINS
from fastjac.models.tensors import tensor

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
            layers.Dense(4),
            layers.PReLU(),
            layers.Dense(4, activation="hard_sigmoid"),
            layers.Dense(2, activation="softmax"),
        ]
    )


def functional():
    inputs = keras.Input((3,))
    twice = layers.Dense(3, activation="tanh")
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(twice(twice(inputs))))


def images():
    return keras.Sequential(
        [
            keras.Input((4, 3, 2)),
            layers.Normalization(axis=1, mean=None),
            layers.BatchNormalization(axis=2, scale=False),
            layers.Normalization(axis=None, mean=0.5, variance=2.0, invert=True),
            layers.Flatten(),
            layers.Dense(5, activation="elu", use_bias=False),
            layers.GaussianNoise(0.1),
            layers.Activation("swish"),
            layers.Dense(1, activation=layers.ELU(0.5)),
        ]
    )


def nested_and_shared():
    inner = keras.Sequential(
        [keras.Input((3,)), layers.Dense(3, activation="tanh"), layers.BatchNormalization()]
    )
    inputs = keras.Input((3,))
    middle = keras.Model(inputs, layers.Dense(3)(inner(inputs)))
    outside = keras.Input((3,))
    return keras.Model(outside, layers.Dense(2)(layers.Dense(3)(middle(middle(outside)))))


def many_layers():
    return keras.Sequential([keras.Input((2,)), *(layers.Dense(2, activation="tanh") for _ in range(12))])


MODELS = [sequential, functional, images, nested_and_shared, many_layers]


def shaken(model):
    """Return the model with weights that are all different, and variances that are positive."""
    model.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in model.get_weights()])
    for layer in model._flatten_layers(include_self=False):
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    return model


@pytest.fixture(params=[sequential, functional])
def saved(request, tmp_path):
    model = request.param()
    model.compile("adam", "mse")
    model.save(tmp_path / "m.keras")
    return model, tmp_path / "m.keras"


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [  # Keras itself cannot write bfloat16 to .h5.
        *((".keras", dtype) for dtype in ("float32", "float64", "mixed_bfloat16", "bfloat16")),
        *((".h5", dtype) for dtype in ("float32", "float64", "mixed_bfloat16")),
    ],
)
@pytest.mark.parametrize("make", MODELS)
def test_same_as_from_keras(make, suffix, dtype, tmp_path):
    keras.config.set_dtype_policy(dtype)
    if keras.backend.backend() == "jax":
        pytest.importorskip("jax").config.update("jax_enable_x64", True)
    try:
        model = shaken(make())
    finally:
        keras.config.set_dtype_policy("float32")
    model.save(tmp_path / f"m{suffix}")
    net, other = load(tmp_path / f"m{suffix}"), from_keras(model)
    assert net.dtype == other.dtype
    # Keras rounds what Normalization has learnt to the dtype that it computes in.
    tolerance = 2.0**-7 if dtype == "mixed_bfloat16" else 0
    for layer, expected in zip(net.layers, other.layers, strict=True):
        np.testing.assert_allclose(layer.w, expected.w, rtol=tolerance)
        np.testing.assert_allclose(layer.b, expected.b, rtol=tolerance, atol=8 * tolerance)
        assert layer.activation == expected.activation


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_the_hard_sigmoid_of_keras_2_was_another(suffix, tmp_path):
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, activation="hard_sigmoid", use_bias=False)])
    model.set_weights([np.ones((1, 1))])
    path = tmp_path / f"m{suffix}"
    model.save(path)
    assert load(path)([1.2]) == pytest.approx((1.2 + 3) / 6)
    if suffix == ".h5":
        with h5py.File(path, "a") as file:
            file.attrs["keras_version"] = "2.15.0"
    else:
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        entries["metadata.json"] = json.dumps({"keras_version": "2.15.0"}).encode()
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in entries.items():
                archive.writestr(name, data)
    net = load(path)
    for x, y in ((-2.6, 0), (1.2, 0.2 * 1.2 + 0.5), (2.4, 0.98), (2.6, 1)):
        assert net([x]) == pytest.approx(y)


def graph():
    state, action = keras.Input((4,), name="state"), keras.Input((2,), name="action")
    h = layers.Concatenate()([layers.LayerNormalization()(layers.Dense(5, activation="tanh")(state)), action])
    block = keras.Sequential([keras.Input((7,)), layers.Dense(7, activation="elu")])
    h = layers.Add()([h, block(layers.RMSNormalization()(h))])
    h = layers.Multiply()([h, layers.Dense(7)(layers.LayerNormalization(center=False)(h))])
    return keras.Model([state, action], layers.Dense(2, activation="softmax")(h))


def operations():
    x = keras.Input((6,))
    h = layers.Multiply()([x, layers.Dense(6, activation="tanh")(x)])
    return keras.Model(x, layers.Dense(2)((x[:, :3] - 2 * h[:, 3:]) * 0.5 + h[:, ::2] / 4 - 1))


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize(("make", "suffix"), [(graph, ".keras"), (graph, ".h5"), (operations, ".keras")])
def test_graphs_are_the_same_as_from_keras(make, suffix, tmp_path):
    model = shaken(make())
    model.save(tmp_path / f"m{suffix}")
    net, other = load(tmp_path / f"m{suffix}"), from_keras(model)
    assert (net.dtype, net.input_names) == (other.dtype, other.input_names)
    x = rng.normal(size=(3, 6))
    for result, expected in zip(net.value_and_jacobian(x), other.value_and_jacobian(x), strict=True):
        np.testing.assert_array_equal(result, expected)


def test_graphs_that_grow_without_bound_are_refused(saved):
    """A graph that doubles its tensor with each layer."""
    x = keras.Input((3,))
    y = layers.Concatenate()([x, x])
    for _ in range(25):
        y = layers.Concatenate()([y, y])
    path = saved[1]
    keras.Model(x, y).save(path)
    with pytest.raises(ModelError, match="far more memory"):
        load(path)


def test_weights_alone(tmp_path):
    model = shaken(many_layers())
    model.save_weights(tmp_path / "m.weights.h5")
    net, other = load(tmp_path / "m.weights.h5", "tanh", "tanh"), from_keras(model)
    for layer, expected in zip(net.layers, other.layers, strict=True):
        np.testing.assert_array_equal(layer.w, expected.w)
    with pytest.raises(ModelError, match="holds weights but no activations"):
        load(tmp_path / "m.weights.h5")
    model.save(tmp_path / "m.keras")
    with pytest.raises(ModelError, match="tells its activations itself"):
        load(tmp_path / "m.keras", "tanh", "tanh")


def test_frozen_layers_and_training_mode(tmp_path):
    inputs = keras.Input((3,))
    frozen = layers.BatchNormalization(trainable=False)
    model = shaken(keras.Model(inputs, layers.Dense(2)(frozen(inputs))))
    model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(load(tmp_path / "m.keras").layers[0].w, from_keras(model).layers[0].w)
    model = keras.Model(inputs, layers.Dense(2)(layers.Dropout(0.5)(inputs, training=True)))
    with pytest.raises(ValueError, match="called with training=True"):
        from_keras(model)
    model.save(tmp_path / "m.keras")
    with pytest.raises(ModelError, match="is called as in training"):
        load(tmp_path / "m.keras")


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize`")
def test_quantized_layers_are_refused(tmp_path):
    model = functional()
    model.quantize("int8")
    model.save(tmp_path / "m.keras")
    with pytest.raises(ModelError, match=r"its kernel has dtype int8.*no quantized weights|has \d weights"):
        load(tmp_path / "m.keras")


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


LAMBDA = {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "lambda"}}
GADGET = {"module": "keras.utils", "class_name": "get_file", "config": {"name": "file"}}
FUNCTION = {"module": "builtins", "class_name": "function", "config": "eval", "registered_name": "function"}
OTHER = {"module": "os", "class_name": "Dense", "config": {"name": "other"}}
CUSTOM = {
    "module": "keras.layers",
    "class_name": "Dense",
    "config": {"name": "custom"},
    "registered_name": "mine>Dense",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("activation", FUNCTION), "has the activation"),
        (put("activation", {"class_name": "__lambda__", "config": {}}), "__lambda__"),
        (put("use_bias", False), "has 2 weights, expected kernel"),
        (lambda config: config.clear(), "m.keras"),
        (lambda config: config["config"].clear(), "m.keras"),
    ],
    ids=range(5),
)
def test_damaged_configurations(change, message, saved):
    _, path = saved
    rewrite(path, change)
    with pytest.raises(ModelError, match=message):
        load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (append(LAMBDA), r"lambda \(Lambda\) is not a layer that fastjac reads"),
        (append(GADGET), r"file is a keras\.utils\.get_file|get_file\) is not a layer"),
        (append(OTHER), r"other is a os\.Dense, which is none of Keras' own"),
        (append(CUSTOM), r"custom is a keras\.layers\.Dense, which is none of Keras' own"),
    ],
    ids=range(4),
)
def test_hostile_configurations(change, message, tmp_path):
    path = tmp_path / "m.keras"
    sequential().save(path)
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
    with pytest.raises(ModelError, match=r"is not (plain numbers )?in the file itself"):
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


@pytest.mark.parametrize("kind", ["LayerNormalization", "RMSNormalization"])
@pytest.mark.parametrize("axis", [0, [1, 0], -2])
def test_no_layer_normalises_over_samples(axis, kind):
    # Keras builds no such layer, but a file may tell of one.
    layer = SimpleNamespace(axis=axis, gamma=None, beta=None, scale=None, epsilon=1e-6)
    sample = tensor(fastjac.graph.input(4), (1, 4))
    with pytest.raises(ValueError, match=r"first normalises along axes .*, of which one counts samples"):
        JOINS[kind](layer, "first", sample)
