"""What one more event costs where the model reads on from what it read of a person before.

People of a shipped engine's log who have enough events are cut just before and just after one of
them; periods are anchored to the calendar. Each is read as a whole, and read on from the prompt
without the event: CPU milliseconds of one thread from the history to the category scores, with the
writing of the prompt. Prompts are those of the engine (its budget), and, with --budget, longer
ones. Weights are the calibrated ones, of either way of reading.

- times faster: whole prompt by read on, the median over people; low and high are the quartiles
- share read before: positions of the prompt that the model did not read again
- largest change of a weight: read on against read as a whole, after ``--events`` events in a row

With --merge-steps also: log-loss on validation windows of people whose prompts merge ticks, minus

Run: python -m benchmarks.speed.append_llm --data ml-100k --budget 640
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import torch

from benchmarks.harness.formatting import Row
from benchmarks.harness.results import mean_row, record_results, value_row
from llmrec.data.calendar import MILLISECOND, PeriodLength
from llmrec.data.counts import target_counts
from llmrec.data.dataset import Dataset
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, make_event_history, make_histories, split_into_ticks
from llmrec.data.readers import load_dataset
from llmrec.data.splits import sample_windows, split_windows
from llmrec.engine import InterestEngine
from llmrec.engine_language import LoadedLanguage
from llmrec.forecasters.llm import LLMForecaster
from llmrec.language.prefixes import CachePrecision
from llmrec.metrics import log_loss
from llmrec.types import FloatArray

MARGIN, MIN_TIMES = 20, 20  # positions beside the ticks; times at which a person took something
PRECISIONS: tuple[CachePrecision, ...] = ("float32", "float16")


def main() -> None:
    """Measure one of the shipped engines, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="ml-100k")
    parser.add_argument("--budget", type=int, default=0, help="positions; default: the engine's")
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--events", type=int, default=4)
    parser.add_argument("--merge-steps", type=int, nargs="*", default=[])
    parser.add_argument("--windows", type=int, default=150)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = load_dataset(arguments.data)
    engine = InterestEngine.from_pretrained(data=dataset)
    language = engine.language
    assert language is not None
    codec = language.codec
    codec.budget = arguments.budget or codec.budget
    keys: Row = {"dataset": arguments.data, "split": f"budget {codec.budget}", "seeds": [0]}
    people = [*draw_people(dataset, arguments.people, codec.budget, arguments.events)]
    forecaster = language.calibrated_forecaster(engine.prior, engine.settings.titles)
    rows = [row for p in PRECISIONS for row in measure(keys, forecaster, language, people, p)]
    rows += merging_rows(keys, engine, dataset, arguments.merge_steps, arguments.windows)
    longer = f"_{arguments.budget}" if arguments.budget else ""
    record_results(f"speed/append_llm_{arguments.data}{longer}", rows)


def draw_people(dataset: Dataset, n: int, budget: int, n_events: int) -> Iterator[list[History]]:
    """Yield people's histories after each of some events; the budget just holds the last."""
    log, length = dataset.log, PeriodLength.parse(dataset.period)
    length = replace(length, anchor="calendar")
    users = np.random.default_rng(0).permutation(log.n_users).tolist()
    ends = (ends for user in users if (ends := _ends(log, user, length, budget, n_events)))
    for user, chosen in islice(ends, n):
        yield [history_up_to(dataset, length, user, end) for end in chosen]


def _ends(
    log: Interactions, user: int, length: PeriodLength, budget: int, n_events: int
) -> tuple[int, list[int]] | None:
    """Give log positions after events of a person; None if there are too few."""
    first, stop = (int(place) for place in log.user_offsets[user : user + 2])
    if length.unit == "events":  # each event is a tick, and a few positions are the header's
        last = first + budget - MARGIN
        return (user, [*range(last - n_events, last + 1)]) if last <= stop else None
    later = log.timestamp[first + 1 : stop] > log.timestamp[first : stop - 1]
    ends = [*(first + 1 + np.flatnonzero(later)), stop]  # events of one time come together
    return (user, ends[-1 - n_events :]) if len(ends) > max(n_events, MIN_TIMES) else None


def history_up_to(dataset: Dataset, length: PeriodLength, user: int, stop: int) -> History:
    """Give a person's history just after the event before a log position."""
    log, catalog = dataset.log, dataset.catalog
    cutoff = log.timestamp[stop - 1] + MILLISECOND
    if length.unit == "events":
        return make_event_history(log, catalog, length, user, stop, cutoff)
    return make_histories(log, catalog, length, cutoff, [user])[0]


def measure(
    keys: Row,
    forecaster: LLMForecaster,
    language: LoadedLanguage,
    people: Sequence[Sequence[History]],
    precision: CachePrecision,
) -> Iterator[Row]:
    """Give the rows of one precision."""
    model = language.model
    whole, on, shares, sizes, changes = [], [], [], [], []
    for histories in people:
        prefixes = language.continue_prompts(precision=precision)
        model.prompt_cache.clear()
        forecaster.category_scores(histories[:1])
        for history in histories[1:]:
            began = time.process_time()
            forecaster.category_scores([history])
            on.append(1e3 * (time.process_time() - began))
            reading = prefixes.reading(history.user_id)
            assert reading is not None
            shares.append(reading.n_continued / reading.n_positions)
            sizes.append((reading.n_positions, prefixes.n_bytes / reading.n_positions))
        (continued,) = forecaster.forecast(histories[-1:])
        model.prefixes = None
        model.prompt_cache.clear()
        began = time.process_time()
        forecaster.category_scores(histories[-1:])
        whole.append(1e3 * (time.process_time() - began))
        (expected,) = forecaster.forecast(histories[-1:])
        changes.append(np.abs(continued.category_weights - expected.category_weights).max())
    n = len(people)
    own = keys | {"model": f"cache of {precision}"}
    each = np.array(on).reshape(n, -1)
    faster = np.median(np.array(whole)[:, None] / each, axis=1)
    low, high = np.quantile(faster, [0.25, 0.75])
    middle = {"value": np.median(faster), "low": low, "high": high, "n": n}
    yield own | {"metric": "times faster"} | middle
    yield value_row(own, "ms, whole prompt", float(np.median(whole)), n)
    yield value_row(own, "ms, read on", float(np.median(each)), n)
    yield value_row(own, "positions of a prompt", float(np.median([size for size, _ in sizes])), n)
    yield mean_row(own, "share read before", np.array(shares).reshape(n, -1).mean(axis=1))
    yield value_row(own, "bytes a position", float(np.median([size for _, size in sizes])), n)
    yield value_row(own, "largest change of a weight", float(max(changes)), n)


def merging_rows(
    keys: Row, engine: InterestEngine, dataset: Dataset, steps: Sequence[int], n_windows: int
) -> Iterator[Row]:
    """Give the rows of codecs that merge several ticks at once."""
    language = engine.language
    assert language is not None
    if not steps:
        return
    windows = [
        window
        for window in split_windows(dataset)["validation"]
        if len(split_into_ticks(window.history)[0]) > language.codec.budget
    ]
    windows = sample_windows(windows, n_windows, 0)
    losses: dict[int, FloatArray] = {}
    for step in (1, *steps):
        language.codec.merge_step = step
        found = language.forecaster(engine.prior, engine.settings.titles).forecast(
            [window.history for window in windows]
        )
        weights = np.stack([forecast.category_weights for forecast in found])
        losses[step] = log_loss(weights, target_counts(windows))
        if step > 1:
            own = keys | {"model": f"merged by {step}"}
            yield mean_row(own, "log-loss minus that of merged by 1", losses[step] - losses[1])
    language.codec.merge_step = 1


if __name__ == "__main__":
    main()
