"""What a layer is: specs, shapes, dtypes and their errors."""

import itertools

import numpy as np
import pytest

from fastjac.arguments import real_array
from fastjac.layers import ACTIVATIONS, Activation, Layer, as_activation, as_layers, network_dtype


def pairs(*widths, dtype=np.float64):
    return [(np.ones((n, m), dtype), np.ones(m, dtype)) for n, m in itertools.pairwise(widths)]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_name_alone_means_the_default_parameter(name):
    assert as_activation(name) == Activation(name, ACTIVATIONS[name] or 0.0)


@pytest.mark.parametrize("spec", ["relu", "leaky_relu(0.2)", "leaky_relu(-1.0)", "elu(1e-30)", "softmax"])
def test_str_of_an_activation_reads_back_the_same(spec):
    activation = as_activation(spec)
    assert as_activation(str(activation)) == activation
    assert as_activation(activation) == activation


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("reluu", r"activation is 'reluu', expected one of identity, relu, "),
        ("", "activation is '', expected one of"),
        ("relu()", r"activation is 'relu\(\)', expected one of"),
        ("relu(1)", r"activation is 'relu\(1\)', but relu takes no parameter"),
        ("elu(x)", r"activation is 'elu\(x\)', but elu takes one finite number"),
        ("elu(inf)", r"elu takes one finite number"),
        ("leaky_relu(nan)", r"leaky_relu takes one finite number"),
        (Activation("tanh", 2.0), r"tanh takes no parameter"),
        (Activation("elu", np.inf), r"elu takes one finite number"),
    ],
)
def test_a_wrong_spec_is_an_error_that_says_why(spec, message):
    with pytest.raises(ValueError, match=message):
        as_activation(spec)


@pytest.mark.parametrize("spec", [None, 3, b"relu", np.tanh])
def test_a_spec_that_is_no_string_is_a_type_error(spec):
    with pytest.raises(TypeError, match="head must be a string, got "):
        as_activation(spec, "head")


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        ([np.float32], np.float32),
        ([np.float16], np.float32),
        ([np.float16, np.int8, np.bool_], np.float32),
        ([np.float32, np.float64], np.float64),
        ([np.float32, np.int32], np.float64),
        ([np.int64], np.float64),
        ([np.longdouble], np.float64),
        ([">f4"], np.float32),
    ],
)
def test_the_dtype_is_the_widest_of_the_weights(given, dtype):
    assert network_dtype([np.zeros(1, kind) for kind in given], None) == dtype


def test_a_given_dtype_wins():
    assert network_dtype([np.zeros(1)], "float32") == np.float32
    assert network_dtype([np.zeros(1)], ">f8") == np.float64
    assert network_dtype([np.zeros(1)], ">f8").isnative


@pytest.mark.parametrize("dtype", ["float16", "int32", "complex128", np.longdouble])
def test_another_dtype_is_a_type_error(dtype):
    if np.dtype(dtype) == np.float64:
        pytest.skip("long double is double here")
    with pytest.raises(TypeError, match="expected float32 or float64"):
        network_dtype([], dtype)


@pytest.mark.parametrize("value", [1j, "a", None, [object()], np.datetime64("2020")])
def test_what_is_not_real_is_a_type_error_that_names_the_argument(value):
    with pytest.raises(TypeError, match=r"w2 has dtype .*, expected real numbers"):
        real_array(value, "w2")


def test_layers_are_read_only_copies_in_one_dtype():
    given = pairs(3, 4, 2)
    given[0] = (np.asfortranarray(given[0][0]), given[0][1].astype(">f4"))
    layers = as_layers(given, "tanh", "log_softmax", np.float32)
    assert [str(layer.activation) for layer in layers] == ["tanh", "log_softmax"]
    for layer, pair in zip(layers, given, strict=True):
        assert isinstance(layer, Layer)
        for array, original in zip(layer[:2], pair, strict=True):
            assert array.dtype == np.float32
            assert array.dtype.isnative
            assert array.flags.c_contiguous
            assert not array.flags.writeable
            assert not np.shares_memory(array, original)
            assert np.array_equal(array, original)


def test_no_bias_is_a_bias_of_zeros():
    (layer,) = as_layers([(np.ones((3, 2), np.float32), None)])
    assert layer.b.dtype == np.float32
    assert np.array_equal(layer.b, [0, 0])


def test_nested_lists_are_layers_too():
    (layer,) = as_layers([([[1, 2], [3, 4], [5, 6]], [7, 8])])
    assert layer.w.dtype == np.float64
    assert layer.w.shape == (3, 2)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "layers is empty, expected at least one pair"),
        ([np.ones((3, 2))], r"layer 1 is not a pair \(w, b\)"),
        ([(np.ones((3, 2)),)], r"layer 1 is not a pair \(w, b\)"),
        ([3], r"layer 1 is not a pair \(w, b\)"),
        ([(np.ones(3), np.ones(3))], r"w1 has shape \(3,\), expected \(fan_in, fan_out\), each at least 1"),
        ([(np.ones((0, 3)), np.ones(3))], r"w1 has shape \(0, 3\), .* each at least 1"),
        ([(np.ones((3, 0)), np.ones(0))], r"w1 has shape \(3, 0\), .* each at least 1"),
        ([(np.ones((3, 2)), np.ones(3))], r"b1 has shape \(3,\), but w1 has shape \(3, 2\): expected \(2,\)"),
        ([(np.ones((3, 2)), np.ones((1, 2)))], r"b1 has shape \(1, 2\), but w1 .* expected \(2,\)"),
        (
            [*pairs(5, 99), *pairs(100, 10)],
            r"w2 has shape \(100, 10\), but b1 says the hidden layer has 99 units",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_errors_that_name_the_array(layers, message):
    with pytest.raises(ValueError, match=message):
        as_layers(layers)


def test_one_activation_for_each_hidden_layer():
    layers = as_layers(pairs(2, 3, 4, 5), ["tanh", "elu(0.5)"], "identity")
    assert [str(layer.activation) for layer in layers] == ["tanh", "elu(0.5)", "identity"]


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        (["relu"], "activation has 1 entries, but there are 2 hidden layers"),
        (["relu"] * 3, "activation has 3 entries, but there are 2 hidden layers"),
        (["relu", "rely"], r"activation\[1\] is 'rely', expected one of"),
        ("softmax", "activation is 'softmax', which only the head can be"),
        (["relu", "log_softmax"], "activation is 'log_softmax', which only the head can be"),
    ],
)
def test_wrong_activations_are_errors(activation, message):
    with pytest.raises(ValueError, match=message):
        as_layers(pairs(2, 3, 4, 5), activation)


def test_a_wrong_head_is_called_head():
    with pytest.raises(ValueError, match="head is 'argmax', expected one of"):
        as_layers(pairs(2, 3), head="argmax")
