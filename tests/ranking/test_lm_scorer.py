"""Items scored by their texts, and by the titles that a language model expects."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, make_histories
from llmrec.errors import DataError
from llmrec.language.codec import Codec
from llmrec.ranking.lm_scorer import LMItemScorer, TextSimilarity, item_text
from tests.ranking.fakes import FakeTitleModel, LetterEncoder, make_title_model
from tests.worlds import START, catalog, log

ITEMS = Catalog.from_frame(
    pd.DataFrame(
        {
            "item_id": ["a", "b", "c", "d"],
            "title": ["aaa", "aab", "zzz", "zzz"],
            "categories": [["X"], [], ["X", "Y"], ["Y"]],
        }
    )
)


def histories(rows: list[tuple[str, str, np.datetime64]]) -> list[History]:
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    return make_histories(Interactions.from_frame(frame).align_to(ITEMS), ITEMS, "7D")


def test_the_item_most_similar_to_the_newest_is_on_top() -> None:
    rows = [("u", "c", START), ("u", "a", START + np.timedelta64(9, "D"))]
    events = Interactions.from_frame(
        pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    )
    (history,) = make_histories(events.align_to(ITEMS), ITEMS, "7D")
    scorer = TextSimilarity(LetterEncoder(), half_life=0.2, temperature=0.1)  # type: ignore[arg-type]
    (scores,) = scorer.scores([history])
    assert np.argsort(-scores)[:2].tolist() == [0, 1]
    vectors = LetterEncoder().embed([item_text(ITEMS, item) for item in range(4)])
    person = vectors[0] + 2**-5 * vectors[2]
    cosine = vectors @ person / np.linalg.norm(person)
    np.testing.assert_allclose(scores - scores[0], (cosine - cosine[0]) / 0.1, atol=1e-9)


def test_an_items_text_is_its_title_and_categories() -> None:
    assert [item_text(ITEMS, item) for item in (1, 2)] == ["aab", "zzz (X, Y)"]


@pytest.mark.parametrize("changes", [{"temperature": 0.0}, {"half_life": 0.0}])
def test_parameters_out_of_bounds_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        TextSimilarity(LetterEncoder(), **changes)  # type: ignore[arg-type]


def test_the_probability_of_a_title_is_divided_among_its_items() -> None:
    model = FakeTitleModel(["zzz", "aaa"])
    codec = Codec(ITEMS.categories, template="forecast-v3")
    rows = [("u", "a", START)]
    events = Interactions.from_frame(
        pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    )
    (history,) = make_histories(events.align_to(ITEMS), ITEMS, "7D")
    scorer = LMItemScorer(model, codec, floor=0.2)  # type: ignore[arg-type]
    ((zzz, aaa),) = model.title_probabilities([codec.prompt(history)])
    expected = 0.8 * np.array([aaa, 0, zzz / 2, zzz / 2]) + 0.2 / 4
    np.testing.assert_allclose(np.exp(scorer.scores([history])[0]), expected)


def test_a_catalog_without_a_known_title_gets_equal_scores() -> None:
    _, codec = make_title_model()
    scorer = LMItemScorer(FakeTitleModel(["elsewhere"]), codec)  # type: ignore[arg-type]
    (history,) = make_histories(log(n_users=1), catalog(), "7D")
    np.testing.assert_allclose(scorer.scores([history]), np.log(1 / catalog().n_items))


def test_a_model_without_title_embeddings_and_a_floor_out_of_bounds_are_refused() -> None:
    model, codec = make_title_model()
    with pytest.raises(ValueError, match="floor must lie"):
        LMItemScorer(model, codec, floor=1.0)
    model.title_embeddings = None
    with pytest.raises(DataError, match="has no title embeddings"):
        LMItemScorer(model, codec)
