from __future__ import annotations

from html import unescape

import numpy as np
import pytest

from llmrec import Edit, InterestEngine
from llmrec.data.readers import read_table
from llmrec.errors import EditError
from llmrec.explain.facts import history_shares
from llmrec.explain.next_counts import next_counts
from llmrec.person_hindsight import find_window
from llmrec.person_html import render_chart_frame
from llmrec.person_list import ListView
from llmrec.person_view import PersonView
from tests.test_engine import frame

CUTOFF = np.datetime64("2020-02-26", "D")


@pytest.fixture(scope="module")
def engine() -> InterestEngine:
    dataset = read_table(frame(), name="small", period="7D")
    return InterestEngine.from_pretrained(data=dataset, model=None, cutoff=CUTOFF)


def test_a_view_has_the_numbers_of_its_session(engine: InterestEngine) -> None:
    session = engine.session("u005", edits=[Edit("War", 2.0)])
    view, names = PersonView.of(session, 5), session.history.catalog.categories
    for one in view.categories:
        c = names.index(one.name)
        assert one.past == history_shares(session.history)[c]
        assert one.expected == session.forecast.category_weights[c]
        assert one.edited == session.edited_forecast.category_weights[c]
        assert one.low < one.expected < one.high
        assert one.observed is None
    assert [row.title for row in view.ranked.rows] == [r.title for r in session.recommend(5)]
    assert view.description == session.forecast.description


def test_a_timeline_has_a_share_of_each_category_and_period(engine: InterestEngine) -> None:
    session = engine.session("u005")
    timeline = PersonView.of(session).timeline
    counts = session.history.category_counts
    first = int(np.flatnonzero(counts.any(axis=1))[0])
    assert len(timeline.days) == len(counts) - first + 1
    shares = counts[first:] / counts[first:].sum(axis=1, keepdims=True)
    names = [session.history.catalog.categories.index(name) for name in timeline.names]
    found = np.array(timeline.shares, dtype=float)
    np.testing.assert_allclose(found, shares[:, names].T)


def test_reasons_are_those_of_the_recommendations(engine: InterestEngine) -> None:
    session = engine.session("u005")
    rows = ListView.of(session, 5, reasons=True).rows
    assert [row.why for row in rows] == [one.why for one in session.recommend(5)]
    assert {row.why for row in ListView.of(session, 5).rows} == {""}


def test_a_list_says_how_it_moved_from_the_list_of_another_session(engine: InterestEngine) -> None:
    plain = engine.session("u005")
    newest = plain.history.item_idx[-3:]
    without = engine.session(plain.history.without_items(newest))
    before = [one.item_id for one in plain.recommend(10)]
    view = ListView.of(without, 10, before=plain)
    for row in view.rows:
        old = before.index(row.item_id) + 1 if row.item_id in before else 0
        assert row.move == ("" if old == row.rank else f"was {old}" if old else "new")
    assert view.settings == "The list as forecast."


def test_hindsight_compares_with_the_period_that_came(engine: InterestEngine) -> None:
    whole = read_table(frame(), name="small", period="7D")
    session = engine.session("u005")
    window = find_window(whole, session.history)
    assert window is not None
    assert window.target.period.start == CUTOFF
    view = PersonView.of(session, window=window)
    assert view.hindsight is not None
    assert view.hindsight.n_events == window.target.n_events
    counts = window.target.category_counts
    names = session.history.catalog.categories
    for one in view.categories:
        c = names.index(one.name)
        assert one.observed == pytest.approx(counts[c] / counts.sum())
    n, shown = window.target.n_events, [names.index(one.name) for one in view.categories]
    _, intervals = next_counts(session.history, session.forecast, np.array(shown), n=n)
    inside = [i.low <= counts[c] <= i.high for i, c in zip(intervals, shown, strict=True)]
    assert (view.hindsight.n_inside, view.hindsight.n_intervals) == (sum(inside), len(inside))
    taken = {one.item_id for one in view.hindsight.taken}
    assert view.hindsight.hits == {r.item_id for r in view.ranked.rows} & taken


def test_edits_that_cannot_be_applied_are_an_error_of_the_view(engine: InterestEngine) -> None:
    edits = [Edit(name, 0.0) for name in engine.dataset.catalog.categories]
    with pytest.raises(EditError, match="no category is left"):
        PersonView.of(engine.session("u005", edits=edits))


def test_the_chart_of_a_notebook_asks_for_nothing_and_escapes_names() -> None:
    rows = frame()
    rows["categories"] = rows["categories"].replace("War", "<img src=x>")
    engine = InterestEngine.from_pretrained(
        data=read_table(rows, name="small", period="7D"), model=None, cutoff=CUTOFF
    )
    shown = render_chart_frame(PersonView.of(engine.session("u005")).timeline)
    assert 'sandbox="allow-scripts"' in shown
    assert "default-src &#39;none&#39;" in shown
    assert "<img" not in shown
    assert "<script src" not in unescape(shown)
    assert "<link" not in unescape(shown)
