"""load of ONNX files against ONNX Runtime."""

import numpy as np
import pytest

from fastjac.graph.values import ordered
from fastjac.models.files import ModelError, load
from fastjac.models.onnx.samples import BATCH
from support.onnx_files import (
    TensorProto,
    assert_as_runtime,
    helper,
    node,
    numpy_helper,
    onnx,
    rng,
    runtime,
    save,
    tensor,
    w,
)

DENSE = [node("MatMul", "x w", "z"), node("Add", "z b", "a")]
DENSE_WEIGHTS = [tensor("w", w(4, 3)), tensor("b", w(3))]
X = w(5, 4)


@pytest.mark.parametrize(
    "head",
    [
        node("Relu", "a"),
        node("LeakyRelu", "a", alpha=0.2),
        node("LeakyRelu", "a"),
        node("Elu", "a", alpha=0.5),
        node("Elu", "a"),
        node("Tanh", "a"),
        node("Sigmoid", "a"),
        node("Softplus", "a"),
        node("Gelu", "a"),
        node("Gelu", "a", approximate="tanh"),
        node("Clip", "a zero six"),
        node("Clip", "a zero"),
        node("Clip", "a minus six"),
        node("Max", "zero a minus"),
        node("Min", "six a"),
        node("Clip", "a minus"),
        node("Min", "a minus"),
        node("Selu", "a"),
        node("Selu", "a", alpha=1.5, gamma=0.5),
        node("Celu", "a", alpha=0.5),
        node("PRelu", "a slopes"),
        node("PRelu", "a minus"),
        node("HardSigmoid", "a"),
        node("HardSigmoid", "a", alpha=1 / 6),
        node("HardSigmoid", "a", alpha=-0.4, beta=0.25),
        node("HardSwish", "a"),
        node("Mish", "a"),
        node("Softsign", "a"),
        node("Exp", "a"),
        node("Sin", "a"),
        node("Cos", "a"),
        node("Abs", "a"),
        node("Softmax", "a"),
        node("Softmax", "a", axis=1),
        node("LogSoftmax", "a", axis=-1),
        node("Identity", "a"),
        node("Neg", "a"),
        node("Dropout", "a"),
        node("Flatten", "a"),
        node("Cast", "a", to=TensorProto.FLOAT),
        node("Add", "a a"),
        node("Sub", "six a"),
        node("Div", "a six"),
        node("Mul", "b a"),
        node("Reshape", "a shape"),
    ],
    ids=lambda head: f"{head.op_type}-{len(head.input)}-{len(head.attribute)}",
)
def test_operators(head, tmp_path):
    constants = [
        *DENSE_WEIGHTS,
        tensor("zero", np.float32(0)),
        tensor("six", np.float32(6)),
        tensor("minus", np.float32(-0.5)),
        tensor("slopes", np.array([0.5, -0.25, 1.5], np.float32)),
        tensor("shape", np.array([-1, 3])),
    ]
    assert_as_runtime(save(tmp_path / "m.onnx", [*DENSE, head], constants), X)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("attributes", "w_shape", "c_shape"),
    [
        ({}, (4, 3), (3,)),
        ({"transB": 1}, (3, 4), (1, 3)),
        ({"alpha": 0.5, "beta": 2.0}, (4, 3), (3,)),
        ({"transB": 1, "alpha": 0.5}, (3, 4), ()),
        ({}, (4, 3), (1,)),
        ({}, (4, 3), None),
    ],
)
def test_gemm(attributes, w_shape, c_shape, dtype, tmp_path):
    constants = [tensor("w", w(*w_shape, dtype=dtype))]
    if c_shape is not None:
        constants.append(tensor("c", np.asarray(w(*c_shape, dtype=dtype), dtype)))
    gemm = node("Gemm", "x w" if c_shape is None else "x w c", **attributes)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    assert_as_runtime(save(tmp_path / "m.onnx", [gemm], constants, kind=kind), X.astype(dtype))


@pytest.mark.parametrize("opset", [7, 9, 12, 15, 21])
def test_batch_normalization_and_old_opsets(opset, tmp_path):
    nodes = [
        node("BatchNormalization", "x g4 h4 m4 v4", "n", epsilon=0.01),
        node("Gemm", "n w b", "z"),
        node("BatchNormalization", "z g3 h3 m3 v3", "a"),
        node("Relu", "a", "r"),
        node("Softmax", "r", axis=1),
    ]
    constants = [*DENSE_WEIGHTS]
    for size in (4, 3):
        constants += [tensor(f"{letter}{size}", w(size)) for letter in "ghm"]
        constants.append(tensor(f"v{size}", rng.uniform(0.5, 2, size).astype(np.float32)))
    net = assert_as_runtime(save(tmp_path / "m.onnx", nodes, constants, opset=opset), X)
    assert [type(each.operation).__name__ for each in ordered(net.graph)] == [
        "Input",
        "Affine",
        *["Apply"] * 2,
    ]


@pytest.mark.parametrize(
    ("make", "target"),
    [
        ("Flatten", None),
        ("Reshape", [-1, 6]),
        ("Reshape", [0, -1]),
        ("Reshape", [0, 6]),
    ],
)
def test_images_are_flattened(make, target, tmp_path):
    constants = [tensor("w", w(6, 3)), tensor("c", w(2, 1)), tensor("g", w(2)), tensor("v", np.ones(2, "f"))]
    nodes = [
        node("Mul", "x c", "s"),
        node("BatchNormalization", "s g g g v", "n"),
        node("Flatten", "n", "f") if target is None else node("Reshape", "n target", "f"),
        node("MatMul", "f w"),
    ]
    if target is not None:
        constants.append(tensor("target", np.array(target)))
    path = save(tmp_path / "m.onnx", nodes, constants, shape=("batch", 2, 3))
    assert_as_runtime(path, w(5, 2, 3))


@pytest.mark.parametrize("is_chain", [True, False])
def test_inputs_far_from_zero_are_computed_in_float64(is_chain, tmp_path):
    nodes = [node("Sub", "x mean", "d"), node("Div", "d deviation", "n"), node("MatMul", "n w", "z")]
    nodes += [node("Tanh", "z")] if is_chain else [node("Tanh", "z", "t"), node("Mul", "t z")]
    constants = [*DENSE_WEIGHTS, tensor("mean", np.array([1e4, 0, 0, 0], "f")), tensor("deviation", w(4))]
    path = save(tmp_path / "m.onnx", nodes, constants)
    net, x = load(path), X + np.array([1e4, 0, 0, 0], "f")
    assert net.dtype == np.float64
    np.testing.assert_allclose(net(x), runtime(path, x), rtol=1e-5, atol=1e-6)


def test_single_sample_without_a_batch(tmp_path):
    path = save(tmp_path / "m.onnx", [*DENSE, node("Softmax", "a", axis=0)], DENSE_WEIGHTS, shape=(4,))
    np.testing.assert_allclose(load(path)(X[0]), runtime(path, X[0]), rtol=1e-5)


def test_half_precision_becomes_float32(tmp_path):
    weight = w(4, 3, dtype=np.float16)
    nodes = [node("Cast", "w", "wide", to=TensorProto.FLOAT), node("MatMul", "x wide")]
    net = load(save(tmp_path / "m.onnx", nodes, [tensor("w", weight)]))
    np.testing.assert_array_equal(net.layers[0].w, weight.astype(np.float32))
    bfloat16 = helper.make_tensor("w", TensorProto.BFLOAT16, (2, 2), [1.0, -2.5, 3.0, 0.15625])
    net = load(save(tmp_path / "m.onnx", [node("MatMul", "x w")], [bfloat16], shape=("batch", 2)))
    np.testing.assert_array_equal(net.layers[0].w, [[1, -2.5], [3, 0.15625]])
    assert net.dtype == np.float32


def test_weights_written_one_by_one(tmp_path):
    for kind, dtype in ((TensorProto.FLOAT, np.float32), (TensorProto.DOUBLE, np.float64)):
        value = w(4, 3, dtype=dtype)
        weight = helper.make_tensor("w", kind, (4, 3), value.ravel().tolist())
        net = load(save(tmp_path / "m.onnx", [node("MatMul", "x w")], [weight], kind=kind))
        np.testing.assert_array_equal(net.layers[0].w, value)


# What fastjac does not compute.


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Conv", "x w")], r"node 'y' \(Conv\).*fastjac does not compute this; it knows Gemm, MatMul"),
        ([node("MatMul", "w x")], r"multiplies \(4, 3\) and \(batch, 4\), which do not fit each other"),
        ([node("MatMul", "batched x")], r"sums over the samples of \(batch, 4\)"),
        ([node("Gemm", "x batched", transA=1, transB=1)], r"sums over the samples of \(4, batch\)"),
        ([node("Gemm", "x w", transA=1)], r"multiplies \(4, batch\) and \(4, 3\)"),
        ([*DENSE, node("Softmax", "a", axis=0)], "along axis 0"),
        (
            [node("MatMul", "x v")],
            r"'y' \(MatMul\): it multiplies \(batch, 4\) and \(3, 3\), which do not fit each other",
        ),
        ([node("MatMul", "q w")], r"node 'y' \(MatMul\): it needs 'q', no input, weight or output of a node"),
        ([node("Cast", "x", to=7)], "casts to something else"),
        ([node("Div", "one x")], r"'y' \(Div\): fastjac computes this only where it is part of"),
        ([*DENSE, node("Sqrt", "a")], r"'y' \(Sqrt\): fastjac computes this only where"),
        ([*DENSE, node("Erf", "a")], r"'y' \(Erf\): fastjac computes this only where"),
        (
            [*DENSE, node("Pow", "a half")],
            r"its exponent is 0\.25, expected a whole number up to 8, or a half",
        ),
        ([*DENSE, node("ThresholdedRelu", "a")], r"\(ThresholdedRelu\): it jumps where its input is alpha"),
        ([*DENSE, node("MatMul", "a a")], r"\(MatMul\): it multiplies \(batch, 3\) and \(batch, 3\)"),
        ([*DENSE, node("Add", "a x")], r"\(Add\): it takes \(batch, 3\) and \(batch, 4\), which do not fit"),
        ([node("Transpose", "x", "t"), node("Add", "t x")], "samples are along different axes"),
        ([node("Slice", "x zero two zero")], r"joins, drops or mixes the samples of \(batch, 4\)"),
        ([node("Gather", "x zero", axis=0)], r"joins, drops or mixes the samples of \(batch, 4\)"),
        ([node("Gather", "x two", axis=2)], r"its parameters do not fit \(batch, 4\)"),
        ([node("Concat", "x x", axis=0)], r"it joins .* along axis 0, expected an axis of one sample"),
        ([*DENSE, node("Concat", "a w3", axis=1)], r"joins \(batch, 3\) and \(1, 1, 4\), which do not fit"),
        (
            [*DENSE, node("Concat", "a w", axis=1)],
            r"a constant of shape \(4, 3\), which differs from sample to sample",
        ),
        ([node("Split", "x parts", axis=1)], r"splits 4 entries into 1 parts of \[2, 1\]"),
        ([node("Split", "x", axis=1, num_outputs=2)], r"splits 4 entries into 1 parts of \[4\]"),
        ([node("Expand", "x parts")], r"its parameters do not fit \(batch, 4\)"),
        ([node("Slice", "x two two one1")], "selects nothing"),
        ([node("Gemm", "x")], r"\(Gemm\): it has 1 inputs, expected 2 or more"),
        ([node("Unsqueeze", "x nine")], r"its parameters do not fit \(batch, 4\)"),
        ([node("ReduceMean", "x zero")], r"works along axis 0 of \(batch, 4\)"),
        (
            [node("ReduceMax", "x one1", "m"), node("Add", "m x")],
            r"'m' \(ReduceMax\): fastjac computes this only where",
        ),
        ([node("LayerNormalization", "x one", axis=0)], r"works along axis 0 of \(batch, 4\)"),
        ([node("Reshape", "x shape")], r"joins, drops or mixes the samples of \(batch, 4\)"),
        ([node("MatMul", "x w", "q")], "its output 'y' is the output of no node"),
        ([node("Relu", "x", "y", domain="com.example")], "of the domain 'com.example'"),
        ([node("Add", "x each")], "differs from sample to sample"),
        ([node("Dropout", "x one true")], "drops units at random"),
        ([node("MatMul", "x w", "b")], "is there already"),
        ([node("Clip", "x nan")], "clips to NaN"),
        ([], "its output 'y' is the output of no node"),
        ([node("Neg", "y")], "needs its own output"),
        ([node("Neg", "z"), node("Neg", "y", "z")], "needs its own output"),
        (
            [node("MatMul", "x eight")],
            "its weight has dtype int8, expected floats: fastjac reads no quantized",
        ),
        ([node("Flatten", "x", axis=0)], r"joins, drops or mixes the samples of \(batch, 4\)"),
        ([node("Softmax", "x", axis=2)], r"works along axis 2 of \(batch, 4\), expected an axis of one"),
        ([*DENSE, node("Gather", "x a", axis=1)], "where it takes entries from depends on the input"),
        ([*DENSE, node("Clip", "x a")], "its parameters depend on the input"),
    ],
)
def test_clear_no(nodes, message, tmp_path):
    constants = [
        *DENSE_WEIGHTS,
        tensor("v", w(3, 3)),
        tensor("one", np.float32(1)),
        tensor("half", np.float32(0.25)),
        *(
            tensor(name, np.array([number]))
            for name, number in (("zero", 0), ("one1", 1), ("two", 2), ("nine", 9))
        ),
        tensor("parts", np.array([2, 1])),
        tensor("true", np.array(True)),
        tensor("nan", np.float32(np.nan)),
        tensor("shape", np.array([2, -1])),
        tensor("each", w(5, 4)),
        tensor("w3", w(1, 1, 4)),
        tensor("batched", w(3, BATCH)),
        tensor("eight", np.ones((4, 3), np.int8)),
    ]
    outputs = None
    if any("b" in n.output for n in nodes):
        outputs = [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)]
    path = save(tmp_path / "m.onnx", nodes, constants, outputs=outputs)
    with pytest.raises(ModelError, match=rf"m\.onnx: .*({message})"):
        load(path)


def test_one_of_two_outputs(tmp_path):
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "yz"]
    nodes = [*DENSE, node("Softmax", "a"), node("Conv", "x w", "unknown")]
    path = save(tmp_path / "m.onnx", nodes, DENSE_WEIGHTS, outputs=outputs)
    with pytest.raises(ModelError, match=r"outputs 'y', 'z': say which one.*load\(path, output='y'\)"):
        load(path)
    with pytest.raises(ModelError, match="has no output 'q', expected one of 'y', 'z'"):
        load(path, output="q")
    z = X @ numpy_helper.to_array(DENSE_WEIGHTS[0])
    np.testing.assert_allclose([load(path, output="z")(x) for x in X], z, rtol=1e-5)
    logits = load(path, output="a")(X[0])
    np.testing.assert_allclose(load(path, output="y")(X[0]), np.exp(logits) / np.exp(logits).sum(), rtol=1e-5)
    with pytest.raises(ValueError, match=r"output is 'y', but .*m\.npz is no \.onnx file"):
        load(tmp_path / "m.npz", output="y")


def test_one_of_two_inputs(tmp_path):
    path = save(tmp_path / "m.onnx", [*DENSE[:1], node("Relu", "z")], DENSE_WEIGHTS)
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("q", TensorProto.FLOAT, (4,)))
    onnx.save(model, path)
    assert load(path).n_inputs == 4


def test_nodes_may_come_in_any_order(tmp_path):
    nodes = [node("Tanh", "n", "t"), node("Mul", "t s"), node("Sigmoid", "t", "s"), *DENSE[::-1]]
    nodes.insert(0, node("BatchNormalization", "a g g g g", "n"))
    constants = [*DENSE_WEIGHTS, tensor("g", rng.uniform(0.5, 1.5, 3).astype("f"))]
    path = save(tmp_path / "m.onnx", nodes, constants)
    y, _ = load(path).value_and_jacobian(X)
    order = [nodes[place] for place in (5, 4, 0, 1, 3, 2)]
    np.testing.assert_allclose(y, runtime(save(path, order, constants), X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Div", "minus two", "start")],
        [node("Div", "seven minus_two", "start")],
        [node("Pow", "minus two", "fortynine"), node("Div", "fortynine minus_fifteen", "start")],
        [node("ReduceSum", "minus none", "sum", keepdims=1), node("Div", "sum two", "start")],
        [
            node("ReduceSum", "minus none", "same", noop_with_empty_axes=1, keepdims=0),
            node("Div", "same two", "start"),
        ],
    ],
)
def test_whole_numbers_that_are_computed(nodes, tmp_path):
    numbers = {"minus": -7, "two": 2, "seven": 7, "minus_two": -2, "minus_fifteen": -15, "end": 6}
    constants = [tensor(name, np.array([number])) for name, number in numbers.items()]
    constants += [tensor("none", np.array([], np.int64)), tensor("w", w(4, 6)), tensor("v", w(3, 2))]
    nodes = [node("MatMul", "x w", "z"), *nodes, node("Slice", "z start end one", "s"), node("MatMul", "s v")]
    constants.append(tensor("one", np.array([1])))
    path = save(tmp_path / "m.onnx", nodes, constants, opset=13)
    net = load(path)
    np.testing.assert_allclose(net(X), runtime(path, X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "attributes", [{"noop_with_empty_axes": 1}, {"noop_with_empty_axes": 1, "keepdims": 0}]
)
def test_a_sum_along_no_axis_is_nothing(attributes, tmp_path):
    nodes = [node("ReduceSum", "x none", "same", **attributes), node("MatMul", "same w")]
    constants = [tensor("none", np.array([], np.int64)), tensor("w", w(4, 3))]
    assert_as_runtime(save(tmp_path / "m.onnx", nodes, constants, opset=13), X)


def test_constants_that_are_computed(tmp_path):
    nodes = [
        node("Transpose", "v", "t", perm=[1, 0]),
        node("Reshape", "t shape", "r"),
        node("Mul", "r row", "m"),
        node("Slice", "long zero three", "s"),
        node("Gather", "s order", "b"),
        node("Gemm", "x m b"),
    ]
    constants = [
        tensor("v", w(6, 2)),
        tensor("shape", np.array([4, -1])),
        tensor("row", w(1, 3)),
        tensor("long", w(5)),
        tensor("zero", np.array([1])),
        tensor("three", np.array([4])),
        tensor("order", np.array([2, 0, 1])),
    ]
    assert_as_runtime(save(tmp_path / "m.onnx", nodes, constants), X)


def test_clip_with_attributes(tmp_path):
    nodes = [*DENSE, node("Clip", "a", min=-0.5, max=0.25)]
    assert_as_runtime(save(tmp_path / "m.onnx", nodes, DENSE_WEIGHTS, opset=10), X)


def test_functions_are_refused(tmp_path):
    path = save(tmp_path / "m.onnx", [*DENSE, node("Relu", "a")], DENSE_WEIGHTS)
    model = onnx.load(path)
    opsets = [helper.make_opsetid("", 20)]
    body = [helper.make_node("Neg", ["a"], ["b"])]
    model.functions.append(helper.make_function("", "Relu", ["a"], ["b"], body, opsets))
    onnx.save(model, path)
    with pytest.raises(ModelError, match="has functions of its own"):
        load(path)


def test_opset_6(tmp_path):
    nodes = [
        node("BatchNormalization", "x g h m v", "n", is_test=1),
        node("Add", "n shift", "s", broadcast=1, axis=1),
        node("Dropout", "s", "d", is_test=1),
        node("Gemm", "d w b", "z", broadcast=1),
        node("Mul", "z b", "a", broadcast=1),
        node("Softmax", "a"),
    ]
    constants = [
        *DENSE_WEIGHTS,
        *(tensor(name, rng.uniform(0.5, 1.5, 4).astype("f")) for name in ("g", "h", "m", "v", "shift")),
    ]
    old = load(save(tmp_path / "m.onnx", nodes, constants, opset=6))
    for part in nodes:
        kept = [a for a in part.attribute if a.name not in ("is_test", "broadcast", "axis")]
        del part.attribute[:]
        part.attribute.extend(kept)
    expected = runtime(save(tmp_path / "new.onnx", nodes, constants, opset=7), X)
    np.testing.assert_allclose(old.value_and_jacobian(X)[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Dropout", "x")], "drops units at random"),
        ([node("BatchNormalization", "x w w w w")], "does not normalise samples with fixed statistics"),
    ],
)
def test_opset_6_in_training(nodes, message, tmp_path):
    with pytest.raises(ModelError, match=message):
        load(save(tmp_path / "m.onnx", nodes, [tensor("w", w(4))], opset=6))


def test_opset_5_is_refused(tmp_path):
    with pytest.raises(ModelError, match="has opset 5, expected 6 or later"):
        load(save(tmp_path / "m.onnx", DENSE, DENSE_WEIGHTS, opset=5))
