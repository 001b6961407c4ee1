"""Graphs in files: what is saved comes back to the last bit, and what is wrong is refused."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given

import fastjac
from fastjac import ModelError, Network, graph
from fastjac.models.containers import read_npz, write_npz
from support.examples import examples
from support.graphs import OPERATIONS, Case, cases

SUFFIXES = (".npz", ".safetensors")
EVERYTHING = tuple((name, 0, 1, 5, "tanh") for name in OPERATIONS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("graphs")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_operations_come_back(suffix, dtype, tmp_path):
    net = Network(Case(4, EVERYTHING, dtype).value(), dtype=dtype, input_names=list("abcd"))
    fastjac.save(net, tmp_path / f"net{suffix}")
    assert_same(fastjac.load(tmp_path / f"net{suffix}"), net)


@examples(40)
@given(cases())
def test_any_graph_comes_back(folder, case):
    net = case.network()
    fastjac.save(net, folder / "net.npz")
    assert_same(fastjac.load(folder / "net.npz"), net)
    assert_same(pickle.loads(pickle.dumps(net)), net)


def assert_same(found, net):
    x = np.random.default_rng(0).standard_normal(net.n_inputs).astype(net.dtype)
    assert (found.dtype, found.input_names, str(found)) == (net.dtype, net.input_names, str(net))
    for one, other in zip(found.value_and_jacobian(x), net.value_and_jacobian(x), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_same_network_gives_the_same_bytes(tmp_path):
    for suffix in SUFFIXES:
        contents = []
        for name in ("one", "other"):
            fastjac.save(Case(4, EVERYTHING).network(), tmp_path / f"{name}{suffix}")
            contents.append((tmp_path / f"{name}{suffix}").read_bytes())
        if suffix == ".safetensors":  # A zip has the time in it.
            assert contents[0] == contents[1]


def test_shared_weights_are_in_the_file_once(tmp_path):
    w = np.random.default_rng(0).standard_normal((4, 4))
    h = graph.affine(graph.input(4), w, None, "tanh")
    fastjac.save(Network(graph.affine(h, w, None, "tanh") + h), tmp_path / "net.npz")
    arrays, _ = read_npz((tmp_path / "net.npz").read_bytes())
    assert [array.shape for array in arrays.values()].count((4, 4)) == 1


ROWS = [
    {"operation": "input", "inputs": [], "size": 2},
    {"operation": "affine", "inputs": [0], "w": "w", "b": "b"},
    {"operation": "select", "inputs": [1], "places": [0, 1]},
    {"operation": "scale", "inputs": [2], "factor": "f", "shift": "f"},
    {"operation": "normalise", "inputs": [3], "epsilon": 1e-5, "centred": True},
    {"operation": "apply", "inputs": [4], "activation": "tanh"},
    {"operation": "add", "inputs": [0, 5]},
    {"operation": "concatenate", "inputs": [6, 1]},
]
ARRAYS = {"w": np.ones((2, 3)), "b": np.zeros(3), "f": np.ones(2)}


def saved(path, rows=ROWS, arrays=ARRAYS, **changes):
    text = {"version": 2, "dtype": "float64", "values": rows, "input_names": None, "output_names": None}
    path.write_bytes(write_npz(dict(arrays), json.dumps(text | changes)))
    return path


def test_the_rows_above_load(tmp_path):
    assert fastjac.load(saved(tmp_path / "net.npz")).n_outputs == 5


@pytest.mark.parametrize(
    ("number", "change", "text"),
    [
        (0, {"size": 0}, "value 0: size is 0"),
        (0, {"size": -1}, "value 0: its size are not integers"),
        (0, {"size": 10**12}, "value 0: it would take far more memory"),
        (0, {"inputs": [0]}, "value 0: its inputs are not integers"),
        (1, {"inputs": [1]}, "value 1: its inputs are not integers from 0 to 0"),
        (1, {"inputs": []}, "value 1: affine has 0 inputs"),
        (1, {"inputs": "0"}, "value 1: its inputs are not integers"),
        (1, {"w": "b"}, r"value 1: w has shape \(3,\)"),
        (1, {"w": "none"}, "value 1: its w is 'none', which is no array of the file"),
        (1, {"w": ["w"]}, "value 1: its w is"),
        (1, {"more": 1}, "value 1: affine has b, more, w, expected b, w"),
        (1, {"operation": "convolution"}, "value 1: its operation is 'convolution', expected one of input"),
        (1, {"operation": ["affine"]}, "value 1: its operation is"),
        (2, {"places": [3]}, "value 2: its places are not integers from 0 to 2"),
        (2, {"places": []}, "value 2: index selects shape"),
        (2, {"places": [0.0, 1.0]}, "value 2: its places are not integers"),
        (3, {"factor": "b"}, "value 3: scale has arrays of shapes"),
        (4, {"epsilon": -1.0}, "value 4: normalise has epsilon -1.0"),
        (4, {"epsilon": "a"}, "value 4: normalise has epsilon 'a'"),
        (4, {"centred": 1}, "value 4: normalise has epsilon 1e-05 and centred 1"),
        (5, {"activation": "rleu"}, "value 5: .*did you mean"),
        (5, {"activation": 1}, "value 5: its activation is 1"),
        (6, {"inputs": [0, 1]}, "value 6: add has inputs of sizes 2, 3"),
        (6, {"inputs": [0]}, "value 6: add has inputs of sizes 2"),
        (7, {"inputs": []}, "value 7: concatenate has 0 inputs"),
    ],
)
def test_a_wrong_entry_is_refused(number, change, text, tmp_path):
    rows = [row | (change if i == number else {}) for i, row in enumerate(ROWS)]
    with pytest.raises(ModelError, match=text):
        fastjac.load(saved(tmp_path / "net.npz", rows))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"values": []}, "its values are not a list"),
        ({"values": {}}, "its values are not a list"),
        ({"values": [1]}, "its operation is None"),
        ({"values": [ROWS[0]] * 10_001}, "its values are not a list of 1 to 10,000 entries"),
        ({"dtype": "float16"}, "its dtype is 'float16'"),
        ({"version": 3}, "version 3, but this fastjac reads 1 and 2"),
        ({"version": True}, "version True"),
        ({"activations": []}, "not a JSON object with dtype"),
        ({"input_names": ["a"]}, "input_names has 1 names, expected 2"),
    ],
)
def test_a_wrong_description_is_refused(changes, text, tmp_path):
    with pytest.raises(ModelError, match=text):
        fastjac.load(saved(tmp_path / "net.npz", **changes))


def test_an_array_that_no_value_has_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no value has its arrays extra"):
        fastjac.load(saved(tmp_path / "net.npz", arrays=ARRAYS | {"extra": np.ones(1)}))
