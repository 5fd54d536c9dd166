from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llmrec.data.periods import Window
from llmrec.evaluation.track_record import realized_claims, statement_precision
from llmrec.explain.describe import describe_from_claims, supported_claims
from llmrec.explain.facts import history_shares, observed_forecast
from llmrec.forecast import STATEMENT_KINDS, Forecast, Statement
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.language.grammar import PHRASES_BY_KIND
from tests.worlds import small_world

EVERYTHING = {(kind, c): PHRASES_BY_KIND[kind][0] for kind in STATEMENT_KINDS for c in range(5)}


@pytest.fixture
def windows() -> list[Window]:
    return small_world(n_users=10)


def count_forecasts(windows: list[Window]) -> list[Forecast]:
    return DecayedDirichlet().forecast([window.history for window in windows])


def test_shown_statements_are_true_and_rejected_claims_count_against_the_model(
    windows: list[Window],
) -> None:
    described = [
        describe_from_claims(window.history, forecast, EVERYTHING, n_unparsed=1)
        for window, forecast in zip(windows, count_forecasts(windows), strict=True)
    ]
    found = statement_precision(windows, described)
    accepted = sum(forecast.source.proposed for forecast in described)
    assert found.shown == 1.0
    assert found.n_statements == sum(len(forecast.statements) for forecast in described)
    assert found.proposed == pytest.approx(accepted / found.n_claims)
    assert 0 < found.proposed < 0.5
    assert 0 < found.came_true < 1


def test_a_false_statement_that_is_shown_is_counted(windows: list[Window]) -> None:
    (forecast,) = count_forecasts(windows[:1])
    false = replace(forecast, statements=(Statement("rising", 0, 0.9),))
    assert statement_precision(windows[:1], [false]).shown == 0.0


def test_statements_of_the_observed_forecast_come_true(windows: list[Window]) -> None:
    described = [
        describe_from_claims(window.history, observed_forecast(window), {}) for window in windows
    ]
    found = statement_precision(windows, described)
    assert found.came_true == found.shown == 1.0


def test_without_claims_there_is_no_precision(windows: list[Window]) -> None:
    found = statement_precision(windows, count_forecasts(windows))
    assert found.n_claims == found.n_statements == 0
    assert np.isnan([found.proposed, found.shown, found.came_true]).all()


def test_claims_come_true_where_the_next_period_meets_their_conditions(
    windows: list[Window],
) -> None:
    for window in windows:
        assert all(realized_claims(window, supported_claims(window)))
        change = observed_forecast(window).category_weights - history_shares(window.history)
        realized = realized_claims(window, [("rising", category) for category in range(5)])
        assert not (np.array(realized) & (change < 0)).any()
