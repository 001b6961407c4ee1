"""The documentation site: ``python3 tools/in_venv.py sphinx-build -W docs build/html``."""

import os
import sys
from pathlib import Path

import fastjac

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))
os.environ["COLUMNS"] = "80"  # of help texts

project = "fastjac"
author = "the fastjac authors"
project_copyright = author
version = release = fastjac.__version__

extensions = [
    "executed_blocks",
    "internal_links",
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_design",
]
exclude_patterns = ["_extensions"]
nitpicky = False

# Every cell of every page is run at each build, in a folder of its own, and an error ends the build.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True
nb_output_stderr = "remove"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's sections state them in words
autosummary_generate = False
default_role = "autolink"
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = "fastjac"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {"index": [], "tutorial": [], "changelog": []}
html_theme_options = {
    "logo": {"text": "fastjac"},
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
}
