from __future__ import annotations

import pytest

from benchmarks.explanations.corruptions import description_corruptions
from llmrec.explain import describe
from llmrec.explain.describe import check_description, describe_from_claims, describe_with_model
from llmrec.explain.facts import MAX_CLAIMS
from llmrec.explain.statements import check_statement, derive_statements, statement_sentence
from llmrec.forecast import STATEMENT_KINDS, StatementKind
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.language.codec import Codec
from llmrec.language.grammar import PHRASES_BY_KIND
from llmrec.language.model import LanguageModel
from tests.language.tiny_models import save_llama
from tests.worlds import small_world


def said(*claims: tuple[StatementKind, int]) -> dict[tuple[StatementKind, int], str]:
    """Put claims into the first phrase of their kind."""
    return {(kind, category): PHRASES_BY_KIND[kind][0] for kind, category in claims}


def test_a_description_says_only_what_the_checker_supports() -> None:
    lies = said(*((kind, category) for kind in STATEMENT_KINDS[:4] for category in range(5)))
    for window in small_world(n_users=15):
        (forecast,) = DecayedDirichlet().forecast([window.history])
        told = describe_from_claims(window.history, forecast, lies, unread=2)
        assert len(told.statements) <= MAX_CLAIMS
        assert all(
            check_statement(statement, window.history, told) is None
            for statement in told.statements
        )
        assert told.description


def test_a_category_is_spoken_of_once() -> None:
    everything = said(*((kind, category) for kind in STATEMENT_KINDS for category in range(5)))
    for window in small_world(n_users=15):
        (forecast,) = DecayedDirichlet().forecast([window.history])
        for claims in ({}, everything):
            told = describe_from_claims(window.history, forecast, claims)
            assert len({s.category for s in told.statements}) == len(told.statements)


def test_what_the_model_wrote_and_the_checker_refused_is_counted() -> None:
    (window,) = small_world(n_users=1)
    (forecast,) = DecayedDirichlet().forecast([window.history])
    taken = [c for c in range(5) if window.history.category_counts[:, c].any()]
    refused = said(*(("new", category) for category in taken))
    told = describe_from_claims(window.history, forecast, refused, unread=3)
    assert told.source.rejected == len(refused) + 3
    assert told.source.proposed == 0
    assert told.statements == derive_statements(window.history, forecast, limit=MAX_CLAIMS)


def test_every_lie_planted_in_a_description_is_caught() -> None:
    for window in small_world(n_users=8):
        history = window.history
        (forecast,) = DecayedDirichlet().forecast([history])
        for words in (
            {},
            said(*((s.kind, s.category) for s in derive_statements(history, forecast))),
        ):
            told = describe_from_claims(history, forecast, words)
            assert check_description(history, told) is None
            for sort, lie in description_corruptions(told):
                assert check_description(history, lie), (sort, lie.description)


def test_a_true_claim_of_the_model_comes_first_and_in_its_own_words() -> None:
    checked = 0
    for window in small_world(n_users=15):
        (forecast,) = DecayedDirichlet().forecast([window.history])
        for true in derive_statements(window.history, forecast):
            phrase = PHRASES_BY_KIND[true.kind][-1]
            told = describe_from_claims(
                window.history, forecast, {(true.kind, true.category): phrase}
            )
            name = window.history.catalog.categories[true.category]
            assert told.description.startswith(f"{name} {phrase}")
            assert told.statements[0] == true
            assert (told.source.proposed, told.source.rejected) == (1, 0)
            others = [statement_sentence(s, window.history, forecast) for s in told.statements[1:]]
            assert told.description.endswith(" ".join(others))
            checked += 1
    assert checked > 15


def test_a_claim_said_again_is_shown_once_and_counted_as_rejected() -> None:
    (window,) = small_world(n_users=1)
    (forecast,) = DecayedDirichlet().forecast([window.history])
    codec = Codec(window.history.catalog.categories)
    true = derive_statements(window.history, forecast)[0]
    label, phrases = codec.labels[true.category], PHRASES_BY_KIND[true.kind]
    found, unread = codec.claims(f"{label} {phrases[0]}, {label} {phrases[1]}, nothing else.")
    told = describe_from_claims(window.history, forecast, found, len(unread))
    assert (told.source.proposed, told.source.rejected) == (1, 2)
    assert told.description.count(phrases[0]) == 1


@pytest.mark.parametrize("claims", [{}, said(("rising", 0), ("fading", 1), ("returning", 2))])
def test_a_history_without_events_is_described_without_a_claim_about_the_past(
    claims: dict[tuple[StatementKind, int], str],
) -> None:
    (window,) = small_world(n_users=1, empty=True)
    (forecast,) = DecayedDirichlet().forecast([window.history])
    told = describe_from_claims(window.history, forecast, claims)
    assert told.source.rejected == len(claims)
    assert {statement.kind for statement in told.statements} <= {"new"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = save_llama(tmp_path_factory.mktemp("llama"), max_position_embeddings=1024)
    return LanguageModel.load(str(folder), device="cpu")


def test_what_the_model_chooses_to_say_is_true_and_a_batch_says_what_single_calls_say(
    model: LanguageModel,
) -> None:
    people = [window.history for window in small_world(n_users=15)]
    codec = Codec(people[0].catalog.categories, template="forecast-v3")
    forecasts = DecayedDirichlet().forecast(people)
    told = describe_with_model(model, codec, people, forecasts)
    for history, forecast, one in zip(people, forecasts, told, strict=True):
        assert one.source.proposed > 0
        assert one.source.rejected == 0
        assert all(check_statement(statement, history, one) is None for statement in one.statements)
        (alone,) = describe_with_model(model, codec, [history], [forecast])
        assert alone.description == one.description


def test_what_the_model_claims_freely_is_checked(model: LanguageModel) -> None:
    people = [window.history for window in small_world(n_users=15)]
    codec = Codec(people[0].catalog.categories, template="forecast-v3")
    told = describe_with_model(
        model, codec, people, DecayedDirichlet().forecast(people), unconstrained=True
    )
    assert sum(one.source.rejected for one in told) > 0
    for history, one in zip(people, told, strict=True):
        assert all(check_statement(statement, history, one) is None for statement in one.statements)


def test_where_nothing_is_true_the_model_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    people = [window.history for window in small_world(n_users=2)]
    codec = Codec(people[0].catalog.categories, template="forecast-v3")
    monkeypatch.setattr(describe, "derive", lambda *_, **__: ())
    forecasts = DecayedDirichlet().forecast(people)
    told = describe_with_model(None, codec, people, forecasts)  # type: ignore[arg-type]
    assert [one.source.proposed for one in told] == [0, 0]
