"""The names of `fastjac`, which are imported when first used, as editors and `help` see them."""

import pydoc

import jedi
import pytest

import fastjac

WRITTEN = "import fastjac\nfastjac."


def test_an_editor_completes_every_name():
    completed = {name.name for name in jedi.Script(WRITTEN).complete()}
    assert set(fastjac.__all__) <= completed


@pytest.mark.parametrize("name", sorted(fastjac.__all__))
def test_an_editor_shows_the_docstring(name):
    shown = [found.docstring(raw=True) for found in jedi.Script(WRITTEN + name).help()]
    assert getattr(fastjac, name).__doc__.splitlines()[0] in "\n".join(shown)


def test_help_is_an_overview():
    overview = fastjac.__doc__
    assert not [name for name in fastjac.__all__ if f"`{name}`" not in overview]
    assert overview.splitlines()[0] in pydoc.render_doc(fastjac)
