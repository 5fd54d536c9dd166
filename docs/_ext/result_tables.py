"""The directive ``results``: a table or a sentence of benchmarks/results, made at build time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from benchmarks.harness.engine_tables import cost_table
from benchmarks.harness.formatting import render_table
from benchmarks.harness.front_page import forecast_block, ranking_block
from benchmarks.harness.labels import QUICK
from benchmarks.harness.new_item_tables import launch_table
from benchmarks.harness.summaries import (
    MISSING,
    edit_and_explanation_summary,
    ranking_speed_summary,
)


def keep_rows(table: str, keep: Callable[[str], bool]) -> str:
    """Give a table in Markdown with some of its rows."""
    header, rule, *rows = table.strip().splitlines()
    return "\n".join([header, rule, *filter(keep, rows)])


def keep_columns(table: str, titles: Sequence[str]) -> str:
    """Give a table in Markdown with the columns of these titles."""
    header, _, *rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    places = [header.index(title) for title in titles]
    return render_table(titles, [[row[place] for place in places] for row in rows])


def new_item_table() -> str:
    """Give what ranks the shelves of the last periods."""
    table = keep_rows(launch_table(), lambda row: ", test |" in row)
    columns = ["shelves", "people", "Random", "TextPopularity", "TitleKernel", QUICK]
    return keep_columns(table, columns)


BUILDERS: dict[str, Callable[[], str]] = {
    "forecasts": forecast_block,
    "rankings": ranking_block,
    "new-items": new_item_table,
    "engines": lambda: keep_rows(cost_table(), lambda row: f"| {MISSING} |" not in row),
    "explanations": edit_and_explanation_summary,
    "speed": ranking_speed_summary,
}


class ResultTable(SphinxDirective):
    """``{results} NAME``: what the builder of a name makes of the result files."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Parse what the builder makes, as part of the page."""
        self.env.note_reread()  # result files may change while the page does not
        return self.parse_text_to_nodes(BUILDERS[self.arguments[0]]())


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive."""
    app.add_directive("results", ResultTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
