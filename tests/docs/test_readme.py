"""README.md says what is so, and stays short."""

import re
import runpy

import numpy as np
import pytest

import fastjac
from fastjac.__main__ import parse
from support.markdown import ROOT, blocks, read

DOCUMENTS = ["README.md", "SECURITY.md", "CONTRIBUTING.md", *(map(str, ROOT.glob("docs/**/*.md")))]


@pytest.fixture
def text():
    return read("README.md")


def test_set_up_is_two_commands(text):
    commands = "".join(blocks(text, "sh")).splitlines()
    tests = "python3 tools/in_venv.py pytest -n 2 --dist loadfile"
    assert commands == ["python3 tools/in_venv.py python -m fastjac", tests]


@pytest.mark.parametrize(
    "command, extra",
    [("python -m fastjac", ""), ("pytest", "test"), ("sphinx-build -W docs build/html", "docs")],
)
def test_each_command_gets_what_it_needs(command, extra):
    assert runpy.run_path(str(ROOT / "tools" / "in_venv.py"))["extra"](command.split()) == extra


def test_it_has_at_most_120_lines(text):
    assert len(text.splitlines()) <= 120


def test_example_has_six_lines_and_runs_as_printed(text, capsys):
    (example,) = blocks(text, "python")
    assert len([line for line in example.splitlines() if line]) == 6
    names = {}
    exec(example, names)
    assert names["y"].shape == (10,)
    assert names["jac"].shape == (10, 500)
    np.testing.assert_allclose(names["jac"].sum(axis=0), 0, atol=1e-14)
    assert "agrees" in capsys.readouterr().out


def test_its_commands_are_commands(text):
    calls = re.findall(r"^fastjac (.*)$", "".join(blocks(text, "bash")), re.MULTILINE)
    assert [parse(call.split()).module for call in calls] == ["fastjac.commands.compare"]


def test_its_links_lead_to_files(text):
    links = re.findall(r"\]\(([^)#]+)", text)
    assert len(links) > 10
    assert not [link for link in links if not (ROOT / link).exists()]


def test_every_figure_is_measured(text):
    figures = runpy.run_path(str(ROOT / "tools" / "readme_figures.py"))
    labels = ["the limit", "**fastjac**", *figures["PEERS"].values(), *figures["SHAPES"]]
    for label in labels:
        (row,) = re.findall(rf"^\| {re.escape(label)} \|(.*)\|$", text, re.MULTILINE)
        cells = [cell.strip() for cell in row.split("|")]
        assert len(cells) == 4
        assert all(cells)


def test_all_sources_are_named(text):
    sources = {name for name in fastjac.__all__ if name.startswith("from_")}
    assert not [name for name in sources if name not in text]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_nothing_is_installed_from_an_index(name):
    assert not re.search("pip install +'?fastjac", read(name))
