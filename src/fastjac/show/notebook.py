"""The live page as a notebook's widget."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

import anywidget
import traitlets

from fastjac.network import Network
from fastjac.show.answers import Answers

_FILES = resources.files(__package__)


class Live(anywidget.AnyWidget):
    """A drawing or sliders, and beside them what a network says and how each input moves it, in a notebook.

    Parameters
    ----------
    net : Network
        Its names, where it has any, are those that are shown.
    shape : (rows, columns), optional
        The inputs are a picture's pixels, to be drawn; default: a slider for each.
    ranges : (low, high) or sequence of (low, high), optional
        Between which numbers all inputs move, or each. Default: 0 and 1 of a picture, else -3 and 3.
    fit : bool
        Whether a drawing is first scaled to fill the picture.

    Raises
    ------
    ValueError
        If a shape or the number of ranges does not fit the network.
    """

    _esm = (_FILES / "page.js").read_text("utf-8")
    _css = (_FILES / "page.css").read_text("utf-8")
    page = traitlets.Unicode().tag(sync=True)
    description = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        net: Network,
        shape: tuple[int, int] | None = None,
        ranges: Sequence[Any] | None = None,
        *,
        fit: bool = False,
    ) -> None:
        answers = Answers(net, shape, ranges, fit)
        html = (_FILES / "page.html").read_text("utf-8")
        page = re.search("<main.*</main>", html, re.DOTALL)
        assert page is not None
        super().__init__(page=page[0], description=answers.description)

        def answer(_: object, content: object, buffers: list[Any]) -> None:
            self.send({}, [answers.answer(answers.read(bytes(buffers[0])))])

        self.on_msg(answer)
