"""Sliders for notebooks: a person's interests, the strength of the tilt, and the list they give.

They show the `PersonView` that the pages of `llmrec serve` show, and the same chart.
"""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, StrictUndefined

from llmrec.errors import MissingExtraError

try:
    import ipywidgets
except ImportError as error:
    raise MissingExtraError("sliders need ipywidgets: pip install 'llmrec[notebooks]'") from error

from llmrec.errors import EditError
from llmrec.person_html import render_chart_frame
from llmrec.person_list import ListView
from llmrec.person_view import FACTOR_STEP, MAX_FACTOR_SHOWN, STRENGTH_STEP, PersonView
from llmrec.ranking.edits import Edit
from llmrec.session import UserSession

__all__ = ["EditSliders"]


class EditSliders:
    """A person's chart; a slider and a lock a category, and one for the tilt; the list they give.

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
    view
        What is shown, as plain values.
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
        self.view = PersonView.of(session, k)
        self.factors = {
            name: _make_slider(name, 1.0, MAX_FACTOR_SHOWN, FACTOR_STEP) for name in names
        }
        self.locks = {name: _make_lock() for name in names}
        fitted, highest = self.view.strength, self.view.max_strength
        self.strength = _make_slider("tilt", fitted, highest, STRENGTH_STEP)
        self._list = ipywidgets.HTML(_render(self.view.ranked), layout={"flex": "1 1 0%"})
        for moved in (*self.factors.values(), *self.locks.values(), self.strength):
            moved.observe(self._rank_again, "value")
        pairs = zip(self.factors.values(), self.locks.values(), strict=True)
        rows = [*(ipywidgets.HBox(pair) for pair in pairs), self.strength]
        aside = ipywidgets.VBox(rows, layout={"flex": "0 0 auto"})
        chart = ipywidgets.HTML(render_chart_frame(self.view.timeline))
        self.widget = ipywidgets.VBox([chart, ipywidgets.HBox([aside, self._list])])

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
        is_fitted = self.strength.value == self._session.strength
        tilt = None if is_fitted else self.strength.value
        try:
            self.view = self.view.with_list(self._session.edit(*self.edits, strength=tilt), self._k)
        except EditError as error:
            self._list.value = _render(self.view.ranked, str(error))
        else:
            self._list.value = _render(self.view.ranked)


def _make_slider(name: str, value: float, highest: float, step: float) -> Any:
    return ipywidgets.FloatSlider(
        value=value,
        min=0.0,
        max=highest,
        step=step,
        description=name.translate(_NO_MATH),
        style={"description_width": "9em"},
    )


def _make_lock() -> Any:
    return ipywidgets.Checkbox(description="lock", indent=False, layout={"width": "5em"})


def _render(ranked: ListView, error: str = "") -> str:
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(_LIST_TEMPLATE)
    return page.render(ranked=ranked, error=error)


# Notebooks typeset what stands between such signs, in labels too: these look alike and do nothing.
_NO_MATH = str.maketrans("$\\", "\uff04\uff3c")
_LIST_TEMPLATE = """{% set left = "text-align: left; padding-right: 1em" -%}
<div class="tex2jax_ignore mathjax_ignore" style="line-height: 1.5; margin-left: 1em">
{% if error %}<p>{{ error }}</p>
{% else %}<p><b>{{ ranked.settings }}</b></p>
{% if not ranked.rows %}<p>{{ ranked.nothing }}</p>
{% else %}<table>
<tr>{% for name in ("rank", "", "item", "categories") %}<th style="{{ left }}">{{ name }}</th>\
{% endfor %}</tr>
{% for row in ranked.rows %}<tr><td style="{{ left }}">{{ row.rank }}</td>\
<td style="{{ left }}; white-space: nowrap">{{ row.move }}</td>\
<td style="{{ left }}">{{ row.title }}</td><td style="{{ left }}">{{ row.categories }}</td></tr>
{% endfor %}</table>
{% endif %}{% if ranked.left %}<p>Left the list: {{ ranked.left | join("; ") }}.</p>
{% endif %}<p><small>{{ ranked.verdict }}</small></p>
{% endif %}</div>"""
