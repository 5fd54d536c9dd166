"""Links of a page to files outside of docs/: on the site to a page that shows it, or to a copy."""

from __future__ import annotations

import re

from sphinx.application import Sphinx

SHOWN_ON = {"../finetune/README.md": "recipes.md", "../prompts/README.md": "prompts.md"}
OUTSIDE = re.compile(r"\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)")


def _on_site(link: re.Match[str]) -> str:
    """Give a link as the site has it: to a heading of a copied file it is to the whole file."""
    path, heading = link.group(1), link.group(2) or ""
    return f"]({SHOWN_ON[path]}{heading})" if path in SHOWN_ON else f"](path:{path})"


def rewrite_links(app: Sphinx, name: str, source: list[str]) -> None:
    """Rewrite the links of one page's source."""
    source[0] = OUTSIDE.sub(_on_site, source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Have the pages rewritten when they are read."""
    app.connect("source-read", rewrite_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
