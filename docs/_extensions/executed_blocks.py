"""Runs the blocks of a page when the site is built, so that none of them can be wrong.

Pages are plain Markdown, as other readers and the tests see it. While the site is built

- a block of ``python`` is a cell of a notebook, with its output below it;
- a block of ``sh`` is run by the shell, with its output below it;
- a block of ``c`` is written to main.c;
- ``<!-- remove-cell`` begins Python that runs and is not shown, ``<!-- remove-input`` Python of which the
  output alone is shown, both up to ``-->``.

All blocks of a page share one process and one empty folder. A block of ``bash`` is for the reader alone: a
server that does not end, or an installation.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_HEADER = """---
file_format: mystnb
kernelspec:
  name: python3
---
"""
_BLOCK = re.compile(r"^```(python|sh|c)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HIDDEN = re.compile(r"^<!-- (remove-(?:cell|input))\n(.*?)^-->$", re.MULTILINE | re.DOTALL)
_SHELL = """import subprocess
done = subprocess.run(["sh", "-ec", {!r}], capture_output=True, text=True)
print(done.stdout, end="")
assert not done.returncode, done.stderr
"""


def as_notebook(text: str) -> str:
    """Return a page with its blocks as cells."""
    cells = _HIDDEN.sub(lambda found: _cell(found[2], found[1]), _BLOCK.sub(_of_block, text))
    return text if cells == text else _HEADER + cells


def _of_block(found: re.Match[str]) -> str:
    language, code = found.groups()
    if language == "python":
        return _cell(code)
    if language == "sh":
        run = _cell(_SHELL.format(code), "remove-input")
    else:
        run = _cell(f"%%writefile main.c\n{code}", "remove-cell")
    return f"{found[0]}\n\n{run}"


def _cell(code: str, tag: str = "") -> str:
    tags = f":tags: [{tag}]\n\n" if tag else ""
    return f"```{{code-cell}} python\n{tags}{code}```"


def _read(app: Sphinx, page: str, content: list[str]) -> None:
    if app.env.doc2path(page).suffix == ".md":
        content[0] = as_notebook(content[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Let Sphinx hand over each page as it is read."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}
