"""What a fine-tuned model writes: numbers in lines, lines that parse, and claims that are true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial

import numpy as np

from benchmarks.harness.evaluator import COUNTING, Court, Row, histories
from benchmarks.finetuning.parse_rate import read_or_why, wilson
from benchmarks.harness.cached_model import Tuned
from llmrec.data.counts import target_counts
from llmrec.data.periods import Window
from llmrec.data.splits import sample_windows
from llmrec.evaluation.track_record import realized_claims, statement_precision
from llmrec.explain.describe import describe_with_model
from llmrec.forecast import Forecast
from llmrec.forecasters.calibration import fit_interpolation, interpolate, softmax_update
from llmrec.forecasters.precomputed import predict_weights
from llmrec.metrics import log_loss, percentile_interval, resampled_means
from llmrec.types import FloatArray

SAMPLES, POOL = 4, 0.1  # lines a person, and how far `LLMForecaster` trusts them by itself
EXAMPLES = 10


def written(court: Court, tuned: Tuned, users: int) -> Iterator[Row]:
    """Judge the numbers that the model writes beside those that it is read for, of the same users.

    Lines are mixed into counting: with the share that is the default, and with the one of least
    loss on as many validation users.
    """
    lines = {split: _lines(court, tuned, split, users) for split in court.windows}
    validation = sample_windows(court.validation, users)
    counted = court.counting.category_weights(histories(validation))
    share, _ = fit_interpolation(counted, lines["validation"], target_counts(validation))
    chosen = f"{tuned.name} generated (share fitted)"
    yield court.single("validation", chosen, "share", share, len(validation))
    for split in court.tests:
        windows = sample_windows(court.windows[split], users)
        targets, counted = (
            target_counts(windows),
            court.counting.category_weights(histories(windows)),
        )
        z = tuned.read(court.counting, windows)
        read = f"{tuned.name} (a = 1)"
        losses = {
            COUNTING: log_loss(counted, targets),
            read: log_loss(softmax_update(counted, z, 1.0, 0.0), targets),
            f"{tuned.name} generated (share {POOL})": log_loss(
                interpolate(counted, lines[split], POOL), targets
            ),
            chosen: log_loss(interpolate(counted, lines[split], share), targets),
        }
        part = f"{split} / generated"
        yield from court.compared(part, losses)
        for name in list(losses)[2:]:
            ratio, low, high = _ratio(losses[name], losses[read])
            yield court.single(part, name, "ratio_to_read", ratio, len(windows), low, high)


def _lines(court: Court, tuned: Tuned, split: str, users: int) -> FloatArray:
    """(n_windows, n_categories) mean of what constrained lines say, nothing mixed in."""
    windows = sample_windows(court.windows[split], users)
    writer = tuned.on(split).forecaster(
        court.counting, windows, weights="generate", pool=1.0, samples=SAMPLES
    )
    return predict_weights(writer, histories(windows))


def _ratio(above: FloatArray, below: FloatArray) -> tuple[float, float, float]:
    """Ratio of two means over the same users, with its interval."""
    both = np.stack((above, below), axis=1)
    drawn = resampled_means(both)
    return float(above.mean() / below.mean()), *percentile_interval(drawn[:, 0] / drawn[:, 1])


def parsed(court: Court, tuned: Tuned, users: int, prompts: int) -> Iterator[Row]:
    """Count what parses: of lines decoded freely for some prompts, and of those of `written`."""
    for way, n, temperature in (("constrained", users, 1.0), ("free", prompts, 0.0)):
        if not n:
            continue
        windows = sample_windows(court.validation, n)
        asked = tuned.on("validation")
        codec = asked.forecaster(court.counting, windows).codec
        requests = [codec.completion_prompt(history) for history in histories(windows)]
        grammar = codec.grammar() if way == "constrained" else None
        lines = asked.model.generate(requests, constrain=grammar, temperature=temperature)
        reasons = Counter(read_or_why(codec, line.text) for line in lines)
        print(tuned.name, way, dict(reasons), f"example: {lines[0].text!r}", flush=True)
        hits = {"parse_rate": reasons["parsed"], "ended": sum(line.finished for line in lines)}
        for metric, found in hits.items():
            share, bounds = found / len(lines), wilson(found, len(lines))
            name = f"{tuned.name} {way}"
            yield court.single("validation / lines", name, metric, share, len(lines), *bounds)


def words(court: Court, tuned: Tuned, users: int) -> Iterator[Row]:
    """Judge claims: by the checker, and by the true next period.

    First those that the model makes of itself, then what it puts in words of what is true.
    """
    for split in court.tests:
        windows = sample_windows(court.windows[split], users)
        people = histories(windows)
        speaker = tuned.forecaster(court.counting, windows)
        speaker.fit(
            court.validation,
            scores=tuned.on("validation").read(court.counting, court.validation),
        )
        forecasts = speaker.forecast(people)
        say = partial(describe_with_model, tuned.model, speaker.codec, people, forecasts)
        of_itself = statement_precision(windows, say(unconstrained=True))
        told = say()
        if split == court.tests[0]:
            _print_examples(windows, told)
        chosen = statement_precision(windows, told)
        name = tuned.name
        shares = [
            (f"{name} freely", "claims_supported", of_itself.proposed, of_itself.n_claims),
            (name, "claims_supported", chosen.proposed, chosen.n_claims),
            (name, "statements_supported", chosen.shown, chosen.n_statements),
            (name, "statements_come_true", chosen.came_true, chosen.n_statements),
        ]
        for model, metric, share, n in shares:
            if n:
                bounds = wilson(round(share * n), n)
                yield court.single(f"{split} / words", model, metric, share, n, *bounds)


def _print_examples(windows: list[Window], forecasts: list[Forecast]) -> None:
    for window, forecast in list(zip(windows, forecasts, strict=True))[:EXAMPLES]:
        claims = [(statement.kind, statement.category) for statement in forecast.statements]
        came = ", ".join("true" if true else "false" for true in realized_claims(window, claims))
        source = forecast.source
        print(f"{window.history.user_id}: {forecast.description}")
        print(f"  came: {came}; the model's own: {source.proposed}, rejected: {source.rejected}")
