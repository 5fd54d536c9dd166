"""How much of what is said is true: of the model's own claims, and of what is shown in the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from llmrec.contracts import Forecast, Kind
from llmrec.data.periods import Window
from llmrec.explain.statements import check
from llmrec.explain.truth import Facts, what_came


@dataclass(frozen=True)
class Precision:
    """Shares in [0, 1]; NaN where there was nothing to judge.

    Attributes
    ----------
    proposed
        Of the ``n_claims`` that the model wrote, repeats and unreadable ones included: those that
        the checker let pass.
    shown
        Of the ``n_statements`` shown after rejection: those that the checker lets pass, which must
        be all.
    came_true
        Of the statements shown: those that the true next period bears out.
    """

    n_claims: int
    n_statements: int
    proposed: float
    shown: float
    came_true: float


def precision_of_words(windows: Sequence[Window], forecasts: Sequence[Forecast]) -> Precision:
    """Judge the words of described forecasts, one a window.

    Raises
    ------
    DataError
        If no event of a target has a category.
    """
    passed, came = [], []
    for window, forecast in zip(windows, forecasts, strict=True):
        passed += [check(said, window.history, forecast) is None for said in forecast.statements]
        came += claims_that_came_true(window, [(s.kind, s.category) for s in forecast.statements])
    accepted = sum(forecast.source.proposed for forecast in forecasts)
    n_claims = accepted + sum(forecast.source.rejected for forecast in forecasts)
    return Precision(
        n_claims=n_claims,
        n_statements=len(passed),
        proposed=accepted / n_claims if n_claims else np.nan,
        shown=_mean(passed),
        came_true=_mean(came),
    )


def claims_that_came_true(window: Window, claims: Iterable[tuple[Kind, int]]) -> list[bool]:
    """Say of each (kind, category) whether the true next period meets the kind's conditions."""
    facts = Facts.of(window.history, what_came(window))
    return [bool(facts.supports(kind)[category]) for kind, category in claims]


def _mean(found: Sequence[bool]) -> float:
    return float(np.mean(found)) if found else np.nan
