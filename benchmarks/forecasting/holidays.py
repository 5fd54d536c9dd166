"""What a language model knows of the calendar, on a log that has seen no earlier year.

The calibration weight of its holiday scores is fitted on everybody's mix until the end of
validation; each forecaster is then evaluated with and without them. The intervals are over
households, who all live through the same two test periods: they do not say how another Christmas
would turn out.

Run: python -m benchmarks.forecasting.holidays
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.harness.formatting import Row
from benchmarks.harness.results import record_results
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
METRICS = ("log_loss", "drift_captured")


def main() -> None:
    """Fit, evaluate, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="completejourney")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument(
        "--cache", "--kept", type=Path, default=Path("benchmark-cache/holidays.json")
    )
    arguments = parser.parse_args()
    dataset = load_dataset(arguments.data)
    windows = split_windows(dataset)
    validation = windows.pop("validation")
    registry = ForecasterRegistry(training_windows(dataset), validation)
    model = LanguageModel.load(arguments.model)
    categories, noun = dataset.catalog.categories, dataset.noun
    scorer = HolidayScorer(model, categories, noun, cache_file=arguments.cache)
    adjusted = {name: HolidayForecaster(registry[name], scorer).fit(validation) for name in PRIORS}
    rows = list(fitting_rows(adjusted, validation))
    for split, part in windows.items():
        priors = {name: registry[name] for name in (PERSISTENCE, *PRIORS)}
        rows += test_rows(split, part, priors, adjusted)
    keys = {"dataset": dataset.name, "seeds": [0]}
    record_results("forecasting/holidays", [keys | row for row in rows])


def fitting_rows(
    adjusted: Mapping[str, HolidayForecaster], validation: Sequence[Window]
) -> Iterator[Row]:
    """Give what was fitted, and losses on validation, whose mix is one of those fitted on."""
    fitted = adjusted[REFERENCE]
    # All of them were fitted alike, on everybody's mix; n are periods.
    keys = {"split": "fitting", "model": "HolidayForecaster", "low": None, "high": None}
    for metric, value in (("a", fitted.a), ("decay", fitted.decay), ("gain_left_out", fitted.gain)):
        yield keys | {"metric": metric, "value": value, "n": fitted.n}
    targets = target_counts(validation)
    for name, forecaster in adjusted.items():
        assert forecaster.held_out is not None
        before = log_loss(out_of_sample_weights(forecaster.prior, validation), targets)
        after = log_loss(forecaster.held_out.lookup(validation), targets)
        yield from comparison_rows("validation (fitted on)", name, before, after)


def test_rows(
    split: str,
    windows: Sequence[Window],
    priors: Mapping[str, Forecaster],
    adjusted: Mapping[str, HolidayForecaster],
) -> Iterator[Row]:
    """Give losses and drift captured with and without the holiday scores, and what they gain."""
    models: dict[str, list[Forecaster]] = {name: [prior] for name, prior in priors.items()}
    models |= {title_row(name): [forecaster] for name, forecaster in adjusted.items()}
    result = evaluate_forecasters(models, windows, split=split)
    table = summarize(result, reference=REFERENCE, persistence=PERSISTENCE)
    chosen = table[(table["slice"] == "all") & table["metric"].isin(METRICS)]
    for row in chosen.drop(columns=["dataset", "slice"]).to_dict("records"):
        yield {str(key): value for key, value in row.items()}
    losses = result.scores.pivot(index="user_id", columns="model", values="log_loss")
    for name in adjusted:
        before, after = losses[name].to_numpy(), losses[title_row(name)].to_numpy()
        yield from list(comparison_rows(split, name, before, after))[-1:]


def comparison_rows(split: str, name: str, before: FloatArray, after: FloatArray) -> Iterator[Row]:
    """Give the mean loss over users without and with the holiday scores, and the gain."""
    for model, metric, values in (
        (name, "log_loss", before),
        (title_row(name), "log_loss", after),
        (title_row(name), "gain_on_prior", before - after),
    ):
        mean, low, high = bootstrap_interval(values)
        keys = {"split": split, "model": model, "metric": metric, "n": len(values)}
        yield keys | {"value": mean, "low": low, "high": high}


def title_row(name: str) -> str:
    """Name the row of a forecaster with the holiday scores."""
    return f"HolidayForecaster({name})"


if __name__ == "__main__":
    main()
