"""The functional interface on the article's raw arrays."""

import importlib
import inspect

import numpy as np
import pytest
from hypothesis import assume, given

import fastjac
import fastjac.jacobian
from fastjac import Network
from support.oracles import DTYPES, Case, assert_right, cases, near_corner

two_layers = cases(hidden=["relu"], heads=["softmax"], depth=2)


def arrays(case):
    (w1, b1), (w2, b2) = case.weights()
    return {"x": case.x(), "w1": w1, "b1": b1, "w2": w2, "b2": b2}


def test_the_module_is_an_attribute_of_the_package():
    assert inspect.ismodule(fastjac.jacobian)
    assert fastjac.jacobian is importlib.import_module("fastjac.jacobian")
    assert callable(fastjac.jacobian.jacobian)
    assert fastjac.value_and_jacobian is fastjac.jacobian.value_and_jacobian


@given(two_layers)
def test_any_two_layers_match_the_reference(case):
    assume(len(case.widths) == 3)
    net, x = case.network(), case.x()
    assume(not near_corner(net, x))
    y, jac = fastjac.jacobian.value_and_jacobian(*arrays(case).values())
    assert_right(net, x, y, jac)
    assert np.array_equal(fastjac.jacobian.jacobian(*arrays(case).values()), jac)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 500.0**0.5])
def test_the_article_s_network(scale, dtype):
    case = Case((500, 100, 10), dtype=dtype, scale=scale)
    y, jac = fastjac.value_and_jacobian(**arrays(case))
    assert_right(case.network(), case.x(), y, jac)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fill", [0.0, np.nan])
def test_out_is_filled_and_returned(fill, dtype):
    given_arrays = arrays(Case((7, 12, 4), dtype=dtype))
    y, jac = np.full(4, fill, dtype), np.full((4, 7), fill, dtype)
    expected = fastjac.value_and_jacobian(**given_arrays)
    got = fastjac.value_and_jacobian(**given_arrays, out=(y, jac))
    assert got[0] is y
    assert got[1] is jac
    assert np.array_equal(y, expected[0])
    assert np.array_equal(jac, expected[1])
    jac[:] = fill
    assert fastjac.jacobian.jacobian(**given_arrays, out=jac) is jac
    assert np.array_equal(jac, expected[1])


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.tolist(),
        np.asfortranarray,
        lambda a: a.astype(a.dtype.newbyteorder()),
        lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
        lambda a: a[::-1].copy()[::-1],
        lambda a: np.lib.stride_tricks.as_strided(a, a.shape, a.strides, writeable=False),
    ],
    ids=["list", "fortran", "swapped", "strided", "reversed", "read-only"],
)
def test_any_form_of_the_same_numbers_gives_the_same(change):
    given_arrays = arrays(Case((7, 12, 4)))
    expected = fastjac.value_and_jacobian(**given_arrays)
    changed = {name: change(a) for name, a in given_arrays.items()}
    for a, b in zip(fastjac.value_and_jacobian(**changed), expected, strict=True):
        assert a.dtype == np.float64
        assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ({}, np.float64),
        (dict.fromkeys(["w1", "b1", "w2", "b2"], np.float32), np.float32),
        (dict.fromkeys(["w1", "b1", "w2"], np.float32), np.float64),
        (dict.fromkeys(["w1", "b1", "w2", "b2"], np.float16), np.float32),
        (dict.fromkeys(["x", "w1", "b1", "w2", "b2"], np.int64), np.float64),
        (dict.fromkeys(["w1", "b1", "w2", "b2"], np.int8), np.float32),
    ],
)
def test_the_dtype_is_the_widest_of_the_weights(dtypes, expected):
    given_arrays = arrays(Case((7, 12, 4), scale=8.0))
    cast = {name: a.astype(dtypes.get(name, np.float64)) for name, a in given_arrays.items()}
    y, jac = fastjac.value_and_jacobian(**cast)
    assert y.dtype == jac.dtype == expected
    net = Network([(cast["w1"], cast["b1"]), (cast["w2"], cast["b2"])])
    assert_right(net, cast["x"], y, jac)


def test_weights_are_read_at_each_call():
    given_arrays = arrays(Case((7, 12, 4)))
    before = fastjac.value_and_jacobian(**given_arrays)[0]
    given_arrays["b2"][0] += 1
    assert fastjac.value_and_jacobian(**given_arrays)[0][0] > before[0]


WRONG = [
    ({"x": np.zeros(6)}, ValueError, ["x has shape (6,)", "(7,)"]),
    ({"w1": np.zeros((6, 12))}, ValueError, ["x has shape (7,)", "(6,)"]),
    ({"w1": np.zeros(7)}, ValueError, ["w1 has shape (7,)"]),
    ({"w1": np.zeros((0, 12)), "x": np.zeros(0)}, ValueError, ["w1 has shape (0, 12)"]),
    ({"w1": np.zeros((7, 0)), "b1": [], "w2": np.zeros((0, 4))}, ValueError, ["w1 has shape (7, 0)"]),
    ({"b1": np.zeros(11)}, ValueError, ["b1 has shape (11,)", "w1 has shape (7, 12)"]),
    ({"b1": np.zeros((12, 1))}, ValueError, ["b1 has shape (12, 1)"]),
    ({"w2": np.zeros((11, 4))}, ValueError, ["w2 has shape (11, 4)", "12 units"]),
    ({"w2": np.zeros((12, 0)), "b2": np.zeros(0)}, ValueError, ["w2 has shape (12, 0)"]),
    ({"b2": np.zeros(5)}, ValueError, ["b2 has shape (5,)", "w2 has shape (12, 4)"]),
    ({"x": np.zeros(7, complex)}, TypeError, ["x has dtype complex128"]),
    ({"w1": np.zeros((7, 12), object)}, TypeError, ["w1 has dtype object"]),
    ({"b1": np.zeros(12, complex)}, TypeError, ["b1 has dtype complex128"]),
    ({"w2": np.zeros((12, 4), "U1")}, TypeError, ["w2 has dtype <U1"]),
    ({"b2": ["a"] * 4}, TypeError, ["b2 has dtype <U1"]),
]


@pytest.mark.parametrize(("wrong", "error", "words"), WRONG)
@pytest.mark.parametrize("with_out", [False, True])
def test_wrong_arrays_are_named_and_nothing_is_written(wrong, error, words, with_out):
    given_arrays = arrays(Case((7, 12, 4))) | wrong
    y, jac = np.full(4, 7.0), np.full((4, 7), 7.0)
    for function, out in ((fastjac.value_and_jacobian, (y, jac)), (fastjac.jacobian.jacobian, jac)):
        with pytest.raises(error) as caught:
            function(**given_arrays, **({"out": out} if with_out else {}))
        assert all(word in str(caught.value) for word in words), caught.value
        assert np.all(y == 7)
        assert np.all(jac == 7)


@pytest.mark.parametrize(
    ("i", "wrong", "error", "words"),
    [
        (0, np.full(5, 7.0), ValueError, ["y in out has shape (5,)", "expected (4,)"]),
        (1, np.full((7, 4), 7.0), ValueError, ["jac in out has shape (7, 4)", "expected (4, 7)"]),
        (0, np.full(4, 7.0, np.float32), ValueError, ["y in out has dtype float32", "expected float64"]),
        (1, np.full((4, 7), 7, int), ValueError, ["jac in out has dtype int64", "expected float64"]),
        (1, np.full((4, 14), 7.0)[:, ::2], ValueError, ["jac in out is not C-contiguous"]),
        (1, np.broadcast_to(7.0, (4, 7)), ValueError, ["jac in out is not writable"]),
        (1, [[7.0] * 7] * 4, TypeError, ["jac in out must be an ndarray", "got list"]),
    ],
)
def test_wrong_outputs_are_named_and_nothing_is_written(i, wrong, error, words):
    out = [np.full(4, 7.0), np.full((4, 7), 7.0)]
    out[i] = wrong
    with pytest.raises(error) as caught:
        fastjac.value_and_jacobian(**arrays(Case((7, 12, 4))), out=tuple(out))
    assert all(word in str(caught.value) for word in words), caught.value
    assert all(np.all(np.asarray(a) == 7) for a in out)


@pytest.mark.parametrize("name", ["x", "w1", "b1", "w2", "b2"])
@pytest.mark.parametrize("i", [0, 1])
def test_outputs_that_overlap_an_input_are_refused(name, i):
    given_arrays = arrays(Case((7, 12, 4)))
    out = [np.full(4, 7.0), np.full((4, 7), 7.0)]
    values = given_arrays[name]
    block = np.zeros(values.size + out[i].size - 1)
    given_arrays[name] = block[: values.size].reshape(values.shape)
    given_arrays[name][:] = values
    out[i] = block[values.size - 1 :].reshape(out[i].shape)
    before = block.copy()
    with pytest.raises(ValueError, match=rf"{['y', 'jac'][i]} in out overlaps {name}"):
        fastjac.value_and_jacobian(**given_arrays, out=tuple(out))
    assert np.array_equal(block, before)
    assert np.all(out[1 - i] == 7)


def test_nan_is_nan_everywhere():
    for name in ("x", "w1", "b1", "w2", "b2"):
        given_arrays = arrays(Case((7, 12, 4)))
        given_arrays[name].flat[0] = np.nan
        if name == "b1":
            given_arrays["w2"][0] = 1
        y, jac = fastjac.value_and_jacobian(**given_arrays)
        assert np.all(np.isnan(y))
        assert np.all(np.isnan(jac))
