"""Samples from anywhere: names put in order, nothing missing read as a number, clear refusals."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastjac.arguments import as_samples, real_array

NAMES = ("a", "b", "c")
VALUES = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])  # in the order of NAMES


def pandas_frame(names):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(VALUES, columns=NAMES)[list(names)]


def polars_frame(names):
    polars = pytest.importorskip("polars")
    return polars.DataFrame(VALUES, schema=NAMES, orient="row")[list(names)]


def arrow_table(names):
    arrow = pytest.importorskip("pyarrow")
    return arrow.table(dict(zip(NAMES, VALUES.T, strict=True))).select(list(names))


def xarray_array(names):
    xarray = pytest.importorskip("xarray")
    return xarray.DataArray(VALUES, dims=("t", "f"), coords={"f": list(NAMES)}).sel(f=list(names))


def structured(names):
    rows = np.array([tuple(row) for row in VALUES], [("a", "f4"), ("b", "f8"), ("c", "i2")])
    return rows[list(names)]


TABLES = [pandas_frame, polars_frame, arrow_table, xarray_array, structured]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("order", ["abc", "acb", "cab"])
def test_columns_are_put_in_the_network_s_order(table, order):
    assert np.array_equal(as_samples(table(order), "x", 3, NAMES), VALUES)


@pytest.mark.parametrize("table", TABLES)
def test_columns_of_a_network_without_names_stay_as_they_are(table):
    assert np.array_equal(as_samples(table("cab"), "x", 3), VALUES[:, [2, 0, 1]])


@pytest.mark.parametrize("table", TABLES)
def test_other_names_are_an_error_that_tells_the_difference(table):
    wanted = r"x has other names than the network: missing: 'd'; unexpected: 'b'$"
    with pytest.raises(ValueError, match=wanted):
        as_samples(table("abc"), "x", 3, ("a", "c", "d"))
    # Even where the number of columns is wrong too.
    with pytest.raises(ValueError, match=r"missing: 'c'$"):
        as_samples(table("ab"), "x", 3, NAMES)
    with pytest.raises(ValueError, match=r"unexpected: 'c'$"):
        as_samples(table("abc"), "x", 2, ("b", "a"))


def test_of_many_names_a_few_are_told():
    pandas = pytest.importorskip("pandas")
    x = pandas.DataFrame(np.ones((1, 9)), columns=[f"p{i}" for i in range(9)])
    with pytest.raises(
        ValueError, match=r"missing: 'q0', 'q1', 'q2' and 6 more; unexpected: 'p0', 'p1', 'p2'"
    ):
        as_samples(x, "x", 9, [f"q{i}" for i in range(9)])


def test_a_name_that_is_there_twice_is_an_error():
    pandas = pytest.importorskip("pandas")
    x = pandas.DataFrame(VALUES, columns=["a", "b", "b"])
    with pytest.raises(ValueError, match=r"missing: 'c'; more than once: 'b'$"):
        as_samples(x, "x", 3, NAMES)
    with pytest.raises(ValueError, match=r"more than once: 'b'$"):
        as_samples(x[["b", "a"]], "x", 3, ("a", "b", "b"))
    assert np.array_equal(as_samples(x, "x", 3, ("a", "b", "b")), VALUES)


@given(st.permutations(range(8)))
def test_any_order_is_put_right(order):
    kind = np.dtype([(f"n{i}", float) for i in order])
    x = np.array([tuple(map(float, order))], kind)
    assert np.array_equal(as_samples(x, "x", 8, [f"n{i}" for i in range(8)]), [range(8)])


@pytest.mark.parametrize("row", [0, 1])
def test_one_row_is_one_sample(row):
    assert np.array_equal(as_samples(pandas_frame("cab").iloc[row], "x", 3, NAMES), VALUES[row])
    assert np.array_equal(as_samples(xarray_array("cab")[row], "x", 3, NAMES), VALUES[row])
    assert np.array_equal(as_samples(structured("cab")[row], "x", 3, NAMES), VALUES[row])


@pytest.mark.parametrize("kind", [list, tuple])
def test_rows_in_a_list_are_put_right_one_by_one(kind):
    rows = [pandas_frame("cab").iloc[0], pandas_frame("bca").iloc[1]]
    assert np.array_equal(as_samples(kind(rows), "x", 3, NAMES), VALUES)
    with pytest.raises(ValueError, match=r"x\[1\] has other names than the network: missing: 'c'"):
        as_samples(kind([rows[0], rows[1].rename({"c": "d"})]), "x", 3, NAMES)
    assert np.array_equal(as_samples(kind(structured("cab")), "x", 3, NAMES), VALUES)


def test_columns_that_were_given_no_names_are_taken_in_their_order():
    pandas = pytest.importorskip("pandas")
    x = pandas.DataFrame(VALUES)
    assert np.array_equal(as_samples(x, "x", 3, NAMES), VALUES)
    assert np.array_equal(as_samples(x.iloc[0], "x", 3, NAMES), VALUES[0])
    assert np.array_equal(as_samples(xarray_array("abc").drop_vars("f"), "x", 3, NAMES), VALUES)


def test_names_that_are_numbers_are_names():
    pandas = pytest.importorskip("pandas")
    years = pandas.DataFrame(VALUES, columns=[2001, 2002, 2003])
    names = ("2001", "2002", "2003")
    assert np.array_equal(as_samples(years[[2003, 2001, 2002]], "x", 3, names), VALUES)
    with pytest.raises(ValueError, match="missing: '2001'; unexpected: '1999'"):
        as_samples(years.rename(columns={2001: 1999}), "x", 3, names)
    positions = pandas.DataFrame(VALUES)
    assert np.array_equal(as_samples(positions, "x", 3, ("1", "0", "2")), VALUES[:, [1, 0, 2]])


def test_columns_may_be_called_like_attributes():
    pandas = pytest.importorskip("pandas")
    names = ("dims", "coords", "column_names", "null_count", "index", "toarray")
    x = pandas.DataFrame([range(6)], columns=names)
    assert np.array_equal(as_samples(x[list(names[::-1])], "x", 6, names), [range(6)])
    record = np.rec.array([tuple(range(6))], [(name, float) for name in names])
    assert np.array_equal(as_samples(record[list(names[::-1])], "x", 6, names), [range(6)])


def test_a_plain_array_is_taken_as_it_is():
    for x in (VALUES, VALUES.astype("f4"), VALUES[:, ::-1], VALUES.astype(">f8"), VALUES > 2):
        assert as_samples(x, "x", 3, NAMES) is x
    assert np.array_equal(as_samples(VALUES.tolist(), "x", 3, NAMES), VALUES)
    assert np.array_equal(as_samples(tuple(VALUES), "x", 3, NAMES), VALUES)


# --- what is missing


@pytest.mark.parametrize("backend", ["numpy_nullable", "pyarrow"])
def test_nullable_columns_without_gaps_are_read(backend):
    pandas = pytest.importorskip("pandas")
    if backend == "pyarrow":
        pytest.importorskip("pyarrow")
    x = pandas.DataFrame({"a": [1, 4], "b": [2.5, 5.5], "c": [True, False]}).convert_dtypes(
        dtype_backend=backend
    )
    assert not any(isinstance(dtype, np.dtype) for dtype in x.dtypes)
    expected = [[1, 2.5, 1], [4, 5.5, 0]]
    assert np.array_equal(as_samples(x[["c", "a", "b"]], "x", 3, NAMES), expected)
    assert np.array_equal(as_samples(x["b"], "x", 2), [2.5, 5.5])


@pytest.mark.parametrize("backend", ["numpy_nullable", "pyarrow"])
@pytest.mark.parametrize("kind", ["Int64", "Float64"])
def test_gaps_in_nullable_columns_are_an_error(backend, kind):
    pandas = pytest.importorskip("pandas")
    if backend == "pyarrow":
        pytest.importorskip("pyarrow")
        kind = {"Int64": "int64[pyarrow]", "Float64": "double[pyarrow]"}[kind]
    column = pandas.Series([1, None], dtype=kind)
    x = pandas.DataFrame({"a": column, "b": [1.0, np.nan]})
    with pytest.raises(ValueError, match="x has missing values in 'a': fill them, or leave such samples out"):
        as_samples(x, "x", 2)
    with pytest.raises(ValueError, match="x has missing values: fill them"):
        as_samples(column, "x", 2)
    with pytest.raises(ValueError, match=r"x\[1\] has missing values: fill them"):
        as_samples([column.fillna(0), column], "x", 2)


def test_gaps_in_polars_and_arrow_are_an_error():
    data = {"a": [1, None], "b": [1.0, 2.0], "c": [None, None]}
    polars, arrow = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    for x in (polars.DataFrame(data, schema_overrides={"c": polars.Float64}), arrow.table(data)):
        with pytest.raises(ValueError, match="x has missing values in 'a', 'c': fill them"):
            as_samples(x, "x", 3)
    for x in (polars.Series([1.0, None]), arrow.array([1.0, None]), arrow.chunked_array([[1.0], [None]])):
        with pytest.raises(ValueError, match="x has missing values: fill them"):
            as_samples(x, "x", 2)


def test_nan_in_a_column_of_numpy_is_a_number():
    pandas = pytest.importorskip("pandas")
    x = pandas.DataFrame({"a": [1.0, np.nan], "b": [3.0, 4.0]})
    assert np.array_equal(as_samples(x, "x", 2), x.to_numpy(), equal_nan=True)


@pytest.mark.parametrize("kind", [float, [("a", "f8"), ("b", "i4")]])
def test_masked_values_are_an_error(kind):
    entry = list if kind is float else tuple
    rows, mask = [entry([1, 2]), entry([3, 4])], [entry([False, False]), entry([True, False])]
    x = np.ma.array(rows, kind)
    assert np.array_equal(as_samples(x, "x", 2, ("a", "b")), [[1, 2], [3, 4]])
    x = np.ma.array(rows, kind, mask=mask)
    assert np.array_equal(as_samples(x[0], "x", 2), [1, 2])
    for samples in (x, x[1]):
        with pytest.raises(ValueError, match=re.escape("x has masked values: x.filled() fills them")):
            as_samples(samples, "x", 2)
    with pytest.raises(ValueError, match=r"x\[1\] has masked values"):
        as_samples([x[0], x[1]], "x", 2)


# --- what is no array of real numbers


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones(3, complex), "x has dtype complex128, expected real numbers: take its real part"),
        ([1j, 2], "x has dtype complex128, expected real numbers: take its real part"),
        (np.zeros(3, "M8[s]"), "x has dtype datetime64[s], expected real numbers: count in a unit"),
        (np.zeros(3, "m8[s]"), "x has dtype timedelta64[s], expected real numbers: count in a unit"),
        (["1", "2"], "x has dtype <U1, expected real numbers: numpy.asarray(x, float) converts it"),
        ("123", "x has dtype <U3, expected real numbers: numpy.asarray(x, float) converts it"),
        ([1, None], "x has dtype object, expected real numbers: numpy.asarray(x, float) converts it"),
        ({"a": 1.0}, "x has dtype object, expected real numbers"),
        (None, "x has dtype object, expected real numbers"),
        (np.zeros(2, [("a", "f8"), ("b", "U2")]), "x has the field 'b' of dtype <U2, expected real numbers"),
        (np.zeros(2, [("a", "M8[s]"), ("b", "f8")]), "x has the field 'a' of dtype datetime64[s], expected"),
    ],
)
def test_what_is_not_real_is_a_type_error_that_says_what_to_do(value, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        as_samples(value, "x", 3, NAMES)
    with pytest.raises(TypeError, match=re.escape(message)):
        real_array(value, "x")


def test_rows_of_different_lengths_are_an_error_that_names_the_argument():
    with pytest.raises(ValueError, match=r"x is no array of numbers: .*inhomogeneous"):
        as_samples([[1, 2, 3], [4, 5]], "x", 3)


def test_columns_that_hold_something_else_are_named():
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    data = {"a": [1.0, 2.0], "b": ["x", "1"], "c": [True, False]}
    for library in (pandas, polars):
        with pytest.raises(
            TypeError, match=r"x has dtype object, expected real .* hold something else: 'b'$"
        ):
            as_samples(library.DataFrame(data), "x", 3)
    x = pandas.DataFrame(data).drop(columns="b")
    assert np.array_equal(as_samples(x, "x", 2), [[1, 1], [2, 0]])


@pytest.mark.parametrize("kind", ["csr_matrix", "coo_array", "csc_array"])
def test_sparse_matrices_are_refused(kind):
    sparse = pytest.importorskip("scipy.sparse")
    x = getattr(sparse, kind)(VALUES)
    with pytest.raises(
        TypeError, match=re.escape(f"x is a sparse {kind}, expected real numbers: hand in x.toarray()")
    ):
        as_samples(x, "x", 3)


@pytest.mark.parametrize("kind", ["bfloat16", "float8_e4m3fn", "int4"])
def test_numbers_that_numpy_does_not_know_are_refused(kind):
    dtype = np.dtype(getattr(pytest.importorskip("ml_dtypes"), kind))
    x = VALUES.astype(dtype)
    message = f"x has dtype {kind}, expected real numbers: numpy.asarray(x, float) converts it"
    with pytest.raises(TypeError, match=re.escape(message)):
        as_samples(x, "x", 3)
    assert np.array_equal(as_samples(np.asarray(x, float), "x", 3), VALUES)


# --- tensors


def test_tensors_are_read():
    torch, numpy = pytest.importorskip("torch"), pytest.importorskip("jax.numpy")
    for x in (torch.tensor(VALUES), numpy.asarray(VALUES)):
        assert np.array_equal(as_samples(x, "x", 3, NAMES), VALUES)
        assert np.array_equal(as_samples([x[0], x[1]], "x", 3, NAMES), VALUES)
        assert np.array_equal(as_samples([x[0, 0], x[0, 1], x[0, 2]], "x", 3, NAMES), VALUES[0])


def test_a_tensor_that_requires_grad_is_a_type_error():
    torch = pytest.importorskip("torch")
    x = torch.tensor(VALUES, requires_grad=True)
    message = (
        r"x is a tensor that requires grad, but fastjac is not differentiable through: hand in x\.detach\(\)"
    )
    for value in (x, x[0], [x[0], x[1]], [x[0, 0], x[0, 1], x[0, 2]], torch.nn.Parameter(x)):
        with pytest.raises(TypeError, match=message):
            as_samples(value, "x", 3)
    assert np.array_equal(as_samples(x.detach(), "x", 3), VALUES)


def test_a_tensor_that_numpy_cannot_read_is_a_type_error():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"x is no array of numbers: .*BFloat16; x\.float\(\) can be read"):
        as_samples(torch.ones(3, dtype=torch.bfloat16), "x", 3)
    with pytest.raises(TypeError, match=r"x is no array of numbers: .*meta device"):
        as_samples(torch.ones(3, device="meta"), "x", 3)


@pytest.mark.parametrize("transformation", ["jit", "grad", "vmap"])
def test_a_jax_tracer_is_a_type_error(transformation):
    jax = pytest.importorskip("jax")
    message = r"x is traced by JAX, which a network cannot be: .* jax\.pure_callback"
    for values in (lambda x: x, lambda x: [x, x]):
        function = getattr(jax, transformation)(lambda x, values=values: as_samples(values(x), "x", 3).sum())
        with pytest.raises(TypeError, match=message):
            function(jax.numpy.ones((3, 3) if transformation == "vmap" else 3))


def test_a_box_of_autograd_is_a_type_error():
    autograd = pytest.importorskip("autograd")
    with pytest.raises(TypeError, match="x is traced by autograd, but fastjac is not differentiable through"):
        autograd.grad(lambda x: as_samples(x, "x", 3).sum())(np.ones(3))


# --- shapes


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((28, 28), ": flatten each sample, as x.reshape(784) does"),
        ((28, 28, 1), ": flatten each sample, as x.reshape(784) does"),
        ((784, 1), ": flatten each sample, as x.reshape(784) does"),
        ((1, 28, 28), ": flatten each sample, as x.reshape(-1, 784) does"),
        ((5, 28, 28), ": flatten each sample, as x.reshape(-1, 784) does"),
        ((5, 1, 28, 28), ": flatten each sample, as x.reshape(-1, 784) does"),
        ((28, 29), ""),
        ((785,), ""),
        ((2, 392, 5), ""),
        ((), ""),
        ((0, 28, 29), ""),
    ],
)
def test_samples_with_more_axes_are_told_to_be_flattened(shape, hint):
    with pytest.raises(ValueError) as caught:
        as_samples(np.zeros(shape), "x", 784)
    assert str(caught.value) == f"x has shape {shape}, expected (784,) or (..., 784){hint}"
