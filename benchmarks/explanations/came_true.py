"""Whether what an engine says comes true as often as it says, and intervals of 80 % cover 80 %.

Before each test an engine is fitted on what precedes it, and asked as a user asks it. Its list is
of popularity alone: statements do not depend on it. Rows named by a kind are of all statements that
can be made of a person and a category; "said" are those that the engine's forecasts say.

A test is of the same people as everywhere: with calendar periods those who take five events or
more. Splits "/ everybody" are of all with a history, whatever they take, as an engine's
probabilities are. Beside the engine stand what version 0.1 said (`TEMPLATE`) and, with --free-text
and for the last test, what the language model that ships with the package claims if nothing checks
it: a claim is true if the period makes it true, whoever makes it.

Wilson intervals take statements for independent, which those of one person are not: they are too
narrow. Engines are cached under --cache; remove what another version has cached.

Run: python -m benchmarks.explanations.came_true --data completejourney
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.explanations.unchecked_claims import TEMPLATE, claim_rows, template_claims
from benchmarks.finetuning.parse_rate import wilson_interval
from benchmarks.forecasting.engines import (
    ForecastTest,
    forecast_tests,
    members_besides_popularity,
)
from benchmarks.harness.engines import EFFORTS, EngineFit, load_or_fit, require_same_events
from benchmarks.harness.formatting import Row
from benchmarks.harness.logs import evaluation_dataset
from benchmarks.harness.results import mean_row, record_results, value_row
from benchmarks.ranking.splits import history_in
from llmrec.data.counts import target_counts
from llmrec.data.dataset import Dataset
from llmrec.data.periods import Window
from llmrec.data.splits import other_windows, sample_windows
from llmrec.evaluation.evaluator import coverages
from llmrec.evaluation.track_record import realized_statements
from llmrec.forecast import STATEMENT_KINDS, Forecast
from llmrec.forecasters.past_counts import PastCounts
from llmrec.forecasters.statement_outcomes import statement_outcomes
from llmrec.types import BoolArray, FloatArray

CACHE = Path("benchmark-cache/came-true")
N_BINS = 10
MIN_IN_BIN = 300  # statements whose share that came true is taken to be known
LIKELY = 0.6
THIRDS = ("short", "middling", "long")  # histories, by number of events
SAID = "said"
PEOPLE_AT_A_TIME = 500
Said = list[tuple[str, float, bool]]  # kind, probability, and whether it came true


@dataclass(frozen=True, eq=False)
class Outcomes:
    """(n,) probabilities that were said, and what came true."""

    said: FloatArray
    came_true: BoolArray

    def bins(self) -> Iterator[tuple[str, Outcomes]]:
        """Yield tenths that hold any, by their bounds."""
        position = np.minimum((self.said * N_BINS).astype(np.int64), N_BINS - 1)
        for n in np.unique(position).tolist():
            inside = position == n
            part = Outcomes(self.said[inside], self.came_true[inside])
            yield f"{n / N_BINS:.1f} to {(n + 1) / N_BINS:.1f}", part

    @property
    def gap(self) -> float:
        """Mean said less share that came true, without its sign."""
        return float(abs(self.said.mean() - self.came_true.mean()))

    def rows(self, keys: Row, name: str, *, by_bin: bool = True) -> Iterator[Row]:
        """Give the rows of all, and of each bin; none if there is nothing."""
        n = len(self.said)
        if not n:
            return
        own, parts = keys | {"model": name}, dict(self.bins())
        error = sum(len(part.said) * part.gap for part in parts.values()) / n
        sure = [part.gap for part in parts.values() if len(part.said) >= MIN_IN_BIN]
        yield value_row(own, "came_true_error", error, n)
        yield value_row(own, "came_true_worst", max(sure, default=np.nan), n)
        for label, part in {"": self, **(parts if by_bin else {})}.items():
            of_bin = keys | {"model": f"{name} {label}".strip()}
            hits, size = int(part.came_true.sum()), len(part.said)
            low, high = wilson_interval(hits, size)
            yield value_row(of_bin, "said", float(part.said.mean()), size)
            share = value_row(of_bin, "came_true", hits / size, size)
            yield share | {"low": low, "high": high}


def main() -> None:
    """Fit, forecast, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="completejourney")
    parser.add_argument("--effort", default="standard", choices=EFFORTS)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--free-text", action="store_true", help="also ask the language model")
    parser.add_argument("--people", type=int, default=100, help="whom it is asked about")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset, fit = evaluation_dataset(arguments.data), EngineFit(arguments.effort)
    cache = arguments.cache / f"{dataset.name}-{dataset.log.fingerprint}"
    rows: list[Row] = []
    fitted: dict[str, object] = {}
    tests = forecast_tests(dataset)
    for test in tests:
        plain = () if fit.effort == "quick" else members_besides_popularity(dataset)
        folder = cache / f"{fit.label}, {test.name}"
        engine = load_or_fit(test.dataset, replace(fit, without=plain), folder)
        fitted[test.name] = engine.settings.report["statements"]
        forecasts = engine.forecast_many(test.histories)
        keys = {"dataset": dataset.name, "split": test.name, "seeds": [fit.seed]}
        rows += coverage_rows(keys | {"model": fit.label}, test.windows, forecasts)
        rows += rows_of_people(keys, test.windows, forecasts)
        if everybody := with_everybody(dataset, test):
            forecasts = engine.forecast_many(everybody.histories)
            rows += rows_of_people(keys | {"split": everybody.name}, everybody.windows, forecasts)
    if arguments.free_text:
        windows = sample_windows(tests[-1].windows, arguments.people)
        forecasts = engine.forecast_many([window.history for window in windows])
        split = {"split": f"{tests[-1].name} / {len(windows)} people"}
        rows += free_text_rows(dataset, tests[-1], keys | split, windows, forecasts)
    record_results(f"explanations/came_true_{dataset.name}", rows, calibrators=fitted)


def with_everybody(dataset: Dataset, test: ForecastTest) -> ForecastTest | None:
    """Give a test of all with a history, whatever they take; None with periods of events."""
    others = other_windows(dataset, test.windows)
    if not others:
        return None
    log = test.dataset.log
    moved = [Window(history_in(one.history, log), one.target) for one in others]
    require_same_events(test.dataset, [one.history for one in moved])
    return replace(test, name=f"{test.name} / everybody", windows=[*test.windows, *moved])


def coverage_rows(
    keys: Row, windows: Sequence[Window], forecasts: Sequence[Forecast]
) -> Iterator[Row]:
    """Give the rows of how often counts lie in their 80 % interval, by length of history."""
    weights = np.stack([forecast.category_weights for forecast in forecasts])
    concentration = np.array([forecast.concentration for forecast in forecasts])
    covered = coverages(weights, concentration, windows)["coverage80"]
    lengths = [window.history.n_events for window in windows]
    thirds = np.array_split(np.argsort(lengths, kind="stable"), len(THIRDS))
    yield mean_row(keys, "coverage80", covered)
    for label, people in zip(THIRDS, thirds, strict=True):
        of_third = keys | {"split": f"{keys['split']} / {label} histories"}
        yield mean_row(of_third, "coverage80", covered[people])


def rows_of_people(
    keys: Row, windows: Sequence[Window], forecasts: Sequence[Forecast]
) -> Iterator[Row]:
    """Give the rows of all statements by kind, of those said, and of what version 0.1 said."""
    yield from statement_rows(keys, windows, forecasts)
    yield from said_rows(keys, said_of_people(windows, forecasts))
    yield from claim_rows(keys, TEMPLATE, windows, template_claims(windows, forecasts))


def statement_rows(
    keys: Row, windows: Sequence[Window], forecasts: Sequence[Forecast]
) -> Iterator[Row]:
    """Give the rows of all statements that can be made, by kind; forecasts are of one engine."""
    model = forecasts[0].statement_model
    assert model is not None
    found: dict[str, list[FloatArray]] = {kind: [] for kind in STATEMENT_KINDS}
    true: dict[str, list[BoolArray]] = {kind: [] for kind in STATEMENT_KINDS}
    for start in range(0, len(windows), PEOPLE_AT_A_TIME):
        part = windows[start : start + PEOPLE_AT_A_TIME]
        weights = [one.category_weights for one in forecasts[start : start + PEOPLE_AT_A_TIME]]
        histories = [window.history for window in part]
        outcomes = statement_outcomes(PastCounts.of(histories), target_counts(part))
        for row, chances in enumerate(model.chances(histories, np.stack(weights))):
            for kind, probability in chances.probabilities.items():
                known = ~np.isnan(probability)
                found[kind].append(probability[known])
                true[kind].append(outcomes[kind][row, known])
    for kind in STATEMENT_KINDS:
        of_kind = Outcomes(np.concatenate(found[kind]), np.concatenate(true[kind]))
        yield from of_kind.rows(keys, kind)


def said_of_people(windows: Sequence[Window], forecasts: Sequence[Forecast]) -> list[Said]:
    """Give what forecasts say of each person, and whether it came true."""
    people: list[Said] = []
    for window, forecast in zip(windows, forecasts, strict=True):
        true = realized_statements(window, forecast.statements)
        people.append(
            [
                (one.kind, one.probability or 0.0, came_true)
                for one, came_true in zip(forecast.statements, true, strict=True)
            ]
        )
    return people


def said_rows(keys: Row, said: Sequence[Said]) -> Iterator[Row]:
    """Give the rows of what is said of people."""
    of_all = keys | {"model": SAID}
    likely = [sum(probability >= LIKELY for _, probability, _ in one) for one in said]
    yield mean_row(of_all, "statements", np.array([float(len(one)) for one in said]))
    yield value_row(of_all, "median_likely_statements", float(np.median(likely)), len(said))
    flat: list[tuple[Any, ...]] = [one for person in said for one in person]
    for kind in ("", *STATEMENT_KINDS):
        chosen = [one for one in flat if kind in ("", one[0])]
        outcomes = Outcomes(
            np.array([one[1] for one in chosen]),
            np.array([one[2] for one in chosen], dtype=np.bool_),
        )
        yield from outcomes.rows(keys, f"{SAID}: {kind}" if kind else SAID, by_bin=not kind)


def free_text_rows(
    dataset: Dataset,
    test: ForecastTest,
    keys: Row,
    windows: Sequence[Window],
    forecasts: Sequence[Forecast],
) -> Iterator[Row]:
    """Give the rows of what the language model claims of some people, and of the others beside."""
    from benchmarks.explanations.free_text import FREE_TEXT, checked_rows, free_claims

    claims = free_claims(dataset, test, windows, forecasts)
    yield from said_rows(keys, said_of_people(windows, forecasts))
    yield from claim_rows(keys, TEMPLATE, windows, template_claims(windows, forecasts))
    yield from claim_rows(keys, FREE_TEXT, windows, claims)
    yield from checked_rows(keys, windows, forecasts, claims)


if __name__ == "__main__":
    main()
