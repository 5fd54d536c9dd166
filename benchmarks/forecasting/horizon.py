"""How well later periods are forecast: the period of a number after the cutoff, 1 to 4.

The target periods are those of all benchmarks of forecasts; histories end one to four periods
before their end, and everything is fitted on what precedes them: an engine of effort "quick",
counting, and `HorizonForecaster` on the engine. People are those with a history at all horizons, so
that a split has the same people and events at each. "Unchanged" is the engine's forecast of the
next period, used for a later one.

Run: python -m benchmarks.forecasting.horizon
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from benchmarks.forecasting.engines import members_besides_popularity
from benchmarks.harness.formatting import Row
from benchmarks.harness.labels import COUNTING
from benchmarks.harness.logs import available_logs, evaluation_dataset
from benchmarks.harness.results import mean_row, record_results
from benchmarks.ranking.splits import history_in
from llmrec.data.calendar import PeriodLength
from llmrec.data.counts import target_counts
from llmrec.data.dataset import Dataset
from llmrec.data.periods import Window
from llmrec.data.splits import past_windows, training_log_for
from llmrec.engine_fit import fit_engine
from llmrec.evaluation.evaluator import coverages, predict
from llmrec.evaluation.horizons import windows_by_horizon
from llmrec.forecast import Forecaster
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.horizon import LaterPeriods
from llmrec.metrics import log_loss

UNCHANGED, FITTED = "next-period forecast, unchanged", "HorizonForecaster"
SPLITS = {"validation": 2, "test 1": 1, "test 2": 0}  # how many periods before the last one
EVENT_SPLITS = {"validation": 1, "test": 0}


@dataclass(frozen=True, eq=False)
class Origin:
    """A log as it was before the histories end, and what is fitted on it."""

    known: Dataset

    @cached_property
    def counting(self) -> DecayedDirichlet:
        """Counting of next periods."""
        return DecayedDirichlet().fit(past_windows(self.known)[0])

    @cached_property
    def later(self) -> LaterPeriods:
        """The forecasters of an engine of effort "quick", by horizon; lists have no part in it."""
        without = members_besides_popularity(self.known)
        return LaterPeriods(fit_engine(self.known, "quick", without=without).prior, self.known)

    def forecasters(self, horizon: int) -> dict[str, Forecaster]:
        """Give what is compared, by name."""
        return {COUNTING: self.counting, UNCHANGED: self.later[1], FITTED: self.later[horizon]}


def main() -> None:
    """Fit, evaluate, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="*", default=available_logs())
    parser.add_argument("--splits", nargs="*", default=(*SPLITS, *EVENT_SPLITS))
    arguments = parser.parse_args()
    rows: list[Row] = []
    for name in arguments.data:
        dataset = evaluation_dataset(name)
        origins: dict[str, Origin] = {}  # by the fingerprint of their log
        by_events = PeriodLength.parse(dataset.period).unit == "events"
        for split, back in (EVENT_SPLITS if by_events else SPLITS).items():
            if split in arguments.splits:
                rows += split_rows(dataset, split, windows_by_horizon(dataset, back=back), origins)
    record_results("forecasting/horizon", rows)


def split_rows(
    dataset: Dataset, split: str, tests: Mapping[int, list[Window]], origins: dict[str, Origin]
) -> Iterator[Row]:
    """Give losses, paired gains and coverage of a split, by horizon."""
    for horizon, windows in tests.items():
        log = training_log_for(windows).align_to(dataset.catalog)
        known = replace(dataset, log=log, item_rows=None)
        origin = origins.setdefault(log.fingerprint, Origin(known))
        moved = [Window(history_in(one.history, log), one.target) for one in windows]
        keys = {"dataset": dataset.name, "split": f"{split}, horizon {horizon}", "seeds": [0]}
        yield from horizon_rows(keys, moved, origin.forecasters(horizon))


def horizon_rows(
    keys: Row, windows: list[Window], forecasters: Mapping[str, Forecaster]
) -> Iterator[Row]:
    """Give the rows of one horizon."""
    targets, losses = target_counts(windows), {}
    for name, forecaster in forecasters.items():
        weights, concentration = predict(forecaster, windows)
        losses[name] = log_loss(weights, targets)
        covered = coverages(weights, concentration, windows)["coverage80"]
        yield mean_row(keys | {"model": name}, "log_loss", losses[name])
        yield mean_row(keys | {"model": name}, "coverage80", covered)
    for name, metric, reference in (
        (UNCHANGED, "gain_on_counting", COUNTING),
        (FITTED, "gain_on_counting", COUNTING),
        (FITTED, "gain_on_unchanged", UNCHANGED),
    ):
        yield mean_row(keys | {"model": name}, metric, np.subtract(losses[reference], losses[name]))


if __name__ == "__main__":
    main()
