"""Code blocks of the documentation, for the tests that run them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def section(text, heading):
    """Return the section whose heading begins with these words."""
    (found,) = (part for part in re.split(r"^#+ ", text, flags=re.MULTILINE) if part.startswith(heading))
    return found


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
