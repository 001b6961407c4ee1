"""load of ONNX files that are graphs: against ONNX Runtime, and what several inputs and outputs mean."""

import re
from pathlib import Path

import numpy as np
import pytest

import fastjac
from fastjac import reference
from fastjac.models.files import ModelError, load
from support.onnx_files import TensorProto, helper, node, onnx, runtime, save, tensor, w
from support.onnx_graphs import KINDS, TOLERANCES, Writer, by_runtime, difference
from support.onnx_random import Drawn

DOCS = Path(__file__).parents[2] / "docs" / "models.md"


@pytest.mark.parametrize("dtype", TOLERANCES, ids=["float32", "float64"])
@pytest.mark.parametrize(
    "network",
    [network for networks in KINDS.values() for network in networks],
    ids=lambda each: each.__name__,
)
def test_structures(network, dtype, tmp_path):
    net, x, tolerances = difference(network, dtype, tmp_path)
    assert net.dtype == dtype
    assert tolerances <= 1
    report = fastjac.check_jacobian(net, x)
    assert report, str(report)


@pytest.mark.parametrize("seed", range(200))
def test_random_graphs_are_refused_or_right(seed, tmp_path):
    rng = np.random.default_rng(seed)
    writer = Writer(np.float64, seed)
    drawn = Drawn(writer, rng)
    for _ in range(rng.integers(2, 9)):
        output = drawn.add()
    path = tmp_path / "m.onnx"
    writer.write(path, output)
    try:
        net = load(path)
    except ModelError:
        return
    for scale in (0.01, 1.0, 10.0):
        x = rng.normal(size=(3, net.n_inputs)) * scale
        with np.errstate(all="ignore"):
            expected = by_runtime(path, {"x": x}, writer.opset).reshape(3, -1)
            y = np.array([reference.graph_value_and_jacobian(row, net.graph)[0] for row in x])
        is_finite = np.isfinite(y) & np.isfinite(expected)  # Where the runtime overflows, fastjac may not.
        size = np.max(np.abs(expected), initial=1e-6, where=is_finite)
        np.testing.assert_allclose(y[is_finite], expected[is_finite], rtol=0, atol=1e-5 * size)


def test_the_table_counts_the_structures():
    rows = re.findall(r"^\| (.+?) +\| (\d+) of (\d+) \|$", DOCS.read_text(), re.MULTILINE)
    assert rows == [(kind, str(len(networks)), str(len(networks))) for kind, networks in KINDS.items()]


X = w(5, 4)
GIVEN = [tensor("w", w(4, 3)), tensor("b", w(3)), tensor("v", w(3, 3))]
DENSE = [node("MatMul", "x w", "z"), node("Add", "z b", "a")]


@pytest.mark.parametrize(
    "nodes",
    [
        [*DENSE, node("Add", "a z")],
        [*DENSE, node("Softmax", "a", "s"), node("MatMul", "s v")],
        [*DENSE, node("Tanh", "a", "s"), node("Mul", "s a")],
        [*DENSE, node("Mul", "a a")],
        [*DENSE, node("Mul", "a a", "s"), node("Relu", "s")],
        [*DENSE, node("Relu", "a", "s"), node("Mul", "s a")],
        [
            *DENSE,
            node("Sigmoid", "a", "s"),
            node("Mul", "a s", "p"),
            node("Add", "p a", "q"),
            node("Neg", "q"),
        ],
        [node("Concat", "x x", axis=1)],
        [node("Reshape", "x row", "r"), node("Transpose", "r", "t", perm=[0, 2, 1]), node("Flatten", "t")],
    ],
    ids=lambda nodes: "-".join(each.op_type for each in nodes),
)
def test_what_meets_in_no_activation(nodes, tmp_path):
    path = save(tmp_path / "m.onnx", nodes, [*GIVEN, tensor("row", np.array([-1, 2, 2]))])
    y, _ = load(path).value_and_jacobian(X)
    np.testing.assert_allclose(y, runtime(path, X), rtol=0, atol=1e-5)


def test_a_batch_that_the_file_fixes_may_be_selected(tmp_path):
    nodes = [
        node("Reshape", "x square", "s"),
        node("Slice", "s one two zero", "last"),
        node("Concat", "last pair", axis=0),
    ]
    integers = {"square": [2, 2], "zero": [0], "one": [1], "two": [2]}
    constants = [tensor(name, np.array(numbers)) for name, numbers in integers.items()]
    path = save(tmp_path / "m.onnx", nodes, [*constants, tensor("pair", w(1, 2))], shape=(1, 4))
    np.testing.assert_allclose(load(path)(X[0]), runtime(path, X[:1]).ravel(), rtol=1e-6)


def test_shapes_that_the_file_does_not_give(tmp_path):
    nodes = [*DENSE, node("Tanh", "a", "t"), node("MatMul", "t v", "u"), node("Add", "u t")]
    path = save(tmp_path / "m.onnx", nodes, GIVEN, shape=None)
    y, _ = load(path).value_and_jacobian(X)
    np.testing.assert_allclose(y, runtime(path, X), rtol=0, atol=1e-5)
    flipped = [node("Gemm", "x turned", "z", transB=1), *nodes[1:]]
    constants = [*GIVEN, tensor("turned", w(3, 4))]
    for shape in (("batch", None), (None, None), (None, 4), (4,), (1, None)):
        path = save(tmp_path / "m.onnx", flipped if len(shape) > 1 else nodes, constants, shape=shape)
        x = X[0] if len(shape) == 1 else X[:1]
        np.testing.assert_allclose(load(path)(X[0]), runtime(path, x).ravel(), rtol=0, atol=1e-5)
    path = save(tmp_path / "m.onnx", nodes, GIVEN, shape=("batch", "tokens", 4))  # Each token is a sample.
    np.testing.assert_allclose(load(path)(X[0]), runtime(path, X[:1, None]).ravel(), rtol=0, atol=1e-5)
    path = save(tmp_path / "m.onnx", nodes, GIVEN, shape=("batch", "tokens", None))
    with pytest.raises(ModelError, match=r"its input 'x' has shape \(batch, \?, \?\), expected known sizes"):
        load(path)
    path = save(tmp_path / "m.onnx", [node("Tanh", "x", "t"), node("Add", "t x")], [], shape=None)
    with pytest.raises(ModelError, match="does not say how many inputs it has"):
        load(path)


# Several inputs and outputs.


def two_inputs(tmp_path, shape=("batch", 2)):
    """Write ``y = tanh(x) w[:4] + q w[4:]``, and ``unused``."""
    nodes = [
        node("Tanh", "x", "t"),
        node("Concat", "t q", "c", axis=1),
        node("MatMul", "c w"),
        node("Relu", "q", "r"),
    ]
    path = save(tmp_path / "m.onnx", nodes, [tensor("w", w(6, 3))])
    model = onnx.load(path)
    for name, axes in (("unused", ("batch", 7)), ("q", shape)):
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, axes))
    onnx.save(model, path)
    return path


def test_two_inputs_are_one_behind_the_other(tmp_path):
    path = two_inputs(tmp_path)
    weights = onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    q = w(5, 2)
    expected = np.hstack([np.tanh(X), q]) @ weights
    for inputs, given in ((None, [X, q]), (["x", "q"], [X, q]), (["q", "x"], [q, X])):
        net = load(path, inputs=inputs)
        y, jac = net.value_and_jacobian(np.hstack(given))
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)
        q_first = inputs is not None and inputs[0] == "q"
        np.testing.assert_allclose(
            jac[0, :, slice(0, 2) if q_first else slice(4, 6)], weights[4:].T, rtol=1e-6
        )


def test_an_output_of_one_input(tmp_path):
    path = two_inputs(tmp_path)
    assert load(path, output="t").n_inputs == 4
    np.testing.assert_array_equal(load(path, output="r", inputs=["q"])([-1, 2]), [0, 2])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["x"], r"inputs is \['x'\], but its output 'y': expected 'x', 'q' in any order"),
        (["x", "q", "q"], "expected 'x', 'q' in any order"),
        (["x", "unused"], "expected 'x', 'q' in any order"),
        ([1, None], "expected 'x', 'q' in any order"),
    ],
)
def test_inputs_that_are_not_the_outputs(inputs, message, tmp_path):
    with pytest.raises(ModelError, match=message):
        load(two_inputs(tmp_path), inputs=inputs)


def test_inputs_of_other_files(tmp_path):
    path = two_inputs(tmp_path)
    with pytest.raises(ValueError, match="inputs is 'xq', expected a list of names"):
        load(path, inputs="xq")
    with pytest.raises(ValueError, match=r"inputs is \['x'\], expected none for"):
        load(tmp_path / "m.npz", inputs=["x"])


def test_several_inputs_have_known_sizes(tmp_path):
    with pytest.raises(ModelError, match=r"its input 'q' has shape \(batch, \?\), expected known sizes"):
        load(two_inputs(tmp_path, ("batch", None)))


def test_a_label_is_no_output(tmp_path):
    label = helper.make_node(
        "LinearClassifier",
        ["x"],
        ["label", "scores"],
        domain="ai.onnx.ml",
        coefficients=[1.0] * 8,
        intercepts=[0.0] * 2,
        classlabels_ints=[0, 1],
    )
    path = save(tmp_path / "m.onnx", [label, node("Identity", "scores")], [])
    np.testing.assert_allclose(load(path)(X[0]), [X[0].sum()] * 2, rtol=1e-6)
    with pytest.raises(
        ModelError, match=r"\(LinearClassifier\): fastjac does not compute its output 'label'"
    ):
        load(path, output="label")


def test_a_clip_of_one_side(tmp_path):
    for names, limits in (("a low", (-0.25, np.inf)), ("a  high", (-np.inf, 0.5))):
        clip = helper.make_node("Clip", names.split(" "), ["y"])
        constants = [*GIVEN, tensor("low", np.float32(-0.25)), tensor("high", np.float32(0.5))]
        net = load(save(tmp_path / "m.onnx", [*DENSE, clip], constants))
        logits = load(tmp_path / "m.onnx", output="a").value_and_jacobian(X)[0]
        np.testing.assert_allclose(net.value_and_jacobian(X)[0], np.clip(logits, *limits), atol=1e-6)
