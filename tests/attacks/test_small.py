"""The attacks at a small scale; CONTRIBUTING.md has the command for the full one."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and POSIX signals")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("files", {"count": 300}),
        ("guard", {"count": 50}),
        ("networks", {"count": 60}),
        ("handles", {"count": 10}),
        ("threads", {"seconds": 3}),
        ("interrupts", {"count": 100, "seconds": 1}),
    ],
)
def test_a_small_attack_finds_nothing(name, options):
    if name == "files":
        for package in ("onnx", "h5py", "safetensors"):
            pytest.importorskip(package)
    arguments = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    done = subprocess.run(
        [sys.executable, "-m", f"attacks.{name}", *arguments], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no violation" in done.stdout
