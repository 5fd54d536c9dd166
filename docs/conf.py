"""Settings of the documentation site: `make docs` builds it, without a network."""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
# Results come from benchmarks/, which is not installed with the package.
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

from llmrec.data.versions import __version__  # noqa: E402

project, author, copyright = "llmrec", "the llmrec developers", "the llmrec developers"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "outside_links",
    "result_tables",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4  # links to headings, as GitHub has them
highlight_language = "none"  # of blocks without a language: commands, and what they print

default_role = "py:obj"  # names in single backticks
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"llmrec {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_sphinx = False

# A misspelt error or page is found; types of other libraries, and names that are not public, have
# no page to link to.
nitpicky = True
nitpick_ignore_regex = [(r"py:(class|obj|data)", ".*")]


def _keep_property_text(
    app: Sphinx, what: str, name: str, found: object, options: object, lines: list[str]
) -> None:
    """Keep napoleon from taking the words before a property's first colon for its type."""
    if what in {"attribute", "property"}:
        lines[:0] = [".. the text", ""]  # a comment: it is not shown


def setup(app: Sphinx) -> None:
    """Have docstrings changed before napoleon reads them."""
    app.connect("autodoc-process-docstring", _keep_property_text, priority=400)
