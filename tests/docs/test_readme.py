"""README.md says what is so."""

import numpy as np
import pytest

from support.markdown import blocks, read


@pytest.fixture
def text():
    return read("README.md")


def test_set_up_is_two_commands(text):
    commands = "".join(blocks(text, "sh")).splitlines()
    assert commands == ["python3 tools/in_venv.py python -m fastjac", "python3 tools/in_venv.py pytest"]


def test_example_runs_as_printed(text, capsys):
    (example,) = blocks(text, "python")
    assert len([line for line in example.splitlines() if line]) == 10
    names = {}
    exec(example, names)
    assert names["y"].shape == (10,)
    assert names["jac"].shape == (10, 500)
    np.testing.assert_allclose(names["jac"].sum(axis=0), 0, atol=1e-14)
    assert "agrees" in capsys.readouterr().out
