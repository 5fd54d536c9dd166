"""The templates of the pages, and the chart of a person as a document of its own for notebooks."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from llmrec.explain.facts import format_percent
from llmrec.explain.printable import printable, to_json
from llmrec.person_timeline import TimelineView

CHART_FRAME_HEIGHT = 440  # pixels


@cache
def page_environment() -> Environment:
    """Give the environment that renders all pages: it escapes, and refuses what is undefined."""
    environment = Environment(
        loader=PackageLoader("llmrec", "serve/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": format_percent, "json": to_json}
    return environment


def render_page(template: str, **shown: Any) -> str:
    """Render a template; no character of the data is one that acts and does not show."""
    return printable(page_environment().get_template(template).render(shown))


def read_static(name: str) -> str:
    """Read one of the scripts and styles that come with the package."""
    return files("llmrec").joinpath("serve", "static", name).read_text(encoding="utf-8")


def render_chart_frame(timeline: TimelineView) -> str:
    """Give the page's own chart as a frame with its scripts in it, which nothing outside reaches.

    A notebook shows it as it is: the frame asks for nothing, and may only run its scripts.
    """
    document = render_page(
        "chart_frame.html",
        timeline=timeline,
        styles=[Markup(read_static(name)) for name in ("uplot.min.css", "page.css")],
        scripts=[Markup(read_static(name)) for name in ("uplot.min.js", "page.js")],
    )
    return (
        f'<iframe title="Shares by period, and their forecast" sandbox="allow-scripts" '
        f'srcdoc="{escape(document)}" width="100%" height="{CHART_FRAME_HEIGHT}" '
        'style="border: 0"></iframe>'
    )
