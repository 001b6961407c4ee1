"""load of .nnet files against the evaluation that belongs to the format."""

import itertools

import numpy as np
import pytest

from fastjac import check_jacobian
from fastjac.models.files import ModelError, load

rng = np.random.default_rng(0)
SIZES = (5, 7, 6, 3)


def row(numbers):
    return ",".join(repr(float(number)) for number in np.ravel(numbers)) + ","


def lines(sizes=SIZES, **changes):
    """Return the lines of a file, and what they hold."""
    held = {
        "low": -rng.uniform(1, 3, sizes[0]),
        "high": rng.uniform(1, 3, sizes[0]),
        "means": rng.normal(size=sizes[0] + 1) * 3,
        "ranges": rng.uniform(0.5, 4, sizes[0] + 1),
        "layers": [
            (rng.normal(size=(fan_out, fan_in)), rng.normal(size=fan_out))
            for fan_in, fan_out in itertools.pairwise(sizes)
        ],
    } | changes
    text = ["// A network", "//of a test", f"{len(sizes) - 1},{sizes[0]},{sizes[-1]},{max(sizes)},"]
    text += [",".join(map(str, sizes)) + ",", "0,"]
    text += [row(held[key]) for key in ("low", "high", "means", "ranges")]
    for w, b in held["layers"]:
        text += [row(part) for part in w] + [row(number) for number in b]
    return text, held


def evaluated(held, x):
    """Return the outputs as the format's own evaluation has them, a number at a time."""
    values = []
    for value, low, high, mean, extent in zip(
        x, held["low"], held["high"], held["means"], held["ranges"], strict=False
    ):
        values.append((min(max(value, low), high) - mean) / extent)
    for number, (w, b) in enumerate(held["layers"], 1):
        values = [
            sum(a * v for a, v in zip(part, values, strict=True)) + c for part, c in zip(w, b, strict=True)
        ]
        if number < len(held["layers"]):
            values = [max(value, 0.0) for value in values]
    return [value * held["ranges"][-1] + held["means"][-1] for value in values]


def write(text, folder):
    path = folder / "m.nnet"
    path.write_text("\n".join(text) + "\n")
    return path


@pytest.mark.parametrize("sizes", [SIZES, (1, 1), (2, 3, 1)], ids=str)
def test_same_as_its_own_evaluation(sizes, tmp_path):
    text, held = lines(sizes)
    net = load(write(text, tmp_path))
    assert net.dtype == np.float64
    inside = rng.uniform(held["low"], held["high"], (4, sizes[0]))
    outside = rng.normal(size=(4, sizes[0])) * 5
    for x in (*inside, *outside):
        np.testing.assert_allclose(net(x), evaluated(held, x), rtol=1e-12, atol=1e-12)
        assert check_jacobian(net, x)
    beyond = held["high"] + 1
    np.testing.assert_array_equal(net.jacobian(beyond), np.zeros((sizes[-1], sizes[0])))


def test_an_input_with_one_possible_value_has_no_influence(tmp_path):
    low = -np.ones(5)
    high = np.array([1, 1, -1, 1, 1.0])
    text, held = lines(low=low, high=high)
    net = load(write(text, tmp_path))
    x = np.array([0.3, 0.2, 7, -0.1, 0])
    np.testing.assert_allclose(net(x), evaluated(held, x), rtol=1e-12)
    np.testing.assert_array_equal(net.jacobian(x)[:, 2], 0)


def test_lines_without_their_last_comma(tmp_path):
    text, held = lines()
    net = load(write([part.rstrip(",") for part in text], tmp_path))
    np.testing.assert_allclose(net(np.zeros(5)), evaluated(held, np.zeros(5)), rtol=1e-12)


def changed(place, line):
    text, _ = lines()
    text[place] = line
    return text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (["// nothing"], "line 2 has 0 numbers, expected 4"),
        (changed(2, "3,5,3,"), "line 3 has 3 numbers, expected 4"),
        (changed(2, "3.5,5,3,7,"), "expected integers"),
        (changed(2, "0,5,5,7,"), "numbers"),
        (changed(3, "5,7,6,4,"), r"it has 5 inputs and 3 outputs, but layers of \[5, 7, 6, 4\]"),
        (changed(4, "1,"), "symmetric network"),
        (changed(5, "9,9,9,9,9,"), "clips to"),
        (changed(9, "1,2,3,"), "line 10 has 3 numbers, expected 5"),
        (changed(9, "1,2,3,4,many,"), r"line 10 is not made of numbers: b'1,2,3,4,many"),
        (lines()[0][:-1], "has 0 numbers, expected 1"),
        ([*lines()[0], "1,"], "more lines than its layers"),
        (["1" * 2 * 10**6], "line 1 has more than 1000000 bytes"),
        (changed(2, "3,nan,3,7,"), "NaN"),
    ],
    ids=range(13),
)
def test_damage(text, message, tmp_path):
    with pytest.raises(ModelError, match=rf"m\.nnet: .*{message}"):
        load(write(text, tmp_path))
