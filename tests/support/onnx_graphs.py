"""ONNX networks of every kind of structure, written node by node; a script that counts which load and agree.

`KINDS` has the networks of each kind. A network is a function that writes its nodes with a `Writer`, and
returns the name of its output.
"""

import itertools
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import onnxruntime
from onnx import helper, numpy_helper

import fastjac

TOLERANCES = {np.float32: 1e-5, np.float64: 1e-10}
# ONNX keeps the constants of these in float32: 1/6, sqrt(2) or selu's. fastjac takes them as defined. Of
# GroupNormalization it computes mean and variance in float32.
IN_FLOAT32 = ("Gelu", "GroupNormalization", "HardSigmoid", "HardSwish", "Selu")
N = 4


class Writer:
    """Nodes and constants of a graph in one dtype. Arrays that are handed to a node become constants."""

    def __init__(self, dtype, seed=0):
        self.dtype, self.rng = dtype, np.random.default_rng(seed)
        self.nodes, self.constants = [], []
        self.inputs = [("x", ("batch", N))]
        self.opset, self.order = 20, None

    def __call__(self, op, *inputs, outputs=1, **attributes):
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        made = [f"{op}_{len(self.nodes)}_{place}" for place in range(outputs)]
        self.nodes.append(helper.make_node(op, names, made, **attributes))
        return made[0] if outputs == 1 else made

    def constant(self, value):
        array = np.asarray(value)
        if array.dtype.kind == "f":
            array = array.astype(self.dtype)
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def w(self, *shape):
        return self.rng.normal(size=shape) / max(shape[0], 1) ** 0.5

    def dense(self, x, fan_in, fan_out, activation=None):
        z = self("Gemm", x, self.w(fan_in, fan_out), self.w(fan_out))
        return z if activation is None else self(activation, z)

    def write(self, path, output):
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        graph = helper.make_graph(
            self.nodes,
            "graph",
            [helper.make_tensor_value_info(name, kind, shape) for name, shape in self.inputs],
            [helper.make_tensor_value_info(output, kind, None)],
            self.constants,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)


# x + f(x) and its kin.


def residual(k):
    return k("Add", "x", k.dense(k.dense("x", N, 8, "Tanh"), 8, N))


def small_step(k):
    step = k("Mul", k.dense(k.dense("x", N, 8, "Tanh"), 8, N), np.array(0.05))
    return k("Add", "x", step)


def blocks(k):
    h = k.dense("x", N, 6, "Relu")
    for _ in range(3):
        h = k("Relu", k("Add", k.dense(k.dense(h, 6, 6, "Relu"), 6, 6), h))
    return k("Softmax", k.dense(h, 6, 3))


def blocks_before_activation(k):
    h = k.dense("x", N, 6)
    for _ in range(2):
        statistics = [k.w(6), k.w(6), k.w(6), np.abs(k.w(6)) + 0.5]
        n = k("Relu", k("BatchNormalization", h, *statistics))
        h = k("Sub", h, k("Mul", k.dense(n, 6, 6, "Elu"), k.w(6)))
    return k.dense(h, 6, 2)


def sum_of_three(k):
    parts = [k.dense("x", N, 3, activation) for activation in ("Tanh", "Relu", "Sigmoid")]
    return k("Sum", *parts)


def residual_of_an_activation(k):
    z = k.dense("x", N, 5)
    return k("Add", z, k("Mul", z, k("Sigmoid", z)))


def residual_in_gemm(k):
    h = k.dense("x", N, 5, "Tanh")
    return k("Gemm", h, k.w(5, N), "x", alpha=0.5, beta=2.0)


# Concatenations.


def dense_net(k):
    h, size = "x", N
    for _ in range(3):
        h, size = k("Concat", h, k.dense(h, size, 3, "Relu"), axis=1), size + 3
    return k.dense(h, size, 2)


def input_again(k):
    h = k.dense(k.dense("x", N, 6, "Softplus"), 6, 6, "Softplus")
    return k.dense(k("Concat", h, "x", axis=-1), 6 + N, 1)


def fourier_features(k):
    z = k("MatMul", "x", k.w(N, 5))
    return k.dense(k("Concat", k("Sin", z), k("Cos", z), "x", axis=1), 10 + N, 3, "Tanh")


def concat_in_planes(k):
    planes = [k("Reshape", k.dense("x", N, 6, "Tanh"), np.array([-1, 2, 3])) for _ in range(2)]
    return k.dense(k("Flatten", k("Concat", *planes, axis=2)), 12, 2)


def one_minus_and_itself(k):
    p = k.dense("x", N, 1, "Sigmoid")
    return k("Concat", k("Sub", np.array([1.0]), p), p, axis=1)


# Gates.


def glu(k):
    a, b = k("Split", k.dense("x", N, 12), np.array([6, 6]), outputs=2, axis=-1)
    return k.dense(k("Mul", a, k("Sigmoid", b)), 6, 3)


def swiglu(k):
    gate, up = k("MatMul", "x", k.w(N, 8)), k("MatMul", "x", k.w(N, 8))
    return k("MatMul", k("Mul", k("Mul", gate, k("Sigmoid", gate)), up), k.w(8, N))


def geglu(k):
    gate, up = k.dense("x", N, 8, "Gelu"), k.dense("x", N, 8)
    return k.dense(k("Mul", up, gate), 8, 3)


def highway(k):
    t, h = k.dense("x", N, N, "Sigmoid"), k.dense("x", N, N, "Tanh")
    return k("Add", k("Mul", t, h), k("Mul", k("Sub", np.array(1.0), t), "x"))


def wavenet(k):
    z = k.dense("x", N, 5)
    return k("Mul", k("Tanh", z), k("Sigmoid", z))


def one_gate_for_all(k):
    return k("Mul", k.dense("x", N, 5, "Tanh"), k.dense("x", N, 1, "Sigmoid"))


def mixture_of_experts(k):
    shares = k("Softmax", k.dense("x", N, 2))
    first, second = k("Split", shares, outputs=2, axis=1, num_outputs=2)
    experts = [k.dense(k.dense("x", N, 6, "Tanh"), 6, 3) for _ in range(2)]
    return k("Add", k("Mul", first, experts[0]), k("Mul", experts[1], second))


# Selections, and other axes.


def slices(k):
    h = k("Add", k("Slice", "x", *map(np.array, ([0], [2], [1]))), k.dense("x", N, 2, "Tanh"))
    return k("Concat", h, k("Slice", "x", *map(np.array, ([3], [-5], [1], [-2]))), axis=1)


def gathers(k):
    h = k("Gather", "x", np.array([3, 0, 0, -2]), axis=1)
    one = k("Unsqueeze", k("Gather", "x", np.array(2), axis=1), np.array([1]))
    return k("Add", k.dense(h, 4, 3, "Relu"), one)


def parts_of_outputs(k):
    y = k.dense(k.dense("x", N, 6, "Tanh"), 6, 5)
    mean, spread = k("Split", y, np.array([2, 3]), outputs=2, axis=1)
    return k("Concat", k("Tanh", mean), k("Softplus", spread), axis=1)


def uneven_chunks(k):
    parts = k("Split", k.dense("x", N, 7), outputs=3, axis=1, num_outputs=3)
    return k("Concat", k("Tanh", parts[2]), parts[0], k("Exp", parts[1]), axis=1)


def transposed_planes(k):
    planes = k("Transpose", k("Reshape", k.dense("x", N, 6, "Tanh"), np.array([0, 2, 3])), perm=[0, 2, 1])
    return k.dense(k("Reshape", planes, np.array([-1, 6])), 6, 3)


def repeated(k):
    one = k.dense("x", N, 1, "Tanh")
    shape = k("Concat", k("Slice", k("Shape", "x"), np.array([0]), np.array([1])), np.array([3]), axis=0)
    return k("Add", k("Expand", one, shape), k.dense("x", N, 3))


def in_columns(k):
    k.inputs = [("x", (N, "batch"))]
    h = k("Tanh", k("Add", k("MatMul", k.w(N, N), "x"), k.w(N, 1)))
    return k("MatMul", k.w(2, N), k("Add", h, "x"))


def one_of_the_columns(k):
    k.inputs = [("x", (N, "batch"))]
    one = k("Unsqueeze", k("Gather", "x", np.array(2), axis=0), np.array([0]))
    return k("Add", k("Tanh", k("MatMul", k.w(2, N), "x")), one)


def one_column(k):
    k.inputs = [("x", (N, 1))]
    h = k("Tanh", k("Add", k("MatMul", k.w(N, N), "x"), k.w(N, 1)))
    return k("Concat", k("MatMul", k.w(2, N), h), "x", axis=0)


def in_any_order(k):
    output = dense_net(k)
    k.nodes.reverse()
    return output


# Rows of a sample: tokens, channels.


def _tokens(k, count=3, width=4):
    return k("Reshape", k.dense("x", N, count * width, "Tanh"), np.array([0, count, width]))


def attention(k):
    tokens = _tokens(k)
    q, key, v = (k("MatMul", tokens, k.w(4, 4)) for _ in range(3))
    scores = k("Mul", k("MatMul", q, k("Transpose", key, perm=[0, 2, 1])), np.array(0.5))
    return k.dense(k("Flatten", k("Add", tokens, k("MatMul", k("Softmax", scores), v))), 12, 2)


def heads_of_attention(k):
    parts = k(
        "Split", k("Reshape", _tokens(k, 3, 12), np.array([0, 3, 3, 2, 2])), outputs=3, axis=2, num_outputs=3
    )
    q, key, v = (k("Transpose", k("Squeeze", part, np.array([2])), perm=[0, 2, 1, 3]) for part in parts)
    shares = k("Softmax", k("MatMul", q, k("Transpose", key, perm=[0, 1, 3, 2])), axis=-1)
    return k("Flatten", k("Transpose", k("MatMul", shares, v), perm=[0, 2, 1, 3]))


def one_layer_for_all_tokens(k):
    h = k("Relu", k("Add", k("MatMul", _tokens(k), k.w(4, 5)), k.w(5)))
    h = k("LayerNormalization", h, k.w(5), k.w(5), axis=-1)
    return k.dense(k("ReduceMean", h, np.array([1]), keepdims=0), 5, 3)


def mixed_tokens(k):
    tokens = _tokens(k)
    mixed = k("MatMul", k.w(3, 3), k("Gelu", tokens))
    return k("Flatten", k("Add", tokens, k("Mul", mixed, k.w(3, 1))))


def group_normalization(k):
    k.opset = 21
    channels = k("GroupNormalization", _tokens(k, 4, 3), k.w(4), k.w(4), num_groups=2, epsilon=1e-3)
    return k.dense(k("Flatten", channels), 12, 2)


def instance_normalization(k):
    channels = k("InstanceNormalization", _tokens(k), k.w(3), k.w(3), epsilon=1e-3)
    return k("Elu", k.dense(k("Flatten", channels), 12, 2))


def largest_shares(k):
    shares = k("Softmax", _tokens(k), axis=1)
    return k("Concat", k("ReduceSumSquare", shares, np.array([2]), keepdims=0), "x", axis=1)


def shares_of_exp(k):
    tokens = _tokens(k)
    e = k("Exp", k("Sub", tokens, k("ReduceMax", tokens, np.array([1]))))
    return k("Flatten", k("Mul", k("Div", e, k("ReduceSum", e, np.array([1]))), k.w(4)))


def normal_tokens(k):
    tokens = _tokens(k)
    d = k("Sub", tokens, k("ReduceMean", tokens, np.array([2])))
    variance = k("ReduceMean", k("Mul", d, d), np.array([2]))
    return k("Flatten", k("Add", k("Div", d, k("Sqrt", k("Add", variance, np.array(1e-3)))), k.w(4)))


def repeated_rows(k):
    rows = k("Tile", k("Unsqueeze", "x", np.array([1])), np.array([1, 3, 1]))
    return k("Flatten", k("Mul", rows, k("Sin", _tokens(k))))


# Normalisations.


def layer_normalization(k):
    h = k("LayerNormalization", k.dense("x", N, 8), k.w(8), k.w(8), axis=-1, epsilon=1e-3)
    return k.dense(k("Elu", h), 8, 3)


def without_bias(k):
    return k("Add", "x", k.dense(k("LayerNormalization", "x", k.w(N)), N, N, "Tanh"))


def _mean(k, x):
    return k("ReduceMean", x, np.array([-1]))


def _spelled(k, square, root):
    x = k.dense("x", N, 6, "Tanh")
    d = k("Sub", x, _mean(k, x))
    deviation = root(k, k("Add", _mean(k, square(k, d)), np.array(1e-5)), d)
    return k.dense(k("Add", k("Mul", deviation, k.w(6)), k.w(6)), 6, 3)


SQUARES = {
    "pow": lambda k, d: k("Pow", d, np.array(2.0)),
    "product": lambda k, d: k("Mul", d, d),
}
ROOTS = {
    "quotient": lambda k, v, d: k("Div", d, k("Sqrt", v)),
    "reciprocal": lambda k, v, d: k("Mul", k("Reciprocal", k("Sqrt", v)), d),
    "one_by_root": lambda k, v, d: k("Mul", d, k("Div", np.array(1.0), k("Sqrt", v))),
    "power": lambda k, v, d: k("Mul", d, k("Pow", v, np.array(-0.5))),
}


def _layer_norm_of(square, root):
    def spelled(k):
        return _spelled(k, SQUARES[square], ROOTS[root])

    spelled.__name__ = f"layer_norm_{square}_{root}"
    return spelled


def layer_norm_of_sums(k):
    x = k.dense("x", N, 6, "Tanh")
    mean = k("Div", k("ReduceSum", x, np.array([1])), np.array(6.0))
    d = k("Sub", mean, x)
    variance = k("Div", k("ReduceSumSquare", d, np.array([1])), np.array(5.0))
    return k("Div", k("Neg", d), k("Sqrt", k("Add", variance, np.array(0.25))))


def rms_norm_of_a_multiple(k):
    x = k.dense("x", N, 6, "Tanh")
    multiple = k("Mul", x, k("Expand", np.array([3.0]), np.array([6])))
    mean = k("ReduceMean", k("Mul", multiple, multiple), np.array([1]))
    return k("Div", x, k("Sqrt", k("Add", mean, np.array(0.25))))


def repeated_less_its_mean(k):
    one = k.dense("x", N, 1, "Tanh")
    difference = k("Sub", k("Expand", one, np.array([1, 3])), k("ReduceMean", one, np.array([1])))
    return k("Concat", difference, k.dense("x", N, 3, "Tanh"), axis=1)


def layer_norm_distributed(k):
    x = k.dense("x", N, 6, "Tanh")
    mean = _mean(k, x)
    variance = _mean(k, k("Pow", k("Sub", x, mean), np.array(2.0)))
    inverse = k("Mul", k("Reciprocal", k("Sqrt", k("Add", variance, np.array(1e-3)))), k.w(6))
    shift = k("Sub", k.w(6), k("Mul", mean, inverse))
    return k("Relu", k("Add", k("Mul", x, inverse), shift))


def layer_norm_of_moments(k):
    x = k.dense("x", N, 6, "Tanh")
    mean = _mean(k, x)
    variance = k("Sub", _mean(k, k("Mul", x, x)), k("Mul", mean, mean))
    variance = k("Max", variance, np.array(0.0))
    deviation = k("Sqrt", k("Add", variance, np.array(1e-2)))
    return k("Mul", k("Div", k("Sub", x, mean), deviation), k.w(6))


def rms_norm(k):
    x = k.dense("x", N, 6)
    mean = k("ReduceMean", k("Pow", x, np.array(2.0)), np.array([-1]))
    n = k("Mul", x, k("Reciprocal", k("Sqrt", k("Add", mean, np.array(1e-6)))))
    return k.dense(k("Mul", k.w(6), n), 6, 3)


def rms_normalization(k):
    k.opset = 23
    return k.dense(k("RMSNormalization", k.dense("x", N, 6, "Tanh"), k.w(6), epsilon=1e-3), 6, 3)


def unit_length(k):
    x = k.dense("x", N, 6, "Tanh")
    return k("Div", x, k("ReduceL2", x, np.array([1])))


def one_channel(k):
    x = k("Reshape", k.dense("x", N, 6), np.array([0, 1, 6]))
    n = k("InstanceNormalization", x, k.w(1), k.w(1), epsilon=1e-3)
    return k("Tanh", k("Flatten", n))


# Softmax and log_softmax.


def softmax_between(k):
    return k.dense(k("Softmax", k.dense("x", N, 5)), 5, 3, "Tanh")


def log_softmax_between(k):
    return k("Mul", k("LogSoftmax", k.dense("x", N, 5)), k.dense("x", N, 5, "Sigmoid"))


def softmax_of_exp(k):
    e = k("Exp", k.dense("x", N, 5))
    return k.dense(k("Div", e, k("Mul", k("ReduceSum", e, np.array([1])), np.array(0.5))), 5, 2)


def softmax_less_largest(k):
    z = k.dense("x", N, 5)
    e = k("Exp", k("Sub", z, k("ReduceMax", z, np.array([1]))))
    return k("Div", e, k("ReduceSum", e, np.array([1])))


def log_softmax_of_exp(k):
    z = k.dense("x", N, 5)
    d = k("Sub", z, k("ReduceMax", z, np.array([1])))
    return k("Sub", d, k("Log", k("ReduceSum", k("Exp", d), np.array([1]))))


def log_softmax_of_sum(k):
    z = k.dense("x", N, 5)
    return k("Sub", z, k("ReduceLogSumExp", z, np.array([1])))


# Heads and inputs.


def dueling(k):
    h = k.dense("x", N, 6, "Relu")
    value, advantage = k.dense(h, 6, 1), k.dense(h, 6, 3)
    return k("Add", value, k("Sub", advantage, _mean(k, advantage)))


def heads_side_by_side(k):
    h = k.dense("x", N, 6, "Tanh")
    return k("Concat", k("Tanh", k.dense(h, 6, 2)), k("Exp", k.dense(h, 6, 2)), axis=1)


def one_of_two_heads(k):
    h = k.dense("x", N, 6, "Tanh")
    k("TopK", k.dense(h, 6, 2), np.array([1]), outputs=2)
    return k("Sigmoid", k.dense(h, 6, 2))


def state_and_action(k):
    k.inputs = [("x", ("batch", N)), ("u", ("batch", 2))]
    h = k.dense(k("Concat", "x", "u", axis=1), N + 2, 6, "Tanh")
    return k("Add", "x", k.dense(h, 6, N))


def two_encoders(k):
    k.inputs, k.order = [("x", ("batch", N)), ("u", ("batch", 3))], ["u", "x"]
    return k("Mul", k.dense("x", N, 5, "Relu"), k.dense("u", 3, 5, "Sigmoid"))


# Powers and products.


def powers(k):
    z = k.dense("x", N, 5)
    return k("Sub", k("Pow", z, np.array(3.0)), k("Mul", z, z))


def radial(k):
    distances = k("MatMul", k("Mul", "x", "x"), np.ones((N, 3)))
    z = k("Sub", k("MatMul", "x", k.w(N, 3)), k("Mul", distances, np.array(0.5)))
    return k("Add", k.dense(k("Exp", z), 3, 2), k.dense(k("Exp", k("Neg", k("Mul", z, z))), 3, 2))


def product_of_paths(k):
    return k("Mul", k.dense("x", N, 4, "Tanh"), k("Add", "x", np.array(1.5)))


def factorization_machine(k):
    total = k("Pow", k("MatMul", "x", k.w(N, 3)), np.array(2.0))
    squares = k("MatMul", k("Pow", "x", np.array(2.0)), k.w(N, 3) ** 2)
    return k("ReduceSum", k("Mul", k("Sub", total, squares), np.array(0.5)), np.array([1]))


# Constants that are computed, and old files.


def low_rank_change(k):
    change = k("Mul", k("MatMul", k.w(N, 2), k.w(2, 5)), np.array(0.5))
    return k("Add", "x", k.dense(k("Tanh", k("MatMul", "x", k("Add", k.w(N, 5), change))), 5, N))


def weight_norm(k):
    v = k.constant(k.w(5, N))
    scaled = k("Mul", v, k("Div", k.w(5, 1), k("ReduceL2", v, np.array([1]))))
    return k("Tanh", k("Gemm", "x", scaled, k.w(5), transB=1))


def split_weights(k):
    first, second = k("Split", k.w(N, 6), np.array([2, 4]), outputs=2, axis=1)
    return k("Concat", k("Tanh", k("MatMul", "x", first)), k("MatMul", "x", second), axis=1)


def _opset(number):
    def old(k):
        k.opset = number
        a, b = k("Split", k.dense("x", N, 8), outputs=2, axis=1, split=[4, 4])
        h = k("Add", k("Mul", a, k("Sigmoid", b)), "x")
        return k("Concat", k("Slice", h, axes=[1], starts=[1], ends=[3]), h, axis=1)

    old.__name__ = f"opset_{number}"
    return old


def _activation(op, before=(), **attributes):
    def activated(k):
        z = k.dense("x", N, 5)
        return k("Add", k.dense(k(op, z, *before, **attributes), 5, N), "x")

    activated.__name__ = op.lower() + "".join(f"_{name}" for name in attributes)
    return activated


def softsign_spelled(k):
    z = k.dense("x", N, 5)
    return k.dense(k("Div", z, k("Add", np.array(1.0), k("Abs", z))), 5, 2)


def sigmoid_spelled(k):
    z = k.dense("x", N, 5)
    return k.dense(k("Div", np.array(1.0), k("Add", k("Exp", k("Neg", z)), np.array(1.0))), 5, 2)


def mish_spelled(k):
    z = k.dense("x", N, 5)
    return k.dense(k("Mul", z, k("Tanh", k("Softplus", z))), 5, 2)


def siren(k):
    h = k("Sin", k("Mul", k.dense("x", N, 8), np.array(30.0)))
    return k.dense(k("Sin", k("Mul", k.dense(h, 8, 8), np.array(30.0))), 8, 1)


ACTIVATIONS = [
    _activation("Relu"),
    _activation("LeakyRelu", alpha=0.2),
    _activation("PRelu", (np.array(0.3),)),
    _activation("PRelu", (np.linspace(-0.5, 1.5, 5),)),
    _activation("Elu", alpha=0.5),
    _activation("Selu"),
    _activation("Selu", alpha=0.5, gamma=2.0),
    _activation("Celu", alpha=2.0),
    _activation("Softplus"),
    _activation("Softsign"),
    _activation("HardSigmoid"),
    _activation("HardSigmoid", alpha=1 / 6),
    _activation("HardSwish"),
    _activation("Mish"),
    _activation("Gelu"),
    _activation("Exp"),
    _activation("Sin"),
    _activation("Cos"),
    _activation("Abs"),
    _activation("Clip", (np.array(-0.5),)),
    _activation("Clip", ("", np.array(0.25))),
    softsign_spelled,
    sigmoid_spelled,
    mish_spelled,
    siren,
]
KINDS = {
    "residual: sums, differences and steps": [
        residual,
        small_step,
        blocks,
        blocks_before_activation,
        sum_of_three,
        residual_of_an_activation,
        residual_in_gemm,
    ],
    "concatenations": [dense_net, input_again, fourier_features, concat_in_planes, one_minus_and_itself],
    "gates: GLU, SwiGLU, highway, experts": [
        glu,
        swiglu,
        geglu,
        highway,
        wavenet,
        one_gate_for_all,
        mixture_of_experts,
    ],
    "Split, Slice, Gather, Expand": [
        slices,
        gathers,
        parts_of_outputs,
        uneven_chunks,
        repeated,
        repeated_less_its_mean,
    ],
    "axes: Reshape, Transpose, columns": [transposed_planes, in_columns, one_of_the_columns, one_column],
    "rows: attention, tokens, channels": [
        attention,
        heads_of_attention,
        one_layer_for_all_tokens,
        mixed_tokens,
        group_normalization,
        instance_normalization,
        largest_shares,
        shares_of_exp,
        normal_tokens,
        repeated_rows,
    ],
    "LayerNorm and RMSNorm as nodes": [
        layer_normalization,
        without_bias,
        rms_normalization,
        one_channel,
    ],
    "LayerNorm and RMSNorm spelled out": [
        *(_layer_norm_of(*pair) for pair in itertools.product(SQUARES, ROOTS)),
        layer_norm_of_sums,
        layer_norm_distributed,
        layer_norm_of_moments,
        rms_norm,
        rms_norm_of_a_multiple,
        unit_length,
    ],
    "softmax, log_softmax anywhere": [
        softmax_between,
        log_softmax_between,
        softmax_of_exp,
        softmax_less_largest,
        log_softmax_of_exp,
        log_softmax_of_sum,
    ],
    "several heads": [dueling, heads_side_by_side, one_of_two_heads],
    "several inputs": [state_and_action, two_encoders],
    "powers and products of paths": [powers, radial, product_of_paths, factorization_machine],
    "weights that are computed": [low_rank_change, weight_norm, split_weights],
    "activations": ACTIVATIONS,
    "opset 7 on, nodes in any order": [_opset(7), _opset(9), _opset(12), in_any_order],
}


def by_runtime(path, feeds, opset):
    """Return what ONNX Runtime computes, or onnx itself where that has no kernel for a dtype or opset."""
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception:
        model = onnx.load(path)
        return onnx.reference.ReferenceEvaluator(model).run(None, feeds)[0]
    return session.run(None, feeds)[0]


def difference(network, dtype, folder):
    """Write and load a network; return it, its inputs and its distance from ONNX Runtime, in tolerances."""
    writer = Writer(dtype)
    output = network(writer)
    path = Path(folder) / "m.onnx"
    writer.write(path, output)
    feeds, parts = {}, {}
    for name, shape in writer.inputs:
        is_column = shape[0] == N
        count = 5 if "batch" in shape else 1
        samples = writer.rng.uniform(-1, 1, (count, shape[0] if is_column else shape[1])).astype(dtype)
        parts[name] = samples
        feeds[name] = np.ascontiguousarray(samples.T) if is_column else samples
    is_column = writer.inputs[0][1][0] == N
    order = writer.order
    net = fastjac.load(path, **({"inputs": order} if order else {}))
    x = np.hstack([parts[name] for name in order or parts])
    expected = by_runtime(path, feeds, writer.opset)
    y, _ = net.value_and_jacobian(x)
    expected = (expected.T if is_column else expected).reshape(y.shape)
    tolerance = TOLERANCES[dtype]
    if any(node.op_type in IN_FLOAT32 for node in writer.nodes):
        tolerance = max(tolerance, 1e-7)
    return net, x, float(np.abs(y - expected).max() / np.abs(expected).max()) / tolerance


def counts(folder):
    """Return for each kind how many networks there are, and how many load and agree in both dtypes."""
    rows = []
    for kind, networks in KINDS.items():
        agree = 0
        for network in networks:
            try:
                agree += all(difference(network, dtype, folder)[2] <= 1 for dtype in TOLERANCES)
            except fastjac.ModelError as error:
                print(f"{network.__name__}: {error}")
        rows.append((kind, len(networks), agree))
    return rows


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for kind, written, agree in counts(folder):
            print(f"| {kind} | {written} | {agree} |")
