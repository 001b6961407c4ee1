"""save and load: exact round trips, and what comes of files that are damaged or hostile."""

import io
import json
import os
import pathlib
import pickle
import struct
import sys
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastjac import Network
from fastjac.models.files import ModelError, load, save

rng = np.random.default_rng(0)
SUFFIXES = (".npz", ".safetensors")
DATA = pathlib.Path(__file__).parent / "data"


def layers(*sizes, dtype=np.float64):
    return [(rng.normal(size=size).astype(dtype), rng.normal(size=size[1]).astype(dtype)) for size in sizes]


NET = Network(
    layers((4, 3), (3, 5), (5, 2)),
    ["leaky_relu(0.1)", "tanh"],
    "log_softmax",
    input_names=["a", "b", "ü\0", ""],
    output_names=["no", "yes"],
)


def same(net, other):
    """Return whether two networks are equal to the bit."""
    if (net.dtype, net.input_names, net.output_names) != (other.dtype, other.input_names, other.output_names):
        return False
    return len(net.layers) == len(other.layers) and all(
        a.activation == b.activation and a.w.tobytes() == b.w.tobytes() and a.b.tobytes() == b.b.tobytes()
        for a, b in zip(net.layers, other.layers, strict=True)
    )


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


# Damage and malice.


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    for suffix in SUFFIXES:
        save(NET, folder / f"m{suffix}")
    return {suffix: (folder / f"m{suffix}").read_bytes() for suffix in SUFFIXES}


def load_bytes(data, path):
    path.write_bytes(data)
    return load(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_cuts_are_noticed(suffix, saved, tmp_path):
    data = saved[suffix]
    for size in range(0, len(data), 3):
        with pytest.raises(ModelError, match=rf"m\{suffix}"):
            load_bytes(data[:size], tmp_path / f"m{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_flipped_bits_are_noticed_or_harmless(suffix, saved, tmp_path):
    data = saved[suffix]
    for place in range(0, len(data), 3):
        mutated = bytearray(data)
        mutated[place] ^= 1 << place // 3 % 8
        try:
            net = load_bytes(mutated, tmp_path / f"m{suffix}")
        except ModelError:
            continue
        assert same(net, NET)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(data=st.data())
def test_no_mutation_gives_another_network(suffix, saved, tmp_path_factory, data):
    original = saved[suffix]
    mutated = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(mutated)))
        piece = data.draw(st.binary(max_size=8))
        mutated[place : place + data.draw(st.integers(0, 16))] = piece
    try:
        net = load_bytes(mutated, tmp_path_factory.mktemp("mutated") / f"m{suffix}")
    except ModelError:
        return
    assert same(net, NET)


@given(suffix=st.sampled_from([".npz", ".safetensors", ".onnx"]), data=st.binary(max_size=200))
def test_noise_is_no_model(suffix, data, tmp_path_factory):
    with pytest.raises(ModelError):
        load_bytes(data, tmp_path_factory.mktemp("noise") / f"m{suffix}")


def npz(**entries):
    """Return an archive of entries given as bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(f"{name}.npy", data)
    return stream.getvalue()


def npy(header, data=b""):
    text = repr(header).encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def header(shape, descr="<f8"):
    return {"descr": descr, "fortran_order": False, "shape": shape}


@pytest.mark.parametrize(
    "entry",
    [
        npy(header((2**40, 2**20))),
        npy(header((2**62, 4))),
        npy(header((-1, -8)), bytes(64)),
        npy(header((8,), "|O"), bytes(64)),
        npy(header((8,), "<U0"), b""),
        npy(header((8,), [("a", "<f8")]), bytes(64)),
        npy(header((8,), "<c16"), bytes(128)),
        npy(header((3,)), bytes(64)),
        npy("(" * 5000),
        b"",
        b"\x93NUMPY\x09\x00",
    ],
    ids=range(11),
)
def test_arrays_that_lie(entry, tmp_path):
    path = tmp_path / "m.npz"
    path.write_bytes(npz(w1=entry, b1=entry))
    with pytest.raises(ModelError, match=r"m\.npz"):
        load(path, "relu", "softmax")


def test_zip_bombs_are_not_unpacked(tmp_path):
    path = tmp_path / "m.npz"
    path.write_bytes(npz(w1=npy(header((10**7,)), bytes(8 * 10**7))))
    with pytest.raises(ModelError, match="far more memory than a network in a file of its size"):
        load(path, "relu", "softmax")


def safetensors(header, body=b"", size=None):
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return struct.pack("<Q", len(text) if size is None else size) + text + body


def entry(shape, begin, end, dtype="F64"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "data",
    [
        safetensors({}, size=2**63),
        safetensors(b"[" * 10**5),
        safetensors(b"[]"),
        safetensors(b'{"w1": 1}'),
        safetensors(b'{"w1": {}, "w1": {}}'),
        safetensors({"w1": entry([2**40, 2**40], 0, 8)}, bytes(8)),
        safetensors({"w1": entry([-1, -1], 0, 8)}, bytes(8)),
        safetensors({"w1": entry([1, 1], 0, 8), "b1": entry([1], 0, 8)}, bytes(8)),
        safetensors({"w1": entry([1, 1], 8, 16)}, bytes(16)),
        safetensors({"w1": entry([1, 1], 0, 8)}, bytes(9)),
        safetensors({"w1": entry([1, 1], 0, 8)}, bytes(7)),
        safetensors({"w1": entry([1.0, 1], 0, 8)}, bytes(8)),
        safetensors({"w1": entry([1, 1], 0, 8, "F8_E4M3")}, bytes(8)),
        safetensors({"w1": entry([1, 1], 0, 8), "__metadata__": {"fastjac": "{}"}}, bytes(8)),
        safetensors({"w1": entry([1, 1], 0, 8), "__metadata__": []}, bytes(8)),
    ],
    ids=range(15),
)
def test_tensors_that_lie(data, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"m\.safetensors"):
        load(path, "relu", "softmax")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "schema has version 2, but this fastjac reads 1"),
        ({"activations": ["relu"]}, "has 1 activations, but the arrays"),
        ({"activations": ["relu", "relu", "magic"]}, "head is 'magic'"),
        ({"activations": [1, 2, 3]}, "activations are not a list of strings"),
        ({"input_names": ["a"]}, "input_names"),
        ({"output_names": "ab"}, "output_names are not a list of strings"),
        ({"note": "hello"}, "not a JSON object with"),
    ],
)
def test_descriptions_that_lie(changes, message, tmp_path):
    path = tmp_path / "m.npz"
    save(NET, path)
    with np.load(path) as file:
        arrays = dict(file)
    arrays["fastjac"] = np.array(json.dumps(json.loads(str(arrays["fastjac"])) | changes))
    np.savez(path, **arrays)
    with pytest.raises(ModelError, match=rf"m\.npz: .*{message}"):
        load(path)


def test_mixed_dtypes_and_wrong_shapes_are_refused(tmp_path):
    path = tmp_path / "m.npz"
    save(NET, path)
    with np.load(path) as file:
        arrays = dict(file)
    for name, array, message in (
        ("w1", arrays["w1"].astype(np.float32), "differ in dtype"),
        ("w2", arrays["w2"][:2], "w2 has shape"),
        ("b3", arrays["b3"][:1], "b3 has shape"),
        ("w1", arrays["w1"] + 0j, "dtype"),
    ):
        np.savez(path, **(arrays | {name: array}))
        with pytest.raises(ModelError, match=message):
            load(path)
