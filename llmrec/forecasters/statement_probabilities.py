"""How likely statements about the next period are to come true, and which are worth saying."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from llmrec.data.counts import target_counts
from llmrec.data.periods import History, Window
from llmrec.data.stored import Stored
from llmrec.errors import DataError
from llmrec.forecast import STATEMENT_KINDS, StatementChances, StatementKind
from llmrec.forecasters.category_dispersion import CategoryDispersion
from llmrec.forecasters.next_events import NextPeriodEvents
from llmrec.forecasters.past_counts import PastCounts, blocks_of_histories
from llmrec.forecasters.probability_calibration import ProbabilityCalibrator
from llmrec.forecasters.statement_outcomes import (
    SHARE_KINDS,
    raw_probabilities,
    statement_outcomes,
)
from llmrec.forecasters.stored_values import refuse_broken
from llmrec.types import FloatArray

MAX_FIT_CELLS = 4_000_000  # (window, category) whose statements calibrators are fitted on
MAX_STATEMENTS, MAX_OF_KIND = 4, 2  # that are said about a person, and
MAX_UNLIKELY, UNLIKELY = 1, 0.6  # of those that are less likely than this
UNCHANGED = 0.98  # part of the past shares in a forecast that tells nothing
MIN_LIFT = 0.1  # of a probability over that of the forecast that tells nothing, or the usual rate
MIN_PRESENCE = 0.25  # share of the periods, and
MIN_PRESENT_PERIODS = 2  # periods, that a category "nothing of" is said of was in
# Kinds that are said only if they are likelier than under the past shares.
COMPARED_KINDS: tuple[StatementKind, ...] = ("fading", "nothing of", "rising")
LEAST: Mapping[StatementKind, float] = {  # probability of a statement that is said
    "again": 0.8,
    "fading": 0.7,
    "nothing of": 0.7,
    "rising": 0.4,
    "new": 0.3,
    "returning": 0.3,
}


class ProbableStatement(NamedTuple):
    """A statement, its probability, and the share of statements of its kind that come true."""

    kind: StatementKind
    category: int
    probability: float
    usual_rate: float


@dataclass(frozen=True, eq=False)
class StatementProbabilities:
    """Probabilities of statements about a person's next period, given a forecast's weights.

    A number of events, a beta-binomial of each category's part of them, and a calibrator a kind:
    all fitted on validation windows, on weights that were not.

    Attributes
    ----------
    categories
        Names of the log's categories.
    events, dispersion
        The first two.
    calibrators
        By kind, each with its usual rate and number of cases; one with too few calibrates nothing,
        and its kind has no probabilities.
    """

    categories: tuple[str, ...]
    events: NextPeriodEvents
    dispersion: CategoryDispersion
    calibrators: Mapping[StatementKind, ProbabilityCalibrator]

    @classmethod
    def fit(
        cls,
        windows: Sequence[Window],
        category_weights: FloatArray,
        *,
        min_target_events: int = 0,
        seed: int = 0,
    ) -> StatementProbabilities:
        """Fit on validation windows.

        Parameters
        ----------
        category_weights
            (n_windows, n_categories) weights of a forecaster that was not fitted on these windows,
            such as `HeldOutPredictions`.
        min_target_events
            How many events a target had to have to be among the windows: probabilities are those
            given as many. 0: nobody was left out.
        seed
            Of the cells that are drawn where there are very many.

        Raises
        ------
        DataError
            If there are no windows, or the weights are not of them.
        """
        if not windows:
            raise DataError("probabilities of statements need validation windows, not none")
        categories = windows[0].history.catalog.categories
        if category_weights.shape != (len(windows), len(categories)):
            raise DataError(
                f"category_weights are of shape {category_weights.shape}; {len(windows)} windows "
                f"of {len(categories)} categories need {(len(windows), len(categories))}"
            )
        events = NextPeriodEvents.fit(windows, min_target_events)
        dispersion = CategoryDispersion.fit(windows, category_weights, seed)
        fitted = cls(categories, events, dispersion, {})
        most = max(1, MAX_FIT_CELLS // len(categories))
        rows = np.sort(np.random.default_rng(seed).permutation(len(windows))[:most])
        chosen = [windows[row] for row in rows]
        calibrators = fitted._fit_calibrators(chosen, category_weights[rows], seed)
        return cls(categories, events, dispersion, calibrators)

    def probabilities(
        self, histories: Sequence[History], category_weights: FloatArray
    ) -> dict[StatementKind, FloatArray]:
        """(n_histories, n_categories) probabilities by kind, in (0, 1).

        NaN where a statement cannot be said of a category, and of a kind without a calibrator. All
        of a batch are in memory: give as many histories at a time as six such arrays may be of.

        Raises
        ------
        DataError
            If the histories are of other categories.
        """
        return self._calibrated(histories, category_weights, category_weights)

    def chances(
        self, histories: Sequence[History], category_weights: FloatArray
    ) -> list[StatementChances]:
        """Give each person's probabilities, and which statements are worth saying.

        Each is likely enough for its kind (`LEAST`) and tells more than the usual rate does; a
        change tells more than a forecast of the past shares would. Of a batch each person gets what
        they get alone.
        """
        rates = {kind: one.usual_rate for kind, one in self.calibrators.items() if one.is_fitted}
        people: list[StatementChances] = []
        for rows in blocks_of_histories(histories):
            part, weights = histories[rows], category_weights[rows]
            past = PastCounts.of(part)
            unchanged = UNCHANGED * past.shares + (1 - UNCHANGED) * weights
            found = self._calibrated(part, weights, weights, past)
            without = self._calibrated(part, weights, unchanged, past, COMPARED_KINDS)
            gains = {kind: self._gains(kind, past, one, without) for kind, one in found.items()}
            for row in range(len(part)):
                own, said = ({kind: one[row] for kind, one in of.items()} for of in (found, gains))
                people.append(StatementChances(own, said, rates))
        return people

    def choose_statements(
        self, histories: Sequence[History], category_weights: FloatArray
    ) -> list[list[ProbableStatement]]:
        """Choose what is worth saying about each person, see `choose_statements`."""
        return [choose_statements(one) for one in self.chances(histories, category_weights)]

    @property
    def report(self) -> dict[str, Any]:
        """Plain values: of each kind the number of cases and its usual rate, None if not fitted."""
        return {
            kind: {"cases": one.n_cases, "usual_rate": one.usual_rate if one.is_fitted else None}
            for kind, one in self.calibrators.items()
        }

    def stored(self) -> Stored:
        """Give all that was fitted."""
        parts = {"events": self.events.stored(), "dispersion": self.dispersion.stored()}
        parts |= {kind: one.stored() for kind, one in self.calibrators.items()}
        return Stored("StatementProbabilities", {"categories": list(self.categories)}, parts=parts)

    @classmethod
    def from_stored(cls, stored: Stored, categories: Sequence[str]) -> StatementProbabilities:
        """Make it again.

        Raises
        ------
        ModelLoadError
            If it was fitted for other categories, or a value is missing or cannot be.
        """
        with refuse_broken(stored, "StatementProbabilities"):
            own = tuple(stored.values["categories"])
            if own != tuple(categories):
                raise ValueError(
                    f"it was fitted for {len(own)} other categories than the {len(categories)} of "
                    "this catalog: fit it again"
                )
            events = NextPeriodEvents.from_stored(stored.parts["events"])
            dispersion = CategoryDispersion.from_stored(stored.parts["dispersion"], len(own))
            calibrators = {
                kind: ProbabilityCalibrator.from_stored(stored.parts[kind], kind)
                for kind in STATEMENT_KINDS
            }
            return cls(own, events, dispersion, calibrators)

    def _calibrated(
        self,
        histories: Sequence[History],
        weights: FloatArray,
        told: FloatArray,
        past: PastCounts | None = None,
        kinds: Collection[StatementKind] = STATEMENT_KINDS,
    ) -> dict[StatementKind, FloatArray]:
        """Probabilities under weights ``told`` that scatter as the forecast does."""
        past = past or PastCounts.of(histories)
        raw, none = self._raw(histories, weights, told, past, kinds)
        found = {kind: self.calibrators[kind].apply(values) for kind, values in raw.items()}
        return found | {kind: found[kind] * (1 - none[:, None]) for kind in SHARE_KINDS}

    def _raw(
        self,
        histories: Sequence[History],
        weights: FloatArray,
        told: FloatArray,
        past: PastCounts,
        kinds: Collection[StatementKind] = STATEMENT_KINDS,
    ) -> tuple[dict[StatementKind, FloatArray], FloatArray]:
        """Uncalibrated probabilities, and the (n_histories,) ones that nothing is taken."""
        if histories[0].catalog.categories != self.categories:
            raise DataError(
                "probabilities of statements were fitted for other categories than those of the "
                "histories: fit them again"
            )
        concentration = self.dispersion.concentration(histories, weights)
        shares, per_share = self.dispersion.event_shares(told), self.dispersion.per_share
        numbers = self.events.distribution(histories)
        raw = raw_probabilities(past, shares, concentration, numbers, per_share, kinds)
        return raw, numbers.none

    def _fit_calibrators(
        self, windows: Sequence[Window], category_weights: FloatArray, seed: int
    ) -> dict[StatementKind, ProbabilityCalibrator]:
        cases: dict[StatementKind, list[tuple[Any, ...]]] = {kind: [] for kind in STATEMENT_KINDS}
        histories = [window.history for window in windows]
        for rows in blocks_of_histories(histories):
            past, weights = PastCounts.of(histories[rows]), category_weights[rows]
            found, _ = self._raw(histories[rows], weights, weights, past)
            targets = target_counts(windows[rows])
            outcomes = statement_outcomes(past, targets)
            has_events = np.broadcast_to(targets.any(axis=1, keepdims=True), targets.shape)
            for kind, values in found.items():
                known = ~np.isnan(values)
                cases[kind].append((values[known], outcomes[kind][known], has_events[known]))
        fitted = {}
        for kind, blocks in cases.items():
            raw, true, some = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
            fitted[kind] = ProbabilityCalibrator.fit(kind, raw, true, some, seed)
        return fitted

    def _gains(
        self,
        kind: StatementKind,
        past: PastCounts,
        found: FloatArray,
        without: Mapping[StatementKind, FloatArray],
    ) -> FloatArray:
        """(n_histories, n_categories) how much more a statement tells; NaN: it is not said.

        ``without`` are the probabilities of `COMPARED_KINDS` under the past shares.
        """
        usual = self.calibrators[kind].usual_rate
        over_usual = found - usual
        said = (found >= LEAST[kind]) & (over_usual > 0)
        said &= (found >= UNLIKELY) | (over_usual >= MIN_LIFT)
        if kind not in COMPARED_KINDS:
            return np.where(said, over_usual / 2 if kind == "again" else over_usual, np.nan)
        gain = found - without[kind]
        said &= gain >= MIN_LIFT
        if kind == "nothing of":
            least = np.maximum(MIN_PRESENT_PERIODS, MIN_PRESENCE * past.n_periods)
            said &= past.n_periods_with >= least[:, None]
        return np.where(said, gain, np.nan)


def choose_statements(chances: StatementChances) -> list[ProbableStatement]:
    """Choose what is worth saying about a person, what tells most first.

    At most `MAX_STATEMENTS`, one a category and `MAX_OF_KIND` of a kind, and `MAX_UNLIKELY` of
    those that are `UNLIKELY`.
    """
    candidates = sorted(
        (-float(gains[category]), kind, int(category))
        for kind, gains in chances.gains.items()
        for category in np.flatnonzero(~np.isnan(gains))
    )
    said: dict[int, ProbableStatement] = {}
    of_kind: Counter[StatementKind] = Counter()
    n_unlikely = 0
    for _, kind, category in candidates:
        probability = float(chances.probabilities[kind][category])
        is_unlikely = probability < UNLIKELY
        if len(said) == MAX_STATEMENTS:
            break
        if category in said or of_kind[kind] == MAX_OF_KIND:
            continue
        if is_unlikely and n_unlikely == MAX_UNLIKELY:
            continue
        of_kind[kind] += 1
        n_unlikely += is_unlikely
        said[category] = ProbableStatement(kind, category, probability, chances.usual_rates[kind])
    return list(said.values())
