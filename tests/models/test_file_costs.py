"""What `load` may cost: processor time and memory by the size of the file, measured in a process apart."""

import itertools
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastjac import Network
from fastjac.models.files import save
from support import graphs
from support.file_costs import Loader
from support.hostile_files import (
    ARCHIVES,
    GRAPHS,
    HEADERS,
    KERAS,
    TEXTS,
    VALUES,
    VALUES_LOADED,
    TensorProto,
    dense,
    hdf5,
    helper,
    keras,
    model,
    nnet,
    numpy_helper,
    start,
    tensor,
)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="measures forks")
pytest.importorskip("safetensors")

rng = np.random.default_rng(0)


@pytest.fixture(scope="module")
def loader():
    loader = Loader()
    yield loader
    loader.close()


def assert_cheap(loader, path, most_bytes=50 * 10**6, **options):
    """Assert that a file is loaded or refused within its bounds, and return which."""
    size = sum(file.stat().st_size for file in path.parent.iterdir())
    cost = loader.cost(path, **options)
    print(f"{path.name} of {size} bytes: {cost}")
    assert cost.outcome == "loaded" or cost.outcome.startswith(f"ModelError: {path}")
    assert cost.seconds <= 2 + size / 10**7
    assert cost.peak_bytes <= most_bytes + 20 * size
    assert not [text for text in cost.warned if not text.endswith(" contains NaN")]
    return cost.outcome


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives(name, loader, tmp_path):
    path = tmp_path / "m.npz"
    path.write_bytes(ARCHIVES[name]())
    options = {} if "layers" in name or "names" in name else {"activation": "relu", "head": "softmax"}
    outcome = assert_cheap(loader, path, **options)
    assert (outcome == "loaded") == (name in ("400 layers", "a million inputs, one output"))


@pytest.mark.parametrize("name", VALUES)
def test_values_of_graphs(name, loader, tmp_path):
    """What a first call allocates counts too."""
    path = tmp_path / "m.npz"
    path.write_bytes(VALUES[name]())
    allowed = 400 * 10**6 if name in VALUES_LOADED else 50 * 10**6
    outcome = assert_cheap(loader, path, allowed)
    assert (outcome == "loaded") == (name in VALUES_LOADED)


@pytest.mark.parametrize("name", HEADERS)
def test_headers(name, loader, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(HEADERS[name]())
    assert assert_cheap(loader, path, activation="relu", head="softmax") != "loaded"


LOADED = (
    "a thousand layers",
    "a selection of the last of many",
    "two long branches",
    "many branches",
    "halves, many times",
    "two thousand sums",
)


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs(name, loader, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(GRAPHS[name]())
    assert (assert_cheap(loader, path) == "loaded") == (name in LOADED)


@pytest.mark.parametrize("name", KERAS)
def test_files_of_keras(name, loader, tmp_path):
    suffix, make = KERAS[name]
    path = tmp_path / f"m{suffix}"
    path.write_bytes(make())
    options = (
        {} if suffix == ".keras" or "configuration" in name else {"activation": "relu", "head": "softmax"}
    )
    assert assert_cheap(loader, path, **options) != "loaded"


@pytest.mark.parametrize("name", TEXTS)
def test_texts(name, loader, tmp_path):
    path = tmp_path / "m.nnet"
    path.write_text(TEXTS[name]())
    assert (assert_cheap(loader, path) == "loaded") == (name == "honest")


# Honest files are loaded, large ones too.


def half(weights):
    return [(w.astype(np.float16), b.astype(np.float16)) for w, b in weights]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".onnx"])
def test_large_networks(suffix, dtype, loader, tmp_path):
    path = tmp_path / f"m{suffix}"
    arrays = {f"w{n}": rng.normal(size=(1000, 1000)).astype(dtype) for n in (1, 2, 3)}
    options = {"activation": "relu", "head": "softmax"}
    if suffix == ".npz":
        np.savez(path, **arrays)
    elif suffix == ".safetensors":
        __import__("safetensors.numpy").numpy.save_file(arrays, path)
    else:
        options = {}
        nodes = [helper.make_node("Cast", [name], [f"{name}f"], to=TensorProto.FLOAT) for name in arrays]
        nodes += [
            helper.make_node("MatMul", [a, f"{w}f"], [b])
            for a, w, b in zip("xab", arrays, "aby", strict=True)
        ]
        constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
        path.write_bytes(model(nodes, constants, ("batch", 1000)))
    assert assert_cheap(loader, path, **options) == "loaded"


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("sizes", [(1, 10**6), (10**6, 1), (1, 3 * 10**5, 1), (2, 10, 4 * 10**5)], ids=str)
def test_saved_networks_of_odd_shapes(sizes, suffix, dtype, loader, tmp_path):
    path = tmp_path / f"m{suffix}"
    layers = [(rng.normal(size=size).astype(dtype), None) for size in itertools.pairwise(sizes)]
    save(Network(layers, "tanh", "identity"), path)
    assert assert_cheap(loader, path) == "loaded"


@pytest.mark.parametrize("size", [249_000, 10**6])
def test_packed_networks_of_one_input(size, loader, tmp_path):
    path = tmp_path / "m.npz"
    np.savez_compressed(path, w1=np.zeros((1, size), "f4"))
    outcome = assert_cheap(loader, path, activation="relu", head="identity")
    assert (outcome == "loaded") == (size == 249_000)


def test_large_weights_beside_the_file(loader, tmp_path):
    w = rng.normal(size=(2000, 2000)).astype("f4")
    (tmp_path / "w.bin").write_bytes(w.tobytes())
    outside = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=w.shape, data_location=TensorProto.EXTERNAL
    )
    outside.external_data.add(key="location", value="w.bin")
    path = tmp_path / "m.onnx"
    path.write_bytes(model([helper.make_node("MatMul", ["x", "w"], ["y"])], [outside], ("batch", 2000)))
    assert assert_cheap(loader, path) == "loaded"


# Damage.


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Return the bytes of a file of each kind."""
    folder = tmp_path_factory.mktemp("originals")
    weights = [(rng.normal(size=(4, 3)), np.ones(3)), (rng.normal(size=(3, 2)), np.ones(2))]
    files = {}
    for suffix in (".npz", ".safetensors"):
        save(Network(weights, "elu(0.5)"), folder / f"m{suffix}")
        files[suffix] = (folder / f"m{suffix}").read_bytes()
        save(graphs.PATHS["3 to 16, 16 wide"].network(), folder / f"m{suffix}")
        files[f"-graph{suffix}"] = (folder / f"m{suffix}").read_bytes()
    constants = [tensor("w", 4, 3), tensor("b", 3)]
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["z"]),
        helper.make_node("LeakyRelu", ["z"], ["y"], alpha=0.5),
    ]
    files[".onnx"] = model(nodes, constants)
    files[".nnet"] = nnet(3, 2, body="1,2,3,\n4,5,6,\n1,\n2,\n").encode()
    files[".keras"] = keras([start(4), dense()])
    files[".h5"] = hdf5(lambda file: file.create_dataset("layers/dense/vars/0", data=np.ones((4, 4), "f4")))
    return files


@pytest.mark.parametrize(
    "suffix", [".npz", ".safetensors", ".onnx", ".nnet", "-graph.npz", "-graph.safetensors"]
)
@given(data=st.data())
def test_mutations(suffix, originals, loader, tmp_path_factory, data):
    assert_mutation_is_cheap(suffix, originals, loader, tmp_path_factory, data)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@settings(max_examples=settings().max_examples // 4)  # Each starts a process.
@given(data=st.data())
def test_mutations_of_files_of_keras(suffix, originals, loader, tmp_path_factory, data):
    assert_mutation_is_cheap(suffix, originals, loader, tmp_path_factory, data)


def assert_mutation_is_cheap(suffix, originals, loader, tmp_path_factory, data):
    mutated = bytearray(originals[suffix])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(mutated)))
        piece = data.draw(
            st.binary(max_size=8) | st.sampled_from([b"\xff" * 8, b"\xff" * 4, b"\x7f", b"9" * 6])
        )
        mutated[place : place + data.draw(st.integers(0, 16))] = piece
    path = tmp_path_factory.mktemp("mutated") / f"m{suffix}"
    path.write_bytes(mutated)
    assert_cheap(loader, path, **{"activation": "relu", "head": "softmax"} if suffix == ".h5" else {})
