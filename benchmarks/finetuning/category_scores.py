"""What reading is worth: beside the numeric family, and where text is the information."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.harness.evaluator import (
    COUNTING,
    MIXTURE,
    NUMERIC,
    SASREC,
    Court,
    Row,
    Stored,
    histories,
)
from benchmarks.harness.cached_model import Tuned
from llmrec.errors import DataError
from llmrec.evaluation.evaluator import evaluate_forecasters, summarize, user_slices
from llmrec.forecasters.calibration import (
    Calibration,
    fit_calibration,
    fit_interpolation,
    interpolate,
    softmax_update,
)
from llmrec.forecasters.registry import MIXTURE_EXPERTS
from llmrec.metrics import log_loss
from llmrec.types import BoolArray, FloatArray

KINDS = ("cold", "stable", "drifting")
SHOWN = ("log_loss", "log_loss_gain", "drift_captured", "jsd", "emerging_recall", "coverage80")
HELD_OUT_FILE = "held_out.json"  # in the engine's folder, if the adapter names all categories


def as_trained(court: Court, tuned: Tuned) -> Stored:
    """Believe the reading in full: softmax(log counting + z), which is what was trained."""
    counting = court.numeric(COUNTING)
    weights = {
        split: softmax_update(
            counting.of(histories(windows)),
            tuned.on(split).read(court.counting, windows),
            1.0,
            0.0,
        )
        for split, windows in court.windows.items()
    }
    return court.stored(f"{tuned.name} (a = 1)", weights)


@dataclass(frozen=True, eq=False)
class Stack:
    """A forecaster that reads, and the same one without."""

    forecaster: Stored
    without: str
    calibration: Calibration | None = None


def stacks(court: Court, tuned: Tuned) -> dict[str, Stack]:
    """Give every way in which a reading joins numbers, by name.

    Calibrations and gates are fitted on validation windows, on weights held out from the numeric
    forecasters; the language model did not learn from these windows either, but its training
    stopped where it read them best.
    """
    name, alone = tuned.name, as_trained(court, tuned)
    found = {alone.name: Stack(alone, COUNTING)}
    found |= {
        f"{name} on {prior}": calibrated(court, tuned, prior)
        for prior in (COUNTING, MIXTURE, SASREC)
    }
    for mixture, experts in ((MIXTURE, MIXTURE_EXPERTS), (SASREC, (*MIXTURE_EXPERTS, "SASRec"))):
        more = {expert: court.numeric(expert) for expert in experts} | {name: alone}
        stack = f"{mixture} + {name}"
        found[stack] = Stack(court.mixture(stack, more), mixture)
    return found | _with_titles(court, tuned)


def _with_titles(
    court: Court, tuned: Tuned, priors: Sequence[str] = (COUNTING, MIXTURE, SASREC)
) -> dict[str, Stack]:
    """Mix what is foretold of titles into priors, with shares chosen on validation.

    A model without a memory foretells none.
    """
    found = {}
    for prior in priors if tuned.model.title_embeddings is not None else ():
        share = title_share(court, tuned, prior)
        weights = {
            split: interpolate(
                court.numeric(prior).of(histories(windows)),
                tuned.on(split).titles(court.counting, windows),
                share,
            )
            for split, windows in court.windows.items()
        }
        name = f"{tuned.name} titles in {prior}"
        found[name] = Stack(court.stored(name, weights), prior)
    return found


def title_share(court: Court, tuned: Tuned, prior: str) -> float:
    """Give the share of the foretold titles in a prior that is best on validation."""
    counted = court.numeric(prior).of(histories(court.validation))
    learned = tuned.on("validation").titles(court.counting, court.validation)
    share, _ = fit_interpolation(counted, learned, court.targets["validation"])
    return share


def calibrated(court: Court, tuned: Tuned, prior: str) -> Stack:
    """Believe the reading as far as validation says, beside a prior."""
    counted = court.numeric(prior)
    scores = {
        split: tuned.on(split).read(court.counting, found) for split, found in court.windows.items()
    }
    fitted = fit_calibration(
        counted.of(histories(court.validation)), scores["validation"], court.targets["validation"]
    )
    weights = {
        split: fitted.apply(counted.of(histories(court.windows[split])), z)
        for split, z in scores.items()
    }
    return Stack(court.stored(f"{tuned.name} on {prior}", weights), prior, fitted)


def family(court: Court) -> Iterator[Row]:
    """Judge the numeric family alone."""
    yield from _judged(court, {})
    yield from emerging(court, {})


def read(court: Court, tuned: Tuned) -> Iterator[Row]:
    """Judge a reading in every stack, on all events and on those of emerging categories."""
    found = stacks(court, tuned)
    yield from _judged(court, found)
    yield from _calibrations(court, found)
    yield from emerging(court, found)


def other(court: Court, tuned: Tuned) -> Iterator[Row]:
    """Judge an adapter that was trained on another log: zero-shot, and calibrated on this one."""
    alone = as_trained(court, tuned)
    found = {alone.name: Stack(alone, COUNTING)}
    for prior in (COUNTING, MIXTURE):
        found[f"{tuned.name} on {prior}"] = calibrated(court, tuned, prior)
    yield from _judged(court, found)
    yield from _calibrations(court, found)


def seeds(court: Court, *runs: Tuned) -> Iterator[Row]:
    """Judge runs that differ by their seed alone: what they gain on average, and averaged.

    A gain's spread is its standard deviation over the seeds; `averaged` mixes their forecasts.
    """
    n, every = len(runs), [_for_each_seed(court, run) for run in runs]
    for name in every[0]:
        found = [stacks[name] for stacks in every]
        for split in court.tests:
            before = court.losses(court.numeric(found[0].without), split)
            gains = np.stack([before - court.losses(one.forecaster, split) for one in found])
            weights = [one.forecaster.of(histories(court.windows[split])) for one in found]
            together = log_loss(np.mean(weights, axis=0), court.targets[split])
            spread, people = float(gains.mean(axis=1).std(ddof=1)), gains.shape[1]
            rows = [
                *court.row(split, f"{name}, {n} seeds", "gain_of_reading", gains.mean(axis=0)),
                court.single(split, f"{name}, {n} seeds", "spread_over_seeds", spread, people),
                *court.row(split, f"{name}, {n} averaged", "gain_of_reading", before - together),
            ]
            yield from (row | {"seeds": [run.about.seed for run in runs]} for row in rows)


def _for_each_seed(court: Court, tuned: Tuned) -> dict[str, Stack]:
    named = replace(tuned, name="LLM")
    read = {
        f"LLM on {prior}": calibrated(court, named, prior) for prior in (COUNTING, MIXTURE, SASREC)
    }
    return read | _with_titles(court, named)


def _judged(court: Court, found: Mapping[str, Stack]) -> Iterator[Row]:
    """Give the rows of stacks, or of the numeric forecasters if there are none.

    gain_of_reading is paired with the same without the reading; gap_closed is the share of the way
    from the gated mixture to the informed reference.
    """
    forecasters = {name: court.numeric(name) for name in (*NUMERIC, MIXTURE, SASREC)}
    forecasters |= {name: stack.forecaster for name, stack in found.items()}
    for split in court.tests:
        windows = court.windows[split]
        asked = {name: [forecaster] for name, forecaster in forecasters.items()}
        judgement = evaluate_forecasters(asked, windows, dataset=court.dataset.name, split=split)
        table = summarize(judgement, reference=COUNTING, persistence=MIXTURE)
        shown = table[(table["slice"] == "all") & table["metric"].isin(SHOWN)]
        for row in shown.drop(columns="slice").to_dict("records"):
            if row["model"] in (found or forecasters) and np.isfinite(row["value"]):
                metric = str(row["metric"]).replace("drift_captured", "gap_closed")
                yield {str(key): value for key, value in row.items()} | {
                    "metric": metric,
                    "seeds": [0],
                }
        scores = judgement.scores.pivot(index="user_id", columns="model", values="log_loss")
        about = judgement.scores.drop_duplicates("user_id").set_index("user_id").loc[scores.index]
        masks = user_slices(about["drift"], about["periods"])
        for name, stack in found.items():
            gains = (scores[stack.without] - scores[name]).to_numpy()
            yield from court.row(split, name, "gain_of_reading", gains)
            for kind in KINDS:
                inside = gains[masks[kind].to_numpy()]
                yield from court.row(f"{split} / {kind}", name, "gain_of_reading", inside)
    yield from _on_validation(court, forecasters if not found else {}, found)


def _on_validation(
    court: Court, numeric: Mapping[str, Stored], found: Mapping[str, Stack]
) -> Iterator[Row]:
    """Give what decides: held-out losses on validation, and gains on the same without reading.

    Of what is calibrated only the held-out gain is known, see `_calibrations`.
    """
    for name, forecaster in numeric.items():
        yield from court.row("validation", name, "log_loss", court.losses(forecaster, "validation"))
    for name, stack in found.items():
        if stack.calibration is None:
            loss = court.losses(stack.forecaster, "validation")
            before = court.losses(court.numeric(stack.without), "validation")
            yield from court.row("validation", name, "log_loss", loss)
            yield from court.row("validation", name, "gain_of_reading", before - loss)


def _calibrations(court: Court, found: Mapping[str, Stack]) -> Iterator[Row]:
    for name, stack in found.items():
        if fitted := stack.calibration:
            gain, low, high = fitted.gain
            yield court.single("validation", name, "a", fitted.a, fitted.n)
            yield court.single("validation", name, "gain_of_reading", gain, fitted.n, low, high)


def emerging(court: Court, found: Mapping[str, Stack]) -> Iterator[Row]:
    """Judge events in categories that the person had never taken, weights renormalised there.

    Gives the rows of stacks, or of counting and the gated mixture if there are none.
    """
    forecasters = {name: court.numeric(name) for name in (COUNTING, MIXTURE, SASREC)}
    forecasters |= {name: stack.forecaster for name, stack in found.items()}
    for split in court.tests:
        people, targets = histories(court.windows[split]), court.targets[split]
        never = np.stack([history.category_counts.sum(axis=0) for history in people]) == 0
        losses = {
            name: inside_loss(f.of(people), targets, never) for name, f in forecasters.items()
        }
        part = f"{split} / emerging"
        for row in court.compared(part, losses):
            if row["model"] in (found or forecasters):
                yield row
        for name, stack in found.items():
            yield from court.row(
                part, name, "gain_of_reading", losses[stack.without] - losses[name]
            )


def inside_loss(weights: FloatArray, targets: FloatArray, inside: BoolArray) -> FloatArray:
    """(n,) log-loss of the events inside some categories, weights renormalised over them.

    ``inside`` is a mask, (n, n_categories) or (n_categories,). NaN for targets without such events.
    """
    kept = np.where(inside, weights, 0.0)
    return log_loss(kept / kept.sum(axis=1, keepdims=True), np.where(inside, targets, 0.0))


def held_out(court: Court, tuned: Tuned, folder: Path) -> Iterator[Row]:
    """Judge an adapter that never saw some categories, on their events and on all."""
    unseen = _unseen(tuned, folder)
    counting, alone = court.numeric(COUNTING), as_trained(court, tuned)
    titles = _with_titles(court, tuned, (COUNTING,))
    parts = {
        "held-out categories": unseen,
        "other categories": ~unseen,
        f"{unseen.sum()} categories held out": np.full_like(unseen, True),
    }
    for split in court.tests:
        people, targets = histories(court.windows[split]), court.targets[split]
        weights = {COUNTING: counting.of(people), alone.name: alone.of(people)}
        weights |= {name: one.forecaster.of(people) for name, one in titles.items()}
        for part, mask in parts.items():
            losses = {name: inside_loss(q, targets, mask) for name, q in weights.items()}
            yield from court.compared(f"{split} / {part}", losses)


def _unseen(tuned: Tuned, folder: Path) -> BoolArray:
    """(n_categories,) those that an adapter does not name, or that its folder lists."""
    listed = folder / HELD_OUT_FILE
    seen = set(tuned.about.categories)
    if listed.exists():
        seen -= set(json.loads(listed.read_text(encoding="utf-8")))
    unseen = np.array([category not in seen for category in tuned.dataset.catalog.categories])
    if not unseen.any():
        raise DataError(
            f"{folder} knows all categories and holds no {HELD_OUT_FILE}: list the names that its "
            "training left out there"
        )
    return unseen
