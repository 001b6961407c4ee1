"""docs/embedding.md works as printed."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

import fastjac
from support.markdown import blocks, read

TEXT = read("docs/embedding.md")


def test_the_python_recipes_run_in_order(tmp_path):
    names = {}
    for number, block in enumerate(blocks(TEXT, "python")):
        file = tmp_path / f"recipe{number}.py"
        file.write_text(block)
        exec(compile(block, str(file), "exec"), names)
    assert len(names["answers"]) == 100
    np.testing.assert_array_equal(names["jac"], names["net"].jacobian(np.zeros(64)))


def test_newtons_method_gets_to_the_target():
    names = {}
    (newton,) = (block for block in blocks(TEXT, "python") if "def settle" in block)
    exec(newton, names)
    y, _ = names["model"].value_and_jacobian(names["x"])
    np.testing.assert_allclose(y, [0.3, -0.2], atol=1e-12)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_c_recipe_builds_and_agrees(tmp_path):
    rng = np.random.default_rng(0)
    net = fastjac.Network([(rng.normal(size=(8, 32)), rng.normal(size=32)), (rng.normal(size=(32, 4)), None)])
    fastjac.save(net, tmp_path / "model.npz")
    (program,) = blocks(TEXT, "c")
    (tmp_path / "main.c").write_text(program)
    commands = next(block for block in blocks(TEXT, "sh") if "main.c" in block)
    commands = commands.replace("fastjac ", f"{sys.executable} -m fastjac ", 1)
    subprocess.run(["sh", "-e", "-c", commands + "./main > printed"], cwd=tmp_path, check=True)
    y, jac = net.value_and_jacobian(np.zeros(8))
    assert list(map(float, (tmp_path / "printed").read_text().split())) == [y[0], jac[0, 0]]
