"""save and load: exact round trips, and what comes of files that are damaged or hostile."""

import json
import os
import pathlib
import pickle
import sys
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastjac import Network
from fastjac.layers import Activation
from fastjac.models.files import _CONTAINERS, ModelError, load, save
from support.networks_in_files import NET, entry, layers, safetensors, same

SUFFIXES = (".npz", ".safetensors")
DATA = pathlib.Path(__file__).parent / "data"


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip_is_exact(dtype, suffix, tmp_path):
    path = tmp_path / f"m{suffix}"
    for net in (
        NET,
        Network(layers((3, 2), dtype=dtype)),
        Network(layers((1, 1), (1, 1), dtype=dtype), "elu(0.3)"),
    ):
        save(net, path)
        assert same(load(path), net)
        assert same(load(str(path)), net)


NEWER = ["selu", "celu(0.5)", "hard_sigmoid", "hard_swish", "mish", "softsign", "exp", "square", "abs", "sin"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_newer_activations_are_version_2(dtype, suffix, tmp_path):
    path = tmp_path / f"m{suffix}"
    slopes = Activation("prelu", tuple(np.array([0.1, 1 / 3, -2.0], dtype).tolist()))
    activations = [*NEWER, "cos", slopes, "prelu(0.2)"]
    net = Network(layers(*[(3, 3)] * 14, dtype=dtype), activations, "prelu")
    save(net, path)
    assert same(load(path), net)
    assert same(pickle.loads(pickle.dumps(net)), net) and same(net.replace(dtype=dtype), net)
    arrays, text = _CONTAINERS[suffix][0](path.read_bytes())
    assert json.loads(text)["version"] == 2
    (name,) = (name for name in arrays if name.startswith("parameter"))
    np.testing.assert_array_equal(arrays[name], slopes.parameter)
    for parameter in (
        arrays[name][:, None],
        arrays[name][:2],
        arrays[name] * dtype(np.nan),
        arrays[name][:0],
    ):
        path.write_bytes(_CONTAINERS[suffix][1](arrays | {name: parameter}, text))
        with pytest.raises(ModelError, match=r"its value \d+: .*(its parameter has shape|prelu)"):
            load(path)


@pytest.mark.filterwarnings("ignore:.*contains NaN:RuntimeWarning")
@given(
    suffix=st.sampled_from(SUFFIXES),
    slope=st.floats(0, 1e6),
    names=st.lists(st.text(st.characters()), min_size=2, max_size=2),
    weight=st.sampled_from([np.nan, np.inf, -0.0, 5e-324]),
)
def test_odd_names_parameters_and_weights_survive(suffix, slope, names, weight, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / f"m{suffix}"
    w = [[weight, 1.0], [2.0, 3.0]]
    net = Network([(w, [0.0, 1.0]), (w, [0.0, 1.0])], f"leaky_relu({slope!r})", input_names=names)
    save(net, path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert same(load(path), net)
    messages = [f"layer {number}: w{number} contains NaN" for number in (1, 2)] if np.isnan(weight) else []
    assert [str(warning.message) for warning in caught] == messages


def entries(path):
    """Return the bytes of a file, or of each entry of an archive, whose own form is Python's."""
    if path.suffix != ".npz":
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return [(entry.filename, entry.compress_type, archive.read(entry)) for entry in archive.infolist()]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_files_of_version_1_load_and_are_written_again_byte_for_byte(dtype, suffix, tmp_path):
    shapes = (4, 3), (3, 5), (5, 2)
    net = Network(
        [
            (np.arange(a * b, dtype=dtype).reshape(a, b) / 7 - 1, np.arange(b, dtype=dtype) / 3)
            for a, b in shapes
        ],
        ["leaky_relu(0.1)", "tanh"],
        "log_softmax",
        input_names=["a", "b", "ü\0", ""],
        output_names=["no", "yes"],
    )
    old, new = DATA / f"version1-{np.dtype(dtype)}{suffix}", tmp_path / f"m{suffix}"
    assert same(load(old), net)
    save(net, new)
    assert entries(new) == entries(old)
    save(net, new)
    assert entries(new) == entries(old)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_is_replaced_whole_or_not_at_all(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"m{suffix}"
    save(NET, path)
    before = path.read_bytes()

    def full(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space left"):
        patch.setattr(os, "replace", full)
        save(Network(layers((2, 2))), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_saving_through_a_link_writes_the_file_behind_it(tmp_path):
    path, link = tmp_path / "m.npz", tmp_path / "link.npz"
    save(NET, path)
    link.symlink_to(path)
    net = Network(layers((2, 2)))
    save(net, link)
    assert link.is_symlink()
    assert same(load(path), net)


def test_others_read_what_save_writes(tmp_path):
    save(NET, tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz", allow_pickle=False) as arrays:
        assert sorted(arrays) == ["b1", "b2", "b3", "fastjac", "w1", "w2", "w3"]
        np.testing.assert_array_equal(arrays["w2"], NET.layers[1].w)
        assert json.loads(str(arrays["fastjac"])) == {
            "version": 1,
            "activations": ["leaky_relu(0.1)", "tanh", "log_softmax"],
            "input_names": ["a", "b", "ü\0", ""],
            "output_names": ["no", "yes"],
        }
    safetensors = pytest.importorskip("safetensors.numpy")
    save(NET, tmp_path / "m.safetensors")
    arrays = safetensors.load_file(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(arrays["w2"], NET.layers[1].w)


# Weights without activations.


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_plain_weights_need_activations(suffix, tmp_path):
    path = tmp_path / f"m{suffix}"
    pairs = layers((4, 3), (3, 2))
    arrays = {
        f"{k}{n}": array for n, pair in enumerate(pairs, 1) for k, array in zip("wb", pair, strict=True)
    }
    if suffix == ".npz":
        np.savez_compressed(path, **arrays)
    else:
        pytest.importorskip("safetensors.numpy").save_file(arrays, path)
    assert same(load(path, activation="tanh", head="softmax"), Network(pairs, "tanh", "softmax"))
    with pytest.raises(ModelError, match=r'activation="relu", head="softmax"'):
        load(path)
    with pytest.raises(ValueError, match="expected one of identity, relu") as caught:
        load(path, "rellu", "softmax")
    assert not isinstance(caught.value, ModelError)
    save(NET, path)
    with pytest.raises(ModelError, match="tells its activations itself"):
        load(path, "relu", "softmax")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_state_dict_of_torch(dtype, tmp_path):
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    nn = torch.nn
    inner = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6, bias=False), nn.Tanh())
    module = nn.Sequential(
        nn.Linear(4, 6), nn.Tanh(), inner, *[nn.Tanh()] * 8, nn.Linear(6, 2), nn.Softmax(-1)
    )
    module = module.to(getattr(torch, dtype))
    path = tmp_path / "m.safetensors"
    save_file(module.state_dict(), path)
    net = load(path, "tanh", "softmax")
    assert net.dtype == (np.float64 if dtype == "float64" else np.float32)
    wide = module.double() if dtype == "float64" else module.float()
    for layer, linear in zip(net.layers, (wide[0], inner[0], inner[2], wide[11]), strict=True):
        np.testing.assert_array_equal(layer.w, linear.weight.detach().numpy().T)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0.weight", "0.running_mean"], "'0.running_mean' .* is not the weight or the bias"),
        (["hidden.weight", "out.weight"], "does not tell the order of the layers"),
        (["w1", "v2"], "'v2' .* is not the weight"),
        (["0.bias"], "weights.*0"),
        ([], "it has no weights at all"),
    ],
)
def test_other_state_dicts_are_refused(names, message, tmp_path):
    path = tmp_path / "m.npz"
    np.savez(path, **{name: np.ones((2, 2)) for name in names})
    with pytest.raises(ModelError, match=rf"m\.npz: .*{message}"):
        load(path, "relu", "softmax")


ACTOR, CRITIC = layers((4, 6), (6, 2)), layers((4, 5), (5, 1))


def policy(**others):
    """Return the tensors of an actor and a critic as PyTorch names them."""
    arrays = {"log_std": np.zeros(2), **others}
    for name, pairs in (("actor.net", ACTOR), ("critic", CRITIC)):
        for number, (w, b) in zip((0, 2), pairs, strict=True):
            arrays |= {f"{name}.{number}.weight": np.ascontiguousarray(w.T), f"{name}.{number}.bias": b}
    return arrays


@pytest.fixture(params=SUFFIXES)
def write(request, tmp_path):
    def written(arrays):
        path = tmp_path / f"m{request.param}"
        if request.param == ".npz":
            np.savez(path, **arrays)
        else:
            pytest.importorskip("safetensors.numpy").save_file(arrays, path)
        return path

    return written


@pytest.mark.parametrize(
    "prefix", ["actor.", "actor", "actor.net.", ["actor"], ["actor.net.0", "actor.net.2"]]
)
def test_a_prefix_chooses_a_network(prefix, write):
    path = write(policy())
    assert same(load(path, "tanh", "identity", prefix=prefix), Network(ACTOR, "tanh", "identity"))
    assert same(load(path, "tanh", "identity", prefix="critic."), Network(CRITIC, "tanh", "identity"))


@pytest.mark.parametrize("prefix", ["", "agent.", "log_std"])
def test_an_error_tells_which_prefixes_there_are(prefix, write):
    with pytest.raises(ModelError, match=r"prefix='actor\.'\); there are 'actor\.', 'critic\.'"):
        load(write(policy()), "tanh", "identity", prefix=prefix)
    path = write({"a.weight": np.ones(3), "b.running_mean": np.ones(3)})
    with pytest.raises(
        ModelError, match=r"is not the weight or the bias of a Linear layer$|no weights that begin"
    ):
        load(path, "tanh", "identity", prefix=prefix)


def test_tensors_of_no_dtype_that_numpy_has_may_be_left_out(tmp_path):
    header = {"actor.weight": entry([1, 1], 0, 4, "F32"), "critic.weight": entry([1, 1], 4, 5, "F8_E4M3")}
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors(header, b"\0\0\x80?\0"))
    np.testing.assert_array_equal(load(path, "tanh", "identity", prefix="actor").layers[0].w, [[1]])
    with pytest.raises(ModelError, match=r"'weight' has dtype F8_E4M3, expected real numbers.*'actor\.'"):
        load(path, "tanh", "identity", prefix="critic")


@pytest.mark.parametrize("dtype", ["i1", "u1"])
def test_quantized_weights_are_refused(dtype, write):
    path = write({"w1": np.ones((3, 2), dtype), "b1": np.ones(2, "f4")})
    with pytest.raises(ModelError, match=r"'w1' has dtype u?int8: quantized weights mean nothing without"):
        load(path, "relu", "identity")


def test_integers_are_weights(write):
    net = load(write({"w1": np.ones((3, 2), "i4"), "b1": np.ones(2, "f4")}), "relu", "identity")
    assert same(net, Network([(np.ones((3, 2)), np.ones(2))], head="identity"))


def test_a_prefix_is_for_state_dicts(tmp_path):
    save(NET, tmp_path / "m.npz")
    with pytest.raises(ModelError, match=r"prefix is 'a', but the file is one that fastjac\.save wrote"):
        load(tmp_path / "m.npz", prefix="a")
    with pytest.raises(ValueError, match=r"prefix is 'a', but .*m\.onnx holds no state_dict"):
        load(tmp_path / "m.onnx", prefix="a")


# Files that are no models.


class Boom:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib", ".PKL"])
def test_pickles_are_not_read(suffix, tmp_path):
    path = tmp_path / f"m{suffix}"
    path.write_bytes(pickle.dumps(Boom()))
    with pytest.raises(ModelError, match=rf"m{suffix} is a pickle, which can run any code.*fastjac\.from_"):
        load(path)


def test_object_arrays_are_not_unpickled(tmp_path):
    path = tmp_path / "m.npz"
    np.savez(path, w1=np.array([[Boom()]], object), b1=np.zeros(1))
    with pytest.raises(ModelError, match="'w1' holds Python objects, which only unpickling could read"):
        load(path, "relu", "softmax")


def test_other_names(tmp_path):
    (tmp_path / "m.txt").write_text("")
    with pytest.raises(
        ModelError,
        match=r"m\.txt ends in '\.txt', expected one of \.npz, \.safetensors, .*\.nnet",
    ):
        load(tmp_path / "m.txt")
    with pytest.raises(ModelError, match=r"'m\\x00\.npz' is not the name of a file"):
        load("m\0.npz")
    with pytest.raises(FileNotFoundError, match=r"m\.npz"):
        load(tmp_path / "m.npz")
    (tmp_path / "d.npz").mkdir()
    with pytest.raises(ModelError, match=r"d\.npz is not a file"):
        load(tmp_path / "d.npz")
    with pytest.raises(ValueError, match=r"m\.onnx ends in '\.onnx', expected one of \.npz, \.safetensors"):
        save(NET, tmp_path / "m.onnx")
    with pytest.raises(TypeError, match=r"net must be a fastjac\.Network, got list"):
        save([], tmp_path / "m.npz")


@pytest.mark.parametrize("package", ["onnx", "safetensors"])
def test_a_missing_package_is_named_with_its_extra(package, tmp_path, monkeypatch):
    path = tmp_path / f"m.{package}"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"needs {package}: pip install 'fastjac\[{package}\]'"):
        load(path)
