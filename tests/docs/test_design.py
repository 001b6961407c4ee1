"""docs/design.md names the package as it is; lines of documents fit beside code."""

import re

import pytest

from support.markdown import ROOT, read, section

PACKAGE = ROOT / "src" / "fastjac"
TEXT = read("docs/design.md")
PAGES = (str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))
DOCUMENTS = ["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", *PAGES]


def test_every_module_and_folder_it_names_is_there():
    named = re.findall(r"`([\w/]+(?:\.py|/))`", TEXT)
    assert len(named) > 20
    assert not [name for name in named if not ((PACKAGE / name).exists() or (ROOT / name).exists())]


def test_the_house_has_all_rooms():
    rows = re.findall(r"^\| +\d* *\| `(\w+)(?:\.py|/)` \|", section(TEXT, "The house"), re.MULTILINE)
    rooms = [path.stem for path in PACKAGE.glob("*.py")]
    rooms += [path.parent.name for path in PACKAGE.glob("*/__init__.py")]
    assert sorted(rows) == sorted(rooms)


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_lines_have_at_most_100_characters(name):
    assert not [line for line in read(name).splitlines() if len(line) > 100]
