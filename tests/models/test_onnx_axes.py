"""Where an ONNX file has the samples: rows, columns, and axes of 1 that come and go."""

import numpy as np
import pytest

from fastjac.models.files import ModelError, load
from support.onnx_files import assert_as_runtime, helper, node, runtime, save, tensor, w

X = w(5, 4)


COLUMNS = [(4, 1), (4, "batch"), (4, 5), ("batch", 4, 1), (4,)]


@pytest.mark.parametrize(
    ("op", "shape"),
    [*(("MatMul", shape) for shape in COLUMNS), *(("Gemm", shape) for shape in COLUMNS if len(shape) == 2)],
)
def test_samples_in_columns(op, shape, tmp_path):
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
        tensor("w", w(4, 3)),
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
    if axis == 2 or (axis == 0 and opset == 13):
        y, _ = load(path).value_and_jacobian(x[:, 0])
        np.testing.assert_allclose(y, runtime(path, x)[..., 0].T, rtol=1e-5)
        return
    with pytest.raises(ModelError, match=r"works along axis 1 of \(2, batch, 1\), expected an axis of one"):
        load(path)


@pytest.mark.parametrize(
    ("nodes", "turned"),
    [
        ([node("Add", "x w3")], False),
        ([node("Transpose", "x", "t"), node("Flatten", "t")], True),
        ([node("Unsqueeze", "x second", "u"), node("Softmax", "u", axis=1)], False),
        ([node("Reshape", "x pairs", "p"), node("MatMul", "p square", "m"), node("Flatten", "m")], False),
        ([node("Reshape", "x pairs", "p"), node("MatMul", "p squares", "m"), node("Flatten", "m")], False),
        ([node("Reshape", "x pairs", "p"), node("MatMul", "p p", "m"), node("Flatten", "m")], False),
        (
            [node("Reshape", "x pairs", "p"), node("LogSoftmax", "p", "m", axis=1), node("Flatten", "m")],
            False,
        ),
        ([node("Reshape", "x pairs", "p"), node("ReduceSum", "p second", keepdims=0)], False),
        ([node("Tile", "x twice")], False),
    ],
)
def test_axes_of_one_sample(nodes, turned, tmp_path):
    constants = [
        tensor("w3", w(1, 1, 4)),
        tensor("square", w(2, 2)),
        tensor("squares", w(1, 2, 2)),
        *(tensor(name, np.array(values)) for name, values in {"second": [1], "twice": [1, 2]}.items()),
        tensor("pairs", np.array([-1, 2, 2])),
    ]
    path = save(tmp_path / "m.onnx", nodes, constants)
    expected = runtime(path, X)
    y, _ = load(path).value_and_jacobian(X)
    np.testing.assert_allclose(y, (expected.T if turned else expected).reshape(y.shape), rtol=1e-5, atol=1e-6)


def test_samples_that_become_others(tmp_path):
    constants = [tensor("zeros", np.zeros(5, np.int64))]
    path = save(tmp_path / "m.onnx", [node("Gather", "x zeros", axis=0)], constants, shape=(5, 4))
    with pytest.raises(ModelError, match=r"joins, drops or mixes the samples of \(batch, 4\)"):
        load(path)


@pytest.mark.parametrize(
    ("axes", "total", "axis"), [([-1, 3, 1], 1, 2), ([-1, 1, 3], 1, 2), ([-1, 3], 1, 1), ([-1, 3], 2, 1)]
)
def test_probabilities_beside_others(axes, total, axis, tmp_path):
    nodes = [
        node("MatMul", "x w", "z"),
        node("Sigmoid", "z", "s"),
        node("Reshape", "s axes", "p"),
        node("Sub", "total p", "q"),
        node("Concat", "q p", "c", axis=axis),
        node("Flatten", "c"),
    ]
    constants = [tensor("w", w(4, 3)), tensor("axes", np.array(axes)), tensor("total", np.float32(total))]
    assert_as_runtime(save(tmp_path / "m.onnx", nodes, constants), X)


@pytest.mark.parametrize(
    ("activation", "norm", "is_read"),
    [("Softmax", "L1", True), ("Softmax", "L2", False), ("Sigmoid", "L1", False), ("Softplus", "L1", False)],
)
def test_division_by_a_sum_of_1(activation, norm, is_read, tmp_path):
    nodes = [
        node("MatMul", "x w", "z"),
        node(activation, "z", "s"),
        helper.make_node("Normalizer", ["s"], ["y"], domain="ai.onnx.ml", norm=norm),
    ]
    path = save(tmp_path / "m.onnx", nodes, [tensor("w", w(4, 2))])
    if is_read:
        assert_as_runtime(path, X)
    else:
        with pytest.raises(ModelError, match="divides by the sum of its input, which is not 1"):
            load(path)
