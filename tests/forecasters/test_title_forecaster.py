"""Expected titles as a forecast: summed over the categories of the items that have them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llmrec.data.counts import target_counts
from llmrec.data.splits import split_windows
from llmrec.errors import DataError
from llmrec.evaluation.audits import truncate_histories
from llmrec.forecasters.llm import LLMForecaster, TitleForecaster
from llmrec.forecasters.precomputed import predict_weights
from llmrec.language.heads import CategoryHead, TitleEmbeddings, title_hashes
from llmrec.language.model import LanguageModel
from llmrec.metrics import mean_log_loss
from tests.training.tiny_timelines import PRIOR, make_codec, make_dataset, save_model

DATA = make_dataset()
WINDOWS = split_windows(DATA)["validation"]
HISTORIES = [window.history for window in WINDOWS]


@pytest.fixture(scope="module", params=["llama", "t5"])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> LanguageModel:
    """Give a tiny model with title embeddings for all items but the first."""
    plain = LanguageModel.load(str(save_model(request.param, tmp_path_factory.mktemp("m"))))
    codec, n_items = make_codec(DATA), DATA.catalog.n_items
    texts = [f" {codec.title(DATA.catalog, item)}" for item in range(1, n_items)]
    torch.manual_seed(3)
    embeddings = TitleEmbeddings(title_hashes(plain.encode(texts)), 32, 4)
    for values in embeddings.parameters():
        torch.nn.init.normal_(values)
    head = CategoryHead(32, 4).eval()
    return LanguageModel("tiny", plain.model, plain.tokenizer, "", head, embeddings.eval())


def title_forecaster(model: LanguageModel, share: float = 0.6) -> TitleForecaster:
    return TitleForecaster(model, make_codec(DATA, model), PRIOR, share)


def test_title_category_weights_are_summed_over_the_titles_of_items(model: LanguageModel) -> None:
    codec = make_codec(DATA, model)
    weights = model.title_probabilities([codec.prompt(history) for history in HISTORIES])
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    shares = np.asarray(DATA.catalog.category_shares.todense())[1:]
    shares /= shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        title_forecaster(model).title_category_weights(HISTORIES), weights @ shares, atol=1e-6
    )


def test_the_forecast_mixes_titles_and_prior_by_the_share(model: LanguageModel) -> None:
    forecaster = title_forecaster(model)
    expected = 0.4 * predict_weights(PRIOR, HISTORIES) + 0.6 * forecaster.title_category_weights(
        HISTORIES
    )
    np.testing.assert_allclose(predict_weights(forecaster, HISTORIES), expected, atol=1e-9)
    assert forecaster.forecast(HISTORIES)[0].source.how == "llm"


def test_a_person_without_an_event_gets_the_prior(model: LanguageModel) -> None:
    empty = [window.history for window in truncate_histories(WINDOWS, 0)]
    assert not title_forecaster(model).title_category_weights(empty).any()
    found = predict_weights(title_forecaster(model), empty)
    np.testing.assert_allclose(found, predict_weights(PRIOR, empty), atol=1e-12)


def test_fit_chooses_the_share_of_least_log_loss(model: LanguageModel) -> None:
    forecaster, targets = title_forecaster(model, 0.0).fit(WINDOWS), target_counts(WINDOWS)
    best = mean_log_loss(predict_weights(forecaster, HISTORIES), targets)
    for share in (0.0, 0.3, 0.98):
        assert (
            best
            <= mean_log_loss(predict_weights(title_forecaster(model, share), HISTORIES), targets)
            + 1e-12
        )
    assert forecaster.fitted is not None
    assert all(map(forecaster.fitted.covers, WINDOWS))


def test_a_model_without_title_embeddings_is_refused(model: LanguageModel) -> None:
    plain = LanguageModel("plain", model.model, model.tokenizer)
    with pytest.raises(DataError, match=r"plain has no title embeddings: .*titles\.rank"):
        title_forecaster(plain)
    with pytest.raises(ValueError, match="no title embeddings"):
        plain.title_probabilities(["Drama"])


def test_a_forecast_by_category_scores_names_its_titles_in_the_source(model: LanguageModel) -> None:
    forecaster = LLMForecaster(model, make_codec(DATA, model), title_forecaster(model))
    repeated = [window for window in WINDOWS for _ in range(20)]
    forecaster.fit(repeated, scores=np.zeros((len(repeated), 5)))
    no_events = truncate_histories(WINDOWS[:1], 0)[0].history
    empty, *others = [found.source for found in forecaster.forecast([no_events, *HISTORIES])]
    assert (empty.how, empty.why) == ("fallback", "there is no event to read")
    for source in others:
        assert source.how == "llm"
        assert source.why.endswith("titles weighted by 0.6")
