"""Attributions as arrays, lists, tables and figures."""

import subprocess
import sys

import numpy as np
import pytest

import fastjac
from fastjac.explain import Attribution, importance, integrated_gradients, saliency

NAMES, OUTPUTS = ("age", "income", "rooms", "debt"), ("no", "yes")
VALUES = np.array([[1.0, -3.0, 2.0, 0.0], [np.nan, 0.5, -0.25, 0.125]])


@pytest.fixture
def one():
    return Attribution("saliency", VALUES, NAMES, OUTPUTS, np.arange(4.0))


@pytest.fixture
def many():
    values = np.stack([VALUES, 2 * VALUES, 3 * VALUES])
    return Attribution("saliency", values, NAMES, OUTPUTS, np.ones((3, 4)), np.arange(6.0).reshape(3, 2))


def test_it_is_an_array_to_numpy(one):
    np.testing.assert_array_equal(one, VALUES)
    assert np.asarray(one) is VALUES or np.shares_memory(np.asarray(one), VALUES)
    assert np.asarray(one, np.float32).dtype == np.float32
    assert not np.shares_memory(np.array(one), VALUES)
    assert one.shape == (2, 4) and len(one) == 2 and one[0, 1] == -3
    np.testing.assert_array_equal(np.abs(one), np.abs(VALUES))


def test_top_sorts_by_magnitude_with_signs_and_nan_last(one):
    assert one.top("no", 3) == [("income", -3.0), ("rooms", 2.0), ("age", 1.0)]
    assert one.top(0, 1) == [("income", -3.0)]
    names = [name for name, _ in one.top(1, 99)]
    assert names == ["income", "rooms", "debt", "age"]


def test_a_sample_of_a_batch_is_an_attribution(many):
    sample = many.sample(2)
    assert sample.top("no", 1) == [("income", -9.0)]
    np.testing.assert_array_equal(sample.completeness, [4.0, 5.0])
    assert sample.x.shape == (4,)


def test_what_needs_one_sample_says_so(one, many):
    for call in (lambda: many.top(0), many.plot):
        with pytest.raises(ValueError, match="choose a sample first"):
            call()
    with pytest.raises(ValueError, match="no samples to choose from"):
        one.sample(0)
    with pytest.raises(ValueError, match="leaves the shape"):
        many.sample((0, 0))
    with pytest.raises(IndexError):
        many.sample(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda one: one.top("maybe"), "output is 'maybe', expected one of no, yes"),
        (lambda one: one.top(2), "output is 2, expected 0 to 1"),
        (lambda one: one.top(-1), "output is -1"),
        (lambda one: one.top(0, 0), "k is 0"),
        (lambda one: one.plot(k=0), "k is 0"),
        (lambda one: one.plot(shape=(2, 3)), r"shape is \(2, 3\), expected two numbers whose product is 4"),
        (lambda one: one.plot("maybe"), "output is 'maybe'"),
    ],
)
def test_what_does_not_fit_is_named(one, call, message):
    with pytest.raises(ValueError, match=message):
        call(one)


def test_names_come_from_the_network_or_from_formulas():
    weights = [(np.eye(2), None)]
    found = saliency(fastjac.Network(weights), [0.0, 1.0])
    assert (found.names, found.outputs) == (("x[0]", "x[1]"), ("y[0]", "y[1]"))
    named = fastjac.Network(weights, input_names=["a", "b"], output_names=["A", "B"])
    assert (saliency(named, [0, 1]).names, saliency(named, [0, 1]).outputs) == (("a", "b"), ("A", "B"))


def test_the_text_has_the_largest_completeness_error(many):
    assert repr(many) == "<saliency (3, 2, 4) float64, completeness error at most 5.0e+00>"
    net = fastjac.Network([(np.eye(2), None)])
    assert repr(importance(net, [[0.0, 1.0]])) == "<importance (2, 2) float64>"
    assert "(0, 2, 2)" in repr(integrated_gradients(net, np.empty((0, 2))))


def test_a_frame_has_rows_of_outputs_and_columns_of_inputs(one, many):
    frame = one.to_frame()
    assert frame.loc["no", "income"] == -3.0
    assert list(frame.columns) == list(NAMES) and list(frame.index) == list(OUTPUTS)
    frame = many.to_frame()
    assert frame.loc[(2, "yes"), "income"] == 1.5
    assert frame.shape == (6, 4)


def test_without_pandas_or_matplotlib_the_import_error_names_them(one, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "fastjac.explain.figures", raising=False)
    with pytest.raises(ImportError, match="pandas"):
        one.to_frame()
    with pytest.raises(ImportError, match="matplotlib"):
        one.plot()


def test_bars_are_the_strongest_inputs_of_each_output(one):
    figure = one.plot(k=3)
    no, yes = figure.axes
    assert [no.get_title(), yes.get_title()] == list(OUTPUTS)
    assert [bar.get_width() for bar in no.patches] == [-3.0, 2.0, 1.0]
    assert [label.get_text() for label in no.get_yticklabels()] == ["income", "rooms", "age"]
    colours = [bar.get_facecolor() for bar in no.patches]
    assert colours[0] != colours[1] == colours[2]
    assert no.yaxis_inverted()


def test_pictures_share_one_scale_with_zero_in_its_middle(one):
    figure = one.plot(shape=(2, 2))
    given, no, yes = [axes for axes in figure.axes if axes.get_title()]
    assert given.get_title() == "input"
    np.testing.assert_array_equal(given.images[0].get_array(), [[0, 1], [2, 3]])
    np.testing.assert_array_equal(no.images[0].get_array(), VALUES[0].reshape(2, 2))
    for axes in (no, yes):
        assert axes.images[0].get_clim() == (-3.0, 3.0)


def test_one_output_is_drawn_alone(one):
    assert [axes.get_title() for axes in one.plot("yes").axes] == ["yes"]
    figure = one.plot(0, shape=(4, 1))
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == ["input", "no"]


def test_a_data_set_has_no_input_to_draw(tmp_path):
    figure = importance(fastjac.Network([(np.eye(4), None)]), np.zeros((3, 4))).plot(shape=(2, 2))
    assert "input" not in [axes.get_title() for axes in figure.axes]
    figure.savefig(tmp_path / "picture.png")


def test_the_package_has_it_without_an_import_of_its_own():
    script = "import fastjac; print(fastjac.explain.saliency.__name__)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "saliency\n"
