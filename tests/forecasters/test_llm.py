from __future__ import annotations

import numpy as np

from llmrec.data.periods import make_histories
from llmrec.forecasters.calibration import Calibration
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.llm import LLMForecaster
from llmrec.language.codec import Codec
from tests.forecasters.fakes import FakeModel
from tests.worlds import CATEGORIES, small_world


def test_a_person_without_an_event_gets_the_prior_and_the_source_names_it() -> None:
    known = small_world(n_users=2)[0].history
    first = known.log.timestamp.min()
    (unknown,) = make_histories(
        known.log, known.catalog, known.period_length, first, [known.user_idx]
    )
    calibration = Calibration(0.3, np.zeros(5), np.zeros(5), n=100, categories=CATEGORIES)
    prior = DecayedDirichlet()
    forecaster = LLMForecaster(FakeModel(), Codec(CATEGORIES), prior, calibration)  # type: ignore[arg-type]
    adjusted, unchanged = forecaster.forecast([known, unknown])
    expected, same = prior.forecast([known, unknown])
    assert adjusted.source.how == "llm"
    assert not np.allclose(adjusted.category_weights, expected.category_weights)
    assert unchanged.source.how == "fallback"
    assert "no event" in unchanged.source.why
    np.testing.assert_array_equal(unchanged.category_weights, same.category_weights)
