"""What the page asks about a network is answered by the network."""

import struct

import numpy as np
import pytest

import fastjac
from fastjac import reference
from fastjac.show.answers import Answers, BadMessage
from support.pages import CHECK, FLIP, STATE, WHAT_IF, message, numbers

N, M = 6, 3


def network(head="softmax", outputs=M, **names):
    rng = np.random.default_rng(0)
    layers = [(rng.normal(size=(N, 8)), rng.normal(size=8)), (rng.normal(size=(8, outputs)), None)]
    return fastjac.Network(layers, "tanh", head, **names)


def answers(net, **arguments):
    return Answers(net, **{"shape": None, "ranges": [(-3.0, 3.0)] * N, "fit": False, **arguments})


def asked(net, sequence, kind, view, *vectors):
    page = answers(net)
    return numbers(page.answer(page.read(message(sequence, kind, view, *vectors))))


@pytest.fixture
def x():
    return np.random.default_rng(1).normal(size=N).astype(np.float32)


@pytest.mark.parametrize(("view", "head"), [(0, "softmax"), (1, "identity")])
def test_a_state_is_the_probabilities_and_the_derivatives_of_the_view(x, view, head):
    net = network()
    header, (microseconds, *rest) = asked(net, 7, STATE, view, x)
    _, jac = reference.value_and_jacobian(x.astype(float), net.replace(head=head).layers)
    probabilities, _ = reference.value_and_jacobian(x.astype(float), net.layers)
    assert header == (7, STATE, view)
    assert microseconds > 0
    np.testing.assert_allclose(rest, [*probabilities, *jac.ravel()], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("view", "head"), [(0, "softmax"), (1, "identity")])
def test_what_if_is_what_each_single_change_does(x, view, head):
    to = np.linspace(-2, 2, N)
    changed = np.tile(x.astype(float), (N, 1))
    np.fill_diagonal(changed, to)
    layers = network().replace(head=head).layers
    before, *after = (reference.value_and_jacobian(row, layers)[0] for row in [x.astype(float), *changed])
    header, found = asked(network(), 8, WHAT_IF, view, x, to)
    assert header == (8, WHAT_IF, view)
    np.testing.assert_allclose(found.reshape(N, M), np.array(after) - before, rtol=1e-5, atol=1e-6)


def test_a_flip_is_the_smallest_of_the_changes_tried(x):
    net = network()
    low, high = np.full(N, -3), np.full(N, 3)
    _, (n, old, new, winner) = asked(net, 9, FLIP, 1, x, low, high)
    flipped = x.astype(float)
    flipped[int(n)] = new
    assert old == x[int(n)]
    assert np.argmax(net(flipped)) == winner != np.argmax(net(x))
    for k in range(N):
        for value in np.linspace(-3, 3, 17):
            nearer = x.astype(float)
            nearer[k] = value
            assert abs(value - x[k]) >= abs(new - old) - 1e-6 or np.argmax(net(nearer)) == np.argmax(net(x))


def test_there_may_be_no_flip(x):
    header, found = asked(network(), 9, FLIP, 1, x, x, x)
    assert header == (9, FLIP, 1)
    assert found.size == 0


def test_a_check_tells_how_well_the_jacobian_agrees(x):
    report = fastjac.check_jacobian(network(), x)
    _, found = asked(network(), 10, CHECK, 0, x)
    expected = [report.ok, report.error, report.tolerance, *report.where, report.checked, report.skipped]
    np.testing.assert_array_equal(found, np.asarray(expected, np.float32))


@pytest.mark.parametrize(
    ("head", "views"),
    [
        ("softmax", ["probabilities", "logits"]),
        ("log_softmax", ["probabilities", "logits"]),
        ("sigmoid", ["probabilities", "logits"]),
        ("identity", ["outputs"]),
        ("tanh", ["outputs"]),
    ],
)
def test_the_views_are_what_the_head_has(head, views, x):
    net = network(head)
    assert answers(net).description["views"] == views
    expected = net.replace(head="softmax" if head == "log_softmax" else head)(x)
    for view in range(len(views)):
        np.testing.assert_allclose(asked(net, 1, STATE, view, x)[1][1 : 1 + M], expected, rtol=1e-5)


def test_names_are_the_networks_or_those_of_pixels():
    named = network(input_names="abcdef", output_names="xyz")
    assert answers(named).description["inputs"] == list("abcdef")
    assert answers(named).description["outputs"] == list("xyz")
    assert answers(network()).description["inputs"][1] == "x[1]"
    assert answers(network()).description["outputs"][1] == "y[1]"
    assert answers(network(), shape=(2, 3)).description["inputs"][3] == "row 2, column 1"


X = [0.0] * N


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "has 0 bytes, expected at least 8"),
        (message(1, 4, 0, X), "is of kind 4, expected 0 to 3"),
        (message(1, STATE, 2, X), "asks for view 2, expected less than 2"),
        (message(1, STATE, 0, X[1:]), "of kind 0 has 28 bytes, expected 32"),
        (message(1, STATE, 0, X) + b"1", "of kind 0 has 33 bytes, expected 32"),
        (message(1, WHAT_IF, 0, X), "of kind 1 has 32 bytes, expected 56"),
        (message(1, STATE, 0, [*X[1:], np.nan]), "not finite"),
        (message(1, WHAT_IF, 0, X, [*X[1:], np.inf]), "not finite"),
    ],
)
def test_a_bad_message_says_why(data, reason):
    with pytest.raises(BadMessage, match=reason):
        answers(network()).read(data)


def test_one_output_has_no_other_class():
    with pytest.raises(BadMessage, match="one output"):
        answers(network("sigmoid", outputs=1)).read(message(1, FLIP, 0, X, X, X))


def test_any_bytes_are_a_question_or_a_bad_message():
    rng = np.random.default_rng(0)
    page = answers(network())
    for size in [*range(20), 32, 56, 80]:
        data = struct.pack("<IHH", 1, size % 4, 0) + rng.bytes(size)
        try:
            page.answer(page.read(data))
        except BadMessage as error:
            assert len(str(error)) < 120  # what a closing frame has room for
