from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmrec.explain.causes import format_ordinal
from llmrec.explain.explanation import Explanation, explain_ranked_item
from llmrec.explain.explanation_page import (
    causes_figure,
    render_explanation_html,
    save_explanation,
)
from tests.explain.test_causes import people, rankers

pytest.importorskip("matplotlib")


def explanation(place: int = 0) -> Explanation:
    history, forecast = people()[0]
    removal, rerank = rankers(history, forecast, "allow")
    item = int(rerank(()).item_idx[place])
    return explain_ranked_item(item, rerank, 5, history, forecast, (), removal)


def texts(found: Explanation) -> str:
    from matplotlib.text import Text

    return "\n".join(str(text.get_text()) for text in causes_figure(found).findobj(Text))


def test_the_figure_has_a_bar_and_a_rank_for_each_past_item_that_lifts() -> None:
    found = explanation()
    assert found.lifting
    shown = texts(found)
    for one in found.lifting:
        assert one.latest.title in shown
        assert f"without it {format_ordinal(one.rank_without)}" in shown


def test_the_page_says_what_the_explanation_says_and_escapes_titles() -> None:
    found = explanation(1)
    page = render_explanation_html(found)
    assert found.item
    for text in (found.item.title, found.item.text.replace("'", "&#39;"), "What would change it"):
        assert text in page
    for line in found.against:
        assert line in page
    assert "<svg" in page


def test_an_item_of_nobodys_past_has_a_figure_that_says_so(tmp_path: Path) -> None:
    history, forecast = people()[0]
    nobody = history.without_items(history.item_idx)
    removal, rerank = rankers(nobody, forecast, "allow")
    item = int(rerank(()).item_idx[0])
    found = explain_ranked_item(item, rerank, 5, nobody, forecast, (), removal)
    assert found.past == ()
    assert "nothing of this person's own past that was tried lifts it" in texts(found)
    assert "<svg" not in render_explanation_html(found)
    for name in ("why.png", "why.html"):
        save_explanation(found, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 500


def test_an_item_that_may_not_be_listed_has_a_page_with_the_reason() -> None:
    history, forecast = people()[0]
    removal, rerank = rankers(history, forecast, "exclude")
    taken = int(np.unique(history.item_idx)[0])
    found = explain_ranked_item(taken, rerank, 5, history, forecast, (), removal)
    page = render_explanation_html(found)
    assert "cannot be on the list" in page
    assert "it may not be listed" in texts(found)
