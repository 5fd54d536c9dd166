"""What a reading lives on: the same people with past, order, names or titles taken away."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.harness.evaluator import COUNTING, Court, Row, histories
from benchmarks.finetuning.category_scores import calibrated, title_share
from benchmarks.harness.cached_model import Tuned
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
PERIODS = (0, 1, 2)  # non-empty ones that are left of a cold user's history
Alter = Callable[[list[Window]], list[Window]]


def cold(court: Court, tuned: Tuned) -> Iterator[Row]:
    """Judge on histories of which the last 0, 1 and 2 non-empty periods are left.

    Counting is what it is elsewhere, and fitted to such histories: how much to trust so little is
    then as well chosen as it can be.
    """
    for n in PERIODS:
        fitted = DecayedDirichlet().fit(newest_periods(court.whole["validation"], n))
        for split in court.tests:
            windows = newest_periods(court.windows[split], n)
            counted = court.counting.category_weights(histories(windows))
            z = tuned.read(court.counting, windows)
            targets = court.targets[split]
            losses = {
                COUNTING: log_loss(counted, targets),
                f"{tuned.name} (a = 1)": log_loss(softmax_update(counted, z, 1.0, 0.0), targets),
                **_of_titles(court, tuned, windows, counted, targets),
            }
            cut = f"{split} / last {n} periods"
            yield from court.compared(cut, losses)
            fitted_loss = log_loss(fitted.category_weights(histories(windows)), targets)
            yield from court.row(cut, f"{COUNTING} fitted to such", "log_loss", fitted_loss)
            gain = fitted_loss - losses[f"{tuned.name} (a = 1)"]
            yield from court.row(cut, f"{tuned.name} (a = 1)", "gain_on_fitted", gain)


def newest_periods(windows: list[Window], n: int) -> list[Window]:
    """Leave the events of the newest n non-empty periods of each history."""
    found = []
    for window in windows:
        sizes = np.diff(window.history.offsets)
        events = int(sizes[sizes > 0][-n:].sum()) if n else 0
        found += truncate_histories([window], events)
    return found


def audits(court: Court, tuned: Tuned, users: int) -> Iterator[Row]:
    """Judge altered against unaltered histories of users of the first test.

    Rows: log_loss_before, log_loss_after and log_loss_change (> 0: it lived on what was taken away)
    of counting, of the reading as trained and as calibrated on counting; and of both readings what
    they gain on counting, before and after.
    """
    split = court.tests[0]
    windows = sample_windows(court.windows[split], users)
    calibration = calibrated(court, tuned, COUNTING).calibration
    assert calibration is not None
    before = _losses(court, tuned, windows, calibration)
    for kind, alter in _kinds(court).items():
        after = _losses(court, tuned, alter(windows), calibration)
        part = f"{split} / {kind}"
        for name, loss in before.items():
            yield from court.row(part, name, "log_loss_before", loss)
            yield from court.row(part, name, "log_loss_after", after[name])
            yield from court.row(part, name, "log_loss_change", after[name] - loss)
            if name != COUNTING:
                yield from court.row(part, name, "gain_before", before[COUNTING] - loss)
                yield from court.row(part, name, "gain_after", after[COUNTING] - after[name])


def _kinds(court: Court) -> dict[str, Alter]:
    found: dict[str, Alter] = {
        "order shuffled": shuffle_events,
        "names without meaning": rename_categories,
        "titles without meaning": anonymize_titles,
    }
    if synonyms := SYNONYMS.get(court.dataset.name):
        found["names of like meaning"] = lambda windows: rename_categories(windows, synonyms)
    return found


def _losses(
    court: Court, tuned: Tuned, windows: list[Window], calibration: Calibration
) -> dict[str, FloatArray]:
    counted = court.counting.category_weights(histories(windows))
    z, targets = tuned.read(court.counting, windows), target_counts(windows)
    weights = {
        COUNTING: counted,
        f"{tuned.name} (a = 1)": softmax_update(counted, z, 1.0, 0.0),
        f"{tuned.name} on {COUNTING}": calibration.apply(counted, z),
    }
    losses = {name: log_loss(q, targets) for name, q in weights.items()}
    return losses | _of_titles(court, tuned, windows, counted, targets)


def _of_titles(
    court: Court, tuned: Tuned, windows: list[Window], counted: FloatArray, targets: FloatArray
) -> dict[str, FloatArray]:
    """Losses of the titles foretold, mixed into counting; none if the model has no memory."""
    if tuned.model.title_embeddings is None:
        return {}
    share = title_share(court, tuned, COUNTING)
    q = interpolate(counted, tuned.titles(court.counting, windows), share)
    return {f"{tuned.name} titles in {COUNTING}": log_loss(q, targets)}
