from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.explanations.corruptions import (
    change_corruptions,
    item_corruptions,
    statement_corruptions,
)
from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, make_histories
from llmrec.explain.counterfactual import RemovalCounterfactual
from llmrec.explain.describe import describe_forecasts
from llmrec.explain.explanation import Explanation, check_explanation, explain_ranked_item
from llmrec.explain.item import ItemExplanation
from llmrec.explain.statements import check_statement, derive_statements
from llmrec.explain.verify import check_change, check_evidence, check_item
from llmrec.forecast import Forecast, StatementModel
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.ranking.blend import Blend
from llmrec.ranking.edits import Edit
from llmrec.ranking.ranking import Reranker, make_reranker
from llmrec.ranking.scorers import PersonalRepeat
from llmrec.types import RepeatPolicy
from tests.explain.fixed_chances import FixedChances
from tests.explain.people import FixedScorer

K = 5
NAMES = ("Action", "Comedy", "Drama", "Horror", "War", "Zoology")  # nobody takes Zoology
N_ITEMS = 26
START = np.datetime64("2020-01-01T12:00:00", "s")
BLEND = Blend((FixedScorer("taste", 2.0), PersonalRepeat()), (0.6, 0.4))


@dataclass(frozen=True, eq=False)
class Person:
    """A history, a forecast of it, and how all items rank."""

    history: History
    forecast: Forecast
    rerank: Reranker

    def explain(self, item: int, *edits: Edit) -> Explanation:
        return explain_ranked_item(item, self.rerank, K, self.history, self.forecast, edits)

    def errors_of(self, found: Explanation, *edits: Edit) -> tuple[str, ...]:
        assert found.item
        item = self.history.catalog.item_index(found.item.item_id)
        return check_explanation(found, item, self.rerank, self.history, self.forecast, edits)


def random_catalog(rng: np.random.Generator) -> Catalog:
    """Items of one to three categories, titles with numbers in them; the last item has none."""
    rows: list[tuple[str, str, list[str]]] = []
    for item in range(N_ITEMS):
        categories = ["Zoology"] if item == N_ITEMS - 2 else [NAMES[item % 5]]
        categories += list(rng.choice(NAMES[:5], int(rng.integers(3)), replace=False))
        title = f"{item}: {rng.integers(2100)}, a {NAMES[item % 5]} ({1990 + item})"
        rows.append((f"i{item}", title, categories if item < N_ITEMS - 1 else []))
    return Catalog.from_frame(pd.DataFrame(rows, columns=["item_id", "title", "categories"]))


def random_log(catalog: Catalog, rng: np.random.Generator, n_users: int = 8) -> Interactions:
    """Eight weeks of people whose taste drifts."""
    rows = []
    for user in range(n_users):
        early, late = rng.dirichlet(np.full(N_ITEMS - 2, 0.3), 2)
        for _ in range(int(rng.integers(4, 60))):
            day = int(rng.integers(56))
            item = rng.choice(N_ITEMS - 2, p=late if rng.random() < day / 56 else early)
            rows.append((f"u{user}", f"i{item}", START + np.timedelta64(day, "D")))
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    return Interactions.from_frame(frame).align_to(catalog)


def people(
    log: Interactions,
    catalog: Catalog,
    strength: float = 1.0,
    repeat: RepeatPolicy = "allow",
    statement_model: StatementModel | None = None,
) -> list[Person]:
    """Everybody at the start of the seventh week: two weeks lie after the cutoff."""
    histories = make_histories(log, catalog, "7D", START + np.timedelta64(42, "D"))
    histories = [history for history in histories if history.n_events]
    forecasts = DecayedDirichlet(decay=0.5, strength=5.0).forecast(histories)
    forecasts = [replace(one, statement_model=statement_model) for one in forecasts]
    described = describe_forecasts(histories, forecasts)
    return [
        Person(h, f, make_reranker(h, f, BLEND, strength=strength, repeat=repeat))
        for h, f in zip(histories, described, strict=True)
    ]


with_and_without_probabilities = pytest.mark.parametrize(
    "model", [None, FixedChances()], ids=["no probabilities", "probabilities"]
)


def world(seed: int, **ranking: Any) -> list[Person]:
    rng = np.random.default_rng(seed)
    catalog = random_catalog(rng)
    return people(random_log(catalog, rng), catalog, **ranking)


def explained(person: Person, seed: int) -> Iterator[Explanation]:
    """Explain the first of the list, two others drawn, and the item without a category."""
    drawn = np.random.default_rng(seed).choice(N_ITEMS - 1, 2, replace=False).tolist()
    for item in (int(person.rerank(()).item_idx[0]), *drawn, N_ITEMS - 1):
        yield person.explain(item)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("strength", [0.0, 1.0])
@with_and_without_probabilities
def test_true_explanations_have_no_errors(
    seed: int, strength: float, model: StatementModel | None
) -> None:
    for person in world(seed, strength=strength, statement_model=model):
        for found in explained(person, seed):
            assert person.errors_of(found) == ()


@pytest.mark.parametrize("seed", range(6))
@with_and_without_probabilities
def test_every_corruption_of_a_statement_is_found(seed: int, model: StatementModel | None) -> None:
    names = set()
    for person in world(seed, statement_model=model):
        for true in derive_statements(person.history, person.forecast, limit=6):
            assert check_statement(true, person.history, person.forecast) is None
            for name, wrong in statement_corruptions(true, person.history, person.forecast):
                assert check_statement(wrong, person.history, person.forecast), (name, true, wrong)
                names.add(name)
    assert {"direction", "category", "number"} < names
    assert ({"probability", "usual rate"} <= names) == (model is not None)
    assert {s for s in names if s.startswith("evidence")} == {
        "evidence: another category", "evidence: another person", "evidence: after the cutoff",
        "evidence: twice", "evidence: none", "evidence: not the latest",
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
@with_and_without_probabilities
def test_every_corruption_of_an_explanation_is_found(
    seed: int, model: StatementModel | None
) -> None:
    names = set()
    for person in world(seed, strength=0.5 * seed, statement_model=model)[:3]:
        now = person.rerank(())
        for found in explained(person, seed):
            assert found.item
            for name, wrong in item_corruptions(found.item, person.history, person.forecast):
                errors = check_item(wrong, now, person.history, person.forecast)
                assert errors, (name, found.item, wrong)
                names.add(name)
    expected = {
        "title",
        "date",
        "count",
        "rank",
        "score",
        "score part",
        "item",
        "text",
        "rejection",
    }
    assert expected < names


@pytest.mark.parametrize("seed", range(3))
def test_every_corruption_of_an_explanation_of_edits_is_found(seed: int) -> None:
    edits = (Edit("Comedy", 4.0), Edit("War", 0.0), Edit("Drama", 1.0, lock=True))
    names = set()
    for person in world(seed)[:3]:
        now = person.rerank(edits)
        for item in now.item_idx[[0, 5, -3]].tolist():
            found = person.explain(item, *edits)
            assert found.item
            assert person.errors_of(found, *edits) == ()
            assert ItemExplanation.from_dict(found.item.to_dict()) == found.item
            for name, wrong in item_corruptions(found.item, person.history, person.forecast):
                assert check_item(wrong, now, person.history, person.forecast, edits), (name, wrong)
                names.add(name)
    assert "edit" in names


@pytest.mark.parametrize("seed", range(2))
def test_every_corruption_of_a_counterfactual_is_found(seed: int) -> None:
    for person in world(seed)[:4]:
        for found in explained(person, seed):
            assert found.item
            item = person.history.catalog.item_index(found.item.item_id)
            for name, wrong in change_corruptions(found.change):
                assert check_change(wrong, item, person.rerank, person.history), (name, wrong)
            assert person.errors_of(replace(found, n_ranked=found.n_ranked + 1))


def test_the_explanation_of_another_item_is_an_error() -> None:
    person = world(0)[0]
    a, b = person.explain(0), person.explain(1)
    assert a.item
    assert person.errors_of(replace(b, item=a.item))


@pytest.mark.parametrize("seed", range(3))
def test_the_parts_of_every_explained_score_sum_to_it(seed: int) -> None:
    for person in world(seed):
        for found in explained(person, seed):
            assert found.item
            parts = (*found.item.scorer_parts.values(), *found.item.category_parts.values())
            assert abs(sum(parts) - found.item.score) < 1e-9


def without_event(person: Person, event: int) -> Person | None:
    """Drop one event of a person, and forecast and rank again."""
    log = person.history.log
    mask = np.zeros(len(log), dtype=bool)
    mask[event] = True
    forgotten = log.drop_events({"forgotten": mask})
    found = people(forgotten, person.history.catalog)
    return next((p for p in found if p.history.user_id == person.history.user_id), None)


@pytest.mark.parametrize("seed", range(3))
def test_a_forgotten_event_is_named_and_not_cited_again(seed: int) -> None:
    checked = 0
    for person in world(seed):
        found = person.explain(int(person.rerank(()).item_idx[0])).item
        assert found
        stored = ItemExplanation.from_dict(found.to_dict())
        event = stored.evidence[0]
        later = without_event(person, event.event_id)
        if later is None:
            continue
        errors = check_evidence(stored, later.history)
        same = [
            at
            for at in later.history.event_ids
            if later.history.catalog.item_ids[later.history.log.item_idx[at]] == event.item_id
            and str(later.history.log.timestamp[at])[:10] == event.date.isoformat()
        ]
        assert check_item(stored, later.rerank(()), later.history, later.forecast)
        if same:  # it was taken twice that day
            continue
        missing = f"{event} is not in the history of user"
        assert any(error.startswith(missing) and "forgotten" in error for error in errors)
        again = later.explain(person.history.catalog.item_index(stored.item_id))
        assert again.item
        assert str(event) not in again.text
        assert (event.item_id, event.date) not in {(e.item_id, e.date) for e in again.item.evidence}
        assert later.errors_of(again) == ()
        checked += 1
    assert checked > 2


def test_a_stored_explanation_is_loaded_whole_and_a_changed_text_is_found() -> None:
    for person in world(0)[:3]:
        now = person.rerank(())
        for found in explained(person, 0):
            assert found.item
            stored = json.loads(json.dumps(found.item.to_dict(), allow_nan=False))
            assert ItemExplanation.from_dict(stored) == found.item
            stored["text"] = (
                stored["text"].replace("categor", "catalog").replace("scorers", "stars")
            )
            wrong = ItemExplanation.from_dict(stored)
            assert "no true sentence" in check_item(wrong, now, person.history, person.forecast)[0]


def test_an_event_at_another_position_of_the_log_is_found_there() -> None:
    first, *_, last = world(0)
    found = last.explain(int(last.rerank(()).item_idx[0])).item
    assert found
    assert check_evidence(found, last.history) == ()
    later = people(
        last.history.log.drop_events({"forgotten": np.arange(len(last.history.log)) == 0}),
        last.history.catalog,
    )[-1]
    assert later.history.user_id == last.history.user_id != first.history.user_id
    moved = check_evidence(found, later.history)
    assert moved
    assert all("of the log, not event" in error for error in moved)


def test_the_rank_of_an_item_without_a_category_rests_on_the_scorers() -> None:
    person = world(0)[0]
    found = person.explain(N_ITEMS - 1)
    assert found.item
    assert found.item.text == (
        f"No category: its rank rests on the scorers ({', '.join(BLEND.names)})."
    )
    assert (found.item.evidence, found.item.statements, found.item.category_parts) == ((), (), {})
    assert "no category" in found.change.text or "it has none" in found.change.text


def test_the_explanation_of_an_item_that_may_not_be_ranked_is_the_reason_alone() -> None:
    person = world(1, repeat="exclude")[0]
    taken = int(person.history.item_idx[0])
    found = person.explain(taken)
    assert found.item is None
    assert found.text == found.change.text
    assert "was taken before" in found.text
    errors = check_explanation(found, taken, person.rerank, person.history, person.forecast)
    assert errors == ()


def test_the_text_has_rank_reason_evidence_parts_and_change_and_survives_json() -> None:
    person = world(2)[1]
    found = person.explain(int(person.rerank(()).item_idx[0]))
    assert found.item
    assert isinstance(found.change, RemovalCounterfactual)
    place, why, *_, split, change = found.text.splitlines()
    assert place == f"{found.item.title}: rank 1 of {N_ITEMS}."
    assert why == found.item.text
    assert split.startswith(f"Its score {found.item.score:.2f} is the sum of: taste ")
    assert change == found.change.text
    fields = found.to_dict()
    assert fields["why_not"] is None
    assert fields["what_removes"]["rank_after"] == found.change.rank_after
    assert fields["item"]["statements"] == [
        {**vars(one), "evidence": [{**vars(e), "date": e.date.isoformat()} for e in one.evidence]}
        for one in found.item.statements
    ]
