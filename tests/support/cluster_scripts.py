"""What the tests of clusters run in a process of its own: ``python -m support.cluster_scripts NAME``."""

import functools
import os
import signal
import subprocess
import sys

import numpy as np

from support.oracles import Case

SAMPLES, FATAL = 4000, 2500


def run(folder, *command):
    """Run Python in a folder, in a process of its own; return what it printed."""
    result = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=500, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def network():
    return Case((50, 60, 10)).network()


def inputs():
    """Samples whose first entry is their number."""
    x = np.random.default_rng(0).standard_normal((SAMPLES, 50))
    x[:, 0] = np.arange(SAMPLES) / SAMPLES
    return x


def dying_once(net, x):
    """Kill this process the first time that one certain sample comes."""
    if x.size and (x[:, 0] == FATAL / SAMPLES).any():
        try:
            os.close(os.open("died", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    return net.value_and_jacobian(x)


def assert_complete(y, jac):
    assert os.path.exists("died")
    expected = network().value_and_jacobian(inputs())
    for got, right in zip((y, jac), expected, strict=True):
        assert got.shape == right.shape
        np.testing.assert_allclose(got, right, rtol=1e-10, atol=1e-13)
    print("complete")


def dask():
    import dask
    import dask.array as da
    from dask.distributed import Client, LocalCluster

    net = network()
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster):
        x = da.from_array(inputs(), chunks=(200, -1))
        y, jac = da.apply_gufunc(
            functools.partial(dying_once, net),
            "(n)->(m),(m,n)",
            x,
            output_dtypes=(net.dtype, net.dtype),
            output_sizes={"m": net.n_outputs},
        )
        y, jac = dask.compute(y, jac)
    assert_complete(y, jac)


def ray():
    import ray

    folder = os.getcwd()

    def jacobians(batch, net):
        os.chdir(folder)
        y, jac = dying_once(net, batch["data"])
        return batch | {"y": y, "jac": jac}

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
    samples = ray.data.from_numpy(np.split(inputs(), 20))
    results = samples.map_batches(
        jacobians, fn_kwargs={"net": network()}, batch_size=200, batch_format="numpy"
    )
    rows = sorted(results.take_all(), key=lambda row: row["data"][0])
    assert_complete(np.stack([row["y"] for row in rows]), np.stack([row["jac"] for row in rows]))


if __name__ == "__main__":
    {"dask": dask, "ray": ray}[sys.argv[1]]()
