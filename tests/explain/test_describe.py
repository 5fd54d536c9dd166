from __future__ import annotations

from llmrec.explain.describe import STATEMENTS, described
from llmrec.explain.statements import check, derive
from llmrec.forecasters.counting import DecayedDirichlet
from tests.worlds import small_world


def test_a_description_says_only_what_the_checker_supports() -> None:
    for window in small_world(n_users=15):
        (forecast,) = DecayedDirichlet().forecast([window.history])
        lies = [(kind, category) for kind in ("rising", "fading", "new") for category in range(5)]
        told = described(window.history, forecast, lies, unread=2)  # type: ignore[arg-type]
        assert len(told.statements) <= STATEMENTS
        assert all(check(statement, window.history, told) is None for statement in told.statements)
        assert told.description


def test_what_the_model_wrote_and_the_checker_refused_is_counted() -> None:
    (window,) = small_world(n_users=1)
    (forecast,) = DecayedDirichlet().forecast([window.history])
    refused = [
        ("new", category)
        for category in range(5)
        if window.history.category_counts[:, category].any()
    ]
    told = described(window.history, forecast, refused, unread=3)  # type: ignore[arg-type]
    assert told.source.rejected == len(refused) + 3
    assert told.source.proposed == 0
    assert told.statements == derive(window.history, forecast, limit=STATEMENTS)


def test_a_true_claim_of_the_model_comes_first() -> None:
    for window in small_world(n_users=15):
        (forecast,) = DecayedDirichlet().forecast([window.history])
        *_, last = derive(window.history, forecast) or [None]
        if last is not None:
            told = described(window.history, forecast, [(last.kind, last.category)])
            assert told.statements[0] == last
            assert told.source.proposed == 1
            assert told.source.rejected == 0


def test_a_history_without_events_is_described_without_a_claim_about_the_past() -> None:
    (window,) = small_world(n_users=1, empty=True)
    (forecast,) = DecayedDirichlet().forecast([window.history])
    told = described(window.history, forecast, [("rising", 0), ("fading", 1), ("returning", 2)])
    assert told.source.rejected == 3
    assert {statement.kind for statement in told.statements} <= {"new"}
