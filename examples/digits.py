"""The digits data, and the comparison at the end of the other digits_*.py scripts."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

TOLERANCES = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-10}  # relative to the largest entry
HELD = 20  # digits that are held back, and compared


def split(dtype):
    """Return pictures (1777, 64) with grey levels from 0 to 16, their labels, and 20 pictures held back."""
    x, label = load_digits(return_X_y=True)
    x_train, x_held, label_train, _ = train_test_split(
        x.astype(dtype), label, test_size=HELD, random_state=0, stratify=label
    )
    return x_train, label_train, x_held


def compare(model, x, y, jac):
    """Run ``fastjac jacobian`` on a model's file, and compare with the results of its own framework.

    Parameters
    ----------
    model : Path
        The model's file.
    x : ndarray, (samples, 64)
        Inputs.
    y : ndarray, (samples, 10)
        Probabilities.
    jac : ndarray, (samples, 10, 64)
        Jacobians.
    """
    inputs, out = model.with_name("inputs.npy"), model.with_name("out.npz")
    np.save(inputs, x)
    command = [sys.executable, "-m", "fastjac", "jacobian", str(model), str(inputs), "-o", str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with np.load(out) as ours:
        for name, expected in (("y", y), ("jac", jac)):
            assert ours[name].dtype == x.dtype
            error = np.max(np.abs(ours[name] - expected)) / np.max(np.abs(expected))
            print(f"{model.name:24} {x.dtype}  {name:3}  relative difference {error:.1e}")
            if not error <= TOLERANCES[x.dtype]:
                raise SystemExit(f"more than {TOLERANCES[x.dtype]}")


def folder():
    """Return the folder named on the command line, by default the current one."""
    return Path(sys.argv[1] if len(sys.argv) > 1 else ".")
