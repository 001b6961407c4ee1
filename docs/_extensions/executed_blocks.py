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

import re

from sphinx.application import Sphinx

_HEADER = """---
file_format: mystnb
kernelspec:
  name: python3
---
"""
_BLOCK = re.compile(r"^```(python|sh|c)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HIDDEN = re.compile(r"^<!-- (remove-(?:cell|input))\n(.*?)^-->$", re.MULTILINE | re.DOTALL)
_MAGIC = {"sh": ("remove-input", "%%script sh -e"), "c": ("remove-cell", "%%writefile main.c")}


def as_notebook(text: str) -> str:
    """Return a page with its blocks as cells."""
    cells = _HIDDEN.sub(lambda found: _cell(found[2], found[1]), _BLOCK.sub(_of_block, text))
    return text if cells == text else _HEADER + cells


def _of_block(found: re.Match[str]) -> str:
    language, code = found.groups()
    if language == "python":
        return _cell(code)
    tag, magic = _MAGIC[language]
    run = _cell(f"{magic}\n{code}", tag)
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
