"""docs/batches.md says what is so."""

import re
from pathlib import Path

import numpy as np

TEXT = (Path(__file__).parents[1] / "docs" / "batches.md").read_text(encoding="utf-8")


def blocks(heading):
    """Return the code blocks of a section."""
    section = re.split(r"^#+ ", TEXT, flags=re.MULTILINE)
    (found,) = (part for part in section if part.startswith(heading))
    return re.findall(r"^```python\n(.*?)^```$", found, re.DOTALL | re.MULTILINE)


def test_the_blocks_run_one_after_the_other():
    names = {}
    for heading in ("Batches", "Results larger", "Summaries"):
        for block in blocks(heading):
            exec(block, names)
    assert names["jac"].shape == (1000 % 256, 10, 64)
    assert names["largest"] == np.abs(names["net"].jacobian(names["x"])).max()
    assert names["importance"].shape == (10, 64)
    assert names["stiffest"] in range(1000)


def test_the_table_names_every_reduction():
    from fastjac.batches.sensitivity import MEANS, NORMS

    assert re.findall(r'^\| `"(\w+)"` \|', TEXT, re.MULTILINE) == [*MEANS, *NORMS]
