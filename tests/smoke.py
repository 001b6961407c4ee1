"""A minute with an installed fastjac: the demonstration, a network, a file, attributions, C.

    python tests/smoke.py

Run it where the source tree is not on the path: it needs nothing but the package.
"""

import subprocess
import sys
import tempfile
from importlib import metadata, resources
from pathlib import Path

import numpy as np

import fastjac
from fastjac import explain
from fastjac.kernels import machine_code


def main() -> None:
    """Raise an error if the installation does not work."""
    assert fastjac.__version__ == metadata.version("fastjac")
    assert "site-packages" in fastjac.__file__, fastjac.__file__
    subprocess.run([sys.executable, "-m", "fastjac"], check=True)

    rng = np.random.default_rng(0)
    w1, w2 = rng.normal(size=(50, 20)) / 7, rng.normal(size=(20, 5)) / 4
    for dtype in ("float32", "float64"):
        net = fastjac.Network([(w1, np.zeros(20)), (w2, np.zeros(5))], dtype=dtype)
        x = rng.normal(size=(300, 50))
        assert fastjac.check_jacobian(net, x[:5])
        one, two = (net.value_and_jacobian(x, threads=threads) for threads in (1, 2))
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))

    # The wheel ships machine code for this processor: nothing was compiled so far.
    assert machine_code.shipped_file(net.dtype) is not None
    assert "numba" not in sys.modules
    digits = fastjac.load(resources.files("fastjac") / "data" / "digits.npz")
    assert digits.n_inputs == 64
    shares = explain.integrated_gradients(net, x[0], steps=500)
    assert abs(shares.completeness).max() < 1e-2
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.npz")
        fastjac.save(net, path)
        assert np.array_equal(fastjac.load(path)(x), net(x))
        subprocess.run([sys.executable, "-m", "fastjac", "export", str(path), "-o", folder], check=True)
        assert Path(folder, "net.o").stat().st_size
    print("fastjac", fastjac.__version__, "works on Python", sys.version.split()[0])


if __name__ == "__main__":
    main()
