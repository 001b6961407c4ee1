"""The HTML in which notebooks show the package's objects."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

MOST_ROWS = 20


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]], below: str = "") -> str:
    """Return a title, a table and a text below it as HTML.

    Parameters
    ----------
    title, below : str
        Plain text, as all cells are: nothing in it is read as HTML.
    header : sequence of str
        Of each column.
    rows : sequence of sequence
        Cells, written by `str`. Of more than 20 rows, those in the middle are left out, and counted.
    """
    half = MOST_ROWS // 2
    shown = list(rows) if len(rows) <= MOST_ROWS else [*rows[:half], *rows[-half:]]
    lines = [_row("td", cells) for cells in shown]
    if len(shown) < len(rows):
        lines.insert(
            half, f'<tr><td colspan="{len(header)}">... {len(rows) - len(shown):,} more ...</td></tr>'
        )
    body = "".join(lines)
    return (
        f"<div><strong>{escape(title)}</strong>"
        f"<table><thead>{_row('th', header)}</thead><tbody>{body}</tbody></table>"
        f"{f'<div>{escape(below)}</div>' if below else ''}</div>"
    )


def _row(tag: str, cells: Sequence[object]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(str(cell))}</{tag}>' for cell in cells)}</tr>"
