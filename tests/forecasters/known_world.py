"""A log whose truth is known: what people will take is drawn from known shares."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import Window
from llmrec.data.windows import make_windows
from llmrec.types import FloatArray

DAY = np.timedelta64(1, "D").astype("timedelta64[s]")
START = np.datetime64("2020-01-01T00:00:00", "s")


def known_world(
    n_people: int = 400,
    n_categories: int = 12,
    n_periods: int = 6,
    concentration: Callable[[int], float] = lambda n_events: 20.0,
    seed: int = 0,
    with_empty: bool = False,
) -> tuple[list[Window], FloatArray]:
    """Windows of a last period, and the (n_windows, n_categories) shares it was drawn around.

    A person's periods have a Poisson number of events of a rate of theirs. Categories are drawn
    from a Dirichlet around the person's shares, period by period; its ``concentration`` is a
    function of the person's expected number of events. ``with_empty``: targets without events, too.
    """
    rng = np.random.default_rng(seed)
    rows, shares = [], {}
    for person in range(n_people):
        name, rate = f"u{person:04d}", float(rng.uniform(3, 25))
        shares[name] = rng.dirichlet(np.full(n_categories, 0.7)) * 0.98 + 0.02 / n_categories
        alpha = concentration(int(rate * n_periods)) * shares[name]
        for period in range(n_periods):
            mix = rng.dirichlet(np.maximum(alpha, 1e-9))
            number = int(rng.poisson(rate)) * int(not with_empty or rng.random() > 0.15)
            for category in rng.choice(n_categories, size=number, p=mix):
                time = START + (period * 7 + rng.random() * 7) * DAY
                rows.append((name, f"i{category:02d}", time))
    events = Interactions.from_frame(
        pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    )
    items = Catalog.from_frame(
        pd.DataFrame(
            {
                "item_id": [f"i{category:02d}" for category in range(n_categories)],
                "title": [f"Item {category}" for category in range(n_categories)],
                "categories": [[f"c{category:02d}"] for category in range(n_categories)],
            }
        )
    )
    cutoff = START + 7 * (n_periods - 1) * DAY
    windows = make_windows(
        events, items, "7D", cutoff, min_periods=2, min_target_events=0 if with_empty else 1
    )
    return windows, np.stack([shares[window.history.user_id] for window in windows])
