"""The sequence-to-sequence forecaster: a (tiny, random) T5 through the LLM forecaster, whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import Window
from llmrec.data.windows import make_windows
from llmrec.evaluation.evaluator import evaluate
from llmrec.forecasters.calibration import Calibration
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.llm import LLMForecaster
from llmrec.language.codec import Codec
from llmrec.language.model import LanguageModel
from tests.language import tiny_models
from tests.worlds import START

NAMES = ("Comedy", "Drama", "Sci-Fi & Fantasy")


@pytest.fixture(scope="module")
def windows() -> list[Window]:
    rng = np.random.default_rng(0)
    items = pd.DataFrame({"item_id": list("cds"), "categories": [[name] for name in NAMES]})
    rows = [
        (f"u{user:02d}", "cds"[rng.integers(3)], START + np.timedelta64(int(day), "D"))
        for user in range(60)
        for day in range(0, 40, 2)
    ]
    events = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    return make_windows(Interactions.from_frame(events), Catalog.from_frame(items), "10D")


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder: Path = tiny_models.save_t5(tmp_path_factory.mktemp("t5"))
    return LanguageModel.load(str(folder), device="cpu")


def seq2seq(model: LanguageModel, **options: object) -> LLMForecaster:
    nothing = np.zeros(3)
    calibration = Calibration(0.3, nothing, nothing, n=60, categories=NAMES)
    codec = Codec(NAMES, count_tokens=model.count_tokens, budget=120)
    return LLMForecaster(model, codec, DecayedDirichlet(), calibration, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"mode": "generate", "samples": 1}])
def test_it_reads_and_it_writes_forecasts(
    t5: LanguageModel, windows: list[Window], options: dict[str, object]
) -> None:
    assert t5.is_encoder_decoder
    histories = [window.history for window in windows[:4]]
    forecasts = seq2seq(t5, **options).forecast(histories)
    counted = DecayedDirichlet().category_weights(histories)
    for forecast, prior in zip(forecasts, counted, strict=True):
        assert forecast.source.how == "llm"
        assert forecast.category_weights.sum() == pytest.approx(1)
        moved = np.abs(forecast.category_weights - prior).max()
        assert moved > 1e-6 if not options else moved <= 0.1  # what is written is mixed in by 0.1


def test_a_batch_reads_what_single_calls_read(t5: LanguageModel, windows: list[Window]) -> None:
    histories = [window.history for window in windows[:6]]
    forecaster = seq2seq(t5)
    together = forecaster.forecast(histories)
    for history, forecast in zip(histories, together, strict=True):
        (alone,) = forecaster.forecast([history])
        np.testing.assert_allclose(alone.category_weights, forecast.category_weights, atol=1e-5)


def test_random_parameters_get_no_weight_and_stand_in_the_table(
    t5: LanguageModel, windows: list[Window]
) -> None:
    forecaster = seq2seq(t5)
    forecaster.fit(windows)
    assert forecaster.fitted is not None
    assert forecaster.fitted.covers(windows[0])
    unfitted = seq2seq(t5)
    table = evaluate(
        {"counting": DecayedDirichlet(), "Seq2Seq": unfitted}, windows, reference="counting"
    )
    assert set(table["model"]) == {"counting", "Seq2Seq"}
