"""docs/batches.md says what is so."""

import re

import numpy as np

from support.markdown import blocks, read, section

TEXT = read("docs/batches.md")


def test_the_blocks_run_one_after_the_other():
    names = {}
    for heading in ("Batches", "Results larger", "Summaries"):
        for block in blocks(section(TEXT, heading), "python"):
            exec(block, names)
    assert names["jac"].shape == (1000 % 256, 10, 64)
    assert names["largest"] == np.abs(names["net"].jacobian(names["x"])).max()
    assert names["importance"].shape == (10, 64)
    assert names["stiffest"] in range(1000)
    np.testing.assert_allclose(
        names["in_units_of_spread"], names["importance"] * names["x"].std(axis=0), rtol=1e-12
    )


def test_the_table_names_every_reduction():
    from fastjac.batches.sensitivity import MEANS, NORMS

    assert re.findall(r'^\| `"(\w+)"` \|', TEXT, re.MULTILINE) == [*MEANS, *NORMS]
