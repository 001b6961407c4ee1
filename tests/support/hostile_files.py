"""Files that would cost minutes or gigabytes if their readers believed them, by the reason."""

import io
import json
import struct
import zipfile

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
h5py = pytest.importorskip("h5py")
helper, numpy_helper, TensorProto = onnx.helper, onnx.numpy_helper, onnx.TensorProto


# Archives.


def archive(method=zipfile.ZIP_DEFLATED, **entries):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        for name, data in entries.items():
            file.writestr(name.replace("__", "."), data)
    return stream.getvalue()


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npy_header(text, data=b""):
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + data


def claiming(data, size, compressed=None):
    """Return an archive whose entries all claim to have ``size`` bytes."""
    data = bytearray(data)
    for mark, place in ((b"PK\1\2", 20), (b"PK\3\4", 18)):
        start = data.find(mark)
        while start >= 0:
            if compressed is not None:
                data[start + place : start + place + 4] = struct.pack("<I", compressed)
            data[start + place + 4 : start + place + 8] = struct.pack("<I", size)
            start = data.find(mark, start + 4)
    return bytes(data)


def many_entries(count):
    name = b"a"
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
    directory = (entry + name) * count
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF, len(directory), 0, 0)
    return directory + end


def described(count=1, **changes):
    """Return an .npz file of ``save`` with one-unit layers, and a changed description."""
    description = {"version": 1, "activations": ["tanh"] * count, "input_names": None, "output_names": None}
    arrays = {
        f"{letter}{number + 1}": np.ones((1, 1) if letter == "w" else 1)
        for number in range(count)
        for letter in "wb"
    }
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays, fastjac=np.array(json.dumps(description | changes)))
    return stream.getvalue()


def described_graph(values, dtype="float32", **arrays):
    """Return an .npz file of ``save`` with a network that is a graph, by its values."""
    names = {"input_names": None, "output_names": None}
    text = json.dumps({"version": 2, "dtype": dtype, "values": values, **names})
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays, fastjac=np.array(text))
    return stream.getvalue()


def row(operation, *inputs, **more):
    return {"operation": operation, "inputs": list(inputs), **more}


def in_a_row(size, count, *last, kind="apply", **more):
    """Return the values of one operation many times."""
    more = more or {"activation": "tanh"}
    return [row("input", size=size), *(row(kind, i, **more) for i in range(count)), *last]


def added(size, count):
    return [
        row("input", size=size),
        row("apply", 0, activation="tanh"),
        *(row("add", i + 1, i) for i in range(count)),
    ]


def weights(n, m):
    return {"w": np.zeros((n, m), "f4"), "b": np.zeros(m, "f4")}


AFFINE = {"w": "w", "b": "b"}
# Values of a graph, in a small file. The first are loaded.
VALUES = {
    "a selection behind many activations": lambda: described_graph(
        in_a_row(8, 9000, row("select", 9000, places=[0, 1]))
    ),
    "a selection behind many scales": lambda: described_graph(
        in_a_row(8, 9000, row("select", 9000, places=[0, 1]), kind="scale", factor="f", shift="f"),
        f=np.ones(8, "f4"),
    ),
    "ten thousand sums": lambda: described_graph(added(20, 9998)),
    "a wide sum": lambda: described_graph(added(3000, 3)),
    "one of many inputs": lambda: described_graph(
        [row("input", size=400_000), row("select", 0, places=[3]), row("affine", 1, **AFFINE)],
        **weights(1, 20),
    ),
    "a wide map of one of many inputs": lambda: described_graph(
        [
            row("input", size=400_000),
            row("select", 0, places=[3]),
            row("affine", 1, **AFFINE),
            row("apply", 2, activation="tanh"),
            row("affine", 3, w="w2", b="b2"),
        ],
        **weights(1, 4000),
        w2=np.zeros((4000, 1), "f4"),
        b2=np.zeros(1, "f4"),
    ),
    "many wide activations": lambda: described_graph(in_a_row(1000, 900)),
    "many wide sums": lambda: described_graph(added(1000, 400)),
    "half a million outputs": lambda: described_graph(in_a_row(490_000, 1)),
    "one entry very often": lambda: described_graph(
        [
            row("input", size=1),
            row("select", 0, places=[0] * 300_000),
            row("add", 1, 1),
            row("multiply", 1, 2),
        ]
    ),
    "many inputs of one value": lambda: described_graph(
        [
            row("input", size=1000),
            *(row("concatenate", 0, 0, 0, 0) for _ in range(100)),
            row("concatenate", *range(1, 100)),
        ]
    ),
}
VALUES_LOADED = tuple(VALUES)[:6]

ZEROS = np.zeros((3000, 3000))
ARCHIVES = {
    "zeros": lambda: archive(w1__npy=npy(ZEROS), b1__npy=npy(np.zeros(3000))),
    "zeros that claim to be few": lambda: claiming(archive(w1__npy=npy(ZEROS)), 400),
    "zeros packed by bzip2 that claim to be few": lambda: claiming(
        archive(zipfile.ZIP_BZIP2, w1__npy=npy(ZEROS)), 400
    ),
    "zeros packed by lzma that claim to be few": lambda: claiming(
        archive(zipfile.ZIP_LZMA, w1__npy=npy(ZEROS)), 400
    ),
    "two gigabytes claimed": lambda: claiming(
        archive(zipfile.ZIP_STORED, w1__npy=npy(np.zeros(3))), 2**31, 2**31
    ),
    "two gigabytes claimed of few": lambda: claiming(archive(w1__npy=npy(np.zeros(3))), 2**31),
    "a shape of terabytes": lambda: archive(
        w1__npy=npy_header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1048576, 1048576), }\n")
    ),
    "a shape that overflows": lambda: archive(
        w1__npy=npy_header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 4), }\n")
    ),
    "a header of brackets": lambda: archive(w1__npy=npy_header(b"(" * 60000)),
    "a header of digits": lambda: archive(
        w1__npy=npy_header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (" + b"1" * 900 + b"x")
    ),
    "a header of Python 2": lambda: archive(
        w1__npy=npy_header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1L, 1L), }\n", bytes(8))
    ),
    "many entries": lambda: many_entries(200_000),
    "400 layers": lambda: described(400),
    "1001 layers": lambda: described(1001),
    "ten thousand layers": lambda: described(4999),
    "many names": lambda: described(1, input_names=["a"] * 10**6),
    "brackets for names": lambda: described(1, input_names=[[]] * 10**6),
    "one input, a million outputs": lambda: archive(
        w1__npy=npy(np.ones((1, 10**6), "f4")), b1__npy=npy(np.ones(10**6, "f4"))
    ),
    "a million inputs, one output": lambda: archive(
        w1__npy=npy(np.ones((10**6, 1), "f4")), b1__npy=npy(np.ones(1, "f4"))
    ),
    "numbers of no bytes": lambda: archive(
        w1__npy=npy_header(b"{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000, 2), }\n")
    ),
}


# Headers of safetensors.


def safetensors(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def empty(shape=(0,)):
    return {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}


HEADERS = {
    "many empty tensors": lambda: safetensors({f"w{number}": empty() for number in range(200_000)}),
    "brackets": lambda: safetensors(b"[" * 10**7),
    "pairs of brackets": lambda: safetensors(b'{"__metadata__":[' + b"[]," * 3 * 10**6 + b"[]]}"),
    "much metadata": lambda: safetensors({"__metadata__": {f"{number}": "" for number in range(10**6)}}),
    "a shape of many axes": lambda: safetensors({"w1": empty([1] * 10**6)}),
    "terabytes": lambda: safetensors({"w1": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
    "a header of exabytes": lambda: struct.pack("<Q", 2**62) + b"{}",
    "a header of nearly the file": lambda: safetensors(b"{" + b" " * 10**7),
}


# Graphs.


def field(number, data):
    """Return a field of protobuf that holds bytes."""
    size, text = len(data), b""
    while size > 127:
        text += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + text + bytes([size]) + data


def graph(*parts):
    return field(7, b"".join(parts))


def nested(depth):
    """Return a graph in an attribute of a node of a graph, and so on."""
    data = b""
    for _ in range(depth):
        data = field(1, field(5, field(6, data)))
    return graph(data)


def model(nodes, constants=(), shape=("batch", 4)):
    value = helper.make_tensor_value_info
    inputs, outputs = [value("x", TensorProto.FLOAT, shape)], [value("y", TensorProto.FLOAT, None)]
    made = helper.make_graph(nodes, "graph", inputs, outputs, list(constants))
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString()


def chain(op, count, *others, shape=("batch", 4), constants=()):
    """Return a model of one operator many times."""
    nodes = [helper.make_node(op, [f"t{n}", *others], [f"t{n + 1}"]) for n in range(count)]
    nodes[0].input[0], nodes[-1].output[0] = "x", "y"
    return model(nodes, constants, shape)


def tensor(name, *shape):
    return numpy_helper.from_array(np.ones(shape, "f4"), name)


def doubled(op, count):
    nodes = [helper.make_node(op, [f"w{n}", f"w{n}"], [f"w{n + 1}"], axis=0) for n in range(count)]
    return model([*nodes, helper.make_node("Add", ["x", f"w{count}"], ["y"])], [tensor("w0", 4)])


def spread_out():
    nodes = [helper.make_node("Add", ["row", "column"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"])]
    return model(nodes, [tensor("row", 1, 10_000), tensor("column", 10_000, 1)], ("batch", 10_000))


def selected(nodes, of="t", constants=()):
    """Return a model that adds some of the last tensor's entries to some of the input's."""
    cut = [helper.make_node("Slice", [name, "from", "to", "axis"], [f"{name}_cut"]) for name in (of, "x")]
    ends = [numpy_helper.from_array(np.array([at]), name) for name, at in zip(NAMES, (1, 3, 1), strict=True)]
    last = helper.make_node("Add", [f"{of}_cut", "x_cut"], ["y"])
    return model([*nodes, *cut, last], [*ends, *constants])


NAMES = ("from", "to", "axis")


def sigmoids(count, name="t", start="x"):
    nodes = [helper.make_node("Sigmoid", [f"{name}{n}"], [f"{name}{n + 1}"]) for n in range(count)]
    nodes[0].input[0], nodes[-1].output[0] = start, name
    return nodes


def two_branches(count):
    join = helper.make_node("Concat", ["t", "u"], ["v"], axis=1)
    first = helper.make_node("Gather", ["x", "places"], ["x1"], axis=1)
    second = helper.make_node("Neg", ["x"], ["x3"])
    nodes = [first, second, *sigmoids(count, "t", "x1"), *sigmoids(count, "u", "x3"), join]
    return selected(nodes, "v", [numpy_helper.from_array(np.array([3, 1]), "places")])


def branches(count):
    nodes = []
    for n in range(count):
        nodes += [
            helper.make_node("Gather", ["x", "places"], [f"g{n}"], axis=1),
            helper.make_node("MatMul", [f"g{n}", "w"], [f"z{n}"]),
        ]
    nodes.append(helper.make_node("Sum", [f"z{n}" for n in range(count)], ["s"]))
    nodes.append(helper.make_node("Add", ["s", "x"], ["y"]))
    return model(nodes, [tensor("w", 2, 4), numpy_helper.from_array(np.array([3, 1]), "places")])


def halves(count):
    """Return a model that splits, and joins the halves the other way round, many times."""
    nodes = []
    for n in range(count):
        nodes += [
            helper.make_node("Split", [f"t{n}"], [f"a{n}", f"b{n}"], axis=1, num_outputs=2),
            helper.make_node("Sigmoid", [f"a{n}"], [f"c{n}"]),
            helper.make_node("Sigmoid", [f"b{n}"], [f"d{n}"]),
            helper.make_node("Concat", [f"d{n}", f"c{n}"], [f"e{n}"], axis=1),
            helper.make_node("Gather", [f"e{n}", "places"], [f"t{n + 1}"], axis=1),
        ]
    nodes[0].input[0], nodes[-1].output[0] = "x", "t"
    return selected(nodes, "t", [numpy_helper.from_array(np.array([3, 1, 0, 2]), "places")])


def residuals(count):
    nodes = []
    for n in range(count):
        nodes += [
            helper.make_node("Tanh", [f"t{n}"], [f"a{n}"]),
            helper.make_node("Add", [f"a{n}", "x"], [f"t{n + 1}"]),
        ]
    nodes[0].input[0], nodes[-1].output[0] = "x", "y"
    return model(nodes)


def wide_selection(count, *, behind):
    """Return a model whose layers read one of many inputs, each the same one."""
    nodes = [helper.make_node("Gather", ["x", "places"], ["g"], axis=1)]
    nodes += [helper.make_node("MatMul", ["g", f"w{n}"], [f"t{n}"]) for n in range(count)]
    nodes.append(helper.make_node("Sum", [f"t{n}" for n in range(count)], ["z"]))
    nodes += [helper.make_node(op, [a], [b]) for op, a, b in behind]
    places = numpy_helper.from_array(np.array([1]), "places")
    fan_out = 1000 if count == 1 else 1
    weights = [numpy_helper.from_array(np.full((1, fan_out), n, "f4"), f"w{n}") for n in range(count)]
    return model(nodes, [*weights, places], ("batch", 500_000 if count == 1 else 16_000))


def concatenated(count, other):
    """Return a model that joins the last tensor to itself, or to another, many times."""
    nodes = [
        helper.make_node("Concat", [f"t{n}", other or f"t{n}"], [f"t{n + 1}"], axis=1) for n in range(count)
    ]
    nodes[0].input[0], nodes[-1].output[0] = "a", "y"
    return model([helper.make_node("Tanh", ["x"], ["a"]), *nodes])


def split_in_many(count):
    names = [f"t{n}" for n in range(count)]
    sizes = numpy_helper.from_array(np.ones(count, "i8"), "sizes")
    nodes = [
        helper.make_node("Split", ["x", "sizes"], names, axis=1),
        helper.make_node("Concat", names[::-1], ["y"], axis=1),
    ]
    return model(nodes, [sizes], ("batch", count))


def many_digits(count):
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "from", "to"], ["t0"]),
        *(helper.make_node("Mul", [f"t{n}", f"t{n}"], [f"t{n + 1}"]) for n in range(count)),
        helper.make_node("Reshape", ["x", f"t{count}"], ["y"]),
    ]
    return model(
        nodes, [numpy_helper.from_array(np.array([at]), name) for at, name in ((1, "from"), (2, "to"))]
    )


def products_of_constants(count, rows):
    nodes = [helper.make_node("Neg", [name], [f"{name}2"]) for name in ("row", "column")]
    nodes += [helper.make_node("MatMul", ["row2", "column2"], [f"t{n}"]) for n in range(count)]
    nodes.append(helper.make_node("Sum", ["x", *(f"t{n}" for n in range(count))], ["y"]))
    return model(nodes, [tensor("row", rows, 200_000 // rows), tensor("column", 200_000 // rows, rows)])


HALF_A_MILLION = 500_000
GRAPHS = {
    "empty nodes": lambda: graph(b"\x0a\0" * HALF_A_MILLION),
    "empty tensors": lambda: graph(b"\x2a\0" * HALF_A_MILLION),
    "empty attributes": lambda: graph(field(1, b"\x2a\0" * HALF_A_MILLION)),
    "empty names": lambda: graph(field(1, b"\x0a\0" * HALF_A_MILLION)),
    "empty descriptions": lambda: b"\x72\0" * HALF_A_MILLION,
    "unknown fields": lambda: graph(b"\xf2\x06\0" * HALF_A_MILLION),
    "numbers": lambda: graph(b"\xf0\x06\0" * HALF_A_MILLION),
    "sizes of a tensor": lambda: graph(field(5, b"\x08\x01" * HALF_A_MILLION)),
    "ten megabytes of integers": lambda: graph(field(5, field(7, b"\1" * 10**7))),
    "ten megabytes of floats, one by one": lambda: graph(field(5, b"\x25\0\0\0\0" * (2 * 10**6))),
    "graphs in graphs": lambda: nested(20_000),
    "a field beyond the file": lambda: b"\x3a\xff\xff\xff\xff\x0f",
    "a field of exabytes": lambda: b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    "many nodes": lambda: chain("Relu", 20_000),
    "many more nodes": lambda: chain("Relu", 40_000),
    "many terms": lambda: chain("Add", 12_000, "c", constants=[tensor("c", 1)]),
    "many scales": lambda: chain("Mul", 12_000, "c", constants=[tensor("c", 4)]),
    "many activations": lambda: chain("Tanh", 12_000),
    "diagonal layers": lambda: chain("Tanh", 10, shape=("batch", 4096)),
    "a wide input": lambda: chain("Relu", 1, shape=("batch", 10**12)),
    "one matrix very often": lambda: chain(
        "MatMul", 1000, "w", shape=("batch", 200), constants=[tensor("w", 200, 200)]
    ),
    "one wide scale very often": lambda: chain(
        "Mul", 5000, "c", shape=("batch", 5000), constants=[tensor("c", 5000)]
    ),
    "doubled constants": lambda: doubled("Concat", 60),
    "a row and a column": spread_out,
    "a thousand layers": lambda: chain(
        "MatMul", 1000, "w", shape=("batch", 1), constants=[tensor("w", 1, 1)]
    ),
    "a selection of the last of many": lambda: selected(sigmoids(4000)),
    "two long branches": lambda: two_branches(2000),
    "many branches": lambda: branches(1500),
    "halves, many times": lambda: halves(800),
    "two thousand sums": lambda: residuals(2000),
    "more operations than there may be": lambda: residuals(3000),
    "one of many inputs": lambda: wide_selection(1, behind=[("Softmax", "z", "s"), ("Tanh", "s", "y")]),
    "one of many inputs, for a layer": lambda: wide_selection(1, behind=[("Tanh", "z", "y")]),
    "one of many inputs, for many layers": lambda: wide_selection(
        1500, behind=[("Softmax", "z", "s"), ("Tanh", "s", "y")]
    ),
    "joined to itself": lambda: concatenated(40, None),
    "joined to the input": lambda: concatenated(4000, "x"),
    "split in many": lambda: split_in_many(9000),
    "a shape of many digits": lambda: many_digits(60),
    "products of constants": lambda: products_of_constants(12_000, 1),
    "a wide product of constants": lambda: products_of_constants(1, 10_000),
    "a layer too many": lambda: chain("MatMul", 1001, "w", shape=("batch", 1), constants=[tensor("w", 1, 1)]),
}
# Keras' files.


def hdf5(change):
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        change(file)
    return stream.getvalue()


def dense(name="dense"):
    return {"class_name": "Dense", "config": {"name": name, "activation": "tanh"}}


def keras(config, weights=None):
    """Return a .keras file of a configuration, given as text or as layers of a Sequential."""
    if not isinstance(config, str):
        config = {"class_name": "Sequential", "config": {"name": "s", "layers": config}}
        config = json.dumps(config)
    weights = weights or hdf5(
        lambda file: file.create_dataset("layers/dense/vars/0", data=np.ones((4, 4), "f4"))
    )
    return archive(config__json=config.encode(), **{"model__weights.h5": weights})


def start(*shape):
    return {"class_name": "InputLayer", "config": {"name": "input", "batch_shape": [None, *shape]}}


def doubling(depth):
    """Return a model that has one model twice, which has another twice, and so on."""
    inner = {"class_name": "Dropout", "config": {"name": "m0"}}
    for number in range(1, depth):
        call = [[[f"m{number - 1}", 0, 0, {}]]]
        layers = [
            {"class_name": "InputLayer", "config": {"name": "in"}, "inbound_nodes": []},
            {**inner, "inbound_nodes": [[["in", 0, 0, {}]], *call]},
        ]
        ends = {"output_layers": [[f"m{number - 1}", 1, 0]]}
        inner = {"class_name": "Functional", "config": {"name": f"m{number}", "layers": layers, **ends}}
    return [start(4), inner]


def linked(file):
    file["layers/dense/vars/0"] = np.zeros(10**5)
    for number in range(10_000):
        file[f"{number}"] = file["layers/dense/vars/0"]


def described_in(text):
    def change(file):
        file.attrs.create("model_config", text, dtype=h5py.string_dtype(length=len(text)))

    return lambda: hdf5(change)


KERAS = {
    "spaces": (".keras", lambda: keras(" " * 10**7)),
    "brackets": (".keras", lambda: keras("[" * 10**6)),
    "zeros that claim to be few": (".keras", lambda: claiming(keras("{}", bytes(10**8)), 1000)),
    "models in models, twice each": (".keras", lambda: keras(doubling(40))),
    "a wide input": (
        ".keras",
        lambda: keras([start(10**12), {"class_name": "Rescaling", "config": {"name": "r"}}]),
    ),
    "a layer too many": (
        ".keras",
        lambda: keras([start(4), *[{"class_name": "ReLU", "config": {"name": "r"}}] * 1001]),
    ),
    "diagonal layers": (
        ".keras",
        lambda: keras([start(4000), *({"class_name": "ELU", "config": {"name": f"{n}"}} for n in range(9))]),
    ),
    "one array by many names": (".h5", lambda: hdf5(linked)),
    "packed zeros": (
        ".h5",
        lambda: hdf5(lambda file: file.create_dataset("0", data=ZEROS, compression="gzip")),
    ),
    "an empty array of terabytes": (
        ".h5",
        lambda: hdf5(lambda file: file.create_dataset("0", (10**6, 10**6), "f4")),
    ),
    "many groups": (".h5", lambda: hdf5(lambda file: [file.create_group(f"{n}") for n in range(30_000)])),
    "a configuration of brackets": (".h5", described_in(b"[" * 60_000)),
}


# Text.


def nnet(*sizes, body):
    numbers = ",".join(["1"] * sizes[0])
    head = f"{len(sizes) - 1},{sizes[0]},{sizes[-1]},9,\n{','.join(map(str, sizes))},\n0,\n"
    ends = f"-{numbers.replace(',', ',-')},\n{numbers},\n{numbers},1,\n{numbers},1,\n"
    return head + ends + body


TEXTS = {
    "one long line": lambda: "0," * (5 * 10**6),
    "many lines": lambda: nnet(1, 3 * 10**6, body="1\n" * (6 * 10**6)),
    "comments": lambda: "//\n" * (3 * 10**6),
    "sizes that are not there": lambda: nnet(4, 10**9, body="1,1,1,1,\n"),
    "many small layers": lambda: nnet(*[1] * 2000, body="1\n" * 4000),
    "honest": lambda: nnet(500, 5000, body=("0," * 500 + "\n") * 5000 + "1\n" * 5000),
}
