"""Whether statements come true as often as they say, and intervals of 80 % cover 80 %.

Probabilities, calibrators and dispersion are fitted on validation windows, on held-out weights of
`GatedMixture` (seed 0, as in `forecasting.quality`), and measured on the tests. Statements are all
that can be made of a person and a category; "said" are the four that would be chosen.

A test is of the same people as everywhere: with calendar periods those who take five events or
more, and what is fitted is fitted on such people. Splits "/ everybody" also hold who takes less or
nothing, and what is fitted there is fitted on everybody. Wilson intervals of bins take statements
for independent, which those of one person are not: they are too narrow. Weights are cached.

Run: python -m benchmarks.explanations.came_true --data completejourney
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.explanations.mixture_weights import WeightedWindows, mixture_weights
from benchmarks.finetuning.parse_rate import wilson_interval
from benchmarks.harness.formatting import Row
from benchmarks.harness.labels import MIXTURE
from benchmarks.harness.results import mean_row, record_results, value_row
from llmrec.data.calendar import PeriodLength
from llmrec.data.counts import target_counts
from llmrec.data.readers import load_dataset
from llmrec.data.splits import MIN_TARGET_EVENTS
from llmrec.evaluation.evaluator import coverages
from llmrec.forecast import STATEMENT_KINDS
from llmrec.forecasters.dispersion import fit_dispersion
from llmrec.forecasters.past_counts import PastCounts, blocks_of_histories
from llmrec.forecasters.statement_outcomes import statement_outcomes
from llmrec.forecasters.statement_probabilities import StatementProbabilities
from llmrec.types import BoolArray, FloatArray

N_BINS = 10
MIN_IN_BIN = 300  # statements whose share that came true is taken to be known
LIKELY = 0.6
THIRDS = ("short", "middling", "long")  # histories, by number of events
SAID = "said"


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
    """Fit on validation, measure on the tests, and write the table."""
    arguments = _arguments()
    dataset = load_dataset(arguments.data)
    parts = mixture_weights(dataset, arguments.cache)
    usual = {name: part.with_targets_of(MIN_TARGET_EVENTS) for name, part in parts.items()}
    rows = list(coverage_rows(dataset.name, usual))
    settings: dict[str, dict[str, object]] = {}
    slices = {"": (usual, MIN_TARGET_EVENTS), " / everybody": (parts, 0)}
    if PeriodLength.parse(dataset.period).unit == "events":
        slices = {"": (parts, 0)}  # all of them have as many events
    for label, (windows, least) in slices.items():
        validation = windows["validation"]
        model = StatementProbabilities.fit(
            validation.windows, validation.weights, min_target_events=least
        )
        settings[f"calibrators{label}"] = {
            kind: {"usual_rate": one.usual_rate, "n": one.n_cases, "fitted": one.is_fitted}
            for kind, one in model.calibrators.items()
        }
        for split, part in windows.items():
            if split != "validation":
                keys = {"dataset": dataset.name, "split": split + label, "seeds": [0]}
                rows += statement_rows(keys, model, part)
    record_results(f"explanations/came_true_{dataset.name}", rows, **settings)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="completejourney")
    parser.add_argument("--cache", type=Path, default=Path("benchmark-cache/came-true"))
    return parser.parse_args()


def coverage_rows(dataset: str, parts: Mapping[str, WeightedWindows]) -> Iterator[Row]:
    """Give the rows of how often counts lie in their 80 % interval, by length of history."""
    validation = parts["validation"]
    spread = fit_dispersion(validation.windows, validation.weights)
    for split, part in parts.items():
        if split == "validation":
            continue
        concentration = spread.concentration(part.histories)
        covered = coverages(part.weights, concentration, part.windows)["coverage80"]
        lengths = [history.n_events for history in part.histories]
        thirds = np.array_split(np.argsort(lengths, kind="stable"), len(THIRDS))
        keys = {"dataset": dataset, "split": split, "model": MIXTURE, "seeds": [0]}
        yield mean_row(keys, "coverage80", covered)
        for label, people in zip(THIRDS, thirds, strict=True):
            of_third = keys | {"split": f"{split} / {label} histories"}
            yield mean_row(of_third, "coverage80", covered[people])


def statement_rows(
    keys: Row, model: StatementProbabilities, part: WeightedWindows
) -> Iterator[Row]:
    """Give the rows of all statements by kind, and of those that would be said."""
    probabilities: dict[str, list[FloatArray]] = {kind: [] for kind in STATEMENT_KINDS}
    outcomes: dict[str, list[BoolArray]] = {kind: [] for kind in STATEMENT_KINDS}
    said: list[list[tuple[str, float, bool]]] = []
    for rows in blocks_of_histories(part.histories):
        histories, weights = part.histories[rows], part.weights[rows]
        true = statement_outcomes(PastCounts.of(histories), target_counts(part.windows[rows]))
        for kind, found in model.probabilities(histories, weights).items():
            known = ~np.isnan(found)
            probabilities[kind].append(found[known])
            outcomes[kind].append(true[kind][known])
        for row, chosen in enumerate(model.choose_statements(histories, weights)):
            said.append(
                [
                    (one.kind, one.probability, bool(true[one.kind][row, one.category]))
                    for one in chosen
                ]
            )
    for kind in STATEMENT_KINDS:
        all_of_kind = Outcomes(np.concatenate(probabilities[kind]), np.concatenate(outcomes[kind]))
        yield from all_of_kind.rows(keys, kind)
    yield from said_rows(keys, said)


def said_rows(keys: Row, said: list[list[tuple[str, float, bool]]]) -> Iterator[Row]:
    """Give the rows of what is said: (kind, probability, whether it came true) a person."""
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


if __name__ == "__main__":
    main()
