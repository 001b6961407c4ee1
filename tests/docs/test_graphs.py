"""docs/graphs.md works as printed."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import fastjac
from fastjac import graph
from support.markdown import blocks, read

TEXT = read("docs/graphs.md")


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    names, folder = {}, tmp_path_factory.mktemp("recipes")
    for number, block in enumerate(blocks(TEXT, "python")):
        file = folder / f"recipe{number}.py"  # numba wants a file.
        file.write_text(block)
        exec(compile(block, str(file), "exec"), names)
    return names


def test_every_function_is_in_the_table():
    found = set(re.findall(r"`(\w+)\(", TEXT.split("## A learned")[0]))
    assert {name for name in graph.__all__ if name not in ("Value", "select")} <= found


def test_the_first_network_adds_to_its_input(names):
    assert names["jac"].shape == (12, 16)
    assert np.abs(np.diag(names["jac"][:, :12]) - 1).max() < 0.2
    assert fastjac.check_jacobian(names["net"], np.zeros(16))


def test_the_matrices_are_those_of_the_model(names):
    model, knot = names["model"], names["trajectory"][7]
    scaled = model.value_and_jacobian(names["trajectory"])
    np.testing.assert_array_equal(scaled[0], names["nexts"])
    for n in range(6):
        moved = knot.copy()
        moved[n] += 1e-6
        column = (model(moved) - model(knot)) / 1e-6
        np.testing.assert_allclose(model.jacobian(knot)[:, n], column, atol=1e-4)
    # The rollout has written over the batch's Jacobians.
    assert (names["A"].shape, names["B"].shape) == ((50, 4, 4), (50, 4, 2))
    assert np.shares_memory(names["A"], names["jacobians"])


def test_the_rollout_is_that_of_python(names):
    model, state = names["model"], names["trajectory"][0, :4]
    assert names["succeeded"]
    for k, control in enumerate(names["controls"]):
        knot = np.concatenate((state, control))
        state, jac = model.value_and_jacobian(knot)
        np.testing.assert_array_equal(names["states"][k + 1], state)
        np.testing.assert_array_equal(names["jacobians"][k], jac)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_c_program_builds_and_agrees(names, tmp_path):
    model = names["model"]
    fastjac.save(model, tmp_path / "model.npz")
    (program,), (commands,) = blocks(TEXT, "c"), blocks(TEXT, "sh")
    (tmp_path / "main.c").write_text(program)
    commands = commands.replace("fastjac ", f"{sys.executable} -m fastjac ", 1)
    subprocess.run(["sh", "-e", "-c", commands + "./main > printed"], cwd=tmp_path, check=True)
    knot = np.zeros(6)
    for _ in range(50):
        y, jac = model.value_and_jacobian(knot)
        knot[:4] = y
    assert list(map(float, (tmp_path / "printed").read_text().split())) == [y[0], jac[0, 0]]
