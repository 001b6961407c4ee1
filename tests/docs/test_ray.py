"""The recipe for Ray Data, on a cluster of processes."""

import os

import numpy as np
import pytest

import fastjac
from support.cluster_scripts import inputs, network, run
from support.markdown import blocks, read, section

pytest.importorskip("ray.data")


def test_the_recipe_as_documented(tmp_path):
    (recipe,) = blocks(section(read("docs/batches.md"), "Ray Data"), "python")
    reading = (
        "import numpy as np\n"
        "rows = ray.data.read_parquet('results').take_all()\n"
        "names = 'data', 'y', 'jac'\n"
        "np.savez('rows.npz', **{name: np.stack([row[name] for row in rows]) for name in names})\n"
    )
    start = "import ray\nray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)\n"
    (tmp_path / "recipe.py").write_text(start + recipe + reading)
    fastjac.save(network(), tmp_path / "model.npz")
    (tmp_path / "x").mkdir()
    for number, part in enumerate(np.split(inputs(), 8)):
        np.save(tmp_path / "x" / f"{number}.npy", part)
    run(tmp_path, "recipe.py")
    rows = np.load(tmp_path / "rows.npz")
    order = np.argsort(rows["data"][:, 0])
    assert np.array_equal(rows["data"][order], inputs())
    for got, right in zip(("y", "jac"), network().value_and_jacobian(inputs()), strict=True):
        np.testing.assert_allclose(rows[got][order], right, rtol=1e-10, atol=1e-13)


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_a_worker_killed_in_the_middle_costs_nothing(tmp_path):
    assert "complete\n" in run(tmp_path, "-m", "support.cluster_scripts", "ray")
