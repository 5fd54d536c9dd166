"""What an LLM's category scores and titles add to numeric forecasters, and where."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.harness.cached_model import FineTunedRun
from benchmarks.harness.evaluator import EXPERTS, NUMERIC, Evaluator, histories_of
from benchmarks.harness.formatting import Row
from benchmarks.harness.labels import COUNTING, MIXTURE, SASREC
from llmrec.errors import DataError
from llmrec.evaluation.evaluator import evaluate_forecasters, summarize, user_slices
from llmrec.forecasters.calibration import (
    Calibration,
    fit_calibration,
    fit_interpolation,
    interpolate,
    softmax_update,
)
from llmrec.forecasters.precomputed import PrecomputedForecaster
from llmrec.metrics import log_loss
from llmrec.types import BoolArray, FloatArray

SLICES = ("cold", "stable", "drifting")
METRICS = ("log_loss", "log_loss_gain", "drift_captured", "jsd", "emerging_recall", "coverage80")
HELD_OUT_FILE = "held_out.json"  # in the engine's folder, if the adapter names all categories


def raw_llm_forecast(evaluator: Evaluator, run: FineTunedRun) -> PrecomputedForecaster:
    """softmax(log counting + z) with the category scores z: what training made likely."""
    counting = evaluator.numeric(COUNTING)
    weights = {
        split: softmax_update(
            evaluator.weights(counting, split),
            run.for_split(split).category_scores(evaluator.counting, windows),
            1.0,
            0.0,
        )
        for split, windows in evaluator.windows.items()
    }
    return evaluator.precompute(f"{run.name} (a = 1)", weights)


@dataclass(frozen=True, eq=False)
class ForecastStack:
    """A forecaster with an LLM in it, and the name of the same one without."""

    forecaster: PrecomputedForecaster
    without_llm: str
    calibration: Calibration | None = None


def make_stacks(evaluator: Evaluator, run: FineTunedRun) -> dict[str, ForecastStack]:
    """Every way in which an LLM joins numeric forecasters, by name.

    Calibrations and gates are fitted on validation windows, on weights held out from the numeric
    forecasters; the language model did not learn from these windows either, but its training
    stopped where its loss on them was least.
    """
    name, raw = run.name, raw_llm_forecast(evaluator, run)
    stacks = {raw.name: ForecastStack(raw, COUNTING)}
    stacks |= {
        f"{name} on {prior}": calibrated_stack(evaluator, run, prior)
        for prior in (COUNTING, MIXTURE, SASREC)
    }
    for mixture, experts in EXPERTS.items():
        more = {expert: evaluator.numeric(expert) for expert in experts} | {name: raw}
        stack = f"{mixture} + {name}"
        stacks[stack] = ForecastStack(evaluator.mixture(stack, more), mixture)
    return stacks | _title_stacks(evaluator, run)


def _title_stacks(
    evaluator: Evaluator, run: FineTunedRun, priors: Sequence[str] = (COUNTING, MIXTURE, SASREC)
) -> dict[str, ForecastStack]:
    """Priors with title weights mixed in, in shares chosen on validation.

    There are none if the model has no title embeddings.
    """
    stacks = {}
    for prior in priors if run.model.title_embeddings is not None else ():
        share = title_share(evaluator, run, prior)
        weights = {
            split: interpolate(
                evaluator.weights(evaluator.numeric(prior), split),
                run.for_split(split).title_weights(evaluator.counting, windows),
                share,
            )
            for split, windows in evaluator.windows.items()
        }
        name = f"{run.name} titles in {prior}"
        stacks[name] = ForecastStack(evaluator.precompute(name, weights), prior)
    return stacks


def title_share(evaluator: Evaluator, run: FineTunedRun, prior: str) -> float:
    """Give the share of the title weights in a prior that is best on validation."""
    prior_weights = evaluator.weights(evaluator.numeric(prior), "validation")
    titles = run.for_split("validation").title_weights(evaluator.counting, evaluator.validation)
    share, _ = fit_interpolation(prior_weights, titles, evaluator.targets["validation"])
    return share


def calibrated_stack(evaluator: Evaluator, run: FineTunedRun, prior: str) -> ForecastStack:
    """Category scores on a prior, with the calibration weight that validation chooses."""
    numeric = evaluator.numeric(prior)
    scores = {
        split: run.for_split(split).category_scores(evaluator.counting, windows)
        for split, windows in evaluator.windows.items()
    }
    calibration = fit_calibration(
        evaluator.weights(numeric, "validation"),
        scores["validation"],
        evaluator.targets["validation"],
    )
    weights = {
        split: calibration.apply(evaluator.weights(numeric, split), z)
        for split, z in scores.items()
    }
    forecaster = evaluator.precompute(f"{run.name} on {prior}", weights)
    return ForecastStack(forecaster, prior, calibration)


def numeric_rows(evaluator: Evaluator) -> Iterator[Row]:
    """Evaluate the numeric forecasters alone."""
    yield from _evaluation_rows(evaluator, {})
    yield from emerging_rows(evaluator, {})


def llm_rows(evaluator: Evaluator, run: FineTunedRun) -> Iterator[Row]:
    """Evaluate an LLM in every stack, on all events and on those of emerging categories."""
    stacks = make_stacks(evaluator, run)
    yield from _evaluation_rows(evaluator, stacks)
    yield from _calibration_rows(evaluator, stacks)
    yield from emerging_rows(evaluator, stacks)


def other_log_rows(evaluator: Evaluator, run: FineTunedRun) -> Iterator[Row]:
    """Evaluate an adapter that was trained on another log: zero-shot, and calibrated on this."""
    raw = raw_llm_forecast(evaluator, run)
    stacks = {raw.name: ForecastStack(raw, COUNTING)}
    for prior in (COUNTING, MIXTURE):
        stacks[f"{run.name} on {prior}"] = calibrated_stack(evaluator, run, prior)
    yield from _evaluation_rows(evaluator, stacks)
    yield from _calibration_rows(evaluator, stacks)


def seed_rows(evaluator: Evaluator, *runs: FineTunedRun) -> Iterator[Row]:
    """Evaluate runs that differ by their seed alone: their mean gain, and their mean forecast.

    ``spread_over_seeds`` is the standard deviation of the gain; "averaged" mixes the forecasts.
    """
    n, by_run = len(runs), [_stacks_of_one_seed(evaluator, run) for run in runs]
    for name in by_run[0]:
        stacks = [of_run[name] for of_run in by_run]
        for split in evaluator.tests:
            before = evaluator.losses(evaluator.numeric(stacks[0].without_llm), split)
            gains = np.stack([before - evaluator.losses(s.forecaster, split) for s in stacks])
            weights = [evaluator.weights(stack.forecaster, split) for stack in stacks]
            averaged = log_loss(np.mean(weights, axis=0), evaluator.targets[split])
            spread, people = float(gains.mean(axis=1).std(ddof=1)), gains.shape[1]
            several, mean = f"{name}, {n} seeds", gains.mean(axis=0)
            rows = [
                *evaluator.mean_rows(split, several, "gain_of_llm", mean),
                evaluator.make_row(split, several, "spread_over_seeds", spread, people),
                *evaluator.mean_rows(
                    split, f"{name}, {n} averaged", "gain_of_llm", before - averaged
                ),
            ]
            yield from (row | {"seeds": [run.metadata.seed for run in runs]} for row in rows)


def _stacks_of_one_seed(evaluator: Evaluator, run: FineTunedRun) -> dict[str, ForecastStack]:
    run = replace(run, name="LLM")
    calibrated = {
        f"LLM on {prior}": calibrated_stack(evaluator, run, prior)
        for prior in (COUNTING, MIXTURE, SASREC)
    }
    return calibrated | _title_stacks(evaluator, run)


def _evaluation_rows(evaluator: Evaluator, stacks: Mapping[str, ForecastStack]) -> Iterator[Row]:
    """Give the rows of stacks, or of the numeric forecasters if there are none.

    gain_of_llm is paired with the same without the LLM; gap_closed is the share of the way from
    the gated mixture to the informed reference.
    """
    forecasters = {name: evaluator.numeric(name) for name in (*NUMERIC, MIXTURE, SASREC)}
    forecasters |= {name: stack.forecaster for name, stack in stacks.items()}
    for split in evaluator.tests:
        result = evaluate_forecasters(
            {name: [forecaster] for name, forecaster in forecasters.items()},
            evaluator.windows[split],
            dataset=evaluator.dataset.name,
            split=split,
        )
        table = summarize(result, reference=COUNTING, persistence=MIXTURE)
        chosen = table[(table["slice"] == "all") & table["metric"].isin(METRICS)]
        for row in chosen.drop(columns="slice").to_dict("records"):
            if row["model"] in (stacks or forecasters) and np.isfinite(row["value"]):
                metric = str(row["metric"]).replace("drift_captured", "gap_closed")
                yield {str(key): value for key, value in row.items()} | {
                    "metric": metric,
                    "seeds": [0],
                }
        scores = result.scores.pivot(index="user_id", columns="model", values="log_loss")
        users = result.scores.drop_duplicates("user_id").set_index("user_id").loc[scores.index]
        masks = user_slices(users["drift"], users["periods"])
        for name, stack in stacks.items():
            gains = (scores[stack.without_llm] - scores[name]).to_numpy()
            yield from evaluator.mean_rows(split, name, "gain_of_llm", gains)
            for part in SLICES:
                inside = gains[masks[part].to_numpy()]
                yield from evaluator.mean_rows(f"{split} / {part}", name, "gain_of_llm", inside)
    yield from _validation_rows(evaluator, forecasters if not stacks else {}, stacks)


def _validation_rows(
    evaluator: Evaluator,
    numeric: Mapping[str, PrecomputedForecaster],
    stacks: Mapping[str, ForecastStack],
) -> Iterator[Row]:
    """Give what decides: held-out losses on validation, and gains on the same without the LLM.

    Of what is calibrated only the held-out gain is known, see `_calibration_rows`.
    """
    split = "validation"
    for name, forecaster in numeric.items():
        yield from evaluator.mean_rows(split, name, "log_loss", evaluator.losses(forecaster, split))
    for name, stack in stacks.items():
        if stack.calibration is None:
            loss = evaluator.losses(stack.forecaster, split)
            before = evaluator.losses(evaluator.numeric(stack.without_llm), split)
            yield from evaluator.mean_rows(split, name, "log_loss", loss)
            yield from evaluator.mean_rows(split, name, "gain_of_llm", before - loss)


def _calibration_rows(evaluator: Evaluator, stacks: Mapping[str, ForecastStack]) -> Iterator[Row]:
    for name, stack in stacks.items():
        if fitted := stack.calibration:
            gain, low, high = fitted.gain
            yield evaluator.make_row("validation", name, "a", fitted.a, fitted.n)
            yield evaluator.make_row("validation", name, "gain_of_llm", gain, fitted.n, low, high)


def emerging_rows(evaluator: Evaluator, stacks: Mapping[str, ForecastStack]) -> Iterator[Row]:
    """Evaluate events in categories that the person had never taken, weights renormalised there.

    Gives the rows of stacks, or of counting and the gated mixtures if there are none.
    """
    forecasters = {name: evaluator.numeric(name) for name in (COUNTING, MIXTURE, SASREC)}
    forecasters |= {name: stack.forecaster for name, stack in stacks.items()}
    for split in evaluator.tests:
        histories, targets = histories_of(evaluator.windows[split]), evaluator.targets[split]
        never = np.stack([history.category_counts.sum(axis=0) for history in histories]) == 0
        losses = {
            name: subset_loss(evaluator.weights(forecaster, split), targets, never)
            for name, forecaster in forecasters.items()
        }
        part = f"{split} / emerging"
        for row in evaluator.loss_rows(part, losses):
            if row["model"] in (stacks or forecasters):
                yield row
        for name, stack in stacks.items():
            gain = losses[stack.without_llm] - losses[name]
            yield from evaluator.mean_rows(part, name, "gain_of_llm", gain)


def subset_loss(weights: FloatArray, targets: FloatArray, mask: BoolArray) -> FloatArray:
    """(n,) log-loss of the events in some categories, weights renormalised over them.

    ``mask`` is (n, n_categories) or (n_categories,). NaN for targets without such events.
    """
    inside = np.where(mask, weights, 0.0)
    return log_loss(inside / inside.sum(axis=1, keepdims=True), np.where(mask, targets, 0.0))


def held_out_rows(evaluator: Evaluator, run: FineTunedRun, folder: Path) -> Iterator[Row]:
    """Evaluate an adapter that never saw some categories, on their events and on all."""
    unseen = _unseen_categories(run, folder)
    raw = raw_llm_forecast(evaluator, run)
    forecasters = {COUNTING: evaluator.numeric(COUNTING), raw.name: raw}
    for name, stack in _title_stacks(evaluator, run, (COUNTING,)).items():
        forecasters[name] = stack.forecaster
    parts = {
        "held-out categories": unseen,
        "other categories": ~unseen,
        f"{unseen.sum()} categories held out": np.full_like(unseen, True),
    }
    for split in evaluator.tests:
        weights = {name: evaluator.weights(one, split) for name, one in forecasters.items()}
        for part, mask in parts.items():
            losses = {
                name: subset_loss(q, evaluator.targets[split], mask) for name, q in weights.items()
            }
            yield from evaluator.loss_rows(f"{split} / {part}", losses)


def _unseen_categories(run: FineTunedRun, folder: Path) -> BoolArray:
    """(n_categories,) those that an adapter does not name, or that its folder lists."""
    listed = folder / HELD_OUT_FILE
    seen = set(run.metadata.categories)
    if listed.exists():
        seen -= set(json.loads(listed.read_text(encoding="utf-8")))
    unseen = np.array([category not in seen for category in run.dataset.catalog.categories])
    if not unseen.any():
        raise DataError(
            f"{folder} knows all categories and holds no {HELD_OUT_FILE}: list the names that its "
            "training left out there"
        )
    return unseen
