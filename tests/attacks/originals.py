"""One file or more of every format that `fastjac.load` reads, in bytes."""

import io
import itertools
import json
import os
import tempfile
import zipfile

import h5py
import numpy as np
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper

import fastjac

WEIGHTS_ALONE = {"activation": "relu", "head": "softmax"}
rng = np.random.default_rng(0)


def _weights(dtype, *sizes):
    pairs = itertools.pairwise(sizes)
    return [(rng.normal(size=pair).astype(dtype), rng.normal(size=pair[1]).astype(dtype)) for pair in pairs]


def _saved(suffix, dtype):
    names = {"input_names": list("abcd"), "output_names": ["é", "no"]}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "m" + suffix)
        fastjac.save(fastjac.Network(_weights(dtype, 4, 6, 3, 2), ["elu(0.5)", "tanh"], **names), path)
        with open(path, "rb") as file:
            return file.read()


def _plain_npz():
    stream = io.BytesIO()
    arrays = {
        f"{letter}{i}": a
        for i, pair in enumerate(_weights("f4", 3, 5, 2), 1)
        for letter, a in zip("wb", pair, strict=True)
    }
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _state_dict(dtype):
    arrays = {}
    for i, (w, b) in enumerate(_weights(dtype, 4, 6, 3)):
        arrays |= {f"net.{2 * i}.weight": np.ascontiguousarray(w.T), f"net.{2 * i}.bias": b}
    return safetensors.numpy.save(arrays)


def _onnx(nodes, constants, dtype=TensorProto.FLOAT):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "graph", [value("x", dtype, ("batch", 4))], [value("y", dtype, ("batch", 3))], constants
    )
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def _onnx_gemm():
    (w, b), (last, end) = _weights("f4", 4, 5, 3)
    arrays = {"w": w, "b": b, "last": last.T, "end": end}
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["z"]),
        helper.make_node("LeakyRelu", ["z"], ["a"], alpha=0.5),
        helper.make_node("Gemm", ["a", "last", "end"], ["o"], transB=1),
        helper.make_node("Softmax", ["o"], ["y"], axis=-1),
    ]
    return _onnx(
        nodes, [numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in arrays.items()]
    )


def _onnx_matmul():
    ((w, b),) = _weights("f8", 4, 3)
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.full(4, 0.5), "c")),
        helper.make_node("Sub", ["x", "c"], ["shifted"]),
        helper.make_node("Reshape", ["shifted", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["z"]),
        helper.make_node("Add", ["z", "b"], ["s"]),
        helper.make_node("Sigmoid", ["s"], ["y"]),
    ]
    constants = [numpy_helper.from_array(a, name) for name, a in {"w": w, "b": b}.items()]
    constants.append(numpy_helper.from_array(np.array([-1, 4]), "shape"))
    # As numbers written one by one, not as bytes.
    constants[1] = helper.make_tensor("b", TensorProto.DOUBLE, b.shape, list(b))
    return _onnx(nodes, constants, TensorProto.DOUBLE)


def _onnx_graph():
    ((w, b),) = _weights("f4", 4, 6)
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["z"]),
        helper.make_node("Split", ["z"], ["gate", "up"], axis=1, num_outputs=2),
        helper.make_node("Sigmoid", ["gate"], ["s"]),
        helper.make_node("Mul", ["s", "up"], ["m"]),
        helper.make_node("ReduceMean", ["m", "last"], ["mean"]),
        helper.make_node("Sub", ["m", "mean"], ["d"]),
        helper.make_node("Mul", ["d", "d"], ["q"]),
        helper.make_node("ReduceMean", ["q", "last"], ["variance"]),
        helper.make_node("Sqrt", ["variance"], ["deviation"]),
        helper.make_node("Div", ["d", "deviation"], ["n"]),
        helper.make_node("Slice", ["x", "first", "fourth", "last"], ["part"]),
        helper.make_node("Concat", ["n", "part"], ["joined"], axis=1),
        helper.make_node("Gather", ["joined", "places"], ["g"], axis=1),
        helper.make_node("Add", ["g", "part"], ["y"]),
    ]
    arrays = {"w": w, "b": b, "places": np.array([5, 0, 3])}
    arrays |= {name: np.array([number]) for name, number in (("last", 1), ("first", 1), ("fourth", 4))}
    return _onnx(nodes, [numpy_helper.from_array(a, name) for name, a in arrays.items()])


def _nnet():
    lines = ["// a comment", "2,3,2,4,", "3,4,2,", "0,", "-1,-2,-3,", "1,2,3,", "0,0.5,0,1,", "1,2,1,3,"]
    for w, b in _weights("f8", 3, 4, 2):
        lines += [",".join(f"{number:.6g}" for number in row) + "," for row in (*w.T, *b[:, None])]
    return "\n".join([*lines, ""]).encode()


def _hdf5(names, **attributes):
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, (w, b) in zip(names, _weights("f4", 4, 5, 3), strict=True):
            for number, array in enumerate((w, b)):
                file[f"{name}/{number}"] = array
        for name, value in attributes.items():
            file.attrs[name] = value
    return stream.getvalue()


def _dense(name, units, activation):
    config = {"name": name, "units": units, "activation": activation, "use_bias": True}
    return {"class_name": "Dense", "config": config}


def _sequential():
    start = {"class_name": "InputLayer", "config": {"name": "input", "batch_shape": [None, 4]}}
    layers = [start, _dense("dense", 5, "relu"), _dense("dense_1", 3, "softmax")]
    return json.dumps({"class_name": "Sequential", "config": {"name": "s", "layers": layers}})


def _keras():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.9.0"}))
        archive.writestr("config.json", _sequential())
        archive.writestr("model.weights.h5", _hdf5(["layers/dense/vars", "layers/dense_1/vars"]))
    return stream.getvalue()


def _whole_h5():
    """Return a model as Keras writes it to one HDF5 file."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.attrs["model_config"] = _sequential()
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"dense", b"dense_1"]
        for name, pair in zip(("dense", "dense_1"), _weights("f4", 4, 5, 3), strict=True):
            layer = group.create_group(name)
            layer.attrs["weight_names"] = [f"{name}/kernel".encode(), f"{name}/bias".encode()]
            layer[f"{name}/kernel"], layer[f"{name}/bias"] = pair
    return stream.getvalue()


def originals():
    """Return the suffix, the bytes and the options of `fastjac.load` of every file."""
    files = [
        *(
            (suffix, _saved(suffix, dtype), {})
            for suffix in (".npz", ".safetensors")
            for dtype in ("f4", "f8")
        ),
        (".npz", _plain_npz(), WEIGHTS_ALONE),
        *((".safetensors", _state_dict(dtype), WEIGHTS_ALONE) for dtype in ("f2", "f4")),
        (".onnx", _onnx_gemm(), {}),
        (".onnx", _onnx_matmul(), {}),
        (".onnx", _onnx_graph(), {}),
        (".nnet", _nnet(), {}),
        (".keras", _keras(), {}),
        (".h5", _whole_h5(), {}),
        (".h5", _hdf5(["layers/dense/vars", "layers/dense_1/vars"]), WEIGHTS_ALONE),
    ]
    by_suffix = {}
    for suffix, data, how in files:
        by_suffix.setdefault(suffix, []).append((data, how))
    return by_suffix
