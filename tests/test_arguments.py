"""Wrong arguments: an error that names them, and nothing written."""

import numpy as np
import pytest

from fastjac import Network, jacobian
from support.calls import METHODS, as_out, buffers, call, vectors
from support.oracles import DTYPES, Case

OUTS = [(method, i) for method in METHODS for i in range(1 if method in ("call", "jacobian") else 2)]


@pytest.fixture(params=DTYPES)
def net(request):
    return Case((7, 13, 5), "relu", "softmax", request.param).network()


def assert_refused(net, method, arrays, error, *words, inputs=None):
    """Whatever the arrays are: the call raises, names what is wrong, and writes nothing."""
    before = [a.tobytes() if isinstance(a, np.ndarray) else None for a in arrays]
    with pytest.raises(error) as caught:
        call(net, method, *(inputs or vectors(net)), out=as_out(method, arrays))
    for word in words:
        assert word in str(caught.value)
    for array, content in zip(arrays, before, strict=True):
        assert content is None or array.tobytes() == content


def name_of(method, i):
    """What an error calls an output."""
    if method in ("call", "jacobian"):
        return "out "
    return f"{('y', {'value_and_jacobian': 'jac'}.get(method, method))[i]} in out "


@pytest.mark.parametrize(
    ("method", "argument", "place"),
    [
        *((method, "x", 0) for method in METHODS),
        ("vjp", "v", 1),
        ("jvp", "u", 2),
    ],
)
@pytest.mark.parametrize("with_out", [False, True])
def test_inputs_of_a_wrong_shape_or_type(net, method, argument, place, with_out):
    size = vectors(net)[place].size
    cases = [
        (np.zeros(size + 1), ValueError, [f"{argument} has shape ({size + 1},)", f"expected ({size},)"]),
        (np.zeros(size - 1), ValueError, [f"{argument} has shape ({size - 1},)", f"expected ({size},)"]),
        (np.zeros(0), ValueError, [f"{argument} has shape (0,)"]),
        (np.zeros((size, 1)), ValueError, [f"{argument} has shape ({size}, 1)"]),
        (1.0, ValueError, [f"{argument} has shape ()"]),
        (np.zeros(2 * size), ValueError, [f"{argument} has shape ({2 * size},)"]),
        (np.zeros(size, complex), TypeError, [f"{argument} has dtype complex128, expected real numbers"]),
        (np.zeros(size, object), TypeError, [f"{argument} has dtype object"]),
        (["a"] * size, TypeError, [f"{argument} has dtype <U1"]),
        (np.zeros(size, "M8[s]"), TypeError, [f"{argument} has dtype datetime64[s]"]),
        (None, TypeError, [f"{argument} has dtype object"]),
    ]
    for wrong, error, words in cases:
        # In the network's own dtype too: that is the way without conversions.
        same = [wrong.astype(net.dtype)] if isinstance(wrong, np.ndarray) and wrong.dtype == float else []
        for value in (wrong, *same):
            inputs = vectors(net)
            inputs[place] = value
            if with_out:
                assert_refused(net, method, buffers(net, method, 7.0), error, *words, inputs=inputs)
            else:
                with pytest.raises(error) as caught:
                    call(net, method, *inputs)
                assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("method", METHODS)
def test_twice_the_inputs_in_one_vector_are_not_a_batch(net, method):
    inputs = [np.concatenate([a, a]) for a in vectors(net)]
    arrays = [np.concatenate([a, a]) for a in buffers(net, method, 7.0)]
    assert_refused(net, method, arrays, ValueError, "x has shape (14,)", "expected (7,)", inputs=inputs)


@pytest.mark.parametrize(("method", "i"), OUTS)
def test_an_output_of_a_wrong_shape(net, method, i):
    right = buffers(net, method, 7.0)[i].shape
    wrong = [(right[0] + 1, *right[1:]), (right[0] - 1, *right[1:]), (*right, 1), (1, *right), (0,), ()]
    for shape in [*wrong, right[::-1]] if len(right) == 2 else wrong:
        arrays = buffers(net, method, 7.0)
        arrays[i] = np.full(shape, 7.0, net.dtype)
        words = f"{name_of(method, i)}has shape {shape}", f"expected {right}"
        assert_refused(net, method, arrays, ValueError, *words)


@pytest.mark.parametrize(("method", "i"), OUTS)
@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "int64", "complex128", "swapped"])
def test_an_output_of_a_wrong_dtype(net, method, i, kind):
    dtype = net.dtype.newbyteorder() if kind == "swapped" else np.dtype(kind)
    if dtype == net.dtype:
        return
    arrays = buffers(net, method, 7.0)
    arrays[i] = arrays[i].astype(dtype)
    words = f"{name_of(method, i)}has dtype {dtype}", f"expected {net.dtype}"
    assert_refused(net, method, arrays, ValueError, *words)


@pytest.mark.parametrize(("method", "i"), OUTS)
def test_an_output_that_is_read_only(net, method, i):
    arrays = buffers(net, method, 7.0)
    arrays[i].flags.writeable = False
    assert_refused(net, method, arrays, ValueError, f"{name_of(method, i)}is not writable")


@pytest.mark.parametrize(("method", "i"), OUTS)
def test_an_output_that_is_not_contiguous(net, method, i):
    arrays = buffers(net, method, 7.0)
    arrays[i] = np.repeat(arrays[i], 2, axis=-1)[..., ::2]
    assert_refused(net, method, arrays, ValueError, f"{name_of(method, i)}is not C-contiguous")
    arrays[i] = buffers(net, method, 7.0)[i][::-1]
    assert_refused(net, method, arrays, ValueError, f"{name_of(method, i)}is not C-contiguous")
    if arrays[i].ndim == 2:
        arrays[i] = np.asfortranarray(buffers(net, method, 7.0)[i])
        assert_refused(net, method, arrays, ValueError, f"{name_of(method, i)}is not C-contiguous")


@pytest.mark.parametrize(("method", "i"), OUTS)
def test_an_output_that_is_not_aligned(net, method, i):
    arrays = buffers(net, method, 7.0)
    block = np.zeros(arrays[i].nbytes + 1, np.uint8)
    arrays[i] = block[1:].view(net.dtype).reshape(arrays[i].shape)
    assert_refused(net, method, arrays, ValueError, f"{name_of(method, i)}is not aligned")


@pytest.mark.parametrize(("method", "i"), OUTS)
@pytest.mark.parametrize("wrong", [[1.0] * 5, "out", 3, memoryview(bytearray(40))])
def test_an_output_that_is_no_array(net, method, i, wrong):
    arrays = buffers(net, method, 7.0)
    arrays[i] = wrong
    words = f"{name_of(method, i)}must be an ndarray", f"got {type(wrong).__name__}"
    assert_refused(net, method, arrays, TypeError, *words)


@pytest.mark.parametrize("method", ["value_and_jacobian", "vjp", "jvp"])
def test_out_that_is_not_two_arrays(net, method):
    y, product = buffers(net, method, 7.0)
    for wrong in ((), (y,), (y, product, y), y, product, "ab", 3, {"y": y}):
        with pytest.raises(TypeError, match="out must be a tuple"):
            call(net, method, *vectors(net), out=wrong)
        assert np.all(y == 7)
        assert np.all(product == 7)


@pytest.mark.parametrize(("method", "i"), OUTS)
def test_none_for_an_output_makes_a_new_one(net, method, i):
    arrays = buffers(net, method, np.nan)
    arrays[i] = None
    got = call(net, method, *vectors(net), out=as_out(method, arrays))
    for a, b in zip(got, call(net, method, *vectors(net)), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize(("method", "i"), OUTS)
@pytest.mark.parametrize("shift", [0, 1, -1])
def test_an_output_that_overlaps_an_input(net, method, i, shift):
    for argument, place in {"vjp": [("x", 0), ("v", 1)], "jvp": [("x", 0), ("u", 2)]}.get(method, [("x", 0)]):
        inputs, arrays = vectors(net), buffers(net, method, 7.0)
        block = np.zeros(inputs[place].size + arrays[i].size + 2, net.dtype)
        # The two share one element or more: an end of the one is in the other.
        size, other = inputs[place].size, arrays[i].size
        start = 1 if shift >= 0 else other
        at = {0: 1, 1: size, -1: 1}[shift]
        inputs[place] = block[start : start + size]
        arrays[i] = block[at : at + other].reshape(arrays[i].shape)
        inputs[place][:] = vectors(net)[place]
        assert np.shares_memory(inputs[place], arrays[i])
        assert_refused(
            net, method, arrays, ValueError, f"{name_of(method, i)}overlaps {argument}", inputs=inputs
        )


@pytest.mark.parametrize("method", ["value_and_jacobian", "vjp", "jvp"])
def test_outputs_that_overlap_each_other(net, method):
    y, product = buffers(net, method, 7.0)
    block = np.zeros(y.size + product.size - 1, net.dtype)
    arrays = [block[: y.size], block[y.size - 1 :].reshape(product.shape)]
    assert_refused(net, method, arrays, ValueError, f"{name_of(method, 1)}overlaps")
    arrays = [block[product.size - 1 :], block[: product.size].reshape(product.shape)]
    assert_refused(net, method, arrays, ValueError, f"{name_of(method, 1)}overlaps")


@pytest.mark.parametrize("method", METHODS)
def test_arrays_that_touch_do_not_overlap(net, method):
    inputs, arrays = vectors(net), buffers(net, method, np.nan)
    parts = [*inputs, *arrays]
    block = np.full(sum(a.size for a in parts), np.nan, net.dtype)
    ends = np.cumsum([a.size for a in parts])
    placed = [block[end - a.size : end].reshape(a.shape) for a, end in zip(parts, ends, strict=True)]
    for a, b in zip(placed[:3], inputs, strict=True):
        a[:] = b
    got = call(net, method, *placed[:3], out=as_out(method, placed[3:]))
    for a, b in zip(got, call(net, method, *inputs), strict=True):
        assert np.array_equal(a, b)


def test_an_output_that_is_the_network_s_own_weights():
    net = Network([(np.eye(5), np.zeros(5))])
    w = net.layers[0].w
    try:
        w.flags.writeable = True
    except ValueError:
        return
    before = net.jacobian(np.ones(5))
    with pytest.raises(ValueError, match=r"out (overlaps|is not writable)"):
        net.jacobian(np.ones(5), out=w)
    assert np.array_equal(w, np.eye(5))
    assert np.array_equal(net.jacobian(np.ones(5)), before)


def test_the_functional_module_is_not_shadowed():
    assert jacobian.__name__ == "fastjac.jacobian"
