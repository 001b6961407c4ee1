"""Files of inputs: columns in the network's order, and first lines that are names or a sample."""

import re

import numpy as np
import pytest
from numpy.lib.recfunctions import repack_fields

import fastjac
from fastjac.__main__ import main
from fastjac.commands import CommandError
from fastjac.commands.inputs import read_inputs

NAMES = ("a", "b", "c")
VALUES = np.array([[1.5, 2.0, 3.0], [4.0, 5.0, 6.0]])  # in the order of NAMES


def csv_file(folder, *lines):
    path = folder / "x.csv"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def columns(names):
    return VALUES[:, [NAMES.index(name) for name in names]]


def structured(names):
    rows = np.array([tuple(row) for row in VALUES], [("a", "f4"), ("b", "f8"), ("c", "i2")])
    return repack_fields(rows[list(names)])


def written(folder, kind, names):
    """Write VALUES with their columns in the order of ``names``."""
    if kind == "npy":
        np.save(folder / "x.npy", structured(names))
    elif kind == "npz":
        np.savez(folder / "x.npz", x=structured(names))
    else:
        comments = {"csv": "", "commented csv": "# "}[kind]
        np.savetxt(folder / "x.csv", columns(names), delimiter=",", header=",".join(names), comments=comments)
    return folder / f"x.{kind.split()[-1]}"


KINDS = ["npy", "npz", "csv", "commented csv"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["abc", "bca"])
def test_columns_are_put_in_the_network_s_order(tmp_path, kind, order):
    path = written(tmp_path, kind, order)
    assert np.array_equal(read_inputs(path, 3, NAMES), VALUES)
    assert np.array_equal(read_inputs(path, 3), columns(order))


@pytest.mark.parametrize("kind", KINDS)
def test_other_names_are_an_error_that_tells_the_difference(tmp_path, kind):
    path = written(tmp_path, kind, "abc")
    message = f"{path} has other names than the network: missing: 'd'; unexpected: 'b'"
    with pytest.raises(CommandError, match=f"^{re.escape(message)}$"):
        read_inputs(path, 3, ("a", "c", "d"))


def test_a_missing_column_is_named(tmp_path):
    path = csv_file(tmp_path, "a,c", "1,2")
    with pytest.raises(CommandError, match=r"missing: 'b'$"):
        read_inputs(path, 3, NAMES)
    path = csv_file(tmp_path, "a,b,c,b", "1,2,3,4")
    with pytest.raises(CommandError, match=r"more than once: 'b'$"):
        read_inputs(path, 3, NAMES)


def test_spaces_and_quotes_are_no_part_of_a_name(tmp_path):
    path = csv_file(tmp_path, '"c", a ,b', "3,1,2")
    assert np.array_equal(read_inputs(path, 3, NAMES), [[1, 2, 3]])


@pytest.mark.parametrize("names", [("0", "1", "2"), ("2001", "2002", "2003"), ("0.5", "1.0", "-2")])
def test_numbers_that_are_the_network_s_names_are_names(tmp_path, names):
    path = csv_file(tmp_path, ",".join(names[::-1]), "3,2,1")
    assert np.array_equal(read_inputs(path, 3, names), [[1, 2, 3]])
    path = csv_file(tmp_path, ",".join(names))
    assert read_inputs(path, 3, names).shape == (0, 3)


@pytest.mark.parametrize("start", [0, 1995])
@pytest.mark.parametrize("names", [None, NAMES])
def test_a_long_line_that_counts_up_is_names(tmp_path, start, names):
    first = ",".join(str(start + i) for i in range(8))
    path = csv_file(tmp_path, first, ",".join("12345678"))
    if start and names:
        with pytest.raises(CommandError, match="unexpected: '1995', '1996', '1997' and 5 more"):
            read_inputs(path, 8, names)
        return
    assert np.array_equal(read_inputs(path, 8, names), [range(1, 9)])


@pytest.mark.parametrize("first", ["0,1", "0,1,2", "2001,2002,2003", "0,1,2,3,4,5,6"])
def test_a_short_line_that_counts_up_is_an_error_where_lines_follow(tmp_path, first):
    size = first.count(",") + 1
    path = csv_file(tmp_path, first, ",".join(["0.5"] * size))
    with pytest.raises(
        CommandError, match=r"its first line may be names or a sample: .*; remove it, or write \d+\.0"
    ):
        read_inputs(path, size)
    path = csv_file(tmp_path, re.sub(r"^(\d+)", r"\1.0", first), ",".join(["0.5"] * size))
    assert len(read_inputs(path, size)) == 2
    path = csv_file(tmp_path, first)
    assert np.array_equal(read_inputs(path, size), [[int(entry) for entry in first.split(",")]])


@pytest.mark.parametrize(
    "first", ["1,2,3", "0,0,1", "0.0,1,2", "2,1,0", "0,1,3", "1850,1851,1852", "-1,0,1", "nan,1,2", "00,1,2"]
)
def test_other_numbers_are_a_sample(tmp_path, first):
    path = csv_file(tmp_path, first, "4,5,6")
    expected = [[float(entry) for entry in first.split(",")], [4, 5, 6]]
    assert np.array_equal(read_inputs(path, 3, NAMES), expected, equal_nan=True)


def test_one_column_of_numbers_has_no_names(tmp_path):
    assert np.array_equal(read_inputs(csv_file(tmp_path, "0", "1"), 1), [[0], [1]])


@pytest.mark.parametrize("first", ["1,two,3", "1,,3", ",0,1", "total,2001,2002"])
def test_numbers_and_words_in_the_first_line_are_an_error(tmp_path, first):
    path = csv_file(tmp_path, first, "4,5,6")
    with pytest.raises(CommandError, match="its first line has words and numbers: "):
        read_inputs(path, 3)
    assert np.array_equal(read_inputs(path, 3, first.split(",")), [[4, 5, 6]])


def test_a_comment_is_no_sample_and_no_names(tmp_path):
    for first in ("# made on a Monday", "# 0.5,0.5,0.5,0.5", "#"):
        path = csv_file(tmp_path, first, "4,5,6")
        assert np.array_equal(read_inputs(path, 3, NAMES), [[4, 5, 6]])


def test_names_without_samples_are_no_samples(tmp_path):
    path = csv_file(tmp_path, "b,c,a", "")
    assert read_inputs(path, 3, NAMES).shape == (0, 3)
    with pytest.raises(CommandError, match="missing: 'd'; unexpected: 'b'"):
        read_inputs(path, 3, ("a", "c", "d"))


def test_what_is_no_field_of_numbers_is_told(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(2, [("a", "f8"), ("b", "U3")]))
    with pytest.raises(CommandError, match="has the field 'b' of dtype <U3, expected real numbers"):
        read_inputs(tmp_path / "x.npy", 2)


def test_a_line_that_is_too_long_is_told(tmp_path):
    with pytest.raises(CommandError, match=r"cannot read .*: field larger than"):
        read_inputs(csv_file(tmp_path, "a" * 200_000, "1"), 1)


def test_commands_put_columns_in_the_network_s_order(tmp_path, capsys):
    net = fastjac.Network([(np.diag([1.0, 10.0, 100.0]), None)], head="tanh", input_names=NAMES)
    fastjac.save(net, tmp_path / "net.npz")
    path, out = csv_file(tmp_path, "c,a,b", "0.003,0.1,0.02"), tmp_path / "out.npz"
    assert main(["jacobian", str(tmp_path / "net.npz"), str(path), "-o", str(out)]) == 0
    with np.load(out) as arrays:
        np.testing.assert_allclose(arrays["y"], np.tanh([[0.1, 0.2, 0.3]]))
    path = csv_file(tmp_path, "a,b,c", "0.1,0.02,0.003", "1,2,nan")
    assert main(["check", str(tmp_path / "net.npz"), str(path)]) == 2
    assert "x[2] is nan" in capsys.readouterr().err
    path = csv_file(tmp_path, "c,a,b", "0.003,0.1,0.02", "nan,1,2")
    assert main(["check", str(tmp_path / "net.npz"), str(path)]) == 2
    assert "x[2] is nan" in capsys.readouterr().err
