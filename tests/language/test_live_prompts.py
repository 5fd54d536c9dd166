"""Live use of engines' models: prompts of growing histories, and forecasts that are read on."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.calendar import MILLISECOND, PeriodLength
from llmrec.data.dataset import Dataset
from llmrec.data.periods import History, make_event_history, split_into_ticks
from llmrec.data.readers import load_dataset
from llmrec.engine import InterestEngine
from llmrec.engine_language import LoadedLanguage
from llmrec.errors import DataError
from llmrec.forecasters.calibration import Calibration
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.llm import LLMForecaster
from llmrec.language.codec import Codec
from llmrec.language.model import LanguageModel
from llmrec.language.prefixes import CONTINUED, CachePrecision
from tests.real_parts import needs_real_parts
from tests.worlds import START, catalog, log

ITEMS = catalog()
EVENTS = log(n_users=2, n_periods=8).align_to(ITEMS)


def history_at(period: str, days: float, user: int = 0) -> History:
    world = Dataset("world", EVENTS, ITEMS, period, "films", "viewer", "allow", anchor="calendar")
    cutoff = START.astype("datetime64[ms]") + np.timedelta64(int(days * 24), "h")
    return world.histories(cutoff, [user])[0]


def codec_of(model: LanguageModel, budget: int = 200) -> Codec:
    options = {"template": "forecast-v2", "budget": budget, "count_tokens": model.count_tokens}
    return Codec(ITEMS.categories, **options)


def n_common(model: LanguageModel, *texts: str) -> int:
    first, second = model.encode_prompts(texts)
    same = [a == b for a, b in zip(first, second, strict=False)]
    return same.index(False) if False in same else len(same)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["7D", "9D", "28D", "1M"]), st.integers(10, 50), st.integers(0, 200))
def test_only_the_running_tick_of_a_prompt_changes_with_a_later_cutoff(
    llama: LanguageModel, period: str, days: int, hours: int
) -> None:
    codec = codec_of(llama)
    before, after = history_at(period, days), history_at(period, days + hours / 24)
    first, second = codec.prompt(before), codec.prompt(after)
    (positions,) = llama.encode_prompts([first])
    assert n_common(llama, first, second) >= len(positions) - 1
    assert (first.person, first.is_trial) == ("u000", False)
    assert codec.prompt(before.without_items(before.item_idx[:1])).is_trial


@pytest.mark.parametrize("step", [1, 4, 7])
def test_ticks_beyond_the_budget_are_merged_a_step_at_a_time(
    llama: LanguageModel, step: int
) -> None:
    codec = codec_of(llama, budget=llama.count_tokens("What one person takes, in order:") + 40)
    codec.merge_step = step
    length = PeriodLength.parse("3 events")
    first, stop = (int(place) for place in EVENTS.user_offsets[:2])
    texts = []
    for end in range(first + 1, stop + 1):
        history = make_event_history(EVENTS, ITEMS, length, 0, end, EVENTS.timestamp[end - 1])
        texts.append(codec.prompt(history))
        assert llama.count_tokens(texts[-1]) <= codec.budget
        assert len(split_into_ticks(history)[0]) == end - first
    whole = [llama.count_tokens(text) for text in texts]
    kept = [n_common(llama, *pair) for pair in pairwise(texts)]
    changed = [at for at, n in enumerate(kept) if n < whole[at]]
    assert changed
    assert set(np.diff(changed)[1:]) == {step}


def language_of(model: LanguageModel) -> tuple[LoadedLanguage, LLMForecaster]:
    codec = codec_of(model)
    none = np.zeros(ITEMS.n_categories)
    fixed = Calibration(a=1.0, center=none, bias=none, gain=(1.0, 0.5, 1.5), n=100)
    language = LoadedLanguage(model, codec, calibration=fixed)
    return language, language.calibrated_forecaster(DecayedDirichlet())


def test_forecasts_say_how_much_was_read_before_and_are_those_of_whole_prompts(
    llama: LanguageModel,
) -> None:
    language, forecaster = language_of(llama)
    grown = [history_at("7D", days) for days in (20, 21, 30, 31, 32)]
    llama.prompt_cache.clear()
    plain = [forecaster.forecast([history])[0] for history in grown]
    assert not any("read" in one.source.why for one in plain)
    prefixes = language.continue_prompts(precision="float32")
    try:
        llama.prompt_cache.clear()
        live = [forecaster.forecast([history])[0] for history in grown]
    finally:
        llama.prefixes = None
        llama.prompt_cache.clear()
    for one, other in zip(plain, live, strict=True):
        np.testing.assert_allclose(one.category_weights, other.category_weights, atol=1e-4)
    assert "the prompt was read anew: nothing is held of the person" in live[0].source.why
    assert all("were read before" in one.source.why for one in live[1:])
    assert prefixes.counts[CONTINUED] >= 3


def test_a_merge_step_below_one_is_refused(llama: LanguageModel) -> None:
    with pytest.raises(DataError, match="merge_step is 0; it should be at least 1"):
        language_of(llama)[0].continue_prompts(merge_step=0)


@pytest.mark.slow
@needs_real_parts
@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-4), ("float16", 2e-3)])
@pytest.mark.parametrize("name", ["ml-100k", "completejourney"])
def test_shipped_engines_forecast_the_same_from_prompts_that_are_read_on(
    name: str, precision: CachePrecision, bound: float
) -> None:
    torch.set_num_threads(1)
    dataset = load_dataset(name)
    engine = InterestEngine.from_pretrained(data=dataset, anchor="calendar")
    language = engine.language
    assert language is not None
    forecaster = language.calibrated_forecaster(engine.prior, engine.settings.titles)
    known, length = engine.dataset, PeriodLength.parse(dataset.period)
    for user in np.random.default_rng(0).permutation(known.log.n_users)[:5].tolist():
        first, stop = (int(place) for place in known.log.user_offsets[user : user + 2])
        prefixes = language.continue_prompts(precision=precision)
        for end in range(max(first + 1, stop - 12), stop + 1, 3):
            cutoff = known.log.timestamp[end - 1] + MILLISECOND
            history = (
                make_event_history(known.log, known.catalog, length, user, end, cutoff)
                if length.unit == "events"
                else known.histories(cutoff, [user])[0]
            )
            language.model.prompt_cache.clear()
            (live,) = forecaster.forecast([history])
            language.model.prefixes = None
            language.model.prompt_cache.clear()
            (plain,) = forecaster.forecast([history])
            language.model.prefixes = prefixes
            change = np.abs(live.category_weights - plain.category_weights).max()
            assert change < bound
        assert sum(prefixes.counts.values()) > 0
