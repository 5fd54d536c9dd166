"""The members of an engine, by effort: forecasters and scorers, each fitted or looked up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from llmrec.data.calendar import MILLISECOND, PeriodLength
from llmrec.data.counts import target_counts
from llmrec.data.dataset import Dataset
from llmrec.data.interactions import Interactions
from llmrec.data.periods import Window
from llmrec.data.splits import (
    other_windows,
    sample_part,
    sample_windows,
    training_log_for,
)
from llmrec.data.stored import Stored
from llmrec.engine_folder import catalog_fingerprint
from llmrec.engine_settings import Effort
from llmrec.errors import DataError
from llmrec.fit_store import FitProgress, FitStore
from llmrec.forecast import Forecaster, ItemScorer
from llmrec.forecasters.calibration import fit_interpolation, interpolate
from llmrec.forecasters.category_lifts import MAX_CATEGORIES as MAX_LIFT_CATEGORIES
from llmrec.forecasters.dispersion import fit_dispersion
from llmrec.forecasters.loading import load_forecaster
from llmrec.forecasters.precomputed import HeldOutPredictions, predict_weights
from llmrec.forecasters.registry import MIXTURE_EXPERTS, ForecasterRegistry
from llmrec.forecasters.selection import Selection, select_mixture
from llmrec.ranking.feature_scorers import kind_of
from llmrec.ranking.new_items import NEW_ITEM_ONLY_SCORER, NEW_ITEM_SCORERS
from llmrec.ranking.registry import (
    build_scorer,
    default_scorers,
    first_stage_scorers,
    text_scorers,
)
from llmrec.ranking.selection import MEMBER_ERRORS, TREES, ListSelection, select_list

PRETRAINED = "PretrainedForecaster"  # above "quick" its nets are trained further on the log
QUICK_EXPERTS = ("DecayedDirichlet", "GlobalDrift", PRETRAINED)
NETS = ("CellMLP", "GRU")  # forecasters trained on the log
# Scorers trained on it, and forecasters too.
NEXT_ITEM_NETS: tuple[Any, ...] = ("GRU4Rec", "SASRec", "eSASRec")
N_FOLDS: dict[str, int] = {"quick": 1, "standard": 5, "best": 3}  # past periods of lists
MAX_QUICK_WINDOWS = 500
STATEMENTS = "probabilities of statements"
MAX_STATEMENT_WINDOWS = 5_000
# Most windows x categories of the last period that members are chosen on: 134 MB an array.
MAX_VALIDATION_CELLS = 2**24
COSTS = dict.fromkeys(NETS, 30.0) | dict.fromkeys(NEXT_ITEM_NETS, 60.0)
COSTS |= {TREES: 20.0, STATEMENTS: 5.0, PRETRAINED: 5.0}


def max_windows(n_categories: int) -> int:
    """Give the most windows of one period whose weights of all categories are held in memory."""
    return max(MAX_QUICK_WINDOWS, MAX_VALIDATION_CELLS // n_categories)


@dataclass(eq=False)
class MemberFit:
    """One fit: the log's windows by period, newest first, and what was trained so far."""

    dataset: Dataset
    folds: Sequence[Sequence[Window]]
    effort: Effort | str
    seed: int
    without: frozenset[str]
    store: FitStore
    show: Callable[[str], None]
    progress: FitProgress = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.dataset.log.align_to(self.dataset.catalog)
        self.validation, self.catalog = list(self.folds[0]), self.dataset.catalog
        # With periods of events "before" holds person by person: each has a next period of theirs.
        by_events = PeriodLength.parse(self.dataset.period).unit == "events"
        self.end = None if by_events else self.log.timestamp.max() + MILLISECOND
        self.remarks: list[str] = []  # on members that are not as they should be
        self._nets: dict[tuple[str, str], ItemScorer] = {}
        self.progress = FitProgress(self.show)
        self.progress.plan(self._total_cost())

    @property
    def expert_names(self) -> list[str]:
        """Names of the forecasters to mix."""
        names: tuple[str, ...] = QUICK_EXPERTS
        if self.effort != "quick":  # those that refuse many categories are reported as left out
            names = (*MIXTURE_EXPERTS, "CategoryMarkov", PRETRAINED)
        if self.effort == "best":
            names = (*names, *(net for net in NETS if net not in names), *NEXT_ITEM_NETS)
        else:
            names = tuple(name for name in names if name not in NETS)
        return [name for name in names if name not in self.without]

    @property
    def scorer_names(self) -> list[str]:
        """Names of the scorers to blend, and for trees."""
        choose = default_scorers if self.effort == "quick" else first_stage_scorers
        names = choose(self.dataset.period, self.catalog.n_items, self.dataset.repeat)
        names = (*names, *NEXT_ITEM_NETS) if self.effort == "best" else names
        return [name for name in names if name not in self.without]

    @property
    def text_names(self) -> list[str]:
        """Names of the scorers to blend that know items by their titles."""
        return [name for name in self._by_title if kind_of(name) != NEW_ITEM_ONLY_SCORER]

    @property
    def new_item_names(self) -> list[str]:
        """Names of the scorers of new items."""
        return [name for name in self._by_title if kind_of(name) in NEW_ITEM_SCORERS]

    @property
    def _by_title(self) -> list[str]:
        return [name for name in text_scorers(self.catalog) if name not in self.without]

    @property
    def n_folds(self) -> int:
        """Number of periods that lists are learned from."""
        if TREES in self.without:
            return 1
        return min(len(self.folds), N_FOLDS[self.effort])

    def check_names(self) -> None:
        """Raise DataError for a name that no member has."""
        everything = MemberFit(
            self.dataset, self.folds, "best", 0, frozenset(), self.store, self.show
        )
        known = {*QUICK_EXPERTS, *everything.expert_names, *everything.scorer_names, TREES}
        known |= {*text_scorers(self.catalog)}
        known |= {*default_scorers(self.dataset.period, 1, self.dataset.repeat)}
        if unknown := sorted(self.without - known):
            raise DataError(
                f"no member is called {unknown[0]!r}; choose from {', '.join(sorted(known))}"
            )

    def select_forecaster(self) -> Selection:
        """Fit all experts, and choose how to mix which of them."""
        experts: dict[str, Forecaster | Exception] = {}
        for name in self.expert_names:
            try:
                experts[name] = self._expert(name)
            except MEMBER_ERRORS as error:
                experts[name] = error
        counting = self.registry["DecayedDirichlet"]
        return select_mixture(
            experts, self.validation, self.seed, counting=counting, fallback=PRETRAINED
        )

    def select_list(self) -> ListSelection:
        """Fit all scorers and trees, and choose their weights."""
        folds = self.folds[: self.n_folds]
        if self.effort == "quick":
            folds = [sample_windows(folds[0], MAX_QUICK_WINDOWS, self.seed)]
        without = self.without | ({TREES} if self.effort == "quick" else set())
        return select_list(
            self.log,
            self.catalog,
            folds,
            self.scorer_names,
            self._scorer,
            cutoff=self.end,
            repeat=self.dataset.repeat,
            seed=self.seed,
            without=sorted(without),
            text_names=self.text_names,
            new_item_names=self.new_item_names,
            before_trees=lambda: self.progress.begin(TREES, COSTS[TREES]),
        )

    def predict_everybody(self, selection: Selection) -> tuple[list[Window], HeldOutPredictions]:
        """Give windows of everybody of the last period, and their weights, for statements.

        Weights of the windows that members were chosen by are held out; those of other people the
        forecaster was not fitted on.
        """
        self.progress.begin(STATEMENTS, COSTS[STATEMENTS])
        others = other_windows(self.dataset, self.validation)
        most = min(MAX_STATEMENT_WINDOWS, max_windows(self.catalog.n_categories))
        part = min(1.0, most / (len(self.validation) + len(others)))
        held_out = sample_part(self.validation, part, self.seed)
        others = sample_part(others, part, self.seed)
        weights = selection.held_out.lookup(held_out)
        if others:
            histories = [window.history for window in others]
            predicted = predict_weights(selection.forecaster, histories)
            weights = np.concatenate([weights, predicted])
        everybody = [*held_out, *others]
        return everybody, HeldOutPredictions.of(everybody, weights)

    def with_newest_nets(self, forecaster: Any) -> Forecaster:
        """Give next-item nets among the experts the parameters of a training on the whole log.

        One that diverges there stays as it was, and ``remarks`` say why.
        """
        if not self._nets:  # and torch may not be there
            return forecaster  # type: ignore[no-any-return]
        from llmrec.forecasters.sequential import NextItemModel

        def newest(expert: Any) -> Any:
            if not isinstance(expert, NextItemModel):
                return expert
            try:
                scorer: Any = self._scorer(expert.model, self.log, self.end)
            except MEMBER_ERRORS as error:
                self.remarks.append(f"{expert.model} is that of before the last period: {error}")
                return expert
            return NextItemModel.of(scorer, expert.prior, expert.share, expert.spread)

        if hasattr(forecaster, "experts"):
            forecaster.experts = {name: newest(one) for name, one in forecaster.experts.items()}
            return forecaster  # type: ignore[no-any-return]
        found: Forecaster = newest(forecaster)
        return found

    @cached_property
    def registry(self) -> ForecasterRegistry:
        """Fits experts on the windows before the last period, and on those of it."""
        training = [window for fold in self.folds[:0:-1] for window in fold] or self.validation
        tune = self.effort != "quick"
        found = ForecasterRegistry(training, self.validation, self.seed, tune=tune)
        if PRETRAINED in self.without:
            return found
        if self.catalog.n_categories > MAX_LIFT_CATEGORIES:
            self.remarks.append(
                f"{PRETRAINED} knows nothing of what is taken together: that is counted of "
                f"{MAX_LIFT_CATEGORIES:,} categories at most"
            )
        if tune and not found.tune:
            self.remarks.append(f"{PRETRAINED} is as it comes: training it further needs torch")
        return found

    def _expert(self, name: str) -> Forecaster:
        if name in NEXT_ITEM_NETS:
            return self._next_item_expert(name)
        self.progress.begin(name, COSTS.get(name, 1.0))
        if name not in NETS:
            return self.registry[name]
        stored = self.store.get(
            name, self._key(self.log, "forecast"), lambda: self._train_network(name)
        )
        network: Any = load_forecaster(stored.parts["forecaster"])
        network.held_out = HeldOutPredictions.of(self.validation, stored.arrays["held_out"])
        return network  # type: ignore[no-any-return]

    def _train_network(self, name: str) -> Stored:
        network: Any = self.registry[name]
        held_out = network.held_out.lookup(self.validation)
        parts = {"forecaster": network.stored()}
        return Stored("Member", arrays={"held_out": held_out}, parts=parts)

    def _next_item_expert(self, name: str) -> Forecaster:
        """Mix a net that has not seen the last period into counting, by as much as helps there."""
        from llmrec.forecasters.sequential import NextItemModel

        before = training_log_for(self.validation).align_to(self.catalog)
        scorer: Any = self._scorer(name, before, None)
        drift: Any = self.registry["GlobalDrift"]
        histories = [window.history for window in self.validation]
        counted, targets = drift.category_weights(histories), target_counts(self.validation)
        predicted = scorer.category_shares(histories)
        share, _ = fit_interpolation(counted, predicted, targets)
        spread = fit_dispersion(self.validation, interpolate(counted, predicted, share))
        return NextItemModel.of(scorer, drift, share, spread)

    def _scorer(self, name: str, log: Interactions, cutoff: np.datetime64 | None) -> ItemScorer:
        """Fit a scorer on a log; the same net is trained once."""
        if name not in NEXT_ITEM_NETS:
            self.progress.begin(name, 0.5)
            return build_scorer(name, log, self.catalog, cutoff)
        from llmrec.forecasters.next_item import NextItemScorer

        if (name, log.fingerprint) in self._nets:
            return self._nets[name, log.fingerprint]
        self.progress.begin(name, COSTS[name])

        def train() -> Stored:
            net: Any = name
            scorer = NextItemScorer(net, repeat=self.dataset.repeat)
            return scorer.fit(log, self.catalog, cutoff, seed=self.seed).stored()

        stored = self.store.get(name, self._key(log, "scores"), train)
        self._nets[name, log.fingerprint] = NextItemScorer.from_stored(stored, self.catalog)
        return self._nets[name, log.fingerprint]

    def _key(self, log: Interactions, purpose: str) -> dict[str, Any]:
        return {
            "purpose": purpose,
            "log": log.fingerprint,
            "catalog": catalog_fingerprint(self.catalog),
            "period": self.dataset.period,
            "repeat": self.dataset.repeat,
            "seed": self.seed,
        }

    def _total_cost(self) -> float:
        trained = sum(COSTS.get(name, 1.0) for name in self.expert_names)
        statistics = [name for name in self.scorer_names if name not in NEXT_ITEM_NETS]
        n_by_title = len({*self.text_names, *self.new_item_names})
        each = 0.5 * len(statistics) * (1 + self.n_folds) + n_by_title
        nets = [COSTS[name] for name in self.scorer_names if name in NEXT_ITEM_NETS]
        of_trees = COSTS[TREES] if self.n_folds > 1 else 0.0
        rest = self.n_folds * sum(nets) + of_trees + COSTS[STATEMENTS]
        return float(trained + each + rest)
