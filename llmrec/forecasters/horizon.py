"""Forecasts of later periods: the next period's, mixed with what holds for longer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from llmrec.data.dataset import Dataset
from llmrec.data.periods import History, Window
from llmrec.data.provenance import TrainingSpan
from llmrec.data.splits import past_windows, sample_windows
from llmrec.data.stored import Stored
from llmrec.data.windows import MIN_FIT_WINDOWS
from llmrec.errors import DataError
from llmrec.forecast import Forecast, Forecaster, Source
from llmrec.forecasters.counting import DecayedDirichlet, candidate_mixes
from llmrec.forecasters.experts import ForecasterLoader
from llmrec.forecasters.loading import load_forecaster
from llmrec.forecasters.mixture import GatedMixture
from llmrec.forecasters.precomputed import predict_weights
from llmrec.forecasters.stored_values import read_number, refuse_broken

MAX_HORIZON = 4  # periods
N_FOLDS = 3  # newest past periods that are fitted on
MAX_FIT_WINDOWS = 2_000  # of them, drawn at random
NEXT_PERIOD = "next period"  # the expert that is the engine's own forecaster
_STORED_APART = Stored("NextPeriod")  # in its place where that is stored anyway
POPULATION_STRENGTH = 1e9  # pseudo-events of everybody's mix, beside which nobody's own count


@dataclass(frozen=True, eq=False)
class HorizonForecaster:
    """Forecasts the period of a number after the cutoff, by a gated mixture of three forecasts.

    They are that of the next period, counting fitted on periods as far ahead as this one, and what
    everybody takes. The gate and the dispersion are fitted on past periods as far ahead.

    Attributes
    ----------
    horizon
        Which period after the cutoff: 2 is the one after the next, up to `MAX_HORIZON`.
    mixture
        Its experts are "counting", "next period" and "population".
    """

    horizon: int
    mixture: GatedMixture

    @classmethod
    def fit(
        cls, forecaster: Forecaster, windows: Sequence[Window], horizon: int, seed: int = 0
    ) -> HorizonForecaster:
        """Fit on past windows whose targets lie ``horizon`` periods after their histories.

        Parameters
        ----------
        forecaster
            Of next periods. One that was trained on the periods between history and target gets a
            larger part than it earns; of few parameters, as those of effort "quick", none does.
        """
        histories = [window.history for window in windows]
        counting = DecayedDirichlet(name="counting").fit(windows)
        population = replace(
            counting,
            decay=0.0,
            strength=POPULATION_STRENGTH,
            mix=candidate_mixes(histories)[0],
            name="population",
        )
        experts = {"counting": counting, NEXT_PERIOD: forecaster, "population": population}
        known = {name: predict_weights(expert, histories) for name, expert in experts.items()}
        return cls(horizon, GatedMixture(experts).fit(windows, seed, known))

    @property
    def fitted(self) -> TrainingSpan | None:
        """Which events it was fitted on."""
        return self.mixture.fitted

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period of that number after each history's cutoff."""
        source = Source("HorizonForecaster", "counting", f"of {', '.join(self.mixture.experts)}")
        return [
            replace(made, source=source, horizon=self.horizon)
            for made in self.mixture.forecast(histories)
        ]

    def stored(self) -> Stored:
        """Give the horizon, and the mixture as a part."""
        return Stored(
            "HorizonForecaster", {"horizon": self.horizon}, parts={"mixture": self.mixture.stored()}
        )

    @classmethod
    def from_stored(cls, stored: Stored, load: ForecasterLoader) -> HorizonForecaster:
        """Make it again; ``load`` makes its experts. ModelLoadError if a value cannot be."""
        with refuse_broken(stored, "HorizonForecaster"):
            horizon = read_number(stored, "horizon", 2, MAX_HORIZON)
            if horizon != int(horizon):
                raise ValueError(f"horizon is {horizon}, no whole number")
            return cls(int(horizon), GatedMixture.from_stored(stored.parts["mixture"], load))


@dataclass(frozen=True, eq=False)
class LaterPeriods:
    """Forecasters of later periods of a log, by horizon, each fitted when it is first asked for.

    Attributes
    ----------
    forecaster
        Of next periods.
    dataset
        The log up to the cutoff: nothing later is fitted on.
    """

    forecaster: Forecaster
    dataset: Dataset
    _fitted: dict[int, HorizonForecaster] = field(default_factory=dict)

    def __getitem__(self, horizon: int) -> Forecaster:
        """Give the forecaster of a horizon; of 1 it is that of next periods itself.

        Raises
        ------
        DataError
            If the horizon is no whole number from 1 to `MAX_HORIZON`, or further than the log
            allows: too few people have a history, and a target that far ahead.
        """
        require_horizon(horizon)
        if horizon == 1:
            return self.forecaster
        if horizon not in self._fitted:
            windows = self._windows(horizon)
            self._fitted[horizon] = HorizonForecaster.fit(self.forecaster, windows, horizon)
        return self._fitted[horizon]

    def stored(self) -> Stored | None:
        """Give what was fitted, by horizon, without the forecaster of next periods; None: nothing.

        It is not fitted for this: what nobody asked for is not stored.
        """
        fitted = sorted(self._fitted.items())
        parts = {f"horizon{ahead}": _without_next_period(one.stored()) for ahead, one in fitted}
        return Stored("LaterPeriods", parts=parts) if parts else None

    @classmethod
    def from_stored(
        cls, stored: Stored, forecaster: Forecaster, dataset: Dataset, cutoff: np.datetime64
    ) -> LaterPeriods:
        """Make it again; what was fitted on something after the cutoff is left out.

        Parameters
        ----------
        forecaster
            Of next periods: the one that it was fitted with.
        dataset
            The log up to the cutoff, on which other horizons are fitted, or none.

        Raises
        ------
        ModelLoadError
            If it is of something else, or a value is missing or cannot be.
        """
        made = cls(forecaster, dataset)
        with refuse_broken(stored, "LaterPeriods"):
            for part in stored.parts.values():
                one = HorizonForecaster.from_stored(
                    part,
                    lambda e: forecaster if e.kind == _STORED_APART.kind else load_forecaster(e),
                )
                if one.fitted is None or one.fitted.before is None or one.fitted.before <= cutoff:
                    made._fitted[one.horizon] = one
        return made

    def _horizons(self) -> str:
        known = [1, *sorted(self._fitted)]
        return f"horizon{'s' * (len(known) > 1)} {', '.join(map(str, known))}"

    def _windows(self, horizon: int) -> list[Window]:
        if not len(self.dataset.log):
            raise DataError(
                f"there is no log to learn from what people take {horizon} periods ahead: this "
                f"engine can forecast {self._horizons()}. Load it "
                f"with data=; or, where the log is, ask for horizon={horizon} once, and save again."
            )
        windows = horizon_windows(self.dataset, horizon)
        if len(windows) < MIN_FIT_WINDOWS:
            allowed = max_horizon(self.dataset)
            periods = "1 period" if allowed == 1 else f"{allowed} periods"
            raise DataError(
                f"{self.dataset.name} allows forecasts of {periods} ahead, not of {horizon}: "
                f"{len(windows)} times somebody with a history took something {horizon} periods "
                f"later, and {MIN_FIT_WINDOWS} are needed. Give horizon={allowed} or less, shorter "
                "periods, or a longer log."
            )
        return windows


def _without_next_period(stored: Stored) -> Stored:
    """Give a stored `HorizonForecaster` without the forecaster that is stored elsewhere."""
    mixture = stored.parts["mixture"]
    experts = {**mixture.parts, NEXT_PERIOD: _STORED_APART}
    return replace(stored, parts={"mixture": replace(mixture, parts=experts)})


def horizon_windows(dataset: Dataset, horizon: int, seed: int = 0) -> list[Window]:
    """Give past windows whose targets lie ``horizon`` periods ahead: those of the newest periods.

    At most `MAX_FIT_WINDOWS`, drawn at random.
    """
    folds = past_windows(dataset, horizon)[:N_FOLDS]
    return sample_windows([window for fold in folds for window in fold], MAX_FIT_WINDOWS, seed)


def max_horizon(dataset: Dataset) -> int:
    """Give how many periods ahead a log has people enough to learn from, 1 to `MAX_HORIZON`."""
    found = 1
    while found < MAX_HORIZON and len(horizon_windows(dataset, found + 1)) >= MIN_FIT_WINDOWS:
        found += 1
    return found


def require_horizon(horizon: object) -> None:
    """Raise DataError unless it is a whole number from 1 to `MAX_HORIZON`."""
    is_whole = isinstance(horizon, int | np.integer)
    if not (is_whole and horizon in range(1, MAX_HORIZON + 1)):
        raise DataError(
            f"horizon is {horizon!r}; it should be a number of periods ahead, a whole one from 1 "
            f"(the next period) to {MAX_HORIZON}"
        )
