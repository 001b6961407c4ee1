"""docs/explain.md says what is so."""

import re

import numpy as np
import pytest

from fastjac import explain
from support.markdown import blocks, read

TEXT = read("docs/explain.md")


@pytest.fixture(scope="module")
def names():
    names = {}
    for block in blocks(TEXT, "python"):
        exec(block, names)
    return names


def test_every_function_is_explained():
    functions = {name for name in explain.__all__ if name.islower()}
    assert functions == set(re.findall(r"explain\.(\w+)\(", TEXT))
    assert set(re.findall(r"^\| `(\w+)\(", TEXT, re.MULTILINE)) == functions - {"what_if", "flips"}


def test_a_sure_softmax_is_flat_and_its_logits_are_not(names):
    assert round(names["net"](names["nought"]).max(), 3) == 0.997
    assert names["flat"] < 0.01
    assert names["steep"] > 3


def test_the_strongest_pixel_is_the_one_named(names):
    (name, value), *_ = names["strongest"]
    assert (name, round(value, 1)) == ("row 3, column 3", 2.3)


def test_the_completeness_error_is_some_thousandths_and_falls(names):
    assert 1e-3 < np.abs(names["missing"]).max() < 1e-2
    assert np.abs(names["better"]).max() < np.abs(names["missing"]).max() / 2


def test_one_pixel_makes_the_eight_a_nine(names):
    flip, net, sample = names["flip"], names["net"], names["x"][8].copy()
    assert (net(sample).argmax(), flip.output) == (8, "9")
    sample[flip.input] = 0
    assert net(sample).argmax() == 9
    np.testing.assert_allclose(names["dark"][flip.input], net(sample), rtol=1e-10)
    np.testing.assert_array_equal(names["several"][:, 0], names["dark"])


def test_shapes_and_figures_are_as_told(names):
    assert names["dark"].shape == (64, 10)
    assert names["several"].shape == (64, 3, 10)
    assert names["many"].shape == (10, 10, 64)
    assert names["frame"].shape == names["overall"].shape == (10, 64)
    assert len(names["bars"].axes[0].patches) == 10
    assert sum(bool(axes.images) for axes in names["picture"].axes) == 11
