"""What an LLM's forecast needs: the same people without past, order, names or titles."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.finetuning.category_scores import calibrated_stack, title_share
from benchmarks.harness.cached_model import FineTunedRun
from benchmarks.harness.evaluator import Evaluator, histories_of
from benchmarks.harness.formatting import Row
from benchmarks.harness.labels import COUNTING
from llmrec.data.counts import target_counts
from llmrec.data.periods import Window
from llmrec.data.splits import sample_windows
from llmrec.evaluation.audits import (
    anonymize_titles,
    rename_categories,
    shuffle_events,
    truncate_histories,
)
from llmrec.forecasters.calibration import Calibration, interpolate, softmax_update
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.metrics import log_loss
from llmrec.types import FloatArray

SYNONYMS = {
    "ml-100k": {
        "Action": "Fights and chases",
        "Adventure": "Quests and journeys",
        "Animation": "Cartoons",
        "Children's": "Kids",
        "Comedy": "Funny films",
        "Crime": "Gangsters",
        "Documentary": "True stories",
        "Drama": "Serious films",
        "Fantasy": "Magic",
        "Film-Noir": "Dark classics",
        "Horror": "Scary films",
        "Musical": "Song and dance",
        "Mystery": "Whodunits",
        "Romance": "Love stories",
        "Sci-Fi": "Science fiction",
        "Thriller": "Suspense",
        "War": "Military",
        "Western": "Cowboys",
    },
    "completejourney": {
        "Apples": "Pome Fruit",
        "Baby Foods": "Infant Meals",
        "Baked Bread/Buns/Rolls": "Loaves and Toast",
        "Bath Tissues": "Toilet Paper",
        "Beef": "Steak and Ground Meat",
        "Beers/Ales": "Lager and Stout",
        "Candy - Packaged": "Sweets in Bags",
        "Cat Food": "Feline Meals",
        "Cheese": "Cheddar and Mozzarella",
        "Chicken": "Poultry",
        "Cigarettes": "Smokes",
        "Coffee": "Espresso and Ground Beans",
        "Cold Cereal": "Breakfast Flakes",
        "Condiments/Sauces": "Ketchup and Mustard",
        "Dog Foods": "Canine Meals",
        "Eggs": "Fresh Hen Eggs",
        "Fluid Milk Products": "Milk",
        "Frozen Pizza": "Pizza from the Freezer",
        "Greeting Cards/Wrap/Party Sply": "Birthday Cards",
        "Hair Care Products": "Shampoo",
        "Hot Dogs": "Frankfurters",
        "Ice Cream/Milk/Sherbts": "Frozen Dairy Dessert",
        "Laundry Detergents": "Washing Powder",
        "Lunchmeat": "Sliced Ham and Turkey",
        "Magazine": "Periodicals",
        "Margarines": "Butter Spreads",
        "Oral Hygiene Products": "Toothpaste",
        "Paper Towels": "Kitchen Roll",
        "Pasta Sauce": "Tomato Sauce for Spaghetti",
        "Pork": "Chops and Ham",
        "Potatoes": "Spuds",
        "Soft Drinks": "Soda",
        "Soup": "Broth",
        "Sugars/Sweetners": "Sweetening",
        "Tropical Fruit": "Bananas and Mangoes",
        "Yogurt": "Cultured Milk Cups",
    },
}
PERIODS = (0, 1, 2)  # non-empty ones that are left of a history
Alteration = Callable[[list[Window]], list[Window]]


def cold_start_rows(evaluator: Evaluator, run: FineTunedRun) -> Iterator[Row]:
    """Evaluate on histories of which the last 0, 1 and 2 non-empty periods are left.

    Counting comes twice: as it is elsewhere, and fitted to such histories, so that the weight of
    so few counts is as well chosen as it can be.
    """
    raw = f"{run.name} (a = 1)"
    for n in PERIODS:
        fitted = DecayedDirichlet().fit(keep_last_periods(evaluator.all_windows["validation"], n))
        for split in evaluator.tests:
            windows = keep_last_periods(evaluator.windows[split], n)
            counted = evaluator.counting.category_weights(histories_of(windows))
            z = run.category_scores(evaluator.counting, windows)
            targets = evaluator.targets[split]
            losses = {
                COUNTING: log_loss(counted, targets),
                raw: log_loss(softmax_update(counted, z, 1.0, 0.0), targets),
                **_title_losses(evaluator, run, windows, counted, targets),
            }
            part = f"{split} / last {n} periods"
            yield from evaluator.loss_rows(part, losses)
            fitted_loss = log_loss(fitted.category_weights(histories_of(windows)), targets)
            fitted_name = f"{COUNTING} fitted to short histories"
            yield from evaluator.mean_rows(part, fitted_name, "log_loss", fitted_loss)
            gain = fitted_loss - losses[raw]
            yield from evaluator.mean_rows(part, raw, "gain_on_fitted", gain)


def keep_last_periods(windows: list[Window], n: int) -> list[Window]:
    """Leave the events of the newest n non-empty periods of each history."""
    shortened = []
    for window in windows:
        sizes = np.diff(window.history.offsets)
        events = int(sizes[sizes > 0][-n:].sum()) if n else 0
        shortened += truncate_histories([window], events)
    return shortened


def audit_rows(evaluator: Evaluator, run: FineTunedRun, users: int) -> Iterator[Row]:
    """Evaluate altered against unaltered histories of users of the first test.

    Rows: log_loss_before, log_loss_after and log_loss_change (> 0: it needs what was taken away)
    of counting, of the category scores at a = 1 and calibrated on counting, and of the titles; of
    all but counting also what they gain on counting, before and after.
    """
    split = evaluator.tests[0]
    windows = sample_windows(evaluator.windows[split], users)
    calibration = calibrated_stack(evaluator, run, COUNTING).calibration
    assert calibration is not None
    before = _losses(evaluator, run, windows, calibration)
    for alteration, alter in _alterations(evaluator).items():
        after = _losses(evaluator, run, alter(windows), calibration)
        part = f"{split} / {alteration}"
        for name, loss in before.items():
            values = {
                "log_loss_before": loss,
                "log_loss_after": after[name],
                "log_loss_change": after[name] - loss,
            }
            if name != COUNTING:
                values["gain_before"] = before[COUNTING] - loss
                values["gain_after"] = after[COUNTING] - after[name]
            for metric, value in values.items():
                yield from evaluator.mean_rows(part, name, metric, value)


def _alterations(evaluator: Evaluator) -> dict[str, Alteration]:
    alterations: dict[str, Alteration] = {
        "order shuffled": shuffle_events,
        "names without meaning": rename_categories,
        "titles without meaning": anonymize_titles,
    }
    if synonyms := SYNONYMS.get(evaluator.dataset.name):
        alterations["names of like meaning"] = lambda windows: rename_categories(windows, synonyms)
    return alterations


def _losses(
    evaluator: Evaluator, run: FineTunedRun, windows: list[Window], calibration: Calibration
) -> dict[str, FloatArray]:
    counted = evaluator.counting.category_weights(histories_of(windows))
    z, targets = run.category_scores(evaluator.counting, windows), target_counts(windows)
    weights = {
        COUNTING: counted,
        f"{run.name} (a = 1)": softmax_update(counted, z, 1.0, 0.0),
        f"{run.name} on {COUNTING}": calibration.apply(counted, z),
    }
    losses = {name: log_loss(q, targets) for name, q in weights.items()}
    return losses | _title_losses(evaluator, run, windows, counted, targets)


def _title_losses(
    evaluator: Evaluator,
    run: FineTunedRun,
    windows: list[Window],
    counted: FloatArray,
    targets: FloatArray,
) -> dict[str, FloatArray]:
    """Losses of title weights mixed into counting; none if the model has no title embeddings."""
    if run.model.title_embeddings is None:
        return {}
    share = title_share(evaluator, run, COUNTING)
    q = interpolate(counted, run.title_weights(evaluator.counting, windows), share)
    return {f"{run.name} titles in {COUNTING}": log_loss(q, targets)}
