from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.explanations.corruptions import description_corruptions
from llmrec.explain.describe import check_description, describe_from_claims, describe_with_model
from llmrec.explain.facts import MAX_CLAIMS, ClaimFacts
from llmrec.explain.statement_sentences import statement_sentence
from llmrec.explain.statements import check_statement, derive_statements
from llmrec.forecast import STATEMENT_KINDS, StatementKind, StatementModel
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.language.codec import Codec
from llmrec.language.grammar import PHRASES_BY_KIND
from llmrec.language.model import LanguageModel
from tests.explain.fixed_chances import FixedChances
from tests.language.tiny_models import save_llama
from tests.worlds import small_world


def with_phrases(*claims: tuple[StatementKind, int]) -> dict[tuple[StatementKind, int], str]:
    """Put claims into the first phrase of their kind."""
    return {(kind, category): PHRASES_BY_KIND[kind][0] for kind, category in claims}


def test_a_description_has_only_supported_statements() -> None:
    false = with_phrases(
        *((kind, category) for kind in STATEMENT_KINDS[:4] for category in range(5))
    )
    for window in small_world(n_users=15):
        (forecast,) = DecayedDirichlet().forecast([window.history])
        described = describe_from_claims(window.history, forecast, false, n_unparsed=2)
        assert len(described.statements) <= MAX_CLAIMS
        assert all(
            check_statement(statement, window.history, described) is None
            for statement in described.statements
        )
        assert described.description


def test_a_category_is_described_once() -> None:
    everything = with_phrases(
        *((kind, category) for kind in STATEMENT_KINDS for category in range(5))
    )
    for window in small_world(n_users=15):
        (forecast,) = DecayedDirichlet().forecast([window.history])
        for claims in ({}, everything):
            described = describe_from_claims(window.history, forecast, claims)
            assert len({s.category for s in described.statements}) == len(described.statements)


def test_rejected_claims_of_the_model_are_counted() -> None:
    (window,) = small_world(n_users=1)
    (forecast,) = DecayedDirichlet().forecast([window.history])
    taken = [c for c in range(5) if window.history.category_counts[:, c].any()]
    refused = with_phrases(*(("new", category) for category in taken))
    described = describe_from_claims(window.history, forecast, refused, n_unparsed=3)
    assert described.source.rejected == len(refused) + 3
    assert described.source.proposed == 0
    assert described.statements == derive_statements(window.history, forecast, limit=MAX_CLAIMS)


@pytest.mark.parametrize("model", [None, FixedChances()])
def test_every_corruption_of_a_description_is_found(model: StatementModel | None) -> None:
    for window in small_world(n_users=8):
        history = window.history
        (forecast,) = DecayedDirichlet().forecast([history])
        forecast = replace(forecast, statement_model=model)
        for words in (
            {},
            with_phrases(*((s.kind, s.category) for s in derive_statements(history, forecast))),
        ):
            described = describe_from_claims(history, forecast, words)
            assert check_description(history, described) is None
            for name, wrong in description_corruptions(described):
                assert check_description(history, wrong), (name, wrong.description)


def test_a_true_claim_of_the_model_comes_first_with_its_phrase() -> None:
    checked = 0
    for window in small_world(n_users=15):
        (forecast,) = DecayedDirichlet().forecast([window.history])
        for true in derive_statements(window.history, forecast):
            phrase = PHRASES_BY_KIND[true.kind][-1]
            described = describe_from_claims(
                window.history, forecast, {(true.kind, true.category): phrase}
            )
            name = window.history.catalog.categories[true.category]
            assert described.description.startswith(f"{name} {phrase}")
            assert described.statements[0] == true
            assert (described.source.proposed, described.source.rejected) == (1, 0)
            others = [
                statement_sentence(s, window.history, forecast) for s in described.statements[1:]
            ]
            assert described.description.endswith(" ".join(others))
            checked += 1
    assert checked > 15


def test_a_repeated_claim_is_shown_once_and_counted_as_rejected() -> None:
    (window,) = small_world(n_users=1)
    (forecast,) = DecayedDirichlet().forecast([window.history])
    codec = Codec(window.history.catalog.categories)
    true = derive_statements(window.history, forecast)[0]
    label, phrases = codec.labels[true.category], PHRASES_BY_KIND[true.kind]
    found, unread = codec.line.parse_claims(
        f"{label} {phrases[0]}, {label} {phrases[1]}, nothing else."
    )
    described = describe_from_claims(window.history, forecast, found, len(unread))
    assert (described.source.proposed, described.source.rejected) == (1, 2)
    assert described.description.count(phrases[0]) == 1


@pytest.mark.parametrize(
    "claims", [{}, with_phrases(("rising", 0), ("fading", 1), ("returning", 2))]
)
def test_a_history_without_events_is_described_without_a_claim_about_the_past(
    claims: dict[tuple[StatementKind, int], str],
) -> None:
    (window,) = small_world(n_users=1, empty=True)
    (forecast,) = DecayedDirichlet().forecast([window.history])
    described = describe_from_claims(window.history, forecast, claims)
    assert described.source.rejected == len(claims)
    assert {statement.kind for statement in described.statements} <= {"new"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = save_llama(tmp_path_factory.mktemp("llama"), max_position_embeddings=1024)
    return LanguageModel.load(str(folder), device="cpu")


def test_descriptions_of_the_model_are_true_and_a_batch_gives_those_of_single_calls(
    model: LanguageModel,
) -> None:
    people = [window.history for window in small_world(n_users=15)]
    codec = Codec(people[0].catalog.categories, template="forecast-v3")
    forecasts = DecayedDirichlet().forecast(people)
    described = describe_with_model(model, codec, people, forecasts)
    for history, forecast, one in zip(people, forecasts, described, strict=True):
        assert one.source.proposed > 0
        assert one.source.rejected == 0
        assert all(check_statement(statement, history, one) is None for statement in one.statements)
        (alone,) = describe_with_model(model, codec, [history], [forecast])
        assert alone.description == one.description


def test_unconstrained_claims_of_the_model_are_checked(model: LanguageModel) -> None:
    people = [window.history for window in small_world(n_users=15)]
    codec = Codec(people[0].catalog.categories, template="forecast-v3")
    described = describe_with_model(
        model, codec, people, DecayedDirichlet().forecast(people), unconstrained=True
    )
    assert sum(one.source.rejected for one in described) > 0
    for history, one in zip(people, described, strict=True):
        assert all(check_statement(statement, history, one) is None for statement in one.statements)


def test_where_nothing_is_true_the_model_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    people = [window.history for window in small_world(n_users=2)]
    codec = Codec(people[0].catalog.categories, template="forecast-v3")
    monkeypatch.setattr(ClaimFacts, "chosen_claims", lambda *_: [])
    forecasts = DecayedDirichlet().forecast(people)
    described = describe_with_model(None, codec, people, forecasts)  # type: ignore[arg-type]
    assert [one.source.proposed for one in described] == [0, 0]
