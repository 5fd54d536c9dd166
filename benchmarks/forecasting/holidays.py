"""What a language model knows of the calendar, on a log that has seen no earlier year.

Everybody's mix until the end of validation says how far its reading of holidays is trusted; each
forecaster is then judged with and without it. The intervals are over households, who all live
through the same two test periods: they do not say how another Christmas would turn out.

Run: python -m benchmarks.forecasting.holidays
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.results import record
from llmrec.data.counts import target_counts
from llmrec.data.periods import Window
from llmrec.data.readers import load_dataset
from llmrec.data.splits import split_windows, training_windows
from llmrec.evaluation.comparison import PERSISTENCE, REFERENCE
from llmrec.evaluation.evaluator import evaluate_forecasters, summarize
from llmrec.forecast import Forecaster
from llmrec.forecasters.holidays import HolidayForecaster, HolidayScorer
from llmrec.forecasters.precomputed import out_of_sample_weights
from llmrec.forecasters.registry import ForecasterRegistry
from llmrec.language.model import LanguageModel
from llmrec.metrics import bootstrap_interval, log_loss
from llmrec.types import FloatArray

PRIORS = ("DecayedDirichlet", "GlobalDrift", "GatedMixture")
SHOWN = ("log_loss", "drift_captured")
Row = dict[str, Any]


def main() -> None:
    """Fit, judge, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="completejourney")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--kept", type=Path, default=Path("season-reading/scores.json"))
    arguments = parser.parse_args()
    dataset = load_dataset(arguments.data)
    windows = split_windows(dataset)
    validation = windows.pop("validation")
    family = ForecasterRegistry(training_windows(dataset), validation)
    model = LanguageModel.load(arguments.model)
    categories, noun = dataset.catalog.categories, dataset.noun
    reader = HolidayScorer(model, categories, noun, kept=arguments.kept)
    seasons = {name: HolidayForecaster(family[name], reader).fit(validation) for name in PRIORS}
    found = list(fitting_rows(seasons, validation))
    for split, part in windows.items():
        priors = {name: family[name] for name in (PERSISTENCE, *PRIORS)}
        found += test_rows(split, part, priors, seasons)
    about = {"dataset": dataset.name, "seeds": [0]}
    record("season_reading", [about | row for row in found])


def fitting_rows(
    seasons: Mapping[str, HolidayForecaster], validation: Sequence[Window]
) -> Iterator[Row]:
    """Give what was fitted, and losses on validation, whose mix is one of those fitted on."""
    season = seasons[REFERENCE]
    # All of them were fitted alike, on everybody's mix; n are periods.
    counted = {"split": "fitting", "model": "SeasonReading", "low": None, "high": None}
    for metric, value in (("a", season.a), ("decay", season.decay), ("gain_left_out", season.gain)):
        yield counted | {"metric": metric, "value": value, "n": season.n}
    targets = target_counts(validation)
    for name, season in seasons.items():
        assert season.held_out is not None
        before = log_loss(out_of_sample_weights(season.prior, validation), targets)
        after = log_loss(season.held_out.lookup(validation), targets)
        yield from compared("validation (fitted on)", name, before, after)


def test_rows(
    split: str,
    windows: Sequence[Window],
    priors: Mapping[str, Forecaster],
    seasons: Mapping[str, HolidayForecaster],
) -> Iterator[Row]:
    """Give losses and drift captured with and without the reading, and what it gains."""
    models: dict[str, list[Forecaster]] = {name: [prior] for name, prior in priors.items()}
    models |= {titled(name): [season] for name, season in seasons.items()}
    judgement = evaluate_forecasters(models, windows, split=split)
    table = summarize(judgement, reference=REFERENCE, persistence=PERSISTENCE)
    kept = table[(table["slice"] == "all") & table["metric"].isin(SHOWN)]
    for row in kept.drop(columns=["dataset", "slice"]).to_dict("records"):
        yield {str(key): value for key, value in row.items()}
    losses = judgement.scores.pivot(index="user_id", columns="model", values="log_loss")
    for name in seasons:
        before, after = losses[name].to_numpy(), losses[titled(name)].to_numpy()
        yield from list(compared(split, name, before, after))[-1:]


def compared(split: str, name: str, before: FloatArray, after: FloatArray) -> Iterator[Row]:
    """Give the mean loss without and with the reading, and what it takes off, over users."""
    for model, metric, values in (
        (name, "log_loss", before),
        (titled(name), "log_loss", after),
        (titled(name), "gain_on_prior", before - after),
    ):
        mean, low, high = bootstrap_interval(values)
        about = {"split": split, "model": model, "metric": metric, "n": len(values)}
        yield about | {"value": mean, "low": low, "high": high}


def titled(name: str) -> str:
    """Name a forecaster with the reading on top."""
    return f"SeasonReading({name})"


if __name__ == "__main__":
    main()
