"""What a fine-tuned model generates: numbers in lines, lines that parse, claims that are true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial

import numpy as np

from benchmarks.finetuning.parse_rate import parse_outcome, wilson_interval
from benchmarks.harness.cached_model import FineTunedRun
from benchmarks.harness.evaluator import Evaluator, histories_of
from benchmarks.harness.formatting import Row
from benchmarks.harness.labels import COUNTING
from llmrec.data.counts import target_counts
from llmrec.data.periods import Window
from llmrec.data.splits import sample_windows
from llmrec.evaluation.track_record import realized_claims, statement_precision
from llmrec.explain.describe import describe_with_model
from llmrec.forecast import Forecast
from llmrec.forecasters.calibration import fit_interpolation, interpolate, softmax_update
from llmrec.forecasters.llm import LLMForecaster
from llmrec.forecasters.precomputed import predict_weights
from llmrec.metrics import log_loss, percentile_interval, resampled_means
from llmrec.types import FloatArray

SAMPLES, DEFAULT_SHARE = 4, 0.1  # lines a person, and their share in an `LLMForecaster`
EXAMPLES = 10


def generated_rows(evaluator: Evaluator, run: FineTunedRun, users: int) -> Iterator[Row]:
    """Evaluate generated numbers beside category scores, of the same users.

    Lines are mixed into counting: with the share that is the default, and with the one of least
    loss on as many validation users.
    """
    lines = {split: _line_weights(evaluator, run, split, users) for split in evaluator.windows}
    validation = sample_windows(evaluator.validation, users)
    counted = evaluator.counting.category_weights(histories_of(validation))
    share, _ = fit_interpolation(counted, lines["validation"], target_counts(validation))
    default, fitted = (f"{run.name} generated (share {how})" for how in (DEFAULT_SHARE, "fitted"))
    yield evaluator.make_row("validation", fitted, "share", share, len(validation))
    for split in evaluator.tests:
        windows = sample_windows(evaluator.windows[split], users)
        targets = target_counts(windows)
        counted = evaluator.counting.category_weights(histories_of(windows))
        z = run.category_scores(evaluator.counting, windows)
        scored = f"{run.name} (a = 1)"
        weights = {
            COUNTING: counted,
            scored: softmax_update(counted, z, 1.0, 0.0),
            default: interpolate(counted, lines[split], DEFAULT_SHARE),
            fitted: interpolate(counted, lines[split], share),
        }
        losses = {name: log_loss(q, targets) for name, q in weights.items()}
        part = f"{split} / generated"
        yield from evaluator.loss_rows(part, losses)
        for name in (default, fitted):
            ratio, low, high = _ratio(losses[name], losses[scored])
            metric = "ratio_to_category_scores"
            yield evaluator.make_row(part, name, metric, ratio, len(windows), low, high)


def _line_weights(evaluator: Evaluator, run: FineTunedRun, split: str, users: int) -> FloatArray:
    """(n_windows, n_categories) mean weights of constrained lines, nothing mixed in."""
    windows = sample_windows(evaluator.windows[split], users)
    run = run.for_split(split)
    forecaster = LLMForecaster(
        run.model,
        run.codec(windows),
        evaluator.counting,
        mode="generate",
        generation_weight=1.0,
        samples=SAMPLES,
    )
    return predict_weights(forecaster, histories_of(windows))


def _ratio(numerator: FloatArray, denominator: FloatArray) -> tuple[float, float, float]:
    """Ratio of two means over the same users, with its interval."""
    means = resampled_means(np.stack((numerator, denominator), axis=1))
    ratio = float(numerator.mean() / denominator.mean())
    return ratio, *percentile_interval(means[:, 0] / means[:, 1])


def parse_rows(evaluator: Evaluator, run: FineTunedRun, users: int, prompts: int) -> Iterator[Row]:
    """Count what parses: of unconstrained lines, and of those of `generated_rows`."""
    for way, n, temperature in (("constrained", users, 1.0), ("unconstrained", prompts, 0.0)):
        if not n:
            continue
        windows = sample_windows(evaluator.validation, n)
        validation_run = run.for_split("validation")
        codec = validation_run.codec(windows)
        requests = [codec.completion_prompt(history) for history in histories_of(windows)]
        grammar = codec.line.grammar() if way == "constrained" else None
        lines = validation_run.model.generate(requests, constrain=grammar, temperature=temperature)
        outcomes = Counter(parse_outcome(codec, line.text) for line in lines)
        print(run.name, way, dict(outcomes), f"example: {lines[0].text!r}", flush=True)
        hits = {"parse_rate": outcomes["parsed"], "ended": sum(line.finished for line in lines)}
        for metric, count in hits.items():
            share, bounds = count / len(lines), wilson_interval(count, len(lines))
            name = f"{run.name} {way}"
            yield evaluator.make_row("validation / lines", name, metric, share, len(lines), *bounds)


def statement_rows(evaluator: Evaluator, run: FineTunedRun, users: int) -> Iterator[Row]:
    """Evaluate claims: by the checker, and by the true next period.

    First those of unconstrained lines, then those of lines constrained to what is true.
    """
    for split in evaluator.tests:
        windows = sample_windows(evaluator.windows[split], users)
        histories = histories_of(windows)
        forecaster = run.forecaster(evaluator.counting, windows)
        scores = run.for_split("validation").category_scores(
            evaluator.counting, evaluator.validation
        )
        forecaster.fit(evaluator.validation, scores=scores)
        forecasts = forecaster.forecast(histories)
        describe = partial(describe_with_model, run.model, forecaster.codec, histories, forecasts)
        free = statement_precision(windows, describe(unconstrained=True))
        described = describe()
        if split == evaluator.tests[0]:
            _print_examples(windows, described)
        constrained = statement_precision(windows, described)
        name, n = run.name, constrained.n_statements
        shares = [
            (f"{name} unconstrained", "claims_supported", free.proposed, free.n_claims),
            (name, "claims_supported", constrained.proposed, constrained.n_claims),
            (name, "statements_supported", constrained.shown, n),
            (name, "statements_realized", constrained.came_true, n),
        ]
        for model, metric, share, count in shares:
            if count:
                bounds = wilson_interval(round(share * count), count)
                part = f"{split} / statements"
                yield evaluator.make_row(part, model, metric, share, count, *bounds)


def _print_examples(windows: list[Window], forecasts: list[Forecast]) -> None:
    for window, forecast in list(zip(windows, forecasts, strict=True))[:EXAMPLES]:
        claims = [(statement.kind, statement.category) for statement in forecast.statements]
        outcomes = ", ".join(
            "true" if true else "false" for true in realized_claims(window, claims)
        )
        source = forecast.source
        print(f"{window.history.user_id}: {forecast.description}")
        print(f"  outcome: {outcomes}; proposed: {source.proposed}, rejected: {source.rejected}")
