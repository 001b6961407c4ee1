"""ONNX files that are damaged or hostile, and where their external data may be."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastjac import reference
from fastjac.graph.values import ordered
from fastjac.models.files import ModelError, load

onnx = pytest.importorskip("onnx")
helper, numpy_helper, TensorProto = onnx.helper, onnx.numpy_helper, onnx.TensorProto

rng = np.random.default_rng(0)
X = rng.uniform(-1, 1, (2, 4)).astype(np.float32)


def tensor(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def external(name, shape, location, **entries):
    proto = TensorProto(
        name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL
    )
    for key, value in {"location": location, **entries}.items():
        proto.external_data.add(key=key, value=str(value))
    return proto


def model(constants, nodes=None, *, shape=("batch", 4)):
    nodes = nodes or [helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def write(folder, *arguments, **options):
    path = folder / "m.onnx"
    path.write_bytes(model(*arguments, **options).SerializeToString())
    return path


def chain():
    """Return a chain with every kind of node whose attributes and constants matter."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"], axis=1),
        helper.make_node("Gemm", ["f", "w1", "b1"], ["z1"], transB=1),
        helper.make_node("BatchNormalization", ["z1", "g", "h", "m", "v"], ["n"], epsilon=0.25),
        helper.make_node("LeakyRelu", ["n"], ["a1"], alpha=0.125),
        helper.make_node("MatMul", ["a1", "w2"], ["z2"]),
        helper.make_node("Add", ["z2", "b2"], ["a2"]),
        helper.make_node("Sigmoid", ["a2"], ["s"]),
        helper.make_node("Mul", ["a2", "s"], ["a3"]),
        helper.make_node("Softmax", ["a3"], ["y"], axis=1),
    ]
    shapes = {"w1": (3, 4), "b1": (3,), "g": (3,), "h": (3,), "m": (3,), "w2": (3, 2), "b2": (2,)}
    constants = [tensor(name, rng.uniform(-1, 1, shape).astype("f")) for name, shape in shapes.items()]
    constants.append(tensor("v", np.ones(3, "f")))
    return model(constants, nodes, shape=("batch", 2, 2)).SerializeToString()


def graph():
    """Return a graph of selections, sums, gates and normalisations."""
    nodes = [
        helper.make_node("Gather", ["x", "places"], ["g"], axis=1),
        helper.make_node("Gemm", ["g", "w1", "b1"], ["z"]),
        helper.make_node("Split", ["z"], ["a", "c"], axis=1, num_outputs=2),
        helper.make_node("Sigmoid", ["c"], ["s"]),
        helper.make_node("Mul", ["a", "s"], ["m"]),
        helper.make_node("ReduceMean", ["m", "last"], ["mean"]),
        helper.make_node("Sub", ["m", "mean"], ["d"]),
        helper.make_node("Pow", ["d", "two"], ["q"]),
        helper.make_node("ReduceMean", ["q", "last"], ["r"]),
        helper.make_node("Add", ["r", "half"], ["e"]),
        helper.make_node("Sqrt", ["e"], ["root"]),
        helper.make_node("Div", ["d", "root"], ["n"]),
        helper.make_node("Slice", ["x", "one", "three", "last"], ["part"]),
        helper.make_node("Concat", ["n", "part"], ["joined"], axis=-1),
        helper.make_node("LayerNormalization", ["joined", "b2"], ["l"], epsilon=0.25),
        helper.make_node("Add", ["l", "x"], ["y"]),
    ]
    shapes = {"w1": (3, 4), "b1": (4,), "b2": (4,)}
    constants = [tensor(name, rng.uniform(-1, 1, shape).astype("f")) for name, shape in shapes.items()]
    constants += [tensor("two", np.float32(2)), tensor("half", np.float32(0.5))]
    integers = {"places": [2, 0, 1], "last": [1], "one": [1], "three": [3]}
    constants += [tensor(name, np.array(numbers)) for name, numbers in integers.items()]
    return model(constants, nodes).SerializeToString()


@pytest.fixture(scope="module", params=[chain, graph], ids=["chain", "graph"])
def original(request):
    return request.param()


def by_runtime(data):
    """Return the inputs and the output of ONNX Runtime."""
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    shape = [size if isinstance(size, int) else 2 for size in session.get_inputs()[0].shape]
    x = X.reshape(shape)
    return x, session.run(None, {session.get_inputs()[0].name: x})[0]


def by_onnx(data):
    """Return the inputs and the output of onnx itself, which no crafted graph crashes."""
    from onnx.reference import ReferenceEvaluator

    return X, ReferenceEvaluator(onnx.ModelProto.FromString(data)).run(None, {"x": X})[0]


def assert_refused_or_right(data, folder, oracle=by_runtime):
    """Assert that a file is refused, or that an oracle, where it takes it, computes the same."""
    path = folder / "m.onnx"
    path.write_bytes(data)
    try:
        net = load(path)
    except ModelError as error:
        assert str(error).startswith(str(path))
        return
    if net.n_inputs != 4:
        return
    try:
        x, expected = oracle(data)
    except Exception:  # the oracle's own no
        return
    rows = x.reshape(len(x), -1).astype(net.dtype)
    y = np.array([reference.graph_value_and_jacobian(row, net.graph)[0] for row in rows])
    arrays = [
        part for value in ordered(net.graph) for part in value.operation if isinstance(part, np.ndarray)
    ]
    # A flipped bit may make a weight of 1e38: then the order of the sums decides between inf and nan.
    if np.isfinite(expected).all() and max((np.abs(array).max() for array in arrays), default=0) < 1e6:
        np.testing.assert_allclose(y.reshape(expected.shape), expected, rtol=1e-3, atol=1e-4)


def test_the_original_is_right(original, tmp_path):
    assert_refused_or_right(original, tmp_path)
    load(tmp_path / "m.onnx")


def test_cuts_are_refused_or_right(original, tmp_path):
    for size in range(0, len(original), 2):
        assert_refused_or_right(original[:size], tmp_path)


def test_flipped_bits_are_refused_or_right(original, tmp_path):
    for place in range(len(original)):
        mutated = bytearray(original)
        mutated[place] ^= 1 << place % 8
        assert_refused_or_right(bytes(mutated), tmp_path)


def test_rewired_nodes_are_refused_or_right(original, tmp_path):
    whole = onnx.ModelProto.FromString(original)
    names = ["x", *(part.name for part in whole.graph.initializer)]
    names += [name for each in whole.graph.node for name in each.output]
    for number, each in enumerate(whole.graph.node):
        for place in range(len(each.input)):
            for name in names[number % 3 :: 3]:
                rewired = onnx.ModelProto.FromString(original)
                rewired.graph.node[number].input[place] = name
                assert_refused_or_right(rewired.SerializeToString(), tmp_path, by_onnx)


OTHERS = (
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Concat",
    "Softmax",
    "ReduceSum",
    "ReduceMax",
    "Sqrt",
    "Exp",
    "Transpose",
)


@pytest.mark.parametrize("op", OTHERS)
def test_nodes_of_another_kind_are_refused_or_right(op, original, tmp_path):
    for number in range(len(onnx.ModelProto.FromString(original).graph.node)):
        other = onnx.ModelProto.FromString(original)
        other.graph.node[number].op_type = op
        assert_refused_or_right(other.SerializeToString(), tmp_path, by_onnx)


@given(data=st.data())
def test_mutations_are_refused_or_right(original, tmp_path_factory, data):
    mutated = bytearray(original)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(mutated)))
        mutated[place : place + data.draw(st.integers(0, 12))] = data.draw(st.binary(max_size=6))
    assert_refused_or_right(bytes(mutated), tmp_path_factory.mktemp("mutated"))


@pytest.mark.parametrize(
    "data",
    [
        b"\x3a",
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x3a\x05ab",
        b"\xff" * 20,
        b"\x3b",
        b"\x38\x01",
        b"\x42\x02\x12\x00",
    ],
    ids=range(7),
)
def test_broken_protobuf(data, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"m\.onnx"):
        load(path)


# Sizes.


def test_shapes_larger_than_the_file_are_refused(tmp_path):
    for shape in ([2**31, 2**31], [2**62, 2**62], [-1, -1], [4, 3]):
        proto = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=shape, raw_data=bytes(16))
        with pytest.raises(ModelError, match=r"tensor 'w'.*shape"):
            load(write(tmp_path, [proto]))


def test_wide_inputs_are_refused_before_anything_is_made(tmp_path):
    for shape in (("batch", 10**12), ("batch", 10**6, 10**6), (10**9, 4)):
        flatten = helper.make_node("Flatten", ["x"], ["y"])
        with pytest.raises(ModelError, match="far more memory than a network"):
            load(write(tmp_path, [], [flatten], shape=shape))


def test_one_tensor_named_very_often_is_refused(tmp_path):
    nodes = [helper.make_node("MatMul", [f"t{n}", "w"], [f"t{n + 1}"]) for n in range(1000)]
    nodes[0].input[0], nodes[-1].output[0] = "x", "y"
    constants = [tensor("w", np.zeros((200, 200), np.float32))]
    with pytest.raises(ModelError, match="far more memory than a network"):
        load(write(tmp_path, constants, nodes, shape=("batch", 200)))


def test_doubling_constants_is_refused(tmp_path):
    nodes = [helper.make_node("Concat", [f"w{n}", f"w{n}"], [f"w{n + 1}"], axis=0) for n in range(60)]
    nodes.append(helper.make_node("Add", ["x", "w60"], ["y"]))
    with pytest.raises(ModelError, match="far more memory than a network"):
        load(write(tmp_path, [tensor("w0", np.zeros(4, np.float32))], nodes))


# External data.

W = rng.normal(size=(4, 3)).astype(np.float32)


def test_external_data_beside_the_file(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "w.bin").write_bytes(bytes(8) + W.tobytes() + bytes(5))
    path = write(tmp_path, [external("w", (4, 3), "data/w.bin", offset=8, length=48)])
    np.testing.assert_array_equal(load(path).layers[0].w, W)


def test_what_torch_writes(tmp_path):
    (tmp_path / "m.onnx.data").write_bytes(W.tobytes())
    path = write(tmp_path, [external("w", (4, 3), "m.onnx.data")])
    np.testing.assert_array_equal(load(path).layers[0].w, W)


@pytest.mark.parametrize(
    "location",
    [
        "../secret",
        "data/../../secret",
        "{absolute}",
        "//{absolute}",
        "..\\secret",
        "C:secret",
        "C:\\secret",
        "\\\\host\\share",
        "",
        ".",
        "secret\0",
        "\0",
        "data\0/secret",
        "data/link",
        "linked/secret",
    ],
)
def test_external_data_stays_in_the_folder(location, tmp_path):
    (tmp_path / "secret").write_bytes(W.tobytes())
    folder = tmp_path / "model"
    (folder / "data").mkdir(parents=True)
    if os.name != "nt":
        (folder / "data" / "link").symlink_to(tmp_path / "secret")
        (folder / "linked").symlink_to(tmp_path)
    location = location.format(absolute=tmp_path / "secret")
    path = write(folder, [external("w", (4, 3), location)])
    with pytest.raises(ModelError, match=r"m\.onnx: node 'y' \(MatMul\)"):
        load(path)


def test_external_data_that_lies(tmp_path):
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    for entries in (
        {"offset": -4},
        {"offset": 4},
        {"offset": 2**70},
        {"length": 44},
        {"length": 2**70},
        {"offset": "x"},
        {"offset": "\uff10"},
        {"offset": " 0"},
        {"offset": "0_0"},
        {"offset": "+0"},
        {"offset": "0.0"},
        {"offset": ""},
        {"length": "4_8"},
    ):
        with pytest.raises(ModelError, match=r"m\.onnx: node 'y'"):
            load(write(tmp_path, [external("w", (4, 3), "w.bin", **entries)]))
    with pytest.raises(ModelError, match=r"m\.onnx: node 'y'"):
        load(write(tmp_path, [external("w", (2**30, 2**30), "w.bin")]))
    with pytest.raises(ModelError, match=r"m\.onnx: node 'y'"):
        load(write(tmp_path, [external("w", (4, 3), "missing.bin")]))


@pytest.mark.skipif(not hasattr(os, "link"), reason="there are no hard links")
def test_hard_links_are_refused(tmp_path):
    (tmp_path / "secret").write_bytes(W.tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    os.link(tmp_path / "secret", folder / "w.bin")
    path = write(folder, [external("w", (4, 3), "w.bin")])
    with pytest.raises(ModelError, match=r"'w\.bin' has other names too: copy the file there instead"):
        load(path)
    (tmp_path / "secret").unlink()
    np.testing.assert_array_equal(load(path).layers[0].w, W)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="not a regular file"):
        load(write(tmp_path, [external("w", (4, 3), "pipe")]))
