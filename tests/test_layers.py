"""What a layer is: specs, shapes, dtypes and their errors."""

import itertools
import re
import warnings

import numpy as np
import pytest

from fastjac import reference
from fastjac.arguments import real_array
from fastjac.layers import (
    ACTIVATIONS,
    HEADS_ONLY,
    Activation,
    Layer,
    as_activation,
    as_layers,
    network_dtype,
)

ELEMENTWISE = [name for name in ACTIVATIONS if name not in HEADS_ONLY]
SPECS = [*ELEMENTWISE, *(f"{name}({number})" for name in ("leaky_relu", "elu") for number in (0.0, 0.5, 1.0))]


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
        (Activation("elu", (1.0, 2.0)), r"elu takes one finite number"),
        (Activation("elu", "x"), r"elu takes one finite number"),
        ("celu(0)", r"celu takes one positive number"),
        ("celu(-1.0)", r"celu takes one positive number"),
        ("prelu(0.1, 0.2)", r"prelu takes one finite number, or an Activation with one for each unit"),
        (
            Activation("prelu", (1.0, np.nan)),
            r"activation is 'prelu\(2 slopes\)', but prelu takes one finite",
        ),
        (Activation("prelu", ()), r"prelu takes one finite number"),
        (Activation("prelu", ((1.0, 2.0), (3.0, 4.0))), r"prelu takes one finite number"),
    ],
)
def test_a_wrong_spec_is_an_error_that_says_why(spec, message):
    with pytest.raises(ValueError, match=message):
        as_activation(spec)


def test_slopes_for_each_unit_become_a_tuple():
    given = np.array([0.5, -1.0, 1.0])
    activation = as_activation(Activation("prelu", given))
    assert activation == Activation("prelu", (0.5, -1.0, 1.0)) == as_activation(activation)
    assert hash(activation) == hash(as_activation(Activation("prelu", given)))
    assert str(activation) == "prelu(3 slopes)"
    assert (activation.kinks, activation.active) == ((0.0,), (-np.inf, np.inf))
    assert as_activation(Activation("prelu", np.ones(2))).kinks == ()
    assert as_activation(Activation("prelu", np.zeros(2))).active == (0.0, np.inf)
    assert as_activation(Activation("prelu", [0.5])) == as_activation("prelu(0.5)")
    for activations in ([activation], activation):
        assert as_layers(pairs(2, 3, 4), activations)[0].activation == activation
    with pytest.raises(
        ValueError, match=r"layer 2 has prelu.3 slopes., expected one for each of its 4 units"
    ):
        as_layers(pairs(2, 3, 4), head=activation)


@pytest.mark.parametrize("spec", [None, 3, b"relu", np.tanh])
def test_a_spec_that_is_no_string_is_a_type_error(spec):
    with pytest.raises(TypeError, match="head must be a string, got "):
        as_activation(spec, "head")


@pytest.mark.parametrize(
    ("alias", "name"), [("swish", "silu"), ("linear", "identity"), ("logistic", "sigmoid")]
)
def test_names_of_other_libraries_are_known(alias, name):
    assert as_activation(alias) == as_activation(name)
    assert str(as_layers(pairs(2, 3), head=alias)[0].activation) == name


@pytest.mark.parametrize(
    ("spec", "meant"),
    [
        ("reluu", "relu"),
        ("ReLU", "relu"),
        ("LeakyReLU(0.2)", "leaky_relu"),
        ("logsoftmax", "log_softmax"),
        ("sigmod", "sigmoid"),
        ("Swish", "swish"),
        ("relu()", "relu"),
        ("xyz", None),
        ("", None),
    ],
)
def test_an_unknown_name_is_told_what_it_may_mean(spec, meant):
    end = "log_softmax" if meant is None else f'log_softmax; did you mean "{meant}"?'
    with pytest.raises(ValueError) as caught:
        as_activation(spec)
    assert str(caught.value).startswith(f"activation is {spec!r}, expected one of identity, relu, ")
    assert str(caught.value).endswith(end)


class LeakyReLU:
    """What a library has: a class whose instances are called."""

    def __call__(self, x):
        return x


@pytest.mark.parametrize(
    ("spec", "got"),
    [
        (np.tanh, 'got tanh; did you mean "tanh"?; the names are identity, relu, '),
        (LeakyReLU, 'got LeakyReLU; did you mean "leaky_relu"?; the names are '),
        (LeakyReLU(), 'got LeakyReLU; did you mean "leaky_relu"?; the names are '),
        (lambda z: z, "got <lambda>; the names are "),
        (None, 'got None (a layer without an activation has "identity"); the names are '),
        (3, "got int; the names are "),
    ],
)
def test_a_function_instead_of_a_name_is_told_which_names_there_are(spec, got):
    for activation in (spec, [spec]):
        which = "activation" if activation is spec else r"activation\[0\]"
        with pytest.raises(TypeError, match=f"^{which} must be a string, {re.escape(got)}"):
            as_layers(pairs(2, 3, 4), activation)
    with pytest.raises(TypeError, match=f"^head must be a string, {re.escape(got)}"):
        as_layers(pairs(2, 3), head=spec)


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


@pytest.mark.parametrize("activation", SPECS)
def test_the_slope_jumps_at_the_kinks_and_nowhere_else(activation):
    parsed = as_activation(activation)
    near = np.linspace(-8, 8, 1601)  # every kink is one of them
    below, above = (reference.slope(near + side, parsed) for side in (-1e-9, 1e-9))
    assert tuple(near[np.abs(above - below) > 1e-3].round(9)) == parsed.kinks


@pytest.mark.parametrize("activation", SPECS)
def test_the_slope_is_zero_outside_the_active_range_and_only_there(activation):
    parsed = as_activation(activation)
    z = np.linspace(-6.5, 6.5, 1600)  # no kink is one of them
    low, high = parsed.active
    np.testing.assert_array_equal(reference.slope(z, parsed) != 0, (low < z) & (z < high))


@pytest.mark.parametrize("bias", [True, False])
def test_weights_in_pytorch_s_orientation_are_recognised(bias):
    given = [(w.T, b if bias else None) for w, b in pairs(5, 7, 7, 3)]
    with pytest.raises(ValueError, match=r"has shape .*; the transposed weights would fit: .* hand in w\.T"):
        as_layers(given)
    as_layers([(w.T, b) for w, b in given])


@pytest.mark.parametrize(
    "given",
    [
        [(np.ones((5, 7)), np.ones(4))],
        [*pairs(5, 7), *pairs(6, 3)],
        [(np.ones((7, 5)), np.ones(7)), *pairs(7, 3), *pairs(4, 2)],
    ],
)
def test_weights_that_fit_in_no_orientation_are_not_told_to_be_transposed(given):
    with pytest.raises(ValueError, match=r"^.* has shape .* (says .* units|expected \(\d+,\))$"):
        as_layers(given)


# --- layers that have activations of their own


def test_layers_of_a_network_keep_their_activations():
    layers = as_layers(pairs(2, 3, 4, 5), ["tanh", "elu(0.5)"], "log_softmax")
    again = as_layers(layers)
    for a, b in zip(again, layers, strict=True):
        assert a.activation == b.activation
        assert np.array_equal(a.w, b.w) and np.array_equal(a.b, b.b)
    assert [str(layer.activation) for layer in as_layers(layers[:2])] == ["tanh", "elu(0.5)"]
    assert as_layers(layers, dtype=np.float32)[0].w.dtype == np.float32
    named = as_layers(
        [(*pair, name) for pair, name in zip(pairs(2, 3, 4), ["swish", "identity"], strict=True)]
    )
    assert [str(layer.activation) for layer in named] == ["silu", "identity"]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"activation": "relu"}, "activation"),
        ({"activation": ["tanh"]}, "activation"),
        ({"head": "softmax"}, "head"),
        ({"head": Activation("softmax")}, "head"),
        ({"activation": "relu", "head": "softmax"}, "activation"),
    ],
)
def test_an_activation_beside_those_of_the_layers_is_an_error(arguments, name):
    layers = as_layers(pairs(2, 3, 4))
    with pytest.raises(TypeError, match=f"^{name} is given, but the layers have activations of their own$"):
        as_layers(layers, **arguments)


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        (
            [(*pairs(2, 3)[0], "relu"), *pairs(3, 4)],
            ValueError,
            "layer 2 has no activation .*, but layer 1 has an",
        ),
        (
            [*pairs(2, 3), (*pairs(3, 4)[0], "relu")],
            ValueError,
            "layer 2 has an activation .*, but layer 1 has no",
        ),
        ([(*pairs(2, 3)[0], "rely")], ValueError, "activation of layer 1 is 'rely', expected one of"),
        ([(*pairs(2, 3)[0], None)], TypeError, "activation of layer 1 must be a string, got None"),
        ([(*pairs(2, 3)[0], "relu", 1)], ValueError, r"layer 1 is not a pair \(w, b\)"),
        ([[[1, 2], [3, 4], [5, 6]]], ValueError, r"layer 1 is not a pair \(w, b\)"),
        (
            [(*pair, "softmax") for pair in pairs(2, 3, 4)],
            ValueError,
            "activation of layer 1 is 'softmax', which only the head can be",
        ),
    ],
)
def test_wrong_activations_of_layers_are_errors(layers, error, message):
    with pytest.raises(error, match=message):
        as_layers(layers)


def test_activations_that_are_not_said_are_relu_and_softmax():
    layers = as_layers(pairs(2, 3, 4))
    assert [str(layer.activation) for layer in layers] == ["relu", "softmax"]


# --- numbers that are none


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nan_in_weights_is_a_warning_that_names_the_layer(dtype):
    given = pairs(2, 3, 4, dtype=dtype)
    given[1][0][2, 1] = np.nan
    with pytest.warns(RuntimeWarning, match="^layer 2: w2 contains NaN$"):
        as_layers(given)
    given[1][0][2, 1] = 1
    given[0][1][2] = np.nan
    with pytest.warns(RuntimeWarning, match="^layer 1: b1 contains NaN$"):
        as_layers(given)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 0, 5e-324])
def test_other_weights_are_no_warning(value):
    given = pairs(2, 3, 4)
    given[1][0][2, 1] = given[0][1][2] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        as_layers(given)
        as_layers([(np.ones((2, 3), np.int8), np.ones(3, bool))])
