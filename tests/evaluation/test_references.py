from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from llmrec.data.periods import Window
from llmrec.evaluation.evaluator import EvaluationResult, evaluate_forecasters, summarize
from llmrec.evaluation.references import INFORMED_PRIORS, informed_losses, split_targets
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.dispersion import Dispersion
from llmrec.forecasters.precomputed import PrecomputedForecaster
from tests.worlds import small_world

MODELS = {"counting": [DecayedDirichlet()], "mean": [DecayedDirichlet(1.0)]}


def captured(judgement: EvaluationResult) -> pd.DataFrame:
    table = summarize(judgement, reference="counting", persistence="mean")
    return table[table["metric"] == "drift_captured"].set_index("model")


def oracle(windows: Sequence[Window]) -> PrecomputedForecaster:
    targets = np.stack([window.target.category_counts for window in windows])
    weights = 0.98 * targets / targets.sum(axis=1, keepdims=True) + 0.004
    return PrecomputedForecaster.of(
        "oracle", [window.history for window in windows], weights, Dispersion()
    )


def test_the_shown_half_gets_the_weight_that_helps_most() -> None:
    weights, shown = np.array([[0.5, 0.5]]), np.array([[4.0, 0.0]])
    repeated = informed_losses(weights, shown, np.array([[3.0, 0.0]]))
    least, most = INFORMED_PRIORS[0], INFORMED_PRIORS[-1]
    assert repeated[0] == pytest.approx(-np.log((least / 2 + 4) / (least + 4)))
    reversed_ = informed_losses(weights, shown, np.array([[0.0, 3.0]]))
    assert reversed_[0] == pytest.approx(-np.log((most / 2) / (most + 4)))


def test_a_model_of_some_users_is_not_the_informed_reference_of_all() -> None:
    windows = small_world(n_users=60)
    found = evaluate_forecasters(MODELS, windows)
    few = evaluate_forecasters({"oracle": [oracle(windows[:15])]}, windows[:15])
    before, after = captured(found), captured(found.merge(few))
    pd.testing.assert_frame_equal(after.loc[before.index], before)
    assert after.loc["oracle", "n"] == 15


def test_users_of_one_basket_are_not_counted_in_what_was_captured() -> None:
    windows = small_world(n_users=20)
    short = [
        replace(window, target=replace(window.target, stop=window.target.start + 1))
        for window in windows[:6]
    ]
    _, hidden = split_targets([*short, *windows[6:]])
    assert (hidden.sum(axis=1) == 0).tolist() == [True] * 6 + [False] * 14
    assert captured(evaluate_forecasters(MODELS, [*short, *windows[6:]]))["n"].tolist() == [14, 14]
