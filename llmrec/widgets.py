"""Sliders for notebooks: a person's interests, the strength of the tilt, and the list they give."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, StrictUndefined

from llmrec.errors import MissingExtraError

try:
    import ipywidgets
except ImportError as error:
    raise MissingExtraError("sliders need ipywidgets: pip install 'llmrec[notebooks]'") from error

from llmrec.errors import EditError
from llmrec.ranking.edit_parser import edit_sentences
from llmrec.ranking.edits import Edit
from llmrec.ranking.effects import (
    NOTHING_LISTED,
    EditEffect,
    outcome_verdict,
    rank_changes,
    strength_text,
)
from llmrec.ranking.ranking import MAX_STRENGTH
from llmrec.session import UserSession

__all__ = ["EditSliders"]

MAX_SLIDER_FACTOR = 4.0  # times as much of a category
FACTOR_STEP, STRENGTH_STEP = (
    0.25,
    0.05,
)  # fitted strengths are multiples of .05: a slider can go back


class EditSliders:
    """A slider and a lock a category, a slider for the tilt, and the list, ranked as they move.

    Where no kernel runs, the cell's output shows the list as it last was when the cell ran.

    Usage, as the last line of a cell::

        EditSliders(engine.session("186"))

    Attributes
    ----------
    factors
        Category to the slider that says how many times as much of it, in [0, 4]; 0 mutes it.
    locks
        Category to the box that, ticked, holds its share at just that many times the forecast's.
    strength
        The slider of how hard the forecast tilts the list; it starts as the session's.
    """

    def __init__(
        self,
        session: UserSession,
        k: int = 10,
        *,
        n_categories: int = 6,
    ) -> None:
        """Take the forecast's largest categories; ``k`` is the length of the list."""
        if session.edits:
            raise EditError("give a session without edits: the sliders make them")
        self._session, self._k = session, k
        categories = session.history.catalog.categories
        names = [categories[c] for c in session.forecast.top(n_categories)]
        fitted = self._fitted = session.strength
        self.factors = {
            name: _make_slider(name, 1.0, MAX_SLIDER_FACTOR, FACTOR_STEP) for name in names
        }
        self.locks = {name: _make_lock() for name in names}
        highest = min(MAX_STRENGTH, max(2.0, 2 * fitted))
        self.strength = _make_slider("tilt", fitted, highest, STRENGTH_STEP)
        self._list = ipywidgets.HTML(self._render_list(), layout={"flex": "1 1 0%"})
        for moved in (*self.factors.values(), *self.locks.values(), self.strength):
            moved.observe(self._rank_again, "value")
        pairs = zip(self.factors.values(), self.locks.values(), strict=True)
        rows = [*(ipywidgets.HBox(pair) for pair in pairs), self.strength]
        aside = ipywidgets.VBox(rows, layout={"flex": "0 0 auto"})
        self.widget = ipywidgets.HBox([aside, self._list])

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The edits that the sliders give: one of each category that is locked, or not at 1."""
        edits = (
            Edit(name, slider.value, lock=self.locks[name].value)
            for name, slider in self.factors.items()
        )
        return tuple(edit for edit in edits if edit.lock or edit.factor != 1)

    @property
    def html(self) -> str:
        """The edits, the list that they give, and whether it is the predicted one."""
        return str(self._list.value)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """Give notebooks the widget, and readers without a kernel the list."""
        return {**self.widget._repr_mimebundle_(**kwargs), "text/html": self.html}

    def _rank_again(self, change: Any) -> None:
        self._list.value = self._render_list()

    def _render_list(self) -> str:
        try:
            tilt = None if self.strength.value == self._fitted else self.strength.value
            effect = self._session.edit(*self.edits, strength=tilt).effect()
        except EditError as error:
            return _render(error=str(error))
        return _render(**_page_variables(effect, self._k, self._session.history.verb))


def _make_slider(name: str, value: float, highest: float, step: float) -> Any:
    return ipywidgets.FloatSlider(
        value=value,
        min=0.0,
        max=highest,
        step=step,
        description=name,
        style={"description_width": "9em"},
    )


def _make_lock() -> Any:
    return ipywidgets.Checkbox(description="lock", indent=False, layout={"width": "5em"})


def _page_variables(effect: EditEffect, k: int, verb: str) -> dict[str, Any]:
    """Rank with the edits, and give what the page names."""
    outcome, catalog = effect.verify(k), effect.catalog
    moved = rank_changes(outcome)
    rows = [
        (rank, moved.get(item, ""), catalog.titles[item], ", ".join(catalog.categories_of(item)))
        for rank, item in enumerate(outcome.listed, start=1)
    ]
    settings = [*edit_sentences(tuple(effect.edits.values()), catalog), strength_text(effect)]
    return {
        "settings": " ".join(filter(None, settings)) or "The list as forecast.",
        "rows": rows,
        "nothing": NOTHING_LISTED.format(verb=verb),
        "gone": [catalog.titles[item] for item in outcome.left],
        "verdict": outcome_verdict(effect, outcome),
    }


def _render(**shown: Any) -> str:
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(_LIST_TEMPLATE)
    return page.render(shown)


_LIST_TEMPLATE = """{% set left = "text-align: left; padding-right: 1em" -%}
<div style="line-height: 1.5; margin-left: 1em">
{% if error is defined %}<p>{{ error }}</p>
{% else %}<p><b>{{ settings }}</b></p>
{% if not rows %}<p>{{ nothing }}</p>
{% else %}<table>
<tr>{% for name in ("rank", "", "item", "categories") %}<th style="{{ left }}">{{ name }}</th>\
{% endfor %}</tr>
{% for rank, move, title, categories in rows %}<tr><td style="{{ left }}">{{ rank }}</td>\
<td style="{{ left }}; white-space: nowrap">{{ move }}</td>\
<td style="{{ left }}">{{ title }}</td><td style="{{ left }}">{{ categories }}</td></tr>
{% endfor %}</table>
{% endif %}{% if gone %}<p>Left the list: {{ gone | join("; ") }}.</p>
{% endif %}<p><small>{{ verdict }}</small></p>
{% endif %}</div>"""
