"""The scripts that train a model on the digits, save it and compare `fastjac jacobian` with its framework."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS = {
    "sklearn": (),
    "torch": ("torch",),
    "onnx": ("torch", "onnxscript", "onnxruntime"),
    "keras": ("tensorflow", "keras"),
}


@pytest.mark.parametrize("name", NEEDS)
def test_same_as_the_framework(name, tmp_path):
    for module in ("sklearn", *NEEDS[name]):
        pytest.importorskip(module)
    script = str(EXAMPLES / f"digits_{name}.py")
    done = subprocess.run([sys.executable, script, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("relative difference") == 4
