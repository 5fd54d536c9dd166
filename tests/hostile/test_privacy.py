"""Forecasts do not tell who was in a fit; lists do, which docs/privacy.md says."""

from __future__ import annotations

import pytest

from llmrec import load_dataset
from llmrec.data.readers import read_table
from llmrec.evaluation.membership import attack_engines
from tests.batch.conftest import labelled, make_events
from tests.hostile.conftest import Count

MAX_AUC = 0.55


@pytest.mark.parametrize(
    "n", [pytest.param(4, id="some"), pytest.param(8, id="all", marks=pytest.mark.hostile)]
)
def test_forecasts_do_not_tell_who_was_in_a_fit(n: int, count: Count) -> None:
    shop = read_table(labelled(make_events(120)), name="shop", period="14D")
    data = load_dataset("ml-100k") if n == 8 else shop
    forecasts, _ = attack_engines(data, "quick", n)
    # Of few people the figure is uncertain: there the whole interval has to lie above.
    found = forecasts.auc[0] if n == 8 else forecasts.auc[1]
    count("engines whose forecasts are attacked", n, n * (found > MAX_AUC))
    assert found <= MAX_AUC
