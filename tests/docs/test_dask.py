"""The recipe for Dask, on a cluster of processes."""

import os

import numpy as np
import pytest

import fastjac
from support.cluster_scripts import inputs, network, run
from support.markdown import blocks, read, section

pytest.importorskip("dask.array")
pytest.importorskip("distributed")


@pytest.mark.filterwarnings("ignore")  # Dask's own
def test_the_recipe_as_documented(tmp_path):
    import dask.array as da

    (recipe,) = blocks(section(read("docs/batches.md"), "Dask"), "python")
    (tmp_path / "recipe.py").write_text(recipe)
    fastjac.save(network(), tmp_path / "model.npz")
    da.to_npy_stack(tmp_path / "x", da.from_array(inputs(), chunks=(500, -1)))
    run(tmp_path, "recipe.py")
    jac = da.from_npy_stack(tmp_path / "jac").compute()
    np.testing.assert_allclose(jac, network().jacobian(inputs()), rtol=1e-10, atol=1e-13)


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_a_worker_killed_in_the_middle_costs_nothing(tmp_path):
    assert run(tmp_path, "-m", "support.cluster_scripts", "dask") == "complete\n"


def test_fastjac_does_not_import_it():
    code = "import sys, fastjac; fastjac.load; print(any(name in sys.modules for name in ('dask', 'ray')))"
    assert run(None, "-c", code) == "False\n"
