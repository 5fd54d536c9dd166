"""Which scorers an engine's list is made of, on which events, and what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax

from llmrec.data.calendar import MILLISECOND
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History
from llmrec.data.splits import past_windows, training_log_for
from llmrec.errors import LlmrecError, MissingExtraError, TrainingError
from llmrec.forecast import ItemScorer
from llmrec.ranking.registry import build_scorer
from llmrec.ranking.selection import TREES, ListSelection, select_list
from llmrec.types import FloatArray
from tests.worlds import catalog, log

NAMES = ("RecentPopularity", "PersonalRepeat", "Cosine")
ITEMS: Catalog = catalog()
LOG: Interactions = log(60, n_periods=8).align_to(ITEMS)
DATASET = Dataset("world", LOG, ITEMS, "7D", "items", "person", "allow")
FOLDS = past_windows(DATASET)
END = LOG.timestamp.max() + MILLISECOND


class Fitting:
    """Fits scorers by name, remembers on what, and fails where it is told to."""

    def __init__(self, failures: dict[str, Exception] | None = None) -> None:
        self.failures = failures or {}
        self.calls: list[tuple[str, Interactions, np.datetime64 | None]] = []

    def __call__(self, name: str, events: Interactions, cutoff: np.datetime64 | None) -> ItemScorer:
        self.calls.append((name, events, cutoff))
        if name in self.failures:
            raise self.failures[name]
        return build_scorer(name, events, ITEMS, cutoff)


def select(fit: Fitting, n_folds: int = 1, names: Sequence[str] = NAMES, **options: Any) -> Any:
    return select_list(
        LOG, ITEMS, FOLDS[:n_folds], names, fit, cutoff=END, repeat="allow", **options
    )


def test_scorers_that_are_judged_have_not_seen_the_targets_and_those_of_the_engine_all() -> None:
    fit = Fitting()
    select(fit, 2, without=[TREES])
    assert [name for name, _, _ in fit.calls] == [*NAMES, *NAMES, *NAMES]
    for place, (_, events, cutoff) in enumerate(fit.calls[:6]):
        start = min(window.target.period.start for window in FOLDS[place // 3])
        assert events.timestamp.max() < start
        assert cutoff is None
    for _, events, cutoff in fit.calls[6:]:
        assert events is LOG
        assert cutoff == END


@pytest.mark.parametrize("error", [TrainingError("it diverged"), MissingExtraError("no package")])
def test_a_scorer_that_fails_is_left_out_with_its_reason_and_not_tried_again(
    error: Exception,
) -> None:
    fit = Fitting({"Cosine": error})
    found = select(fit)
    assert [name for name, _, _ in fit.calls].count("Cosine") == 1
    (member,) = [member for member in found.members if member.name == "Cosine"]
    assert not member.kept
    assert member.ndcg is None
    assert str(error) in member.reason
    assert found.blend.names == select(Fitting(), names=NAMES[:2]).blend.names


def test_where_no_scorer_is_left_each_reason_is_given() -> None:
    fit = Fitting({name: TrainingError(f"why {name}") for name in NAMES})
    with pytest.raises(LlmrecError, match=r"why RecentPopularity.*why PersonalRepeat"):
        select(fit)


def test_a_member_that_is_not_to_be_used_is_not_fitted() -> None:
    fit = Fitting()
    found = select(fit, without=["Cosine", TREES])
    assert "Cosine" not in {name for name, _, _ in fit.calls}
    assert {member.name for member in found.members} == set(NAMES[:2])


@pytest.fixture(scope="module")
def with_trees() -> ListSelection:
    pytest.importorskip("lightgbm")
    found: ListSelection = select(Fitting(), 4)
    return found


def test_trees_are_a_member_and_what_they_need_is_kept(with_trees: ListSelection) -> None:
    (trees,) = [member for member in with_trees.members if member.name == TREES]
    assert trees.ndcg is not None
    assert trees.kept == (with_trees.blend.trees is not None) == (trees.weight > 0)
    if trees.kept:
        assert len(with_trees.blend.scorers) == len(NAMES)
        assert with_trees.blend.trees_weight == trees.weight


def test_figures_are_those_of_the_lists_and_plain_values(with_trees: ListSelection) -> None:
    assert 0 < with_trees.ndcg <= 1
    for member in with_trees.members:
        assert member.kept or member.weight == 0
        assert member.ndcg is None or 0 <= member.ndcg <= 1
    values = with_trees.to_dict()
    assert values["ndcg"] == with_trees.ndcg
    assert [member["name"] for member in values["members"]] == [*NAMES, TREES]


def test_without_the_package_of_trees_the_scorers_rank_alone_and_the_reason_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing() -> None:
        raise MissingExtraError("a GBDTReranker needs the package lightgbm")

    monkeypatch.setattr("llmrec.ranking.gbdt.import_lightgbm", missing)
    found = select(Fitting(), 4)
    (trees,) = [member for member in found.members if member.name == TREES]
    assert not trees.kept
    assert "needs the package lightgbm" in trees.reason
    assert found.blend.trees is None


def test_where_periods_are_too_few_for_trees_the_reason_is_given() -> None:
    begun: list[str] = []
    found = select(Fitting(), 2, before_trees=lambda: begun.append(TREES))
    (trees,) = [member for member in found.members if member.name == TREES]
    assert not trees.kept
    assert trees.reason == "trees need 3 past periods, and there are 2"
    assert begun == [TREES]


def test_to_leave_every_scorer_out_is_refused() -> None:
    with pytest.raises(LlmrecError, match="leave one in"):
        select(Fitting(), without=NAMES)


def test_lists_of_new_items_have_scorers_that_the_blend_does_not() -> None:
    found = select(Fitting(), without=[TREES], new_item_names=["Ease"])
    assert [*found.text_scorers] == [*found.validation_text_scorers] == ["Ease"]
    assert "Ease" not in {member.name for member in found.members}
    last = [window.history for window in found.windows]
    past = training_log_for(FOLDS[0]).align_to(ITEMS)
    expected = build_scorer("Ease", past, ITEMS).scores(last)
    np.testing.assert_allclose(found.validation_text_scorers["Ease"].scores(last), expected, 1e-6)


class Told:
    """Scores what a person takes in the newest period first, or last."""

    name = "told"

    def __init__(self, better: float) -> None:
        self.rows = {window.history.user_id: window.target.item_idx for window in FOLDS[0]}
        self.better = better

    def scores(self, histories: Sequence[History]) -> FloatArray:
        found = np.zeros((len(histories), ITEMS.n_items))
        for row, history in zip(found, histories, strict=True):
            row[self.rows.get(history.user_id, [])] = self.better
        return np.asarray(log_softmax(found, axis=1))


@pytest.mark.parametrize("helps", [True, False])
def test_a_trend_is_in_the_blend_if_it_helps_and_trees_never_see_it(helps: bool) -> None:
    fit = Fitting()

    def fit_trend(name: str, events: Interactions, cutoff: np.datetime64 | None) -> ItemScorer:
        is_trend = name == "PopularityTrend"
        return Told(1.0 if helps else -1.0) if is_trend else fit(name, events, cutoff)

    names = ("PopularityOfAllTime", "PopularityTrend")
    found = select_list(LOG, ITEMS, FOLDS[:3], names, fit_trend, cutoff=END, repeat="allow")
    member = {one.name: one for one in found.members}["PopularityTrend"]
    assert member.ndcg is not None
    assert member.kept == helps
    assert ("told" in found.blend.names) == helps
    assert found.blend.trees is None or found.blend.trees.n_scorers == 1
    assert not found.text_scorers
