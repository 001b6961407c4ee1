"""The site runs the blocks of its pages and looks up its links."""

import json
import runpy

import pytest

from support.markdown import ROOT

EXTENSIONS = ROOT / "docs" / "_extensions"
PAGE = """# A page

```python
1 + 1
```

<!-- remove-cell
hidden = 2
-->

```sh
true
```

```bash
never
```
"""


def test_a_page_s_blocks_are_cells():
    as_notebook = runpy.run_path(str(EXTENSIONS / "executed_blocks.py"))["as_notebook"]
    cells = as_notebook(PAGE)
    assert cells.startswith("---\nfile_format: mystnb\n")
    assert "```{code-cell} python\n1 + 1\n```" in cells
    assert ":tags: [remove-cell]\n\nhidden = 2\n```" in cells
    assert "```sh\ntrue\n```" in cells
    assert "'true\\n'" in cells
    assert cells.count("never") == 1
    assert as_notebook("# No block\n") == "# No block\n"


def test_a_link_that_leads_nowhere_is_told(tmp_path):
    broken = runpy.run_path(str(EXTENSIONS / "internal_links.py"))["broken"]
    (tmp_path / "a.html").write_text(
        "<h1 id=here></h1><a href='b.html#there'></a><a href='#here'></a><a href='https://x.y/z'></a>"
    )
    (tmp_path / "b.html").write_text("<img src='c.png'><a href='a.html#gone'></a>")
    assert sorted(broken(tmp_path)) == [
        "a.html: b.html#there names no place on that page",
        "b.html: a.html#gone names no place on that page",
        "b.html: c.png is not there",
    ]


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/notebooks/*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
