"""The check passes what is right, names what is wrong, and skips what finite differences cannot tell."""

import dataclasses

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastjac import Network, check_jacobian, reference
from support.examples import examples
from support.oracles import DTYPES, Case, cases

CASES = {
    "relu": Case((7, 12, 4)),
    "deep": Case((7, 9, 8, 5), ("tanh", "leaky_relu(0.2)"), "identity"),
    "logits": Case((6, 10, 3), "relu6", "log_softmax"),
    "one layer": Case((5, 3), (), "sigmoid"),
    "seed shape": Case((500, 100, 10)),
    "one by one": Case((1, 1, 1), "relu", "tanh", seed=3),
}


def as_callables(net):
    """The network's mathematics as two plain functions."""

    def value_and_jacobian(x):
        return reference.value_and_jacobian(np.asarray(x, net.dtype), net.layers)

    return (lambda x: value_and_jacobian(x)[0]), (lambda x: value_and_jacobian(x)[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_a_right_jacobian_is_ok(name, dtype):
    case = dataclasses.replace(CASES[name], dtype=dtype)
    net, x = case.network(), case.x()
    for report in (check_jacobian(net, x), check_jacobian(as_callables(net)[0], x, as_callables(net)[1])):
        assert report, report
        assert report.ok
        assert report.checked + report.skipped == x.size
        assert report.checked >= 0.9 * x.size
        assert report.error <= report.tolerance
        assert abs(report.analytic - report.numeric) == pytest.approx(report.error)


@examples(60)
@given(cases(depth=4, widths=st.integers(1, 20)))
def test_any_right_network_is_ok_or_all_at_corners(case):
    report = check_jacobian(case.network(), case.x())
    assert report.ok or report.checked == 0, report


@pytest.mark.parametrize("scale", [1e-3, 30.0])
@pytest.mark.parametrize("head", ["softmax", "log_softmax", "identity", "tanh"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_saturated_and_flat_networks_are_ok(head, dtype, scale):
    case = Case((30, 20, 6), "relu", head, dtype, scale)
    report = check_jacobian(case.network(), case.x())
    assert report.ok, report


def broken(kind, x, layers):
    """A Jacobian that is wrong in the way that ``kind`` says."""
    jac = reference.value_and_jacobian(x, layers)[1]
    m, n = (int(i) for i in np.unravel_index(np.argmax(np.abs(jac)), jac.shape))
    if kind == "negated":
        return -jac
    if kind == "one entry off":
        jac[m, n] *= 1.01
    elif kind == "one entry nan":
        jac[m, n] = np.nan
    elif kind == "one row zero":
        jac[m] = 0
    elif kind == "tiniest row zero":
        jac[np.argmin(np.max(np.abs(jac), axis=1))] = 0
    elif kind == "two columns swapped":
        jac[:, [0, 1]] = jac[:, [1, 0]]
    elif kind == "reversed":
        jac = jac[::-1, ::-1]
    elif kind == "mask inverted":
        (w1, b1, _), (w2, b2, _) = layers
        z = x @ w1 + b1
        y = reference.softmax(np.maximum(z, 0) @ w2 + b2)
        jac = (np.diag(y) - np.outer(y, y)) @ (w2.T * (z <= 0)) @ w1.T
    elif kind == "mask forgotten":
        (w1, b1, _), (w2, b2, _) = layers
        y = reference.softmax(np.maximum(x @ w1 + b1, 0) @ w2 + b2)
        jac = (np.diag(y) - np.outer(y, y)) @ w2.T @ w1.T
    elif kind == "softmax diagonal only":
        *body, head = layers
        logits = [*body, head._replace(activation=reference.Activation("identity"))]
        y = reference.value_and_jacobian(x, layers)[0]
        jac = y[:, None] * reference.value_and_jacobian(x, logits)[1]
    else:
        raise AssertionError(kind)
    return jac


KINDS = [
    "negated",
    "one entry off",
    "one entry nan",
    "one row zero",
    "tiniest row zero",
    "two columns swapped",
    "reversed",
    "mask inverted",
    "mask forgotten",
    "softmax diagonal only",
]


@pytest.mark.parametrize("scale", [0.5, 4.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_jacobian_of_a_network_is_found(kind, dtype, scale):
    case = Case((20, 30, 6), dtype=dtype, scale=scale)
    net, x = case.network(), case.x()
    report = check_jacobian(net, x, lambda x: broken(kind, x, net.layers))
    assert not report, report
    assert not report.ok
    assert report.checked >= 0.9 * x.size
    assert not report.error <= report.tolerance


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_jacobian_of_a_callable_is_found(kind):
    case = Case((20, 30, 6))
    net, x = case.network(), case.x()
    report = check_jacobian(as_callables(net)[0], x, lambda x: broken(kind, x, net.layers))
    assert not report, report


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "one entry off"])
def test_a_wrong_jacobian_of_a_float32_callable_is_found(kind):
    case = Case((20, 30, 6), dtype=np.float32)
    net, x = case.network(), case.x()
    report = check_jacobian(as_callables(net)[0], x, lambda x: broken(kind, x, net.layers))
    assert not report, report


def test_the_report_names_the_worst_entry():
    case = CASES["relu"]
    net, x = case.network(), case.x()
    jac = net.jacobian(x)

    def wrong(x):
        moved = jac.copy()
        moved[2, 5] += 0.25
        moved[1, 3] += 0.125
        return moved

    report = check_jacobian(net, x, wrong)
    assert report.where == (2, 5)
    assert report.error == pytest.approx(0.25, rel=1e-6)
    assert report.analytic == jac[2, 5] + 0.25
    assert report.numeric == pytest.approx(jac[2, 5], rel=1e-6)
    assert (report.checked, report.skipped) == (7, 0)
    text = str(report)
    assert "DISAGREES" in text
    assert "2.50e-01 at jac[2, 5]" in text
    assert "columns checked: 7, skipped at corners: 0" in text
    assert "agrees" in str(check_jacobian(net, x))
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.ok = True


def relu_at(z, outgoing=1.0, dtype=np.float64):
    """A network of three inputs whose only unit near its corner sees input 1 alone, and is at ``z`` there."""
    w1 = np.array([[1.0, 0.0, 1.0], [1.0, 1.0, -1.0], [1.0, 0.0, 0.5]])
    w2 = np.array([[1.0, 0.5], [outgoing, -outgoing], [0.25, 1.0]])
    return Network([(w1, [2.0, z, 3.0]), (w2, [0.0, 0.0])], head="identity", dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("z", [0.0, 1e-9, -1e-9, 2e-6, -2e-6, 5e-6, -5e-6])
def test_a_column_that_straddles_a_corner_is_skipped_not_wrong(z, dtype):
    x = np.zeros(3)
    net = relu_at(z, dtype=dtype)
    forward, jacobian = as_callables(relu_at(z))
    for report in (check_jacobian(net, x), check_jacobian(forward, x, jacobian)):
        assert report.ok, report
        assert (report.checked, report.skipped) == (2, 1)


@pytest.mark.parametrize("z", [1e-4, -1e-4])
def test_a_column_next_to_a_corner_is_checked(z):
    net = relu_at(z)
    wrong = net.jacobian(np.zeros(3))
    wrong[:, 1] = (0, 0) if z > 0 else (1, -1)
    forward, _ = as_callables(net)
    for f in (net, forward):
        report = check_jacobian(f, np.zeros(3), lambda x: wrong)
        assert not report.ok
        assert report.where[1] == 1
        assert report.skipped == 0


@pytest.mark.parametrize("distance", np.linspace(0, 0.999, 28))
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_corner_at_any_distance_below_the_step_is_seen_in_a_callable(distance, sign):
    step = 1e-4
    corner = 0.3 + sign * distance * step

    def f(x):
        return np.array([np.sin(x[0]) + np.maximum(x[0] - corner, 0.0), x[1] ** 2])

    report = check_jacobian(f, [0.3, 1.0], lambda x: np.array([[np.nan, 0], [0, 2 * x[1]]]), step=step)
    assert (report.ok, report.checked, report.skipped) == (True, 1, 1)


@pytest.mark.parametrize(
    ("activation", "corner"),
    [
        *(("relu", 0), ("leaky_relu(0.2)", 0), ("elu(0.5)", 0), ("relu6", 6), ("hard_tanh", -1)),
        *(("hard_tanh", 1), ("prelu", 0), ("selu", 0), ("hard_sigmoid", -3), ("hard_sigmoid", 3)),
        *(("hard_swish", -3), ("hard_swish", 3), ("abs", 0)),
    ],
)
def test_every_corner_is_known(activation, corner):
    net = Network([([[1.0, 0.0], [0.0, 1.0]], [corner, 0.5])], head=activation)
    report = check_jacobian(net, [0.0, 0.0])
    assert (report.ok, report.checked, report.skipped) == (True, 1, 1)


@pytest.mark.parametrize(
    "activation",
    [
        "leaky_relu(1.0)",
        "elu",
        "tanh",
        "gelu",
        "identity",
        "celu(0.5)",
        "mish",
        "softsign",
        "exp",
        "square",
        "sin",
    ],
)
def test_a_smooth_activation_has_no_corner(activation):
    net = Network([(np.eye(2), [0.0, 0.5])], head=activation)
    assert check_jacobian(net, [0.0, 0.0]).checked == 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("activation", "crossing"),
    [
        *(("silu", -1.2784645), ("gelu", -0.7517916), ("gelu_tanh", -0.7524614), ("hard_swish", -1.5)),
        *(("mish", -1.1924312), ("square", 0.0), ("sin", np.pi / 2), ("cos", np.pi)),
    ],
)
def test_a_slope_near_zero_may_be_as_wrong_as_its_argument(activation, crossing, dtype):
    for distance in np.linspace(-1e-3, 1e-3, 21):
        net = Network([([[1.0], [1.0]], [0.3])], head=activation, dtype=dtype)
        assert check_jacobian(net, [0.5, crossing - 0.8 + distance])


def test_a_small_slope_of_tanh_is_checked_in_its_digits():
    net = Network([([[1.0]], [0.0])], head="tanh", dtype=np.float32)
    assert check_jacobian(net, [8.0])
    assert not check_jacobian(net, [8.0], lambda x: np.array([[1 - np.float32(np.tanh(8.0)) ** 2]]))


def test_a_deep_corner_that_one_input_moves_skips_that_column_only():
    w2 = np.array([[1.0], [-1.0]])
    net = Network([(np.eye(2), [1.0, 1.0]), (w2, [0.0]), ([[1.0]], [1.0])], ["tanh", "relu"], "identity")
    assert check_jacobian(net, [0.5, 0.5]).skipped == 2
    blind = Network([(np.diag([1.0, 0.0]), [0.0, 0.0]), (np.eye(2), [1.0, 1.0])], head="identity")
    assert check_jacobian(blind, [1.0, 0.0]).skipped == 0


def test_a_unit_within_its_own_rounding_of_the_corner_is_not_trusted():
    # In float32 the pre-activation rounds to 0 and its unit is off; exactly it is 2**-26, and on.
    w1 = np.array([[1.0], [2.0**-26], [-1.0]], np.float32)
    net = Network([(w1, [0.0]), ([[1.0]], [0.0])], head="identity", dtype=np.float32)
    report = check_jacobian(net, [1.0, 1.0, 1.0])
    assert report.checked == 0


def test_when_all_is_skipped_nothing_is_ok():
    net = Network([(np.eye(3), np.zeros(3)), (np.ones((3, 2)), np.zeros(2))])
    report = check_jacobian(net, np.zeros(3))
    assert not report.ok
    assert (report.where, report.checked, report.skipped) == (None, 0, 3)
    assert np.isnan(report.error)
    assert "not checked" in str(report)


def test_dead_units_have_zero_columns_and_are_ok():
    net = Network([(np.eye(3), -np.ones(3)), (np.ones((3, 2)), np.zeros(2))])
    report = check_jacobian(net, np.zeros(3))
    assert (report.ok, report.checked, report.error) == (True, 3, 0.0)


def test_random_columns_are_as_many_as_asked_for_and_the_same_for_a_seed():
    net, x = CASES["seed shape"].network(), CASES["seed shape"].x()
    seen = []

    def forward(at):
        seen.extend(np.flatnonzero(at != x))
        return net(at)

    def drawn(seed):
        seen.clear()
        report = check_jacobian(forward, x, net.jacobian, columns=5, seed=seed)
        assert report.checked + report.skipped == 5
        return set(seen)

    assert len(drawn(0)) == 5
    assert drawn(0) == drawn(0) != drawn(1)


def test_a_wrong_column_is_named_by_its_own_number():
    case = CASES["relu"]
    net, x = case.network(), case.x()
    for seed in range(7):
        report = check_jacobian(net, x, lambda x: net.jacobian(x) + np.arange(7) * 1.0, columns=1, seed=seed)
        m, n = report.where
        assert report.analytic == net.jacobian(x)[m, n] + n


def test_autograd_functions_can_be_checked():
    def forward(x):
        return anp.tanh(anp.dot(x, np.arange(6.0).reshape(3, 2)))

    assert check_jacobian(forward, [0.1, -0.2, 0.05], autograd.jacobian(forward))


def test_a_function_that_reuses_its_buffers_can_be_checked():
    y, jac = np.empty(2), np.empty((2, 2))

    def forward(x):
        y[:] = x**2
        return y

    def jacobian(x):
        jac[:] = np.diag(2 * x)
        x[:] = np.nan
        return jac

    assert check_jacobian(forward, [1.0, -3.0], jacobian)


def test_large_and_small_inputs_have_steps_of_their_own():
    def f(x):
        return np.array([np.sin(x[0] / 1e6) + x[1]])

    assert check_jacobian(f, [3e6, 1e-3], lambda x: np.array([[np.cos(x[0] / 1e6) / 1e6, 1]]))
    assert not check_jacobian(f, [3e6, 1e-3], lambda x: np.array([[np.cos(x[0] / 1e6) / 1.01e6, 1]]))
    assert not check_jacobian(f, [3e6, 1e-3], lambda x: np.array([[np.cos(x[0] / 1e6) / 1e6, 0.9]]))


def test_too_large_a_step_skips_and_too_small_a_tolerance_fails():
    def f(x):
        return np.sin(50 * x)

    def jacobian(x):
        return np.diag(50 * np.cos(50 * x))

    assert check_jacobian(f, [0.1, 0.2], jacobian)
    assert check_jacobian(f, [0.1, 0.2], jacobian, step=0.01).checked == 0
    nearly = check_jacobian(f, [0.1, 0.2], lambda x: 1.001 * jacobian(x))
    assert not nearly
    assert check_jacobian(f, [0.1, 0.2], lambda x: 1.001 * jacobian(x), rtol=0.01)


def test_a_function_that_is_nan_is_not_ok():
    report = check_jacobian(lambda x: x * np.nan, [1.0], lambda x: np.array([[0.5]]))
    assert not report.ok
    assert np.isnan(report.error)


@pytest.mark.parametrize("x", [[1, 2, 3], np.int8([1, 2, 3]), np.array([1, 2, 3], ">f8"), (1.0, 2.0, 3.0)])
def test_x_may_be_anything_real(x):
    assert check_jacobian(lambda x: x**2, x, lambda x: np.diag(2 * x)).ok
    assert check_jacobian(relu_at(1.0), x).ok


def off_by(net, amounts):
    """The Jacobian of ``net``, wrong by ``amounts[x[0]]`` at one entry."""

    def jacobian(x):
        jac = np.array(net.jacobian(x))
        jac[1, 2] += amounts[int(x[0])]
        return jac

    return jacobian


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_report_of_a_batch_is_that_of_its_worst_sample(dtype):
    case = Case((4, 9, 3), "tanh", dtype=dtype)
    net, x = case.network(), np.random.default_rng(0).standard_normal((4, 4))
    x[:, 0] = range(4)
    right = check_jacobian(net, x)
    assert right.ok
    assert right.reports == tuple(check_jacobian(net, row) for row in x)
    assert (right.checked, right.skipped) == (16, 0)
    assert "agrees with central differences at 4 of 4 samples\n" in str(right)
    wrong = check_jacobian(net, x, off_by(net, [0.0, 0.5, 2e3, 0.0]))
    assert not wrong
    assert (wrong.sample, wrong.where) == (2, (1, 2))
    assert wrong.error == pytest.approx(2e3, rel=1e-3)
    assert [report.ok for report in wrong.reports] == [True, False, False, True]
    assert "DISAGREES with central differences; it agrees at 2 of 4 samples\n" in str(wrong)
    assert "at jac[1, 2] of sample 2 (" in str(wrong)
    nan = check_jacobian(net, x, off_by(net, [0.0, np.nan, 2e3, 0.0]))
    assert nan.sample == 1


def test_a_callable_sees_a_batch_sample_by_sample():
    def f(x):
        assert x.shape == (2,)
        return x**2

    report = check_jacobian(f, [[1, 2], [3, 4]], lambda x: np.diag(2 * x))
    assert (report.ok, report.checked) == (True, 4)
    assert check_jacobian(f, [[1, 2]], lambda x: np.diag(2 * x)).sample == 0
    assert check_jacobian(f, [1, 2], lambda x: np.diag(2 * x)).sample is None


def test_a_batch_with_a_sample_that_cannot_be_checked_is_not_ok():
    net = Network([(np.eye(2), np.zeros(2)), (np.eye(2), np.zeros(2))])
    x = [[1.0, 2.0], [0.0, 0.0], [2.0, 1.0]]
    report = check_jacobian(net, x)
    assert (report.ok, report.sample, report.where) == (False, 1, None)
    assert (report.checked, report.skipped) == (4, 2)
    assert "not checked: finite differences say nothing at sample 1; it agrees at 2 of 3" in str(report)
    # An error counts for more than the lack of a check.
    assert check_jacobian(net, x, lambda x: net.jacobian(x) + (x[0] == 2)).sample == 2


def test_the_worst_entry_has_the_names_of_the_network():
    case = Case((4, 9, 3), "tanh")
    net = case.network()
    named = net.replace(input_names=["a", "b", "it's", "d"])
    assert check_jacobian(named, np.zeros(4), off_by(net, [1.0])).entry == 'jac[1, "it\'s"]'
    named = named.replace(output_names=["p", "q", "r"])
    text = str(check_jacobian(named, np.zeros(4), off_by(net, [1.0])))
    assert """1.00e+00 at jac['q', "it's"] (""" in text


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": np.zeros(4)}, ValueError, r"x has shape \(4,\), expected \(3,\)"),
        ({"x": np.zeros((1, 1, 3))}, ValueError, r"x has shape \(1, 1, 3\), expected \(3,\) or \(B, 3\)"),
        ({"x": np.zeros((0, 3))}, ValueError, r"x has shape \(0, 3\), expected .* of B samples, B > 0"),
        ({"x": np.zeros((2, 4))}, ValueError, r"x has shape \(2, 4\), expected \(3,\) or \(B, 3\)"),
        ({"x": [[0, 0, 0], [0, np.nan, 0]]}, ValueError, r"x\[1, 1\] is nan, expected finite numbers"),
        ({"x": [0, np.inf, 0]}, ValueError, r"x\[1\] is inf, expected finite numbers"),
        ({"x": [0, 0, np.nan]}, ValueError, r"x\[2\] is nan, expected finite numbers"),
        ({"x": [1j, 0, 0]}, TypeError, "x has dtype complex128, expected real numbers"),
        ({"x": None}, TypeError, "x has dtype object"),
        ({"columns": 0}, ValueError, "columns is 0, expected 1 to 3, the size of x"),
        ({"columns": 4}, ValueError, "columns is 4, expected 1 to 3"),
        ({"columns": -1}, ValueError, "columns is -1, expected 1 to 3"),
        ({"columns": 1.0}, TypeError, "columns must be an integer or None, got float"),
        ({"columns": True}, TypeError, "columns must be an integer or None, got bool"),
        ({"step": 0.0}, ValueError, "step is 0.0, expected a positive number"),
        ({"step": np.nan}, ValueError, "step is nan, expected a positive number"),
        ({"x": [1, 1, 1], "step": 1e-30}, ValueError, "step is 1e-30, too small to move x in float64"),
        ({"rtol": 0.0}, ValueError, "rtol is 0.0, expected a positive number"),
        ({"f": 3}, TypeError, "f must be a Network or a callable, got int"),
        ({"f": np.sin}, TypeError, "jacobian is missing: f is a plain callable"),
        ({"f": np.sin, "x": [], "jacobian": np.diag}, ValueError, r"x has shape \(0,\), expected \(N,\)"),
        ({"f": np.sum, "jacobian": np.diag}, ValueError, r"f returned shape \(\), expected \(M,\)"),
        ({"jacobian": lambda x: np.ones((3, 2))}, ValueError, r"returned shape \(3, 2\), expected \(2, 3\)"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        check_jacobian(**({"f": relu_at(1.0), "x": np.zeros(3)} | arguments))
