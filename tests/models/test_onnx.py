"""load of ONNX files against ONNX Runtime, and against the framework that wrote them."""

import contextlib
import io

import numpy as np
import pytest

from fastjac.models.files import ModelError, load

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
TensorProto, helper, numpy_helper = onnx.TensorProto, onnx.helper, onnx.numpy_helper

rng = np.random.default_rng(0)
TOLERANCES = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-10}


def runtime(path, x):
    """Return what ONNX Runtime makes of a batch: its one output of floats."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for y in session.run(None, {session.get_inputs()[0].name: x}):
        if isinstance(y, list):  # a ZipMap's
            return np.array([list(row.values()) for row in y])
        if y.dtype.kind == "f":
            return y
    raise AssertionError("no output of floats")


def assert_as_runtime(path, x):
    net = load(path)
    assert net.dtype == x.dtype
    expected = runtime(path, x)
    y, _ = net.value_and_jacobian(x.reshape(len(x), -1))
    np.testing.assert_allclose(y, expected, rtol=0, atol=TOLERANCES[x.dtype] * np.abs(expected).max())
    return net


def tensor(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def save(path, nodes, constants, *, shape=("batch", 4), kind=TensorProto.FLOAT, opset=20, outputs=None):
    """Write a model whose input is ``x`` and whose output is ``y``."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", kind, shape)],
        outputs or [helper.make_tensor_value_info("y", kind, None)],
        constants,
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def w(*shape, dtype=np.float32):
    return rng.normal(size=shape).astype(dtype)


def node(op, inputs, output="y", **attributes):
    return helper.make_node(op, inputs.split(), [output], **attributes)


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
    assert [layer.w.shape for layer in net.layers] == [(4, 3), (3, 3)]


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


# Exporters.


def torch_modules():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    activations = [nn.ReLU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.ReLU6(), nn.Hardtanh(), nn.ELU(0.5)]
    activations += [nn.Softplus(), nn.Softplus(2.5), nn.LeakyReLU(0.25), nn.Tanh(), nn.Sigmoid()]
    hidden = [layer for activation in activations for layer in (activation, nn.Linear(6, 6))]
    first = nn.Flatten(), nn.Linear(4, 6), nn.BatchNorm1d(6)
    yield nn.Sequential(*first, *hidden, nn.Dropout(), nn.Softmax(1))
    yield nn.Sequential(nn.Flatten(), nn.Linear(4, 9), nn.SiLU(), nn.Linear(9, 3), nn.LogSoftmax(1))

    class Viewed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 7), nn.Linear(7, 2)

        def forward(self, x):
            x = torch.relu(self.first(x.view(x.size(0), -1)))
            return torch.softmax(self.second(torch.nn.functional.silu(x)), -1)

    yield Viewed()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("opset", [None, 17])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("number", range(3))
def test_exported_by_torch(number, dynamic, opset, dtype, tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = list(torch_modules())[number].to(getattr(torch, dtype)).eval()
    x = torch.randn(3, 2, 2, dtype=getattr(torch, dtype))
    path = tmp_path / "m.onnx"
    if opset is None:
        options = {"dynamo": True, "dynamic_shapes": ({0: torch.export.Dim("batch")},) if dynamic else None}
    else:
        axes = {"x": {0: "batch"}} if dynamic else None
        options = {"dynamo": False, "opset_version": opset, "input_names": ["x"], "dynamic_axes": axes}
    with contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(module, (x,), str(path), **options)
    net = load(path)
    tolerance = TOLERANCES[net.dtype]
    assert net.dtype == dtype
    for sample in x:
        y, jac = net.value_and_jacobian(sample.numpy().ravel())
        expected = module(sample[None])[0].detach().numpy()
        np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance * np.abs(expected).max())
        expected = torch.func.jacrev(lambda v: module(v[None])[0])(sample).detach().numpy().reshape(jac.shape)
        np.testing.assert_allclose(jac, expected, rtol=0, atol=tolerance * np.abs(expected).max())
    if dtype == "float32":  # ONNX Runtime has no double Gelu, Elu, ...
        assert_as_runtime(path, x.numpy())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"zipmap": False}], ids=["zipmap", "plain"])
@pytest.mark.parametrize("kind", ["multiclass", "binary", "multilabel", "regressor", "pipeline"])
def test_exported_by_skl2onnx(kind, options, dtype, tmp_path):
    pytest.importorskip("skl2onnx")
    from skl2onnx import to_onnx
    from sklearn.decomposition import PCA
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    settings = {"hidden_layer_sizes": (8, 5), "activation": "tanh", "max_iter": 5, "random_state": 0}
    x = rng.normal(size=(60, 7)) * 3 + 1
    classes = np.arange(60) % 3
    model, target = {
        "multiclass": (MLPClassifier(**settings), classes),
        "binary": (MLPClassifier(**settings), classes > 1),
        "multilabel": (MLPClassifier(**settings), np.column_stack([classes == 0, classes > 1])),
        "regressor": (MLPRegressor(**settings), classes),
        "pipeline": (
            make_pipeline(StandardScaler(), PCA(5, whiten=True), MinMaxScaler(), MLPClassifier(**settings)),
            np.array(["a", "b", "c"])[classes],
        ),
    }[kind]
    model.fit(x, target)
    exported = to_onnx(model, x[:1].astype(dtype), options=None if kind == "regressor" else {**options})
    path = tmp_path / "m.onnx"
    path.write_bytes(exported.SerializeToString())
    net = load(path)
    assert net.dtype == dtype
    sample = x[:5].astype(dtype)
    expected = model.predict(sample)[:, None] if kind == "regressor" else model.predict_proba(sample)
    if kind == "multilabel":  # skl2onnx writes 1 - p before p
        expected = np.hstack([1 - expected, expected])
    y, _ = net.value_and_jacobian(sample)
    np.testing.assert_allclose(y, expected, rtol=0, atol=TOLERANCES[np.dtype(dtype)] * np.abs(expected).max())
    if kind == "regressor" or (kind != "multilabel" and (options or dtype == np.float32)):
        # ONNX Runtime has no other ZipMap and Binarizer.
        assert_as_runtime(path, sample)
    if kind == "pipeline" and not options:
        assert net.output_names == ("a", "b", "c")


@pytest.mark.filterwarnings("ignore")
def test_exported_by_keras(tmp_path):
    keras = pytest.importorskip("keras")
    layers = keras.layers
    pytest.importorskip({"tensorflow": "tf2onnx", "jax": "jax2onnx"}.get(keras.backend.backend(), "onnx"))
    keras.utils.set_random_seed(0)
    names = ["relu", "leaky_relu", "relu6", "hard_tanh", "elu", "tanh", "sigmoid", "softplus", "silu"]
    hidden = [layers.Dense(4, activation=name, bias_initializer="normal") for name in names]
    model = keras.Sequential(
        [
            keras.Input((2, 3)),
            layers.Rescaling(1 / 3, offset=1),
            layers.Flatten(),
            layers.Dense(4),
            layers.BatchNormalization(),
            layers.LeakyReLU(),
            *hidden,
            layers.ReLU(max_value=3),
            layers.BatchNormalization(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    x = w(5, 2, 3)
    expected = keras.ops.convert_to_numpy(model(x))
    path = tmp_path / "m.onnx"
    with contextlib.redirect_stdout(io.StringIO()):
        model.export(str(path), format="onnx", verbose=False)
    net = assert_as_runtime(path, x)
    y, _ = net.value_and_jacobian(x.reshape(5, -1))
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)


# What is not a chain of layers.


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Conv", "x w")], r"node 'y' \(Conv\).*fastjac does not compute this; it knows Gemm, MatMul"),
        ([*DENSE, node("Add", "a z")], r"node 'y' \(Add\): 'a' and 'z' meet here in no activation"),
        ([node("MatMul", "w x")], r"works along axis 0 of \(batch, 4\)"),
        ([node("Gemm", "x w", transA=1)], r"works along axis 0 of \(batch, 4\)"),
        ([*DENSE, node("Softmax", "a", "s"), node("MatMul", "s v")], "softmax is not the last layer"),
        ([*DENSE, node("Softmax", "a", axis=0)], "along axis 0"),
        ([*DENSE, node("Tanh", "a", "s"), node("Mul", "s a")], r"'y' \(Mul\): it is part of no activation"),
        ([*DENSE, node("Mul", "a a")], r"'y' \(Mul\): it is part of no activation"),
        ([*DENSE, node("Mul", "a a", "s"), node("Relu", "s")], r"'s' \(Mul\): it is part of no activation"),
        ([*DENSE, node("Relu", "a", "s"), node("Mul", "s a")], "'s' and 'a' meet here in no activation"),
        (
            [node("MatMul", "x v")],
            r"'y' \(MatMul\): its weight takes 3 inputs, but its input has shape \(batch, 4\)",
        ),
        ([node("MatMul", "q w")], r"node 'y' \(MatMul\): it needs 'q', no input, weight or output of a node"),
        ([node("Cast", "x", to=7)], "casts to something else"),
        ([node("Div", "one x")], "divides by the input"),
        ([node("Reshape", "x shape")], r"makes \[2, -1\] of"),
        ([node("MatMul", "x w", "q")], "its output 'y' is the output of no node"),
        ([node("Relu", "x", "y", domain="com.example")], "of the domain 'com.example'"),
        ([node("Add", "x each")], "differs from sample to sample"),
        ([node("Add", "x w3")], "has fewer axes"),
        ([node("Dropout", "x one true")], "drops units at random"),
        ([node("MatMul", "x w", "b")], "is there already"),
        ([node("Clip", "x nan")], "clips to NaN"),
        ([], "its output 'y' is the output of no node"),
        ([node("Neg", "y")], "needs its own output"),
        ([node("Neg", "z"), node("Neg", "y", "z")], "needs its own output"),
        ([node("MatMul", "x eight")], "'eight' has dtype int8, expected floats: fastjac reads no quantized"),
        ([node("Concat", "x x", axis=1)], "only where it joins 1 - p and p"),
        ([node("Transpose", "x", "t"), node("Flatten", "t")], "which joins samples"),
    ],
)
def test_clear_no(nodes, message, tmp_path):
    constants = [
        *DENSE_WEIGHTS,
        tensor("v", w(3, 3)),
        tensor("one", np.float32(1)),
        tensor("true", np.array(True)),
        tensor("nan", np.float32(np.nan)),
        tensor("shape", np.array([2, -1])),
        tensor("each", w(5, 4)),
        tensor("w3", w(1, 1, 4)),
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
    for nodes in ([node("Add", "x q")], [*DENSE[:1], node("Relu", "z")]):
        path = save(tmp_path / "m.onnx", nodes, DENSE_WEIGHTS)
        model = onnx.load(path)
        model.graph.input.append(helper.make_tensor_value_info("q", TensorProto.FLOAT, (4,)))
        onnx.save(model, path)
        if len(nodes) == 1:
            with pytest.raises(ModelError, match=r"'y' depends on 2 of its inputs \(x, q\), expected 1"):
                load(path)
        else:
            assert load(path).n_inputs == 4


def test_nodes_may_come_in_any_order(tmp_path):
    nodes = [node("Tanh", "n", "t"), node("Mul", "t s"), node("Sigmoid", "t", "s"), *DENSE[::-1]]
    nodes.insert(0, node("BatchNormalization", "a g g g g", "n"))
    constants = [*DENSE_WEIGHTS, tensor("g", rng.uniform(0.5, 1.5, 3).astype("f"))]
    path = save(tmp_path / "m.onnx", nodes, constants)
    y, _ = load(path).value_and_jacobian(X)
    order = [nodes[place] for place in (5, 4, 0, 1, 3, 2)]
    np.testing.assert_allclose(y, runtime(save(path, order, constants), X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 1), (4, "batch"), (4, 5), ("batch", 4, 1), (4,)], ids=str)
@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
def test_samples_in_columns(op, shape, tmp_path):
    if op == "Gemm" and len(shape) != 2:
        pytest.skip("Gemm takes matrices")
    b = w(3, 1) if len(shape) > 1 else w(3)
    constants = [
        tensor("m", w(4, 1)[:, 0] if shape == (4,) else w(4, 1)),
        tensor("w", w(3, 4)),
        tensor("b", b),
    ]
    nodes = [node("Sub", "x m", "n"), node("MatMul", "w n", "z"), node("Add", "z b", "a"), node("Tanh", "a")]
    if op == "Gemm":
        nodes[1:3] = [node("Gemm", "w n b", "a")]
    path = save(tmp_path / "m.onnx", nodes, constants, shape=shape)
    x = X.T if shape[-1] in ("batch", 5) else X[:1].T
    if len(shape) == 1:
        x = X[0]
    elif len(shape) == 3:
        x = X[..., None]
    expected = runtime(path, np.ascontiguousarray(x))
    samples = x.reshape(5, 4) if len(shape) == 3 else np.atleast_2d(x.T)
    y, _ = load(path).value_and_jacobian(samples)
    expected = expected.reshape(5, 3) if len(shape) == 3 else np.atleast_2d(expected.T)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("first", [True, False])
def test_gemm_with_rows_and_columns(first, trans_a, trans_b, tmp_path):
    weight_shape = (4, 3) if first else (3, 4)
    if trans_b if first else trans_a:
        weight_shape = weight_shape[::-1]
    constants = [tensor("w", w(*weight_shape)), tensor("c", w(1, 3) if first else w(3, 1))]
    # The samples are rows of x, and Gemm gets them as the rows of A or as the columns of B.
    name = "x" if bool(trans_a if first else trans_b) != first else "t"
    inputs = f"{name} w c" if first else f"w {name} c"
    gemm = node("Gemm", inputs, transA=trans_a, transB=trans_b, alpha=0.5, beta=2.0)
    nodes = [gemm] if name == "x" else [node("Transpose", "x", "t"), gemm]
    path = save(tmp_path / "m.onnx", nodes, constants, shape=("n", 4))
    expected = runtime(path, X)
    y, _ = load(path).value_and_jacobian(X)
    np.testing.assert_allclose(y, expected if first else expected.T, rtol=1e-5, atol=1e-6)


def test_axes_of_one_come_and_go(tmp_path):
    nodes = [
        node("Unsqueeze", "x last", "u"),
        node("Transpose", "u", "t", perm=[2, 0, 1]),
        node("Squeeze", "t first", "q"),
        node("Reshape", "q around", "r"),
        node("MatMul", "r w", "z"),
        node("Squeeze", "z second", "a"),
        node("Softmax", "a"),
    ]
    constants = [
        *DENSE_WEIGHTS,
        tensor("last", np.array([-1])),
        tensor("first", np.array([0])),
        tensor("second", np.array([1, 2])),
        tensor("around", np.array([-1, 1, 1, 4])),
    ]
    assert_as_runtime(save(tmp_path / "m.onnx", nodes, constants), X)


@pytest.mark.parametrize("opset", [9, 12, 13])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax_was_over_all_axes_from_one_on(axis, opset, tmp_path):
    nodes = [node("Transpose", "x", "t", perm=[2, 0, 1]), node("Softmax", "t", axis=axis)]
    path = save(tmp_path / "m.onnx", nodes, [], shape=("batch", 1, 2), opset=opset)
    x = w(4, 1, 2)
    if axis == 0 and opset == 13:
        y, _ = load(path).value_and_jacobian(x[:, 0])
        np.testing.assert_allclose(y, runtime(path, x)[..., 0].T, rtol=1e-5)
        return
    with pytest.raises(ModelError, match=rf"works along axis {axis} of \(2, batch, 1\), expected all of a"):
        load(path)


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


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("two", "f4"), ("three", "f4"), ("three", "f8"), ("line", "f4"), ("line", "f8"), ("plane", "f8")],
)
def test_linear_models_exported_by_skl2onnx(kind, dtype, tmp_path):
    pytest.importorskip("skl2onnx")
    from skl2onnx import to_onnx
    from sklearn.linear_model import LinearRegression, LogisticRegression

    target = {"two": np.arange(60) % 2, "three": np.arange(60) % 3, "line": rng.normal(size=60)}
    target["plane"] = rng.normal(size=(60, 2))
    x = rng.normal(size=(60, 4))
    model = (LogisticRegression() if kind in ("two", "three") else LinearRegression()).fit(x, target[kind])
    path = tmp_path / "m.onnx"
    path.write_bytes(to_onnx(model, x[:1].astype(dtype)).SerializeToString())
    y, _ = load(path).value_and_jacobian(x[:5].astype(dtype))
    expected = model.predict_proba(x[:5]) if kind in ("two", "three") else model.predict(x[:5])
    # The operators keep their weights in float32.
    np.testing.assert_allclose(y, expected.reshape(y.shape), rtol=0, atol=1e-5)


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
